"""How far an estimate may be off: half widths from records that were left out of the fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from .specs.catalog import data_folder
from .specs.engine import EngineSpec
from .specs.gpu import GpuSpec
from .specs.kernels import KernelSpec

PhaseName = Literal["prefill", "decode", "whole", "network"]
"""Part of a run that records time; `network`: a pass of a network of layers."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A measurement lies between t / e^w and t e^w of the estimate t as often as the level says; w is `half_width`."""

    half_width: float
    basis: str


def interval(engine: EngineSpec, gpu: GpuSpec, kernels: KernelSpec, phase: PhaseName, level: float) -> Interval:
    """The interval from the nearest records that were left out of a fit.

    Nearest first: the engine file's own; this engine on this GPU; this engine on another GPU; engines of
    its kind that were predicted without records of their own; all of them. A GPU generation without
    records widens it by the errors between generations.
    """
    found = _own(engine, level) or _catalogued(engine, gpu, phase, level)
    if kernels.fits or engine.kernels is not None:
        return found
    between = _width(_table()["generations"]["half_widths"], level)
    width = math.hypot(found.half_width, between)
    return Interval(width, f"{found.basis}; widened, for no record is of GPU generation {gpu.generation}")


def _own(engine: EngineSpec, level: float) -> Interval | None:
    """From the records that a calibrated engine file names."""
    for fit in engine.fits:
        if str(level) in fit.half_widths:
            text = f"{fit.rows} records of this engine file, each group left out in turn"
            return Interval(fit.half_widths[str(level)], text)
    return None


def _catalogued(engine: EngineSpec, gpu: GpuSpec, phase: PhaseName, level: float) -> Interval:
    """From the project's own cross-validation."""
    entry = _entry(engine.name, gpu.name, engine.kind, phase)
    return Interval(_width(entry["half_widths"], level), str(entry["basis"]))


@cache
def _entry(engine: str, gpu: str, kind: str, phase: str) -> Mapping[str, Any]:
    """The first entry that holds for an engine on a GPU: they are listed nearest first, and the last holds for all."""
    wanted = {"engine": engine, "gpu": gpu, "kind": kind, "phase": phase}
    entries: list[Mapping[str, Any]] = _table()["entries"]
    if phase == "network":
        entries = [e for e in entries if e.get("phase") == phase]  # rows of transformers say nothing of them
    return next(e for e in entries if all(e.get(key, value) == value for key, value in wanted.items()))


def _width(half_widths: Mapping[str, float], level: float) -> float:
    return float(half_widths[str(level)])


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads((data_folder("records") / "intervals.json").read_bytes())
    return table
