"""The cells of one case: its numbers as an open mesh for the same answer that a single request has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from typing import Any, Final

import numpy as np

from ..api import answer, case_of
from ..case import Case
from ..errors import InfeasibleError, RequestError
from ..estimate import Estimate
from ..specs.request import Request
from ..types import Array, Column, MaskArray
from .axes import Axis
from .grid import Skipped, Sweep
from .metrics import METRICS, Kind
from .question import Block, Question, blocks

CHUNK_CELLS: Final = 2**15
"""Cells that are evaluated at once: enough to hide the cost of a call, few enough to stay in a processor's cache."""

KEPT: Final[dict[Kind, tuple[Any, Any]]] = {
    "number": (np.float64, np.nan),
    "mask": (np.bool_, False),
    "text": ("<U13", ""),
}
"""Kind of a metric -> type of its array, and what cells hold that were skipped."""


def evaluated(question: Question) -> Sweep:
    """The sweep of a question in which all that is no number has one value."""
    return _Mesh(question).swept()


def check(question: Question) -> None:
    """Refuse values that are wrong by themselves, before anything is computed.

    Raises:
        RequestError: a field is wrong.
        SpecError: a name is unknown or a file is not valid.
    """
    first = tuple(slice(0, len(axis) if axis.numeric else 1) for axis in question.axes)
    for number, axis in enumerate(question.axes):
        for places in [first[number]] if axis.numeric else [slice(at, at + 1) for at in range(len(axis))]:
            _checked(question.part((*first[:number], places, *first[number + 1 :])))
    if not question.axes:
        _checked(question)


def _checked(question: Question) -> None:
    with suppress(InfeasibleError):
        case_of(_Mesh(question).request)


def blank(question: Question) -> tuple[dict[str, Column], MaskArray]:
    """Arrays of all metrics before anything is computed, and whether a cell is."""
    kinds = {name: KEPT[METRICS[name].kind] for name in question.metrics}
    arrays = {name: np.full(question.shape, nothing, dtype) for name, (dtype, nothing) in kinds.items()}
    return arrays, np.zeros(question.shape, np.bool_)


class _Mesh:
    """The cells of a case while they are filled in."""

    def __init__(self, question: Question) -> None:
        self.question, self.metrics = question, [METRICS[name] for name in question.metrics]
        self.skipped: list[Skipped] = []
        self.outer = [axis for axis in question.axes if not axis.numeric]
        self.inner = [axis for axis in question.axes if axis.numeric]

    @property
    def request(self) -> Request:
        """The request of all numbers."""
        chosen = {field: column[0] for axis in self.outer for field, column in axis.columns.items()}
        given = {field: value for field, value in chosen.items() if value is not None}
        whole = tuple(slice(0, len(axis)) for axis in self.inner)
        return Request.of({**self.question.fixed, **given, **self._numbers(whole)})

    def swept(self) -> Sweep:
        """The sweep, block by block."""
        self.arrays, self.done = blank(self.question)
        request = self.request
        try:
            case = case_of(request)
        except InfeasibleError as error:
            self._skip(None, str(error))
        else:
            for block in blocks([len(axis) for axis in self.inner], CHUNK_CELLS):
                self._block(request, case, block)
        return Sweep(self.question.axes, self.arrays, self.done, tuple(self.skipped), self.question.fixed)

    def _block(self, request: Request, case: Case, block: Block) -> None:
        """Some of the cells of a case; where not all of them can run, those of each half."""
        numbers = self._numbers(block)
        try:
            estimate = answer(request.model_copy(update=numbers), case)
        except (InfeasibleError, RequestError) as error:
            lengths = [part.stop - part.start for part in block]
            if max(lengths, default=1) == 1 or _none_runs(request, case, numbers):
                self._skip(block, str(error))
                return
            for half in _halves(block, int(np.argmax(lengths))):
                self._block(request, case, half)
            return
        self._fill(estimate, self._index(block))

    def _fill(self, estimate: Estimate, index: tuple[int | slice, ...]) -> None:
        for each in self.metrics:
            self.arrays[each.name][index] = each.read(estimate)
        self.done[index] = True

    def _skip(self, block: Block | None, reason: str) -> None:
        """Note a block that cannot run, or the whole case."""
        where = {axis.name: axis.labels[0] for axis in self.outer}
        if block is None:
            self.skipped.append(Skipped(where, self.done.size, reason))
            return
        for axis, part in zip(self.inner, block, strict=True):
            some = axis.part(part).labels
            where[axis.name] = some[0] if len(some) == 1 else (min(some), max(some))
        self.skipped.append(Skipped(where, self.done[self._index(block)].size, reason))

    def _index(self, block: Block) -> tuple[int | slice, ...]:
        """Where a block lies among all axes."""
        parts = iter(block)
        return tuple(next(parts) if axis.numeric else 0 for axis in self.question.axes)

    def _numbers(self, block: Block) -> dict[str, Array]:
        """Numbers of a block, each along its own axis of an open mesh."""
        found: dict[str, Array] = {}
        for place, (axis, part) in enumerate(zip(self.inner, block, strict=True)):
            shape = [1] * len(self.inner)
            shape[place] = -1
            found |= {field: column[part].reshape(shape) for field, column in _numeric(axis)}
        return found


def _numeric(axis: Axis) -> Iterator[tuple[str, Array]]:
    for field, column in axis.columns.items():
        assert isinstance(column, np.ndarray), "numeric axes hold numbers"
        yield field, column


def _halves(block: Block, axis: int) -> Iterator[Block]:
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
