"""Graphs of decode steps with guesses: what makes them, and what verifies them."""

from __future__ import annotations

from dataclasses import replace

from ..ops.collective import AllGather
from ..ops.dense import Linear
from ..ops.elementwise import Elementwise
from ..ops.node import Graph, Node


def verifying(graph: Graph) -> Graph:
    """The pass over guesses: every token of it needs logits, whatever the engine computes in a prefill."""
    return tuple(_with_all_logits(node) for node in graph)


def _with_all_logits(node: Node) -> Node:
    op = node.op
    if isinstance(op, Linear | AllGather | Elementwise) and op.last_only:
        return replace(node, op=replace(op, last_only=False))
    return node


def own_modules(graph: Graph, depth: float) -> Graph:
    """One pass of a model's `depth` modules that guess tokens ahead, each of which makes one guess."""
    return tuple(replace(node, count=node.count / depth) for node in graph if node.runs == "prediction")


def as_draft(graph: Graph) -> Graph:
    """What always runs beside a model's own nodes, under names and a role that tell it from them."""
    return tuple(
        replace(node, name=f"draft.{node.name.removeprefix('prediction.')}", role="draft", runs="always")
        for node in graph
        if node.runs in {"always", "prediction"}
    )
