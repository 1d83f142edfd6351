"""Rows of recorded measurements, written by the tests themselves."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llm_perf_model.validation.records import COLUMNS, Record, read

ROW: Mapping[str, str] = {
    "source": "a test", "engine": "ideal", "device": "a100-sxm-40gb", "n_devices": "1", "tp": "1",
    "model": "test-13b", "w_dtype": "fp16", "batch": "2", "input_len": "512", "output_len": "32",
    "metric": "prefill_ms", "value": "100", "unit": "ms", "outcome": "ok",
}  # fmt: skip
"""A row without a fault."""


def write(path: Path, rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = COLUMNS) -> Path:
    """A file of records; what a row does not name is that of `ROW`."""
    columns = list(columns)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**ROW, **row} for row in rows)
    return path


def record(**changes: Any) -> Record:
    """A record with SI values: a prefill of 0.1 s unless changed."""
    fields: dict[str, Any] = {
        "file": "rows.csv", "line": 2, "source": "a test", "engine": "ideal", "device": "a100-sxm-40gb",
        "model": "test-13b", "metric": "prefill_ms", "value": 0.1, "unit": "s", "outcome": "ok", "n_devices": 1,
        "tp": 1, "batch": 2, "input_len": 512, "output_len": 32, "w_dtype": "fp16",
    }  # fmt: skip
    return Record(**(fields | changes))


SIZES = ("m", "n", "k", "batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim", "hidden", "bytes")


def operator(**changes: Any) -> Record:
    """A record of a timed operator, a product of 16 x 16 x 16 in 10 us unless changed; sizes by their names."""
    named = {name: float(changes.pop(name)) for name in SIZES if name in changes}
    fields: dict[str, Any] = {
        "file": "operators.csv", "line": 2, "source": "a test", "engine": "any", "device": "a100-sxm-40gb",
        "model": "", "metric": "time_ms", "value": 1e-5, "unit": "s", "outcome": "ok", "w_dtype": "half",
        "operator": "gemm", "sizes": named or {"m": 16.0, "n": 16.0, "k": 16.0},
    }  # fmt: skip
    return Record(**(fields | changes))


def read_all(path: Path) -> list[Any]:
    """Every row of a file."""
    return list(read(path))
