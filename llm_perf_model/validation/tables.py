"""Validation as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from ..report.document import Report, Table
from .compare import GROUPINGS, OPERATOR_GROUPINGS, Errors, Score, Validation, engine_of, errors_by, per_row
from .outcomes import Outcome
from .records import Problem

_COLUMNS = ("n", "median", "mean", "p90", "worst", "bias")


class Crossed(Protocol):
    """What the table of left-out errors reads."""

    @property
    def name(self) -> str: ...
    @property
    def free(self) -> tuple[str, ...]: ...
    @property
    def fitted(self) -> Errors: ...
    @property
    def left_out(self) -> Errors | None: ...
    @property
    def by(self) -> str: ...
    @property
    def rows(self) -> tuple[tuple[str, float], ...]: ...


def report(validation: Validation, crossed: Sequence[Crossed] = ()) -> Report:
    """Tables by source, metric, engine, device and batch; what was left out of a fit; what has no estimate."""
    times = [item for item in validation.scores if item.mapped.is_time]
    others = [item for item in validation.scores if not (item.mapped.is_time or item.mapped.baseline)]
    tables = [
        _errors(f"times and rates by {name}", name, errors_by(times, group))
        for name, group in GROUPINGS.items()
        if times
    ]
    tables += [
        _errors(f"memory, energy and power by {name}", name, errors_by(others, GROUPINGS[name]))
        for name in ("source", "metric", "engine")
        if others
    ]
    if _ratios(validation):
        tables.append(_directions(_ratios(validation)))
    if validation.outcomes:
        tables.append(_outcomes(validation))
    blamed = Counter(item.blame for item in times)
    if blamed:
        rows = tuple((term, str(n)) for term, n in blamed.most_common())
        tables.append(Table(("term that takes most of the time", "n"), rows, "blame"))
    for name, group in OPERATOR_GROUPINGS.items():
        if validation.operators:
            tables.append(_errors(f"timed operators by {name}", name, errors_by(validation.operators, group)))
    if crossed:
        tables += [_left_out(crossed), *_left_out_groups(crossed)]
    tables += _reasons(validation)
    notes = _problems(validation.problems)
    scored = len(validation.scores) + len(validation.operators)
    counts = f"{scored} scored, {len(validation.unmapped)} without an estimate"
    return Report(
        f"{counts}, {len(validation.problems)} unreadable; errors are estimate / measurement - 1",
        tuple(tables),
        notes,
        _data(validation, crossed),
        per_row(validation),
    )


def _ratios(validation: Validation) -> list[Score]:
    """The scores of ratios of two engines."""
    return [item for item in validation.scores if item.mapped.baseline is not None]


def _ratio_group(item: Score) -> str:
    return f"{engine_of(item)}, {item.mapped.request['gpu']}"


def _told(items: Sequence[Score]) -> dict[str, int]:
    """How many measured ratios have a direction, and how many of these the estimates tell."""
    told = [item.direction_right for item in items if item.direction_right is not None]
    return {"directions": len(told), "directions_right": sum(told)}


def _directions(ratios: Sequence[Score]) -> Table:
    """Errors of speed-ups by engines and device, and on how many an estimate is on the same side of 1."""
    rows = []
    for errors in errors_by(ratios, _ratio_group):
        told = _told([item for item in ratios if _ratio_group(item) == errors.group])
        rows.append((errors.group, f"{told['directions_right']} of {told['directions']}", *_figures(errors)))
    return Table(("engine over baseline, device", "direction right", *_COLUMNS), tuple(rows), "speed-up ratios")


def _reasons(validation: Validation) -> list[Table]:
    """Why records have no estimate, and where the first of each kind stands."""
    reasons = Counter((item.record.source, item.reason) for item in validation.unmapped)
    first: dict[tuple[str, str], str] = {}
    for item in validation.unmapped:
        first.setdefault((item.record.source, item.reason), f"{item.record.file}:{item.record.line}")
    listed = tuple((first[group], group[1], str(n)) for group, n in reasons.most_common())
    columns = ("first at", "reason", "n")
    return [Table(columns, listed, "records without an estimate", text_columns=2)] if listed else []


def _outcomes(validation: Validation) -> Table:
    """How many runs ran and ran out of memory, and how many of each the estimates tell."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for item in validation.outcomes:
        groups.setdefault((item.engine, item.record.w_dtype), []).append(item)
    rows = []
    for (engine, dtype), items in groups.items():
        ran, short = ([x for x in items if x.ran is whether] for whether in (True, False))
        told = [f"{sum(x.right for x in some)} of {len(some)}" for some in (ran, short)]
        rows.append((f"{engine} {dtype}", *told))
    return Table(("engine", "ran and fits", "out of memory and does not fit"), tuple(rows), "runs that fit")


def _problems(problems: Sequence[Problem]) -> tuple[str, ...]:
    """A line for each kind of problem in each file, with its first line and how many there are."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.file, problem.message), []).append(problem)
    return tuple(str(same[0]) + (f" ({len(same)} lines)" if len(same) > 1 else "") for same in groups.values())


def _errors(title: str, name: str, rows: Sequence[Errors]) -> Table:
    cells = tuple((row.group, *_figures(row)) for row in rows)
    return Table((name, *_COLUMNS), cells, title)


def _figures(row: Errors) -> tuple[str, ...]:
    sizes = tuple(f"{100.0 * value:.1f} %" for value in (row.median, row.mean, row.p90, row.worst))
    return (str(row.n), *sizes, f"{100.0 * row.bias:+.1f} %")


def _left_out(crossed: Sequence[Crossed]) -> Table:
    rows = []
    for item in crossed:
        free = f"{len(item.free)} / {item.fitted.n}"
        rows.append((f"{item.name}: fitted", free, *_figures(item.fitted)[1:]))
        if item.left_out is None:
            rows.append((f"{item.name}: left out", "one group", "-", "-", "-", "-", "-"))
        else:
            rows.append((f"{item.name}: left out", str(item.left_out.n), *_figures(item.left_out)[1:]))
    return Table(("file", "free / rows", *_COLUMNS[1:]), tuple(rows), f"leave one {crossed[0].by} out")


def _left_out_groups(crossed: Sequence[Crossed]) -> list[Table]:
    """The same left-out rows by the group that they belong to, whatever their file, and all of them together."""
    groups: dict[str, list[float]] = {}
    for group, error in (pair for item in crossed for pair in item.rows):
        groups.setdefault(group, []).append(error)
    if not groups:
        return []
    together = Errors.of("all", [error for errors in groups.values() for error in errors])
    rows = [Errors.of(group, errors) for group, errors in groups.items()]
    return [_errors(f"left out, by {crossed[0].by}", crossed[0].by, [*rows, together])]


def _data(validation: Validation, crossed: Sequence[Crossed]) -> dict[str, Any]:
    times = [item for item in validation.scores if item.mapped.is_time]
    others = [item for item in validation.scores if not (item.mapped.is_time or item.mapped.baseline)]
    ratios = _ratios(validation)
    return {
        "scored": len(validation.scores),
        "operators_scored": len(validation.operators),
        "unmapped": len(validation.unmapped),
        "runs_that_fit": {"right": sum(x.right for x in validation.outcomes), "n": len(validation.outcomes)},
        "problems": [str(problem) for problem in validation.problems],
        "errors": {name: [asdict(row) for row in errors_by(times, group)] for name, group in GROUPINGS.items()},
        "ratios": [asdict(row) for row in errors_by(ratios, _ratio_group)],
        "ratios_told": _told(ratios),
        "memory_and_energy": [asdict(row) for row in errors_by(others, GROUPINGS["metric"])],
        "cross_validation": [
            {
                "name": item.name,
                "by": item.by,
                "free": list(item.free),
                "fitted": asdict(item.fitted),
                "left_out": None if item.left_out is None else asdict(item.left_out),
            }
            for item in crossed
        ],
    }
