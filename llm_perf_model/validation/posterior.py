"""Coefficients from few rows: what the rows say, held together by what was known before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from .fit import bounds_of, solve

LEAST_NOISE: Final = 0.02
"""Relative error below which no measurement is trusted."""

FIRST_NOISE: Final = 0.1
"""Relative error assumed before the rows tell it."""

KNOWN: Final = 0.7
"""Part of its prior deviation to which the rows must narrow a coefficient, or it stays at its prior."""

ALIKE: Final = 0.9
"""Correlation above which two coefficients cannot be told apart."""


class Prior(NamedTuple):
    """What is known of a coefficient before the records: a value, and the deviation of its logarithm."""

    value: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Posterior:
    """What is known of the coefficients with the records.

    `kept` says of each coefficient that stays at its prior why the rows cannot fix it.
    """

    values: Mapping[str, float]
    deviations: Mapping[str, float]
    kept: Mapping[str, str]
    noise: float


def posterior(errors: Callable[[Mapping[str, float]], Any], priors: Mapping[str, Prior], rows: int) -> Posterior:
    """Fit the coefficients that the rows can fix; the others stay at their priors.

    Args:
        errors: values of some coefficients -> log(estimate / measurement) of every row.
        priors: the coefficients that may be fitted.
        rows: how many rows there are: no more coefficients are fitted.

    The most probable values minimise the squares of the errors over the noise and of the distances from the
    priors; their deviations follow from the curvature there.
    """
    free = dict(priors)
    kept: dict[str, str] = {}
    shared: dict[str, float] = {}
    while free:
        values, deviations, correlation, noise = _most_probable(errors, free)
        shares = {field: deviations[field] / prior.deviation for field, prior in free.items()}
        worst = max(shares, key=lambda field: shares[field])
        twin = _twin(worst, tuple(free), correlation)
        if shares[worst] > KNOWN:
            kept[worst] = f"cannot be told apart from {twin}" if twin else "these records do not depend on it enough"
            if twin is not None:  # what the two share stays uncertain when one of them is held fast
                shared[twin] = max(deviations[twin], shared.get(twin, 0.0))
        elif len(free) > rows:
            kept[worst] = f"no more coefficients than rows ({rows})"
        else:
            widened = {field: max(width, shared.get(field, 0.0)) for field, width in deviations.items()}
            return Posterior(values, widened, kept, noise)
        del free[worst]
    return Posterior({}, {}, kept, _noise(errors({})))


def _most_probable(
    errors: Callable[[Mapping[str, float]], Any], free: Mapping[str, Prior]
) -> tuple[dict[str, float], dict[str, float], Any, float]:
    fields = tuple(free)
    middles, deviations = (
        np.log([free[field].value for field in fields]),
        np.array([p.deviation for p in free.values()]),
    )
    start, noise = [_inside(field, free[field].value) for field in fields], FIRST_NOISE
    for _ in range(2):

        def residuals(values: Any, noise: float = noise) -> Any:
            known = (np.log(values) - middles) / deviations
            return np.concatenate([errors(dict(zip(fields, values, strict=True))) / noise, known])

        solution = solve(residuals, fields, [start], loss="soft_l1", outlier=3.0)
        start = list(solution.values)
        noise = _noise(solution.residuals[: -len(fields)] * noise)
    curvature = solution.jacobian.T @ solution.jacobian
    covariance = np.linalg.pinv(curvature)
    spread = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(spread, spread)
    found = dict(zip(fields, map(float, solution.values), strict=True))
    return found, dict(zip(fields, spread.tolist(), strict=True)), correlation, noise


def _noise(errors: Any) -> float:
    """The deviation of the errors, little moved by a few that are far off."""
    return float(max(np.median(np.abs(errors)) / 0.6745, LEAST_NOISE))


def _inside(field: str, value: float) -> float:
    low, high = bounds_of(field)
    return float(min(max(value, 1.01 * low), high / 1.01))


def _twin(field: str, fields: tuple[str, ...], correlation: Any) -> str | None:
    """The coefficient that moves with another, if one does."""
    row = np.abs(correlation[fields.index(field)])
    row[fields.index(field)] = 0.0
    nearest = int(np.argmax(row))
    return fields[nearest] if row[nearest] > ALIKE else None
