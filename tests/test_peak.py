"""Peak memory: its parts, the moment that sets it, and what is left for the cache."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.allocation import Allocation, Buffer, allocation
from llm_perf_model.case import Case
from llm_perf_model.graph.stack import build
from llm_perf_model.ops.base import Live
from llm_perf_model.ops.batch import Batch
from llm_perf_model.peak import LARGE_BYTES, MOMENTS, SEGMENT_BYTES, Memory, memory
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import Cache, EngineSpec, Workspace
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.precision import PrecisionSpec
from llm_perf_model.validation.compare import Score, Validation
from llm_perf_model.validation.mapping import MEMORY_METRICS

from .strategies import DRAWN, cases, powers, wholes, workspaces

PARTS = (
    "weights_bytes", "kv_cache_bytes", "live_bytes", "fragment_bytes", "logits_bytes", "workspace_bytes",
    "comm_buffer_bytes", "graph_bytes", "context_bytes",
)  # fmt: skip
Lengths = tuple[float, float, float]

LENGTHS = st.tuples(wholes(1, 64), wholes(1, 500), wholes(1, 500))
"""Batch, prompt, output."""


CACHES: tuple[Cache, ...] = get_args(Cache)


@st.composite
def buffers(draw: st.DrawFn) -> Buffer:
    """A workspace with or without the cache inside."""
    held, cached = draw(wholes(1, 10_000)), draw(wholes(0, 10_000))
    return Buffer(held + cached, held, draw(st.sampled_from((16.0, 1024.0))), draw(wholes(0, 2**20)))


@st.composite
def allocations(draw: st.DrawFn, cache: Cache | None = None) -> Allocation:
    """Of any engine, cache, workspace and pool, on devices of a thousandth of their size up."""
    kept_as = draw(st.sampled_from(CACHES)) if cache is None else cache
    buffer, of_free = draw(st.none() | buffers()), draw(st.booleans())
    share, room = draw(st.just(1.0) | st.floats(0.1, 1.0)), draw(powers(-3.0, 0.0))
    a = draw(cases()).allocation
    return replace(
        a,
        cache=kept_as,
        kv_token_bytes=0.0 if kept_as == "none" else a.kv_token_bytes or 96.0,
        buffer=buffer,
        pool_of_free=of_free,
        pool_fraction=share,
        capacity_bytes=a.capacity_bytes * room,
    )


def bare(a: Allocation, cache: str) -> Allocation:
    """Nothing but a cache kept in that way."""
    kv = a.kv_token_bytes or 96.0
    return replace(a, live=(), logits=Live(), buffer=None, kv_token_bytes=kv, cache=cache)  # type: ignore[arg-type]


def kept(a: Allocation, lengths: Lengths) -> float:
    """What the whole request takes beside weights and reserve."""
    return float(memory(a, *lengths).kv_cache_bytes)


def sequences_held(a: Allocation, lengths: Lengths, batch_size: float) -> bool:
    return bool(memory(a, batch_size, *lengths[1:]).fits)


# Parts and moments.


@given(allocations(), LENGTHS)
def test_the_peak_is_its_parts(a: Allocation, lengths: Lengths) -> None:
    m = memory(a, *lengths)
    assert m.peak_bytes == pytest.approx(math.fsum(getattr(m, part) for part in PARTS), rel=1e-14)
    assert all(getattr(m, part) >= 0.0 for part in PARTS)
    assert m.activation_bytes == m.live_bytes + m.fragment_bytes + m.logits_bytes + m.workspace_bytes
    assert m.reserve_bytes == m.context_bytes + m.graph_bytes + m.comm_buffer_bytes
    assert m.peak_bytes == m.weights_bytes + m.kv_cache_bytes + m.activation_bytes + m.reserve_bytes
    counted = m.weights_bytes + m.kv_cache_bytes + m.live_bytes + m.logits_bytes + m.workspace_bytes
    assert m.allocated_bytes == pytest.approx(counted, rel=1e-12)


@given(allocations(), LENGTHS)
def test_what_stays_is_that_of_the_allocation(a: Allocation, lengths: Lengths) -> None:
    m = memory(a, *lengths)
    for part in ("weights_bytes", "comm_buffer_bytes", "graph_bytes", "context_bytes", "capacity_bytes", "limit_bytes"):
        assert getattr(m, part) == getattr(a, part), part


@given(allocations(), LENGTHS)
def test_the_moment_is_the_largest(a: Allocation, lengths: Lengths) -> None:
    m = memory(a, *lengths)
    largest = max(m.moment_bytes)
    assert m.moment_bytes[MOMENTS.index(str(m.moment))] == largest
    assert m.peak_bytes == pytest.approx(largest, rel=1e-12)


@given(allocations(), LENGTHS)
def test_each_moment_holds_its_own_tensors(a: Allocation, lengths: Lengths) -> None:
    """Tensors of operators in the prefill and the decode, logits after the prefill and with a decode step."""
    m, (batch_size, input_len, output_len) = memory(a, *lengths), lengths
    stays = m.weights_bytes + m.workspace_bytes + m.reserve_bytes
    quiet = replace(a, live=(), logits=Live())
    cached = [part - stays for part in memory(quiet, *lengths).moment_bytes]
    prompt = Batch.uniform(batch_size, input_len, 0.0)
    step = Batch.uniform(batch_size, 1.0, max(input_len + output_len - 2.0, 0.0))
    if a.pass_tokens is not None:
        ranks = max(a.pass_sequences, 1.0)
        prompt = step = Batch.uniform(ranks, a.pass_tokens / ranks, 0.0)
    rows = max(batch_size, a.pass_sequences)
    live = [a.overallocation * max(live.bytes(batch) for live in a.live) for batch in (prompt, step)]
    logits = [a.logits.token_bytes * n + a.logits.sequence_bytes * rows for n in (batch_size * input_len, batch_size)]
    decodes = float(output_len > 1.0)
    expected = (cached[0] + live[0], cached[1] + logits[0], cached[2] + decodes * (live[1] + logits[1]))
    assert np.allclose(m.moment_bytes, np.asarray(expected) + stays, rtol=1e-12, atol=0.0)


@given(allocations(), wholes(1, 64), wholes(1, 500))
def test_one_output_token_leaves_no_decode(a: Allocation, batch_size: float, input_len: float) -> None:
    m = memory(a, batch_size, input_len, 1.0)
    assert m.moment != "decode" or m.moment_bytes[2] == max(m.moment_bytes[:2])
    stays = m.weights_bytes + m.workspace_bytes + m.reserve_bytes
    assert m.moment_bytes[2] == pytest.approx(stays, rel=1e-14)


@pytest.mark.parametrize(
    ("moment", "engine", "input_len", "output_len"),
    [
        ("prefill", "fastertransformer", 512, 32),
        ("logits", "pytorch-forward", 512, 1),
        ("decode", "hf-eager", 512, 300),
    ],
)
def test_each_moment_can_be_the_worst(moment: str, engine: str, input_len: int, output_len: int) -> None:
    m = lpm.estimate("llama-2-7b", engine=engine, batch_size=16, input_len=input_len, output_len=output_len).memory
    assert m.moment == moment


@given(allocations(), LENGTHS)
def test_it_fits_if_peak_and_what_is_left_free_stay_within_the_limit(a: Allocation, lengths: Lengths) -> None:
    m = memory(a, *lengths)
    needed = m.peak_bytes + m.beside_cache_bytes
    assert m.fits == (needed <= m.limit_bytes)
    assert m.shortfall_bytes == max(needed - m.limit_bytes, 0.0)
    assert m.fits == (m.shortfall_bytes == 0.0)


# More of anything needs no less.


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("axis", [0, 1, 2])
@settings(max_examples=25)
@given(st.data(), LENGTHS, wholes(1, 100))
def test_memory_never_falls_as_a_request_grows(
    axis: int, cache: Cache, data: st.DataObject, lengths: Lengths, more: float
) -> None:
    a, larger = data.draw(allocations(cache)), list(lengths)
    larger[axis] += more
    less, greater = memory(a, *lengths), memory(a, *larger)
    assert greater.peak_bytes >= less.peak_bytes * (1.0 - 1e-12)
    assert all(x >= y for x, y in zip(greater.moment_bytes, less.moment_bytes, strict=True))
    assert greater.workspace_bytes >= less.workspace_bytes
    assert kept(bare(a, a.cache), tuple(larger)) >= kept(bare(a, a.cache), lengths)  # type: ignore[arg-type]
    assert less.fits or not greater.fits


@given(allocations(), LENGTHS)
@pytest.mark.parametrize("cache", ["contiguous", "paged", "concatenated", "concatenated_by_layer"])
def test_twice_the_sequences_have_twice_the_cache(cache: str, a: Allocation, lengths: Lengths) -> None:
    """But for segments that are not full."""
    held = bare(a, cache)
    rounding = 2.0 * (held.cache_tensors + 1.0) * SEGMENT_BYTES if EngineSpec.concatenates(cache) else 0.0  # type: ignore[arg-type]
    twice = kept(held, (2.0 * lengths[0], *lengths[1:]))
    assert twice == pytest.approx(2.0 * kept(held, lengths), rel=1e-12, abs=rounding)


def stored(bytes_per_value: float, kv_bytes: float) -> PrecisionSpec:
    return PrecisionSpec(
        name="drawn",
        title="Drawn",
        assumed=DRAWN,
        weight_bytes=bytes_per_value,
        activation_bytes=bytes_per_value,
        kv_bytes=kv_bytes,
        gemm_peaks=("vector_fp32",),
    )


def stored_as(case: Case, precision: PrecisionSpec, capacity_bytes: float) -> Allocation:
    graph = build(case.model, case.engine, precision, case.layout.tp, case.layout.layer_split)
    a = allocation(case.model, case.gpu, case.engine, precision, case.layout, graph, case.collectives)
    return replace(a, capacity_bytes=capacity_bytes)


def test_a_workspace_holds_the_cache_of_its_own_stage() -> None:
    """Half of the layers on each of two devices: the cache inside the workspace is that of half of them."""
    engine = load(EngineSpec, "deepspeed-inference")
    whole, half = (lpm.estimate("opt-1.3b", engine=engine, layer_split=n).case.allocation for n in (1, 2))
    assert whole.buffer is not None
    assert half.buffer is not None
    assert whole.buffer.cache_bytes == whole.kv_token_bytes
    assert half.buffer.cache_bytes == half.kv_token_bytes == whole.kv_token_bytes / 2


@pytest.mark.parametrize("cache", CACHES)
@settings(max_examples=25)
@given(st.none() | workspaces(), cases(), LENGTHS, st.sampled_from((0.5, 1.0, 2.0)), powers(8.0, 11.0))
def test_memory_never_falls_as_values_grow_wider(
    cache: Cache, workspace: Workspace | None, case: Case, lengths: Lengths, b: float, capacity_bytes: float
) -> None:
    engine = case.engine.model_copy(update={"cache": cache, "workspace": workspace})
    case = replace(case, engine=engine)
    narrow, wide = (memory(stored_as(case, stored(x, x), capacity_bytes), *lengths) for x in (b, 2.0 * b))
    assert wide.peak_bytes >= narrow.peak_bytes * (1.0 - 1e-12)
    assert wide.weights_bytes == 2.0 * narrow.weights_bytes
    assert wide.reserve_bytes == narrow.reserve_bytes


@pytest.mark.parametrize("cache", CACHES)
@settings(max_examples=25)
@given(st.none() | workspaces(), cases(), LENGTHS, st.sampled_from((0.5, 1.0, 2.0)))
def test_memory_never_falls_as_the_cache_grows_wider(
    cache: Cache, workspace: Workspace | None, case: Case, lengths: Lengths, b: float
) -> None:
    case = replace(case, engine=case.engine.model_copy(update={"cache": cache, "workspace": workspace}))
    narrow, wide = (memory(stored_as(case, stored(2.0, x), 1e18), *lengths) for x in (b, 2.0 * b))
    assert all(x >= y * (1.0 - 1e-12) for x, y in zip(wide.moment_bytes, narrow.moment_bytes, strict=True))
    assert wide.weights_bytes == narrow.weights_bytes
    assert wide.pool.tokens <= narrow.pool.tokens


# One number and many.


def numbers(m: Memory) -> dict[str, Any]:
    found = {field.name: getattr(m, field.name) for field in fields(m) if field.name not in {"pool", "moment_bytes"}}
    derived = ("activation_bytes", "reserve_bytes", "peak_bytes", "allocated_bytes", "shortfall_bytes", "fits")
    found |= {name: getattr(m, name) for name in derived} | m.pool._asdict()
    return found | dict(zip(MOMENTS, m.moment_bytes, strict=True))


@given(allocations(), st.lists(LENGTHS, min_size=1, max_size=4))
def test_arrays_hold_what_scalars_give_to_the_last_bit(a: Allocation, rows: list[Lengths]) -> None:
    with np.errstate(all="raise"):
        many = numbers(memory(a, *(np.array(axis) for axis in zip(*rows, strict=True))))
    for index, row in enumerate(rows):
        for name, value in numbers(memory(a, *row)).items():
            assert np.broadcast_to(many[name], len(rows))[index] == value, name


def test_the_axes_of_a_request_broadcast() -> None:
    m = lpm.estimate("llama-2-7b", engine="hf-eager", batch_size=[[1], [64]], input_len=[16, 512, 2048]).memory
    assert np.shape(m.peak_bytes) == np.shape(m.fits) == np.shape(m.moment) == (2, 3)
    assert np.all(np.diff(m.peak_bytes, axis=0) > 0.0)
    assert np.all(np.diff(m.peak_bytes, axis=1) > 0.0)


# Caches.


@given(allocations(), LENGTHS)
def test_a_contiguous_cache_is_there_from_the_start(a: Allocation, lengths: Lengths) -> None:
    held, (batch_size, input_len, output_len) = bare(a, "contiguous"), lengths
    m = memory(held, *lengths)
    assert m.kv_cache_bytes == batch_size * (input_len + output_len) * held.kv_token_bytes
    assert m.moment_bytes[0] == m.moment_bytes[1] == max(m.moment_bytes)


@given(allocations(), LENGTHS, st.sampled_from((1.0, 16.0, 64.0)))
def test_a_paged_cache_rounds_up_to_blocks(a: Allocation, lengths: Lengths, block_tokens: float) -> None:
    held, (batch_size, input_len, output_len) = replace(bare(a, "paged"), block_tokens=block_tokens), lengths
    tokens = kept(held, lengths) / held.kv_token_bytes / batch_size
    assert tokens == pytest.approx(block_tokens * round(tokens / block_tokens), rel=1e-12)
    assert input_len + output_len <= tokens * (1.0 + 1e-12) < input_len + output_len + block_tokens
    assert kept(replace(held, block_tokens=1.0), lengths) == kept(replace(held, cache="contiguous"), lengths)


@given(allocations(), wholes(1, 64), wholes(1, 200), wholes(2, 200))
def test_a_concatenated_cache_holds_old_and_new(
    a: Allocation, batch_size: float, input_len: float, output_len: float
) -> None:
    """n tokens and the n - 1 before them, in tensors too small to be rounded; only one layer's old ones by layer."""
    lengths, last = (batch_size, input_len, output_len), input_len + output_len - 1.0
    small = replace(bare(a, "concatenated"), kv_token_bytes=96.0, cache_tensors=48.0)
    assert kept(small, lengths) == batch_size * (2.0 * last - 1.0) * 96.0
    assert kept(replace(small, cache="concatenated_by_layer"), lengths) == batch_size * (
        last * 96.0 + (last - 1.0) * 96.0 / 48.0
    )
    prompt = batch_size * input_len * 96.0
    for cache in ("concatenated", "concatenated_by_layer"):
        m = memory(replace(small, cache=cache), *lengths)  # type: ignore[arg-type]
        stays = m.weights_bytes + m.reserve_bytes
        assert m.moment_bytes[0] == m.moment_bytes[1] == pytest.approx(stays + prompt, rel=1e-14)
        assert kept(replace(small, cache=cache), (batch_size, input_len, 1.0)) == prompt  # type: ignore[arg-type]


@given(allocations(), wholes(1, 10_000), wholes(1, 64))
def test_large_tensors_of_a_concatenated_cache_are_whole_segments(
    a: Allocation, tokens: float, cache_tensors: float
) -> None:
    held = replace(bare(a, "concatenated"), kv_token_bytes=8192.0 * cache_tensors, cache_tensors=cache_tensors)
    each = kept(held, (1.0, tokens, 1.0)) / cache_tensors
    needed = 8192.0 * tokens
    assert needed <= each < needed + SEGMENT_BYTES
    assert each % SEGMENT_BYTES == 0.0 if needed >= LARGE_BYTES else each == needed


@given(allocations(), LENGTHS)
def test_no_cache_holds_nothing_and_bounds_nothing(a: Allocation, lengths: Lengths) -> None:
    m = memory(replace(bare(a, "none"), kv_token_bytes=0.0), *lengths)
    assert m.kv_cache_bytes == m.beside_cache_bytes == 0.0
    assert m.pool.tokens == m.pool.blocks == m.pool.concurrency == math.inf


def test_a_growing_cache_of_llama_2_7b_by_hand() -> None:
    """64 tensors of 8,192 bytes a token: 16 x 811 new and 16 x 810 old ones, in segments of 2 MiB; 102 MiB each."""
    m = lpm.estimate("llama-2-7b", engine="hf-eager", batch_size=16, input_len=512, output_len=300).memory
    assert (16 * 811 * 8192 / 2**20, 16 * 810 * 8192 / 2**20) == (101.375, 101.25)
    assert m.kv_cache_bytes == 64 * (102 + 102) * 2**20
    m = lpm.estimate("llama-2-7b", engine="hf-dynamic-cache", batch_size=16, input_len=512, output_len=300).memory
    assert m.kv_cache_bytes == (64 * 102 + 102) * 2**20


# Pools.


@given(allocations(), LENGTHS)
def test_a_pool_is_what_the_rest_leaves(a: Allocation, lengths: Lengths) -> None:
    m = memory(a, *lengths)
    rest = m.peak_bytes - m.kv_cache_bytes
    share = a.pool_fraction if a.pool_of_free else 1.0
    assert m.pool.pool_bytes == pytest.approx(share * (m.limit_bytes - rest), rel=1e-9, abs=1e-3)
    if a.kv_token_bytes:
        copies = 2.0 if a.cache == "concatenated" else 1.0
        assert m.pool.tokens * copies * a.kv_token_bytes == pytest.approx(max(m.pool.pool_bytes, 0.0), rel=1e-12)
        assert m.pool.blocks <= m.pool.tokens / a.block_tokens < m.pool.blocks + 1.0
        each = math.ceil((lengths[1] + lengths[2]) / a.block_tokens)
        assert m.pool.concurrency * each <= m.pool.blocks < (m.pool.concurrency + 1.0) * each


@given(allocations(), LENGTHS, st.sampled_from(("contiguous", "paged")), wholes(-1, 20))
def test_as_many_sequences_as_a_pool_holds_fit_and_one_more_does_not(
    a: Allocation, lengths: Lengths, cache: str, more: float
) -> None:
    """Of an engine whose passes are of fixed size, so that only the cache depends on the sequences."""
    of_pool = replace(a, cache=cache, kv_token_bytes=64.0, buffer=None, logits=Live(), pass_tokens=64.0)  # type: ignore[arg-type]
    of_pool = of_pool if cache == "paged" else replace(of_pool, block_tokens=1.0)
    one = memory(replace(of_pool, pool_fraction=1.0), 1.0, *lengths[1:])
    limit_bytes = one.peak_bytes + (more + 0.5) * one.kv_cache_bytes  # half a sequence is clear of rounding
    of_pool = replace(of_pool, capacity_bytes=limit_bytes / a.pool_fraction)
    concurrency = memory(of_pool, *lengths).pool.concurrency
    assert not sequences_held(of_pool, lengths, concurrency + 1.0)
    assert concurrency == 0.0 or sequences_held(of_pool, lengths, concurrency)


@given(allocations(), LENGTHS, st.floats(0.1, 1.0))
def test_a_cache_takes_no_more_than_its_fraction_of_what_is_free(a: Allocation, lengths: Lengths, f: float) -> None:
    m = memory(replace(a, pool_of_free=True, pool_fraction=f), *lengths)
    free = m.capacity_bytes - (m.peak_bytes - m.kv_cache_bytes)
    assert m.limit_bytes == m.capacity_bytes
    assert m.peak_bytes + m.beside_cache_bytes == pytest.approx(m.capacity_bytes - free + m.kv_cache_bytes / f)
    assume(abs(m.kv_cache_bytes - f * free) > 1e-9 * m.capacity_bytes)
    assert m.fits == (m.kv_cache_bytes <= f * free)


@given(allocations(), LENGTHS, st.floats(0.1, 1.0))
def test_a_fraction_of_the_device_holds_everything(a: Allocation, lengths: Lengths, f: float) -> None:
    m = memory(replace(a, pool_of_free=False, pool_fraction=f), *lengths)
    assert m.beside_cache_bytes == 0.0
    assert m.limit_bytes == f * a.capacity_bytes
    assert m.fits == (m.peak_bytes <= f * a.capacity_bytes)


def test_the_pool_of_vllm_by_hand() -> None:
    """90 % of the device, less weights, graphs, context, a pass of 8,192 tokens and the logits of 256 sequences."""
    e = lpm.estimate("llama-2-7b", engine="vllm", input_len=512, output_len=32)
    spec = load(EngineSpec, "vllm")
    rest = 13_476_831_232 + spec.graph_bytes + spec.context_bytes  # type: ignore[operator]
    rest += 8192 * 2 * (4096 + 3 * 11008) + 256 * 32000 * (2 + 4)
    pool = e.memory.pool
    assert pool.pool_bytes == pytest.approx(0.9 * load(GpuSpec, "a100-sxm-40gb").capacity_bytes - rest, rel=1e-12)
    assert pool.blocks == pool.pool_bytes // (16 * 524_288)
    assert pool.concurrency == pool.blocks // 34 == e.max_batch_size


@pytest.mark.parametrize(("engine", "fraction"), [("tensorrt-llm", 0.9), ("lmdeploy", 0.8), ("deepspeed-mii", 1.0)])
def test_engines_that_take_a_fraction_of_what_is_free(engine: str, fraction: float) -> None:
    m = lpm.estimate("llama-2-7b", engine=engine, batch_size=4, input_len=1000, output_len=24).memory
    rest = m.peak_bytes - m.kv_cache_bytes
    assert m.kv_cache_bytes == 4 * 1024 * 524_288
    assert m.pool.pool_bytes == pytest.approx(fraction * (m.capacity_bytes - rest), rel=1e-12)


# Buffers, graphs, passes of fixed size, what an allocator holds.


@given(allocations(), LENGTHS, wholes(0, 2**30))
def test_graphs_and_buffers_of_exchanges_are_held_throughout(a: Allocation, lengths: Lengths, more: float) -> None:
    for part in ("graph_bytes", "comm_buffer_bytes", "context_bytes"):
        without, with_more = (memory(replace(a, buffer=None, **{part: n}), *lengths) for n in (0.0, more))
        assert with_more.peak_bytes == pytest.approx(without.peak_bytes + more, rel=1e-12)
        assert with_more.moment == without.moment
        assert with_more.reserve_bytes - without.reserve_bytes == pytest.approx(more)
        assert with_more.allocated_bytes == pytest.approx(without.allocated_bytes, rel=1e-9)


def test_captured_graphs_are_those_of_the_engine() -> None:
    for engine, graph_bytes in (("vllm", 2**29), ("tensorrt-llm", 0), ("ideal", 0)):
        assert lpm.estimate("opt-1.3b", engine=engine).memory.graph_bytes == graph_bytes


@given(allocations(), LENGTHS, LENGTHS, st.sampled_from((64.0, 8192.0)))
def test_a_pass_of_fixed_size_does_not_depend_on_the_request(
    a: Allocation, one: Lengths, other: Lengths, pass_tokens: float
) -> None:
    fixed = replace(a, pass_tokens=pass_tokens, buffer=None, logits=Live(), cache="none", kv_token_bytes=0.0)
    assert memory(fixed, *one).peak_bytes == memory(fixed, *other).peak_bytes
    rows = max(a.pass_sequences, 1.0)
    worst = max(live.bytes(Batch.uniform(rows, pass_tokens / rows, 0.0)) for live in a.live)
    assert memory(fixed, *one).live_bytes == worst


@pytest.mark.parametrize(("engine", "batch_size", "rows"), [("vllm", 1, 256), ("vllm", 400, 400), ("ideal", 3, 3)])
def test_logits_are_sized_for_the_sequences_that_an_engine_admits(engine: str, batch_size: int, rows: int) -> None:
    e = lpm.estimate("opt-125m", engine=engine, batch_size=batch_size, input_len=1, output_len=2)
    spec = e.case.allocation.logits
    quiet = replace(e.case.allocation, live=(), cache="none", kv_token_bytes=0.0)
    assert memory(quiet, float(batch_size), 1.0, 2.0).logits_bytes == rows * spec.sequence_bytes > 0.0


@given(allocations(), LENGTHS, st.floats(1.0, 4.0))
def test_an_allocator_holds_more_than_what_is_alive(a: Allocation, lengths: Lengths, over: float) -> None:
    exact, m = (memory(replace(a, overallocation=n), *lengths) for n in (1.0, over))
    assert exact.fragment_bytes == 0.0
    assert m.fragment_bytes == (over - 1.0) * m.live_bytes
    assert m.moment_bytes[1] == exact.moment_bytes[1]
    prompt = Batch.uniform(lengths[0], lengths[1], 0.0)
    if a.pass_tokens is None:
        live_bytes = max(live.bytes(prompt) for live in a.live)
        gained = m.moment_bytes[0] - exact.moment_bytes[0]
        assert gained == pytest.approx((over - 1.0) * live_bytes, abs=1e-9 * m.peak_bytes)


def test_what_pytorch_holds_over_what_is_alive() -> None:
    """A prompt's scores of 32 heads on the A100: 1.184 bytes held for each byte alive, as fitted."""
    m = lpm.estimate("llama-2-7b", engine="hf-transformers", batch_size=8, input_len=512, output_len=2).memory
    over = load(EngineSpec, "hf-transformers").overallocation
    assert over is not None
    assert over > 1.0
    assert m.live_bytes > 0.0
    assert m.fragment_bytes == (over - 1.0) * m.live_bytes


BLOOM = {"model": "bloom-24l-2048h", "gpu": "a100-sxm-80gb", "engine": "deepspeed-inference"}


@pytest.mark.parametrize("batch_size", [1, 16, 128])
def test_a_workspace_is_for_the_tokens_that_it_is_meant_for(batch_size: int) -> None:
    m = lpm.estimate(**BLOOM, batch_size=batch_size, input_len=7, output_len=100).memory
    assert m.workspace_bytes == batch_size * 1024 * 2 * (16 * 2048 + 2 * 16 * 1024)


@pytest.mark.parametrize("batch_size", [300, 600])
def test_a_workspace_is_for_the_tokens_that_fit_beside_the_weights(batch_size: int) -> None:
    """What weights, context and 500 MiB leave, at 327,680 bytes a token, of which 131,072 are held."""
    m = lpm.estimate(**BLOOM, batch_size=batch_size, input_len=7, output_len=100).memory
    free = load(GpuSpec, "a100-sxm-80gb").capacity_bytes - m.weights_bytes - m.context_bytes - 500 * 2**20
    assert batch_size * 1024 > free / 327_680
    assert m.workspace_bytes == pytest.approx(free / 327_680 * 131_072, rel=1e-12)


def test_a_workspace_beside_weights_that_fill_the_device_is_empty() -> None:
    m = lpm.estimate("llama-2-70b", engine="deepspeed-inference").memory
    assert m.workspace_bytes == 0.0
    assert not m.fits


@given(cases(), LENGTHS, powers(6.0, 12.0))
def test_a_workspace_stays_within_what_is_free(case: Case, lengths: Lengths, capacity_bytes: float) -> None:
    a = replace(case.allocation, capacity_bytes=capacity_bytes)
    m = memory(a, *lengths)
    if a.buffer is None:
        assert m.workspace_bytes == 0.0
    else:
        meant = max(a.buffer.max_tokens, lengths[1] + lengths[2])
        assert 0.0 <= m.workspace_bytes <= lengths[0] * meant * a.buffer.held_bytes * (1.0 + 1e-12)
        free = max(capacity_bytes - a.weights_bytes - a.context_bytes - a.buffer.spare_bytes, 0.0)
        assert m.workspace_bytes <= free * (1.0 + 1e-12)


def test_a_cache_inside_a_workspace_counts_once() -> None:
    """13B with 1,024 + 32 tokens: vectors and scores of 1,056 tokens, and their cache, in one buffer."""
    m = lpm.estimate("test-13b", engine="deepspeed-inference", input_len=1024, output_len=32).memory
    vectors, scores, cached = 16 * 5120, 2 * 40 * 1024, 2 * 40 * 5120
    assert m.kv_cache_bytes == 2 * 1056 * cached
    assert m.workspace_bytes == 2 * 1056 * (vectors + scores)


# By hand, and as measured.


def test_weights_and_cache_of_llama_2_7b_by_hand() -> None:
    """6,738,415,616 weights at 2 bytes; 4 sequences of 100 + 28 tokens at 524,288 bytes each."""
    m = lpm.estimate("llama-2-7b", engine="ideal", batch_size=4, input_len=100, output_len=28).memory
    assert m.weights_bytes == 13_476_831_232
    assert m.kv_cache_bytes == 4 * 128 * 524_288
    assert m.capacity_bytes == load(GpuSpec, "a100-sxm-40gb").capacity_bytes < 40 * 2**30


def test_a_forward_pass_of_opt_1_3b_by_hand() -> None:
    """16 x 1,024 tokens with two tensors of 50,272 logits each, at 2 bytes; nothing of the layers is left."""
    e = lpm.estimate("opt-1.3b", gpu="rtx-a6000", engine="pytorch-forward", batch_size=16, input_len=1024, output_len=1)
    assert e.memory.moment == "logits"
    assert e.memory.logits_bytes == 16 * 1024 * 50272 * 2 * 2
    assert e.memory.allocated_bytes == e.memory.weights_bytes + e.memory.logits_bytes


def forward_scores(held: Validation, devices: int) -> list[Score]:
    return [
        score
        for score in held.scores
        if Path(score.record.file).name == "forward_16x1024_a5000_a6000.csv"
        and score.record.metric in MEMORY_METRICS
        and score.record.n_devices == devices
    ]


def test_memory_of_forward_passes_on_one_device_as_measured(held: Validation) -> None:
    """Page "Benchmark" of AICrossSim: six models on RTX A5000 and RTX A6000, allocated bytes."""
    errors = [abs(score.error) for score in forward_scores(held, 1)]
    assert len(errors) == 12
    assert np.mean(errors) <= 0.003
    assert max(errors) <= 0.01
