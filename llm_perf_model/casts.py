"""Casts of weights that a framework keeps wide and narrows anew in each pass."""

from __future__ import annotations

from collections.abc import Iterator

from .ops.convolution import Convolution
from .ops.dense import Linear
from .ops.elementwise import Elementwise
from .ops.node import Graph, Node


def with_casts(graph: Graph, kept_bytes: float) -> Graph:
    r"""The graph with a pass before each product that reads its p weights wide and writes them narrow.

    .. math:: Q = p (b_k + b_w)

    with b the bytes a weight, kept and narrow. The bias of a dense layer is a tensor, and so a kernel, of its own; a
    norm that is counted with a convolution stays wide.
    """
    return tuple(made for node in graph for made in (*_casts(node, kept_bytes), node))


def _casts(node: Node, kept_bytes: float) -> Iterator[Node]:
    match node.op:
        case Linear(shared=False) as op:
            weights, tensors = op.parameters, 1.0 + op.bias
        case Convolution() as op:
            weights, tensors = op.filters, 1.0
        case _:
            return
    copy = Elementwise(0.0, 0.0, op.activation_bytes, moved_bytes=weights * (kept_bytes + op.weight_bytes))
    yield Node(f"{node.name}_cast", node.role, copy, node.count, kernels=tensors, runs=node.runs)
