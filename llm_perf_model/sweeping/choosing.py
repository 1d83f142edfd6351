"""The best cells of a sweep, or those that no other beats: of each job first, then among those."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np

from ..errors import InfeasibleError, RequestError
from ..types import Array, Column, CountArray, MaskArray
from .cells import Cells
from .metrics import METRICS, Metric, metric

_SIGNS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


@dataclass(frozen=True)
class Constraint:
    """A limit of a metric, or a mask that is to hold."""

    text: str
    name: str
    sign: str | None = None
    limit: float = 0.0

    @classmethod
    def of(cls, text: str, known: Iterable[str] = METRICS) -> Self:
        """The constraint of a text, as `tpot_s <= 0.03` or `fits`.

        Raises:
            RequestError: it is none, or its metric is unknown.
        """
        match = re.fullmatch(r"\s*(\w+)\s*(?:(<=|>=|<|>)\s*(\S+)\s*)?", text)
        try:
            name, sign, bound = match.groups() if match else ("", None, None)
            limit = 0.0 if bound is None else float(bound)
        except ValueError:
            name = ""
        kind = metric(name, known).kind if name else "text"
        if kind == "text" or (sign is None and kind != "mask"):
            raise RequestError(f"constraint '{text.strip()}' is none; give a metric and a limit, as tpot_s <= 0.03")
        return cls(text.strip(), name, sign, limit)

    def met(self, values: Column) -> MaskArray:
        """Where it holds."""
        found: MaskArray = values.astype(np.bool_) if self.sign is None else _SIGNS[self.sign](values, self.limit)
        return found

    @property
    def up(self) -> bool:
        """Whether more of the metric meets it."""
        return self.sign is None or ">" in self.sign

    def nearest(self, values: Column) -> float:
        """The value that comes nearest to it; no number where none is known."""
        known = values[~np.isnan(values)] if values.dtype == np.float64 else values
        return float((np.max if self.up else np.min)(known)) if known.size else np.nan


@dataclass(frozen=True)
class Offer:
    """Cells of a part of a sweep that may be the answer, and how far the others came."""

    places: CountArray
    """Numbers of the cells, counted over all axes."""
    cells: Cells
    met: tuple[int, ...]
    """Cells that run; of these, those that meet the first constraint; of these, the second; ..."""
    nearest: tuple[float, ...]
    """Of the cells that meet all constraints before it, what comes nearest to each."""

    def moved(self, places: CountArray) -> Offer:
        """The same with other numbers of its cells."""
        return replace(self, places=places)


@dataclass(frozen=True)
class Choice:
    """Which cells are wanted: the best in one metric among those that meet constraints, or the front of two."""

    objectives: tuple[Metric, ...]
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def of(
        cls, objectives: Iterable[str], constraints: str | Iterable[str] = (), known: Iterable[str] = METRICS
    ) -> Self:
        """The choice of names of metrics that are known, and of constraints in texts, several in one with commas.

        Raises:
            RequestError: a metric is unknown or a word, or a constraint is none.
        """
        found = tuple(metric(name, known) for name in objectives)
        for each in found:
            if each.kind == "text":
                raise RequestError(f"{each.name}: is a word, not a number; name another metric")
        texts = constraints.split(",") if isinstance(constraints, str) else constraints
        return cls(found, tuple(Constraint.of(text, known) for text in texts if text.strip()))

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the metrics that it reads."""
        return (*(each.name for each in self.objectives), *(each.name for each in self.constraints))

    def rows(
        self, metrics: Mapping[str, Column], runs: MaskArray
    ) -> tuple[CountArray, tuple[int, ...], tuple[float, ...]]:
        """Numbers of the wanted cells, and `Offer.met` and `Offer.nearest` of all of them.

        Args:
            metrics: name -> values of each cell.
            runs: whether a cell is computed and can run.
        """
        mask, met, nearest = runs, [int(np.count_nonzero(runs))], []
        for each in self.constraints:
            values = metrics[each.name]
            nearest.append(each.nearest(values[mask]))
            mask = mask & each.met(values)
            met.append(int(np.count_nonzero(mask)))
        for objective in self.objectives:
            mask = mask & ~np.isnan(metrics[objective.name])
        found: CountArray = np.flatnonzero(mask)
        least = [_least(objective, metrics[objective.name][found]) for objective in self.objectives]
        if len(least) > 1:
            return found[_front(*least)], tuple(met), tuple(nearest)
        return found[[np.argmin(least[0])]] if found.size else found, tuple(met), tuple(nearest)

    def among(self, offers: Iterable[Offer]) -> Cells:
        """The wanted cells among those of all parts; those of a front by its first metric.

        Raises:
            InfeasibleError: no cell runs, or none meets the constraints, or the metric is known for none.
        """
        given = list(offers)
        self._check(given)
        order = np.argsort(np.concatenate([offer.places for offer in given]), kind="stable")
        cells = Cells.joined([offer.cells for offer in given]).at(order)
        rows, _, _ = Choice(self.objectives).rows(cells.metrics, np.ones(order.size, np.bool_))
        if not rows.size:
            names = " and ".join(each.name for each in self.objectives)
            raise InfeasibleError(f"{names}: known for no configuration that meets the constraints")
        return cells.at(rows).sorted(self.objectives[0].name)

    def _check(self, offers: list[Offer]) -> None:
        """Refuse where no cell of any part meets what is asked, with what comes nearest."""
        met = np.array([offer.met for offer in offers]).sum(axis=0)
        if not met[0]:
            raise InfeasibleError("no configuration of the sweep fits and stays within the positions of its model")
        for number, constraint in enumerate(self.constraints):
            if not met[number + 1]:
                nearest = constraint.nearest(np.array([offer.nearest[number] for offer in offers]))
                most = "highest" if constraint.up else "lowest"
                near = "" if constraint.sign is None or np.isnan(nearest) else f": the {most} is {nearest:.4g}"
                raise InfeasibleError(f"no configuration meets {constraint.text}{near}")


def _least(objective: Metric, values: Column) -> Array:
    """A metric, turned so that less is better."""
    numbers: Array = values.astype(np.float64)
    return -numbers if objective.more_is_better else numbers


def _front(first: Array, second: Array) -> CountArray:
    """Places that no other beats in both, by the first."""
    order = np.lexsort((second, first))
    b = second[order]
    before = np.concatenate(([np.inf], np.minimum.accumulate(b)[:-1]))[: b.size]
    found: CountArray = order[b < before]
    return found
