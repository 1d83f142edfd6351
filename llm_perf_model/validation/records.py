"""Recorded measurements: one row of a CSV file each, with where it comes from."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from ..errors import RequestError

Outcome = Literal["ok", "oom", "runtime_error", "estimate"]

COLUMNS: Final = (
    "source", "source_file_or_url", "licence", "engine", "engine_version", "device", "n_devices", "tp", "pp", "model",
    "w_dtype", "a_dtype", "kv_dtype", "batch", "input_len", "output_len", "metric", "value", "unit", "outcome", "how",
    "note", "extra",
)  # fmt: skip
"""Columns of a file of end-to-end records."""

_REQUIRED: Final = ("source", "engine", "device", "model", "metric", "value", "unit", "outcome")
_TEXTS: Final = ("source", "engine", "device", "model", "metric", "w_dtype", "note")
_COUNTS: Final = ("n_devices", "tp", "pp", "batch", "input_len", "output_len")
_WORDED: Final = r"[A-Za-z].*"
"""A length that the source describes instead of stating it."""

_SIZES: Final = (
    "m", "n", "k", "batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim", "hidden", "bytes"
)  # fmt: skip

UNITS: Final[Mapping[str, tuple[str, float]]] = {
    "s": ("s", 1.0),
    "ms": ("s", 1e-3),
    "us": ("s", 1e-6),
    "ms/sample": ("s", 1e-3),
    "tok/s": ("tokens/s", 1.0),
    "output tok/s": ("tokens/s", 1.0),
    "output tok/s/gpu": ("tokens/s", 1.0),
    "(in+out) tok/s": ("tokens/s", 1.0),
    "img/s": ("samples/s", 1.0),
    "throughput-average(sent/sec)": ("samples/s", 1.0),
    "throughput-average(seq/sec)": ("samples/s", 1.0),
    "throughput avg (tok/s)": ("tokens/s", 1.0),
    "throughput avg": ("", 1.0),
    "throughput - fp32": ("", 1.0),
    "throughput  - mixed precision": ("", 1.0),
    "gib": ("B", 2.0**30),
    "gb": ("B", 1e9),
    "gb (1e9)": ("B", 1e9),
    "mib": ("B", 2.0**20),
    "mb": ("B", 1e6),
    "j": ("J", 1.0),
    "j/token": ("J", 1.0),
    "j/output token": ("J", 1.0),
    "w": ("W", 1.0),
    "x": ("1", 1.0),
    "1": ("1", 1.0),
    'ms/token*1000 (printed as "token/s")': ("s", 1e-6),
}
"""Unit as printed, in lower case -> SI unit and factor: the only conversion of recorded values."""


@dataclass(frozen=True, slots=True)
class Record:
    """One recorded value in SI units, with the configuration that it was measured at.

    `operator` names the kernel where a single one was timed, and is empty for a run of a model.

    `value` is None where the run did not end (`outcome` oom or runtime_error). Counts are None where
    the source does not state them.
    """

    file: str
    line: int
    source: str
    engine: str
    device: str
    model: str
    metric: str
    value: float | None
    unit: str
    outcome: Outcome
    n_devices: int | None = None
    tp: int | None = None
    pp: int | None = None
    batch: int | None = None
    input_len: int | None = None
    output_len: int | None = None
    w_dtype: str = ""
    note: str = ""
    operator: str = ""
    shape: str = ""
    sizes: Mapping[str, float] = field(default_factory=dict)
    """Sizes of a timed operator, as the columns name them."""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def extra_text(self) -> str:
        """What else the source states, as text."""
        return json.dumps(dict(self.extra)) if self.extra else ""


@dataclass(frozen=True, slots=True)
class Problem:
    """A row or file that is no record, and why."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


def files(paths: Iterable[str]) -> list[Path]:
    """The CSV files that files and folders stand for, sorted.

    Raises:
        RequestError: a path does not exist or a folder holds no CSV file.
    """
    return [file for name in paths for file in _files(name)]


def _files(name: str) -> list[Path]:
    if not name:
        raise RequestError("records: an empty path names no file or folder")
    try:
        path = Path(name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RequestError(f"records {name}: cannot be read: {reason}") from None
    if is_file:
        return [path]
    if not is_folder:
        raise RequestError(f"records {name}: no such file or folder")
    inside = sorted(path.rglob("*.csv"))
    if not inside:
        raise RequestError(f"records {name}: the folder holds no .csv file")
    return inside


def read(path: Path) -> Iterator[Record | Problem]:
    """Every row of one file, as a record or as the problem that keeps it from being one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            header = rows.fieldnames or []
            required = (column for column in _REQUIRED if column != "model" or "op" not in header)
            missing = [column for column in required if column not in header]
            if missing:
                yield Problem(path.name, 1, f"missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
                return
            yield from _with_steps(_parse(path.name, rows.line_num, row) for row in rows)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        yield Problem(path.name, 1, f"cannot be read as CSV: {error}")


def _with_steps(rows: Iterable[Record | Problem]) -> Iterator[Record | Problem]:
    """A row of recurrent layers counts the steps of the row below it, in its column of milliseconds."""
    counted: Record | None = None
    for row in rows:
        if isinstance(row, Record) and counted is not None and _layer(row) == _layer(counted):
            yield replace(row, sizes={**row.sizes, "steps": 1e3 * (counted.value or 0.0)})
        else:
            yield row
        counted = row if isinstance(row, Record) and row.operator.endswith("/Timesteps") else None


def _layer(record: Record) -> tuple[str, str]:
    return record.operator.rsplit("/", 1)[0], record.shape


def _parse(file: str, line: int, row: Mapping[str, Any]) -> Record | Problem:
    try:
        outcome = row["outcome"] or ""
        if outcome not in get_args(Outcome):
            raise ValueError(f"outcome is {outcome!r}; must be one of {', '.join(get_args(Outcome))}")
        value, unit = _value(row, outcome)
        columns: dict[str, Any] = {name: row.get(name) or "" for name in _TEXTS}
        columns["operator"], columns["shape"] = row.get("op") or "", row.get("shape") or ""
        columns["w_dtype"] = columns["w_dtype"] or row.get("dtype") or ""
        sizes = _sizes(row) if columns["operator"] else {}
        columns |= {name: _count(name, _stated(name, row)) for name in _COUNTS}
        extra = _extra(row.get("extra"))
        return Record(
            file, line, value=value, unit=unit, outcome=cast("Outcome", outcome), extra=extra, sizes=sizes, **columns
        )
    except ValueError as error:
        return Problem(file, line, str(error))


def _sizes(row: Mapping[str, Any]) -> dict[str, float]:
    """The sizes of a timed operator that the row states."""
    stated = {name: _finite(row[name]) for name in _SIZES if row.get(name)}
    wrong = [f"{name} is {row[name]!r}; must be a number" for name, size in stated.items() if size is None]
    if wrong:
        raise ValueError(wrong[0])
    return {name: size for name, size in stated.items() if size is not None}


def _value(row: Mapping[str, Any], outcome: str) -> tuple[float | None, str]:
    """The value in SI units."""
    raw, printed = row["value"] or "", row["unit"] or ""
    if outcome in {"oom", "runtime_error"} and not raw:
        return None, UNITS.get(printed.lower(), ("", 1.0))[0]
    if not printed:
        if row["metric"] in {"f1_score", "accuracy"}:
            return float(raw), "1"
        raise ValueError(f"metric {row['metric']} has the value {raw!r} without a unit")
    if printed.lower() not in UNITS:
        raise ValueError(f"unit {printed!r} of metric {row['metric']} is not known")
    number = _finite(raw)
    if number is None:
        raise ValueError(f"value is {raw!r}; must be a number")
    unit, factor = UNITS[printed.lower()]
    return number * factor, unit


def _stated(name: str, row: Mapping[str, Any]) -> Any:
    """A count as the row states it; a mean output length is rounded, a length in words is none."""
    raw = row.get(name)
    if name not in {"input_len", "output_len"} or not raw:
        return raw
    number = _finite(raw)
    if number is None:
        return None if re.fullmatch(_WORDED, raw) else raw
    return str(round(number)) if "mean" in str(row.get("input_len")) else raw


def _count(name: str, raw: Any) -> int | None:
    if raw in {None, ""}:
        return None
    number = _finite(raw)
    if number is None or not number.is_integer():
        raise ValueError(f"{name} is {raw!r}; must be a whole number")
    return int(number)


def _finite(raw: str) -> float | None:
    """The number that a text states, if it is one."""
    try:
        number = float(raw)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _extra(raw: Any) -> Mapping[str, Any]:
    if not raw:
        return {}
    try:
        value = json.loads(raw)
    except json.JSONDecodeError:
        return {"text": raw}
    return value if isinstance(value, dict) else {"value": value}
