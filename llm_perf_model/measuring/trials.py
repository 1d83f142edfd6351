"""What is timed: one task at one place of a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import product
from typing import Any, Final, Literal, NamedTuple, Protocol

from ..errors import RequestError
from ..specs.request import Request
from ..sweeping.axes import axis_of

Task = Literal["prefill", "decode", "generate", "forward", "pass"]

METRICS: Final[Mapping[Task, str]] = {
    "prefill": "prefill_ms",
    "decode": "decode_ms_per_token",
    "generate": "total_ms",
    "forward": "prefill_ms",
    "pass": "latency_ms",
}
"""Task -> the metric of its time in records."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A task at one batch, one length of prompts and one of what is generated; samples of a network have no length."""

    task: Task
    batch_size: int
    input_len: int | None = None
    output_len: int | None = None
    """Tokens of a sequence that the task makes, with those before it: 1 for a prefill, 2 for the step after it."""
    num_beams: int = 1

    @property
    def asked(self) -> dict[str, Any]:
        """The fields of a request for its estimate."""
        fields = {"batch_size": self.batch_size, "input_len": self.input_len, "output_len": self.output_len}
        beams = {"num_beams": self.num_beams} if self.num_beams > 1 else {}
        return {name: value for name, value in fields.items() if value is not None} | beams


class Prepared(NamedTuple):
    """A call that can be timed, and what runs ahead of each of them."""

    call: Callable[[], object]
    before: Callable[[], object] | None = None


class Subject(Protocol):
    """A model on a device, whose tasks can be called."""

    def engine(self, trial: Trial) -> str:
        """The engine whose estimate stands for a trial."""

    def prepared(self, trial: Trial) -> Prepared:
        """The call of a trial."""


class Grid(NamedTuple):
    """Values of each axis."""

    batch_size: tuple[int, ...]
    input_len: tuple[int, ...]
    output_len: tuple[int, ...]
    num_beams: tuple[int, ...]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Grid:
        """The axes of these fields, each a value, several, or a range as those of a sweep.

        Raises:
            RequestError: a value is none of its field.
        """
        return cls(*(tuple(_whole(name, fields[name])) for name in cls._fields))

    def trials(self, tasks: Iterable[Task], encodes: bool = False) -> Iterator[Trial]:
        """The trials of a language model, those that need little memory first; the same one is not made twice."""
        made = (self._trial(task, encodes, *place) for place in product(*self) for task in tasks)
        return iter(dict.fromkeys(trial for trial in made if trial is not None))

    def passes(self) -> Iterator[Trial]:
        """The trials of a network of samples."""
        return (Trial("pass", batch_size) for batch_size in dict.fromkeys(self.batch_size))

    @staticmethod
    def _trial(
        task: Task, encodes: bool, batch_size: int, input_len: int, output_len: int, num_beams: int
    ) -> Trial | None:
        """A trial, as far as the place matters to its task; None: another task is the same."""
        if task == "generate":
            return Trial(task, batch_size, input_len, output_len, num_beams) if output_len > 1 else None
        if task == "forward":
            return Trial(task, batch_size, input_len, None if encodes else 1)
        return Trial(task, batch_size, input_len, 2 if task == "decode" else 1)


def tasks_of(
    words: str | Iterable[str] | None, possible: tuple[Task, ...], usual: tuple[Task, ...]
) -> tuple[Task, ...]:
    """The tasks of a list, or the usual ones.

    Raises:
        RequestError: one of them is not possible.
    """
    if words is None:
        return usual
    given = [word.strip() for word in words.split(",")] if isinstance(words, str) else list(words)
    for word in given:
        if word not in possible:
            near = get_close_matches(word, possible, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise RequestError(f"tasks: '{word}' is none of this model; give {', '.join(possible)}{hint}")
    return tuple(task for task in possible if task in given)


def _whole(field: str, value: Any) -> Iterator[int]:
    """The whole numbers of an axis."""
    axis = axis_of(field, value)
    for item in (value,) if axis is None else axis.columns[field]:
        yield int(getattr(Request.of({"model": "", field: item}), field))
