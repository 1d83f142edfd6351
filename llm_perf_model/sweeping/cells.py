"""Cells of a sweep one below the other: a table of coordinates and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, ClassVar, Self

import numpy as np

from ..errors import RequestError
from ..report.document import Report, Table
from ..report.export import write_columns
from ..types import Column, CountArray, MaskArray
from .metrics import DEFAULT_METRICS, label, shown

Columns = dict[str, Column]


@dataclass(frozen=True)
class Cells:
    """Rows of a table as columns, equally long."""

    SHOWN: ClassVar[int] = 20
    """Rows of its text."""

    coordinates: Columns
    metrics: Columns

    @property
    def columns(self) -> dict[str, Column]:
        """Name -> values: where each cell is, then what it holds."""
        return {**self.coordinates, **self.metrics}

    def __len__(self) -> int:
        return len(next(iter(self.metrics.values())))

    def __getitem__(self, name: str) -> Column:
        """The column of a name."""
        if name not in self.columns:
            raise RequestError(f"{name}: is no column; known: {', '.join(self.columns)}")
        return self.columns[name]

    def row(self, index: int) -> dict[str, Any]:
        """One cell, as Python's own values; None for a number that is not known."""
        return self.at(np.array([index])).rows()[0]

    def rows(self) -> list[dict[str, Any]]:
        """All cells; None for a number that is not known."""
        columns = {name: _listed(values) for name, values in self.columns.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    @classmethod
    def joined(cls, parts: Sequence[Cells]) -> Self:
        """The cells of several tables of the same columns, one below the other."""
        first = parts[0]
        where = {name: np.concatenate([part.coordinates[name] for part in parts]) for name in first.coordinates}
        return cls(where, {name: np.concatenate([part.metrics[name] for part in parts]) for name in first.metrics})

    @property
    def runs(self) -> MaskArray:
        """Whether a cell fits, and stays within its model's positions."""
        mask: MaskArray = self.metrics["fits"] & ~self.metrics["extrapolated"]
        return mask

    def at(self, rows: CountArray) -> Cells:
        """The cells of these numbers, in their order."""
        parts = ({name: values[rows] for name, values in each.items()} for each in (self.coordinates, self.metrics))
        return Cells(*parts)

    def sorted(self, name: str) -> Cells:
        """The same in ascending order of a column."""
        return self.at(np.argsort(self[name], kind="stable"))

    def to_pandas(self) -> Any:
        """A pandas `DataFrame` (extra `sweep`)."""
        try:
            import pandas as pd
        except ImportError:
            raise RequestError("a DataFrame needs the package pandas: pip install 'llm-perf-model[sweep]'") from None
        return pd.DataFrame(self.columns)

    def to_csv(self, path: str) -> None:
        """Write a line for each cell."""
        write_columns(path, self.columns, "csv")

    def to_json(self, path: str) -> None:
        """Write a list of objects, one for each cell."""
        write_columns(path, self.columns, "json")

    def to_parquet(self, path: str) -> None:
        """Write a Parquet file (extra `sweep`)."""
        write_columns(path, self.columns, "parquet")

    def table(self) -> Table:
        """The first cells, for people, with units."""
        heads, columns = [], []
        for name, values in (self.coordinates | self._read()).items():
            heads.append(label(name))
            columns.append([shown(name, value) for value in _listed(values[: self.SHOWN])])
        words = takewhile(lambda values: values.dtype.kind not in "if", self.coordinates.values())
        return Table(tuple(heads), tuple(zip(*columns, strict=True)), text_columns=len(tuple(words)))

    def _read(self) -> dict[str, Column]:
        """What people read of the metrics: what can run in one word, of the usual ones those that a line holds."""
        rest = {"fits", "extrapolated"}
        if self.metrics.keys() >= set(DEFAULT_METRICS):
            rest |= {"total_s", "energy_per_token_j"}
        found = {name: values for name, values in self.metrics.items() if name not in rest}
        length = np.where(self.metrics["extrapolated"], "too long", "yes")
        return found | {"runs": np.where(self.metrics["fits"], length, "no memory")}

    def report(self) -> Report:
        """The same with how many there are."""
        notes = (f"the first {self.SHOWN} are shown",) if len(self) > self.SHOWN else ()
        return Report("1 configuration" if len(self) == 1 else f"{len(self):,} configurations", (self.table(),), notes)

    def __str__(self) -> str:
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()


def _listed(values: Column) -> list[Any]:
    """Python's own values; None where a number is not known."""
    items: list[Any] = values.tolist()
    if values.dtype.kind == "f" and np.any(np.isnan(values)):
        return [None if item != item else item for item in items]  # noqa: PLR0124
    return items
