"""The pass that verifies guesses: a prefill of few tokens, of which every one needs logits."""

from __future__ import annotations

from dataclasses import replace

from ..ops.collective import AllGather
from ..ops.dense import Linear
from ..ops.elementwise import Elementwise
from ..ops.node import Graph, Node


def verifying(graph: Graph) -> Graph:
    """The graph with logits of all tokens of a pass, whatever the engine computes in a prefill."""
    return tuple(_verifying(node) for node in graph)


def _verifying(node: Node) -> Node:
    op = node.op
    if isinstance(op, Linear | AllGather | Elementwise) and op.last_only:
        return replace(node, op=replace(op, last_only=False))
    return node


def guessing(graph: Graph, depth: float) -> Graph:
    """One of `depth` modules that guess tokens ahead, as the nodes that a pass of a draft runs."""
    return tuple(replace(node, count=node.count / depth, runs="always") for node in graph if node.runs == "prediction")


def as_draft(graph: Graph) -> Graph:
    """The nodes of a draft as parts of another model's phase: under a name and a role of their own."""
    return tuple(replace(node, name=f"draft.{node.name}", role="draft") for node in graph)
