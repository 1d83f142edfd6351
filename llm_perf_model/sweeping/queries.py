"""What the flags of a command ask of a sweep: all of it, its best configuration, or those that no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, cast, get_args

from ..errors import InfeasibleError, RequestError
from ..report.document import Format, Report
from ..report.export import ColumnFormat, check_parquet, check_writable, write_columns
from .axes import axis_of
from .cells import Cells
from .choosing import Choice
from .executors import Where
from .folder import SweepFolder
from .goals import explored, written
from .grid import Skipped, Sweep, unable
from .metrics import DEFAULT_METRICS, metric
from .question import question_of
from .run import sweep

if TYPE_CHECKING:
    from ..pictures.canvas import Picture
    from ..pictures.file import PictureFile

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

    @property
    def front(self) -> bool:
        """Whether those are asked for that no other beats in two metrics."""
        return self.choice is not None and len(self.choice.objectives) == _PAIR

    @property
    def needed(self) -> tuple[str, ...]:
        """The metrics that are kept, with those that the choice reads."""
        return tuple(dict.fromkeys([*self.metrics, *(self.choice.needed if self.choice is not None else ())]))

    def picture(self, found: Sweep) -> Picture:
        """The front, or the first metric along the longest axis."""
        if self.choice is not None:
            x, y = (each.name for each in self.choice.objectives)
            return found.plot_pareto(x, y)
        return found.plot(self.metrics[0])

    def answer(self, fields: Mapping[str, Any], executor: Where, whole: bool) -> Answer:
        """The configurations that are the answer, from all of them if `whole`, and else without keeping others.

        Raises:
            InfeasibleError: there is none.
        """
        if self.choice is not None and not whole:
            found = explored(question_of(fields, None, self.needed), self.choice, executor)
            return Answer(found.cells, found.skipped, tuple(found.remarks()), found.cells.report())
        swept = sweep(**fields, metrics=self.needed, executor=executor)
        if not swept.computed:
            raise InfeasibleError(unable(swept.skipped))
        cells = swept.cells() if self.choice is None else self.choice.among([swept.offer(self.choice)])
        report = swept.report() if self.choice is None else cells.report()
        return Answer(cells, swept.skipped, tuple(swept.remarks()), report, swept)


class Answer(NamedTuple):
    """Configurations, what was skipped, and lines about both."""

    cells: Cells
    skipped: Sequence[Skipped]
    remarks: tuple[str, ...]
    report: Report
    sweep: Sweep | None = None


def asked(
    fields: Mapping[str, Any],
    query: Query,
    form: Format,
    output: str | None,
    executor: Where = None,
    picture: PictureFile | None = None,
) -> Report:
    """The answer to a question about a sweep, as a report, or in a file or a folder that the report names.

    Raises:
        RequestError: a field or a metric is wrong, or the file cannot be written; that is told before the sweep.
    """
    ending = None if output is None else _ending(output)
    if picture is not None:
        _check_picture(fields, query)
    if output is not None and ending is None:
        _check_folder(output, query, picture)
        return _folder(output, fields, query, executor)
    found = query.answer(fields, executor, whole=picture is not None)
    drawn = () if picture is None or found.sweep is None else (picture.write(query.picture(found.sweep)),)
    if output is not None and ending is not None:
        write_columns(output, found.cells.columns, ending)
        return Report(f"written: {output} ({len(found.cells):,} configurations)", notes=(*found.remarks, *drawn))
    report = replace(found.report, notes=(*found.report.notes, *drawn))
    if form in {"text", "markdown"}:
        return replace(report, format=form)
    return _data(report, form, found.cells, found.skipped)


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


def _check_picture(fields: Mapping[str, Any], query: Query) -> None:
    """Refuse a picture that would not show what is asked."""
    axes = {field: axis_of(field, value) for field, value in fields.items()}
    several = [field for field, axis in axes.items() if axis is not None and len(axis) > 1]
    if query.choice is not None and not query.front:
        raise RequestError("picture: shows all configurations; leave best out")
    if not query.front and not 1 <= len(several) <= _PAIR:
        named = f"{', '.join(several)} have several values" if several else "all fields have one value"
        raise RequestError(f"picture: {named}; lines show one or two such fields, and pareto any number")
    if not query.front and metric(query.metrics[0]).kind != "number":
        raise RequestError(f"picture: {query.metrics[0]} is no number; name another metric first")


def _check_folder(output: str, query: Query, picture: PictureFile | None) -> None:
    """Refuse a folder for what it cannot hold."""
    if query.choice is not None:
        raise RequestError(
            f"output: {output} is a folder, which holds all configurations; give a file for some of them"
        )
    if picture is not None:
        raise RequestError(f"output: {output} is a folder, whose cells are not kept for a picture; leave one out")


def _words(flag: str, value: Any) -> tuple[str, ...]:
    """Words with commas between them, or a list of them."""
    if value is None:
        return ()
    items = [str(item) for item in value] if isinstance(value, list | tuple) else str(value).split(",")
    if isinstance(value, bool) or not all(item.strip() for item in items):
        raise RequestError(f"{flag}: is given without a value")
    return tuple(item.strip() for item in items)
