"""The only writer of files: whole or not at all."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, assert_never

from ..errors import RequestError

ColumnFormat = Literal["csv", "json", "parquet"]

_LINES = 10_000


def write_text(path: str, text: str, flag: str = "output") -> None:
    """Write `text` to `path`, which the user gave as `flag`, through a temporary file beside it.

    Raises:
        RequestError: the place cannot be written.
    """
    _write(path, flag, lambda file: file.write_text(text + "\n", encoding="utf-8"))


def write_columns(path: str, columns: Mapping[str, Any], form: ColumnFormat, flag: str = "output") -> None:
    """Write arrays of equal length as rows of a file; not a number becomes an empty place.

    Raises:
        RequestError: the place cannot be written, or a package is missing.
    """
    match form:
        case "csv":
            _write(path, flag, lambda file: _csv(file, columns))
        case "json":
            _write(path, flag, lambda file: _json(file, columns))
        case "parquet":
            write_table(path, columns, {}, flag)
        case never:
            assert_never(never)


def write_table(path: str, columns: Mapping[str, Any], notes: Mapping[str, str], flag: str = "output") -> None:
    """Write arrays of equal length and some notes as a Parquet file.

    Raises:
        RequestError: the place cannot be written, or a package is missing.
    """
    pyarrow, parquet = _pyarrow()
    arrays = {name: _arrow(pyarrow, values) for name, values in columns.items()}
    table = pyarrow.table(arrays).replace_schema_metadata(dict(notes))
    _write(path, flag, lambda file: parquet.write_table(table, file))


def read_table(path: Path, columns: list[str] | None = None) -> Any:
    """The pyarrow table of a Parquet file, or some of its columns.

    Raises:
        RequestError: it cannot be read, or a package is missing.
    """
    pyarrow, parquet = _pyarrow()
    try:
        return parquet.read_table(path, columns=columns)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(f"{path}: cannot be read: {reason}") from None


def check_writable(path: str, flag: str = "output") -> None:
    """Refuse a place that cannot be written, before anything is computed for it.

    Raises:
        RequestError: it cannot.
    """
    try:
        target = Path(path).expanduser()
        if target.is_dir():
            raise IsADirectoryError(21, "is a directory")
        temporary = _beside(target)
        try:
            temporary.touch()
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _refused(path, flag, error) from None


def _write(path: str, flag: str, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, which then takes its place."""
    try:
        target = Path(path).expanduser()
        temporary = _beside(target)
        try:
            write(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _refused(path, flag, error) from None


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def _refused(path: str, flag: str, error: Exception) -> RequestError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return RequestError(f"{flag} {path}: cannot be written: {reason}")


def _rows(columns: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Rows of Python's own values, some thousand at a time, so that lists stay short."""
    count = len(next(iter(columns.values())))
    for low in range(0, count, _LINES):
        parts = [values[low : low + _LINES] for values in columns.values()]
        yield from zip(*(_listed(part) for part in parts), strict=True)


def _listed(values: Any) -> list[Any]:
    items: list[Any] = values.tolist()
    return [None if item != item else item for item in items] if values.dtype.kind == "f" else items  # noqa: PLR0124


def _csv(file: Path, columns: Mapping[str, Any]) -> None:
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(_rows(columns))


def _json(file: Path, columns: Mapping[str, Any]) -> None:
    rows = _rows(columns)
    with file.open("w", encoding="utf-8") as out:
        out.write("[")
        between = "\n"
        while part := list(islice(rows, _LINES)):
            texts = (json.dumps(dict(zip(columns, row, strict=True)), allow_nan=False) for row in part)
            out.write(between + ",\n".join(texts))
            between = ",\n"
        out.write("\n]\n")


def _arrow(pyarrow: Any, values: Any) -> Any:
    """An array for a Parquet file: anything but numbers as text, so that all files of a set have the same types."""
    if values.dtype.kind in "bif":
        return pyarrow.array(values)
    items = values.tolist()
    if len(items) > 1 and len(set(items)) == 1:
        return pyarrow.repeat(pyarrow.scalar(_text(items[0]), pyarrow.string()), len(items))
    return pyarrow.array([_text(item) for item in items], pyarrow.string())


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def check_parquet() -> None:
    """Refuse to write Parquet files without the package for them.

    Raises:
        RequestError: it is missing.
    """
    _pyarrow()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise RequestError("a Parquet file needs the package pyarrow: pip install 'llm-perf-model[sweep]'") from None
    return pyarrow, parquet
