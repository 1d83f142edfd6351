"""Runs that ran and runs that ran out of memory, beside what the estimate says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..api import answer
from ..errors import LlmPerfModelError
from ..specs.request import Request
from .conventions import convention
from .mapping import request_of
from .records import Problem, Record
from .unmappable import UnmappableError


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run, and whether its estimate fits the device."""

    record: Record
    engine: str
    fits: bool

    @property
    def ran(self) -> bool:
        """Whether it did run."""
        return self.record.outcome == "ok"

    @property
    def right(self) -> bool:
        """Whether estimate and record agree."""
        return self.fits == self.ran


def outcomes(rows: Iterable[Record | Problem], engine: str | None = None) -> Iterator[Outcome]:
    """Each run once, of the engines of a source that ran out of memory somewhere."""
    records = [row for row in rows if isinstance(row, Record) and row.outcome in {"ok", "oom"} and _tells(row)]
    short = {_series(row) for row in records if row.outcome == "oom"}
    runs = {(_series(row), row.batch, row.input_len, row.output_len): row for row in records if _series(row) in short}
    for row in runs.values():
        try:
            mapped = request_of(row, engine)
            yield Outcome(row, mapped.engine, bool(answer(Request.of(mapped.request)).fits))
        except (UnmappableError, LlmPerfModelError):
            continue


def _tells(row: Record) -> bool:
    """Whether the memory that ran out is that of the device that computes."""
    return convention(row).get("memory") != "elsewhere"


def _series(row: Record) -> tuple[str, ...]:
    return row.source, row.engine, row.device, str(row.n_devices), str(row.tp), row.model, row.w_dtype
