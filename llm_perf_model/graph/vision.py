"""An encoder of images -> the nodes before and behind its layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from ..ops.dense import Embedding
from ..ops.node import Node
from ..specs.model import Vision
from .ffn import feed_forward
from .parts import Parts


def seeing(parts: Parts, spec: Vision) -> Parts:
    """The builder of its layers: every patch sees every other one, and nothing is cached."""
    changed = {
        "hidden": spec.hidden, "norm": spec.norm, "norm_bias": True, "layers": spec.layers, "causal": False,
        "position": "none" if spec.position_rows else "rotary", "position_buckets": None, "encoder": None,
        "layer_inputs": None, "residual_streams": None,
    }  # fmt: skip
    engine = parts.engine.model_copy(update={"cache": "none", "concatenated_positions": frozenset()})
    return replace(parts, model=parts.model.model_copy(update=changed), engine=engine, searches=False)


def patches(parts: Parts, spec: Vision) -> Iterator[Node]:
    """Values of a patch to a vector, whole on every rank, and what is added to it."""
    hidden, p = float(spec.hidden), parts.precision
    values = float(spec.channels * spec.frames * spec.patch**2)
    yield from parts.product("patches", "embedding", parts.linear(values, hidden, spec.patch_bias))
    rows = float((spec.position_rows or 0) + spec.class_token)
    if rows:
        yield Node("positions", "embedding", Embedding(0.0, (rows,), hidden, 1.0, p.wide_bytes, p.activation_bytes))
    if spec.embedding_norm:
        yield parts.norm_node("embedding_norm", 1.0)


def projection(parts: Parts, spec: Vision) -> Iterator[Node]:
    """Patches to tokens of the model: some are joined, then pass through products, which are whole on every rank."""
    if spec.final_norm:
        yield parts.norm_node("final_norm", 1.0)
    if spec.merged_norm:
        yield parts.norm_node("merged_norm", float(spec.projectors))
    joined, tokens = float(spec.hidden * (1 + spec.tapped) * (1 if spec.pooled else spec.merged)), 1.0 / spec.merged
    widths = [joined, *(float(width) for width in spec.projector)]
    for index, (d_in, d_out) in enumerate(pairwise(widths)):
        if index:
            between = parts.pass_over(d_in, passes=2.0)
            yield Node(f"projector{index}_activation", "ffn", between, float(spec.projectors), steps=tokens)
        for node in parts.product(f"projector{index}", "ffn", parts.linear(d_in, d_out, spec.projector_bias)):
            yield replace(node, count=float(spec.projectors), steps=tokens)
    if spec.projector_ffn is not None:
        behind = replace(parts, model=parts.model.model_copy(update={"hidden": int(widths[-1])}))
        for node in feed_forward(behind, spec.projector_ffn):
            yield replace(node, name=f"projector_{node.name}", steps=tokens)
