"""What a run of measurements has found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ..report.document import Report, Table
from .journal import EXTRA, Row
from .rows import place_of
from .trials import METRICS

COLUMNS: Final = (
    "format", "backend", "task", "batch", "in", "out", "beams", "ms", "quartiles", "n", "GiB", "J/request", "outcome"
)  # fmt: skip
"""Of the table that people read; those without anything in them are left out."""

COUNTED: Final = ("memory_gib", "energy_j_per_request")


@dataclass(frozen=True)
class Measured:
    """Records of a grid, those of earlier runs too, and what was left out."""

    title: str
    records: tuple[Row, ...]
    """A mapping from columns to text for each, in the order in which they were made."""
    made: int
    """How many trials were made in this run."""
    notes: tuple[str, ...] = ()

    def report(self) -> Report:
        """A line for each trial."""
        trials: dict[Hashable, dict[str, Row]] = {}
        for row in self.records:
            trials.setdefault(place_of(row), {})[row["metric"]] = row
        earlier = len(trials) - self.made
        counts = f"{self.made} measured" + (f", {earlier} of an earlier run" if earlier else "")
        table = _without_empty(COLUMNS, [_line(rows) for rows in trials.values()])
        notes = (*_failures(self.records), *self.notes)
        return Report(f"{self.title}: {counts}", (table,), notes, {"records": list(self.records)}, self.records)

    def __str__(self) -> str:
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()


def _line(rows: Mapping[str, Row]) -> tuple[str, ...]:
    """What people read of the records of a trial."""
    row = next(row for metric, row in rows.items() if metric in METRICS.values())
    told = json.loads(row[EXTRA])
    place = (row["w_dtype"], told["backend"], told["task"], row["batch"], row["input_len"], row["output_len"])
    beams = str(told.get("num_beams", ""))
    if row["outcome"] != "ok":
        return (*place, beams, "", "", "", "", "", row["outcome"])
    quartiles = " - ".join(_short(1e3 * told[f"{which}_quartile_s"]) for which in ("lower", "upper"))
    counted = (_short(float(rows[metric]["value"])) if metric in rows else "" for metric in COUNTED)
    return (*place, beams, _short(float(row["value"])), quartiles, str(told["repeats"]), *counted, "")


def _failures(rows: Sequence[Row]) -> tuple[str, ...]:
    """A line for each reason why trials have no time."""
    reasons = Counter((row["outcome"], row["note"]) for row in rows if row["outcome"] != "ok")
    return tuple(f"{outcome}, {count} of {len(rows)}: {reason}" for (outcome, reason), count in reasons.items())


def _short(number: float) -> str:
    return f"{number:.4g}" if number < 1e4 else f"{number:.0f}"


def _without_empty(columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    """A table of the columns that say something."""
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    cells = tuple(tuple(row[place] for place in kept) for row in rows)
    return Table(tuple(columns[place] for place in kept), cells, text_columns=3)
