"""A sweep as a folder of Parquet files, one for each job: each is written whole and never computed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

from ..errors import RequestError
from ..report.export import check_parquet, check_writable, read_table, write_table, write_text
from ..specs.catalog import is_path
from ..version import __version__
from .cells import Cells
from .choosing import Choice, Offer
from .evaluate import check
from .grid import Skipped, Sweep, remarks
from .question import Question

MANIFEST: Final = "_sweep.json"
"""What the folder holds; readers of Parquet data sets pass over names that begin so."""

_SKIPPED: Final = "skipped"


@dataclass(frozen=True)
class Place:
    """Where the parts of a sweep are written."""

    path: Path
    digest: str

    @property
    def seen(self) -> bool:
        """Whether the folder is that of the sweep from where this runs."""
        try:
            return bool(json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))["digest"] == self.digest)
        except (OSError, ValueError, KeyError):
            return False

    def file(self, number: int) -> Path:
        """The file of a job."""
        return self.path / f"part-{number:06d}.parquet"

    def store(self, number: int, parts: Iterable[Sweep]) -> None:
        """Write the cells of a job, and what of it was skipped."""
        found = list(parts)
        skipped = [[{**each.where}, each.cells, each.reason] for part in found for each in part.skipped]
        cells = Cells.joined([part.cells() for part in found])
        write_table(str(self.file(number)), cells.columns, {_SKIPPED: json.dumps(skipped)})


@dataclass(frozen=True)
class SweepFolder:
    """A sweep as files of a Parquet data set, which may be larger than memory."""

    path: Path
    parts: int
    """Files of the whole sweep."""
    size: int
    """Configurations, those that were skipped included."""
    coordinates: tuple[str, ...]
    """Columns that say where a cell is; the others are metrics."""
    digest: str

    @property
    def place(self) -> Place:
        """Where its parts are."""
        return Place(self.path, self.digest)

    @property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the parts that are not written."""
        return tuple(number for number in range(self.parts) if not self.place.file(number).exists())

    @property
    def files(self) -> tuple[Path, ...]:
        """The parts that are written."""
        return tuple(path for path in map(self.place.file, range(self.parts)) if path.exists())

    @cached_property
    def skipped(self) -> tuple[Skipped, ...]:
        """Configurations that cannot run."""
        found = (json.loads(read_table(path, []).schema.metadata[_SKIPPED.encode()]) for path in self.files)
        return tuple(Skipped(where, cells, reason) for part in found for where, cells, reason in part)

    def tables(self) -> Iterator[Cells]:
        """The computed cells, one part after the other."""
        for path in self.files:
            table = read_table(path)
            columns = {name: table[name].to_numpy() for name in table.column_names}
            where = {name: columns.pop(name) for name in self.coordinates}
            yield Cells(where, columns)

    def cells(self) -> Cells:
        """All computed cells, in memory."""
        return Cells.joined(list(self.tables()))

    def best(self, objective: str, constraints: str | Iterable[str] = ()) -> dict[str, Any]:
        """As `Sweep.best`, one part after the other."""
        return self._among([objective], constraints).row(0)

    def pareto(self, x: str, y: str) -> Cells:
        """As `Sweep.pareto`, one part after the other."""
        return self._among([x, y])

    def to_pandas(self) -> Any:
        """A pandas `DataFrame` of all computed cells (extra `sweep`)."""
        return self.cells().to_pandas()

    def _among(self, objectives: list[str], constraints: str | Iterable[str] = ()) -> Cells:
        offers: list[Offer] = []
        before = 0
        for cells in self.tables():
            choice = Choice.of(objectives, constraints, cells.metrics)
            places, met, nearest = choice.rows(cells.metrics, cells.runs)
            offers.append(Offer(places + before, cells.at(places), met, nearest))
            before += len(cells)
        if not offers:
            raise RequestError(f"{self.path}: holds no part of the sweep yet")
        return choice.among(offers)

    def remarks(self) -> Iterator[str]:
        """How many configurations run, and what was skipped, in lines for people."""
        computed = runs = 0
        for path in self.files:
            table = read_table(path, ["fits", "extrapolated"])
            flags = {name: table[name].to_numpy() for name in table.column_names}
            computed += table.num_rows
            runs += Cells({}, flags).runs.sum()
        return remarks(computed, int(runs), self.skipped)

    def __str__(self) -> str:
        written = self.parts - len(self.missing)
        return f"{self.path}: {self.size:,} configurations, {written} of {self.parts} parts are written"


def read_sweep(folder: str) -> SweepFolder:
    """The sweep that a folder holds, whole or not.

    Raises:
        RequestError: it holds none.
    """
    path = Path(folder).expanduser()
    try:
        data = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return SweepFolder(path, data["parts"], data["size"], tuple(data["coordinates"]), data["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        raise RequestError(f"{folder}: holds no sweep (no {MANIFEST} that can be read); give a folder of one") from None


def opened(folder: str, question: Question) -> SweepFolder:
    """The folder of a sweep: made, or that of the same one that was interrupted.

    Raises:
        RequestError: it cannot be written, holds something else, or the question is wrong.
    """
    check_parquet()
    path = Path(folder).expanduser()
    digests = dict(_digests(question))
    if path.exists():
        _check_same(path, digests)
    else:
        check_writable(str(path.parent / f"{path.name}.json"))
    check(question)
    for leftover in path.glob(".part-*.part"):
        leftover.unlink(missing_ok=True)
    if not (path / MANIFEST).exists():
        parts = sum(1 for _ in question.jobs())
        text = {
            "parts": parts, "size": question.size, "metrics": question.metrics,
            "coordinates": [field for axis in question.axes for field in axis.table], "fields": digests,
            "digest": _digest(digests),
        }  # fmt: skip
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise RequestError(f"output {folder}: cannot be written: {error.strerror}") from None
        write_text(str(path / MANIFEST), json.dumps(text, indent=2))
    return read_sweep(str(path))


def _check_same(path: Path, digests: Mapping[str, str]) -> None:
    """Refuse a folder of something else, with what differs."""
    if not path.is_dir():
        raise RequestError(f"output {path}: is a file; give a folder, or a name that ends in .csv, .json or .parquet")
    if not (path / MANIFEST).exists():
        if any(path.iterdir()):
            raise RequestError(f"output {path}: holds other files; give a new folder")
        return
    try:
        fields = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["fields"]
        differing = sorted(name for name in {*fields, *digests} if fields.get(name) != digests.get(name))
    except (OSError, ValueError, KeyError, AttributeError):
        raise RequestError(f"output {path}: its {MANIFEST} cannot be read; give a new folder") from None
    if differing:
        raise RequestError(
            f"output {path}: holds another sweep ({', '.join(differing)} differ); give a new folder, or ask the same"
        )


def _digests(question: Question) -> Iterator[tuple[str, str]]:
    """What the answer depends on -> a short hash of it."""
    yield "version", __version__
    yield "metrics", " ".join(question.metrics)
    yield "order of axes", " ".join(axis.name for axis in question.axes)
    for axis in question.axes:
        for field, values in axis.columns.items():
            yield field, _digest(values.tolist() if isinstance(values, np.ndarray) else [*map(_stated, values)])
    for field, value in question.fixed.items():
        yield field, _digest(_stated(value))


def _stated(value: Any) -> Any:
    """A value as JSON has it: a spec with all its fields, a file with what it holds."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, str) and is_path(value) and Path(value).is_file():
        return hashlib.sha256(Path(value).read_bytes()).hexdigest()
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
