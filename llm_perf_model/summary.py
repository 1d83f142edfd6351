"""An estimate at a glance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .estimate import NO_BASIS, Estimate
from .generate import Phase
from .report.document import Report, Table
from .specs.layout import LayoutSpec
from .types import Num
from .units import binary_bytes, decimal, percent, seconds


def summary(e: Estimate) -> Report:
    """Time, memory and rates of an estimate, as tables for people."""
    return Report(_title(e), (_times(e), _memory(e)), _notes(e))


def _title(e: Estimate) -> str:
    case = e.case
    devices = f"{case.layout.ranks} x {case.gpu.title}" if case.layout.ranks > 1 else case.gpu.title
    split = _split(case.layout) if case.layout.ranks > 1 else ""
    return (
        f"{case.model.name} on {devices}{split}, {case.engine.name}, {case.precision.name}\n"
        f"batch {_span(e.workload.batch_size, _count)}, {_span(e.workload.input_len, _count)} tokens in, "
        f"{_span(e.workload.output_len, _count)} out"
    )


def _split(layout: LayoutSpec) -> str:
    shares = {"tp": layout.tp, "dp": layout.dp, "layer split": layout.layer_split}
    return " (" + ", ".join(f"{name} {ranks}" for name, ranks in shares.items() if ranks > 1) + ")"


def _times(e: Estimate) -> Table:
    rows = [
        ("prefill (to first token)", _span(e.prefill_s, seconds), *_rates(e.prefill)),
        ("decode step (per token)", _span(e.decode_step_s, seconds), *_rates(e.decode)),
        ("total", _span(e.total_s, seconds), "", "", ""),
    ]
    if not e.case.model.causal:
        rows = [("forward pass", *rows[0][1:])]
    return Table(("", "time", "bound", "peak FLOP/s used", "bandwidth used"), tuple(rows))


def _rates(phase: Phase) -> tuple[str, str, str]:
    if not np.any(phase.time_s):
        return ("", "", "")
    return (
        "/".join(sorted(set(np.atleast_1d(phase.bound).tolist()))),
        _span(phase.flops_utilisation, percent),
        _span(phase.bandwidth_utilisation, percent),
    )


def _memory(e: Estimate) -> Table:
    m = e.memory
    parts = {
        "weights": m.weights_bytes,
        "KV cache": m.kv_cache_bytes,
        "activations": m.activation_bytes,
        "reserve": m.reserve_bytes,
        "peak": m.peak_bytes,
        "capacity": m.capacity_bytes,
    }
    rows = tuple((name, _span(value, binary_bytes)) for name, value in parts.items())
    return Table(("memory per device", ""), rows)


def _notes(e: Estimate) -> tuple[str, ...]:
    fits = np.asarray(e.fits)
    verdict = "fits" if fits.all() else "does NOT fit" if not fits.any() else f"fits at {fits.mean():.0%} of the points"
    made = "output token" if e.case.model.causal else "sequence"
    notes = [
        f"{verdict}; largest batch {_span(e.max_batch_size, _count)}",
        f"{_span(e.throughput_tokens_per_s, lambda v: decimal(v, ''))} {made}s/s; "
        f"at most {_span(e.energy_per_token_j, lambda v: decimal(v, 'J'))} per {made} (TDP x time)",
    ]
    if np.any(e.extrapolated):
        notes.append(f"beyond the model's {e.case.model.max_positions} positions")
    notes.append(f"interval: {NO_BASIS}")
    return tuple(notes)


def _span(value: Num, form: Callable[[float], str]) -> str:
    """One value, or the lowest and highest of an array."""
    low, high = float(np.min(value)), float(np.max(value))
    return form(low) if low == high else f"{form(low)} .. {form(high)}"


def _count(value: float) -> str:
    return f"{value:.0f}"
