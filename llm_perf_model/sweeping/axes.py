"""Fields of a request that take several values, as the axes of a sweep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Self, Union, get_args, get_origin

import numpy as np
from pydantic import BaseModel

from ..errors import RequestError
from ..specs.base import FileSpec
from ..specs.quantities import shortened
from ..specs.request import Request
from ..types import Array, Column

POINTS: Final = "point"
"""The axis of configurations that are listed one by one."""

MOST_VALUES: Final = 10**7
"""Of one range."""


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation allows."""
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _kinds(parts[0])
    return {annotation}.union(*map(_kinds, parts)) if get_origin(annotation) in {Union, UnionType} else {annotation}


_TYPES: Final = {name: _kinds(each.annotation) for name, each in Request.model_fields.items()}
ARRAYS: Final = frozenset(name for name, kinds in _TYPES.items() if np.ndarray in kinds)
"""Fields that take arrays: they are evaluated together."""

_NUMBERS: Final = frozenset(name for name, kinds in _TYPES.items() if kinds & {int, float})
_FLAGS: Final = frozenset(name for name, kinds in _TYPES.items() if bool in kinds)
_SHAPES: Final = ("input_shape", "image_size")
"""Fields whose one value is a list."""

_WORDS: Final = {"true": True, "false": False, "none": None}


@dataclass(frozen=True, slots=True)
class Axis:
    """A direction of a sweep: the values of one field, or of several that change together."""

    name: str
    columns: Mapping[str, Array | tuple[Any, ...]]
    """Field -> its value at each place: numbers that arrays may hold, or a tuple of anything else."""
    table: Mapping[str, Column]
    """The same as a table shows it, with the number of a point."""

    @classmethod
    def of(cls, name: str, columns: Mapping[str, Array | tuple[Any, ...]]) -> Self:
        """The axis of these columns."""
        table = {field: _shown(field, values) for field, values in columns.items()}
        if name == POINTS:
            table = {POINTS: np.arange(len(next(iter(columns.values())))), **table}
        return cls(name, columns, table)

    def part(self, places: slice) -> Axis:
        """Some of the places."""
        columns = {field: values[places] for field, values in self.columns.items()}
        return Axis(self.name, columns, {field: values[places] for field, values in self.table.items()})

    @property
    def numeric(self) -> bool:
        """Whether the places are evaluated together, as an array."""
        return all(isinstance(column, np.ndarray) for column in self.columns.values())

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def labels(self) -> list[Any]:
        """What each place is called: its value, or its number."""
        values = self.table[POINTS] if self.name == POINTS else self.columns[self.name]
        return values.tolist() if isinstance(values, np.ndarray) else [plain(value) for value in values]


def axis_of(field: str, value: Any) -> Axis | None:
    """The axis of a field; None where it has one value.

    Lists, ranges and arrays are axes, and so is text with commas or with a range (see `numbers_in`).

    Raises:
        RequestError: there is no value, or a range is none.
    """
    if (
        field in ARRAYS
        and isinstance(value, np.ndarray)
        and value.ndim == 1
        and value.size
        and value.dtype.kind in "iuf"
    ):
        return Axis.of(field, {field: value.astype(np.float64)})
    items = _items(field, value)
    if items is None:
        return None
    if field in _NUMBERS | _FLAGS:
        items = [number for item in items for number in _parsed(field, item)]
    if not items:
        raise RequestError(f"{field}: is {shortened(value)}, which holds no value; give at least one")
    return Axis.of(field, {field: _array(field, items) if field in ARRAYS else tuple(items)})


def points_axis(columns: Mapping[str, Any]) -> Axis:
    """Configurations one by one: the columns hold a number for each.

    Raises:
        RequestError: a column is not of numbers that arrays may hold, or they are not equally long.
    """
    others = sorted(columns.keys() - ARRAYS)
    if others or not columns:
        named = f"{others[0]} cannot be listed by points" if others else "name no field"
        raise RequestError(f"points: {named}; give columns of {', '.join(sorted(ARRAYS))}")
    axes = {field: axis_of(field, value) for field, value in columns.items()}
    lengths = {field: 1 if axis is None else len(axis) for field, axis in axes.items()}
    if len(set(lengths.values())) > 1 or None in axes.values():
        text = ", ".join(f"{field} {length}" for field, length in lengths.items())
        raise RequestError(f"points: the columns differ in length ({text}); give each a value for every point")
    return Axis.of(POINTS, {field: axis.columns[field] for field, axis in axes.items() if axis is not None})


def _items(field: str, value: Any) -> list[Any] | None:
    """The values of a field, ranges not yet spelled out; None where it has one."""
    if isinstance(value, str):
        parts = [part.strip() for part in value.split(",")]
        if field in _SHAPES:
            return parts if len(parts) > 1 and all("x" in part for part in parts) else None
        ranged = field in _NUMBERS and ":" in value
        return parts if len(parts) > 1 or ranged else None
    if isinstance(value, bytes | BaseModel | Mapping | FileSpec) or not isinstance(value, Iterable):
        return None
    if isinstance(value, np.ndarray) and value.ndim != 1:
        if value.ndim == 0:
            return None
        raise RequestError(f"{field}: has the shape {value.shape}; give the values of an axis in one row")
    items = value.tolist() if isinstance(value, np.ndarray) else list(value)
    return None if field in _SHAPES and items and all(isinstance(item, int) for item in items) else items


def _parsed(field: str, item: Any) -> list[Any]:
    """Numbers, where text gives them."""
    if not isinstance(item, str):
        return [item]
    if item.lower() in _WORDS:
        return [_WORDS[item.lower()]]
    if field in _FLAGS:
        return [item]
    return numbers_in(field, item) if ":" in item else [_tidy(_number(field, item))]


def numbers_in(field: str, text: str) -> list[float]:
    """The numbers of a range, both ends included where a step meets the upper one.

    `lo:hi` counts up by 1, `lo:hi:step` by steps, `lo:hi:x2` by a factor, and `lo:hi:n50` is 50 numbers at equal
    distances. For rates (fields that end in `_per_s`) `lo:hi:50` is the same as `lo:hi:n50`.

    Raises:
        RequestError: the text is no range, or the range is empty or too long.
    """
    parts = [part.strip() for part in text.split(":")]
    if len(parts) not in {2, 3}:
        raise RequestError(f"{field}: is {shortened(text)}; a range is lo:hi, lo:hi:step, lo:hi:x2 or lo:hi:n50")
    low, high = (_number(field, part) for part in parts[:2])
    how = parts[2] if len(parts) > 2 else "1"
    kind = how[:1] if how[:1] in {"x", "n"} else "n" if field.endswith("_per_s") and len(parts) > 2 else ""
    amount = _number(field, how[1:] if how[:1] in {"x", "n"} else how)
    if high < low:
        raise RequestError(f"{field}: is {shortened(text)}, an empty range; the upper end comes second")
    if kind == "n":
        return _spaced(field, text, low, high, amount)
    return _scaled(field, text, low, high, amount) if kind == "x" else _stepped(field, text, low, high, amount)


def _stepped(field: str, text: str, low: float, high: float, step: float) -> list[float]:
    if not step > 0.0:
        raise RequestError(f"{field}: is {shortened(text)}; a step is above 0")
    steps = _counted(field, text, (high - low) / step)
    return [_tidy(low + step * index) for index in range(steps + 1)]


def _scaled(field: str, text: str, low: float, high: float, factor: float) -> list[float]:
    if not (factor > 1.0 and low > 0.0):
        raise RequestError(f"{field}: is {shortened(text)}; a factor is above 1, and the lower end above 0")
    steps = _counted(field, text, float(np.log(high / low) / np.log(factor)))
    return [_tidy(low * factor**index) for index in range(steps + 1)]


def _spaced(field: str, text: str, low: float, high: float, count: float) -> list[float]:
    if count < 1.0 or not count.is_integer():
        raise RequestError(f"{field}: is {shortened(text)}; give a whole number of points, as {low:g}:{high:g}:n50")
    _counted(field, text, count)
    return [_tidy(number) for number in np.linspace(low, high, int(count)).tolist()]


def _counted(field: str, text: str, steps: float) -> int:
    """Whole steps, with room for the rounding of a last one."""
    if steps >= MOST_VALUES:
        raise RequestError(f"{field}: is {shortened(text)}, {steps:.3g} values; give at most {MOST_VALUES:.0e}")
    return int(steps + 1e-9)


def _tidy(number: float) -> float:
    """Without the last digits that steps such as 0.1 leave behind; whole ones as such."""
    rounded = float(f"{number:.14g}")
    return int(rounded) if rounded.is_integer() else rounded


def _number(field: str, text: str) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        raise RequestError(f"{field}: '{text}' is no number; give numbers, or a range as lo:hi:step")
    return float(text)


def _array(field: str, items: list[Any]) -> Array:
    """The numbers of an axis; its request checks what they may be."""
    if not all(isinstance(item, int | float | np.number) and not isinstance(item, bool) for item in items):
        wrong = next(i for i in items if not isinstance(i, int | float | np.number) or isinstance(i, bool))
        raise RequestError(f"{field}: {shortened(wrong)} is no number; give numbers, or a range as lo:hi:step")
    return np.array(items, dtype=np.float64)


def _shown(field: str, values: Array | tuple[Any, ...]) -> Column:
    """Values as a table shows them: specs by their names, counts as whole numbers, no number where none is given."""
    if isinstance(values, np.ndarray):
        whole = not field.endswith("_per_s") and bool(np.all((values == np.floor(values)) & (np.abs(values) < 2.0**53)))
        return values.astype(np.int64) if whole else values
    items = [plain(value) for value in values]
    kinds = {type(item) for item in items}
    if kinds in ({int}, {float}, {bool}, {int, float}):
        return np.array(items)
    if kinds - {type(None)} and kinds <= {int, float, type(None)}:
        return np.array(items, dtype=np.float64)
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return column


def plain(value: Any) -> Any:
    """A value as people write it: a spec by its name, a shape as 3x224x224."""
    if isinstance(value, FileSpec):
        return value.name
    return "x".join(map(str, value)) if isinstance(value, tuple | list) else value
