"""Specs of attention -> nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from ..ops.attention import CacheConcat, FusedAttention, MaterialisedAttention
from ..ops.elementwise import Elementwise
from ..ops.latent import IndexScores
from ..ops.node import Node
from ..ops.source import SourceAttention, SourceGather
from ..specs.attention import CrossAttention, GroupedQueryAttention, Indexer
from ..specs.engine import EngineSpec, Passes
from ..specs.precision import PrecisionSpec
from .parts import Parts

INDEX_BYTES = 1.0
"""Bytes of a value of an index key, which is kept in 8 bits."""

SLOW_ATTENTION_KERNELS = 7.0
"""Split heads, store keys, store values, product, softmax, product, merge heads."""


def scores(
    engine: EngineSpec,
    precision: PrecisionSpec,
    spec: GroupedQueryAttention | CrossAttention,
    heads: float,
    kv_heads: float,
    causal: bool,
    biased: bool = False,
) -> Node:
    """softmax(QK^T)V of one rank's heads, as the engine computes it; keys are cached where queries see the past."""
    sizes = (heads, kv_heads, float(spec.head_dim), precision.activation_bytes, precision.kv_bytes)
    own = spec if isinstance(spec, GroupedQueryAttention) else None
    extras = (float((own and own.value_dim) or 0), bool(own and own.borrowed), bool(own and own.sinks))
    written = MaterialisedAttention(*sizes, causal, biased, 2.0, *extras)
    fast = engine.fast_head_dims
    if fast is not None and spec.head_dim not in fast:
        return Node("attention", "attention", written, kernels=SLOW_ATTENTION_KERNELS + biased, rate="slow_attention")
    match engine.attention:
        case "fused" | "fused_masked":
            all_pairs = engine.attention == "fused_masked" or not causal
            fused = FusedAttention(*sizes, _window(spec), all_pairs, causal, biased, *extras)
            chunk = float((own and own.chunk_tokens) or math.inf)
            rolling = engine.window_cache and bool(own and own.window_tokens)
            return Node("attention", "attention", replace(fused, chunk_tokens=chunk, rolling=rolling))
        case "materialised":
            softmax = engine.passes.get("softmax") or Passes(tensors=2.0, kernels=1.0)
            written = replace(written, softmax_tensors=softmax.tensors)
            return Node("attention", "attention", written, kernels=2.0 + softmax.kernels + biased)  # and two products
        case never:
            assert_never(never)


def _window(spec: GroupedQueryAttention | CrossAttention) -> float:
    """Tokens that a query sees: those of its window, and as many as an indexer picks."""
    if isinstance(spec, CrossAttention):
        return math.inf
    picked = spec.indexer.tokens if spec.indexer else math.inf
    return float(min(spec.window_tokens or math.inf, picked))


def attention(parts: Parts, spec: GroupedQueryAttention) -> Iterator[Node]:
    """Products of queries, keys and values, what is done to them, their mixing, and the product of its results."""
    model, hidden, dim = parts.model, float(parts.model.hidden), float(spec.head_dim)
    heads, kv_heads = parts.heads(spec)
    value_dim = float(spec.value_dim or dim)
    keys = 0.0 if spec.borrowed else kv_heads * dim
    values = 0.0 if spec.borrowed or spec.values_are_keys else kv_heads * value_dim
    gates = {None: 0.0, "value": heads * value_dim, "head": heads}[spec.gate]
    qkv, rotated = heads * dim + keys + values + gates, heads * dim + keys
    yield from parts.projection("qkv", hidden, qkv, spec.qkv_bias)
    if spec.qk_norm:
        yield _qk_norm(parts, rotated, rotated if spec.qk_norm == "whole" else dim * (1.0 + (keys > 0.0)))
    if model.position == "rotary" and spec.rotated and not parts.fuses("rotary"):
        turns = parts.passes("rotary", tensors=2.0)
        rotation = parts.pass_over(rotated, turns.tensors, parts.touches("rotary", 2.0))
        yield Node("rotary", "attention", rotation, kernels=turns.kernels)
    layout = parts.engine.passes.get("layout")
    if layout is not None:
        moved = parts.pass_over(qkv + heads * value_dim, layout.tensors)
        yield Node("layout", "attention", moved, kernels=layout.kernels)
    if not spec.borrowed:
        yield from _moved_cache(parts, kv_heads, (dim + value_dim) / 2.0)
    if spec.indexer is not None:
        yield from indexer(parts, spec.indexer, hidden)
    yield scores(parts.engine, parts.precision, spec, heads, kv_heads, model.causal, model.position == "relative")
    if spec.gate is not None:
        yield Node("attention_gate", "attention", parts.pass_over(heads * value_dim, 2.0 + gates / (heads * value_dim)))
    yield from parts.projection("attention_out", heads * value_dim, hidden, spec.out_bias)


def _qk_norm(parts: Parts, width: float, weights: float) -> Node:
    p = parts.precision
    op = Elementwise(width, 2.0, p.activation_bytes, weights=weights, weight_bytes=p.wide_bytes)
    return Node("qk_norm", "attention", op)


def _moved_cache(parts: Parts, kv_heads: float, dim: float) -> Iterator[Node]:
    """Copies of a cache that grows by concatenation, or is gathered anew for the beams of a step."""
    if parts.engine.concatenates(parts.engine.cache_of(parts.model.position)):
        grown = CacheConcat(kv_heads, dim, parts.precision.kv_bytes)
        yield Node("cache_concat", "attention", grown, kernels=2.0)
    if parts.searches and parts.engine.beams == "copied":
        gathered = CacheConcat(kv_heads, dim, parts.precision.kv_bytes)  # as many bytes, at the rate of a gather
        yield Node("cache_reorder", "attention", gathered, kernels=2.0, rate="elementwise")


def indexer(parts: Parts, spec: Indexer, query_rank: float, ratio: float = 1.0) -> Iterator[Node]:
    """Queries, keys and weights of the small attention that picks tokens, and its scores; whole on every rank."""
    hidden, heads, dim = float(parts.model.hidden), float(spec.heads), float(spec.head_dim)
    yield from parts.projection("index_q", query_rank, heads * dim, bias=False)
    if ratio == 1.0:
        yield from parts.projection("index_k", hidden, dim, bias=False)
        p = parts.precision
        norm = Elementwise(dim, 2.0, p.activation_bytes, weights=2.0 * dim, weight_bytes=p.wide_bytes)
        yield Node("index_norm", "attention", norm)
    yield from parts.projection("index_weights", hidden, heads, bias=False)
    scored = IndexScores(heads, dim, parts.precision.read_bytes, INDEX_BYTES, entry_tokens=ratio)
    yield Node("index_scores", "attention", scored)


def cross_attention(parts: Parts, spec: CrossAttention) -> Iterator[Node]:
    """Keys and values of the encoder's output once, then attention over them in each pass."""
    hidden, dim = float(parts.model.hidden), float(spec.head_dim)
    heads, kv_heads = parts.heads(spec)
    read = parts.projection("cross_kv", hidden, 2.0 * kv_heads * dim, spec.qkv_bias)
    for node in (*read, *_cross_layout(parts, "cross_kv_layout", 2.0 * kv_heads * dim)):
        yield replace(node, runs="first")
    yield from parts.projection("cross_q", hidden, heads * dim, spec.qkv_bias)
    yield from _cross_layout(parts, "cross_layout", 2.0 * heads * dim)  # queries and results
    if parts.searches and parts.engine.beams == "copied":
        gathered = SourceGather(kv_heads, dim, parts.precision.kv_bytes)
        yield Node("cross_reorder", "attention", gathered, kernels=2.0, rate="elementwise")
    seen = scores(parts.engine, parts.precision, spec, heads, kv_heads, causal=False)
    assert isinstance(seen.op, FusedAttention | MaterialisedAttention)
    yield replace(seen, name="cross_attention", op=SourceAttention(seen.op))
    yield from parts.projection("cross_attention_out", heads * dim, hidden, spec.out_bias)


def _cross_layout(parts: Parts, name: str, width: float) -> Iterator[Node]:
    """Half of what lays out queries, keys, values and results where all are of the same tokens."""
    layout = parts.engine.passes.get("layout")
    if layout is not None:
        yield Node(name, "attention", parts.pass_over(width, layout.tensors), kernels=layout.kernels / 2.0)
