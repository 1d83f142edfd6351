from __future__ import annotations

import math
import re
from dataclasses import asdict, replace
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_perf_model.blocks import attention_s, cached_s, experts_s, product_s, rows_s
from llm_perf_model.case import Case
from llm_perf_model.exchange import EXCHANGES, exchange_s
from llm_perf_model.ops.attention import FusedAttention, MaterialisedAttention
from llm_perf_model.ops.base import AbstractOp, Kind
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.dense import Embedding, Linear
from llm_perf_model.ops.elementwise import Elementwise
from llm_perf_model.ops.moe import ExpertLinear
from llm_perf_model.ops.node import Graph, Node
from llm_perf_model.rates import AttentionRate, BlockRate, ExpertRate, Machine, Rate, Tile
from llm_perf_model.roofline import Run, Totals, host_s_per_step, positive_sum, step_s, totals, walk

from .strategies import batches, cases, graphs, machines, wholes

HEADS = (4.0, 4.0, 64.0, 2.0, 2.0)
PARTS_S = ("compute_s", "memory_s", "comm_s", "start_s", "host_s", "overhead_s", "power_s")
seconds = st.floats(-3.0, 3.0, allow_subnormal=False)


def decode_run(seqs: float, past: float, steps: float) -> Run:
    return Run(steps, Batch.uniform(seqs, 1.0, past), Batch.uniform(seqs, 1.0, past + steps - 1.0))


def single_node(d_in: float, d_out: float) -> Graph:
    return (Node("product", "ffn", Linear(d_in, d_out, 2.0, 2.0)),)


def faster(m: Machine) -> Machine:
    """Twice the rates and half the fixed times, of kernels, blocks and exchanges."""

    def scaled(part: Any) -> Any:
        """A tuple of rates and times: sizes and counts stay."""
        change = {name: value * 2.0 for name, value in part._asdict().items() if name.endswith("_per_s")}
        change |= {name: value / 2.0 for name, value in part._asdict().items() if re.search(r"(?<!per)_s$", name)}
        return part._replace(**change)

    return replace(
        m,
        rates={kind: scaled(rate) for kind, rate in m.rates.items()},
        blocks={kind: scaled(rate) for kind, rate in m.blocks.items()},
        attention=m.attention and scaled(m.attention),
        passes=m.passes and scaled(m.passes),
        exchange=scaled(m.exchange),
        one_kernel=m.one_kernel and scaled(m.one_kernel),
        layers_host_s=m.layers_host_s / 2.0,
        sequence_s=m.sequence_s / 2.0,
        request_s=m.request_s / 2.0,
        staged_bytes_per_s=m.staged_bytes_per_s * 2.0,
        kernel_start_s=m.kernel_start_s / 2.0,
        experts=m.experts and scaled(m.experts)._replace(block=scaled(m.experts.block)),
        dispatch_s=m.dispatch_s / 2.0,
        step_s=m.step_s / 2.0,
    )


class Expected(NamedTuple):
    """Seconds of one kernel, and how arithmetic and traffic meet."""

    compute_s: float
    memory_s: float
    smooth: bool
    added_s: float = 0.0


def expected(node: Node, batch: Batch, m: Machine) -> Expected:
    """What blocks, caches and idle multiprocessors make of the work of a node; the flat rates where there are none."""
    op, cost, rate = node.op, node.op.cost(batch), m.rates[node.kind]
    compute_s, memory_s = cost.flops / rate.flops_per_s, cost.hbm_bytes / rate.hbm_bytes_per_s
    if isinstance(op, FusedAttention) and m.attention:
        walked_s, waves_s = attention_s(op, batch, m.attention, m.sms)
        return Expected(walked_s, memory_s, False, waves_s)
    if isinstance(op, MaterialisedAttention):
        idle = max(1.0, m.attention_blocks / op.blocks(batch))
        return Expected(compute_s, memory_s * idle, False)
    if isinstance(op, Linear) and m.blocks:
        blocks = m.blocks[node.kind]
        return Expected(product_s(op.product(batch), blocks, m.sms), memory_s, True, blocks.start_s)
    if isinstance(op, ExpertLinear) and m.experts:
        return Expected(experts_s(op, batch, m.experts, m.sms), memory_s, True, m.experts.block.start_s)
    if isinstance(op, Embedding) and m.passes:
        return Expected(batch.tokens * op.hidden / m.passes.gathered_values_per_s, memory_s, True)
    if isinstance(op, Elementwise) and m.passes:
        touched_s = rows_s(op, batch, m.passes, m.sms)
        return Expected(max(compute_s, touched_s), cached_s(cost.hbm_bytes, memory_s, m.passes), True)
    return Expected(compute_s, memory_s, False)


@given(seconds, seconds, st.integers(2, 60))
def test_positive_sum_is_the_explicit_sum(first: float, last: float, steps: int) -> None:
    terms = [first + (last - first) * i / (steps - 1) for i in range(steps)]
    expected = math.fsum(max(0.0, x) for x in terms)
    assert positive_sum(first, last, float(steps)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(seconds)
def test_positive_sum_of_one_step_and_of_none(value: float) -> None:
    assert positive_sum(value, value, 1.0) == max(0.0, value)
    assert positive_sum(value, value, 0.0) == 0.0


@given(st.lists(st.tuples(seconds, seconds, wholes(2, 60)), min_size=1, max_size=6))
def test_positive_sum_of_arrays_holds_what_scalars_give(rows: list[tuple[float, float, float]]) -> None:
    sums = positive_sum(*(np.array(column) for column in zip(*rows, strict=True)))
    assert sums.tolist() == [positive_sum(*row) for row in rows]


@given(graphs(windowed=False), machines(), wholes(1, 9), wholes(1, 150), wholes(1, 30))
def test_walk_over_a_run_is_the_sum_over_its_steps(
    graph: Graph, m: Machine, seqs: float, past: float, steps: float
) -> None:
    """A run finds a token cached at least: a pass that finds none starts a cache, and no run holds it."""
    run = walk(graph, m, decode_run(seqs, past, steps))
    singles = [list(walk(graph, m, Run.single(Batch.uniform(seqs, 1.0, past + i)))) for i in range(int(steps))]
    for work, *parts in zip(run, *singles, strict=True):
        assert all(part.node is work.node for part in parts)
        for index, value in enumerate(work.cost):
            assert value == pytest.approx(sum(part.cost[index] for part in parts), rel=1e-9)
        for field in ("compute_s", "memory_s", "busy_s", "comm_s", "start_s", "device_s"):
            whole, explicit = getattr(work.timing, field), sum(getattr(part.timing, field) for part in parts)
            assert whole == pytest.approx(explicit, rel=1e-9), (work.node.name, field)
        assert work.timing.first_s == pytest.approx(parts[0].timing.device_s, rel=1e-12)
        assert work.timing.last_s == pytest.approx(parts[-1].timing.device_s, rel=1e-12)


@pytest.mark.parametrize("flat", [False, True])
@given(graph=graphs(), data=st.data(), batch=batches())
def test_a_node_takes_its_kernels_its_exchange_and_its_starts(
    flat: bool, graph: Graph, data: st.DataObject, batch: Batch
) -> None:
    """Arithmetic and traffic: the longer of the two where the cost grows with the cache, else a smooth maximum."""
    m = data.draw(machines(flat=flat))
    for node, cost, t in walk(graph, m, Run.single(batch)):
        e = expected(node, batch, m)
        assert t.compute_s == pytest.approx(node.count * e.compute_s, rel=1e-12)
        assert t.memory_s == pytest.approx(node.count * e.memory_s, rel=1e-12)
        joined_s = math.hypot(t.compute_s, t.memory_s) if e.smooth else max(t.compute_s, t.memory_s)
        assert t.busy_s == pytest.approx(joined_s, rel=1e-12)
        assert max(t.compute_s, t.memory_s) <= t.busy_s * (1.0 + 1e-12)
        assert sorted((t.compute_bound_s, t.memory_bound_s)) == [0.0, t.busy_s]
        assert t.comm_s == pytest.approx(node.count * exchange_s(node.kind, node.op.cost(batch), m), rel=1e-12)
        is_exchange = node.kind in EXCHANGES
        assert is_exchange == (node.role == "communication") == (cost.comm_bytes > 0.0) == (t.comm_s > 0.0)
        kernels_s = 0.0 if is_exchange else node.kernels * m.kernel_start_s
        assert t.start_s == pytest.approx(node.count * (kernels_s + e.added_s), rel=1e-12)
        assert t.device_s == t.busy_s + t.comm_s + t.start_s


def test_starts_of_each_kind_of_kernel_by_hand() -> None:
    """5 us a kernel; 7 for sorting tokens by expert, 11 for a scheme, 13 for each of two waves of attention."""
    sizes = (2.0, 2.0, 2.0)
    ops: dict[str, AbstractOp] = {
        "experts": ExpertLinear(8.0, 2.0, 64.0, 64.0, *sizes),
        "product": Linear(64.0, 64.0, 2.0, 2.0),
        "head": Linear(64.0, 64.0, 2.0, 2.0),
        "attention": FusedAttention(*HEADS),
        "pass": Elementwise(64.0, 2.0, 2.0),
    }
    block = BlockRate(1e12, 1e12, 0.0, 0.0, 0.0, 11e-6, (1.0,), 2.0, 2.0)
    m = replace(
        Machine({kind: Rate(1e12, 1e12) for kind in get_args(Kind)}, 5e-6, *[0.0] * 4),
        experts=ExpertRate(block._replace(start_s=7e-6), (Tile(16.0, 64.0),)),
        blocks={"gemm": block, "wide_gemm": block._replace(start_s=0.0)},
        attention=AttentionRate(64.0, 32.0, 1e-12, 0.0, 1e30, 13e-6, 1.0, False),
        sms=4.0,
    )
    rates: dict[str, Kind] = {"head": "wide_gemm"}
    graph = tuple(Node(name, "ffn", op, 3.0, 2.0, rate=rates.get(name)) for name, op in ops.items())
    starts = {w.node.name: w.timing.start_s for w in walk(graph, m, Run.single(Batch.uniform(2.0, 1.0, 9.0)))}
    added_us = {"experts": 7, "product": 11, "head": 0, "attention": 2 * 13, "pass": 0}
    assert starts == pytest.approx({name: 3 * (2 * 5 + us) * 1e-6 for name, us in added_us.items()}, rel=1e-12)


@given(graphs(), machines(), batches())
def test_one_step_of_a_node_is_its_walk_without_exchange_and_count(graph: Graph, m: Machine, batch: Batch) -> None:
    for node, _, t in walk(graph, m, Run.single(batch)):
        step = step_s(node, batch, node.op.cost(batch), m)
        for field in ("compute_s", "memory_s", "busy_s", "start_s"):
            assert node.count * getattr(step, field) == pytest.approx(getattr(t, field), rel=1e-12), field


@pytest.mark.parametrize("limit", [0.7, 1.0])
@given(case=cases(), batch=batches(), steps=wholes(1, 5))
def test_seconds_of_the_totals_add_up(limit: float, case: Case, batch: Batch, steps: float) -> None:
    power = case.machine.power
    m = replace(case.machine, power=power._replace(limit_w=limit * power.design_w))
    t = totals(case.graph, m, [Run(steps, batch, batch), Run.single(batch)])
    assert t.time_s == pytest.approx(sum(getattr(t, part) for part in PARTS_S), rel=1e-14)
    assert limit < 1.0 or t.power_s == 0.0
    assert all(getattr(t, part) >= 0.0 for part in PARTS_S)
    of_a_step_s = case.machine.step_s + batch.seqs * case.machine.sequence_s
    assert t.overhead_s == pytest.approx((steps + 1.0) * of_a_step_s, rel=1e-12)


@given(cases(hosted=True), batches())
def test_a_step_lasts_as_long_as_device_or_host_whichever_is_longer(case: Case, batch: Batch) -> None:
    """Or for both, one after the other, where the engine is synchronous."""
    t = totals(case.graph, case.machine, [Run.single(batch)])
    device_s = t.compute_s + t.memory_s + t.comm_s + t.start_s
    half = case.engine.half_layer_s * (case.precision.activation_bytes < 4.0)
    layers_s = sum(group.count for group in case.model.layers) * (case.engine.layer_s + half)
    host_s = case.machine.dispatch_s * sum(node.count * node.kernels for node in case.graph) + layers_s
    assert host_s_per_step(case.graph, case.machine) == pytest.approx(host_s, rel=1e-12)
    step_s = device_s + host_s if case.engine.synchronous else max(device_s, host_s)
    overhead_s = case.machine.step_s + batch.seqs * case.machine.sequence_s
    assert t.time_s == pytest.approx(step_s + overhead_s, rel=1e-12)


@given(cases(hosted=False), batches())
def test_hidden_launches_cost_nothing(case: Case, batch: Batch) -> None:
    assert host_s_per_step(case.graph, case.machine) is None
    assert totals(case.graph, case.machine, [Run.single(batch)]).host_s == 0.0


@given(graphs(), machines(), batches(), wholes(1, 30))
def test_twice_the_rates_and_half_the_fixed_times_halve_the_time(
    graph: Graph, m: Machine, batch: Batch, steps: float
) -> None:
    runs = [Run.single(batch), decode_run(batch.seqs, 5.0, steps)]
    slow, fast = totals(graph, m, runs), totals(graph, faster(m), runs)
    for part in (*PARTS_S, "time_s"):
        assert getattr(fast, part) == getattr(slow, part) / 2.0, part
    for work in ("flops", "hbm_bytes", "comm_bytes"):
        assert getattr(fast, work) == getattr(slow, work), work


PRODUCTS = ("gemm", "wide_gemm", "expert_gemm", "attention", "slow_attention")


@given(cases(), batches())
def test_time_is_never_below_the_datasheet(case: Case, batch: Batch) -> None:
    """Each product on the fastest of the units that the precision may use, all traffic but that of a cache."""
    t = totals(case.graph, case.machine, [Run.single(batch)])
    slack, peaks = 1.0 - 1e-12, case.gpu.peak_flops_per_s
    usable = {*case.precision.gemm_peaks, *case.precision.wide_gemm_peaks} & peaks.keys()
    flops = sum(node.count * node.op.cost(batch).flops for node in case.graph if node.kind in PRODUCTS)
    assert t.time_s >= flops / max(peaks[peak] for peak in usable) * slack
    from_memory = [
        node for node in case.graph if not (isinstance(node.op, Elementwise) and case.machine.passes is not None)
    ]
    hbm_bytes = sum(node.count * node.op.cost(batch).hbm_bytes for node in from_memory)
    assert t.time_s >= hbm_bytes / case.gpu.hbm_bytes_per_s * slack
    fastest = max(case.machine.exchange.bytes_per_s, case.machine.staged_bytes_per_s)
    if case.machine.one_kernel is not None:
        fastest = max(fastest, case.machine.one_kernel.bytes_per_s)
    assert t.time_s >= t.comm_bytes / fastest * slack


@given(machines(hosted=False, flat=True))
def test_time_tends_to_work_over_peak_as_work_grows(m: Machine) -> None:
    """Far beyond the ridge only arithmetic counts; the start of the kernel fades."""
    flops_per_s, hbm_bytes_per_s = m.rates["gemm"]
    ridge = flops_per_s / hbm_bytes_per_s
    width = 4.0 * ridge + 64.0
    ratios = []
    for rows in (1e2 * width, 1e4 * width, 1e6 * width):
        t = totals(single_node(width, width), m, [Run.single(Batch.uniform(rows, 1.0, 0.0))])
        assert t.memory_s == 0.0
        ratios.append(t.time_s / (t.flops / flops_per_s))
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] * (1.0 + 1e-12) >= 1.0
    assert ratios[-1] - 1.0 <= 1e-3 * (ratios[0] - 1.0) + 1e-12


@given(machines(hosted=False))
def test_a_single_row_takes_the_time_of_its_weights(m: Machine) -> None:
    m = replace(m, rates={"gemm": Rate(1e13, m.rates["gemm"].hbm_bytes_per_s)}, kernel_start_s=0.0, blocks={})
    t = totals(single_node(4096.0, 4096.0), m, [Run.single(Batch.uniform(1.0, 1.0, 0.0))])
    weights_s = 2.0 * 4096**2 / m.rates["gemm"].hbm_bytes_per_s
    assert t.compute_s + m.step_s == 0.0
    assert t.time_s == pytest.approx(weights_s, rel=1e-3)


def test_totals_of_no_run_are_zero() -> None:
    empty = totals((), Machine({}, *[0.0] * 5), [])
    assert empty == Totals(*[0.0] * len(asdict(empty)))


@pytest.mark.parametrize("value", [5.0, -5.0, 1e6])
def test_positive_sum_of_a_level_line_of_any_height(value: float) -> None:
    assert positive_sum(value, value, 3.0) == max(0.0, 3.0 * value)


# Attention with one block for each head.


def test_too_few_blocks_leave_multiprocessors_idle() -> None:
    """Below as many blocks as multiprocessors the time is that of one block, above it is that of the bytes."""
    rates: dict[Kind, Rate] = {"attention": Rate(1e18, 1e12)}
    split = replace(Machine(rates, *[0.0] * 5), sms=64.0)
    whole = replace(split, attention_blocks=64.0)

    def memory_s(m: Machine, seqs: float, attention: type[Any] = MaterialisedAttention) -> float:
        node = Node("attention", "attention", attention(*HEADS))
        (work,) = walk((node,), m, Run.single(Batch.uniform(seqs, 1.0, 500.0)))
        return float(work.timing.memory_s)

    few = [memory_s(whole, seqs) for seqs in (1.0, 2.0, 7.0, 16.0)]
    assert few == pytest.approx([few[0]] * 4, rel=1e-12)
    for seqs in (1.0, 5.0, 15.0):
        assert memory_s(whole, seqs) * (4.0 * seqs) / 64.0 == pytest.approx(memory_s(split, seqs), rel=1e-12)
        assert memory_s(whole, seqs) > memory_s(split, seqs)
        assert memory_s(whole, seqs, FusedAttention) == memory_s(split, seqs, FusedAttention)
    for seqs in (16.0, 17.0, 200.0):
        assert memory_s(whole, seqs) == memory_s(split, seqs)


@given(graphs(), machines(hosted=True), batches(), wholes(1, 30))
def test_a_host_that_waits_takes_no_less_than_one_that_runs_ahead(
    graph: Graph, m: Machine, batch: Batch, steps: float
) -> None:
    runs = [Run.single(batch), decode_run(batch.seqs, 5.0, steps)]
    waits, ahead = (totals(graph, replace(m, synchronous=turns), runs) for turns in (True, False))
    alone = totals(graph, replace(m, dispatch_s=0.0, layers_host_s=0.0), runs)
    assert waits.time_s >= ahead.time_s * (1.0 - 1e-12)
    assert ahead.time_s >= alone.time_s * (1.0 - 1e-12)
    host_s = host_s_per_step(graph, m)
    assert host_s is not None
    assert waits.time_s == pytest.approx(alone.time_s + (1.0 + steps) * host_s, rel=1e-12)
