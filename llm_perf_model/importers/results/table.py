"""Imported results as tables, and as the rows of a CSV file."""

from __future__ import annotations

from collections.abc import Sequence

from ...report.document import Report, Table
from .imported import unknown_names
from .result import Result

_COLUMNS = ("metric", "value", "unit", "batch", "in", "out", "load")
_WANTED = {
    "w_dtype": "the format of the weights",
    "batch": "the batch",
    "input_len": "the input length",
}
"""Columns without which a record has no estimate."""


def report_of(rows: Sequence[Result]) -> Report:
    """A table for each run of a model on a device, what is missing for an estimate, and all columns as rows."""
    runs: dict[str, list[Result]] = {}
    for row in rows:
        runs.setdefault(_run(row), []).append(row)
    tables = tuple(Table(_COLUMNS, tuple(map(_cells, same)), title) for title, same in runs.items())
    cells = [row.cells() for row in rows]
    sources = ", ".join(dict.fromkeys(f"{row.source_file_or_url} of {row.source}" for row in rows))
    title = f"{len(rows)} record{'s' if len(rows) > 1 else ''} from {sources}"
    return Report(title, tables, tuple(_notes(rows)), {"records": cells}, cells)


def _run(row: Result) -> str:
    parts = [f"{row.model} on {row.device}", str(row.engine), row.w_dtype or "", f"tp {row.tp}" if row.tp else ""]
    return ", ".join(part for part in parts if part)


def _cells(row: Result) -> tuple[str, ...]:
    counts = ("-" if count is None else str(count) for count in (row.batch, row.input_len, row.output_len))
    return (row.metric, f"{row.value:,.6g}", row.unit, *counts, _load(row))


def _load(row: Result) -> str:
    """How requests came, in words."""
    at_once, per_s = row.extra.get("concurrency"), row.extra.get("request_rate")
    if at_once is not None:
        return f"{at_once} at a time"
    if per_s is None:
        in_flight = row.extra.get("mean_concurrency")
        return "-" if in_flight is None else f"{in_flight:.3g} in flight"
    return "all at once" if per_s == "inf" else f"{per_s:g} a second"


def _notes(rows: Sequence[Result]) -> list[str]:
    """What keeps `validate` from an estimate."""
    notes = [
        f"{words} of {_some(missing, len(rows))} is not stated: --{column} adds it"
        for column, words in _WANTED.items()
        if (missing := sum(getattr(row, column) is None for row in rows))
    ]
    for column, names in unknown_names(rows).items():
        listed = ", ".join(f"'{name}'" for name in names)
        notes.append(f"no {column} of the catalogue is called {listed}: --{column} names it")
    return notes


def _some(count: int, of: int) -> str:
    if count == of:
        return "all records" if of > 1 else "the record"
    return f"{count} of {of} records"
