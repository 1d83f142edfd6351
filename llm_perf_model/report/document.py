"""A report: a title, tables and notes, and the same content as data; rendered in four formats."""

from __future__ import annotations

import csv
import html
import io
import json
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never, get_args

Format = Literal["text", "json", "csv", "markdown"]
FORMATS: tuple[Format, ...] = get_args(Format)

_NARROWEST, _WIDEST = 80, 160
_WIDEST_NAME = 32


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under column names; the first column is text, the others are aligned right."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    text_columns: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What a command answers: `str()` is the text of the chosen format.

    `data` is the JSON object; `records` are the rows of the CSV (one row of `data` where there are none).
    """

    title: str
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    format: Format = "text"

    def __str__(self) -> str:
        match self.format:
            case "text":
                return self.text()
            case "json":
                return json.dumps(self.data, indent=2, allow_nan=False)
            case "csv":
                return self.csv()
            case "markdown":
                return self.markdown()
            case never:
                assert_never(never)

    def text(self, width: int | None = None) -> str:
        """Aligned tables for a terminal of `width` columns (its own width if not given)."""
        from rich.console import Console

        columns = width or min(max(shutil.get_terminal_size((_NARROWEST, 24)).columns, _NARROWEST), _WIDEST)
        console = Console(
            file=io.StringIO(), width=columns, color_system=None, highlight=False, markup=False, emoji=False,
            force_jupyter=False,
        )  # fmt: skip
        with console.capture() as capture:
            console.print(_wrapped(self.title, columns), soft_wrap=True)
            for table in self.tables:
                console.print()
                console.print(_rich(table))
            for number, note in enumerate(self.notes):
                if number == 0:
                    console.print()
                console.print(_wrapped(note, columns), soft_wrap=True)
        return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))

    def csv(self) -> str:
        """One header line, then one line a record; nested keys joined by dots."""
        rows = [dict(_flat(record)) for record in (self.records or (self.data,))]
        header = list(dict.fromkeys(key for row in rows for key in row))
        out = io.StringIO()
        writer = csv.DictWriter(out, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().rstrip("\n")

    def markdown(self) -> str:
        """Pipe tables."""
        parts = [f"**{self.title}**"]
        for table in self.tables:
            if table.title:
                parts.append(f"### {table.title}")
            lines = [_pipe(table.columns), _pipe([":--" if _is_text(table, i) else "--:" for i in _indices(table)])]
            parts.append("\n".join(lines + [_pipe(row) for row in table.rows]))
        return "\n\n".join(parts + list(self.notes))

    def html(self) -> str:
        """Tables for a notebook."""
        parts = [f"<p><b>{html.escape(self.title)}</b></p>"]
        for table in self.tables:
            head = "".join(f"<th>{html.escape(name)}</th>" for name in table.columns)
            body = "".join(
                "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
            )
            caption = f"<caption>{html.escape(table.title)}</caption>" if table.title else ""
            parts.append(f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
        parts += [f"<p>{html.escape(note)}</p>" for note in self.notes]
        return "\n".join(parts)


def _wrapped(text: str, width: int) -> str:
    """Lines of at most `width` columns; a longer word, or a word and a path, stay whole."""
    return "\n".join(
        line if line.count(" ") <= 1 else textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def _rich(table: Table) -> Any:
    from rich import box
    from rich.table import Table as RichTable

    drawn = RichTable(
        title=table.title or None,
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, name in enumerate(table.columns):
        drawn.add_column(
            name,
            justify="left" if _is_text(table, index) else "right",
            overflow="fold",
            no_wrap=index == 0 and _is_narrow(table),
        )
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def _is_narrow(table: Table) -> bool:
    """Whether the first column can be kept from wrapping without squeezing the others."""
    return table.text_columns == 1 and all(len(row[0]) <= _WIDEST_NAME for row in table.rows)


def _indices(table: Table) -> range:
    return range(len(table.columns))


def _is_text(table: Table, index: int) -> bool:
    return index < table.text_columns


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        elif isinstance(item, list | tuple):
            yield f"{prefix}{key}", json.dumps(item)
        else:
            yield f"{prefix}{key}", item
