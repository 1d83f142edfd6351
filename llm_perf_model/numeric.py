"""Elementwise minimum, maximum, ceiling and floor that stay cheap on plain floats."""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from .types import Mask, Num


def maximum(a: Num, b: Num) -> Num:
    """The larger of two, point by point."""
    if type(a) is float and type(b) is float:
        return max(a, b)
    return cast("Num", np.maximum(a, b))


def minimum(a: Num, b: Num) -> Num:
    """The smaller of two, point by point."""
    if type(a) is float and type(b) is float:
        return min(a, b)
    return cast("Num", np.minimum(a, b))


def absolute(a: Num) -> Num:
    """The distance from zero, point by point."""
    return abs(a) if type(a) is float else cast("Num", np.abs(a))


def hypot(a: Num, b: Num) -> Num:
    """The square root of the sum of squares, point by point: a smooth maximum."""
    squares = a * a + b * b
    return math.sqrt(squares) if type(squares) is float else cast("Num", np.sqrt(squares))


def power(base: Num, exponent: Num) -> Num:
    """`base` to the power of each exponent, the same to the last bit for floats and inside arrays."""
    powers = np.power(base, np.atleast_1d(np.asarray(exponent, dtype=np.float64)))
    if type(base) is float and type(exponent) is float:
        return float(powers[0])
    return cast("Num", powers.reshape(np.broadcast_shapes(np.shape(base), np.shape(exponent))))


def ceil(a: Num) -> Num:
    """The next whole number, point by point."""
    return float(math.ceil(a)) if type(a) is float else cast("Num", np.ceil(a))


def floor(a: Num) -> Num:
    """The whole number below, point by point."""
    return float(math.floor(a)) if type(a) is float else cast("Num", np.floor(a))


def where(mask: Mask, a: Num, b: Num) -> Num:
    """`a` where the mask holds, else `b`, point by point."""
    if type(mask) is bool:
        return a if mask else b
    return cast("Num", np.where(mask, a, b))
