"""Fit the coefficients of kernels and exchanges to timed operators, and write them back.

Run from a checkout, with the extra `fit` installed:
`python scripts/refit_kernels.py PATH... [--only NAME...] [--families NAME...]`. Paths are files or folders of records
of operators, which are not part of the project. Every file of `kernel_configs/` and `collective_configs/` that has fits
is fitted anew, all of its coefficients at once; between the rounds the time that a source's method adds (`launch_s` in
`records/conventions.json`) is fitted too. With `--families` only the coefficients of those families are, to their rows.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from llm_perf_model.specs.catalog import data_folder, folder_of, load, names
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.validation.conventions import MATCHED
from llm_perf_model.validation.fit import free_fields, value_at
from llm_perf_model.validation.kernel_fit import (
    FAMILIES,
    belongs,
    family_of,
    family_of_row,
    fit_rates,
    left_out_errors,
    measured_s,
    shape_group,
    times_s,
)
from llm_perf_model.validation.operators import Timed, timed
from llm_perf_model.validation.records import Record, files, read
from llm_perf_model.validation.stacks import Stack, stacked
from llm_perf_model.validation.unmappable import UnmappableError

ROUNDS = 3
RULES = data_folder("records") / "conventions.json"
LONGEST_LAUNCH_S = 8e-5
Rates = KernelSpec | CollectiveSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--families", nargs="*", default=sorted(FAMILIES | {"collective"}))
    given = parser.parse_args()
    rows = [row for row in timed_rows(given.paths) if family_of_row(row) in given.families]
    fitted: dict[tuple[type[Any], str], Any] = {
        (kind, name): load(kind, name)
        for kind in (KernelSpec, CollectiveSpec)
        for name in names(kind)
        if fields_of(load(kind, name), given.families) and (not given.only or name in given.only)
        if stacks_of(load(kind, name), rows)  # others are fitted to whole runs
    }
    for _ in range(ROUNDS):
        for key, spec in fitted.items():
            fitted[key], _ = fit_rates(spec, fields_of(spec, given.families), stacks_of(spec, rows))
        rows = with_methods(fitted, rows)
    for spec in fitted.values():
        write(spec, rows, given.families)


def fields_of(spec: Rates, families: Sequence[str]) -> tuple[str, ...]:
    """The coefficients of families that a file's fits name."""
    return tuple(field for field in free_fields(spec) if family_of(field) in families)


def timed_rows(paths: Sequence[str]) -> list[Timed]:
    """The records of operators that the model covers."""
    rows = []
    for record in (row for path in files(paths) for row in read(path)):
        if isinstance(record, Record) and record.operator:
            try:
                rows.append(timed(record))
            except UnmappableError:
                continue
    return rows


def stacks_of(spec: Rates, rows: Sequence[Timed]) -> list[Stack]:
    """The rows that a file's coefficients are fitted to."""
    return [stack for stack in stacked(row for row in rows if row.fitted) if belongs(stack, spec)]


def with_methods(fitted: dict[tuple[type[Any], str], Any], rows: list[Timed]) -> list[Timed]:
    """The rows with the times that their methods add or hide fitted, rule by rule; written to the rules."""
    rules = json.loads(RULES.read_bytes())
    for rule in rules:
        for added in ("launch_s", "least_s"):
            if added not in rule:
                continue
            chosen = [index for index, row in enumerate(rows) if matches(rule, row)]
            without = [replace(rows[index], launch_s=0.0, least_s=0.0) for index in chosen]
            stacks = [(spec, stack) for spec in fitted.values() for stack in stacked(without) if belongs(stack, spec)]
            if not stacks:
                continue
            busy_s = np.concatenate([times_s(spec, [stack]) for spec, stack in stacks])
            value_s = np.concatenate([stack.measured_s for _, stack in stacks])
            rule[added] = fitted_s(added, busy_s, value_s)
            for index in chosen:
                rows[index] = replace(rows[index], **{added: rule[added]})
    RULES.write_text(json.dumps(rules, indent=2) + "\n")
    return rows


def fitted_s(added: str, busy_s: Any, value_s: Any) -> float:
    """Seconds that a method adds to kernels, or below which it shows nothing."""
    join = np.add if added == "launch_s" else np.maximum

    def distance(seconds: float) -> float:
        return float(np.sum(np.abs(np.log(join(busy_s, seconds) / value_s))))

    found = minimize_scalar(distance, bounds=(0.0, LONGEST_LAUNCH_S), method="bounded").x
    return float(f"{found:.3g}")


def matches(rule: dict[str, Any], row: Timed) -> bool:
    """Whether a rule of conventions speaks of a row."""
    fields = [(rule[key], getattr(row.record, field)) for key, field in MATCHED.items() if key in rule]
    return all(re.search(pattern, value) for pattern, value in fields)


def write(spec: Rates, rows: Sequence[Timed], fitted_families: Sequence[str]) -> None:
    """The file with its new values, and its errors in and out of sample."""
    fields = fields_of(spec, fitted_families)
    path = folder_of(type(spec)) / f"{spec.name}.json"
    data = json.loads(path.read_bytes())
    for field in fields:
        put(data, field.split("."), float(f"{value_at(spec, field):.4g}"))
    stacks = stacks_of(spec, rows)
    inside = list(zip((times_s(spec, stacks) / measured_s(stacks) - 1.0).tolist(), flat(stacks), strict=True))
    outside = left_out_errors(spec, fields, flat(stacks), shape_group)
    for fit in data["fits"]:
        families = {family_of(field) for field in fit["fields"]}.intersection(fitted_families)
        if not families:
            continue
        own = [error for error, row in inside if family_of_row(row) in families]
        left = [error for error, row in outside if family_of_row(row) in families]
        fit["rows"], fit["date"] = len(own), datetime.datetime.now(datetime.UTC).date().isoformat()
        size = np.abs(own)
        fit["error"] = (
            f"median {np.median(size):.1%}, mean {np.mean(size):.1%}, "
            f"90 % of the rows within {np.quantile(size, 0.9):.1%}; "
            f"each fifth of the shapes left out in turn: median {np.median(np.abs(left)):.1%}"
        )
        print(spec.name, fit["rows"], fit["error"])
    print("  ", {field: float(f"{value_at(spec, field):.4g}") for field in fields})
    path.write_text(json.dumps(data, indent=2) + "\n")


def put(data: dict[str, Any], path: list[str], value: float) -> None:
    """Set the value at a dotted path."""
    for part in path[:-1]:
        data = data[part]
    data[path[-1]] = value


def flat(stacks: Sequence[Stack]) -> list[Timed]:
    """The rows of stacks, in their order."""
    return [row for stack in stacks for row in stack.rows]


if __name__ == "__main__":
    main()
