"""Fit kernels of a processor, together with the engines that run on it, to whole passes of networks.

Run from a checkout, with the extra `fit` installed: `python scripts/refit_cpu.py`, then `python scripts/refit.py NAME`
for each of `ENGINES` in turn. A pass of a network is all that the records time, so what kernels reach and what engines
add are fitted at once; only the file of the kernels is written. Prints the errors of each network under coefficients
that know nothing of it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llm_perf_model.specs.base import CoefficientSpec
from llm_perf_model.specs.catalog import folder_of, load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.kernels import KernelRates, KernelSpec
from llm_perf_model.validation.compare import Score, score
from llm_perf_model.validation.fit import free_fields, solve, value_at, with_values
from llm_perf_model.validation.run import held_against

RECORDS = "records/model_optimisations_rtx3080ti.csv"
GENERATION = "zen3"
ENGINES = ("pytorch-cpu", "pytorch-cpu-jit", "onnxruntime-cpu")
ENGINE_FIELDS = ("dispatch_s", "region_s", "compute_ratio", "convolution_ratio", "group_s")
OUTLIER = 0.2
Files = Mapping[str, CoefficientSpec]
Known = dict[tuple[object, ...], float]
"""Estimates by engine, values and run."""


def main() -> None:
    rows = [s for s in held_against([RECORDS]).scores if s.mapped.engine in ENGINES]
    files: dict[str, CoefficientSpec] = {GENERATION: load(KernelSpec, GENERATION)}
    files |= {name: load(EngineSpec, name) for name in ENGINES}
    known: Known = {}
    fitted = refit(files, rows, known)
    networks = dict.fromkeys(s.record.model for s in rows)
    left: dict[int, float] = {}
    for network in networks:
        trial = refit(fitted, [s for s in rows if s.record.model != network], known)
        out = [s for s in rows if s.record.model == network]
        left |= {id(s): error for s, error in zip(out, np.expm1(residuals(trial, out, known)), strict=True)}
        print(f"{network} left out: {summary(left[id(s)] for s in out)}")
    write(fitted[GENERATION], np.expm1(residuals(fitted, rows, known)), [left[id(s)] for s in rows])


def fields_of(files: Files) -> list[tuple[str, str]]:
    """File and field of every free coefficient."""
    return [(name, field) for name, spec in files.items() for field in free_fields(spec)]


def refit(files: Files, rows: Sequence[Score], known: Known) -> Files:
    """The files with their free coefficients fitted to these rows, from the values that they hold."""
    fields = fields_of(files)

    def distances(values: Any) -> Any:
        return residuals(replaced(files, values), rows, known)

    start = [[value_at(files[name], field) for name, field in fields]]
    return replaced(files, solve(distances, [field for _, field in fields], start, "soft_l1", OUTLIER).values)


def replaced(files: Files, values: Sequence[float]) -> Files:
    """The files with new values; what an engine is like follows that engine where it has no value of its own."""
    new = dict(files)
    for (name, field), value in zip(fields_of(files), values, strict=True):
        new[name] = with_values(new[name], [field], [float(value)])
        for other in ENGINES:
            inherits = files[other].like == name and field not in stated(other)
            new[other] = with_values(new[other], [field], [float(value)]) if inherits else new[other]
    return new


def stated(name: str) -> Mapping[str, Any]:
    """The fields that an engine's file gives itself."""
    given: Mapping[str, Any] = json.loads((folder_of(EngineSpec) / f"{name}.json").read_bytes())
    return given


def residuals(files: Files, rows: Sequence[Score], known: Known) -> Any:
    """log(estimate / measurement) of each row; what is `known` is not estimated again."""
    rates = KernelRates(**{field: getattr(files[GENERATION], field) for field in KernelRates.model_fields})
    engines = {name: files[name].model_copy(update={"kernels": rates}) for name in ENGINES}
    values = {name: (name, *values_of(files[GENERATION]), *values_of(engines[name])) for name in ENGINES}
    keys = [(*values[s.mapped.engine], *run(s)) for s in rows]
    for s, key in zip(rows, keys, strict=True):
        if key not in known:
            known[key] = score(s.record, s.mapped, engines[s.mapped.engine]).estimated
    return np.log([known[key] / s.measured for s, key in zip(rows, keys, strict=True)])


def values_of(spec: CoefficientSpec) -> tuple[object, ...]:
    """Every coefficient that any of the fits may change."""
    fields = free_fields(spec) if isinstance(spec, KernelSpec) else ENGINE_FIELDS
    return tuple(value_at(spec, field) for field in fields)


def run(s: Score) -> tuple[object, ...]:
    """What tells one run from another."""
    return (s.mapped.phase, *sorted(s.mapped.request.items()))


def summary(errors: Any) -> str:
    """Median and spread of errors."""
    size = np.abs(list(errors))
    return f"median {np.median(size):.1%}, 90 % of the rows within {np.quantile(size, 0.9):.1%}"


def write(spec: CoefficientSpec, errors: Any, left: Sequence[float]) -> None:
    """The file with its new values, and its errors in and out of sample."""
    size = np.abs(errors)
    path = folder_of(type(spec)) / f"{spec.name}.json"
    data = json.loads(path.read_bytes())
    for field in free_fields(spec):
        *outer, last = field.split(".")
        inside = data
        for part in outer:
            inside = inside[part]
        inside[last] = float(f"{value_at(spec, field):.4g}")
    for fit in data["fits"]:
        fit["rows"], fit["date"] = len(errors), datetime.datetime.now(datetime.UTC).date().isoformat()
        fit["error"] = (
            f"median {np.median(size):.1%}, mean {np.mean(size):.1%}, 90 % of the rows within "
            f"{np.quantile(size, 0.9):.1%}, worst {np.max(size):.1%}; each network left out in turn: {summary(left)}"
        )
        print(spec.name, fit["rows"], fit["error"])
    print("  ", {field: float(f"{value_at(spec, field):.4g}") for field in free_fields(spec)})
    path.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
