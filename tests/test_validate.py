"""`validate` from Python and from the command line."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import pytest

import llm_perf_model as lpm
from llm_perf_model.specs.catalog import data_folder

from .rows import write
from .running import Ran, Run, runner

EET = str(data_folder("records") / "eet_gpt3_a100.csv")
ONE_GROUP = str(data_folder("records") / "fastertransformer_13b_a100.csv")
COLUMNS = [
    "source", "engine", "device", "model", "metric", "unit", "measured", "estimated", "error", "blame", "reason",
    "n_devices", "tp", "pp", "w_dtype", "batch", "input_len", "output_len", "outcome", "file", "line",
    "estimated_by", "absolute_error", "operator",
]  # fmt: skip
TABLES = ("source", "metric", "engine", "model", "device", "batch")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 120, "validate")


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    """Two scored rows, a memory, one without an estimate and one that cannot be read."""
    rows = [
        {}, {"metric": "total_ms", "value": "900", "batch": "64"},
        {"metric": "memory_gib", "unit": "GiB", "value": "30"}, {"model": "resnet1"}, {"value": "x"},
    ]  # fmt: skip
    return str(write(tmp_path / "mixed.csv", rows))


def refused(ran: Ran, *parts: str) -> None:
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert len(ran.err.splitlines()) == 1, ran.err
    for part in parts:
        assert part in ran.err


# Formats.


def test_text_has_a_table_of_each_group_and_every_reason(run: Run, mixed: str) -> None:
    code, out, err = run("--records", mixed)
    assert (code, err) == (0, "")
    assert out.startswith("3 scored, 1 without an estimate, 1 unreadable; errors are estimate / measurement - 1")
    for name in TABLES:
        assert f"times and rates by {name}" in out
    for name in ("source", "metric", "engine"):
        assert f"memory, energy and power by {name}" in out
    for part in ("unknown model 'resnet1'", "mixed.csv:6: value is 'x'"):
        assert part in out


def test_json_has_the_figures_of_the_groups(run: Run, mixed: str) -> None:
    code, out, err = run("--records", mixed, "--format", "json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert (answer["scored"], answer["unmapped"], len(answer["problems"])) == (3, 1, 1)
    assert set(answer["errors"]) == set(TABLES)
    assert [row["group"] for row in answer["errors"]["batch"]] == ["2-8", "9-64"]
    for groups in answer["errors"].values():
        assert sum(row["n"] for row in groups) == 2
        for row in groups:
            assert row.keys() == {"group", "n", "median", "mean", "p90", "worst", "bias"}
    assert answer["cross_validation"] == []
    assert [(row["group"], row["n"]) for row in answer["memory_and_energy"]] == [("memory_gib", 1)]
    assert answer["runs_that_fit"] == {"right": 0, "n": 0}


def test_csv_has_one_line_a_row(run: Run, mixed: str) -> None:
    code, out, err = run("--records", mixed, "--format", "csv")
    rows = list(csv.reader(io.StringIO(out)))
    assert (code, err) == (0, "")
    assert rows[0] == COLUMNS
    assert len(rows) == 1 + 5
    first = dict(zip(rows[0], rows[1], strict=True))
    expected = lpm.estimate("test-13b", engine="ideal", batch_size=2).prefill_s
    assert float(first["estimated"]) == expected
    assert float(first["error"]) == pytest.approx(expected / 0.1 - 1.0, rel=1e-12)


def test_markdown_has_the_tables(run: Run, mixed: str) -> None:
    code, out, err = run("--records", mixed, "--format", "markdown")
    assert (code, err) == (0, "")
    assert out.startswith("**3 scored")
    for name in TABLES:
        assert f"### times and rates by {name}" in out


def test_the_projects_own_records_are_the_default(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    code, out, err = run("--per_row", str(path), "--format", "json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert answer["scored"] + answer["unmapped"] == 1281
    assert answer["problems"] == []
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 1281
    assert sum(row["estimated"] != "" for row in rows) == answer["scored"]


def test_python_answers_as_the_command_does(run: Run, mixed: str) -> None:
    report = lpm.validate(mixed)
    assert json.loads(run("--records", mixed, "--format", "json").out) == json.loads(json.dumps(report.data))
    assert [dict(row) for row in lpm.validate([mixed]).records] == [dict(row) for row in report.records]


def test_several_files_are_separated_by_commas(run: Run, mixed: str) -> None:
    assert json.loads(run("--records", f"{mixed},{ONE_GROUP}", "--format", "json").out)["scored"] == 3 + 6
    assert json.loads(run("--records", f"[{mixed!r},{ONE_GROUP!r}]", "--format", "json").out)["scored"] == 3 + 6


def test_a_folder_stands_for_its_files(run: Run, mixed: str) -> None:
    folder = str(Path(mixed).parent)
    assert run("--records", folder, "--format", "csv").out == run("--records", mixed, "--format", "csv").out


def test_a_file_without_rows_scores_nothing(run: Run, tmp_path: Path) -> None:
    path = str(write(tmp_path / "empty.csv", []))
    code, out, err = run("--records", path)
    assert (code, err) == (0, "")
    assert out.startswith("0 scored, 0 without an estimate, 0 unreadable")


# Left-out errors.


@pytest.mark.parametrize("given", [("--cross_validate",), ("--cross_validate", "model"), ("--cross_validate=model",)])
def test_leave_a_model_out_by_default(run: Run, given: tuple[str, ...]) -> None:
    code, out, err = run("--records", ONE_GROUP, *given)
    assert (code, err) == (0, "")
    assert "leave one model out" in out
    for part in ("fastertransformer: fitted", "2 / 4", "one group"):
        assert part in out


def test_left_out_figures(run: Run) -> None:
    answer = json.loads(run("--records", EET, "--cross_validate", "batch", "--format", "json").out)
    (crossed,) = answer["cross_validation"]
    assert (crossed["name"], crossed["by"]) == ("eet", "batch")
    assert crossed["fitted"]["n"] == crossed["left_out"]["n"] == 14
    assert crossed["left_out"]["median"] > 0.0
    text = run("--records", EET, "--cross_validate", "batch").out
    section = text.split("left out, by batch\n", 1)[1]
    assert [line.split()[:2] for line in section.splitlines()[2:5]] == [["4", "7"], ["16", "7"], ["all", "14"]]
    assert set(crossed["free"]) == {
        "dispatch_s", "attention_memory_efficiency", "slow_attention_memory_efficiency"
    }  # fmt: skip


# Refusals.


def test_a_missing_path(run: Run, tmp_path: Path) -> None:
    refused(run("--records", str(tmp_path / "none.csv")), "none.csv", "no such file or folder")
    refused(run("--records", str(tmp_path)), "the folder holds no .csv file")
    refused(run("--records", f"{EET},{tmp_path / 'none.csv'}"), "none.csv")


@pytest.mark.parametrize("value", ["~nobody-is-called-so/a.csv", "x" * 5000])
def test_a_path_that_no_file_can_have(run: Run, value: str) -> None:
    refused(run("--records", value), "records")


@pytest.mark.parametrize("given", [("--records",), ("--records", "5"), ("--records", "{'a':1}")])
def test_records_that_are_no_paths(run: Run, given: tuple[str, ...]) -> None:
    refused(run(*given), "records: needs files or folders")


@pytest.mark.parametrize("value", ["colour", "5", "modle"])
def test_an_unknown_group(run: Run, value: str) -> None:
    refused(run("--records", ONE_GROUP, "--cross_validate", value), f"cross_validate: is '{value}'", "model, device")


def test_an_unknown_format(run: Run, mixed: str) -> None:
    refused(run("--records", mixed, "--format", "xml"), "format: is 'xml'")


def test_rows_that_cannot_be_written(run: Run, mixed: str, tmp_path: Path) -> None:
    refused(run("--records", mixed, "--per_row"), "per_row: needs the name of a file")
    refused(run("--records", mixed, "--per_row", str(tmp_path / "none" / "rows.csv")), "cannot be written")


def test_without_scipy_only_a_refit_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert run("--records", EET).code == 0
    refused(run("--records", EET, "--cross_validate"), "a fit needs SciPy: pip install")


def test_rows_with_a_number_that_is_none_are_told_in_every_format(run: Run, tmp_path: Path) -> None:
    path = str(write(tmp_path / "odd.csv", [{"value": "nan"}, {"value": "inf"}, {"batch": "inf"}, {"batch": "0"}, {}]))
    for form in ("text", "json", "csv", "markdown"):
        code, out, err = run("--records", path, "--format", form)
        assert (code, err) == (0, "")
        assert out
