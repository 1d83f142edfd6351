"""Fit the shares of design power of a GPU generation to measured energy per token.

Run from a checkout, with the extra `fit` installed: `python scripts/refit_power.py PATH...`, with records that hold
both `energy_j_per_token` and `throughput_tok_s` of each run. Shares are fitted with the measured time, so that an error
of the time does not end up in them; the errors are those of models that were left out, with the measured time and with
the estimated one (the engine's own coefficients refitted without the model as well).
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from llm_perf_model.api import answer
from llm_perf_model.energy import dynamic_j, energy_j
from llm_perf_model.rates import Power
from llm_perf_model.specs.catalog import folder_of, load
from llm_perf_model.specs.power import PowerSpec
from llm_perf_model.specs.request import Request
from llm_perf_model.validation.compare import Score
from llm_perf_model.validation.crossing import fitted_rows
from llm_perf_model.validation.engine_fit import refit
from llm_perf_model.validation.fit import solve
from llm_perf_model.validation.run import held_against

GENERATION = "ampere"
FIELDS = ("idle_fraction", "flops_fraction", "bytes_fraction")


class Part(NamedTuple):
    """A phase, per output token."""

    time_s: float
    flops: float
    hbm_bytes: float
    comm_bytes: float


class Sample(NamedTuple):
    """One run, per output token of all devices."""

    score: Score
    measured_j: float
    measured_s: float
    prefill: Part
    decode: Part
    ranks: float
    power: Power


def samples(scores: Sequence[Score]) -> list[Sample]:
    """Energy, time and work of each run that states both."""
    rates = {_run(s): s.measured for s in scores if s.record.metric == "throughput_tok_s"}
    found = []
    for s in scores:
        if s.record.metric != "energy_j_per_token" or _run(s) not in rates:
            continue
        e = answer(Request.of(s.mapped.request))
        tokens = e.case.layout.dp * e.workload.batch_size * e.workload.output_len
        parts = [Part(*(float(getattr(p, name) / tokens) for name in Part._fields)) for p in (e.prefill, e.decode)]
        found.append(Sample(s, s.measured, 1.0 / rates[_run(s)], *parts, e.case.layout.ranks, e.machine.power))
    return found


def _run(s: Score) -> tuple[Any, ...]:
    r = s.record
    return r.model, r.batch, r.output_len, r.tp, r.extra_text


def joules(sample: Sample, shares: Sequence[float], time_s: float) -> float:
    """Energy per output token of all devices, under shares of the design power; time beside the prefill is decode."""
    spec = load(PowerSpec, GENERATION)
    p, (idle, flops, hbm) = sample.power, shares
    scaled = p._replace(
        idle_w=idle * p.design_w,
        flop_j=p.flop_j * flops / spec.flops_fraction,
        byte_j=p.byte_j * hbm / spec.bytes_fraction,
    )
    prefill_s = min(sample.prefill.time_s, time_s)
    times = ((sample.prefill, prefill_s), (sample.decode, time_s - prefill_s))
    each = [energy_j(scaled, seconds, dynamic_j(scaled, *part[1:])) for part, seconds in times]
    return float(sample.ranks * sum(each))


def fitted(chosen: Sequence[Sample]) -> Any:
    """The shares that explain the measured energy at the measured time."""

    def residuals(values: Any) -> Any:
        return [np.log(joules(x, values, x.measured_s) / x.measured_j) for x in chosen]

    return solve(residuals, FIELDS)


def main(paths: list[str]) -> None:
    validation = held_against(paths)
    chosen = samples(validation.scores)
    solution = fitted(chosen)
    measured, estimated = [], []
    for model in dict.fromkeys(x.score.record.model for x in chosen):
        shares = fitted([x for x in chosen if x.score.record.model != model]).values
        mine = [x for x in chosen if x.score.record.model == model]
        engine = load_engine(validation, mine[0].score, model)
        for x in mine:
            measured.append(joules(x, shares, x.measured_s) / x.measured_j - 1.0)
            e = answer(Request.of({**x.score.mapped.request, "engine": engine}))
            tokens = e.case.layout.dp * e.workload.batch_size * e.workload.output_len
            estimated.append(joules(x, shares, float(e.total_s / tokens)) / x.measured_j - 1.0)
    deviations = np.sqrt(np.diag(np.linalg.inv(solution.jacobian.T @ solution.jacobian)) * np.var(solution.residuals))
    write(solution.values, deviations, len(chosen), measured, estimated)


def load_engine(validation: Any, score: Score, model: str) -> Any:
    """The engine of a run with its times refitted to all other models."""
    from llm_perf_model.specs.engine import EngineSpec

    engine = load(EngineSpec, score.mapped.engine)
    return refit(engine, [s for s in fitted_rows(validation, engine) if s.record.model != model])


def write(values: Sequence[float], deviations: Any, rows: int, measured: list[float], estimated: list[float]) -> None:
    """The shares into their file, with the errors on models that were left out."""
    path = folder_of(PowerSpec) / f"{GENERATION}.json"
    data = json.loads(path.read_bytes())
    data |= {field: float(f"{value:.3g}") for field, value in zip(FIELDS, values, strict=True)}
    with_time, with_own = (np.abs(errors) for errors in (measured, estimated))
    data["fits"] = [
        {
            "fields": list(FIELDS),
            "records": ["github:ml-energy/leaderboard-v2, vLLM on A100-SXM4-40GB: energy per token"],
            "rows": rows,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "error": f"models left out: median {np.median(with_time):.1%}, mean {np.mean(with_time):.1%} "
            f"at the measured time; median {np.median(with_own):.1%}, mean {np.mean(with_own):.1%} at "
            "the estimated one",
            "deviations": {field: float(f"{d:.2g}") for field, d in zip(FIELDS, deviations, strict=True)},
        }
    ]
    path.write_text(json.dumps(data, indent=2) + "\n")
    print(data["fits"][0]["error"], {field: data[field] for field in FIELDS}, data["fits"][0]["deviations"])


if __name__ == "__main__":
    main(sys.argv[1:])
