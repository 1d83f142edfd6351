"""An engine's coefficients from records of whole runs, and the error on rows that were left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..api import answer
from ..case import with_coefficients
from ..specs.engine import EngineSpec
from ..specs.request import Request
from .compare import Score, score
from .fit import free_fields, solve, with_values

Row = tuple[float, Score]


def refit(engine: EngineSpec, scores: Sequence[Score]) -> EngineSpec:
    """The engine with its free coefficients fitted to these records alone.

    Minimises the squares of log(estimate / measurement) over the logarithms of the coefficients.

    Raises:
        RequestError: SciPy is not installed.
    """
    fields = free_fields(engine)
    if not fields:
        return engine

    timers = [_timer(item, engine) for item in scores]

    def residuals(values: Any) -> Any:
        trial = with_values(engine, fields, values)
        return [np.log(timer(trial) / item.measured) for timer, item in zip(timers, scores, strict=True)]

    return with_values(engine, fields, solve(residuals, fields).values)


def _timer(item: Score, engine: EngineSpec) -> Callable[[EngineSpec], float]:
    """The estimate beside a record under other coefficients of its engine, whose graph is built once."""
    mapped = item.mapped
    asked = mapped.baseline or mapped
    request = Request.of({**asked.request, "engine": engine})
    case = answer(request).case
    own = 1.0 if mapped.baseline is None else float(mapped.read(answer(Request.of(mapped.request))))

    def estimated(trial: EngineSpec) -> float:
        return float(mapped.read(answer(request, with_coefficients(case, trial)))) / own

    return estimated


def leave_one_out(
    engine: EngineSpec, scores: Sequence[Score], group: Callable[[Score], str], fewest: int = 0
) -> list[Row]:
    """For each group, the errors of its rows under coefficients fitted to all other groups.

    None where fewer rows than coefficients, or than `fewest`, are in the other groups.
    """
    rows: list[Row] = []
    for name in dict.fromkeys(group(s) for s in scores):
        others = [s for s in scores if group(s) != name]
        if len(others) < max(len(free_fields(engine)), fewest):
            continue
        fitted = refit(engine, others)
        rows += [(score(s.record, s.mapped, fitted).error, s) for s in scores if group(s) == name]
    return rows
