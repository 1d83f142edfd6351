"""A calibration as tables."""

from __future__ import annotations

import json

import numpy as np

from ..report.document import Report, Table
from ..units import percent
from .calibrate import Calibration
from .compare import Errors
from .fit import value_at
from .posterior import Prior


def report(c: Calibration) -> Report:
    """What the records say of each coefficient, and the errors before, after and on rows left out."""
    data = {
        "engine": dict(c.data),
        "rows": c.rows,
        "kept": dict(c.found.kept),
        "deviations": dict(c.found.deviations),
        "notes": list(c.notes),
    }
    title = f"{c.data['name']}: {c.base.name} calibrated on {c.rows} row{'s' if c.rows > 1 else ''}"
    coefficients = _coefficients(c)
    records = [dict(zip(_COLUMNS, row, strict=True)) for row in coefficients.rows]
    return Report(title, (coefficients, _errors(c)), c.notes, data, records)


_COLUMNS = ("coefficient", "before", "now", "uncertainty", "what the records say")


def _coefficients(c: Calibration) -> Table:
    rows = []
    for field, prior in c.priors.items():
        if field in c.found.values:
            spread = percent(float(np.expm1(c.found.deviations[field])))
            rows.append(
                (_short(field), _before(c, field, prior), f"{c.found.values[field]:.3g}", f"+- {spread}", "fitted")
            )
        else:
            rows.append((_short(field), _before(c, field, prior), "as before", "", c.found.kept.get(field, "")))
    return Table(_COLUMNS, tuple(rows), "coefficients")


def _short(field: str) -> str:
    """A coefficient without the part that all of its kind share."""
    return field.removeprefix("kernels.")


def _before(c: Calibration, field: str, prior: Prior) -> str:
    """The value without the records: the base engine's, or that of its GPU generation."""
    given = prior.value if field.startswith("kernels.") else value_at(c.base, field)
    return "the generation's" if given is None else f"{given:.3g}"


def _errors(c: Calibration) -> Table:
    rows = [_figures("before", c.before), _figures("fitted", c.fitted)]
    if c.left_out is not None:
        rows.append(_figures(f"each {c.left_out_by} left out", c.left_out))
    else:
        rows.append(("left out", "too few rows to leave any out", "", "", "", ""))
    return Table(("errors", "n", "median", "mean", "worst", "bias"), tuple(rows), "")


def _figures(name: str, e: Errors) -> tuple[str, ...]:
    sizes = (f"{100.0 * value:.1f} %" for value in (e.median, e.mean, e.worst))
    return (name, str(e.n), *sizes, f"{100.0 * e.bias:+.1f} %")


def text_of(c: Calibration) -> str:
    """The engine file."""
    return json.dumps(dict(c.data), indent=2, ensure_ascii=False)
