"""Elementwise helpers: plain floats and arrays give the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_perf_model.numeric import absolute, ceil, hypot, maximum, minimum, power

from .strategies import wholes

finite = st.one_of(st.floats(-1e300, 1e300), st.floats(-2.0, 2.0), st.integers(-3, 3).map(float))
PAIRS = [(maximum, max), (minimum, min)]


@pytest.mark.parametrize(("function", "plain"), PAIRS, ids=["maximum", "minimum"])
@given(rows=st.lists(st.tuples(finite, finite), min_size=1, max_size=5))
def test_the_larger_and_the_smaller_of_two(
    function: Callable[..., Any], plain: Callable[..., float], rows: list[tuple[float, float]]
) -> None:
    a, b = (np.array(column) for column in zip(*rows, strict=True))
    expected = [plain(*row) for row in rows]
    assert [function(*row) for row in rows] == expected
    assert function(a, b).tolist() == expected
    assert function(a, rows[0][1]).tolist() == [plain(x, rows[0][1]) for x in a.tolist()]


@pytest.mark.parametrize("function", [absolute, ceil])
@given(values=st.lists(finite, min_size=1, max_size=5))
def test_distance_from_zero_and_next_whole_number(function: Callable[..., Any], values: list[float]) -> None:
    assert function(np.array(values)).tolist() == [function(value) for value in values]
    assert [function(np.float64(value)) for value in values] == [function(value) for value in values]


@given(finite)
def test_the_next_whole_number_is_whole_and_less_than_one_above(value: float) -> None:
    assert ceil(value) == np.ceil(value)
    assert ceil(value).is_integer()
    assert absolute(value) == (value if value >= 0.0 else -value)


@pytest.mark.parametrize("function", [absolute, ceil])
def test_a_float_stays_a_plain_float(function: Callable[..., Any]) -> None:
    assert type(function(-1.5)) is float
    assert type(maximum(1.0, 2.0)) is type(minimum(1.0, 2.0)) is float


@given(st.lists(st.tuples(st.floats(1e-9, 1e3), st.floats(1e-9, 1e3)), min_size=1, max_size=5))
@example([(1.21e-05, 8.45e-06), (0.0714, 0.087)])
def test_a_smooth_maximum_is_the_same_for_floats_and_arrays(rows: list[tuple[float, float]]) -> None:
    a, b = (np.array(column) for column in zip(*rows, strict=True))
    expected = [hypot(*row) for row in rows]
    assert hypot(a, b).tolist() == expected
    for (x, y), value in zip(rows, expected, strict=True):
        assert value == pytest.approx((x * x + y * y) ** 0.5, rel=1e-14)
        assert max(x, y) <= value <= x + y
        assert hypot(y, x) == value
    assert type(hypot(3.0, 4.0)) is float


@given(st.floats(0.0, 1.0), st.lists(wholes(0, 3000), min_size=1, max_size=6))
@example(1.0 - 6.0 / 64.0, [float(n) for n in range(300)])
def test_a_power_is_the_same_for_floats_and_arrays(base: float, exponents: list[float]) -> None:
    expected = [power(base, exponent) for exponent in exponents]
    assert power(base, np.array(exponents)).tolist() == expected
    column = power(base, np.array(exponents)[:, None])
    assert np.shape(column) == (len(exponents), 1)
    for exponent, value in zip(exponents, expected, strict=True):
        assert type(value) is float
        assert value == pytest.approx(base**exponent, rel=1e-12, abs=1e-300)


def test_a_smooth_maximum_by_hand() -> None:
    assert (hypot(3.0, 4.0), hypot(0.0, 7.0), hypot(7.0, 0.0), hypot(0.0, 0.0)) == (5.0, 7.0, 7.0, 0.0)


def test_a_whole_number_is_its_own_ceiling() -> None:
    assert [ceil(x) for x in (0.0, 1.0, 1.0 + 1e-15, 2.5, -0.5, 64.0 / 64.0)] == [0.0, 1.0, 2.0, 3.0, 0.0, 1.0]
