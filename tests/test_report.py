"""Reports: the same content as text, JSON, CSV, Markdown and HTML, each well-formed."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.errors import RequestError
from llm_perf_model.listing import KINDS, listing, show_spec
from llm_perf_model.report.document import FORMATS, Report, Table
from llm_perf_model.report.export import write_text
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.model import ModelSpec

WIDTH = 80
LONG_MODELS = ("gpt2-mqa-24l-2048h", "deepseek-coder-33b", "aicrossim-clm-400m")

TABLE = Table(("part", "time"), (("first", "1.00 s"), ("second | half", "2.00 s")), "where it goes")
REPORT = Report("A title", (TABLE,), ("A note",), {"a": 1.5, "b": {"c": [1, 2]}, "d": None})


def _estimate(model: str, **options: Any) -> lpm.Estimate:
    return lpm.estimate(model=model, gpu="rtx-pro-6000-blackwell", **options)


def _reports() -> dict[str, Report]:
    reports: dict[str, Report] = {}
    for model in LONG_MODELS:
        e = _estimate(model, batch_size=64, input_len=900, output_len=124, tp=1 if model == LONG_MODELS[-1] else 2)
        reports[f"{model} summary"] = e.report()
        reports[f"{model} ops"] = e.breakdown("ops")
        reports[f"{model} roles"] = e.breakdown("roles")
    reports["arrays"] = _estimate(LONG_MODELS[0], batch_size=[1, 1000], flops_efficiency=[0.1, 0.9]).report()
    for name, options in (("paged", {"engine": "vllm"}), ("too large", {"engine": "hf-eager", "batch_size": 4096})):
        reports[f"memory {name}"] = lpm.memory("llama-2-13b", **options).report()
    reports["memory arrays"] = lpm.memory("deepseek-coder-33b", batch_size=[1, 8, 1000], engine="hf-eager").report()
    reports["limited"] = _estimate(LONG_MODELS[1], tp=2, power_limit_w=300, tariff="us-industrial").report()
    reports |= {f"list {word}": listing(word) for word in KINDS}
    shown = ("mi300x-oam-192gb", "test-13b", "fastertransformer", "deepspeed-inference", "powers/hopper", "lambda")
    reports |= {f"show {name}": show_spec(name) for name in (*shown, "us-industrial")}
    return reports


REPORTS = _reports()
WITH_DATA = [name for name, report in REPORTS.items() if report.records or report.data]
EVERY_REPORT = pytest.mark.parametrize("name", list(REPORTS))


# Text.


@EVERY_REPORT
def test_text_fits_eighty_columns_and_cuts_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    text = str(REPORTS[name])
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert "…" not in text
    assert "..." not in text
    for table in REPORTS[name].tables:
        alone = Report("", (table,)).text(WIDTH)
        words = [word for row in (table.columns, *table.rows) for cell in row for word in cell.split()]
        assert [word for word in words if len(word) <= 20 and word not in alone] == []


@pytest.mark.parametrize("model", LONG_MODELS)
@pytest.mark.parametrize("detail", ["ops", "roles"])
def test_rows_of_a_breakdown_stay_on_one_line(model: str, detail: Any) -> None:
    report = REPORTS[f"{model} {detail}"]
    lines = report.text(WIDTH).splitlines()
    for table in report.tables:
        for row in table.rows:
            assert any(line.split() == " ".join(row).split() for line in lines), row


@EVERY_REPORT
@pytest.mark.parametrize("width", [80, 100, 160])
def test_text_fits_any_width_and_has_no_trailing_space(name: str, width: int) -> None:
    for line in REPORTS[name].text(width).splitlines():
        assert len(line) <= width
        assert line == line.rstrip()


def test_width_of_the_terminal_is_used_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report("word " * 100)
    for columns, widest in (("20", 80), ("80", 80), ("120", 120), ("1000", 160)):
        monkeypatch.setenv("COLUMNS", columns)
        assert widest - 5 <= max(len(line) for line in str(report).splitlines()) <= widest


def test_text_holds_title_tables_and_notes() -> None:
    text = REPORT.text(WIDTH)
    for part in ("A title", "where it goes", "part", "second | half", "2.00 s", "A note"):
        assert part in text


def test_text_is_plain() -> None:
    marked = Report("[bold]A[/bold] :smile:", (Table(("[red]x[/red]",), (("[1, 2] 12",),)),))
    text = marked.text(WIDTH)
    assert "\x1b" not in text
    for part in ("[bold]A[/bold] :smile:", "[red]x[/red]", "[1, 2] 12"):
        assert part in text


def test_a_long_word_without_spaces_is_kept_whole() -> None:
    """A path that a shell is to copy."""
    path = "/a" * 60
    assert f"written: {path}" in str(Report(f"written: {path}"))


CELLS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip)
TABLES = st.integers(1, 6).flatmap(
    lambda columns: st.builds(
        Table,
        st.tuples(*[CELLS] * columns),
        st.lists(st.tuples(*[CELLS] * columns), max_size=4).map(tuple),
        CELLS,
    )
)


@given(TABLES, CELLS)
def test_no_table_exceeds_its_width(table: Table, title: str) -> None:
    text = Report(title, (table,), (title,)).text(WIDTH)
    assert all(len(line) <= WIDTH for line in text.splitlines())


# JSON.


@pytest.mark.parametrize("name", WITH_DATA)
def test_json_is_the_data(name: str) -> None:
    report = dataclasses.replace(REPORTS[name], format="json")
    assert json.loads(str(report)) == json.loads(json.dumps(dict(report.data)))


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_json_holds_no_number_that_json_lacks(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        str(Report("x", data={"a": number}, format="json"))


@pytest.mark.parametrize("model", LONG_MODELS)
def test_an_estimate_of_arrays_is_json_too(model: str) -> None:
    e = _estimate(model, batch_size=np.array([1, 8]), input_len=np.array([[16], [32]]), output_len=4)
    data = json.loads(json.dumps(e.to_dict("ops"), allow_nan=False))
    assert np.shape(data["total_s"]) == (2, 2)
    assert np.shape(data["decode"]["bound"]) == (2, 2)
    assert data["request"]["batch_size"] == [1, 8]


# CSV.


@pytest.mark.parametrize("name", WITH_DATA)
def test_csv_reads_back(name: str) -> None:
    report = REPORTS[name]
    rows = list(csv.DictReader(io.StringIO(report.csv()), strict=True))
    assert len(rows) == len(report.records or [report.data])
    assert all(None not in row and None not in row.values() for row in rows)
    for row, record in zip(rows, report.records or [report.data], strict=True):
        for key, value in record.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                assert float(row[key]) == float(value)
            elif isinstance(value, str):
                assert row[key] == value


def test_csv_joins_nested_keys_and_keeps_lists_as_json() -> None:
    (row,) = csv.DictReader(io.StringIO(REPORT.csv()))
    assert row == {"a": "1.5", "b.c": "[1, 2]", "d": ""}


def test_csv_quotes_what_needs_it_and_fills_what_is_missing() -> None:
    records = [{"a": 'x, "y"\nz', "b": 1}, {"a": "p", "c": 2}]
    rows = list(csv.DictReader(io.StringIO(Report("t", records=records).csv())))
    assert rows == [{"a": 'x, "y"\nz', "b": "1", "c": ""}, {"a": "p", "b": "", "c": "2"}]


# Markdown.


def _cells(line: str) -> int:
    assert line.startswith("| ")
    assert line.endswith(" |")
    return len(re.findall(r"(?<!\\)\|", line)) - 1


def _assert_tables_are_well_formed(report: Report) -> None:
    blocks = [block.splitlines() for block in report.markdown().split("\n\n") if block.startswith("|")]
    assert len(blocks) == len(report.tables)
    for table, lines in zip(report.tables, blocks, strict=True):
        assert len(lines) == len(table.rows) + 2
        assert {_cells(line) for line in lines} == {len(table.columns)}
        assert set(lines[1].strip("| ").split(" | ")) <= {":--", "--:"}


@EVERY_REPORT
def test_markdown_tables_are_well_formed(name: str) -> None:
    _assert_tables_are_well_formed(REPORTS[name])


@given(TABLES)
def test_markdown_of_any_table_is_well_formed(table: Table) -> None:
    _assert_tables_are_well_formed(Report("t", (table,)))


def test_a_cell_of_two_lines_stays_in_its_row() -> None:
    _assert_tables_are_well_formed(Report("t", (Table(("a", "b"), (("x\ny", "1"),)),)))


def test_markdown_has_title_headings_and_notes() -> None:
    assert REPORT.markdown() == "\n\n".join(
        [
            "**A title**",
            "### where it goes",
            "| part | time |\n| :-- | --: |\n| first | 1.00 s |\n| second \\| half | 2.00 s |",
            "A note",
        ]
    )


# HTML.


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.seen: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert not attrs
        self.opened.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _parsed(text: str) -> _Tags:
    tags = _Tags()
    tags.feed(text)
    tags.close()
    assert tags.opened == []
    return tags


@EVERY_REPORT
def test_html_is_balanced_and_complete(name: str) -> None:
    report = REPORTS[name]
    tags = _parsed(report.html())
    assert tags.seen.count("table") == len(report.tables)
    assert tags.seen.count("td") == sum(len(row) for table in report.tables for row in table.rows)


def test_html_escapes_everything() -> None:
    evil = "<script>alert('&')</script>"
    text = Report(evil, (Table((evil,), ((evil,),), evil),), (evil,)).html()
    assert "<script" not in text
    assert _parsed(text).texts.count(evil) == 5


def test_a_notebook_shows_the_same_report() -> None:
    e = lpm.estimate(model="test-13b")
    assert e._repr_html_() == e.report().html()
    assert str(e) == e.report().text()


# The object.


def test_formats_give_different_texts() -> None:
    assert len({str(dataclasses.replace(REPORT, format=form)) for form in FORMATS}) == len(FORMATS) == 4


def test_reports_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        REPORT.title = "x"  # type: ignore[misc]


def test_an_empty_report() -> None:
    empty = Report("")
    assert empty.text(WIDTH) == ""
    assert _parsed(empty.html()).seen == ["p", "b"]


@pytest.mark.parametrize("name", names(KINDS["models"][0])[::10])
def test_every_model_has_a_summary(name: str) -> None:
    lengths = {"output_len": 8} if load(ModelSpec, name).causal else {}
    e = lpm.estimate(model=name, tp=1, input_len=64, **lengths)
    text = e.report().text(WIDTH)
    assert name in text
    assert ("does NOT fit" in text) is not bool(e.fits)


def test_a_summary_says_when_it_goes_beyond_the_positions() -> None:
    assert "beyond the model's 2048 positions" in str(lpm.estimate(model="test-13b", input_len=3000))
    assert "beyond" not in str(lpm.estimate(model="test-13b", input_len=2000))


def test_a_summary_of_arrays_gives_the_range() -> None:
    text = str(lpm.estimate(model="test-13b", batch_size=[1, 8, 400]))
    assert "batch 1 .. 400" in text
    assert "fits at 67% of the points" in text


@pytest.mark.parametrize(
    ("convention", "words"), [("power", "energy per output token "), ("tdp", "token (design power x time)")]
)
def test_a_summary_has_energy_and_cost_and_whose_price_it_is(convention: Any, words: str) -> None:
    e = lpm.estimate("llama-2-7b", energy_convention=convention)
    text = e.report().text(160)
    assert words in text
    assert e.cost is not None
    for row in ("mean power of all devices", "a million input tokens", "a million output tokens", e.cost.price.origin):
        assert row in text


def test_a_summary_without_a_price_has_no_cost() -> None:
    text = str(lpm.estimate("gpt2-small", gpu="ryzen-9-5950x", precision="fp32"))
    assert "mean power of all devices" in text
    assert "million" not in text
    assert "$" not in text


@pytest.mark.parametrize("ask", [lpm.estimate, lpm.memory])
def test_a_mesh_has_a_report(ask: Any) -> None:
    """Arrays of two axes, with several bounds and moments among their points."""
    answer = ask("test-13b", batch_size=[1, 8, 1000], input_len=[[8], [900]], output_len=[[[1]], [[64]]])
    assert "batch 1 .. 1000" in str(answer)
    assert "%" in answer._repr_html_()
    json.dumps(answer.to_dict(), allow_nan=False)


# Files.


def test_write_text_ends_with_one_newline(tmp_path: Path) -> None:
    write_text(str(tmp_path / "a.txt"), "häßlich\nx")
    assert (tmp_path / "a.txt").read_bytes() == "häßlich\nx\n".encode()


def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old", encoding="utf-8")

    def fail(*_: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(RequestError, match=r"a\.txt: cannot be written: No space left on device$"):
        write_text(str(target), "new")
    assert target.read_text(encoding="utf-8") == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be written: No such file or directory"):
        write_text(str(tmp_path / "none" / "a.txt"), "x")
