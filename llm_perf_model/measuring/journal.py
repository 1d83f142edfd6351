"""Records of a run in a file, added one by one, so that a run that ends early loses none and goes on where it was."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import RequestError
from ..report.export import append_lines, check_writable, cut_to
from ..validation.records import COLUMNS
from .environment import difference

Row = Mapping[str, Any]

EXTRA: Final = "extra"
"""Column of further facts, as JSON: among them the environment."""


class Journal:
    """A CSV file of records, of one environment.

    Args:
        path: the file; it may exist, and then the records in it count as done. None: they are kept in memory alone.
        environment: where this run is made; it is written into each record.
        key: what tells one measurement from another; of two rows with one key the second is not written.
        columns: columns of the file.

    Raises:
        RequestError: the place cannot be written, or the file is no journal, or of another environment.
    """

    def __init__(
        self,
        path: str | None,
        environment: Mapping[str, Any],
        key: Callable[[Row], Hashable],
        columns: Sequence[str] = COLUMNS,
    ) -> None:
        self.path, self._key, self._columns = path, key, tuple(columns)
        self._environment = dict(environment)
        if path is not None:
            check_writable(path)
        self._rows = [] if path is None else self._read(Path(path).expanduser())
        self._done = {key(row) for row in self._rows}

    @property
    def rows(self) -> Sequence[Row]:
        """The records of the file, those of earlier runs first."""
        return tuple(self._rows)

    @property
    def environment(self) -> Mapping[str, Any]:
        """Where this run is made."""
        return self._environment

    def done(self, key: Hashable) -> bool:
        """Whether the file holds a record of this key."""
        return key in self._done

    def append(self, *rows: Row) -> None:
        """Write records; they are on the disk when this returns.

        Raises:
            RequestError: they cannot be written; those before them are whole.
        """
        new = [self._complete(row) for row in rows]
        new = [row for row in new if self._key(row) not in self._done]
        if not new:
            return
        header = [] if self._rows else [dict(zip(self._columns, self._columns, strict=True))]
        if self.path is not None:
            append_lines(self.path, "".join(self._line(row) for row in (*header, *new)))
        self._rows += new
        self._done |= {self._key(row) for row in new}

    def _complete(self, row: Row) -> dict[str, str]:
        """A row as it will be read again, with the environment."""
        extra = {**row.get(EXTRA, {}), "environment": self._environment}
        whole = {**row, EXTRA: json.dumps(extra, allow_nan=False)}
        return {name: "" if whole.get(name) is None else str(whole[name]) for name in self._columns}

    def _line(self, row: Mapping[str, str]) -> str:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerow([row[name] for name in self._columns])
        return out.getvalue()

    def _read(self, path: Path) -> list[dict[str, str]]:
        """Records of an earlier run; a last line that was not finished is cut off."""
        if not path.is_file():
            return []
        try:
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            rows = list(csv.DictReader(io.StringIO(whole.decode("utf-8"), newline=""), strict=True))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise RequestError(f"output {self.path}: cannot be read: {error}") from None
        if data and not whole and not ",".join(self._columns).startswith(data.decode("utf-8", "replace")):
            raise self._foreign()
        if whole and whole.splitlines()[0] != ",".join(self._columns).encode():
            raise self._foreign()
        for row in rows:
            self._check(row)
        if len(whole) < len(data):
            cut_to(str(path), len(whole) if rows else 0)
        return rows

    def _check(self, row: Row) -> None:
        """Refuse a record of another environment."""
        try:
            before = json.loads(row[EXTRA])["environment"]
        except (KeyError, TypeError, ValueError):
            raise self._foreign() from None
        other = difference(before, self._environment)
        if other is not None:
            raise RequestError(f"output {self.path}: holds records of {other}; give a new file")

    def _foreign(self) -> RequestError:
        return RequestError(f"output {self.path}: is no file of measured records; give a new file")
