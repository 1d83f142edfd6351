"""Files of records: values converted once, and every row that is none told with its file and line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from llm_perf_model.errors import RequestError
from llm_perf_model.specs.catalog import data_folder
from llm_perf_model.validation.mapping import UnmappableError, map_record
from llm_perf_model.validation.records import COLUMNS, UNITS, Problem, Record, files, read

from .rows import ROW, read_all, write

SHIPPED = sorted(data_folder("records").glob("*.csv"))


@pytest.mark.parametrize(
    ("value", "unit", "si", "base"),
    [
        ("2", "s", 2.0, "s"),
        ("63.17", "ms", 0.06317, "s"),
        ("41", "us", 41e-6, "s"),
        ("7", "tok/s", 7.0, "tokens/s"),
        ("7", "output tok/s/gpu", 7.0, "tokens/s"),
        ("1.5", "GiB", 1.5 * 2**30, "B"),
        ("1.5", "GB", 1.5e9, "B"),
        ("3", "MB", 3e6, "B"),
        ("3", "MiB", 3.0 * 2**20, "B"),
        ("0.4", "J/token", 0.4, "J"),
        ("2.5", "x", 2.5, "1"),
        ("1e3", "MS", 1.0, "s"),
    ],
)
def test_a_value_is_converted_once(tmp_path: Path, value: str, unit: str, si: float, base: str) -> None:
    (record,) = read_all(write(tmp_path / "a.csv", [{"value": value, "unit": unit}]))
    assert record.value == pytest.approx(si, rel=1e-15)
    assert record.unit == ("J/token" if base == "J" and record.unit != "J" else base)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_row_is_a_record_with_its_printed_value(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as stream:
        printed = list(csv.DictReader(stream))
    rows = read_all(path)
    assert len(rows) == len(printed)
    for row, cells in zip(rows, printed, strict=True):
        assert isinstance(row, Record), str(row)
        assert (row.source, row.engine, row.device, row.model, row.metric) == tuple(
            cells[name] for name in ("source", "engine", "device", "model", "metric")
        )
        if cells["value"]:
            assert row.value == pytest.approx(float(cells["value"]) * UNITS[cells["unit"].lower()][1], rel=1e-15)
        else:
            assert row.value is None
            assert row.outcome in {"oom", "runtime_error"}
        for count in ("n_devices", "tp", "batch", "input_len", "output_len"):
            assert getattr(row, count) == (int(cells[count]) if cells[count] else None)


def test_each_row_has_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{}, {"note": "two\nlines"}, {"value": "x"}, {}])
    rows = read_all(path)
    assert [row.line for row in rows] == [2, 4, 5, 6]
    assert {row.file for row in rows} == {"a.csv"}


WRONG: list[tuple[dict[str, str], str]] = [
    ({"unit": ""}, "metric prefill_ms has the value '100' without a unit"),
    ({"unit": "furlongs"}, "unit 'furlongs' of metric prefill_ms is not known"),
    ({"value": "fast"}, "value is 'fast'; must be a number"),
    ({"value": ""}, "value is ''; must be a number"),
    ({"value": "1,5"}, "value is '1,5'; must be a number"),
    ({"value": "nan"}, "value is 'nan'"),
    ({"value": "inf"}, "value is 'inf'"),
    ({"outcome": "fine"}, "outcome is 'fine'; must be one of ok, oom, runtime_error, estimate"),
    ({"outcome": ""}, "outcome is ''"),
    ({"batch": "many"}, "batch is 'many'; must be a whole number"),
    ({"batch": "nan"}, "batch is 'nan'; must be a whole number"),
    ({"batch": "inf"}, "batch is 'inf'; must be a whole number"),
    ({"input_len": "2.5"}, "input_len is '2.5'; must be a whole number"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[",".join(f"{k}={v}" for k, v in c.items()) for c, _ in WRONG])
def test_a_wrong_row_is_told_and_the_others_are_read(tmp_path: Path, change: dict[str, str], words: str) -> None:
    rows = read_all(write(tmp_path / "a.csv", [{}, change, {"value": "3"}]))
    first, problem, last = rows
    assert isinstance(problem, Problem), problem
    assert str(problem).startswith("a.csv:3: ")
    assert words in problem.message
    assert (first.value, last.value) == (0.1, 0.003)


@pytest.mark.parametrize("column", ["input_len", "output_len"])
@pytest.mark.parametrize("words", ["up to 2048", "ShareGPT", "varied (mean unknown)"])
def test_a_length_in_words_is_none(tmp_path: Path, column: str, words: str) -> None:
    """The source describes it instead of stating it: the row is read, and has no such length."""
    (row,) = read_all(write(tmp_path / "a.csv", [{column: words}]))
    assert isinstance(row, Record)
    assert getattr(row, column) is None


@pytest.mark.parametrize(("cell", "count"), [("32", 32), ("32.0", 32), ("1e2", 100)])
def test_a_length_in_figures_is_that_number(tmp_path: Path, cell: str, count: int) -> None:
    (row,) = read_all(write(tmp_path / "a.csv", [{"output_len": cell}]))
    assert row.output_len == count


def test_a_mean_output_beside_a_mean_prompt_is_rounded(tmp_path: Path) -> None:
    rows = read_all(
        write(tmp_path / "a.csv", [{"input_len": "mean of a set", "output_len": "216.4"}, {"output_len": "216.4"}])
    )
    assert (rows[0].input_len, rows[0].output_len) == (None, 216)
    assert isinstance(rows[1], Problem)
    assert "output_len is '216.4'; must be a whole number" in rows[1].message


@pytest.mark.parametrize("column", ["batch", "n_devices", "tp", "pp"])
def test_other_counts_take_no_words(tmp_path: Path, column: str) -> None:
    (row,) = read_all(write(tmp_path / "a.csv", [{column: "up to 8"}]))
    assert isinstance(row, Problem)
    assert f"{column} is 'up to 8'; must be a whole number" in row.message


OPERATOR_COLUMNS = (
    "source", "engine", "device", "op", "shape", "dtype", "m", "n", "batch", "kv_len", "head_dim", "bytes", "n_devices",
    "metric", "value", "unit", "outcome",
)  # fmt: skip


def test_sizes_of_an_operator_are_those_that_the_row_states(tmp_path: Path) -> None:
    """Numbers of any size, without the empty cells; the shape and the type as they are written."""
    row = {"op": "all_reduce", "shape": "devices_per_node=8", "dtype": "half", "bytes": "1e9", "n_devices": "4"}
    blank = {"batch": "", "m": "", "n": ""}
    first, second = read_all(
        write(tmp_path / "a.csv", [row | blank, row | {"op": "", "m": "7", "batch": "2"}], OPERATOR_COLUMNS)
    )
    assert (first.operator, first.shape, first.w_dtype) == ("all_reduce", "devices_per_node=8", "half")
    assert (first.sizes, first.n_devices, first.batch) == ({"bytes": 1e9}, 4, None)
    assert (second.operator, second.sizes, second.batch) == ("", {}, 2)


@pytest.mark.parametrize("cell", ["wide", "nan", "inf"])
def test_a_size_that_is_no_number_is_told(tmp_path: Path, cell: str) -> None:
    row = {"op": "gelu", "m": "7", "n": cell, "batch": ""}
    (problem,) = read_all(write(tmp_path / "a.csv", [row], OPERATOR_COLUMNS))
    assert str(problem) == f"a.csv:2: n is {cell!r}; must be a number"


def test_a_run_that_failed_needs_no_value(tmp_path: Path) -> None:
    rows = read_all(write(tmp_path / "a.csv", [{"value": "", "outcome": word} for word in ("oom", "runtime_error")]))
    assert [row.value for row in rows] == [None, None]
    assert [row.outcome for row in rows] == ["oom", "runtime_error"]


@pytest.mark.parametrize("column", ["source", "engine", "device", "model", "metric", "value", "unit", "outcome"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    (problem,) = read_all(write(tmp_path / "a.csv", [{}, {}], [name for name in COLUMNS if name != column]))
    assert str(problem) == f"a.csv:1: missing column {column}"


def test_columns_that_are_not_needed_may_be_missing(tmp_path: Path) -> None:
    needed = ("source", "engine", "device", "model", "metric", "value", "unit", "outcome")
    (record,) = read_all(write(tmp_path / "a.csv", [{}], needed))
    assert isinstance(record, Record)
    assert (record.batch, record.w_dtype, record.extra) == (None, "", {})


def test_a_file_of_operators_is_listed_row_by_row_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "operators.csv"
    header = "source,engine,device,op,m,n,k,metric,value,unit,outcome\n"
    row = "a test,any,a100,gemm,1,2,3,time_ms,{},ms,ok\n"
    path.write_text(header + row.format(4) + row.format("x"), encoding="utf-8")
    record, problem = read_all(path)
    assert isinstance(record, Record)
    assert (record.operator, record.model, record.value) == ("gemm", "", pytest.approx(0.004))
    assert record.sizes == {"m": 1.0, "n": 2.0, "k": 3.0}
    with pytest.raises(UnmappableError, match="the source names no model"):
        map_record(record)
    path.write_text(header + row.format(4).replace(",2,", ",two,"), encoding="utf-8")
    assert [str(problem) for problem in read_all(path)] == ["operators.csv:2: n is 'two'; must be a number"]
    assert str(problem) == "operators.csv:3: value is 'x'; must be a number"


@pytest.mark.parametrize("text", [b"", b"\n", b"\xff\xfe\x00\x01", b"no header at all", b"\x00\x00"])
def test_a_file_that_is_no_table_is_one_problem(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(text)
    (problem,) = read_all(path)
    assert isinstance(problem, Problem)
    assert str(problem).startswith("broken.csv:1: ")


def test_a_row_that_breaks_off_is_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [{}])
    path.write_text(path.read_text(encoding="utf-8") + "a test,,\n", encoding="utf-8")
    first, problem = read_all(path)
    assert isinstance(first, Record)
    assert str(problem).startswith("a.csv:3: ")


def test_a_cell_beyond_the_limit_of_csv_is_a_problem(tmp_path: Path) -> None:
    rows = read_all(write(tmp_path / "a.csv", [{}, {"note": "x" * 200_000}]))
    assert isinstance(rows[0], Record)
    assert "cannot be read as CSV" in str(rows[-1])


@pytest.mark.parametrize(
    ("cell", "extra"),
    [
        ("", {}),
        ('{"decode_steps": 10}', {"decode_steps": 10}),
        ("printed 3", {"text": "printed 3"}),
        ("[1, 2]", {"value": [1, 2]}),
    ],
)
def test_further_facts(tmp_path: Path, cell: str, extra: dict[str, Any]) -> None:
    (record,) = read_all(write(tmp_path / "a.csv", [{"extra": cell}]))
    assert record.extra == extra


def test_files_and_folders_are_found_in_order(tmp_path: Path) -> None:
    inner = tmp_path / "folder" / "deeper"
    inner.mkdir(parents=True)
    for path in (tmp_path / "one.csv", inner / "b.csv", inner.parent / "c.csv", inner.parent / "notes.txt"):
        path.write_text("x", encoding="utf-8")
    found = files([str(tmp_path / "one.csv"), str(tmp_path / "folder")])
    assert [path.name for path in found] == ["one.csv", "c.csv", "b.csv"] or [path.name for path in found] == [
        "one.csv", "b.csv", "c.csv",
    ]  # fmt: skip
    assert found == [tmp_path / "one.csv", *sorted((tmp_path / "folder").rglob("*.csv"))]


def test_a_missing_path_and_an_empty_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"records .*none\.csv: no such file or folder"):
        files([str(tmp_path / "none.csv")])
    with pytest.raises(RequestError, match=r"the folder holds no \.csv file"):
        files([str(tmp_path)])


@pytest.mark.parametrize("name", ["~nobody-is-called-so/a.csv", "a\0b.csv", "x" * 5000])
def test_a_path_that_no_file_can_have_is_told(name: str) -> None:
    with pytest.raises(RequestError):
        files([name])


def test_a_file_without_permission_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.csv", [ROW])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    (problem,) = list(read(path))
    assert "Permission denied" in str(problem)
