"""Many requests at once: axes of fields -> cases and open meshes -> arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, product
from math import prod
from typing import Any, Final

import numpy as np

from ..api import answer, case_of
from ..case import AnyModel, Case
from ..errors import InfeasibleError, RequestError
from ..estimate import Estimate
from ..report.progress import tracked
from ..specs.request import Request
from ..types import Array
from .axes import Axis, axis_of, points_axis
from .grid import Skipped, Sweep
from .metrics import Kind, Metric, metrics_of

CHUNK_CELLS: Final = 2**15
"""Cells that are evaluated at once: enough to hide the cost of a call, few enough to stay in a processor's cache."""

MOST_CELLS: Final = 2 * 10**8
"""Cells of a sweep that are kept in memory."""

_KEPT: Final[dict[Kind, tuple[Any, Any]]] = {
    "number": (np.float64, np.nan),
    "mask": (np.bool_, False),
    "text": ("<U13", ""),
}
"""Kind of a metric -> type of its array, and what cells hold that were skipped."""


def sweep(
    model: str | AnyModel | Iterable[str | AnyModel] | None = None,
    *,
    metrics: str | Iterable[str] | None = None,
    points: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Sweep:
    """Estimates of all combinations of the values that fields of a request take.

    Args:
        model: one or several models, as `estimate` takes them.
        metrics: names of what to keep (`METRICS`); fewer are faster.
        points: columns of numbers, equally long, for configurations that are listed one by one; they are one axis.
        **fields: the other fields of `Request`, each with one value, or with a list, range or array of them, or text:
            `1,2,4`, `lo:hi:step`, `lo:hi:x2` (by a factor) or `lo:hi:n50` (50 numbers); more than one are an axis.

    Returns:
        Arrays of the metrics with an axis for each field of several values, in the order in which they were given,
        and the cases that cannot run, with reasons. Each cell equals the estimate of its coordinates.

    Raises:
        RequestError: a field, a range or a metric is wrong.
        SpecError: a name is unknown or a file is not valid.
    """
    given: dict[str, Any] = fields if model is None else {"model": model, **fields}
    axes = {field: axis_of(field, value) for field, value in given.items()}
    fixed = {field: given[field] for field, axis in axes.items() if axis is None}
    found = [axis for axis in axes.values() if axis is not None]
    if points is not None:
        found.append(points_axis(points))
        for field in sorted(points.keys() & given.keys()):
            raise RequestError(f"points: {field} is given by itself too; leave one of them out")
    return _Mesh(tuple(found), fixed, metrics_of(metrics)).swept()


class _Mesh:
    """The cells of a sweep while they are filled in."""

    def __init__(self, axes: tuple[Axis, ...], fixed: dict[str, Any], metrics: tuple[Metric, ...]) -> None:
        self.axes, self.fixed, self.metrics = axes, fixed, metrics
        self.shape = tuple(len(axis) for axis in axes)
        if prod(self.shape) > MOST_CELLS:
            raise RequestError(
                f"sweep: {' x '.join(map(str, self.shape))} are {prod(self.shape):.3g} configurations; "
                f"at most {MOST_CELLS:.0e} are kept at once"
            )
        self.numeric = [number for number, axis in enumerate(axes) if axis.numeric]
        self.arrays = {each.name: np.full(self.shape, _KEPT[each.kind][1], _KEPT[each.kind][0]) for each in metrics}
        self.done = np.zeros(self.shape, np.bool_)
        self.skipped: list[Skipped] = []

    def swept(self) -> Sweep:
        """The sweep, case by case."""
        outer = [number for number in range(len(self.axes)) if number not in self.numeric]
        blocks = list(_blocks([self.shape[number] for number in self.numeric]))
        places = list(product(*(range(self.shape[number]) for number in outer)))
        signs = tracked(range(len(places) * len(blocks)), "configurations")
        for place in places:
            self._case(dict(zip(outer, place, strict=True)), blocks, signs)
        for _ in signs:
            pass  # ends the bar
        return Sweep(self.axes, self.arrays, self.done, tuple(self.skipped), self.fixed)

    def _case(self, place: dict[int, int], blocks: list[tuple[slice, ...]], signs: Iterator[int]) -> None:
        """The cells that share what is no number."""
        chosen = {field: column[at] for number, at in place.items() for field, column in self._columns(number).items()}
        whole = self._numbers(tuple(slice(None) for _ in self.numeric))
        request = Request.of(
            self.fixed | {field: value for field, value in chosen.items() if value is not None} | whole
        )
        rest = tuple(slice(None) for _ in self.numeric)
        try:
            case = case_of(request)
        except InfeasibleError as error:
            self._skip(place, rest, str(error))
            for _ in islice(signs, len(blocks)):
                pass
            return
        for block in blocks:
            self._block(request, case, place, block)
            next(signs)

    def _block(self, request: Request, case: Case, place: dict[int, int], block: tuple[slice, ...]) -> None:
        """Some of the cells of a case; where not all of them can run, those of each half."""
        numbers = self._numbers(block)
        try:
            estimate = answer(request.model_copy(update=numbers), case)
        except (InfeasibleError, RequestError) as error:
            lengths = [part.stop - part.start for part in block]
            if max(lengths, default=1) == 1 or _none_runs(request, case, numbers):
                self._skip(place, block, str(error))
                return
            for half in _halves(block, int(np.argmax(lengths))):
                self._block(request, case, place, half)
            return
        self._fill(estimate, self._index(place, block))

    def _fill(self, estimate: Estimate, index: tuple[int | slice, ...]) -> None:
        for each in self.metrics:
            self.arrays[each.name][index] = each.read(estimate)
        self.done[index] = True

    def _skip(self, place: dict[int, int], block: tuple[slice, ...], reason: str) -> None:
        where = {self.axes[number].name: self.axes[number].labels[at] for number, at in place.items()}
        for number, part in zip(self.numeric, block, strict=True):
            if part != slice(None):
                some = self.axes[number].labels[part]
                where[self.axes[number].name] = some[0] if len(some) == 1 else (min(some), max(some))
        cells = self.done[self._index(place, block)].size
        self.skipped.append(Skipped(where, cells, reason))

    def _index(self, place: dict[int, int], block: tuple[slice, ...]) -> tuple[int | slice, ...]:
        parts: dict[int, int | slice] = place | dict(zip(self.numeric, block, strict=True))
        return tuple(parts[number] for number in range(len(self.axes)))

    def _columns(self, number: int) -> Mapping[str, Array | tuple[Any, ...]]:
        return self.axes[number].columns

    def _numbers(self, block: tuple[slice, ...]) -> dict[str, Array]:
        """Numbers of a block, each along its own axis of an open mesh."""
        found: dict[str, Array] = {}
        for place, (number, part) in enumerate(zip(self.numeric, block, strict=True)):
            shape = [1] * len(self.numeric)
            shape[place] = -1
            for field, column in self._columns(number).items():
                assert isinstance(column, np.ndarray), "numeric axes hold numbers"
                found[field] = column[part].reshape(shape)
        return found


def _blocks(lengths: list[int]) -> Iterator[tuple[slice, ...]]:
    """Blocks of a mesh, each of about as many cells as are evaluated at once: whole along its last axes."""
    sizes: list[int] = []
    room = CHUNK_CELLS
    for length in reversed(lengths):
        size = min(length, max(room, 1))
        sizes.insert(0, size)
        room //= size
    each = [
        [slice(low, min(low + size, length)) for low in range(0, length, size)]
        for length, size in zip(lengths, sizes, strict=True)
    ]
    return product(*each)


def _halves(block: tuple[slice, ...], axis: int) -> Iterator[tuple[slice, ...]]:
    part = block[axis]
    middle = (part.start + part.stop) // 2
    for half in (slice(part.start, middle), slice(middle, part.stop)):
        yield (*block[:axis], half, *block[axis + 1 :])


def _none_runs(request: Request, case: Case, numbers: dict[str, Array]) -> bool:
    """Whether no cell of a block can run.

    What numbers may be is limited on one side of each (a batch of at least so many, a prefix shorter than its
    prompt), so that a corner can run if any cell can.
    """
    ends = [(float(np.min(column)), float(np.max(column))) for column in numbers.values()]
    for corner in product(*ends):
        try:
            answer(request.model_copy(update=dict(zip(numbers, corner, strict=True))), case)
        except (InfeasibleError, RequestError):
            continue
        return False
    return True
