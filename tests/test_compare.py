"""Scores of records: errors against the measurement, figures of groups, the term to blame, one line a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_perf_model as lpm
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.validation.compare import (
    GROUPINGS,
    Errors,
    Score,
    Validation,
    batch_band,
    errors_by,
    per_row,
    score,
    validate_records,
)
from llm_perf_model.validation.mapping import map_record
from llm_perf_model.validation.records import Problem
from llm_perf_model.validation.run import held_against

from .rows import record, write

COLUMNS = [
    "source", "engine", "device", "model", "metric", "unit", "measured", "estimated", "error", "blame", "reason",
    "n_devices", "tp", "pp", "w_dtype", "batch", "input_len", "output_len", "outcome", "file", "line",
    "estimated_by", "absolute_error", "operator",
]  # fmt: skip


def scored(spec: EngineSpec | None = None, **changes: Any) -> Score:
    row = record(**changes)
    return score(row, map_record(row), spec)


def test_an_error_refers_to_the_measurement() -> None:
    """An estimate of three halves of the measurement is 50 % too high; of a half, 50 % too low."""
    estimated = scored().estimated
    assert scored(value=estimated / 1.5).error == pytest.approx(0.5, rel=1e-12)
    assert scored(value=estimated * 2.0).error == pytest.approx(-0.5, rel=1e-12)


def test_a_prefill_by_hand() -> None:
    """The estimate of the library for the row's configuration, beside 80 ms."""
    e = lpm.estimate("test-13b", engine="ideal", gpu="a100-sxm-40gb", batch_size=2, input_len=512, output_len=32)
    s = scored(value=0.08)
    assert (s.measured, s.estimated) == (0.08, e.prefill_s)
    assert s.error == pytest.approx((e.prefill_s - 0.08) / 0.08, rel=1e-12)


def test_the_figures_of_a_group_are_those_of_numpy() -> None:
    errors = [0.01, -0.02, 0.04, -0.08, 0.5]
    figures = Errors.of("five", errors)
    sizes = np.array([0.01, 0.02, 0.04, 0.08, 0.5])
    assert (figures.group, figures.n) == ("five", 5)
    assert (figures.median, figures.worst) == (0.04, 0.5)
    assert figures.mean == pytest.approx(0.13, rel=1e-12)
    assert figures.p90 == pytest.approx(np.quantile(sizes, 0.9), rel=1e-12)
    assert figures.p90 == pytest.approx(0.08 + 0.6 * 0.42, rel=1e-12)
    assert figures.bias == 0.01


def test_groups_keep_their_first_order_and_lose_no_score() -> None:
    scores = [scored(batch=batch, value=0.1 * (1 + batch)) for batch in (64, 1, 2, 9, 600, 512, 8)]
    groups = errors_by(scores, batch_band)
    assert [(g.group, g.n) for g in groups] == [("9-64", 2), ("1", 1), ("2-8", 2), ("above 512", 1), ("65-512", 1)]


def test_a_stand_in_is_told_in_the_table_of_engines() -> None:
    group = GROUPINGS["engine"]
    assert group(scored()) == "ideal"
    assert group(scored(engine="an engine of 2031")) == "generic-fused (stand-in)"


# Blame.

BARE = {"kernel_start_s": 0.0, "layer_s": 0.0, "dispatch_s": 0.0, "step_s": 0.0, "request_s": 0.0}
IDEAL = load(EngineSpec, "ideal")


@pytest.mark.parametrize(
    ("changes", "coefficients", "blame"),
    [
        ({"metric": "prefill_ms", "batch": 16}, {}, "compute"),
        ({"metric": "decode_ms_per_token", "batch": 1}, {}, "memory"),
        ({"metric": "prefill_ms", "n_devices": 8, "tp": 8}, {"link_efficiency": 0.01}, "communication"),
        ({"metric": "decode_ms_per_token"}, {"kernel_start_s": 1e-3}, "kernel start"),
        ({"metric": "decode_ms_per_token"}, {"layer_s": 0.1}, "host"),
        ({"metric": "decode_ms_per_token"}, {"step_s": 1.0}, "host"),
        ({"metric": "prefill_ms"}, {"request_s": 10.0}, "host"),
        ({"metric": "total_ms", "output_len": 2}, {"request_s": 10.0}, "host"),
        ({"metric": "memory_gib", "unit": "B"}, {}, "unknown"),
    ],
)
def test_the_term_that_takes_most_of_the_time(
    changes: dict[str, Any], coefficients: dict[str, float], blame: str
) -> None:
    engine = IDEAL.model_copy(update=BARE | coefficients)
    assert scored(engine, **changes).blame == blame


def test_no_term_is_blamed_where_none_takes_two_fifths() -> None:
    """Memory, starts and host take a third each."""
    e = lpm.estimate("test-13b", engine="ideal", batch_size=2, output_len=32)
    third_s = e.decode_step_s
    kernels = sum(node.count * node.kernels for node in e.case.graph)
    shared = IDEAL.model_copy(update=BARE | {"kernel_start_s": third_s / kernels, "step_s": third_s})
    assert scored(shared, metric="decode_ms_per_token").blame == "unknown"


# One line a row.


def test_nothing_is_dropped() -> None:
    rows = [record(), record(model="resnet1"), record(outcome="oom", value=None), Problem("a.csv", 3, "is odd")]
    validation = validate_records(rows)
    assert (len(validation.scores), len(validation.unmapped), len(validation.problems)) == (1, 2, 1)
    assert len(per_row(validation)) == 4


def test_of_the_shipped_records_nothing_is_dropped(held: Validation) -> None:
    assert len(held.scores) + len(held.unmapped) + len(held.problems) == 1281
    assert held.problems == ()
    assert all(item.reason for item in held.unmapped)
    assert len(per_row(held)) == 1281


def test_a_line_has_the_configuration_after_the_reason(held: Validation) -> None:
    for row in per_row(held):
        assert list(row) == COLUMNS
        assert (row["reason"] == "") == (row["estimated"] != "")
        if row["estimated"] != "":
            assert row["error"] == pytest.approx(row["estimated"] / row["measured"] - 1.0, rel=1e-12)
            assert row["blame"] in {"compute", "memory", "communication", "kernel start", "host", "unknown"}


def test_a_line_of_each_fate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{}, {"model": "resnet1"}, {"value": "x"}])
    lines = per_row(held_against(str(path)))
    assert [line["source"] for line in lines[:2]] == ["a test", "a test"]
    assert [(line["file"], line["line"]) for line in lines] == [("a.csv", 2), ("a.csv", 3), ("a.csv", 4)]
    assert [line["reason"] for line in lines] == [
        "",
        "unknown model 'resnet1'",
        "value is 'x'; must be a number",
    ]
    assert (lines[0]["measured"], lines[0]["unit"], lines[0]["line"], lines[0]["file"]) == (0.1, "s", 2, "a.csv")


def test_every_line_has_every_column_also_where_no_row_could_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"value": "x"}])
    (line,) = per_row(held_against(str(path)))
    assert list(line) == COLUMNS


# The bars: errors against the measured values of records/.


def of_source(held: Validation, word: str, metrics: set[str]) -> list[Score]:
    return [s for s in held.scores if word in s.record.source and s.record.metric in metrics]


def sizes(scores: list[Score]) -> list[float]:
    return [abs(s.error) for s in scores]


def test_fastertransformer_13b(held: Validation) -> None:
    """records/fastertransformer_13b_a100.csv: six times of a 13B model on one and on two A100."""
    errors = sizes(of_source(held, "FasterTransformer 13B", {"prefill_ms", "decode_ms_per_token", "total_ms"}))
    assert len(errors) == 6
    assert max(errors) <= 0.08
    assert float(np.mean(errors)) <= 0.04


def test_eet_times_per_token(held: Validation) -> None:
    """records/eet_gpt3_a100.csv: fourteen times per token of seven GPT-3 shapes."""
    errors = sizes(of_source(held, "EET GPT-3", {"decode_ms_per_token"}))
    assert len(errors) == 14
    assert float(np.median(errors)) <= 0.04
    assert max(errors) <= 0.12


def test_forward_passes_of_16_x_1024(held: Validation) -> None:
    """records/forward_16x1024_a5000_a6000.csv: 24 runtimes on one and on eight RTX A5000 and A6000."""
    errors = sizes(of_source(held, "16 x 1024", {"prefill_ms"}))
    assert len(errors) == 24
    assert float(np.mean(errors)) <= 0.04
    assert max(errors) <= 0.15


def test_throughputs_of_bloom(held: Validation) -> None:
    """records/bloom_24_a100.csv: fifty throughputs of two engines at batch 1 to 1920."""
    errors = sizes(of_source(held, "BLOOM", {"throughput_tok_s"}))
    assert len(errors) == 50
    assert float(np.median(errors)) <= 0.05
    assert sum(error <= 0.15 for error in errors) >= 45


def test_a_line_names_the_recorded_engine_and_the_one_that_stands_in_for_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{"engine": "ideal"}, {"engine": "an engine of nobody"}])
    known, unknown = per_row(held_against(str(path)))
    assert (known["engine"], known["estimated_by"]) == ("ideal", "ideal")
    assert (unknown["engine"], unknown["estimated_by"]) == ("an engine of nobody", "generic-fused (stand-in)")
    assert unknown["absolute_error"] == abs(unknown["error"])
