"""What a sweep asks, and how it is cut into jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from math import ceil, prod
from typing import Any, Final, NamedTuple

from ..errors import RequestError
from .axes import Axis, axis_of, points_axis
from .metrics import metrics_of

Block = tuple[slice, ...]
"""Places along each of some axes."""

JOBS: Final = 64
"""Jobs that a sweep of middle size is cut into."""

JOB_CASES: Final = 64
"""Cases of a job, at most."""

JOB_CELLS: Final = (2**17, 2**19)
"""Cells of a job that is a piece of one case: enough to hide the cost of sending it, few enough for little memory."""


class Job(NamedTuple):
    """Cells that one worker computes together: cases, or a piece of one."""

    number: int
    blocks: tuple[Block, ...]
    cells: int


@dataclass(frozen=True)
class Question:
    """Axes, fields of one value, and the metrics that are kept."""

    axes: tuple[Axis, ...]
    fixed: Mapping[str, Any]
    metrics: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """Configurations."""
        return prod(self.shape)

    def part(self, block: Block) -> Question:
        """The same of some places of each axis."""
        axes = tuple(axis.part(places) for axis, places in zip(self.axes, block, strict=True))
        return Question(axes, self.fixed, self.metrics)

    def keeping(self, metrics: tuple[str, ...]) -> Question:
        """The same, with more metrics that are kept."""
        return replace(self, metrics=tuple(dict.fromkeys([*self.metrics, *metrics])))

    def jobs(self) -> Iterator[Job]:
        """All cells, each in one job; the same jobs whoever computes them."""
        case_cells = prod(len(axis) for axis in self.axes if axis.numeric)
        piece_cells = min(max(ceil(self.size / JOBS), JOB_CELLS[0]), JOB_CELLS[1])
        together = min(ceil(self.size / case_cells / JOBS), JOB_CASES, piece_cells // case_cells)
        pieces = list(blocks([len(axis) if axis.numeric else 1 for axis in self.axes], piece_cells))
        cases = blocks([1 if axis.numeric else len(axis) for axis in self.axes], 1)
        placed = (self._placed(case, piece) for case in cases for piece in pieces)
        for number, group in enumerate(_grouped(placed, max(together, 1))):
            yield Job(number, group, sum(map(cells_of, group)))

    def _placed(self, case: Block, piece: Block) -> Block:
        """A piece of a case, among all axes."""
        each = zip(self.axes, case, piece, strict=True)
        return tuple(inner if axis.numeric else outer for axis, outer, inner in each)


def question_of(given: Mapping[str, Any], points: Mapping[str, Any] | None, metrics: Any) -> Question:
    """The question of fields, each of one value or of several, of points, and of names of metrics.

    Raises:
        RequestError: a field, a range or a metric is wrong.
    """
    axes = {field: axis_of(field, value) for field, value in given.items()}
    fixed = {field: given[field] for field, axis in axes.items() if axis is None}
    found = [axis for axis in axes.values() if axis is not None]
    if points is not None:
        found.append(points_axis(points))
        for field in sorted(points.keys() & given.keys()):
            raise RequestError(f"points: {field} is given by itself too; leave one of them out")
    return Question(tuple(found), fixed, tuple(each.name for each in metrics_of(metrics)))


def blocks(lengths: list[int], cells: int) -> Iterator[Block]:
    """Blocks of a mesh, each of about as many cells: whole along its last axes."""
    sizes: list[int] = []
    room = cells
    for length in reversed(lengths):
        size = min(length, max(room, 1))
        sizes.insert(0, size)
        room //= size
    each = [
        [slice(low, min(low + size, length)) for low in range(0, length, size)]
        for length, size in zip(lengths, sizes, strict=True)
    ]
    return product(*each)


def cells_of(block: Block) -> int:
    """Cells of a block."""
    return prod(places.stop - places.start for places in block)


def _grouped(items: Iterator[Block], count: int) -> Iterator[tuple[Block, ...]]:
    while group := tuple(islice(items, count)):
        yield group
