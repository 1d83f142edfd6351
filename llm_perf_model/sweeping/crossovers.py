"""From which batch, length or number of ranks on one part of the work passes another."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from ..api import answer, case_of
from ..case import AnyModel
from ..errors import InfeasibleError, RequestError
from ..estimate import Estimate
from ..report.document import Report, Table
from ..specs.model import ModelSpec
from ..summary import title
from ..types import Array, MaskArray, Num
from ..units import percent
from .metrics import label
from .pairs import PAIRS, WORDS, Pair, Parts, operators
from .single import Single

MOST: Final = 2**20
"""The largest batch and the longest prompt that are tried."""

DENSE: Final = 256
"""Up to here all whole numbers are tried."""

GROWTH: Final = 1.02
"""Beyond, each is so many times the one before."""

REFINED: Final = 256
"""Whole numbers between two that are tried in a further round."""

RANKS: Final = (1, 2, 4, 8, 16, 32, 64)
"""Tensor-parallel ranks that are tried."""


class Crossover(NamedTuple):
    """The least value of a field from which one part passes another."""

    name: str
    text: str
    field: str
    least: int | None
    """None: it does at no value up to `most`."""
    most: int
    """The largest value that was tried."""
    lasts: bool
    """Whether it stays so up to there, at the values that were tried."""
    fits: bool | None
    """Whether the configuration fits the memory there; None where there is no such value."""
    extrapolated: bool | None
    """Whether it exceeds the positions of the model there."""
    reason: str
    """Why there is no such value, or where it ceases."""


@dataclass(frozen=True)
class Crossovers:
    """Where one part of the work of a configuration passes another."""

    estimate: Estimate
    points: tuple[Crossover, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Crossover:
        """The crossover of a name."""
        known = {each.name: each for each in self.points}
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise RequestError(f"{name}: is no crossover of {self.estimate.case.model.name}; {hint}")
        return known[name]

    def to_dict(self) -> dict[str, Any]:
        """The answer: numbers, text and None."""
        return {"request": self.estimate.request.plain(), "crossovers": [each._asdict() for each in self.points]}

    def report(self) -> Report:
        """A table for people, with a line for what never happens or does not last."""
        rows = [(each.text, _least(each), _there(each)) for each in self.points]
        reasons = [f"{each.text}: {each.reason}" for each in self.points if each.reason]
        table = Table(("crossover", "from", "there it"), tuple(rows), text_columns=3)
        records = [each._asdict() for each in self.points]
        return Report(title(self.estimate), (table,), (*reasons, *self.notes), self.to_dict(), records)

    def __str__(self) -> str:
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()


def _least(each: Crossover) -> str:
    return "never" if each.least is None else f"{label(each.field)} {each.least:,}"


def _there(each: Crossover) -> str:
    if each.least is None:
        return ""
    if not each.fits:
        return "exceeds the memory"
    return "exceeds the positions" if each.extrapolated else "runs"


def crossovers(model: str | AnyModel | None = None, **fields: Any) -> Crossovers:
    """From which batch, length or ranks on one part of the work passes another.

    Args:
        model: as `estimate` takes it.
        **fields: the other fields of `Request`, each with one value: the one that a pair depends on varies, the
            others stay.

    Returns:
        The least whole number for each pair of parts that the model has, or why there is none.

    Raises:
        RequestError: a field is wrong, or holds several values.
        SpecError: a name is unknown or a file is not valid.
        InfeasibleError: the request is well-formed but cannot run.
    """
    single = Single.of(fields if model is None else {"model": model, **fields}, "crossovers")
    asked = [each for each in PAIRS if _is_asked(each, single)]
    along = dict.fromkeys(each.field for each in asked if each.field != "tp")
    points = [point for field in along for point in _along(single, field, asked)]
    points += _over_ranks(single, [each for each in asked if each.field == "tp"])
    return Crossovers(single.estimate, tuple(points), single.remarks())


def _is_asked(pair: Pair, single: Single) -> bool:
    """Whether the model has the phase and the field; one that makes a single pass is asked for its batch instead."""
    if pair.phase == "decode" and not single.decodes:
        return False
    if pair.name == "pass_compute_batch":
        return not single.case.model.causal
    return pair.field in single.counts or (pair.field == "tp" and isinstance(single.case.model, ModelSpec))


def ladder(least: float) -> Array:
    """Whole numbers from `least` to `MOST`: all up to `DENSE`, then each a little more than the one before."""
    steps = np.arange(0.0, np.log(MOST / DENSE) / np.log(GROWTH))
    values = np.concatenate((np.arange(1.0, DENSE), np.round(DENSE * GROWTH**steps), [float(MOST)]))
    return np.unique(np.maximum(values, least))


def _along(single: Single, field: str, asked: Iterable[Pair]) -> Iterator[Crossover]:
    """The crossovers along a field that takes arrays: on a ladder, then between two of its values."""
    pairs = [each for each in asked if each.field == field]
    values = ladder(single.least[field])
    found = single.at({field: values})
    sums = {phase: _sums(found, phase) for phase in {each.phase for each in pairs}}
    for each in pairs:
        holds = _holds(sums[each.phase], each, values.size)
        least = there = None
        if np.any(holds):
            at = int(np.argmax(holds))
            least = _between(single, each, float(values[at - 1]) if at else float(values[0]) - 1.0, float(values[at]))
            there = single.at({field: np.array([least])})
        yield _crossover(single, each, values, holds, least, found, there)


def _between(single: Single, pair: Pair, low: float, high: float) -> float:
    """The first value after `low`, where it does not hold, up to `high`, where it does."""
    while high - low > 1.0:
        values = np.unique(np.ceil(np.linspace(low, high, REFINED)[1:]))
        sums = _sums(single.at({pair.field: values}), pair.phase)
        at = int(np.argmax(_holds(sums, pair, values.size)))
        low, high = float(values[at - 1]) if at else low, float(values[at])
    return high


def _holds(sums: Parts, pair: Pair, size: int) -> MaskArray:
    """Whether the first part exceeds the second, at each of `size` points."""
    return np.broadcast_to(getattr(sums, pair.passing) > getattr(sums, pair.passed), size)


def _sums(found: Estimate, phase: str) -> Parts:
    """The parts of all operators together."""
    return Parts(*map(sum, zip(*(parts for _, parts in operators(getattr(found, phase))), strict=True)))


def _over_ranks(single: Single, pairs: list[Pair]) -> Iterator[Crossover]:
    """The crossovers along tensor-parallel ranks, each a case of its own; those that cannot run are left out."""
    runs: dict[float, Estimate] = {}
    for ranks in RANKS:
        request = single.request.model_copy(update={"tp": ranks})
        try:
            runs[float(ranks)] = answer(request, case_of(request))
        except InfeasibleError:
            continue
    if len(runs) < 2 or not pairs:
        return
    values = np.array(list(runs))
    for each in pairs:
        mask = np.array([bool(_holds(_sums(run, each.phase), each, 1)[0]) for run in runs.values()])
        least = float(values[np.argmax(mask)]) if np.any(mask) else None
        yield _crossover(single, each, values, mask, least, runs[values[-1]], None if least is None else runs[least])


def _crossover(
    single: Single,
    pair: Pair,
    values: Array,
    holds: MaskArray,
    least: float | None,
    last: Estimate,
    there: Estimate | None,
) -> Crossover:
    """The answer for a pair; `last` ends with the largest value that was tried, `there` is that at the least one."""
    phase, most = pair.phase if single.case.model.causal else "the pass", int(values[-1])
    named = (pair.name, pair.text.format(phase=phase), pair.field)
    if least is None or there is None:
        return Crossover(*named, None, most, False, None, None, _never(pair, last, most))
    ceased = values[(values > least) & ~holds]
    reason = f"not everywhere beyond: not at {int(ceased[0]):,}" if ceased.size else ""
    fits, extrapolated = bool(np.all(there.fits)), bool(np.any(there.extrapolated))
    return Crossover(*named, int(least), most, not ceased.size, fits, extrapolated, reason)


def _never(pair: Pair, last: Estimate, most: int) -> str:
    """Why one part never passes the other: there is none of it, or how far it comes and what the other is."""
    parts = list(operators(getattr(last, pair.phase)))
    passing = sum(_last(getattr(each, pair.passing)) for _, each in parts)
    if passing == 0.0:
        return f"never: {pair.nothing or 'there is none of it'}"
    passed = {name: _last(getattr(each, pair.passed)) for name, each in parts}
    total, largest = sum(passed.values()), max(passed, key=lambda name: passed[name])
    return (
        f"never up to {most:,}: there {WORDS[pair.passing]} is {passing / total:.2g} of {WORDS[pair.passed]}, "
        f"{percent(passed[largest] / total)} of which is {largest}"
    )


def _last(number: Num) -> float:
    return float(np.ravel(number)[-1])
