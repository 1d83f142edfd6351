"""Specs of attention over latent or compressed tokens -> nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..ops.attention import FusedAttention
from ..ops.elementwise import Elementwise
from ..ops.latent import LatentProducts, LatentScores
from ..ops.node import Node
from ..ops.pooling import Pooling
from ..specs.attention import CompressedAttention, GroupedQueryAttention, LatentAttention
from .attention import indexer, scores
from .parts import Parts

ABSORBED_TOKENS = 128.0
"""New tokens of a sequence up to which queries meet latent vectors: vLLM's FlashMLA takes such passes as decodes [1]_.

.. [1] vLLM, v1/attention/backends/mla/flashmla.py, reorder_batch_threshold.
"""


def latent_attention(parts: Parts, spec: LatentAttention) -> Iterator[Node]:
    """The narrowing products, whole on every rank; those of a rank's heads; their mixing, and its results' product."""
    hidden, heads = float(parts.model.hidden), spec.heads / parts.tp
    nope, rope, value, rank = (float(n) for n in (spec.nope_dim, spec.rope_dim, spec.value_dim, spec.kv_rank))
    q_rank = float(spec.q_rank or 0)
    if q_rank:
        yield from parts.projection("qkv_narrowing", hidden, q_rank + rank + rope, spec.qkv_bias)
        yield _vector_norm(parts, "qkv_norm", q_rank + rank)
        yield from parts.projection("q", q_rank, heads * (nope + rope), bias=False)
    else:
        yield from parts.projection("q", hidden, heads * (nope + rope), bias=False)
        yield from parts.projection("kv_narrowing", hidden, rank + rope, spec.qkv_bias)
        yield _vector_norm(parts, "kv_norm", rank)
    if not parts.fuses("rotary"):
        yield Node("rotary", "attention", parts.pass_over((heads + 1.0) * rope, 2.0, parts.touches("rotary", 2.0)))
    if spec.indexer is not None:
        yield from indexer(parts, spec.indexer, q_rank or hidden)
    if parts.engine.kind == "eager":  # as reference implementations do, keys and values are made once and cached whole
        yield from parts.projection("kv", rank, heads * (nope + value), bias=False)
        made = GroupedQueryAttention(
            heads=spec.heads, kv_heads=spec.heads, head_dim=spec.nope_dim + spec.rope_dim, value_dim=spec.value_dim
        )
        yield scores(parts.engine, parts.precision, made, heads, heads, parts.model.causal)
    else:
        yield from _two_forms(parts, spec, heads)
    yield from parts.projection("attention_out", heads * value, hidden, spec.out_bias)


def _two_forms(parts: Parts, spec: LatentAttention, heads: float) -> Iterator[Node]:
    """Products that a pass makes keys and values with, or absorbs, and the attention that goes with either.

    Where an indexer picks tokens, each query has its own, so they are not made into keys.
    """
    nope, rope, value, rank = (float(n) for n in (spec.nope_dim, spec.rope_dim, spec.value_dim, spec.kv_rank))
    absorbed = ABSORBED_TOKENS if spec.indexer is None else math.inf
    chosen = math.inf if spec.indexer is None else float(spec.indexer.tokens)
    p = parts.precision
    made = LatentProducts(heads, rank, nope + value, p.weight_bytes, p.activation_bytes, p.read_bytes, absorbed)
    yield from parts.product("kv", "attention", made)
    mixed = LatentScores(heads, rank, nope, rope, value, p.activation_bytes, p.kv_bytes, absorbed, chosen)
    yield Node("attention", "attention", mixed)


def compressed_attention(parts: Parts, spec: CompressedAttention) -> Iterator[Node]:
    """Queries of narrowed inputs, one key that is its value too, entries of the past, and results by groups."""
    hidden, heads, dim = float(parts.model.hidden), spec.heads / parts.tp, float(spec.head_dim)
    q_rank, groups = float(spec.q_rank), spec.out_groups / parts.tp
    yield from parts.projection("qkv_narrowing", hidden, q_rank + dim, bias=False)
    yield _vector_norm(parts, "qkv_norm", q_rank + dim)
    yield from parts.projection("q", q_rank, heads * dim, bias=False)
    yield Node("q_norm", "attention", parts.pass_over(heads * dim, 2.0))
    if not parts.fuses("rotary"):
        turned = parts.pass_over((2.0 * heads + 1.0) * spec.rope_dim, 2.0, parts.touches("rotary", 2.0))
        yield Node("rotary", "attention", turned)
    if spec.ratio is not None:
        yield from _entries(parts, "entries", spec.ratio, dim, spec.indexer is not None)
    if spec.indexer is not None and spec.ratio is not None:
        yield from _entries(parts, "index_entries", spec.ratio, float(spec.indexer.head_dim), overlapping=True)
        yield from indexer(parts, spec.indexer, q_rank, float(spec.ratio))
    yield from _two_pasts(parts, spec, heads)
    narrowing = parts.linear(heads * dim / groups, float(spec.out_rank), bias=False)
    yield from parts.grouped("attention_narrowing", narrowing, groups)
    yield from parts.projection("attention_out", groups * spec.out_rank, hidden, bias=False)


def _two_pasts(parts: Parts, spec: CompressedAttention, heads: float) -> Iterator[Node]:
    """Attention over the window, of which alone the cache keeps single tokens, and over entries of the past."""
    p = parts.precision
    sizes = (heads, 1.0, float(spec.head_dim), p.activation_bytes, p.kv_bytes)
    window = FusedAttention(*sizes, float(spec.window_tokens), sinks=spec.sinks, joined=True, rolling=True)
    yield Node("attention", "attention", window)
    if spec.ratio is not None:
        chosen = float(spec.indexer.tokens) if spec.indexer else math.inf
        entries = FusedAttention(*sizes, chosen, joined=True, entry_tokens=float(spec.ratio))
        yield Node("attention_entries", "attention", entries)


def _entries(parts: Parts, name: str, ratio: int, dim: float, overlapping: bool) -> Iterator[Node]:
    """Products and pooling that make an entry of `ratio` tokens, or of twice as many where they overlap."""
    width = 2.0 * dim if overlapping else dim
    yield from parts.projection(f"{name}_products", float(parts.model.hidden), 2.0 * width, bias=False)
    p = parts.precision
    pooled = Pooling(float(ratio), width, dim, p.activation_bytes, p.wide_bytes)
    yield Node(name, "attention", pooled)


def _vector_norm(parts: Parts, name: str, width: float) -> Node:
    p = parts.precision
    op = Elementwise(width, 2.0, p.activation_bytes, weights=width, weight_bytes=p.wide_bytes)
    return Node(name, "attention", op)
