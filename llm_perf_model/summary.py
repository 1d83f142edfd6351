"""An estimate at a glance."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .case import Case
from .estimate import Estimate
from .generate import Phase
from .report.document import Report, Table
from .specs.layer import text_of
from .specs.layout import LayoutSpec
from .specs.model import ModelSpec
from .specs.network import NetworkSpec
from .types import Num
from .units import binary_bytes, decimal, dollars, interval_of_seconds, percent, seconds

_METRICS = {"prefill_s": "prefill", "decode_step_s": "decode step", "total_s": "total"}


def summary(e: Estimate) -> Report:
    """Time, memory, energy and cost of an estimate, as tables for people."""
    return Report(title(e), (_times(e), _memory(e), _energy_and_cost(e)), _notes(e))


def title(e: Estimate) -> str:
    """What was asked, in two lines."""
    case = e.case
    devices = f"{case.layout.ranks} x {case.gpu.title}" if case.layout.ranks > 1 else case.gpu.title
    split = _split(case.layout) if case.layout.ranks > 1 else ""
    cache = "" if e.request.kv_dtype == "auto" else f" with a cache in {e.request.kv_dtype}"
    return (
        f"{case.model.name} on {devices}{split}, {case.engine.name}, {case.precision.name}{cache}\n"
        f"batch {span(e.workload.batch_size, _count)}, {_lengths(e)}"
    )


def _lengths(e: Estimate) -> str:
    """Tokens in and out, or the shape of a sample."""
    if isinstance(e.case.model, NetworkSpec):
        return f"samples of {text_of(e.request.input_shape or e.case.model.input)}"
    return f"{span(e.workload.input_len, _count)} tokens in, {span(e.workload.output_len, _count)} out"


def made_by(e: Estimate) -> str:
    """Word for what an estimate makes."""
    if isinstance(e.case.model, NetworkSpec):
        return "sample"
    return "output token" if e.case.model.causal else "sequence"


def _split(layout: LayoutSpec) -> str:
    words = ("tp", "cp", "attention_dp", "ep", "pp", "layer_split", "dp", "nodes")
    shares = {word.replace("_", " "): getattr(layout, word) or 1 for word in words}
    return " (" + ", ".join(f"{name} {ranks}" for name, ranks in shares.items() if ranks > 1) + ")"


def _times(e: Estimate) -> Table:
    rows = [
        ("prefill", _time(e, "prefill_s"), *_rates(e.prefill)),
        ("decode step", _time(e, "decode_step_s"), *_rates(e.decode)),
        ("total", _time(e, "total_s"), "", "", ""),
    ]
    if not e.case.model.causal:
        each = (f"per {made_by(e)}", span(e.time_per_sample_s, seconds), "", "", "")
        rows = [("forward pass", *rows[0][1:]), each]
    return Table(("", "time", "bound", "peak FLOP/s used", "bandwidth used"), tuple(rows))


def _time(e: Estimate, metric: str) -> str:
    """Seconds with their interval, or the lowest and highest of an array."""
    value, bounds = getattr(e, metric), e.bounds(metric)
    if np.size(value) > 1 or bounds.low is None or bounds.high is None or not np.any(value):
        return span(value, seconds)
    return interval_of_seconds(float(value), float(bounds.low), float(bounds.high))


def _rates(phase: Phase) -> tuple[str, str, str]:
    if not np.any(phase.time_s):
        return ("", "", "")
    return (
        "/".join(np.unique(phase.bound).tolist()),
        span(phase.flops_utilisation, percent),
        span(phase.bandwidth_utilisation, percent),
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
    if e.handover is not None:
        parts["peak of the prefill's devices"] = e.prefill_memory.peak_bytes
    rows = tuple((name, span(value, binary_bytes)) for name, value in parts.items())
    return Table(("memory per device", ""), rows)


def _notes(e: Estimate) -> tuple[str, ...]:
    fits = np.asarray(e.fits)
    verdict = "fits" if fits.all() else "does NOT fit" if not fits.any() else f"fits at {fits.mean():.0%} of the points"
    made = made_by(e)
    notes = [
        f"{verdict}; largest batch {span(e.max_batch_size, _count)}",
        f"{span(e.throughput_tokens_per_s, lambda v: decimal(v, ''))} {made}s/s",
    ]
    if e.case.running != e.case.precision:
        notes.append(_widened(e.case))
    if np.any(e.extrapolated):
        known = sorted({n for n in (e.case.model.max_positions, e.case.model.source_positions) if n is not None})
        notes.append(f"beyond the model's {' and '.join(map(str, known))} positions")
    notes += (*_techniques(e), *_bases(e))
    return tuple(notes)


def _techniques(e: Estimate) -> Iterator[str]:
    """What is assumed of the techniques of the request, a line each."""
    r, host = e.request, e.machine.host_link
    if np.any(r.prefix_len):
        kept = "sequences share its whole blocks" if e.case.allocation.cache == "paged" else "each sequence has a copy"
        yield f"a prefix of {span(r.prefix_len, _count)} tokens is cached before; {kept}"
    if r.prefill_chunk is not None:
        yield f"prompts are read in passes of at most {span(r.prefill_chunk, _count)} tokens of each sequence"
    if e.speculation is not None and r.acceptance is not None:
        name = r.draft if isinstance(r.draft, str) or r.draft is None else r.draft.name
        yield (
            f"draft {name} guesses {span(e.speculation.draft_tokens, _count)} tokens a step; accepted with probability "
            f"{span(r.acceptance, _ratio)} each, a step makes {span(e.expected_tokens_per_step, _ratio)} tokens: "
            f"{span(e.speculation.speedup, _ratio)} x as fast as without"
        )
    if host is not None:
        shares = {"weights": host.weights_fraction, "the cache": host.cache_fraction}
        held = " and ".join(f"{span(share, percent)} of {what}" for what, share in shares.items() if np.any(share))
        rate = decimal(float(np.max(host.bytes_per_s)), "B/s")
        yield f"{held} on the host, which come at {rate} while the device works; host memory is not checked"
    if e.handover is not None:
        yield (
            f"prefill on {e.handover.case.layout.ranks} x {e.handover.case.gpu.title}; its cache takes "
            f"{span(e.transfer_s, seconds)} over {e.handover.link.name}, layer by layer, "
            f"{span(e.exposed_transfer_s, seconds)} of it after the first token"
        )


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _energy_and_cost(e: Estimate) -> Table:
    """Joules, watts and dollars, and whose price they rest on."""
    made = made_by(e)
    convention = " (design power x time)" if e.request.energy_convention == "tdp" else ""
    rows = [
        (f"energy per {made}{convention}", span(e.energy_per_token_j, lambda value: decimal(value, "J"))),
        ("mean power of all devices", span(e.power_w, lambda value: decimal(value, "W"))),
    ]
    if e.cost is not None:
        inputs = "input tokens" if isinstance(e.case.model, ModelSpec) else "samples"
        rows.append((f"a million {inputs}", span(e.cost.usd_per_million_input_tokens, dollars)))
        if e.case.model.causal:
            rows.append(("a million output tokens", span(e.cost.usd_per_million_output_tokens, dollars)))
        if e.cost.price.usd_per_kwh:
            rows.append((f"a kilowatt-hour (PUE {e.cost.price.pue:g})", dollars(e.cost.price.usd_per_kwh)))
        rows.append((f"a device for an hour ({e.cost.price.origin})", dollars(e.cost.price.usd_per_gpu_hour)))
    return Table(("energy and cost", ""), tuple(rows))


def _widened(case: Case) -> str:
    """How a device runs a precision for which it has no unit."""
    running = (case.running, *case.running.own_products.values())
    units = dict.fromkeys(next(p for p in way.gemm_peaks if p in case.gpu.peak_flops_per_s) for way in running)
    return (
        f"{case.gpu.name} has no unit as narrow as {case.precision.name}: weights are widened on the way in, "
        f"products run on {' and '.join(units)}"
    )


def _bases(e: Estimate) -> Iterator[str]:
    """What the intervals rest on: a line for each basis, with the metrics that it holds for."""
    shared: dict[str, list[str]] = {}
    for metric, word in _METRICS.items() if e.case.model.causal else (("prefill_s", "forward pass"),):
        shared.setdefault(e.bounds(metric).basis, []).append(word)
    level = percent(e.request.interval_level)
    yield from (f"{level} interval of {', '.join(words)}: {basis}" for basis, words in shared.items())


def span(value: Num, form: Callable[[float], str]) -> str:
    """One value, or the lowest and highest of an array."""
    low, high = float(np.min(value)), float(np.max(value))
    return form(low) if low == high else f"{form(low)} .. {form(high)}"


def _count(value: float) -> str:
    return f"{value:.0f}"
