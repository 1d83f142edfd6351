"""Activations, known by their values: however a graph writes one down, it is the same function of one number."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np

from ..specs.layer import Pointwise
from .branches import Fork, Item, Path
from .program import Op

_POINTS = np.linspace(-9.0, 9.0, 90)
_CLOSE = 6e-3
"""Above the 0.0005 by which the tanh of a GELU differs from its erf, below what tells it from x sigmoid(1.702 x)."""


def _erf(x: Any) -> Any:
    return np.vectorize(math.erf)(x)


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def _softplus(x: Any) -> Any:
    return np.logaddexp(0.0, x)


def _hard_sigmoid(x: Any, slope: float) -> Any:
    return np.clip(slope * x + 0.5, 0.0, 1.0)


KNOWN: tuple[tuple[Pointwise, Callable[[Any], Any]], ...] = (
    ("relu", lambda x: np.maximum(x, 0.0)),
    ("relu6", lambda x: np.clip(x, 0.0, 6.0)),
    ("hard_swish", lambda x: x * _hard_sigmoid(x, 1.0 / 6.0)),
    ("hard_swish", lambda x: x * _hard_sigmoid(x, 0.2)),
    ("hard_sigmoid", lambda x: _hard_sigmoid(x, 1.0 / 6.0)),
    ("hard_sigmoid", lambda x: _hard_sigmoid(x, 0.2)),
    ("silu", lambda x: x * _sigmoid(x)),
    ("gelu", lambda x: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))),
    ("gelu", lambda x: x * _sigmoid(1.702 * x)),
    ("sigmoid", _sigmoid),
    ("tanh", np.tanh),
    ("softplus", _softplus),
    ("mish", lambda x: x * np.tanh(_softplus(x))),
)
"""Activation -> what it makes of a number; two names of one function where tools write it with other constants."""


def activation_of(path: Path) -> tuple[int, Pointwise | None] | None:
    """How many items at the begin of a path are one activation, and which; None for one that changes nothing."""
    values: Any = _POINTS
    found = None
    with np.errstate(all="ignore"):
        for count, item in enumerate(path, 1):
            values = _values(item, values)
            if values is None or not np.all(np.isfinite(values)):
                break
            name = _name(values)
            if name is not None or np.allclose(values, _POINTS):
                found = (count, name)
    return found


def _name(values: Any) -> Pointwise | None:
    for name, function in KNOWN:
        if np.max(np.abs(values - function(_POINTS))) < _CLOSE:
            return name
    negative, others = _POINTS < 0.0, _POINTS >= 0.0
    if np.max(np.abs(values[others] - _POINTS[others])) > _CLOSE:
        return None
    slopes = values[negative] / _POINTS[negative]
    if np.ptp(slopes) < _CLOSE and 0.0 < slopes[0] < 1.0:
        return "leaky_relu"
    scale = -values[0]
    return "elu" if np.max(np.abs(values[negative] - scale * np.expm1(_POINTS[negative]))) < _CLOSE else None


def _values(item: Item, x: Any) -> Any:
    """What an item makes of the values `x`; None where it is no function of one number."""
    if isinstance(item, Fork):
        if item.op.kind not in _OF_TWO:
            return None
        made = [_along(branch, x) for branch in item.branches]
        return None if any(one is None for one in made) else reduce(_OF_TWO[item.op.kind], made)
    return _step(item.op, x)


def _along(path: Path, x: Any) -> Any:
    for item in path:
        if x is None:
            return None
        x = _values(item, x)
    return x


def _step(op: Op, x: Any) -> Any:
    if op.kind in _OF_ONE:
        return _OF_ONE[op.kind](x, op.attributes)
    scalars = {place: constant.scalar for place, constant in op.constants.items()}
    if op.kind == "Clip":
        least, most = (scalars.get(1), scalars.get(2)) if op.inputs[1:] else map(op.attributes.get, ("min", "max"))
        return np.clip(x, -np.inf if least is None else least, np.inf if most is None else most)
    if op.kind == "PRelu":
        slope = op.constants[1].values
        return np.where(x < 0.0, (0.25 if slope is None else float(np.mean(slope))) * x, x)
    if op.kind not in _OF_TWO or any(value is None for value in scalars.values()):
        return None
    return reduce(_OF_TWO[op.kind], (scalars.get(place, x) for place in range(len(op.inputs))))


_OF_TWO: Mapping[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Pow": np.power,
    "Min": np.minimum,
    "Max": np.maximum,
}

_OF_ONE: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "Relu": lambda x, _: np.maximum(x, 0.0),
    "LeakyRelu": lambda x, a: np.where(x < 0.0, a.get("alpha", 0.01) * x, x),
    "Elu": lambda x, a: np.where(x < 0.0, a.get("alpha", 1.0) * np.expm1(x), x),
    "Sigmoid": lambda x, _: _sigmoid(x),
    "HardSigmoid": lambda x, a: np.clip(a.get("alpha", 0.2) * x + a.get("beta", 0.5), 0.0, 1.0),
    "HardSwish": lambda x, _: x * _hard_sigmoid(x, 1.0 / 6.0),
    "Gelu": lambda x, _: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
    "Swish": lambda x, a: x * _sigmoid(a.get("alpha", 1.0) * x),
    "Mish": lambda x, _: x * np.tanh(_softplus(x)),
    "Softplus": lambda x, _: _softplus(x),
    "Tanh": lambda x, _: np.tanh(x),
    "Erf": lambda x, _: _erf(x),
    "Exp": lambda x, _: np.exp(x),
    "Neg": lambda x, _: -x,
    "Reciprocal": lambda x, _: 1.0 / x,
    "Sqrt": lambda x, _: np.sqrt(x),
}
OF_ONE_NUMBER = frozenset({*_OF_ONE, *_OF_TWO, "Clip", "PRelu"})
"""Operators that such functions are made of."""
