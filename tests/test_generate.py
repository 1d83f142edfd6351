from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import ClassVar, final, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.case import Case
from llm_perf_model.generate import BOUNDS, Phase, decode, prefill
from llm_perf_model.graph.stack import build
from llm_perf_model.ops.base import AbstractOp, Cost, Kind, Live
from llm_perf_model.ops.batch import UNLIMITED, Batch
from llm_perf_model.ops.node import Graph, Node
from llm_perf_model.rates import AttentionRate, Machine, Rate
from llm_perf_model.roofline import Run, Timing, Totals, totals, walk
from llm_perf_model.specs.attention import GroupedQueryAttention
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.ffn import PlainFfn
from llm_perf_model.specs.model import LayerGroup, ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .strategies import DRAWN, TPS, Lengths, cases, engines, lengths, machines, models

HALF = load(PrecisionSpec, "w16a16")
IDEAL = load(EngineSpec, "ideal")
SUMMED = ("flops", "hbm_bytes", "comm_bytes", "comm_s", "start_s", "overhead_s", "time_s")


@final
@dataclass(frozen=True, slots=True)
class Cached(AbstractOp):
    """A growing operator whose bound is chosen freely: F = a + b k, Q = c + d k with k cached tokens."""

    kind: ClassVar[Kind] = "attention"
    grows: ClassVar[bool] = True

    a: float
    b: float
    c: float
    d: float

    def cost(self, batch: Batch) -> Cost:
        keys = batch.kv_tokens()
        return Cost(
            flops=self.a * batch.seqs + self.b * keys, activation_bytes=self.c * batch.seqs, kv_bytes=self.d * keys
        )

    @property
    def live(self) -> Live:
        return Live(1.0)


def single_steps(graph: Graph, m: Machine, w: Lengths) -> list[Totals]:
    """Every step by itself, as a loop over the output tokens."""
    batches = (Batch.uniform(w.batch_size, 1.0, w.input_len + i) for i in range(int(w.steps)))
    return [totals(graph, m, [Run.single(batch)]) for batch in batches]


def added(parts: Iterable[Totals]) -> Totals:
    names = [field.name for field in fields(Totals)]
    sums = dict.fromkeys(names, 0.0)
    for part in parts:
        sums = {name: sums[name] + getattr(part, name) for name in names}
    return Totals(**sums)


def assert_sums_its_steps(graph: Graph, m: Machine, w: Lengths) -> None:
    """A bound that changes on the way moves busy time between compute and memory, not its sum."""
    whole, explicit = decode(graph, m, *w).totals, added(single_steps(graph, m, w))
    for field in SUMMED:
        assert getattr(whole, field) == pytest.approx(getattr(explicit, field), rel=1e-9), field
    busy_s = explicit.compute_s + explicit.memory_s
    assert whole.compute_s + whole.memory_s == pytest.approx(busy_s, rel=1e-9)
    assert whole.host_s == pytest.approx(explicit.host_s, rel=1e-9, abs=1e-12 * explicit.time_s)


def multi_query(window_tokens: int | None = None) -> ModelSpec:
    attention = GroupedQueryAttention(heads=16, kv_heads=1, head_dim=64, window_tokens=window_tokens)
    ffn = PlainFfn(intermediate=512, activation="gelu")
    return ModelSpec(
        name="multi-query",
        title="Multi-query",
        assumed=DRAWN,
        hidden=128,
        vocab=1024,
        position="none",
        norm="rmsnorm",
        tied_embeddings=True,
        layers=(LayerGroup(count=3, attention=attention, ffn=ffn),),
        parameters=1.0,
    )


def balanced(flops_per_byte: float, dispatch_s: float = 0.0, kind: Kind = "attention") -> Machine:
    """A machine whose attention turns from memory- to compute-bound at that intensity."""
    rates: dict[Kind, Rate] = {each: Rate(1e12, 1e11) for each in get_args(Kind)}
    rates[kind] = Rate(1e10, 1e10 / flops_per_byte)
    return Machine(rates, 0.0, dispatch_s, 0.0, 1e12, 1e11)


def attention_compute_bound(m: Machine, graph: Graph, w: Lengths) -> list[bool]:
    """Of each step, whether arithmetic binds the attention."""
    node = next(node for node in graph if node.op.grows)
    rate = m.rates["attention"]
    costs = (node.op.cost(Batch.uniform(w.batch_size, 1.0, w.input_len + i)) for i in range(int(w.steps)))
    return [cost.flops / rate.flops_per_s > cost.hbm_bytes / rate.hbm_bytes_per_s for cost in costs]


def kernels(graph: Graph) -> float:
    return sum(node.count * node.kernels for node in graph)


@pytest.mark.parametrize("hosted", [False, True])
@given(data=st.data(), w=lengths())
def test_decode_is_the_sum_of_its_steps(hosted: bool, data: st.DataObject, w: Lengths) -> None:
    engine = data.draw(engines(hosted))
    graph = build(data.draw(models()), engine, HALF, data.draw(st.sampled_from(TPS)))
    assert_sums_its_steps(graph, data.draw(machines(hosted)), w)


@given(cases(), lengths())
def test_decode_on_a_real_device_is_the_sum_of_its_steps(case: Case, w: Lengths) -> None:
    assert_sums_its_steps(case.graph, case.machine, w)


@given(models(), engines(), machines(hosted=False), st.sampled_from(TPS), lengths(), st.floats(0.0, 1.0))
def test_the_host_may_limit_some_of_the_steps(
    model: ModelSpec, engine: EngineSpec, m: Machine, tp: int, w: Lengths, where: float
) -> None:
    """The host takes as long as the device does in a step on the way."""
    graph = build(model, engine, HALF, tp)
    middle = Batch.uniform(w.batch_size, 1.0, w.input_len + np.floor(where * w.steps))
    device_s = totals(graph, m, [Run.single(middle)]).time_s
    assert_sums_its_steps(graph, replace(m, dispatch_s=device_s / kernels(graph)), w)


@pytest.mark.parametrize("window_tokens", [None, 70, 45])
@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("flops_per_byte", [7.0, 8.0, 9.0])
def test_host_limit_and_bound_both_change_inside_the_run(
    window_tokens: int | None, fraction: float, flops_per_byte: float
) -> None:
    """Multi-query attention reads queries and writes results of all heads, so its intensity grows with the cache."""
    graph, w = build(multi_query(window_tokens), IDEAL, HALF, 1), Lengths(64.0, 5.0, 90.0)
    m = balanced(flops_per_byte)
    bound = attention_compute_bound(m, graph, w)
    assert not bound[0]
    assert bound[-1]
    times_s = [step.time_s for step in single_steps(graph, m, w)]
    limit_s = times_s[0] + fraction * (times_s[-1] - times_s[0])
    hosted = replace(m, dispatch_s=limit_s / kernels(graph))
    waits = [step.host_s > 0.0 for step in single_steps(graph, hosted, w)]
    assert waits[0]
    assert not waits[-1]
    assert_sums_its_steps(graph, hosted, w)
    assert_sums_its_steps(graph, m, w)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("seqs", [1.0, 4.0, 64.0])
def test_host_limit_and_bound_both_change_on_a_slow_path_and_with_idle_blocks(seqs: float, fraction: float) -> None:
    """The bound of an operator is that of its own rate and of the multiprocessors that its blocks keep busy."""
    slow = IDEAL.model_copy(update={"fast_head_dims": (128,), "slow_attention_memory_efficiency": 0.1})
    written = IDEAL.model_copy(update={"attention": "materialised"})
    kinds: tuple[tuple[EngineSpec, Kind], ...] = ((slow, "slow_attention"), (written, "attention"))
    for engine, kind in kinds:
        graph, w = build(multi_query(), engine, HALF, 1), Lengths(seqs, 5.0, 90.0)
        node = next(node for node in graph if node.op.grows)
        batches = [Batch.uniform(seqs, 1.0, past) for past in (5.0, 94.0)]
        low, high = (cost.flops / cost.hbm_bytes for cost in map(node.op.cost, batches))
        m = balanced((low * high) ** 0.5, kind=kind)
        if kind == "attention":
            rate = m.rates[kind]
            faster = rate._replace(hbm_bytes_per_s=2.0 * rate.hbm_bytes_per_s)
            m = replace(m, attention_blocks=2.0 * 16.0 * seqs, rates={**m.rates, kind: faster})
        assert_both_change(graph, node, m, w, fraction)


@pytest.mark.parametrize("window_tokens", [None, 70])
@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("seqs", [1.0, 4.0, 64.0])
def test_host_limit_and_bound_both_change_where_attention_comes_in_blocks(
    seqs: float, fraction: float, window_tokens: int | None
) -> None:
    """A key costs a block's arithmetic a time, and the memory its bytes beside those of queries and results."""
    graph, w = build(multi_query(window_tokens), IDEAL, HALF, 1), Lengths(seqs, 5.0, 90.0)
    node = next(node for node in graph if node.op.grows)
    free = replace(balanced(8.0), attention=AttentionRate(64.0, 0.0, 1e-9, 0.0, 1e30, 1e-6, 32.0, False), sms=16.0)
    shares = [
        timing.memory_s / timing.compute_s
        for timing in (_only(node, free, Batch.uniform(seqs, 1.0, past)) for past in (5.0, 94.0))
    ]
    assert free.attention is not None
    row_s = free.attention.row_s * (shares[0] * shares[1]) ** 0.5
    assert_both_change(graph, node, replace(free, attention=free.attention._replace(row_s=row_s)), w, fraction)


def assert_both_change(graph: Graph, node: Node, m: Machine, w: Lengths, fraction: float) -> None:
    """The node turns compute-bound on the way, and somewhere else the device takes longer than the host."""
    ends = [Batch.uniform(w.batch_size, 1.0, past) for past in (w.input_len, w.input_len + w.steps - 1.0)]
    assert [_only(node, m, batch).compute_bound_s > 0.0 for batch in ends] == [False, True]
    times_s = [step.time_s for step in single_steps(graph, m, w)]
    limit_s = times_s[0] + fraction * (times_s[-1] - times_s[0])
    assert_sums_its_steps(graph, replace(m, dispatch_s=limit_s / kernels(graph)), w)


def _only(node: Node, m: Machine, batch: Batch) -> Timing:
    (work,) = walk((node,), m, Run.single(batch))
    return work.timing


@given(
    st.lists(st.tuples(*[st.floats(0.0, 1e4)] * 4), min_size=1, max_size=4),
    machines(),
    st.floats(0.5, 2.0),
    lengths(),
)
def test_any_bounds_may_change_anywhere(
    coefficients: list[tuple[float, float, float, float]], m: Machine, share: float, w: Lengths
) -> None:
    graph = tuple(Node(f"op{i}", "attention", Cached(*abcd), 2.0) for i, abcd in enumerate(coefficients))
    device_s = totals(graph, replace(m, dispatch_s=0.0, step_s=0.0), [Run.single(Batch.uniform(1.0, 1.0, 99.0))])
    assert_sums_its_steps(graph, replace(m, dispatch_s=share * device_s.time_s / kernels(graph)), w)


@given(models(), engines(), machines(), lengths())
def test_the_number_of_runs_does_not_depend_on_the_steps(
    model: ModelSpec, engine: EngineSpec, m: Machine, w: Lengths
) -> None:
    graph = build(model, engine, HALF, 1)
    counts = {len(decode(graph, m, w.batch_size, w.input_len, steps).runs) for steps in (1.0, 10.0, 1e3, 1e6)}
    assert len(counts) == 1
    windows = {node.op.attention_window for node in graph} - {UNLIMITED}
    growing = sum(node.op.grows for node in graph)
    kinks = len(windows) + 1
    assert counts <= {kinks, kinks * (1 + growing)}


@given(cases(), lengths())
def test_runs_cover_every_step_once(case: Case, w: Lengths) -> None:
    runs = decode(case.graph, case.machine, *w).runs
    assert sum(run.steps for run in runs) == w.steps
    assert all(run.steps >= 0.0 for run in runs)
    pasts = [run.first.groups[0].past + i for run in runs for i in range(int(run.steps))]
    assert pasts == [w.input_len + i for i in range(int(w.steps))]
    assert all(run.last.groups[0].past == run.first.groups[0].past + run.steps - 1 for run in runs if run.steps)


@given(cases(), lengths())
def test_one_output_token_needs_no_decode(case: Case, w: Lengths) -> None:
    empty = decode(case.graph, case.machine, w.batch_size, w.input_len, 0.0)
    assert empty.totals == Totals(*[0.0] * len(fields(Totals)))
    assert (empty.flops_utilisation, empty.bandwidth_utilisation) == (0.0, 0.0)


@given(cases(), st.lists(lengths(), min_size=2, max_size=4))
def test_arrays_hold_what_scalars_give(case: Case, rows: list[Lengths]) -> None:
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    phases = (
        prefill(case.graph, case.machine, *columns[:2]),
        decode(case.graph, case.machine, *columns),
    )
    for index, row in enumerate(rows):
        scalars = (prefill(case.graph, case.machine, *row[:2]), decode(case.graph, case.machine, *row))
        for array, scalar in zip(phases, scalars, strict=True):
            for field in fields(Totals):
                value = np.broadcast_to(getattr(array.totals, field.name), len(rows))[index]
                assert value == getattr(scalar.totals, field.name), field.name
            assert np.broadcast_to(array.bound, len(rows))[index] == scalar.bound


@given(cases(), lengths())
def test_prefill_is_one_pass_over_the_prompts(case: Case, w: Lengths) -> None:
    batch = Batch.uniform(w.batch_size, w.input_len, 0.0)
    phase = prefill(case.graph, case.machine, w.batch_size, w.input_len)
    assert phase.totals == totals(case.graph, case.machine, [Run.single(batch)], case.machine.request_s)
    assert phase.flops == sum(node.count * node.op.cost(batch).flops for node in case.graph)


@given(cases(), lengths())
def test_a_prompt_read_token_by_token_is_the_sum_of_its_passes(case: Case, w: Lengths) -> None:
    phase = prefill(case.graph, case.machine, w.batch_size, w.input_len, token_by_token=True)
    passes = [Run.single(Batch.uniform(w.batch_size, 1.0, float(past))) for past in range(int(w.input_len))]
    whole = totals(case.graph, case.machine, passes, case.machine.request_s)
    for field in ("flops", "hbm_bytes", "comm_bytes", "start_s", "overhead_s", "time_s"):
        assert getattr(phase.totals, field) == pytest.approx(getattr(whole, field), rel=1e-9), field
    assert sum(run.steps for run in phase.runs) == w.input_len


@given(cases(), st.lists(lengths(), min_size=2, max_size=4))
def test_prompts_token_by_token_as_arrays_hold_what_scalars_give(case: Case, rows: list[Lengths]) -> None:
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    array = prefill(case.graph, case.machine, *columns[:2], token_by_token=True).totals
    for index, row in enumerate(rows):
        scalar = prefill(case.graph, case.machine, *row[:2], token_by_token=True).totals
        assert np.broadcast_to(array.time_s, len(rows))[index] == pytest.approx(scalar.time_s, rel=1e-12)


def test_the_work_of_a_long_prompt_token_by_token_is_that_of_a_short_one() -> None:
    """The number of runs depends on the kinks of the cost, not on the prompt."""
    case = lpm.estimate("gpt3-350m").case
    runs = [len(prefill(case.graph, case.machine, 4.0, length, True).runs) for length in (32.0, 32_768.0)]
    assert runs[0] == runs[1] <= 3


@given(cases(), lengths())
def test_the_bound_is_the_largest_part(case: Case, w: Lengths) -> None:
    phase = prefill(case.graph, case.machine, w.batch_size, w.input_len)
    t = phase.totals
    host_s = t.start_s + t.host_s + t.overhead_s
    parts = dict(zip(BOUNDS, (t.compute_s, t.memory_s, t.comm_s, host_s, t.power_s), strict=True))
    assert parts[str(phase.bound)] == max(parts.values())


@given(cases(), lengths())
def test_a_tight_power_limit_is_the_bound_and_the_design_power_none(case: Case, w: Lengths) -> None:
    power = case.machine.power
    tight = replace(case.machine, power=power._replace(limit_w=1.001 * power.idle_w))
    free, held = (prefill(case.graph, m, w.batch_size, w.input_len) for m in (case.machine, tight))
    assert free.totals.power_s == 0.0
    assert free.bound != "power"
    assert held.time_s == pytest.approx(free.time_s + held.totals.power_s, rel=1e-12)
    assert held.energy_j <= tight.power.limit_w * held.time_s * (1.0 + 1e-12)
    if held.totals.power_s > free.time_s:
        assert held.bound == "power"


def test_the_power_limit_binds_a_phase_that_works_hard() -> None:
    """8192 tokens of a 7B model draw more than 100 W on a card that idles below 80 W."""
    free, held = (
        lpm.estimate("llama-2-7b", batch_size=8, input_len=1024, power_limit_w=limit_w) for limit_w in (None, 100.0)
    )
    assert (free.prefill.bound, held.prefill.bound) == ("compute", "power")
    assert held.prefill_s > 2.0 * free.prefill_s


@given(cases(), lengths())
def test_utilisation_is_a_fraction_of_the_datasheet(case: Case, w: Lengths) -> None:
    phase = prefill(case.graph, case.machine, w.batch_size, w.input_len)
    assert 0.0 < phase.flops_utilisation <= 1.0
    assert 0.0 < phase.bandwidth_utilisation <= 1.0 + 1e-12
    assert phase.flops_utilisation == pytest.approx(phase.flops / phase.time_s / case.machine.peak_flops_per_s)
    assert phase.bandwidth_utilisation == pytest.approx(phase.hbm_bytes / phase.time_s / case.gpu.hbm_bytes_per_s)


def products_s(phase: Phase, flops_per_s: float) -> float:
    nodes = (works for works in phase.works() if works[0].node.op.kind in ("gemm", "attention"))
    return sum(work.cost.flops for works in nodes for work in works) / flops_per_s


def test_an_ideal_prefill_tends_to_its_products_over_the_peak() -> None:
    """Weights are read once a pass; what stays beside products of 2048-token prompts are passes over activations.

    Per token, values of h = 4096: 64 fused norms of 4 h and one norm of 2 h, and the embedding's row in and
    row out, at 2 bytes over 1.555e12 bytes/s; products are 2 x 6,476,005,376 FLOP of the layers' matrices
    and 4 x 32 x 4096 x 2049/2 of the attention over 312e12 FLOP/s.
    """
    ratios = []
    for batch_size in (1.0, 4.0, 64.0, 1024.0):
        phase = lpm.estimate("llama-2-7b", engine="ideal", batch_size=batch_size, input_len=2048, output_len=1).prefill
        ratios.append(phase.time_s / products_s(phase, 312e12))
        assert phase.bound == "compute"
    assert ratios == sorted(ratios, reverse=True)
    h = 4096
    passes_s = (64 * 4 * h + 2 * h + 2 * h) * 2 / 1.555e12
    products_of_a_token_s = (2 * 6_476_005_376 + 4 * 32 * h * 2049 / 2) / 312e12
    assert ratios[-1] - 1.0 == pytest.approx(passes_s / products_of_a_token_s, rel=0.01)


def test_ideal_decode_step_of_a_13b_model_by_hand() -> None:
    """The second token of a 512-token prompt on one A100: bytes over 1.555e12 bytes/s, all memory-bound.

    Weights of a layer of width h = 5120: 12 h^2 + 9 h of products and biases + 4 h of two layernorms
    = 314,639,360; 40 of them, the last norm (2 h) and the tied head (50,272 h), at 2 bytes.
    Cache: 2 x 40 h x 2 bytes = 819,200 a token; 513 tokens are read, 1 is written.
    Activations of a layer: (1+3) h, 2 h, (1+1) h, (1+4) h, (4+1) h and 2 x 4 h of two fused norms = 26 h.
    """
    h = 5120
    weights_bytes = 2 * (40 * 314_639_360 + 2 * h + 50_272 * h)
    cache_bytes = (513 + 1) * 819_200
    layers_bytes = 2 * 40 * 26 * h
    embedding_bytes = 2 * (2 * h + h)
    ends_bytes = 2 * (4 * h - 2 * h) + 2 * (h + 50_272) + 2 * 50_272
    expected_bytes = weights_bytes + cache_bytes + layers_bytes + embedding_bytes + ends_bytes
    e = lpm.estimate("test-13b", engine="ideal", gpu="a100-sxm-40gb", input_len=512, output_len=2)
    assert e.decode.hbm_bytes == expected_bytes
    assert e.decode_step_s == pytest.approx(expected_bytes / 1.555e12, rel=1e-12)
    assert e.decode.bound == "memory"
    assert e.decode_step_s == pytest.approx(16.8e-3, rel=2e-3)
