"""Models timed over a grid: each trial becomes records, and the run goes on where an earlier one ended."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import Any

from ..api import answer
from ..errors import RequestError
from ..report.progress import tracked
from ..specs.catalog import is_path
from ..specs.model import ModelSpec
from ..specs.network import NetworkSpec
from ..specs.request import Request
from .backends import Backend, backend_named
from .device import AUTO, Device, device_of
from .environment import environment
from .journal import Journal
from .language import Language, engine_of, left_out, tasks_of_model
from .measured import Measured
from .method import Method, Timing, timed
from .outcomes import Failure, attempt
from .precisions import Precision, precision_of
from .room import Room, gpu_of
from .rows import Setting, key_of, place_of, rows_of, version_of
from .samples import Samples
from .trials import Grid, Subject, Trial, tasks_of


def measure(
    model: str | ModelSpec | NetworkSpec,
    *,
    device: str = AUTO,
    precision: str | Iterable[str] = "fp32",
    backend: str | Iterable[str] = "eager",
    tasks: str | Iterable[str] | None = None,
    batch_size: Any = 1,
    input_len: Any = 128,
    output_len: Any = 16,
    num_beams: Any = 1,
    gpu: str | None = None,
    output: str | None = None,
    force: bool = False,
    method: Method | None = None,
) -> Measured:
    """Times, memory and energy of a model on this machine, as records.

    The model has random weights; nothing is loaded.

    Args:
        model: name, alias or path of a model or a network, or a spec, as `estimate` takes them.
        device: auto (a card, else the processor), cpu, or a kind of card with or without a number, as cuda:1.
        precision: one or several of fp32, tf32, bf16, fp16 and int8.
        backend: one or several ways to run it.
        tasks: prefill, decode, generate, forward (logits of all tokens); None: all that a model can but forward.
        batch_size: sequences or samples; like the next three one value, several, or a range as those of a sweep.
        input_len: prompt tokens of a sequence.
        output_len: generated tokens of a sequence, for the task generate.
        num_beams: beams of the task generate.
        gpu: name or path of the device file that records name; None: that of the catalogue, where it has one.
        output: CSV file; records are added to those of an earlier run, and what it holds is not measured again.
        force: whether to try what does not fit the memory by its estimate.
        method: when warm-up and repeats end.

    Returns:
        The records, also those of an earlier run. What runs out of memory or fails is a record too.

    Raises:
        RequestError: an argument is wrong, a package is missing, the model is too large, or a file cannot be written.
        SpecError: a name is unknown or a file is not valid.
    """
    spec = answer(Request.of({"model": model})).case.model
    grid = Grid.of({"batch_size": batch_size, "input_len": input_len, "output_len": output_len, "num_beams": num_beams})
    trials = _trials(spec, tasks, grid)
    ways = [Way(*pair) for pair in product(map(precision_of, listed(precision)), map(backend_named, listed(backend)))]
    here = device_of(device)
    for way in ways:
        way.check(here)
    called = model if isinstance(model, str) and is_path(model) else spec.name
    run = _Run(spec, called, here, *gpu_of(here, gpu), Journal(output, environment(here), key_of), method or Method())
    return run.over(ways, trials, force)


def listed(words: str | Iterable[str]) -> list[str]:
    """Words with commas between them, or a list of them."""
    return [word.strip() for word in words.split(",")] if isinstance(words, str) else list(words)


def _trials(spec: ModelSpec | NetworkSpec, tasks: str | Iterable[str] | None, grid: Grid) -> tuple[Trial, ...]:
    if isinstance(spec, NetworkSpec):
        tasks_of(tasks, ("pass",), ("pass",))
        return tuple(grid.passes())
    possible = tasks_of_model(spec)
    usual = tuple(task for task in possible if task != "forward") or possible
    found = tuple(grid.trials(tasks_of(tasks, possible, usual), not spec.causal))
    if not found:
        raise RequestError("tasks: generate makes more than one token; give output_len of at least 2")
    return found


@dataclass(frozen=True, slots=True)
class Way:
    """A precision, and a backend that computes in it."""

    precision: Precision
    backend: Backend

    def check(self, device: Device) -> None:
        """Refuse what a device does not do, before anything is built.

        Raises:
            RequestError: it does not.
        """
        self.precision.check(device)
        self.backend.check(self.precision.dtype, device)

    @property
    def estimated(self) -> str:
        """The precision of an estimate."""
        casts = self.backend.weights is not None and self.precision.values != self.backend.weights
        return f"{self.precision.word}-{self.backend.name}" if casts else self.precision.estimated


@dataclass(frozen=True)
class _Run:
    """A model on a device while it is measured."""

    spec: ModelSpec | NetworkSpec
    called: str
    """What records call the model: its name, or the path of its file."""
    device: Device
    gpu: str
    recorded: str
    journal: Journal
    method: Method

    def over(self, ways: Sequence[Way], trials: Sequence[Trial], force: bool) -> Measured:
        """All trials in all ways; those that the journal holds are not made again."""
        room = Room(self.spec, self.gpu, self.device)
        places = [(way, trial) for way in ways for trial in trials if self._runs(way, trial, room)]
        if not places:
            raise RequestError(f"tasks: {room.notes[0]}; give other tasks or another backend")
        new = [place for place in places if not self.journal.done(self._setting(place[0]).key(place[1]))]
        kept = [(way, trial) for way, trial in new if force or room.has(way.estimated, self._engine(way, trial), trial)]
        signs = tracked(kept, "measurements")
        for way, part in groupby(signs, key=lambda place: place[0]):
            self._made(way, (trial for _, trial in part))
        asked = {self._setting(way).place(trial) for way, trial in places}
        rows = [row for row in self.journal.rows if place_of(row) in asked]
        return Measured(f"{self.spec.name} on {self.device.name}", tuple(rows), len(kept), room.notes)

    def _runs(self, way: Way, trial: Trial, room: Room) -> bool:
        """Whether a backend runs a task at all."""
        why = left_out(way.backend, trial.task) if isinstance(self.spec, ModelSpec) else None
        if why is not None:
            room.skip(f"of {trial.task}, for {way.backend.name} {why}")
        return why is None

    def _made(self, way: Way, trials: Iterable[Trial]) -> None:
        """The trials of one way, with one module."""
        with way.precision.products_of(), _quiet():
            subject = attempt(lambda: self._subject(way), self.device)
            for trial in trials:
                self._record(way, trial, subject)
            del subject
            self.device.release()

    def _record(self, way: Way, trial: Trial, subject: Subject | Failure) -> None:
        result = subject if isinstance(subject, Failure) else attempt(lambda: self._timed(subject, trial), self.device)
        if isinstance(subject, Failure):
            engine = way.backend.recorded or self._engine(way, trial)
        else:
            engine = subject.engine(trial)
        if isinstance(result, Timing) and not way.backend.counted:
            result = replace(result, peak_allocated_bytes=None, peak_reserved_bytes=None)
        told = version_of(self.journal.environment)
        self.journal.append(*rows_of(self._setting(way), trial, engine, result, self.device.state(), told))

    def _timed(self, subject: Subject, trial: Trial) -> Timing:
        call, before = subject.prepared(trial)
        return timed(call, self.device, self.method, before)

    def _subject(self, way: Way) -> Subject:
        if isinstance(self.spec, NetworkSpec):
            return Samples(self.spec, self.device, way.precision, way.backend)
        return Language(self.spec, self.device, way.precision, way.backend)

    def _engine(self, way: Way, trial: Trial) -> str:
        if isinstance(self.spec, NetworkSpec):
            return way.backend.engine(self.device)
        return engine_of(way.backend, self.device, trial.task)

    def _setting(self, way: Way) -> Setting:
        return Setting(self.called, self.recorded, way.precision.word, way.backend.name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what frameworks warn of: it is nothing that one who measures can change."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(max(before, logging.WARNING))
        try:
            yield
        finally:
            logging.disable(before)
