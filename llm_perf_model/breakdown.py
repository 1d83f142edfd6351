"""Where the time goes: the walk's work by operator or by role."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from .errors import RequestError
from .generate import Phase
from .report.document import Report, Table
from .types import Num
from .units import decimal, percent, seconds

Detail = Literal["ops", "roles"]
DETAILS: tuple[str, ...] = get_args(Detail)


_SHORT = {"communication": "comm"}


class Line(NamedTuple):
    """One operator's or role's part of a phase, all layers and steps together."""

    name: str
    role: str
    executions: float
    flops: Num
    hbm_bytes: Num
    comm_bytes: Num
    compute_s: Num
    memory_s: Num
    comm_s: Num
    host_s: Num
    power_s: Num
    time_s: Num


def lines(phase: Phase) -> Iterator[Line]:
    """A line for each operator, then those of the host, its link, other stages and a power limit where they delay."""
    for works in phase.works():
        node = works[0].node
        costs, timings = [work.cost for work in works], [work.timing for work in works]
        yield Line(
            node.name,
            node.role,
            node.count,
            sum(c.flops for c in costs),
            sum(c.hbm_bytes for c in costs),
            sum(c.sent_bytes for c in costs),
            sum(t.compute_bound_s for t in timings),
            sum(t.memory_bound_s for t in timings),
            sum(t.comm_s for t in timings),
            sum(t.start_s for t in timings),
            0.0,
            sum(t.device_s for t in timings),
        )
    for name, spent_s in (("host_wait", phase.totals.host_s), ("overhead", phase.totals.overhead_s)):
        if np.any(spent_s):
            yield Line(name, "host", 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, spent_s, 0.0, spent_s)
    streamed_bytes, waited_s = phase.totals.streamed_bytes, phase.totals.stream_s
    if np.any(streamed_bytes):
        work = (0.0, 0.0, streamed_bytes, 0.0, 0.0, waited_s, 0.0, 0.0, waited_s)
        yield Line("host_link_wait", "communication", 1.0, *work)
    waited_s = phase.totals.bubble_s
    if np.any(waited_s):
        yield Line("pipeline_bubble", "communication", 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, waited_s, 0.0, 0.0, waited_s)
    limited_s = phase.totals.power_s
    if np.any(limited_s):
        yield Line("power_limit", "power", 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, limited_s, limited_s)


def by_role(operators: Iterator[Line]) -> list[Line]:
    """Lines of the same role added up, in the order in which roles first run."""
    sums: dict[str, Line] = {}
    for line in operators:
        before = sums.get(line.role)
        numbers = line[2:] if before is None else [a + b for a, b in zip(before[2:], line[2:], strict=True)]
        sums[line.role] = Line(line.role, line.role, *numbers)
    return list(sums.values())


def bound_of(line: Line) -> str:
    """The term that takes most of a line's time, over all its points."""
    terms = {
        "compute": line.compute_s, "memory": line.memory_s, "communication": line.comm_s, "host": line.host_s,
        "power": line.power_s,
    }  # fmt: skip
    return max(terms, key=lambda name: float(np.sum(terms[name])))


def breakdown(phases: Mapping[str, Phase], by: Detail) -> Report:
    """The report of every phase: one table each, one record a line.

    Raises:
        RequestError: `by` is neither "ops" nor "roles".
    """
    if by not in DETAILS:
        raise RequestError(f"breakdown: is {by!r}; must be {' or '.join(DETAILS)}")
    tables, records = [], []
    for name, phase in phases.items():
        rows = by_role(lines(phase)) if by == "roles" else list(lines(phase))
        total_s = phase.time_s
        shares = [float(np.mean(line.time_s / np.where(total_s == 0.0, 1.0, total_s))) for line in rows]
        records += [_record(name, line, share) for line, share in zip(rows, shares, strict=True)]
        if np.any(total_s):
            cells = tuple(_cells(line, share) for line, share in zip(rows, shares, strict=True))
            steps = float(np.max(sum(run.steps for run in phase.runs)))
            title = name if steps == 1.0 else f"{name}: {steps:.0f} steps together"
            tables.append(Table(("operator", "n", "FLOP", "HBM", "link", "time", "bound", "share"), cells, title))
    return Report(f"breakdown by {by} of one device", tuple(tables), (), {"breakdown": records}, records)


def _record(phase: str, line: Line, share: float) -> dict[str, Any]:
    numbers = {
        "count": line.executions, "flops": line.flops, "hbm_bytes": line.hbm_bytes, "comm_bytes": line.comm_bytes,
        "time_s": line.time_s,
    }  # fmt: skip
    plain = {key: np.asarray(value).tolist() for key, value in numbers.items()}
    return {"phase": phase, "name": line.name, "role": line.role, **plain, "bound": bound_of(line), "share": share}


def _cells(line: Line, share: float) -> tuple[str, ...]:
    def mean(value: Num) -> float:
        return float(np.mean(value))

    return (
        line.name,
        f"{line.executions:.0f}",
        decimal(mean(line.flops), "").rstrip(),
        decimal(mean(line.hbm_bytes), "B"),
        decimal(mean(line.comm_bytes), "B"),
        seconds(mean(line.time_s)),
        _SHORT.get(bound_of(line), bound_of(line)),
        percent(share),
    )
