"""The edge of what fits: the largest batch and the longest prompt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.allocation import Allocation
from llm_perf_model.frontier import MOST, largest, max_batch_size, max_input_len
from llm_perf_model.peak import memory
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.model import ModelSpec

from .strategies import cases, wholes
from .test_peak import allocations

BEYOND = 2.0 * MOST - 1.0
"""What no bound yields."""

LENGTHS = st.tuples(wholes(1, 64), wholes(1, 500), wholes(1, 500))
"""Batch, prompt, output."""


@st.composite
def tight(draw: st.DrawFn) -> Allocation:
    """A device that holds from half of one small request to a hundred times it, weights and reserve apart."""
    a = draw(allocations())
    one = memory(a, 1.0, 20.0, 20.0)
    stays = a.weights_bytes + one.reserve_bytes
    room = 10.0 ** draw(st.floats(-0.3, 2.0))
    return replace(a, capacity_bytes=(stays + room * (one.peak_bytes - stays)) / a.pool_fraction)


# The search.


@given(st.integers(0, int(BEYOND)))
def test_the_search_finds_the_last_whole_number(edge: int) -> None:
    assert largest(lambda n: n <= edge, MOST) == edge
    assert largest(lambda n: n < edge + 0.5, MOST) == edge


@given(st.lists(st.integers(0, int(BEYOND)), min_size=1, max_size=5))
def test_the_search_finds_each_edge_of_an_array(edges: list[int]) -> None:
    bounds = np.array(edges, dtype=np.float64)
    assert largest(lambda n: n <= bounds, MOST).tolist() == edges


@pytest.mark.parametrize(("most", "found"), [(1.0, 1.0), (2.0, 3.0), (1024.0, 2047.0)])
def test_the_search_ends_below_twice_its_start(most: float, found: float) -> None:
    asked: list[float] = []

    def fits(n: float) -> bool:
        asked.append(n)
        return True

    assert largest(fits, most) == found
    assert len(asked) == np.log2(most) + 1.0
    assert largest(lambda _: False, most) == 0.0


# The largest batch.


@given(tight(), LENGTHS)
def test_the_largest_batch_fits_and_one_more_does_not(a: Allocation, lengths: tuple[float, float, float]) -> None:
    _, input_len, output_len = lengths
    found = max_batch_size(a, input_len, output_len)
    assert found == np.floor(found) >= 0.0
    assert found == 0.0 or memory(a, found, input_len, output_len).fits
    assert found == BEYOND or not memory(a, found + 1.0, input_len, output_len).fits


@given(tight(), LENGTHS, wholes(1, 50))
def test_longer_sequences_leave_no_larger_batch(
    a: Allocation, lengths: tuple[float, float, float], more: float
) -> None:
    _, input_len, output_len = lengths
    assert max_batch_size(a, input_len + more, output_len) <= max_batch_size(a, input_len, output_len)
    assert max_batch_size(a, input_len, output_len + more) <= max_batch_size(a, input_len, output_len)


@given(cases(), wholes(1, 60), wholes(1, 60), st.integers(1, 50))
def test_a_batch_that_fills_the_device_exactly_is_the_largest(
    case: lpm.case.Case, input_len: float, output_len: float, n: int
) -> None:
    plain = replace(case.allocation, buffer=None, pool_fraction=1.0, cache="contiguous", kv_token_bytes=512.0)
    full = replace(plain, capacity_bytes=memory(plain, float(n), input_len, output_len).peak_bytes)
    assert max_batch_size(full, input_len, output_len) == n


@given(cases(), wholes(1, 500), st.floats(0.0, 0.99))
def test_no_batch_and_no_prompt_fits_beside_weights_that_do_not(
    case: lpm.case.Case, input_len: float, share: float
) -> None:
    a = replace(case.allocation, capacity_bytes=share * case.allocation.weights_bytes)
    assert max_batch_size(a, input_len, 10.0) == max_input_len(a, 1.0, 10.0, None) == 0.0


@given(tight(), st.lists(LENGTHS, min_size=1, max_size=3))
def test_arrays_hold_the_largest_batches_of_scalars(a: Allocation, rows: list[tuple[float, float, float]]) -> None:
    _, inputs, outputs = (np.array(axis) for axis in zip(*rows, strict=True))
    many = np.broadcast_to(max_batch_size(a, inputs, outputs), len(rows))
    assert many.tolist() == [max_batch_size(a, row[1], row[2]) for row in rows]


# The longest prompt.


@given(tight(), LENGTHS)
def test_the_longest_prompt_fits_and_one_more_does_not(a: Allocation, lengths: tuple[float, float, float]) -> None:
    batch_size, _, output_len = lengths
    found = max_input_len(a, batch_size, output_len, None)
    assert found == np.floor(found) >= 0.0
    assert found == 0.0 or memory(a, batch_size, found, output_len).fits
    assert found == BEYOND or not memory(a, batch_size, found + 1.0, output_len).fits


@given(tight(), LENGTHS, st.integers(1, 700))
def test_the_longest_prompt_leaves_positions_for_the_output(
    a: Allocation, lengths: tuple[float, float, float], positions: int
) -> None:
    batch_size, _, output_len = lengths
    free, bounded = (max_input_len(a, batch_size, output_len, limit) for limit in (None, positions))
    assert bounded == min(free, max(positions - output_len, 0.0))


@given(tight(), LENGTHS, wholes(1, 50))
def test_more_sequences_leave_no_longer_prompt(a: Allocation, lengths: tuple[float, float, float], more: float) -> None:
    batch_size, _, output_len = lengths
    assert max_input_len(a, batch_size + more, output_len, None) <= max_input_len(a, batch_size, output_len, None)


@given(tight(), st.lists(LENGTHS, min_size=1, max_size=3), st.sampled_from((None, 300)))
def test_arrays_hold_the_longest_prompts_of_scalars(
    a: Allocation, rows: list[tuple[float, float, float]], positions: int | None
) -> None:
    batches, _, outputs = (np.array(axis) for axis in zip(*rows, strict=True))
    many = np.broadcast_to(max_input_len(a, batches, outputs, positions), len(rows))
    assert many.tolist() == [max_input_len(a, row[0], row[2], positions) for row in rows]


@given(tight(), LENGTHS)
def test_batch_and_prompt_agree_on_what_fits(a: Allocation, lengths: tuple[float, float, float]) -> None:
    batch_size, input_len, output_len = lengths
    fits = memory(a, *lengths).fits
    assert fits == (max_batch_size(a, input_len, output_len) >= batch_size)
    assert fits == (max_input_len(a, batch_size, output_len, None) >= input_len)


# Of estimates.


@pytest.mark.parametrize(
    ("model", "gpu", "engine", "tp", "output_len"),
    [
        ("test-13b", "a100-sxm-40gb", "fastertransformer", 1, 32),
        ("test-13b", "a100-sxm-40gb", "fastertransformer", 2, 512),
        ("llama-2-70b", "h100-sxm-80gb", "vllm", 8, 200),
        ("mistral-7b-v0.1", "rtx-4090", "hf-eager", 1, 4000),
        ("opt-13b", "a100-sxm-80gb", "hf-dynamic-cache", 1, 100),
        ("llama-3.1-8b", "h100-sxm-80gb", "tensorrt-llm", 1, 100),
        ("opt-1.3b", "rtx-a6000", "pytorch-forward", 1, 1),
        ("bloom-24l-2048h", "a100-sxm-80gb", "deepspeed-inference", 1, 100),
    ],
)
def test_estimates_at_the_largest_batch_and_beyond(model: str, gpu: str, engine: str, tp: int, output_len: int) -> None:
    def at(batch_size: int) -> lpm.Estimate:
        return lpm.estimate(model, gpu=gpu, engine=engine, tp=tp, batch_size=batch_size, output_len=output_len)

    found = int(at(1).max_batch_size)
    assert found >= 1
    assert at(found).fits
    assert not at(found + 1).fits
    at(found).require_feasible()
    with pytest.raises(lpm.OutOfMemoryError, match=f"a batch of {found}[,;]|a batch of {found}$"):
        at(found + 1).require_feasible()


@pytest.mark.parametrize(("batch_size", "within"), [(1, 4096 - 32), (64, None)])
def test_the_longest_prompt_of_llama_2_7b_ends_at_its_positions_or_at_the_memory(
    batch_size: int, within: int | None
) -> None:
    model = load(ModelSpec, "llama-2-7b")
    assert model.max_positions == 4096
    longest = int(lpm.memory(model, batch_size=batch_size).max_input_len)
    assert longest == within or (within is None and longest < 4096 - 32)
    at = lpm.estimate(model, batch_size=batch_size, input_len=longest)
    beyond = lpm.estimate(model, batch_size=batch_size, input_len=longest + 1)
    at.require_feasible()
    assert bool(beyond.extrapolated) == (within is not None)
    with pytest.raises(lpm.InfeasibleError):
        beyond.require_feasible()


def test_a_model_larger_than_the_card_has_no_batch() -> None:
    e = lpm.estimate("llama-2-70b", gpu="rtx-4090")
    assert e.max_batch_size == 0.0
    assert not e.fits
    with pytest.raises(lpm.OutOfMemoryError, match=r"llama-2-70b needs .* on each rtx-4090"):
        e.require_feasible()
