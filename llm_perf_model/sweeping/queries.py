"""What is asked of a sweep: all of it, its best configuration, or those that no other beats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast, get_args

import numpy as np

from ..errors import InfeasibleError, RequestError
from ..report.document import Format, Report
from ..report.export import ColumnFormat, check_parquet, check_writable, write_columns
from .axes import axis_of
from .cells import Cells
from .grid import Sweep
from .metrics import DEFAULT_METRICS, metric
from .run import sweep

if TYPE_CHECKING:
    from ..pictures.canvas import Picture
    from ..pictures.file import PictureFile

ENDINGS: Final = {f".{form}": form for form in get_args(ColumnFormat)}
_PAIR: Final = 2


@dataclass(frozen=True)
class Query:
    """Metrics to keep, and which configurations are the answer; without an objective or a front all are."""

    metrics: tuple[str, ...] = DEFAULT_METRICS
    objective: str | None = None
    constraints: tuple[str, ...] = ()
    front: tuple[str, ...] = ()

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
        return cls(kept or DEFAULT_METRICS, objective[0] if objective else None, limits, front)

    @property
    def needed(self) -> tuple[str, ...]:
        """The metrics that are kept, with those that the question names."""
        limited = (re.split(r"[<>=\s]", text.strip())[0] for text in self.constraints)
        return tuple(dict.fromkeys([*self.metrics, *filter(None, [self.objective]), *limited, *self.front]))

    def chosen(self, found: Sweep) -> Cells:
        """The configurations that are the answer.

        Raises:
            InfeasibleError: there is none.
        """
        if not np.any(found.done):
            more = f" (and {len(found.skipped) - 1} more reasons)" if len(found.skipped) > 1 else ""
            raise InfeasibleError(f"no configuration can run: {found.skipped[0].reason}{more}")
        if self.objective is not None:
            return found.best_cell(self.objective, self.constraints)
        return found.pareto(self.front[0], self.front[1]) if self.front else found.cells()

    def picture(self, found: Sweep) -> Picture:
        """The front, or the first metric along the longest axis."""
        return found.plot_pareto(self.front[0], self.front[1]) if self.front else found.plot(self.metrics[0])


def asked(
    fields: Mapping[str, Any], query: Query, form: Format, output: str | None, picture: PictureFile | None = None
) -> Report:
    """The answer to a question about a sweep, as a report, or in a file that the report names.

    Raises:
        RequestError: a field or a metric is wrong, or the file cannot be written; that is told before the sweep.
    """
    ending = None if output is None else _ending(output)
    if picture is not None:
        _check_picture(fields, query)
    found = sweep(**fields, metrics=query.needed)
    cells = query.chosen(found)
    drawn = () if picture is None else (picture.write(query.picture(found)),)
    if output is not None and ending is not None:
        write_columns(output, cells.columns, ending)
        return Report(f"written: {output} ({len(cells):,} configurations)", notes=(*found.remarks(), *drawn))
    report = found.report() if query.objective is None and not query.front else cells.report()
    report = replace(report, notes=(*report.notes, *drawn))
    if form in {"text", "markdown"}:
        return replace(report, format=form)
    rows = cells.rows()
    skipped = [{"where": {**each.where}, "cells": each.cells, "reason": each.reason} for each in found.skipped]
    return replace(report, format=form, records=rows, data={"cells": rows, "skipped": skipped})


def _ending(path: str) -> ColumnFormat:
    """The format that the end of a file's name says, where it can be written."""
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise RequestError(f"output: {path} ends in none of {', '.join(ENDINGS)}; give a file that does")
    form = cast("ColumnFormat", ENDINGS[ending])
    if form == "parquet":
        check_parquet()
    check_writable(path)
    return form


def _check_picture(fields: Mapping[str, Any], query: Query) -> None:
    """Refuse a picture that would not show what is asked."""
    axes = {field: axis_of(field, value) for field, value in fields.items()}
    several = [field for field, axis in axes.items() if axis is not None and len(axis) > 1]
    if query.objective is not None:
        raise RequestError("picture: shows all configurations; leave best out")
    if not query.front and not 1 <= len(several) <= _PAIR:
        named = f"{', '.join(several)} have several values" if several else "all fields have one value"
        raise RequestError(f"picture: {named}; lines show one or two such fields, and pareto any number")
    if not query.front and metric(query.metrics[0]).kind != "number":
        raise RequestError(f"picture: {query.metrics[0]} is no number; name another metric first")


def _words(flag: str, value: Any) -> tuple[str, ...]:
    """Words with commas between them, or a list of them."""
    if value is None:
        return ()
    items = [str(item) for item in value] if isinstance(value, list | tuple) else str(value).split(",")
    if isinstance(value, bool) or not all(item.strip() for item in items):
        raise RequestError(f"{flag}: is given without a value")
    return tuple(item.strip() for item in items)
