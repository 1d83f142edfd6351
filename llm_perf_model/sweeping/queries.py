"""What the flags of a command ask of a sweep: all of it, its best configuration, or those that no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self, cast, get_args

from ..errors import InfeasibleError, RequestError
from ..report.document import Format, Report
from ..report.export import ColumnFormat, check_parquet, check_writable, write_columns
from .cells import Cells
from .choosing import Choice
from .executors import Where
from .folder import SweepFolder
from .goals import explored, written
from .grid import Skipped, unable
from .metrics import DEFAULT_METRICS
from .question import question_of
from .run import sweep

ENDINGS: Final = {f".{form}": form for form in get_args(ColumnFormat)}
_PAIR: Final = 2


@dataclass(frozen=True)
class Query:
    """Metrics to keep, and which configurations are the answer; without a choice all are."""

    metrics: tuple[str, ...] = DEFAULT_METRICS
    choice: Choice | None = None

    @classmethod
    def of(cls, metrics: Any, best: Any, constraints: Any, pareto: Any) -> Self:
        """The question of the flags of a command.

        Raises:
            RequestError: they do not go together.
        """
        kept, limits, front = _words("metrics", metrics), _words("constraints", constraints), _words("pareto", pareto)
        objective = _words("best", best)
        if len(objective) > 1 or (objective and front):
            raise RequestError("best: takes one metric, and no pareto beside it; leave the others out")
        if front and len(front) != _PAIR:
            raise RequestError(f"pareto: is {', '.join(front)}; give two metrics, as throughput_tokens_per_s,tpot_s")
        if limits and not objective:
            raise RequestError("constraints: have no effect without best; give best too")
        choice = Choice.of(objective or front, limits) if objective or front else None
        return cls(kept or DEFAULT_METRICS, choice)


def asked(fields: Mapping[str, Any], query: Query, form: Format, output: str | None, executor: Where = None) -> Report:
    """The answer to a question about a sweep, as a report, or in a file or a folder that the report names.

    Raises:
        RequestError: a field or a metric is wrong, or the file cannot be written; that is told before the sweep.
    """
    ending = None if output is None else _ending(output)
    if query.choice is not None:
        question = question_of(fields, None, query.metrics).keeping(query.choice.needed)
        found = explored(question, query.choice, executor)
        cells, skipped, notes = found.cells, found.skipped, found.remarks()
        report = cells.report()
    elif output is not None and ending is None:
        return _folder(output, fields, query, executor)
    else:
        swept = sweep(**fields, metrics=query.metrics, executor=executor)
        if not swept.computed:
            raise InfeasibleError(unable(swept.skipped))
        cells, skipped, notes = swept.cells(), swept.skipped, swept.remarks()
        report = swept.report()
    if output is not None and ending is not None:
        write_columns(output, cells.columns, ending)
        return Report(f"written: {output} ({len(cells):,} configurations)", notes=tuple(notes))
    if form in {"text", "markdown"}:
        return replace(report, format=form)
    return _data(report, form, cells, skipped)


def _data(report: Report, form: Format, cells: Cells, skipped: Sequence[Skipped]) -> Report:
    """The report with all cells as data."""
    rows = cells.rows()
    left_out = [{"where": {**each.where}, "cells": each.cells, "reason": each.reason} for each in skipped]
    return replace(report, format=form, records=rows, data={"cells": rows, "skipped": left_out})


def _folder(output: str, fields: Mapping[str, Any], query: Query, executor: Where) -> Report:
    """Write a folder of parts; an interrupt says how to go on."""
    try:
        found = written(question_of(fields, None, query.metrics), output, executor)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the parts that {output} holds are whole; the same command goes on") from None
    return Report(f"written: {_counted(found)}", notes=tuple(found.remarks()))


def _counted(found: SweepFolder) -> str:
    parts = "1 part" if found.parts == 1 else f"{found.parts} parts"
    return f"{found.path} ({found.size:,} configurations in {parts})"


def _ending(path: str) -> ColumnFormat | None:
    """The format that the end of a file's name says, where it can be written; None: a folder."""
    ending = Path(path).suffix.lower()
    if not ending or path.endswith("/"):
        return None
    if ending not in ENDINGS:
        raise RequestError(
            f"output: {path} ends in none of {', '.join(ENDINGS)}; give a file that does, or a folder (no ending)"
        )
    form = cast("ColumnFormat", ENDINGS[ending])
    if form == "parquet":
        check_parquet()
    check_writable(path)
    return form


def _words(flag: str, value: Any) -> tuple[str, ...]:
    """Words with commas between them, or a list of them."""
    if value is None:
        return ()
    items = [str(item) for item in value] if isinstance(value, list | tuple) else str(value).split(",")
    if isinstance(value, bool) or not all(item.strip() for item in items):
        raise RequestError(f"{flag}: is given without a value")
    return tuple(item.strip() for item in items)
