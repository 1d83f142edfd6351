"""Estimates against records: errors, the term to blame, and tables of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from ..api import answer
from ..errors import LlmPerfModelError
from ..estimate import Estimate
from ..specs.engine import EngineSpec
from ..specs.request import Request
from .mapping import Mapped, map_record
from .naming import named
from .operators import Timed, timed
from .outcomes import Outcome, outcomes
from .records import Problem, Record
from .stacks import stacked
from .unmappable import UnmappableError

BATCH_BANDS: Final = ((1, "1"), (8, "2-8"), (64, "9-64"), (512, "65-512"))
_UNCLEAR_SHARE: Final = 0.4
_EVEN: Final = 0.005
"""A ratio that rounds to 1.00 has no direction."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A record beside its estimate, both in SI units. `error` is estimate / measurement - 1."""

    record: Record
    estimated: float

    @property
    def measured(self) -> float:
        """The recorded value."""
        assert self.record.value is not None
        return self.record.value

    @property
    def error(self) -> float:
        """Signed relative error against the measurement."""
        return self.estimated / self.measured - 1.0


@dataclass(frozen=True, slots=True)
class Score(Compared):
    """A run of a model beside its estimate."""

    mapped: Mapped
    blame: str

    @property
    def direction_right(self) -> bool | None:
        """Whether a ratio lies on the measured side of 1; None where it is no ratio, or was measured at 1.00."""
        if self.mapped.baseline is None or abs(self.measured - 1.0) < _EVEN:
            return None
        return (self.estimated > 1.0) == (self.measured > 1.0)


@dataclass(frozen=True, slots=True)
class OperatorScore(Compared):
    """A timed operator beside its estimate."""

    row: Timed


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A record without an estimate, and why."""

    record: Record
    reason: str


@dataclass(frozen=True, slots=True)
class Validation:
    """Everything that became of a set of records."""

    scores: tuple[Score, ...]
    operators: tuple[OperatorScore, ...]
    unmapped: tuple[Unmapped, ...]
    outcomes: tuple[Outcome, ...]
    problems: tuple[Problem, ...]


def validate_records(rows: Iterable[Record | Problem], engine: str | None = None) -> Validation:
    """Every row scored, or listed with the reason why it is not; `engine` replaces the one that a row names."""
    rows = named(rows)
    scores: list[Score] = []
    operators: list[Timed] = []
    unmapped: list[Unmapped] = []
    problems: list[Problem] = []
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
            continue
        try:
            if row.operator:
                operators.append(timed(row, engine))
            else:
                scores.append(score(row, map_record(row, engine)))
        except UnmappableError as error:
            unmapped.append(Unmapped(row, str(error)))
        except LlmPerfModelError as error:
            unmapped.append(Unmapped(row, f"cannot run: {error}"))
    ran = tuple(outcomes(rows, engine))
    return Validation(tuple(scores), tuple(operator_scores(operators)), tuple(unmapped), ran, tuple(problems))


def operator_scores(rows: Iterable[Timed]) -> Iterator[OperatorScore]:
    """Timed operators beside the estimates of the catalogue's coefficients."""
    for stack in stacked(rows):
        estimates = np.broadcast_to(stack.time_s(), len(stack.rows)).tolist()
        for row, estimated in zip(stack.rows, estimates, strict=True):
            yield OperatorScore(row.record, estimated, row)


def score(record: Record, mapped: Mapped, engine: EngineSpec | None = None) -> Score:
    """One record beside its estimate; `engine` replaces the mapped one, of a ratio the baseline (a refit)."""
    if record.value is None or record.value <= 0.0:
        raise UnmappableError("the recorded value is not a positive number")
    replaced: dict[str, Any] = {} if engine is None else {"engine": engine}
    if mapped.baseline is not None:
        times = (dict(mapped.baseline.request) | replaced, mapped.request)
        over, own = (float(mapped.read(answer(Request.of(request)))) for request in times)
        return Score(record, over / own, mapped, "unknown")
    estimate = answer(Request.of(dict(mapped.request) | replaced))
    blame = _blame(estimate, mapped.phase) if mapped.is_time else "unknown"
    return Score(record, float(mapped.read(estimate)), mapped, blame)


def _blame(e: Estimate, phase: str) -> str:
    """The term that takes most of the estimated time; unknown where none takes two fifths."""
    phases = {"prefill": [e.prefill], "decode": [e.decode], "whole": [e.prefill, e.decode]}[phase]
    totals = [part.totals for part in phases]
    terms = {
        "compute": sum(float(t.compute_s) for t in totals),
        "memory": sum(float(t.memory_s) for t in totals),
        "communication": sum(float(t.comm_s) for t in totals),
        "kernel start": sum(float(t.start_s) for t in totals),
        "host": sum(float(t.host_s + t.overhead_s) for t in totals),
    }
    largest = max(terms, key=lambda term: terms[term])
    return largest if terms[largest] >= _UNCLEAR_SHARE * sum(terms.values()) else "unknown"


@dataclass(frozen=True, slots=True)
class Errors:
    """Absolute errors and bias (median signed error) of a group of scores, as fractions."""

    group: str
    n: int
    median: float
    mean: float
    p90: float
    worst: float
    bias: float

    @classmethod
    def of(cls, group: str, errors: Sequence[float]) -> Errors:
        """The figures of one group."""
        signed = np.asarray(errors, dtype=np.float64)
        size = np.abs(signed)
        return cls(
            group,
            len(signed),
            float(np.median(size)),
            float(np.mean(size)),
            float(np.quantile(size, 0.9)),
            float(np.max(size)),
            float(np.median(signed)),
        )


def batch_band(score: Score) -> str:
    """The band of a score's batch."""
    batch = score.record.batch or 0
    return next((name for limit, name in BATCH_BANDS if batch <= limit), "above 512")


def engine_of(score: Score) -> str:
    """The engine file that a score was estimated with, and whether it only stands in; of a ratio both."""
    asked = (score.mapped, score.mapped.baseline)
    return " over ".join(run.engine + (" (stand-in)" if run.fallback else "") for run in asked if run is not None)


GROUPINGS: Final[dict[str, Callable[[Score], str]]] = {
    "source": lambda s: s.record.source,
    "metric": lambda s: s.record.metric,
    "engine": engine_of,
    "model": lambda s: s.mapped.request["model"],
    "device": lambda s: s.mapped.request["gpu"],
    "batch": batch_band,
}
"""Name of a table -> the group of a score in it."""


OPERATOR_GROUPINGS: Final[dict[str, Callable[[OperatorScore], str]]] = {
    "operators": lambda s: f"{s.row.family} {s.row.precision} {s.row.gpu}",
    "source": lambda s: s.record.source,
}
"""Name of a table of timed operators -> the group of a score in it."""

S = TypeVar("S", Score, OperatorScore)


def errors_by(scores: Iterable[S], group: Callable[[S], str]) -> list[Errors]:
    """Errors of each group, in the order in which groups first appear."""
    groups: dict[str, list[float]] = {}
    for item in scores:
        groups.setdefault(group(item), []).append(item.error)
    return [Errors.of(name, errors) for name, errors in groups.items()]


def per_row(validation: Validation) -> list[dict[str, Any]]:
    """One record a row: the estimate or the reason, and the configuration as recorded."""
    rows = [
        _row(s.record, s.estimated, s.error, s.blame, estimated_by=engine_of(s), absolute_error=abs(s.error))
        for s in validation.scores
    ]
    rows += [
        _row(s.record, s.estimated, s.error, estimated_by=s.row.engine, absolute_error=abs(s.error))
        for s in validation.operators
    ]
    rows += [_row(u.record, reason=u.reason) for u in validation.unmapped]
    blank = dict.fromkeys(PER_ROW, "")
    rows += [blank | {"reason": p.message, "file": p.file, "line": p.line} for p in validation.problems]
    return rows


CONFIGURATION: Final = (
    "n_devices", "tp", "pp", "w_dtype", "batch", "input_len", "output_len", "outcome", "file", "line"
)  # fmt: skip
PER_ROW: Final = (
    "source", "engine", "device", "model", "metric", "unit", "measured", "estimated", "error", "blame", "reason",
    *CONFIGURATION, "estimated_by", "absolute_error", "operator",
)  # fmt: skip
"""Columns of the file that holds one line a record: engine, device and model as recorded."""


def _row(
    record: Record,
    estimated: Any = "",
    error: Any = "",
    blame: str = "",
    reason: str = "",
    estimated_by: str = "",
    absolute_error: Any = "",
) -> dict[str, Any]:
    r = record
    values = (r.source, r.engine, r.device, r.model, r.metric, r.unit, r.value, estimated, error, blame, reason)
    configuration = (getattr(r, name) for name in CONFIGURATION)
    columns = dict(zip(PER_ROW, (*values, *configuration, estimated_by, absolute_error, r.operator), strict=True))
    return {name: "" if value is None else value for name, value in columns.items()}
