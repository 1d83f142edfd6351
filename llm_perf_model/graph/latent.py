"""Specs of attention over latent or compressed tokens -> nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..ops.compressed import CompressedScores, Pooling
from ..ops.elementwise import Elementwise
from ..ops.latent import LatentProducts, LatentScores
from ..ops.node import Node
from ..specs.attention import CompressedAttention, LatentAttention
from .attention import indexer
from .parts import Parts


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
    chosen = math.inf
    if spec.indexer is not None:
        chosen = float(spec.indexer.tokens)
        yield from indexer(parts, spec.indexer, q_rank or hidden)
    absorbed = float(ABSORBED_TOKENS) if spec.indexer is None else math.inf
    p = parts.precision
    made = LatentProducts(heads, rank, nope + value, p.weight_bytes, p.activation_bytes, p.read_bytes, absorbed)
    yield from parts.product("kv", "attention", made)
    scores = LatentScores(heads, rank, nope, rope, value, p.activation_bytes, p.kv_bytes, absorbed, chosen)
    yield Node("attention", "attention", scores)
    yield from parts.projection("attention_out", heads * value, hidden, spec.out_bias)


ABSORBED_TOKENS = 128
"""New tokens of a sequence up to which queries meet latent vectors: vLLM's FlashMLA takes such passes as decodes."""


def compressed_attention(parts: Parts, spec: CompressedAttention) -> Iterator[Node]:
    """Queries of narrowed inputs, one key that is its value too, entries of the past, and results by groups."""
    hidden, heads, dim = float(parts.model.hidden), spec.heads / parts.tp, float(spec.head_dim)
    q_rank, groups, p = float(spec.q_rank), spec.out_groups / parts.tp, parts.precision
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
    chosen = float(spec.indexer.tokens) if spec.indexer else math.inf
    ratio = float(spec.ratio or math.inf)
    sizes = (heads, dim, p.activation_bytes, p.kv_bytes, float(spec.window_tokens))
    yield Node("attention", "attention", CompressedScores(*sizes, ratio, chosen, spec.sinks))
    narrowing = parts.linear(heads * dim / groups, float(spec.out_rank), bias=False)
    yield from parts.grouped("attention_narrowing", narrowing, groups)
    yield from parts.projection("attention_out", groups * spec.out_rank, hidden, bias=False)


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
