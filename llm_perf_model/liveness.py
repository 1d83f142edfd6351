"""What is alive at once while a graph runs: the worst operators, and the logits after them."""

from __future__ import annotations

from functools import lru_cache

from .graph.parts import FLOAT32_BYTES
from .identity import Same
from .ops.base import Live
from .ops.elementwise import Elementwise
from .ops.node import Graph, Node, When, running
from .specs.engine import EngineSpec
from .specs.model import ModelSpec
from .specs.precision import PrecisionSpec


def largest_live(graph: Graph, *when: When) -> tuple[Live, ...]:
    """Live tensors of the nodes that can be the worst of a pass, whatever its batch; without casts of logits.

    Of all nodes, or of those that run in such passes.
    """
    return _largest_live(Same(graph), when)


@lru_cache(maxsize=256)
def _largest_live(kept: Same[Graph], when: tuple[When, ...]) -> tuple[Live, ...]:
    graph = running(kept.value, *when) if when else kept.value
    found = dict.fromkeys(node.live for node in graph if not _on_logits(node))
    return tuple(live for live in found if not any(_exceeds(other, live) for other in found))


def _on_logits(node: Node) -> bool:
    return node.role == "head" and isinstance(node.op, Elementwise)


def _exceeds(one: Live, other: Live) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def held_logits(model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec) -> Live:
    """Tensors of logits that are alive together once the head has run; nothing without a head over the vocabulary."""
    if model.head != "lm":
        return Live()
    sizes = {"activations": precision.activation_bytes, "float32": FLOAT32_BYTES}
    sizes["model"] = FLOAT32_BYTES if model.wide_logits else precision.activation_bytes
    row_bytes = model.vocab * sum(sizes[kind] for kind in engine.logits_held)
    return Live(row_bytes) if engine.logits == "all" else Live(sequence_bytes=row_bytes)
