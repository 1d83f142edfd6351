"""A sign of life during long work, on a terminal's standard error only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def tracked(items: Sequence[T], label: str) -> Iterator[T]:
    """The items, with a bar where standard error is a terminal."""
    bar: Iterable[T] = items
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        bar = track(items, label, console=Console(stderr=True), transient=True)
    yield from bar


@contextmanager
def ticking(label: str) -> Iterator[Callable[[], None]]:
    """A counter of steps whose number is not known, where standard error is a terminal; call it once a step."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn(f"{label}: {{task.completed}} evaluations"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        yield lambda: progress.advance(task)


@contextmanager
def counting(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """A counter of things of a known number, with a bar where standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)
