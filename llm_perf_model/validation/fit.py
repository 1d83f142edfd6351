"""Least squares of the coefficients of a file, whatever records they are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np

from ..errors import RequestError
from ..specs.base import CoefficientSpec

C = TypeVar("C", bound=CoefficientSpec)

BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "_efficiency": (0.01, 1.0),
    "_ratio": (0.02, 4.0),
    "dispatch_s": (1e-6, 1e-4),
    "launch_s": (1e-6, 2e-5),
    "start_s": (3e-7, 1e-4),
    "region_s": (1e-6, 1e-2),
    "group_s": (1e-8, 1e-4),
    "wave_s": (1e-8, 2e-5),
    "split_s": (1e-8, 2e-5),
    "half_layer_s": (1e-6, 1e-2),
    "layer_s": (1e-5, 1e-2),
    "step_s": (1e-5, 3e-2),
    "sequence_s": (1e-7, 1e-2),
    "beam_s": (1e-5, 1e-3),
    "request_s": (1e-4, 1.0),
    "_cycles": (10.0, 1e5),
    "depth_cycles": (0.1, 50.0),
    "load_bytes_per_cycle": (8.0, 400.0),
    "_bytes_per_cycle": (3.0, 400.0),
    "_values_per_cycle": (0.1, 64.0),
    "exposed_exponentials": (0.01, 1.5),
    "bytes_per_s": (1e9, 1e11),
    "_per_clock_per_sm": (0.01, 10.0),
    "context_bytes": (1e7, 8e9),
    "overallocation": (1.0, 4.0),
    "_fraction": (0.02, 3.0),
}
"""End of a coefficient's name -> the bounds that physics sets; of several that fit, the longest counts."""

STARTS: Final = (0.5, 0.25, 0.75)
"""Places between the logarithms of the bounds; more than one, because some coefficients act below a limit only.

They know nothing of the records, so a coefficient that the rows cannot fix shows as a large error.
"""

BETTER: Final = 1e-4
"""Fraction by which a later start must lower the sum of squares to count: less is rounding."""

OUTLIER: Final = 0.15
"""Logarithmic residual beyond which a timed operator counts by its distance, no longer by its square."""


MEMORY_FIELDS: Final = ("context_bytes", "overallocation")
"""Coefficients that records of memory fix, all others being fixed by times."""


def free_fields(spec: CoefficientSpec) -> tuple[str, ...]:
    """The coefficients that records of time have fixed."""
    fields = dict.fromkeys(field for fit in spec.fits for field in fit.fields)
    return tuple(field for field in fields if field not in MEMORY_FIELDS)


def value_at(spec: object, path: str) -> Any:
    """The value of a dotted field."""
    value: Any = spec
    for part in path.split("."):
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return value


def with_values(spec: C, fields: Sequence[str], values: Sequence[float]) -> C:
    """The spec with coefficients replaced; fields may be dotted."""
    for field, value in zip(fields, values, strict=True):
        spec = _replaced(spec, field.split("."), float(value))
    return spec


def _replaced(holder: Any, path: Sequence[str], value: float) -> Any:
    """A spec or mapping with the value at a path replaced."""
    head, rest = path[0], path[1:]
    inside = holder[head] if isinstance(holder, Mapping) else getattr(holder, head)
    new = _replaced(inside, rest, value) if rest else value
    return {**holder, head: new} if isinstance(holder, Mapping) else holder.model_copy(update={head: new})


def bounds_of(field: str) -> tuple[float, float]:
    """The bounds of a coefficient.

    Raises:
        RequestError: no bounds are known for it.
    """
    endings = [ending for ending in BOUNDS if field.endswith(ending)]
    if not endings:
        raise RequestError(f"{field} cannot be fitted: no bounds are known for it")
    return BOUNDS[max(endings, key=len)]


@dataclass(frozen=True, slots=True)
class Solution:
    """Fitted values, and the derivatives of the residuals by their logarithms."""

    values: tuple[float, ...]
    residuals: Any
    jacobian: Any


def solve(
    residuals: Callable[[Any], Any],
    fields: Sequence[str],
    starts: Sequence[Any] = (),
    loss: str = "linear",
    outlier: float = OUTLIER,
) -> Solution:
    """Values of `fields` that minimise the squares of `residuals`, over the logarithms of the values.

    `residuals` takes the values; `starts` are values to start from, instead of places between the bounds.
    `outlier` is the residual beyond which a loss other than "linear" grows slower than its square.

    Raises:
        RequestError: SciPy is not installed, or no bounds are known for a field.
    """
    try:
        from scipy.optimize import least_squares
    except ImportError:
        raise RequestError("a fit needs SciPy: pip install 'llm-perf-model[fit]'") from None
    bounds = np.log([bounds_of(field) for field in fields])
    begin = [np.log(start) for start in starts] or [bounds @ [1.0 - share, share] for share in STARTS]
    inside = [np.clip(start, bounds[:, 0] + 1e-6, bounds[:, 1] - 1e-6) for start in begin]

    def of_logs(logs: Any) -> Any:
        return residuals(np.exp(logs))

    options = {"diff_step": 1e-3, "xtol": 1e-8, "ftol": 1e-8, "loss": loss, "f_scale": outlier}
    solutions = [least_squares(of_logs, start, bounds=bounds.T, **options) for start in inside]
    best = solutions[0]
    for other in solutions[1:]:
        if other.cost < (1.0 - BETTER) * best.cost:
            best = other
    return Solution(tuple(np.exp(best.x)), best.fun, best.jac)
