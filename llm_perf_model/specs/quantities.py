"""Numbers that a user gives: one or an array of them, each within its range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import PlainValidator, WithJsonSchema

from ..types import Array, Mask, Num

MOST = 1e12
"""The largest count that is taken for meant."""
MOST_RANKS = 10**6
_NONE = np.zeros(0)


def _whole(value: object) -> Num:
    """A whole number of at least 1, or an array of them."""
    if isinstance(value, float) and 1.0 <= value <= MOST and value.is_integer():
        return value
    return _checked(value, "a whole number of at least 1", lambda x: (x >= 1.0) & (x <= MOST) & (x == np.floor(x)))


def _natural(value: object) -> Num:
    """A whole number of at least 0, or an array of them."""
    return _checked(value, "a whole number of at least 0", lambda x: (x >= 0.0) & (x <= MOST) & (x == np.floor(x)))


def _fraction(value: object) -> Num:
    """A number above 0 and up to 1, or an array of them."""
    return _checked(value, "a number above 0 and at most 1", lambda x: (x > 0.0) & (x <= 1.0))


def _part(value: object) -> Num:
    """A number from 0 to 1, or an array of them."""
    return _checked(value, "a number from 0 to 1", lambda x: (x >= 0.0) & (x <= 1.0))


def _rate(value: object) -> Num:
    """A number above 0, or an array of them."""
    return _checked(value, "a number above 0", lambda x: x > 0.0)


def _single(value: object) -> int:
    """One whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_RANKS:
        raise ValueError(f"is {shortened(value)}; must be a whole number of at least 1")
    return value


def _flag(value: object) -> bool:
    """Yes or no."""
    if not isinstance(value, bool):
        raise ValueError(f"is {shortened(value)}; must be true or false")
    return value


def scalar(wanted: str, right: Callable[[float], bool]) -> Callable[[object], float]:
    """A check for one number."""

    def check(value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) and right(value):
            return float(value)
        raise ValueError(f"is {shortened(value)}; must be {wanted}")

    return check


def _checked(value: object, wanted: str, right: Callable[[Array], Mask]) -> Num:
    try:
        numbers = _NONE if isinstance(value, bool | str) or value is None else np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = _NONE
    if numbers.size == 0 or not np.all(np.isfinite(numbers) & right(numbers)):
        raise ValueError(f"is {shortened(value)}; must be {wanted}")
    return float(numbers) if numbers.ndim == 0 else numbers


def shortened(value: object) -> str:
    """`repr` of a value, cut to fit a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _one_or_many(item: dict[str, object]) -> WithJsonSchema:
    """A number, or lists of it nested as deep as an array has axes."""
    return WithJsonSchema({"anyOf": [item, {"type": "array", "minItems": 1}]})


def _number(bounds: dict[str, object]) -> WithJsonSchema:
    return WithJsonSchema({"type": "number", **bounds})


Whole = Annotated[Num, PlainValidator(_whole), _one_or_many({"type": "integer", "minimum": 1, "maximum": int(MOST)})]
Natural = Annotated[
    Num, PlainValidator(_natural), _one_or_many({"type": "integer", "minimum": 0, "maximum": int(MOST)})
]
Fraction = Annotated[
    Num, PlainValidator(_fraction), _one_or_many({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
]
Part = Annotated[Num, PlainValidator(_part), _one_or_many({"type": "number", "minimum": 0, "maximum": 1})]
Flag = Annotated[bool, PlainValidator(_flag), WithJsonSchema({"type": "boolean"})]
Rate = Annotated[Num, PlainValidator(_rate), _one_or_many({"type": "number", "exclusiveMinimum": 0})]
Single = Annotated[int, PlainValidator(_single)]
Amount = Annotated[float, PlainValidator(scalar("a number of at least 0", lambda x: x >= 0.0)), _number({"minimum": 0})]
Watts = Annotated[
    float, PlainValidator(scalar("a number of watts above 0", lambda x: x > 0.0)), _number({"exclusiveMinimum": 0})
]
Overhead = Annotated[
    float, PlainValidator(scalar("a number of at least 1", lambda x: x >= 1.0)), _number({"minimum": 1})
]
Share = Annotated[
    float,
    PlainValidator(scalar("a number above 0 and at most 1", lambda x: 0.0 < x <= 1.0)),
    _number({"exclusiveMinimum": 0, "maximum": 1}),
]
