"""A user's own records -> an engine file with the coefficients that they can fix."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..errors import RequestError
from ..report.progress import ticking
from ..specs.base import Fit, inherited
from ..specs.catalog import load, names
from ..specs.engine import EngineSpec
from ..specs.request import LEVELS
from .compare import Errors, Score, Validation
from .conformal import half_width
from .operators import Timed
from .posterior import Posterior, Prior, posterior
from .problems import Operators, Problem, Runs

FEWEST: Final = 2
"""Rows of which none can be left out."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """An engine fitted to records, and how well they fix it."""

    data: Mapping[str, Any]
    """The engine file."""
    base: EngineSpec
    rows: int
    found: Posterior
    priors: Mapping[str, Prior]
    before: Errors
    fitted: Errors
    left_out: Errors | None
    left_out_by: str
    notes: tuple[str, ...]


def calibrate(
    validation: Validation, base: EngineSpec, name: str, title: str, sources: Sequence[str], recorded: str | None = None
) -> Calibration:
    """The engine `base` with the coefficients that the records fix.

    Args:
        validation: the records, scored under any engine.
        base: gives every choice and every prior.
        name: of the new engine.
        title: of the new engine, for people.
        sources: what the records are, for the file.
        recorded: the engine's name in the records, where they hold several.

    Raises:
        RequestError: nothing can be fitted; the message says why.
    """
    if base.flat:
        raise RequestError(f"engine: {base.name} is a bound, not an estimate; start from another")
    runs, operators = _chosen(validation, recorded)
    if runs and operators:
        raise RequestError("records: hold runs of models and timed operators; calibrate on one kind at a time")
    problem: Problem = Operators(base, operators) if operators else Runs(base, runs)
    priors, everything = problem.priors(), list(range(problem.size))
    with ticking("calibrate") as tick:
        found = _fitted(problem, everything, priors, tick)
        outside = _left_out(problem, {field: priors[field] for field in found.values}, tick)
    if not found.values:
        reasons = "; ".join([*problem.contradictions(), *(f"{field}: {why}" for field, why in found.kept.items())])
        raise RequestError(f"records: {_rows(problem.size)} cannot fix a coefficient of {base.name} ({reasons})")
    inside = np.expm1(problem.errors(everything, found.values)).tolist()
    fit, values = _fit(problem, found, sources, inside, outside)
    return Calibration(
        data=_data(problem, name, title, fit, values),
        base=base,
        rows=problem.size,
        found=found,
        priors=priors,
        before=Errors.of("before", np.expm1(problem.errors(everything, {})).tolist()),
        fitted=Errors.of("fitted", inside),
        left_out=Errors.of("left out", outside) if outside else None,
        left_out_by=problem.groups()[0],
        notes=(*_unused(validation), *problem.contradictions()),
    )


def _chosen(validation: Validation, recorded: str | None) -> tuple[list[Score], list[Timed]]:
    """The rows to fit: times of one recorded engine, or timed operators.

    Raises:
        RequestError: no row can be used, or several engines were recorded.
    """
    runs = [item for item in validation.scores if item.mapped.is_time]
    operators = [item.row for item in validation.operators if item.row.family != "collective"]
    engines = Counter(item.record.engine for item in runs)
    if recorded is not None:
        runs = [item for item in runs if item.record.engine == recorded]
        if not runs:
            raise RequestError(f"recorded: no usable row names the engine '{recorded}'; there are {_listed(engines)}")
    elif len(engines) > 1:
        raise RequestError(f"records: hold several engines, {_listed(engines)}; choose one with --recorded")
    if not runs and not operators:
        reasons = "; ".join((*_unused(validation), *(str(problem) for problem in validation.problems[:3])))
        raise RequestError(f"records: no row holds a time that can be used ({reasons or 'no rows'})")
    return runs, operators


def _listed(engines: Mapping[str, int]) -> str:
    return ", ".join(f"'{name}' ({_rows(rows)})" for name, rows in engines.items())


def _rows(count: int) -> str:
    return f"{count} row{'s' if count != 1 else ''}"


def _unused(validation: Validation) -> list[str]:
    """A line for each reason why rows were not used."""
    reasons = Counter(item.reason for item in validation.unmapped)
    others = [item.mapped for item in validation.scores if not item.mapped.is_time]
    reasons.update("memory or energy, not a time" if item.baseline is None else "a ratio" for item in others)
    reasons.update("an exchange" for item in validation.operators if item.row.family == "collective")
    return [f"{_rows(rows)} not used: {reason}" for reason, rows in reasons.most_common()]


def _fitted(problem: Problem, rows: Sequence[int], priors: Mapping[str, Prior], tick: Callable[[], None]) -> Posterior:
    """What some rows say of the coefficients."""

    def errors(values: Mapping[str, float]) -> Any:
        tick()
        return problem.errors(rows, values)

    return posterior(errors, priors, len(rows))


def _left_out(problem: Problem, priors: Mapping[str, Prior], tick: Callable[[], None]) -> list[float]:
    """Errors of rows under coefficients fitted to the rows of all other groups; none from two rows or fewer.

    `priors` are those of the coefficients that all rows together can fix.
    """
    _, groups = problem.groups()
    errors: list[float] = []
    for name in dict.fromkeys(groups) if problem.size > FEWEST else ():
        others = [row for row, group in enumerate(groups) if group != name]
        held = [row for row, group in enumerate(groups) if group == name]
        if others:
            found = _fitted(problem, others, priors, tick)
            errors += np.expm1(problem.errors(held, found.values)).tolist()
    return errors


def _fit(
    problem: Problem, found: Posterior, sources: Sequence[str], inside: Sequence[float], outside: Sequence[float]
) -> tuple[Fit, dict[str, float]]:
    """The origin of the fitted values with their deviations and errors, and the values as the file holds them."""
    sizes = np.abs(inside)
    error = f"median {np.median(sizes):.1%}, worst {np.max(sizes):.1%} on these rows"
    if outside:
        error += f"; each {problem.groups()[0]} left out in turn: median {np.median(np.abs(outside)):.1%}"
    logs: Any = np.log1p(outside) if isinstance(problem, Runs) else []  # operators do not tell how far a run is off
    widths = {level: half_width(logs, level) for level in LEVELS}
    fit = Fit(
        fields=tuple(found.values),
        records=tuple(sources),
        rows=problem.size,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        error=error,
        deviations={field: float(f"{value:.3g}") for field, value in found.deviations.items()},
        half_widths={
            str(level): float(f"{max(width, found.noise):.4g}") for level, width in widths.items() if width is not None
        },
    )
    return fit, {field: float(f"{value:.4g}") for field, value in found.values.items()}


def _data(problem: Problem, name: str, title: str, fit: Fit, values: Mapping[str, float]) -> dict[str, Any]:
    """The file: what differs from the base where the catalogue holds that, else everything."""
    base = problem.base
    engine = json.loads(problem.engine(values).model_dump_json(exclude_none=True))
    engine |= {field: sorted(engine[field]) for field in ("fused", "staged_positions")}
    origins: dict[str, list[Any]] = {"fits": [fit.model_dump(mode="json")]}
    if any(field.startswith("kernels.") for field in values):
        reason = "coefficients of the generation, but for those that were fitted"
        origins["assumed"] = [{"fields": ["kernels"], "reason": reason}]
    if base.name in names(EngineSpec) and load(EngineSpec, base.name) == base:
        changed = dict.fromkeys(field.split(".", 1)[0] for field in values)
        return {"name": name, "title": title, "like": base.name} | {field: engine[field] for field in changed} | origins
    own = {field: engine[field] for field in values if field in engine}
    whole = inherited({"name": name, "title": title, "fits": []} | own, engine)
    return whole | {"fits": origins["fits"], "assumed": [*whole["assumed"], *origins.get("assumed", [])]}
