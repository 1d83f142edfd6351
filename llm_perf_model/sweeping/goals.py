"""What becomes of the cells of a sweep: kept, written, or searched. Each has a part for the worker and one here."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np

from ..errors import InfeasibleError, RequestError
from ..report.progress import counting
from ..types import Column, CountArray, MaskArray
from ..version import __version__
from .cells import Cells
from .choosing import Choice, Offer
from .evaluate import blank, evaluated
from .executors import Where, Workers, each_result, ready
from .folder import Place, SweepFolder, opened
from .grid import Skipped, Sweep, remarks, unable
from .question import Block, Job, Question

T = TypeVar("T")


class Task(NamedTuple):
    """A job with all that a worker needs for it."""

    job: Job
    parts: tuple[Question, ...]
    shape: tuple[int, ...]
    version: str = __version__

    def computed(self) -> Iterator[Sweep]:
        """The cells of each part.

        Raises:
            RequestError: the worker has another version of this package, so that its numbers would differ.
        """
        if self.version != __version__:
            raise RequestError(f"executor: its workers have version {__version__}, and here is {self.version}; use one")
        return map(evaluated, self.parts)


def _results(
    question: Question, call: Callable[[Task], T], workers: Workers | None, left_out: Container[int] = ()
) -> Iterator[tuple[Job, T]]:
    """Jobs with what workers make of them, without those of some numbers; with a bar on a terminal."""
    tasks = (
        Task(job, tuple(map(question.part, job.blocks)), question.shape)
        for job in question.jobs()
        if job.number not in left_out
    )
    total = sum(job.cells for job in question.jobs() if job.number not in left_out) if left_out else question.size
    with counting(total, "configurations") as advance:
        for task, result in each_result(tasks, call, workers):
            advance(task.job.cells)
            yield task.job, result


class _Arrays(NamedTuple):
    metrics: Mapping[str, Column]
    done: MaskArray
    skipped: tuple[Skipped, ...]


def _arrays(task: Task) -> list[_Arrays]:
    return [_Arrays(part.metrics, part.done, part.skipped) for part in task.computed()]


def kept(question: Question, where: Where) -> Sweep:
    """The sweep with all its cells."""
    arrays, done = blank(question)
    skipped: dict[int, list[Skipped]] = {}
    with ready(where) as workers:
        for job, parts in _results(question, _arrays, workers):
            for block, part in zip(job.blocks, parts, strict=True):
                done[block] = part.done
                for name, values in part.metrics.items():
                    arrays[name][block] = values
            skipped[job.number] = [each for part in parts for each in part.skipped]
    return Sweep(question.axes, arrays, done, _in_order(skipped), question.fixed)


@dataclass(frozen=True)
class Explored:
    """The answer of a search, and what it saw."""

    choice: Choice
    offers: tuple[Offer, ...]
    skipped: tuple[Skipped, ...]
    computed: int

    @property
    def cells(self) -> Cells:
        """The wanted cells.

        Raises:
            InfeasibleError: there are none.
        """
        if not self.computed:
            raise InfeasibleError(unable(self.skipped))
        return self.choice.among(self.offers)

    def remarks(self) -> Iterator[str]:
        """How many configurations run, and what was skipped, in lines for people."""
        return remarks(self.computed, sum(offer.met[0] for offer in self.offers), self.skipped)


class _Found(NamedTuple):
    offers: list[Offer]
    skipped: list[Skipped]
    computed: int


def _offers(choice: Choice, task: Task) -> _Found:
    offers: list[Offer] = []
    skipped: list[Skipped] = []
    computed = 0
    for block, part in zip(task.job.blocks, task.computed(), strict=True):
        computed += int(np.count_nonzero(part.done))
        skipped += part.skipped
        offer = part.offer(choice)
        offers.append(offer.moved(_places(offer.places, block, task.shape)))
    return _Found(offers, skipped, computed)


def _places(places: CountArray, block: Block, shape: tuple[int, ...]) -> CountArray:
    """Numbers of cells of a block, counted over all axes."""
    if not shape:
        return places
    inside = np.unravel_index(places, [part.stop - part.start for part in block])
    found: CountArray = np.ravel_multi_index([at + part.start for at, part in zip(inside, block, strict=True)], shape)
    return found


def explored(question: Question, choice: Choice, where: Where) -> Explored:
    """What a search finds, of which no more is kept than may be the answer."""
    with ready(where) as workers:
        found = {job.number: each for job, each in _results(question, partial(_offers, choice), workers)}
    ordered = [found[number] for number in sorted(found)]
    skipped = _in_order({number: each.skipped for number, each in found.items()})
    offers = tuple(offer for each in ordered for offer in each.offers)
    return Explored(choice, offers, skipped, sum(each.computed for each in ordered))


def _stored(place: Place, task: Task) -> list[Sweep] | None:
    """Write the cells; hand them back where this worker does not see the folder."""
    parts = list(task.computed())
    if not place.seen:
        return parts
    place.store(task.job.number, parts)
    return None


def written(question: Question, folder: str, where: Where) -> SweepFolder:
    """The sweep as a folder of files, of which those that are there are not computed again."""
    with ready(where) as workers:
        found = opened(folder, question)
        there = set(range(found.parts)) - set(found.missing)
        for job, parts in _results(question, partial(_stored, found.place), workers, there):
            if parts is not None:
                found.place.store(job.number, parts)
    return found


def _in_order(skipped: Mapping[int, list[Skipped]]) -> tuple[Skipped, ...]:
    """What was skipped, by job; pieces of one case become one."""
    ordered = (each for number in sorted(skipped) for each in skipped[number])
    groups = groupby(ordered, key=lambda each: (dict(each.where), each.reason))
    return tuple(Skipped(where, sum(each.cells for each in group), reason) for (where, reason), group in groups)
