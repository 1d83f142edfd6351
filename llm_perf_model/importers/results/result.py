"""One value of another tool's result, as a row of a file of records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

COUNTS: Final = ("n_devices", "tp", "pp", "batch", "input_len", "output_len")
"""Columns that hold whole numbers of at least 1."""

STATED: Final = ("engine", "engine_version", "device", "model", "w_dtype", "a_dtype", "kv_dtype", *COUNTS)
"""Columns that a user states where a file leaves them out, or names them otherwise."""


@dataclass(frozen=True, slots=True)
class Result:
    """A value of another tool's result. Its fields are the columns of a file of records.

    None stands for what neither the file nor the user states.
    """

    source: str
    source_file_or_url: str
    licence: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    device: str | None = None
    n_devices: int | None = None
    tp: int | None = None
    pp: int | None = None
    model: str | None = None
    w_dtype: str | None = None
    a_dtype: str | None = None
    kv_dtype: str | None = None
    batch: int | None = None
    input_len: int | None = None
    output_len: int | None = None
    metric: str = ""
    value: float | None = None
    unit: str = ""
    outcome: str = "ok"
    how: str = "result file"
    note: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def measured(self, metric: str, value: float, unit: str, **extra: Any) -> Result:
        """The same run with one of its values; `extra` leaves out what is None."""
        told = {key: item for key, item in extra.items() if item is not None}
        return replace(self, metric=metric, value=value, unit=unit, extra={**self.extra, **told})

    def cells(self) -> dict[str, Any]:
        """The row, by column; empty where nothing is stated."""
        row = {column.name: getattr(self, column.name) for column in fields(self)}
        row["extra"] = json.dumps(dict(self.extra)) if self.extra else None
        return {name: "" if value is None else value for name, value in row.items()}
