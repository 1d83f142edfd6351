"""Timed operators as tables: what each reached at best, those faster than is possible, and failures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from ..ops.base import Cost
from ..report.document import Report, Table
from ..units import decimal, percent, seconds
from ..validation.operators import work
from ..validation.records import Record, read
from ..validation.unmappable import UnmappableError
from .floors import Held, held_to_floor


def report(path: str, gpu: str | None, notes: Sequence[str] = ()) -> Report:
    """What the records of a file reached; held against a device file if there is one."""
    records = [row for row in read(Path(path).expanduser()) if isinstance(row, Record)]
    ended = [record for record in records if record.value is not None]
    failed = [record for record in records if record.value is None]
    held = held_to_floor(ended, gpu) if gpu is not None else ()
    tables = [_reached(ended, held), *_too_fast(held, gpu), *_failures(failed)]
    title = f"{len(ended)} operators timed, {len(failed)} without a time"
    notes = (*notes, _told(held, gpu), f"records: {path}")
    return Report(title, tuple(tables), notes, _data(ended, failed, held), _rows(ended, held))


def cost_of(record: Record) -> Cost | None:
    """What an operator computes and moves; None where it does neither."""
    try:
        return work(record)
    except UnmappableError:
        return None


def flops_per_s(record: Record) -> float:
    """What a timed operator computed in a second."""
    cost = cost_of(record)
    return float(cost.flops) / record.value if cost is not None and record.value else 0.0


def bytes_per_s(record: Record) -> float:
    """What a timed operator read and wrote in a second; exchanges count what a rank sent."""
    cost = cost_of(record)
    return float(cost.hbm_bytes + cost.sent_bytes) / record.value if cost is not None and record.value else 0.0


def _reached(ended: Sequence[Record], held: Iterable[Held]) -> Table:
    """Each operator and type: the shortest time, the highest rates, and the most of what is possible."""
    ratios: dict[tuple[str, str, int], float] = {}
    for each in held:
        ratios[_kind(each.record)] = max(each.floor_ratio, ratios.get(_kind(each.record), 0.0))
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for record in ended:
        groups.setdefault(_kind(record), []).append(record)
    rows = []
    for kind, same in groups.items():
        name, dtype, ranks = kind
        flops, moved = max(map(flops_per_s, same)), max(map(bytes_per_s, same))
        rows.append(
            (
                name if ranks == 1 else f"{name}, {ranks} ranks",
                dtype,
                str(len(same)),
                seconds(min(record.value or 0.0 for record in same)),
                decimal(flops, "FLOP/s") if flops and name in _PRODUCTS else "-",
                decimal(moved, "B/s") if moved else "-",
                percent(ratios[kind]) if kind in ratios else "-",
            )
        )
    columns = ("operator", "type", "n", "time", "FLOP/s", "bytes/s", "of possible")
    return Table(columns, tuple(rows), "best of each operator", text_columns=2)


_PRODUCTS: Final = frozenset({"gemm", "context_attention", "generation_attention", "convolution"})
"""Operators whose arithmetic is told."""


def _kind(record: Record) -> tuple[str, str, int]:
    return record.operator.removeprefix("elementwise/"), record.w_dtype, record.n_devices or 1


def _too_fast(held: Iterable[Held], gpu: str | None) -> list[Table]:
    found = [each for each in held if each.too_fast]
    rows = tuple(
        (
            _kind(each.record)[0],
            each.record.w_dtype,
            sizes_of(each.record),
            seconds(each.record.value or 0.0),
            seconds(each.floor_s),
        )
        for each in found
    )
    columns = ("operator", "type", "sizes", "measured", "least time")
    return [Table(columns, rows, f"faster than {gpu} allows", text_columns=3)] if rows else []


def _failures(failed: Iterable[Record]) -> list[Table]:
    rows = tuple((_kind(r)[0], r.w_dtype, sizes_of(r), r.outcome, r.note) for r in failed)
    return [Table(("operator", "type", "sizes", "outcome", "reason"), rows, "without a time", 5)] if rows else []


def sizes_of(record: Record) -> str:
    """The sizes of an operator in a line."""
    sizes = json.loads(record.shape) if record.shape else record.sizes
    return " ".join(f"{name}={size:g}" for name, size in sizes.items())


def _told(held: Sequence[Held], gpu: str | None) -> str:
    if gpu is None:
        return "not held against a device file: the catalogue has none of this name; `measure_device` drafts one"
    return f"{sum(each.too_fast for each in held)} of {len(held)} operators are faster than {gpu} allows"


def _data(ended: Sequence[Record], failed: Sequence[Record], held: Sequence[Held]) -> dict[str, Any]:
    too_fast = sum(each.too_fast for each in held)
    counts = {"timed": len(ended), "failed": len(failed), "held": len(held), "too_fast": too_fast}
    return {**counts, "operators": _rows(ended, held)}


def _rows(records: Sequence[Record], held: Sequence[Held]) -> list[dict[str, Any]]:
    """One row a timed operator."""
    floors = {each.record.line: each.floor_s for each in held}
    return [
        {
            "operator": record.operator,
            "dtype": record.w_dtype,
            "sizes": sizes_of(record),
            "ranks": record.n_devices,
            "time_s": record.value,
            "flops_per_s": flops_per_s(record),
            "bytes_per_s": bytes_per_s(record),
            "floor_s": floors.get(record.line),
        }
        for record in records
    ]
