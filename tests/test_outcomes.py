"""Runs that ran and runs that ran out of memory, beside what the estimates say of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from llm_perf_model.specs.catalog import data_folder
from llm_perf_model.validation.compare import Validation
from llm_perf_model.validation.outcomes import Outcome, outcomes
from llm_perf_model.validation.records import Problem, Record

from .rows import read_all, record, write

BLOOM = "bloom_24_a100.csv"


def run(batch: int, outcome: str = "ok", **changes: object) -> Record:
    """A run of a 13B model, of which a batch of some thirty sequences fits."""
    value = 0.1 if outcome == "ok" else None
    return record(batch=batch, outcome=outcome, value=value, **changes)


def told(rows: list[Record | Problem], engine: str | None = None) -> list[tuple[int | None, bool, bool]]:
    return [(found.record.batch, found.ran, found.fits) for found in outcomes(rows, engine)]


# As measured.


@pytest.fixture(scope="module")
def cells() -> list[Outcome]:
    return list(outcomes(read_all(Path(str(data_folder("records") / BLOOM)))))


@pytest.mark.parametrize(
    ("column", "ran", "out_of_memory"), [("HF (fp32)", 14, 8), ("HF (bf16)", 21, 1), ("DS-inference (fp16)", 15, 7)]
)
def test_every_cell_of_a_column_of_the_bloom_study_is_told_right(
    cells: list[Outcome], column: str, ran: int, out_of_memory: int
) -> None:
    """BigCode inference benchmark of BLOOM 24 x 2048 on an A100 80GB: batches of 1 to 1,024 or until memory ends."""
    of_column = [cell for cell in cells if cell.record.extra["column"] == column]
    assert Counter(cell.ran for cell in of_column) == {True: ran, False: out_of_memory}
    assert [(cell.record.batch, cell.ran) for cell in of_column if not cell.right] == []


def test_the_bloom_study_has_66_cells(cells: list[Outcome]) -> None:
    assert len(cells) == 66
    assert {cell.engine for cell in cells} == {"hf-transformers", "deepspeed-inference"}


def test_a_validation_holds_the_outcomes_of_its_records(held: Validation, cells: list[Outcome]) -> None:
    found = [cell for cell in held.outcomes if Path(cell.record.file).name == BLOOM]
    assert [(cell.record.batch, cell.fits) for cell in found] == [(cell.record.batch, cell.fits) for cell in cells]


# Which runs count.


@pytest.mark.parametrize(
    ("ran", "fits", "right"), [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
)
def test_an_estimate_is_right_if_it_agrees_with_the_run(ran: bool, fits: bool, right: bool) -> None:
    outcome = Outcome(run(1, "ok" if ran else "oom"), "ideal", fits)
    assert (outcome.ran, outcome.right) == (ran, right)


def test_runs_beside_one_that_ran_out_of_memory_are_told() -> None:
    assert told([run(1), run(400, "oom"), run(300), run(2, "oom")]) == [
        (1, True, True),
        (400, False, False),
        (300, True, False),
        (2, False, True),
    ]


def test_an_engine_that_never_ran_out_of_memory_tells_nothing() -> None:
    assert told([run(1), run(400)]) == []
    other = [run(400, "oom", engine="vllm"), run(400, "oom", device="h100-sxm-80gb"), run(400, "oom", w_dtype="bf16")]
    assert [batch for batch, ran, _ in told([run(1), run(2), *other]) if ran] == []


def test_a_run_with_several_metrics_counts_once() -> None:
    rows = [run(1), run(1, metric="ttft_ms"), run(1, output_len=64), run(400, "oom")]
    assert [(r.record.batch, r.record.output_len) for r in outcomes(rows)] == [(1, 32), (1, 64), (400, 32)]


def test_failures_estimates_and_rows_that_are_no_records_are_left_out() -> None:
    rows = [run(1, "runtime_error"), run(2, "estimate"), Problem("rows.csv", 3, "broken"), run(3), run(400, "oom")]
    assert [batch for batch, _, _ in told(rows)] == [3, 400]


def test_runs_that_no_request_stands_for_are_left_out() -> None:
    unknown = run(1, "oom", model="nosuch-model")
    split = run(2, "oom", tp=3, n_devices=3)  # 40 heads
    assert [batch for batch, _, _ in told([unknown, split, run(None), run(3), run(400, "oom")])] == [3, 400]  # type: ignore[arg-type]


def test_an_engine_may_stand_in_for_the_recorded_one() -> None:
    """A batch that fits beside a cache in place does not fit where old and new cache are alive together."""
    rows = [run(25, input_len=400, output_len=100), run(400, "oom")]
    assert told(rows)[0] == (25, True, True)
    assert told(rows, "hf-eager")[0] == (25, True, False)
    assert {outcome.engine for outcome in outcomes(rows, "hf-eager")} == {"hf-eager"}


def test_rows_of_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", [{"batch": 1}, {"batch": 400, "value": "", "outcome": "oom"}])
    assert told(read_all(path)) == [(1, True, True), (400, False, False)]
