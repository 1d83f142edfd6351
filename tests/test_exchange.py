"""Exchanges between ranks: a ring in pieces, an all-reduce in one kernel, and when which of them runs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_perf_model.case import make_case
from llm_perf_model.exchange import EXCHANGES, exchange_s, one_kernel, ring
from llm_perf_model.ops.base import Cost, Kind
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.collective import AllGather, AllReduce, Transfer
from llm_perf_model.rates import Exchange, Machine, OneKernel
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.layout import LayoutSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .strategies import machines, powers, wholes

RANKS = st.integers(2, 16).map(float)
RING = Exchange(bytes_per_s=100.0, start_s=2.0, hop_s=3.0, chunk_s=0.0)
JOINED = OneKernel(bytes_per_s=100.0, start_s=1.0, rank_s=0.5, barrier_s=4.0, max_bytes=4096.0)
BARE = Machine({}, *[0.0] * 5, exchange=RING)


def reduced(payload_bytes: float, ranks: float) -> Cost:
    """An all-reduce of so many bytes."""
    return AllReduce(payload_bytes, ranks, 1.0).cost(Batch.uniform(1.0, 1.0, 0.0))


def gathered(payload_bytes: float, ranks: float) -> Cost:
    return AllGather(payload_bytes, ranks, 1.0).cost(Batch.uniform(1.0, 1.0, 0.0))


def sent(payload_bytes: float) -> Cost:
    return Transfer(payload_bytes, 1.0).cost(Batch.uniform(1.0, 1.0, 0.0))


# Rings.


def test_a_ring_by_hand() -> None:
    """400 bytes over 4 ranks: 600 bytes in 6 steps; a gathering is half of it."""
    assert ring(reduced(400.0, 4.0), RING) == 2 + 6 * 3 + 600 / 100.0
    assert ring(gathered(400.0, 4.0), RING) == 2 + 3 * 3 + 300 / 100.0


@given(powers(0.0, 9.0), RANKS, powers(-8.0, -3.0))
def test_a_ring_cuts_its_bytes_into_the_pieces_that_cost_least(payload: float, ranks: float, chunk_s: float) -> None:
    """n pieces cost c each, and the first of them is not hidden: n c + y / n, least over every n."""
    cost = reduced(payload, ranks)
    free = ring(cost, RING)
    sent_s = cost.comm_bytes / RING.bytes_per_s
    pieces = np.geomspace(1e-3, 1e9, 20001)
    least_s = float(np.min(pieces * chunk_s + sent_s / pieces))
    added_s = ring(cost, RING._replace(chunk_s=chunk_s)) - free
    assert added_s <= least_s * (1.0 + 1e-6) + 1e-9 * free
    assert added_s == pytest.approx(least_s, rel=1e-5, abs=1e-9 * free)


# One kernel.


def test_one_kernel_by_hand() -> None:
    """Of 4 ranks one reads the 3 others: 3 S in one shot, or after barriers 2 x 3/4 S."""
    assert one_kernel(reduced(100.0, 4.0), JOINED) == 1 + 3 * 0.5 + 300 / 100.0
    assert one_kernel(reduced(4000.0, 4.0), JOINED) == 1 + 3 * 0.5 + 3 * 4 + 6000 / 100.0


@pytest.mark.parametrize("ranks", [4.0, 8.0])
def test_two_shots_win_from_where_their_barriers_are_paid(ranks: float) -> None:
    """(p-1) S / B against (p-1) b + 2 (p-1)/p S / B: equal at S = B b p / (p-2)."""
    edge = 100.0 * 4.0 * ranks / (ranks - 2.0)
    for payload, shots in ((0.99 * edge, 1), (1.01 * edge, 2)):
        cost = reduced(payload, ranks)
        never, always = (one_kernel(cost, JOINED._replace(barrier_s=barrier_s)) for barrier_s in (1e9, 0.0))
        assert one_kernel(cost, JOINED) == (never if shots == 1 else always + 4.0 * (ranks - 1.0))


def test_two_ranks_never_take_two_shots() -> None:
    """Both read as many bytes: barriers are all that tells them apart."""
    cost = reduced(1e9, 2.0)
    assert one_kernel(cost, JOINED) == one_kernel(cost, JOINED._replace(barrier_s=1e9)) == 1 + 0.5 + 1e9 / 100.0


@pytest.mark.parametrize("ranks", [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 16.0])
def test_one_kernel_runs_up_to_its_limit_and_the_ring_beyond(ranks: float) -> None:
    """The tensor is told from what each rank sends; its last byte still belongs to the kernel."""
    both = replace(BARE, one_kernel=JOINED)
    for payload, joined in ((1.0, True), (4096.0, True), (4097.0, False), (1e9, False)):
        cost = reduced(payload, ranks)
        expected = one_kernel(cost, JOINED) if joined else ring(cost, RING)
        assert exchange_s("all_reduce", cost, both) == expected
        assert one_kernel(cost, JOINED) != ring(cost, RING)
        assert exchange_s("all_reduce", cost, BARE) == ring(cost, RING)


def test_only_all_reduces_run_in_one_kernel() -> None:
    both = replace(BARE, one_kernel=JOINED)
    assert exchange_s("collective", gathered(100.0, 4.0), both) == ring(gathered(100.0, 4.0), RING)


# Every exchange.


def test_a_transfer_starts_hops_once_and_sends_its_bytes() -> None:
    staged = replace(BARE, staged_bytes_per_s=10.0)
    assert exchange_s("transfer", sent(500.0), staged) == 2 + 3 + 500 / 100.0
    assert exchange_s("staged", sent(500.0), staged) == 2 + 3 + 500 / 10.0


@pytest.mark.parametrize("kind", ["gemm", "wide_gemm", "expert_gemm", "attention", "elementwise", "concat"])
def test_other_operators_exchange_nothing(kind: Kind) -> None:
    assert kind not in EXCHANGES
    assert exchange_s(kind, Cost(flops=1e9, weight_bytes=1e9), BARE) == 0.0


@given(machines(), st.sampled_from(sorted(EXCHANGES)), powers(0.0, 9.0), RANKS)
def test_an_exchange_takes_no_less_than_its_bytes(m: Machine, kind: Kind, payload: float, ranks: float) -> None:
    cost = sent(payload) if kind in ("transfer", "staged") else reduced(payload, ranks)
    fastest = max(m.exchange.bytes_per_s, m.staged_bytes_per_s, m.one_kernel.bytes_per_s if m.one_kernel else 0.0)
    assert exchange_s(kind, cost, m) >= cost.comm_bytes / fastest * (1.0 - 1e-12)


@given(machines(), st.sampled_from(sorted(EXCHANGES)), powers(0.0, 9.0), st.floats(1.0, 1e3), RANKS)
def test_more_bytes_take_no_less(m: Machine, kind: Kind, payload: float, factor: float, ranks: float) -> None:
    """On one side of the limit of the single kernel; beyond it the ring may be the faster one."""
    few, many = (
        sent(size) if kind in ("transfer", "staged") else reduced(size, ranks) for size in (payload, factor * payload)
    )
    limits = [m] if m.one_kernel is None else [replace(m, one_kernel=None), with_limit(m.one_kernel, m)]
    for each in limits:
        assert exchange_s(kind, many, each) >= exchange_s(kind, few, each) * (1.0 - 1e-12)


def with_limit(joined: OneKernel, m: Machine) -> Machine:
    """The machine whose one kernel takes tensors of any size."""
    return replace(m, one_kernel=joined._replace(max_bytes=math.inf))


@given(machines(), st.sampled_from(sorted(EXCHANGES)), st.lists(wholes(1, 10**7), min_size=2, max_size=6), RANKS)
def test_arrays_hold_what_scalars_give(m: Machine, kind: Kind, payloads: list[float], ranks: float) -> None:
    def of(payload: float) -> Cost:
        return sent(payload) if kind in ("transfer", "staged") else reduced(payload, ranks)

    costs = [of(payload) for payload in payloads]
    arrays = Cost(*(np.array(column) for column in zip(*costs, strict=True)))
    assert exchange_s(kind, arrays, m).tolist() == [exchange_s(kind, cost, m) for cost in costs]


@pytest.mark.parametrize("gpu", ["a100-sxm-40gb", "h100-sxm-80gb"])
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_one_kernel_wins_wherever_it_runs_on_the_devices_that_were_timed(gpu: str, ranks: int) -> None:
    """Twice as fast or nearly so for a decode step's tensor, still faster at the limit of 8 MiB."""
    case = make_case(
        load(ModelSpec, "llama-2-7b"),
        load(GpuSpec, gpu),
        load(EngineSpec, "vllm"),
        load(PrecisionSpec, "w16a16"),
        LayoutSpec(tp=ranks),
    )
    m = case.machine
    assert m.one_kernel is not None
    assert m.one_kernel.max_bytes == 8 * 2.0**20
    for payload, share in ((8192.0, 0.55), (1e6, 0.7), (m.one_kernel.max_bytes, 1.0)):
        cost = reduced(payload, float(ranks))
        assert exchange_s("all_reduce", cost, m) == one_kernel(cost, m.one_kernel)
        assert exchange_s("all_reduce", cost, m) < share * ring(cost, m.exchange)
    beyond = reduced(m.one_kernel.max_bytes + 1.0, float(ranks))
    assert exchange_s("all_reduce", beyond, m) == ring(beyond, m.exchange)
