"""Energy between idling and the limit, what a power limit costs, and energy as design power x time."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.case import Case
from llm_perf_model.energy import delay_s, dynamic_j, energy_j
from llm_perf_model.errors import InfeasibleError, RequestError
from llm_perf_model.estimate import Estimate
from llm_perf_model.generate import Phase, decode, prefill
from llm_perf_model.placement import connection
from llm_perf_model.rates import NO_POWER, Machine, Power, with_power_limit
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.power import PowerSpec
from llm_perf_model.validation.mapping import map_record
from llm_perf_model.validation.records import Record, read

from .running import Run, runner
from .strategies import cases, graphs, lengths, machines, powers, powers_of_a_device

ROOT = Path(__file__).resolve().parents[1]
CARD = Power(idle_w=100.0, flop_j=1e-12, byte_j=1e-10, link_byte_j=1e-9, design_w=400.0, limit_w=400.0)
A100_W = 400.0
TIMES = powers(-6.0, 3.0)
WORKS = st.one_of(st.just(0.0), powers(-6.0, 7.0))
SHARES = st.floats(0.01, 1.0)
"""Where a limit lies between idling and the design power."""


def limited(p: Power, share: float) -> Power:
    return p._replace(limit_w=min(p.idle_w + share * (p.design_w - p.idle_w), p.design_w))


def drawn_w(p: Power, time_s: float, work_j: float) -> float:
    """Mean watts of a phase that takes as long as its device lets it."""
    longer_s = time_s + delay_s(p, time_s, work_j)
    return float(energy_j(p, longer_s, work_j) / longer_s)


@st.composite
def phases(draw: st.DrawFn) -> Phase:
    """A prefill or a decode, of drawn operators on a drawn machine or of a device of the catalogue."""
    if draw(st.booleans()):
        case = draw(cases())
        graph, machine = case.graph, case.machine
    else:
        graph, machine = draw(graphs()), draw(machines())
    w = draw(lengths())
    return prefill(graph, machine, *w[:2]) if draw(st.booleans()) else decode(graph, machine, *w)


def under(phase: Phase, limit_w: float) -> Phase:
    return dataclasses.replace(phase, machine=with_power_limit(phase.machine, limit_w))


# Energy of a phase


@pytest.mark.parametrize(
    ("flops", "hbm_bytes", "comm_bytes", "joules"),
    [
        (0.0, 0.0, 0.0, 100.0),  # idles for a second
        (1e14, 0.0, 0.0, 200.0),  # 100 J of arithmetic
        (0.0, 5e11, 0.0, 150.0),  # 50 J of memory traffic
        (0.0, 0.0, 2e9, 102.0),  # 2 J of exchanges
        (1e14, 5e11, 2e9, 252.0),
        (5e14, 0.0, 0.0, 400.0),  # 600 J, but no device draws more than its limit
    ],
)
def test_energy_by_hand(flops: float, hbm_bytes: float, comm_bytes: float, joules: float) -> None:
    assert energy_j(CARD, 1.0, dynamic_j(CARD, flops, hbm_bytes, comm_bytes)) == pytest.approx(joules, rel=1e-14)


@given(powers_of_a_device(), SHARES, TIMES, WORKS)
def test_energy_lies_between_idling_and_the_limit(p: Power, share: float, time_s: float, work_j: float) -> None:
    p = limited(p, share)
    joules = energy_j(p, time_s, work_j)
    assert p.idle_w * time_s <= joules <= p.limit_w * time_s
    assert joules <= p.idle_w * time_s + work_j


@given(powers_of_a_device(), TIMES, WORKS, st.floats(0.0, 1e4))
def test_energy_scales_with_time_and_work_together(p: Power, time_s: float, work_j: float, factor: float) -> None:
    scaled = energy_j(p, factor * time_s, factor * work_j)
    assert scaled == pytest.approx(factor * energy_j(p, time_s, work_j), rel=1e-12)


@given(powers_of_a_device(), TIMES, WORKS, TIMES, WORKS)
def test_parts_take_no_more_than_the_whole(p: Power, s1: float, j1: float, s2: float, j2: float) -> None:
    """Work of a busy part cannot be drawn in an idle one; where no part meets the limit, they add up."""
    parts, whole = energy_j(p, s1, j1) + energy_j(p, s2, j2), energy_j(p, s1 + s2, j1 + j2)
    assert parts <= whole * (1.0 + 1e-12)
    if all(p.idle_w * s + j <= p.limit_w * s for s, j in ((s1, j1), (s2, j2))):
        assert parts == pytest.approx(whole, rel=1e-12)


@given(powers_of_a_device(), TIMES, WORKS, st.floats(1.0, 10.0))
def test_energy_rises_with_time_and_with_work(p: Power, time_s: float, work_j: float, factor: float) -> None:
    assert energy_j(p, time_s * factor, work_j) >= energy_j(p, time_s, work_j)
    assert energy_j(p, time_s, work_j * factor) >= energy_j(p, time_s, work_j)


@given(powers_of_a_device(), SHARES, st.lists(st.tuples(TIMES, WORKS), min_size=1, max_size=5))
def test_arrays_equal_scalars(p: Power, share: float, points: list[tuple[float, float]]) -> None:
    p = limited(p, share)
    time_s, work_j = (np.array(column) for column in zip(*points, strict=True))
    for law in (energy_j, delay_s):
        assert np.asarray(law(p, time_s, work_j)).tolist() == [law(p, s, j) for s, j in points]
    assert np.asarray(dynamic_j(p, time_s, work_j, 1.0)).tolist() == [dynamic_j(p, s, j, 1.0) for s, j in points]


def test_a_machine_without_power_draws_nothing() -> None:
    assert energy_j(NO_POWER, 3.0, dynamic_j(NO_POWER, 1e15, 1e12, 1e9)) == 0.0
    assert not NO_POWER.limited


@given(phases())
def test_every_phase_lies_between_idling_and_the_limit(phase: Phase) -> None:
    power = phase.machine.power
    assert power.idle_w * phase.time_s <= phase.energy_j <= power.limit_w * phase.time_s
    work_j = dynamic_j(power, phase.flops, phase.hbm_bytes, phase.comm_bytes)
    assert phase.energy_j == min(power.idle_w * phase.time_s + work_j, power.limit_w * phase.time_s)


# A power limit


@pytest.mark.parametrize(
    ("work_j", "limit_w", "longer_s", "joules"),
    [
        (150.0, 400.0, 0.0, 250.0),
        (150.0, 250.0, 0.0, 250.0),  # draws just that
        (150.0, 200.0, 0.5, 300.0),  # 150 J beyond idling at 100 W take 1.5 s
        (150.0, 150.0, 2.0, 450.0),
        (600.0, 200.0, 2.0, 600.0),  # at its design power it drew 300 W beyond idling, not 600
        (0.0, 100.5, 0.0, 100.0),
    ],
)
def test_a_limit_by_hand(work_j: float, limit_w: float, longer_s: float, joules: float) -> None:
    p = CARD._replace(limit_w=limit_w)
    assert delay_s(p, 1.0, work_j) == pytest.approx(longer_s, rel=1e-14)
    assert energy_j(p, 1.0 + longer_s, work_j) == pytest.approx(joules, rel=1e-14)


@given(powers_of_a_device(), SHARES, TIMES, WORKS)
def test_a_limit_prolongs_what_draws_more_and_nothing_else(
    p: Power, share: float, time_s: float, work_j: float
) -> None:
    """What is prolonged then draws the limit."""
    free_w, p = drawn_w(p, time_s, work_j), limited(p, share)
    longer_s = delay_s(p, time_s, work_j)
    assert longer_s >= 0.0
    if free_w <= p.limit_w * (1.0 - 1e-12):
        assert longer_s == 0.0
    if free_w >= p.limit_w * (1.0 + 1e-12):
        assert longer_s > 0.0
        assert drawn_w(p, time_s, work_j) == pytest.approx(p.limit_w, rel=1e-12)


@given(powers_of_a_device(), SHARES, TIMES, WORKS)
def test_a_limit_costs_the_idling_of_the_time_that_it_adds(
    p: Power, share: float, time_s: float, work_j: float
) -> None:
    """An operation takes the same energy under a limit, so a limit never saves any."""
    free_j, p = energy_j(p, time_s, work_j), limited(p, share)
    longer_s = delay_s(p, time_s, work_j)
    assert energy_j(p, time_s + longer_s, work_j) == pytest.approx(free_j + p.idle_w * longer_s, rel=1e-11)


@given(powers_of_a_device(), SHARES, SHARES, TIMES, WORKS)
def test_a_lower_limit_is_slower_and_draws_less(
    p: Power, share: float, other: float, time_s: float, work_j: float
) -> None:
    low, high = (limited(p, s) for s in sorted((share, other)))
    assert delay_s(low, time_s, work_j) >= delay_s(high, time_s, work_j)
    assert drawn_w(low, time_s, work_j) <= drawn_w(high, time_s, work_j) * (1.0 + 1e-12)


@given(phases(), SHARES)
def test_a_limit_changes_the_time_of_a_phase_alone(phase: Phase, share: float) -> None:
    slow = under(phase, float(limited(phase.machine.power, share).limit_w))
    free, slowed = phase.totals, slow.totals
    assert free.power_s == 0.0
    assert slowed.power_s >= 0.0
    assert slowed.time_s == free.time_s + slowed.power_s
    assert dataclasses.replace(slowed, power_s=0.0, time_s=free.time_s) == free
    assert slow.energy_j >= phase.energy_j * (1.0 - 1e-12)
    assert slow.energy_j <= slow.machine.power.limit_w * slow.time_s


@given(phases())
def test_at_the_design_power_nothing_changes(phase: Phase) -> None:
    at_design = under(phase, float(phase.machine.power.design_w))
    assert at_design.totals == phase.totals
    assert at_design.energy_j == phase.energy_j
    assert with_power_limit(phase.machine, None) is phase.machine


def test_a_phase_that_mostly_waits_for_power_is_bound_by_it() -> None:
    e = lpm.estimate("llama-2-7b", engine="vllm", batch_size=8, power_limit_w=90)
    assert (e.prefill.bound, e.decode.bound) == ("power", "power")
    assert lpm.estimate("llama-2-7b", engine="vllm", batch_size=8).decode.bound == "memory"


@pytest.mark.parametrize("limit_w", [400, 300, 200, 100])
def test_an_estimate_holds_its_limit(limit_w: float) -> None:
    free, slow = (lpm.estimate("llama-2-7b", batch_size=8, tp=2, power_limit_w=w) for w in (None, limit_w))
    assert slow.power_w <= 2 * limit_w * (1.0 + 1e-12)
    assert slow.total_s >= free.total_s
    assert slow.memory == free.memory
    if limit_w == A100_W:
        assert slow.energy_j == free.energy_j
        assert slow.total_s == free.total_s


@pytest.mark.parametrize("limit_w", [1e-3, 73.0, 400.5, 1e6])
def test_a_limit_out_of_range_is_one_clear_error(limit_w: float) -> None:
    with pytest.raises(InfeasibleError) as error:
        lpm.estimate("test-13b", power_limit_w=limit_w)
    message = str(error.value)
    assert message.startswith(f"power_limit_w = {limit_w:g}: must be above ")
    assert "73.6" in message
    assert "at most 400 W, its design power" in message
    assert "\n" not in message


@given(machines())
def test_a_device_cannot_be_limited_to_what_it_draws_idling(m: Machine) -> None:
    with pytest.raises(InfeasibleError):
        with_power_limit(m, float(m.power.idle_w))
    with pytest.raises(InfeasibleError):
        with_power_limit(m, math.nextafter(300.0, math.inf))


@pytest.mark.parametrize("limit_w", [0, -5, float("nan"), float("inf"), True, "300", [200, 300]])
def test_a_limit_is_one_number_of_watts(limit_w: object) -> None:
    with pytest.raises(RequestError, match=r"^power_limit_w: is .*; must be a number of watts above 0$"):
        lpm.estimate("test-13b", power_limit_w=limit_w)


# Energy of an estimate


@pytest.fixture(params=["power", "tdp"])
def convention(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("limit_w", [None, 250])
@pytest.mark.parametrize(("tp", "dp"), [(1, 1), (2, 1), (2, 3)])
def test_energy_of_an_estimate_counts_every_device(tp: int, dp: int, limit_w: float | None) -> None:
    e = lpm.estimate("test-13b", tp=tp, dp=dp, batch_size=4, output_len=9, power_limit_w=limit_w)
    assert e.energy_j == pytest.approx(tp * dp * (e.prefill.energy_j + e.decode.energy_j), rel=1e-12)
    assert tp * dp * e.machine.power.idle_w < e.power_w <= tp * dp * (limit_w or A100_W)


def test_replicas_draw_alike(convention: str) -> None:
    one, five = (lpm.estimate("test-13b", tp=2, dp=n, batch_size=4, energy_convention=convention) for n in (1, 5))
    assert five.energy_j == pytest.approx(5.0 * one.energy_j, rel=1e-12)
    assert five.power_w == pytest.approx(5.0 * one.power_w, rel=1e-12)
    assert five.energy_per_token_j == pytest.approx(one.energy_per_token_j, rel=1e-12)
    assert five.energy_per_request_j == pytest.approx(one.energy_per_request_j, rel=1e-12)


def test_energy_per_token_and_request_and_power_are_shares_of_the_energy(convention: str) -> None:
    e = lpm.estimate("test-13b", dp=3, batch_size=4, output_len=9, energy_convention=convention)
    assert e.energy_per_request_j * 12 == pytest.approx(e.energy_j, rel=1e-12)
    assert e.energy_per_token_j * 108 == pytest.approx(e.energy_j, rel=1e-12)
    assert e.power_w * e.total_s == pytest.approx(e.energy_j, rel=1e-12)
    assert e.energy_per_token_j * e.throughput_tokens_per_s == pytest.approx(e.power_w, rel=1e-12)


@pytest.mark.parametrize("layout", [{}, {"tp": 2}, {"layer_split": 4}])
def test_arrays_of_an_estimate_equal_scalars(convention: str, layout: dict[str, int]) -> None:
    options = {"engine": "vllm", "power_limit_w": 250, "energy_convention": convention, **layout}
    batches, lens = np.array([1, 4, 64]), np.array([[16], [700]])
    e = lpm.estimate("llama-2-7b", batch_size=batches, input_len=lens, **options)
    for name in ("energy_j", "power_w", "energy_per_token_j", "energy_per_request_j"):
        values = getattr(e, name)
        assert values.shape == (2, 3)
        for (i, j), value in np.ndenumerate(values):
            one = lpm.estimate("llama-2-7b", batch_size=int(batches[j]), input_len=int(lens[i, 0]), **options)
            assert value == pytest.approx(getattr(one, name), rel=1e-12), name


def test_an_answer_holds_what_the_properties_say(convention: str) -> None:
    e = lpm.estimate("test-13b", power_limit_w=300, energy_convention=convention)
    answer = e.to_dict()
    for name in ("energy_j", "energy_per_token_j", "energy_per_request_j", "power_w"):
        assert answer[name] == getattr(e, name)
    assert (answer["request"]["power_limit_w"], answer["request"]["energy_convention"]) == (300.0, convention)


@pytest.mark.parametrize("stages", [2, 8])
def test_stages_of_a_layer_split_idle_while_others_work(stages: int) -> None:
    e = lpm.estimate("opt-6.7b", gpu="rtx-a6000", engine="pytorch-forward", layer_split=stages, output_len=4)
    idle_w = e.machine.power.idle_w
    assert idle_w == pytest.approx(e.case.power.idle_fraction * 300.0, rel=1e-12)
    working_j = e.prefill.energy_j + e.decode.energy_j
    assert e.energy_j == pytest.approx(working_j + (stages - 1) * idle_w * e.total_s, rel=1e-12)
    assert e.power_w <= 300.0 + (stages - 1) * idle_w


# Design power x time


@pytest.mark.parametrize("limit_w", [None, 200])
@pytest.mark.parametrize(
    ("layout", "working"),
    [({}, 1), ({"tp": 4}, 4), ({"tp": 2, "dp": 3}, 6), ({"layer_split": 8}, 1), ({"layer_split": 8, "dp": 2}, 2)],
)
def test_design_power_counts_the_devices_at_work(layout: dict[str, int], working: int, limit_w: float | None) -> None:
    """A layer split counts one device: its stages take turns."""
    e = lpm.estimate("llama-2-7b", output_len=5, energy_convention="tdp", power_limit_w=limit_w, **layout)
    assert e.energy_j == pytest.approx(working * (limit_w or A100_W) * e.total_s, rel=1e-12)
    assert e.power_w == pytest.approx(working * (limit_w or A100_W), rel=1e-12)


@given(cases(), lengths())
def test_design_power_is_an_upper_bound_of_the_devices_at_work(case: Case, w: tuple[float, float, float]) -> None:
    pass_, steps = prefill(case.graph, case.machine, *w[:2]), decode(case.graph, case.machine, *w)
    assert pass_.energy_j + steps.energy_j <= case.gpu.tdp_w * (pass_.time_s + steps.time_s) * (1.0 + 1e-12)


def test_idle_stages_can_draw_more_than_one_design_power() -> None:
    options = {"gpu": "rtx-a6000", "engine": "pytorch-forward", "layer_split": 8, "output_len": 1}
    drawn, design = (lpm.estimate("opt-6.7b", **options, energy_convention=c).energy_j for c in ("power", "tdp"))
    assert drawn > design


def test_the_convention_changes_no_time() -> None:
    drawn, design = (lpm.estimate("test-13b", energy_convention=c) for c in ("power", "tdp"))
    assert drawn.prefill.totals == design.prefill.totals
    assert drawn.decode.totals == design.decode.totals
    assert drawn.energy_j < design.energy_j


@pytest.mark.parametrize("word", ["TDP", "", None, 3])
def test_an_unknown_convention_is_named(word: object) -> None:
    with pytest.raises(RequestError, match=r"^energy_convention: is .*; must be power or tdp$"):
        lpm.estimate("test-13b", energy_convention=word)


# The recorded 16 x 1024 passes state energy as design power x time, with three decimals

HALF_A_UNIT_J = 0.0005
TOKENS = 16 * 1024


def run_of(record: Record) -> tuple[object, ...]:
    return record.device, record.n_devices, record.model


def measured(metric: str) -> dict[tuple[object, ...], Record]:
    """What the page states as measured, by run."""
    rows = read(ROOT / "records" / "forward_16x1024_a5000_a6000.csv")
    return {
        run_of(row): row for row in rows if isinstance(row, Record) and row.metric == metric and row.outcome == "ok"
    }


TIMED, ENERGIES = measured("prefill_ms"), measured("energy_j_per_token")


def printed_w(record: Record, e: Estimate) -> float:
    """The watts behind a printed figure: three rows of the A5000 take those of the A6000."""
    return 300.0 if "300 W, the TDP of the A6000" in record.note else e.case.gpu.tdp_w


def test_the_recorded_energies_are_24() -> None:
    assert len(ENERGIES) == 24
    assert set(ENERGIES) == set(TIMED)
    assert sum("300 W" in record.note for record in ENERGIES.values()) == 3


@pytest.mark.parametrize("ran", ENERGIES, ids=lambda ran: f"{ran[0][-5:]}-{ran[1]}-{ran[2].split('/')[-1]}")
def test_a_recorded_energy_is_design_power_times_time(ran: tuple[object, ...]) -> None:
    """The printed figure within half a unit of its last digit, and the estimate within that and its error of time."""
    mapped = map_record(ENERGIES[ran])
    assert mapped.request["energy_convention"] == "tdp"
    e = lpm.estimate(**mapped.request)
    printed_j, measured_s, watts = ENERGIES[ran].value, TIMED[ran].value, printed_w(ENERGIES[ran], e)
    assert printed_j is not None
    assert measured_s is not None
    assert abs(watts * measured_s / TOKENS - printed_j) <= HALF_A_UNIT_J * (1.0 + 1e-9)
    estimated_j = float(mapped.read(e)) * watts / e.case.gpu.tdp_w
    error_of_time_j = watts * abs(float(e.prefill_s) - measured_s) / TOKENS
    assert abs(estimated_j - printed_j) <= HALF_A_UNIT_J + error_of_time_j + 1e-12


# Power files


@pytest.mark.parametrize("name", names(PowerSpec))
def test_a_power_file_loads(name: str) -> None:
    spec = load(PowerSpec, name)
    assert spec.name == name
    assert 0.0 < spec.idle_fraction < 1.0
    assert spec.flops_fraction > spec.link_fraction
    assert spec.bytes_fraction > spec.link_fraction
    assert bool(spec.fits) != (spec.like is not None)


@pytest.mark.parametrize("name", [name for name in names(PowerSpec) if load(PowerSpec, name).like])
def test_a_generation_without_records_says_whose_shares_it_takes(name: str) -> None:
    spec = load(PowerSpec, name)
    shares = {field for field in PowerSpec.model_fields if field.endswith("_fraction")}
    assert all(getattr(spec, field) == getattr(load(PowerSpec, str(spec.like)), field) for field in shares)
    assert {field for item in spec.assumed for field in item.fields} == shares


def test_the_fitted_shares_are_those_of_one_study() -> None:
    (fit,) = load(PowerSpec, "ampere").fits
    assert set(fit.fields) == set(fit.deviations) == {"idle_fraction", "flops_fraction", "bytes_fraction"}
    assert fit.rows == 140


@pytest.mark.parametrize("gpu", names(GpuSpec))
def test_every_device_has_power_below_its_design_power_idling(gpu: str) -> None:
    spec = load(GpuSpec, gpu)
    power = load(PowerSpec, spec.generation)
    assert power.idle_fraction * spec.tdp_w < spec.tdp_w


@pytest.mark.parametrize("precision", ["w16a16", "w8a8", "fp32"])
def test_shares_are_of_the_peaks_that_the_work_uses(precision: str) -> None:
    """A second of peak arithmetic, of peak traffic and of a full link takes its share of the design power."""
    case = lpm.estimate("llama-2-7b", precision=precision, tp=2).case
    power, shares, m = case.machine.power, case.power, case.machine
    assert (power.design_w, power.limit_w) == (A100_W, A100_W)
    assert power.idle_w == pytest.approx(shares.idle_fraction * A100_W, rel=1e-12)
    assert power.flop_j * m.peak_flops_per_s == pytest.approx(shares.flops_fraction * A100_W, rel=1e-12)
    assert power.byte_j * m.peak_hbm_bytes_per_s == pytest.approx(shares.bytes_fraction * A100_W, rel=1e-12)
    joined = connection(case.gpu, 2, None)
    assert joined is not None
    link_w = power.link_byte_j * joined.link.bytes_per_s * joined.bundles
    assert link_w == pytest.approx(shares.link_fraction * A100_W, rel=1e-12)
    assert lpm.estimate("llama-2-7b", precision=precision).machine.power.link_byte_j == 0.0


# Commands


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80)


def test_a_command_refuses_a_limit_in_one_line(run: Run) -> None:
    done = run("infer", "--model", "test-13b", "--power_limit_w", "50")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: power_limit_w = 50: must be above ")
    assert done.err.count("\n") == 1


def test_a_command_names_the_convention(run: Run) -> None:
    drawn, design = (run("infer", "--model", "test-13b", "--energy_convention", c).out for c in ("power", "tdp"))
    assert "design power x time" in design
    assert "design power x time" not in drawn


def test_a_command_lists_and_shows_the_power_files(run: Run) -> None:
    listed = run("list", "powers").out
    assert all(name in listed for name in names(PowerSpec))
    shown = run("show", "powers/ampere")
    assert shown.code == 0
    assert "flops_fraction" in shown.out
