"""The result of a sweep: arrays with named axes, the best cells of them, and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from ..errors import RequestError
from ..report.document import Report
from ..report.export import write_columns
from ..types import Column, MaskArray
from .axes import Axis, plain
from .cells import Cells
from .choosing import Choice, Offer
from .metrics import metric

_SHOWN_REASONS: Final = 3


class Skipped(NamedTuple):
    """Configurations that cannot run: where, how many, and why."""

    where: Mapping[str, Any]
    """Axis -> value, or the least and the most of several; axes that are left out have all their values."""
    cells: int
    reason: str


@dataclass(frozen=True)
class Sweep:
    """Metrics of all combinations of values, with an axis for each field of several."""

    axes: tuple[Axis, ...]
    metrics: Mapping[str, Column]
    """Name -> array. Numbers of cells that were skipped are NaN."""
    done: MaskArray
    """Whether a cell was computed."""
    skipped: tuple[Skipped, ...]
    fixed: Mapping[str, Any]
    """Fields of one value."""

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(axis.name for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """Configurations, those that were skipped included."""
        return prod(self.shape)

    def __getitem__(self, name: str) -> Column:
        """The array of a metric."""
        return self.metrics[metric(name, self.metrics).name]

    def cells(self, chosen: MaskArray | None = None) -> Cells:
        """The computed cells as a table, or those of a mask; the last axis is the fastest."""
        mask = self.done if chosen is None else chosen
        columns: dict[str, Column] = {}
        for number, axis in enumerate(self.axes):
            shape = [1] * len(self.axes)
            shape[number] = -1
            for field, values in axis.table.items():
                columns[field] = np.broadcast_to(values.reshape(shape), self.shape)[mask]
        return Cells(columns, {name: values[mask] for name, values in self.metrics.items()})

    @property
    def computed(self) -> int:
        """Configurations that were not skipped."""
        return int(np.count_nonzero(self.done))

    @cached_property
    def runs(self) -> MaskArray:
        """Whether a cell was computed, fits, and stays within its model's positions."""
        mask: MaskArray = self.done & self.metrics["fits"] & ~self.metrics["extrapolated"]
        return mask

    def best(self, objective: str, constraints: str | Iterable[str] = ()) -> dict[str, Any]:
        """The coordinates and metrics of `best_cell`."""
        return self.best_cell(objective, constraints).row(0)

    def best_cell(self, objective: str, constraints: str | Iterable[str] = ()) -> Cells:
        """The cell with the best value of a metric among those that run.

        Args:
            objective: a metric; the highest throughput, batch size or utilisation is best, the lowest of all others.
            constraints: `tpot_s <= 0.03`, one or several, or several in a text with commas.

        Raises:
            RequestError: a metric is unknown, or a constraint is none.
            InfeasibleError: no cell meets them.
        """
        choice = Choice.of([objective], constraints, self.metrics)
        return choice.among([self.offer(choice)])

    def pareto(self, x: str, y: str) -> Cells:
        """Cells that run and that no other beats in two metrics, by the first of them."""
        choice = Choice.of([x, y], (), self.metrics)
        return choice.among([self.offer(choice)])

    def offer(self, choice: Choice) -> Offer:
        """The cells that a choice would take, and how far the others came."""
        flat = {name: self.metrics[name].ravel() for name in choice.needed}
        places, met, nearest = choice.rows(flat, self.runs.ravel())
        places = np.sort(places)
        return Offer(places, self.cells(self._only(places)), met, nearest)

    def _only(self, places: Column) -> MaskArray:
        """A mask of the cells of these numbers."""
        mask = np.zeros(self.shape, np.bool_)
        mask.ravel()[places] = True
        return mask

    def to_pandas(self) -> Any:
        """A pandas `DataFrame` of the computed cells (extra `sweep`)."""
        return self.cells().to_pandas()

    def to_xarray(self) -> Any:
        """An xarray `Dataset` with all axes (extra `sweep`)."""
        try:
            import xarray
        except ImportError:
            raise RequestError("a Dataset needs the package xarray: pip install 'llm-perf-model[sweep]'") from None
        coordinates: dict[str, Any] = {}
        for axis in self.axes:
            coordinates |= {field: (axis.name, axis.table[field]) for field in axis.columns}
        arrays = {name: (self.dims, values) for name, values in self.metrics.items()}
        return xarray.Dataset(arrays, coordinates, {field: str(plain(value)) for field, value in self.fixed.items()})

    def to_csv(self, path: str) -> None:
        """Write a line for each computed cell."""
        write_columns(path, self.cells().columns, "csv")

    def to_json(self, path: str) -> None:
        """Write a list of objects, one for each computed cell."""
        write_columns(path, self.cells().columns, "json")

    def to_parquet(self, path: str) -> None:
        """Write the computed cells (extra `sweep`)."""
        write_columns(path, self.cells().columns, "parquet")

    def report(self) -> Report:
        """A short table: the first cells, and what was skipped."""
        axes = " x ".join(f"{len(axis)} {axis.name}" for axis in self.axes) or "one value of each field"
        table = self.cells(self._only(np.flatnonzero(self.done)[: Cells.SHOWN])).table()
        first = [f"the first {Cells.SHOWN} of {self.computed:,} are shown"] if self.computed > Cells.SHOWN else []
        return Report(f"{axes}: {self.size:,} configurations", (table,), (*first, *self.remarks()))

    def remarks(self) -> Iterator[str]:
        """How many configurations run, and what was skipped, in lines for people."""
        return remarks(self.computed, int(np.count_nonzero(self.runs)), self.skipped)

    def __str__(self) -> str:
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()


def remarks(computed: int, runs: int, skipped: Sequence[Skipped]) -> Iterator[str]:
    """How many configurations run, and what was skipped, in lines for people."""
    if computed:
        yield f"{runs:,} of {computed:,} fit the memory and stay within the positions of their model"
    for each in skipped[:_SHOWN_REASONS]:
        where = ", ".join(f"{name} {_words(value)}" for name, value in each.where.items())
        yield f"skipped: {each.cells:,} of {where or 'all'}: {each.reason}"
    if rest := skipped[_SHOWN_REASONS:]:
        yield f"skipped: {sum(each.cells for each in rest):,} more, for {len(rest)} reasons (see skipped)"


def unable(skipped: Sequence[Skipped]) -> str:
    """Why no configuration can run."""
    more = f" (and {len(skipped) - 1} more reasons)" if len(skipped) > 1 else ""
    return f"no configuration can run: {skipped[0].reason}{more}"


def _words(value: Any) -> str:
    if isinstance(value, tuple) and len(value) == 2:
        return f"{value[0]:g} to {value[1]:g}"
    return f"{value:g}" if isinstance(value, float) else str(plain(value))
