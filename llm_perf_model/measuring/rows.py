"""Timings as records: what `validate` and `calibrate` read."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from .journal import EXTRA, Row
from .method import Timing
from .outcomes import Failure
from .trials import METRICS, Trial

SOURCE: Final = "llm-perf-model measure"
"""What records of this package call where they come from; rules of conventions.json are found by it."""

_GIB: Final = 2.0**30


class Setting(NamedTuple):
    """What the records of one model, one precision and one backend have in common."""

    model: str
    device: str
    precision: str
    backend: str

    def place(self, trial: Trial) -> Hashable:
        """What tells a trial from all others."""
        lengths = (trial.batch_size, trial.input_len, trial.output_len, trial.num_beams)
        return (*self, trial.task, *("" if each is None else str(each) for each in lengths))

    def key(self, trial: Trial) -> Hashable:
        """What tells the record of its time from all others."""
        return self.place(trial), METRICS[trial.task]


def place_of(row: Row) -> Hashable:
    """The trial that a record is of, whether the record was just made or was read from a file."""
    extra = row[EXTRA]
    told: Mapping[str, Any] = json.loads(extra) if isinstance(extra, str) else extra
    lengths = (row["batch"], row["input_len"], row["output_len"], told.get("num_beams", 1))
    named = (row["model"], row["device"], row["w_dtype"], told.get("backend"), told.get("task"))
    return (*named, *("" if each is None else str(each) for each in lengths))


def key_of(row: Row) -> Hashable:
    """What tells a record from all others."""
    return place_of(row), row["metric"]


def rows_of(
    setting: Setting, trial: Trial, engine: str, result: Timing | Failure, state: Mapping[str, float], version: str
) -> Iterator[Row]:
    """The records of one trial: its memory and energy, where they are counted, and last its time."""
    common: dict[str, Any] = {
        "source": SOURCE,
        "engine": engine,
        "engine_version": version,
        "device": setting.device,
        "n_devices": 1,
        "tp": 1,
        "pp": 1,
        "model": setting.model,
        "w_dtype": setting.precision,
        "a_dtype": setting.precision,
        "batch": trial.batch_size,
        "input_len": trial.input_len,
        "output_len": trial.output_len,
        "how": "timed here",
    }
    told: dict[str, Any] = {"task": trial.task, "backend": setting.backend}
    if trial.num_beams > 1:
        told["num_beams"] = trial.num_beams
    if isinstance(result, Failure):
        failed = {"metric": METRICS[trial.task], "unit": "ms", "outcome": result.outcome, "note": result.reason}
        yield common | failed | {EXTRA: told}
        return
    for metric, value, unit in _measured(trial, result):
        yield common | {
            "metric": metric,
            "value": value,
            "unit": unit,
            "outcome": "ok",
            EXTRA: told | _seen(result, state),
        }


def _measured(trial: Trial, timing: Timing) -> Iterator[tuple[str, float, str]]:
    """Metric, value and unit of all that was counted.

    A step behind a prefill has neither memory nor energy of its own: those of a request hold its prefill too.
    """
    if trial.task != "decode":
        if timing.peak_allocated_bytes is not None:
            yield "memory_gib", timing.peak_allocated_bytes / _GIB, "GiB"
        if timing.energy_j is not None:
            yield "energy_j_per_request", timing.energy_j / trial.batch_size, "J"
    yield METRICS[trial.task], 1e3 * timing.median_s, "ms"


def _seen(timing: Timing, state: Mapping[str, float]) -> dict[str, Any]:
    """What else was seen of a timing; what was not counted is left out."""
    found = {
        "repeats": timing.repeats,
        "lower_quartile_s": timing.lower_quartile_s,
        "upper_quartile_s": timing.upper_quartile_s,
        "peak_reserved_bytes": timing.peak_reserved_bytes,
        "energy_j": timing.energy_j,
        "state": dict(state) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def version_of(told: Mapping[str, Any]) -> str:
    """The versions that matter, in a few words, of an environment."""
    return ", ".join(f"{name} {told[name]}" for name in ("torch", "transformers") if name in told)
