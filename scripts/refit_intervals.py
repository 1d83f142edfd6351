"""Half widths of intervals from rows that were left out of every fit, and how many of such rows they cover.

Run from a checkout, with the extra `fit` installed: `python scripts/refit_intervals.py PATH...`. Paths are files or
folders of records beside the project's own: whole runs, and timed operators for what lies between two generations.
Writes `records/intervals.json`.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llm_perf_model.specs.catalog import data_folder, load, names
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.specs.network import NetworkSpec
from llm_perf_model.specs.request import LEVELS
from llm_perf_model.validation.compare import Score, Validation
from llm_perf_model.validation.conformal import half_width
from llm_perf_model.validation.crossing import RUN_GROUPS, fitted_rows, left_out, operator_rows
from llm_perf_model.validation.engine_fit import leave_one_out
from llm_perf_model.validation.kernel_fit import belongs
from llm_perf_model.validation.run import held_against
from llm_perf_model.validation.stacks import stacked

FEWEST_ROWS = 20
"""Rows below which a group says too little of its own."""

PHASES = ("prefill", "decode", "whole", "network")
Row = tuple[float, Score]


def phase_of(s: Score) -> str:
    """The phase of a transformer, or that the row is of a network of layers, which says nothing of transformers."""
    return "network" if s.mapped.request["model"] in names(NetworkSpec) else s.mapped.phase


def main(paths: list[str]) -> None:
    validation = held_against([str(data_folder("records")), *paths])
    engines = [load(EngineSpec, name) for name in names(EngineSpec) if not name.startswith("generic-")]
    near: list[Row] = []
    other_gpu: list[Row] = []
    unknown: list[Row] = []
    entries: list[dict[str, Any]] = []
    for engine in engines:
        rows = fitted_rows(validation, engine)
        if rows:
            own = without_a_model(engine, rows)
            near += own
            entries += of_devices(engine, own)
            other_gpu += without_a_device(engine, rows)
            unknown += left_out(validation, engine, rows, "source")
    unknown += [(s.error, s) for s in validation.scores if s.mapped.fallback and s.mapped.is_time]
    for engine in (engine for engine in engines if engine.fits):
        own = [(error, s) for error, s in other_gpu if s.mapped.engine == engine.name]
        enough = own if len(own) >= FEWEST_ROWS else other_gpu
        word = engine.name if enough is own else "fitted engines"
        entries += of_phases(enough, f"{word} on a GPU that was left out", engine=engine.name)
    for kind in dict.fromkeys(engine.kind for engine in engines):
        same = [(error, s) for error, s in unknown if load(EngineSpec, s.mapped.engine).kind == kind]
        entries += of_phases(same, f"{kind} engines without records of their own", kind=kind)
    networks = [(error, s) for error, s in near if phase_of(s) == "network"]
    entries.append({"phase": "network"} | widths(networks, "engines with records of networks"))
    entries += of_phases(unknown, "engines without records of their own")
    table = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "entries": entries,
        "generations": between_generations(validation),
        "coverage": [
            coverage(
                "engine and GPU known",
                [row for row in near if row not in networks],
                lambda s: f"{s.mapped.engine} {s.mapped.request['gpu']}",
            ),
            coverage("GPU left out", other_gpu, lambda _: ""),
            coverage("engine unknown", unknown, lambda s: load(EngineSpec, s.mapped.engine).kind),
            coverage("networks of layers", networks, lambda s: f"{s.mapped.engine} {s.mapped.request['gpu']}"),
        ],
    }
    path = data_folder("records") / "intervals.json"
    path.write_text(json.dumps(table, indent=1) + "\n")
    for line in table["coverage"]:
        print(line)
    print(len(entries), "entries")


def without_a_model(engine: EngineSpec, rows: Sequence[Score]) -> list[Row]:
    """Errors with each model left out in turn; none of an engine with one model, which says nothing of another."""
    if len({s.record.model for s in rows}) < 2:
        return []
    if not engine.fits:
        return [(s.error, s) for s in rows]
    return leave_one_out(engine, rows, RUN_GROUPS["model"], FEWEST_ROWS)


def without_a_device(engine: EngineSpec, rows: Sequence[Score]) -> list[Row]:
    """Errors with each device left out in turn, of engines with several."""
    if len({s.mapped.request["gpu"] for s in rows}) < 2 or not engine.fits:
        return []
    return leave_one_out(engine, rows, RUN_GROUPS["device"], FEWEST_ROWS)


def of_devices(engine: EngineSpec, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Entries of an engine on each GPU with enough rows."""
    found = []
    for gpu in dict.fromkeys(s.mapped.request["gpu"] for _, s in rows):
        own = [(error, s) for error, s in rows if s.mapped.request["gpu"] == gpu]
        found += of_phases(own, f"{engine.name} on {gpu}", engine=engine.name, gpu=gpu)
    return found


def of_phases(rows: Sequence[Row], basis: str, **holds: str) -> list[dict[str, Any]]:
    """An entry for each phase with enough rows of its own, and one for the others from all rows."""
    found = []
    for phase in PHASES:
        own = [(error, s) for error, s in rows if phase_of(s) == phase]
        if len(own) >= FEWEST_ROWS:
            found.append({**holds, "phase": phase} | widths(own, f"{basis}, {phase}"))
    transformers = [(error, s) for error, s in rows if phase_of(s) != "network"]
    if len(transformers) >= FEWEST_ROWS:
        found.append({**holds} | widths(transformers, basis))
    return found


def widths(rows: Sequence[Row], basis: str) -> dict[str, Any]:
    """The half widths of a set of left-out errors."""
    logs = np.log1p([error for error, _ in rows])
    found = {str(level): half_width(logs, level) or float(np.max(np.abs(logs))) for level in LEVELS}
    models = len({s.record.model for _, s in rows})
    text = f"{basis}: {len(rows)} left-out records of {models} model{'s' if models > 1 else ''}"
    return {"basis": text, "half_widths": {level: float(f"{width:.4g}") for level, width in found.items()}}


def between_generations(validation: Validation) -> dict[str, Any]:
    """Errors of timed operators under the coefficients of another generation."""
    rows = [item.row for item in validation.operators if item.row.fitted]
    logs: list[float] = []
    for spec in (load(KernelSpec, name) for name in names(KernelSpec)):
        own = [row for stack in stacked(rows) if spec.fits and belongs(stack, spec) for row in stack.rows]
        if own and len({row.gpu for row in own}) == 1:
            logs += [float(np.log1p(error)) for error, _ in operator_rows(spec, own, "device")]
    found = {str(level): float(f"{half_width(logs, level) or 0.0:.4g}") for level in LEVELS}
    return {"basis": f"{len(logs)} timed operators under another generation's coefficients", "half_widths": found}


def coverage(basis: str, rows: Sequence[Row], pool: Callable[[Score], str]) -> dict[str, Any]:
    """The part of the rows of each model inside the 80 % interval from the other models of their pool."""
    inside, used = [], []
    others: dict[tuple[str, str], Any] = {}
    for error, s in rows:
        key = (pool(s), s.record.model)
        if key not in others:
            logs = [np.log1p(e) for e, o in rows if pool(o) == key[0] and o.record.model != key[1]]
            others[key] = half_width(logs, 0.8)
        if others[key] is not None:
            inside.append(abs(np.log1p(error)) <= others[key])
            used.append(others[key])
    part = round(float(np.mean(inside)), 3) if inside else None
    width = round(float(np.median(used)), 3) if used else None
    return {"basis": basis, "rows": len(inside), "level": 0.8, "covered": part, "median_half_width": width}


if __name__ == "__main__":
    main(sys.argv[1:])
