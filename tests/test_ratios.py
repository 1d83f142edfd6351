"""Ratios of two engines: two requests that differ in the engine, their quotient, its direction, what is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.validation.calibrate import calibrate
from llm_perf_model.validation.compare import Score, engine_of, errors_by, score, validate_records
from llm_perf_model.validation.mapping import UnmappableError, map_record
from llm_perf_model.validation.ratios import unstated
from llm_perf_model.validation.records import Record, files, read
from llm_perf_model.validation.tables import report

from .rows import record

VERSION = "the version of FasterTransformer"
ENGINES = st.sampled_from(["eet", "fastertransformer", "fairseq", "hf-eager", "ideal", "lightseq"])


def ratio(value: float = 2.0, **changes: Any) -> Record:
    """FasterTransformer's time over EET's, of two sequences of a 13B model."""
    fields: dict[str, Any] = {
        "metric": "speedup_ratio", "unit": "1", "engine": "eet", "extra": {"baseline": "fastertransformer"},
    }  # fmt: skip
    return record(**(fields | changes), value=value)


def charts() -> list[Record]:
    rows = [row for path in files(["records/eet_charts.csv"]) for row in read(path)]
    return [row for row in rows if isinstance(row, Record)]


def scored(row: Record) -> Score:
    return score(row, map_record(row))


@given(ENGINES, st.integers(1, 64), st.integers(1, 900), st.integers(1, 100))
def test_the_ratio_of_an_engine_to_itself_is_one(engine: str, batch: int, prompt: int, output: int) -> None:
    row = ratio(engine=engine, extra={"baseline": engine}, batch=batch, input_len=prompt, output_len=output)
    assert scored(row).estimated == 1.0


@given(ENGINES, ENGINES, st.integers(1, 64))
def test_a_ratio_is_the_quotient_of_two_totals_and_its_inverse_the_other_way_round(a: str, b: str, batch: int) -> None:
    one, other = (scored(ratio(engine=x, extra={"baseline": y}, batch=batch)).estimated for x, y in ((a, b), (b, a)))
    runs = [lpm.estimate("test-13b", engine=x, batch_size=batch, input_len=512, output_len=32) for x in (a, b)]
    assert one == pytest.approx(runs[1].total_s / runs[0].total_s, rel=1e-12)
    assert one * other == pytest.approx(1.0, rel=1e-12)


def test_both_requests_differ_in_the_engine_only() -> None:
    rows = [row for row in charts() if row.metric == "speedup_ratio"]
    for row in [*rows, ratio()]:
        try:
            mapped = map_record(row)
        except UnmappableError:
            continue
        assert mapped.baseline is not None
        differing = {key for key, value in mapped.request.items() if mapped.baseline.request[key] != value}
        assert differing == {"engine"}
        assert set(mapped.baseline.request) == set(mapped.request)
        assert not mapped.is_time


@pytest.mark.parametrize(
    ("measured", "estimated", "right"),
    [(2.0, 1.1, True), (2.0, 0.9, False), (0.8, 0.9, True), (0.8, 1.2, False), (1.004, 1.2, None), (0.996, 0.5, None)],
)
def test_a_direction_is_the_side_of_one(measured: float, estimated: float, right: bool | None) -> None:
    row = ratio(measured)
    assert Score(row, estimated, map_record(row), "unknown").direction_right is right


def test_a_time_has_no_direction() -> None:
    assert scored(record()).direction_right is None


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"extra": {}}, "the baseline"),
        ({"device": ""}, "the device"),
        ({"model": "gpt2 (size unstated)"}, "the size of the model"),
        ({"model": ""}, "the size of the model"),
        ({"w_dtype": ""}, "the precision"),
        ({"batch": None}, "the batch"),
        ({"input_len": None}, "the input length"),
        ({"output_len": None}, "the output length"),
        ({"batch": None, "output_len": None}, "the batch, the output length"),
    ],
)
def test_a_ratio_names_everything_that_its_source_leaves_open(changes: dict[str, Any], missing: str) -> None:
    with pytest.raises(UnmappableError) as caught:
        map_record(ratio(**changes))
    assert str(caught.value) == f"a ratio of two engines, whose source does not state {missing}"


def test_a_network_needs_no_lengths() -> None:
    row = ratio(model="resnet50", engine="pytorch", extra={"baseline": "tensorrt"}, input_len=None, output_len=None)
    assert unstated(row) == []
    assert unstated(replace(row, batch=None)) == ["the batch"]


def test_a_baseline_without_a_file_has_a_stand_in_and_says_so() -> None:
    item = scored(ratio(extra={"baseline": "zork"}))
    assert item.mapped.baseline is not None
    assert item.mapped.baseline.fallback
    assert engine_of(item) == f"eet over {item.mapped.baseline.engine} (stand-in)"


def test_a_ratio_with_a_unit_is_refused() -> None:
    message = r"^metric 'speedup_ratio' is in 1, but the unit of the row stands for s$"
    with pytest.raises(UnmappableError, match=message):
        map_record(ratio(unit="s"))


def test_every_row_of_the_charts_is_scored_or_listed() -> None:
    rows = charts()
    validation = validate_records(rows)
    assert len(rows) == 93
    assert len(validation.scores) + len(validation.unmapped) == 93
    unknown = "the size of the model, the precision, "
    assert {(item.record.line, item.reason.partition("state ")[2]) for item in validation.unmapped} == {
        *((line, "the output length") for line in (34, 40)),  # the prompt fills the sequence
        *((line, f"{unknown}the batch, the output length, {VERSION}") for line in range(42, 56)),
        *((line, f"{unknown}the batch, the input length, the output length, {VERSION}") for line in range(56, 70)),
        *((line, unknown + VERSION) for line in range(70, 80)),
    }


GOLDEN = {
    5: (6.76, 0.20),  # RTX 2080 Ti, prompt of 512 of 1024 tokens, over Fairseq
    12: (2.00, 0.05),  # the same over FasterTransformer 3.1
    29: (8.16, 0.25),  # A100, prompt of 896, over FasterTransformer 3.1
    30: (0.82, 0.15),  # RTX 2080 Ti, 768 wide, batch 8: LightSeq is faster
    39: (2.46, 0.10),  # 1024 wide, batch 16: LightSeq is slower
    80: (2.33, 0.10),  # GTX 1080 Ti, BERT, one sequence of 128, over transformers
    92: (31.0, 0.15),  # RTX 3090, Llama 13B, EET 2.0, tokens/s; no coefficient knows this chart
    94: (68.0, 0.15),
}
"""Line of records/eet_charts.csv, which transcribes the labels of EET's charts -> value and bound of the error."""


@pytest.mark.parametrize("line", GOLDEN)
def test_golden_rows(line: int) -> None:
    (row,) = (row for row in charts() if row.line == line)
    measured, bound = GOLDEN[line]
    assert row.value == measured
    assert abs(scored(row).error) <= bound


def test_estimates_tell_every_direction() -> None:
    ratios = [item for item in validate_records(charts()).scores if item.mapped.baseline]
    assert len(ratios) == 44
    assert all(item.direction_right for item in ratios)


def test_every_chart_is_within_a_fifth_in_the_median() -> None:
    for errors in errors_by(validate_records(charts()).scores, engine_of):
        assert errors.median <= (0.15 if "over" not in errors.group else 0.2), errors.group


def test_eight_bit_layers_of_seven_products_take_seven_quarters_of_those_of_four() -> None:
    llama, bloom = (load(EngineSpec, name).layer_s for name in ("hf-bitsandbytes-llama", "hf-bitsandbytes"))
    assert llama == pytest.approx(7 / 4 * bloom, rel=1e-3)


QUANTISED = [("hf-bitsandbytes-llama", "llm-int8"), ("hf-gptq", "w4a16"), ("eet-2", "w8a16")]


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize(("engine", "precision"), QUANTISED)
def test_quantised_llama_13b_fits_on_the_card_of_its_chart(engine: str, precision: str, batch: int) -> None:
    asked = {"gpu": "rtx-3090", "engine": engine, "batch_size": batch, "input_len": 1024, "output_len": 50}
    assert lpm.estimate("llama-13b", precision=precision, **asked).fits
    assert not lpm.estimate("llama-13b", precision="w16a16", **asked).fits


def test_the_charts_over_prompts_rise_because_prompts_are_read_token_by_token() -> None:
    """With r the ratio of two steps, T tokens and P of prompt: about r T / (T - P); in one pass it would not rise."""
    for fed in ("fastertransformer-3.1", "fairseq"):
        short, long = (
            scored(ratio(engine="eet", model="gpt3-350m", extra={"baseline": fed}, input_len=p, output_len=1024 - p))
            for p in (128, 768)
        )
        assert long.estimated / short.estimated == pytest.approx((1024 - 128) / (1024 - 768), rel=0.2)


def test_the_report_has_errors_and_directions_of_ratios_apart_from_times() -> None:
    made = report(validate_records([ratio(0.5), ratio(1.0), record()]))
    (table,) = (table for table in made.tables if table.title == "speed-up ratios")
    assert table.columns[:3] == ("engine over baseline, device", "direction right", "n")
    assert [row[:3] for row in table.rows] == [("eet over fastertransformer, a100-sxm-40gb", "1 of 1", "2")]
    assert made.data["ratios_told"] == {"directions": 1, "directions_right": 1}
    assert [entry["n"] for entry in made.data["ratios"]] == [2]
    assert sum(entry["n"] for entry in made.data["errors"]["metric"]) == 1
    assert made.data["memory_and_energy"] == []


def test_a_calibration_uses_no_ratio() -> None:
    rows = [record(engine="eet", value=0.1 * n, input_len=256 * n) for n in (1, 2, 3)]
    made = calibrate(validate_records([*rows, ratio()]), load(EngineSpec, "generic-fused"), "own", "own", ["test"])
    assert made.rows == 3
    assert "1 row not used: a ratio" in made.notes
