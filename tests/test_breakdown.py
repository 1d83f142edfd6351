from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given

import llm_perf_model as lpm
from llm_perf_model.breakdown import DETAILS, Line, bound_of, breakdown, by_role, lines
from llm_perf_model.case import Case
from llm_perf_model.generate import Phase, decode, prefill

from .strategies import Lengths, cases, lengths

SUMMED = ("flops", "hbm_bytes", "comm_bytes", "time_s")


def phases(case: Case, w: Lengths) -> dict[str, Phase]:
    return {
        "prefill": prefill(case.graph, case.machine, w.batch_size, w.input_len),
        "decode": decode(case.graph, case.machine, *w),
    }


def column(rows: list[Line], field: str) -> float:
    return float(sum(getattr(row, field) for row in rows))


@given(cases(), lengths())
def test_lines_of_operators_add_up_to_the_phase(case: Case, w: Lengths) -> None:
    for phase in phases(case, w).values():
        rows = list(lines(phase))
        for field in SUMMED:
            assert column(rows, field) == pytest.approx(getattr(phase, field), rel=1e-12), field
        parts = sum(column(rows, field) for field in ("compute_s", "memory_s", "comm_s", "host_s", "power_s"))
        assert parts == pytest.approx(phase.time_s, rel=1e-12)


@pytest.mark.parametrize("by", DETAILS)
def test_lines_add_up_to_the_phase_under_a_power_limit(by: str) -> None:
    """What a limit below the design power adds has a line of its own."""
    e = lpm.estimate("llama-2-7b", batch_size=8, power_limit_w=150.0, output_len=3)
    assert e.prefill.totals.power_s > 0.0
    for name in ("prefill", "decode"):
        records = [record for record in e.breakdown(by).records if record["phase"] == name]  # type: ignore[arg-type]
        assert sum(record["time_s"] for record in records) == pytest.approx(getattr(e, f"{name}_s"), rel=1e-12)
        assert sum(record["share"] for record in records) == pytest.approx(1.0, rel=1e-12)
        added_s = sum(record["time_s"] for record in records if record["bound"] == "power")
        assert added_s == pytest.approx(getattr(e, name).totals.power_s, rel=1e-12)


@given(cases(), lengths())
def test_roles_add_up_to_the_operators(case: Case, w: Lengths) -> None:
    for phase in phases(case, w).values():
        operators, roles = list(lines(phase)), by_role(lines(phase))
        assert [row.name for row in roles] == list(dict.fromkeys(row.role for row in operators))
        for role in roles:
            own = [row for row in operators if row.role == role.name]
            for field in Line._fields[2:]:
                assert getattr(role, field) == pytest.approx(column(own, field), rel=1e-12), field


@pytest.mark.parametrize("by", DETAILS)
@given(case=cases(), w=lengths())
def test_shares_sum_to_one(by: str, case: Case, w: Lengths) -> None:
    report = breakdown(phases(case, w), by)  # type: ignore[arg-type]
    for name, phase in phases(case, w).items():
        shares = [record["share"] for record in report.records if record["phase"] == name]
        assert sum(shares) == pytest.approx(1.0 if phase.time_s else 0.0, rel=1e-12)
        for record in report.records:
            if record["phase"] == name and phase.time_s:
                assert record["share"] == pytest.approx(record["time_s"] / phase.time_s, rel=1e-12, abs=1e-15)
    assert len(report.tables) == (2 if w.steps else 1)


@given(cases(hosted=True), lengths())
def test_time_on_the_host_has_lines_of_its_own(case: Case, w: Lengths) -> None:
    for phase in phases(case, w).values():
        spent = {row.name: row.time_s for row in lines(phase) if row.role == "host"}
        t = phase.totals
        expected = {"host_wait": t.host_s, "overhead": t.overhead_s}
        assert spent == {name: seconds for name, seconds in expected.items() if seconds}
    assert "overhead" in {row.name for row in lines(phases(case, w)["prefill"])}


def test_a_slow_host_shows_in_the_breakdown() -> None:
    engine = lpm.estimate("gpt2-small").case.engine
    slow = engine.model_copy(update={"name": "slow-host", "dispatch_s": 1e-3})
    e = lpm.estimate("gpt2-small", engine=slow, output_len=3)
    waits = {record["phase"]: record for record in e.breakdown().records if record["name"] == "host_wait"}
    assert set(waits) == {"prefill", "decode"}
    assert waits["decode"]["bound"] == "host"
    assert waits["decode"]["share"] > 0.9
    assert e.decode.bound == "host"


@given(cases(hosted=False), lengths())
def test_a_hidden_host_has_no_line(case: Case, w: Lengths) -> None:
    for phase in phases(case, w).values():
        assert [row.name for row in lines(phase)] == [node.name for node in case.graph] * bool(phase.runs)


def test_the_bound_is_the_largest_term_of_the_line() -> None:
    for terms, bound in [
        ((3.0, 2.0, 1.0, 0.0, 0.0), "compute"),
        ((2.0, 3.0, 1.0, 0.0, 0.0), "memory"),
        ((2.0, 1.0, 3.0, 0.0, 0.0), "communication"),
        ((2.0, 1.0, 0.0, 3.0, 0.0), "host"),
        ((2.0, 1.0, 0.0, 0.0, 3.0), "power"),
    ]:
        assert bound_of(Line("x", "ffn", 1.0, 0.0, 0.0, 0.0, *terms, sum(terms))) == bound


def test_an_unknown_detail_is_refused() -> None:
    with pytest.raises(lpm.RequestError, match="ops or roles"):
        lpm.estimate("gpt2-small").breakdown("layers")  # type: ignore[arg-type]


@pytest.mark.parametrize("by", DETAILS)
def test_records_of_arrays_are_lists_and_shares_their_mean(by: str) -> None:
    e = lpm.estimate("gpt2-small", batch_size=[1, 8, 64], output_len=5)
    records = e.breakdown(by).records  # type: ignore[arg-type]
    json.dumps(list(records), allow_nan=False)
    total_s = np.sum([np.broadcast_to(r["time_s"], 3) for r in records if r["phase"] == "prefill"], axis=0)
    np.testing.assert_allclose(total_s, e.prefill_s, rtol=1e-12)
    assert sum(r["share"] for r in records if r["phase"] == "decode") == pytest.approx(1.0, rel=1e-12)


def test_a_line_has_the_fields_of_the_totals() -> None:
    """Whatever time the totals know, a line shows: starts and overhead are the host's, the rest the link's."""
    e = lpm.estimate("gpt2-small")
    merged = {"start_s", "overhead_s", "bubble_s", "stream_s", "streamed_bytes"}
    named = {field.name for field in fields(e.prefill.totals)} - merged
    assert named <= set(Line._fields)
