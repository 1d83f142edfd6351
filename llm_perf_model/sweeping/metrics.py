"""What a sweep may report of an estimate, by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal

from ..errors import RequestError
from ..estimate import MEMORY_PARTS, Estimate

Kind = Literal["number", "mask", "text"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A number, a mask or a word of an estimate, and whether more of it is better."""

    name: str
    read: Callable[[Estimate], Any]
    kind: Kind = "number"
    more_is_better: bool = False


_MORE: Final = frozenset(
    {"throughput_tokens_per_s", "max_batch_size", "fits", "capacity_bytes", "limit_bytes", "expected_tokens_per_step"}
)
_OWN: Final = (
    "prefill_s", "decode_step_s", "decode_s", "total_s", "ttft_s", "tpot_s", "period_s", "time_per_sample_s",
    "throughput_tokens_per_s", "expected_tokens_per_step", "max_batch_size", "energy_j", "energy_per_token_j",
    "energy_per_request_j", "power_w",
)  # fmt: skip
_COST: Final = (
    "usd_per_hour", "usd", "usd_per_request", "usd_per_million_input_tokens", "usd_per_million_output_tokens",
)  # fmt: skip
_PHASE: Final = ("flops", "hbm_bytes", "comm_bytes", "flops_utilisation", "bandwidth_utilisation")


def _paid(name: str) -> Callable[[Estimate], Any]:
    """A part of the cost; no number where no price is known."""
    read = attrgetter(name)
    return lambda estimate: float("nan") if estimate.cost is None else read(estimate.cost)


def _all() -> Iterable[Metric]:
    for name in _OWN:
        yield Metric(name, attrgetter(name), more_is_better=name in _MORE)
    for name in ("fits", "extrapolated"):
        yield Metric(name, attrgetter(name), "mask", name in _MORE)
    for name in MEMORY_PARTS:
        yield Metric(name, attrgetter(f"memory.{name}"), more_is_better=name in _MORE)
    for name in _COST:
        yield Metric(name, _paid(name))
    for phase in ("prefill", "decode"):
        for name in _PHASE:
            yield Metric(f"{phase}_{name}", attrgetter(f"{phase}.{name}"), more_is_better=name.endswith("utilisation"))
        yield Metric(f"{phase}_bound", attrgetter(f"{phase}.bound"), "text")


METRICS: Final = {metric.name: metric for metric in _all()}

DEFAULT_METRICS: Final = (
    "ttft_s", "tpot_s", "total_s", "throughput_tokens_per_s", "peak_bytes", "fits", "extrapolated",
    "energy_per_token_j", "usd_per_million_output_tokens",
)  # fmt: skip
"""Those of a sweep that names none."""


def metrics_of(names: str | Iterable[str] | None) -> tuple[Metric, ...]:
    """The metrics of these names, each once; `fits` and `extrapolated`, which say what can run, are always there.

    Raises:
        RequestError: a name is unknown.
    """
    given = names.split(",") if isinstance(names, str) else DEFAULT_METRICS if names is None else list(names)
    wanted = dict.fromkeys([*(str(name).strip() for name in given), "fits", "extrapolated"])
    return tuple(metric(name) for name in wanted)


def metric(name: str, known: Iterable[str] = METRICS) -> Metric:
    """The metric of a name, which is to be among those known.

    Raises:
        RequestError: it is not.
    """
    words = list(known)
    if name in words:
        return METRICS[name]
    near = difflib.get_close_matches(name, words, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(words)}"
    raise RequestError(f"{name} is not a known metric" + hint)


_LABELS: Final = {
    "ttft_s": "TTFT ms",
    "tpot_s": "TPOT ms",
    "throughput_tokens_per_s": "tokens/s",
    "energy_per_token_j": "J/token",
    "usd_per_million_output_tokens": "$/Mtok",
    "usd_per_request": "$/req",
    "hbm_bytes_per_s": "HBM GB/s",
    "flops_per_s": "TFLOP/s",
    "link_bytes_per_s": "link GB/s",
    "batch_size": "batch",
    "input_len": "input",
    "output_len": "output",
}
_SCALES: Final[tuple[tuple[str, str, float], ...]] = (
    ("_tokens_per_s", "tokens/s", 1.0),
    ("_bytes_per_s", "GB/s", 1e9),
    ("flops_per_s", "TFLOP/s", 1e12),
    ("_flops", "TFLOP", 1e12),
    ("_bytes", "GiB", 2.0**30),
    ("_utilisation", "%", 0.01),
    ("_s", "ms", 1e-3),
    ("_j", "J", 1.0),
    ("_w", "W", 1.0),
)
"""Ends of names -> the unit of a column of such numbers, and how much it is."""


def label(name: str) -> str:
    """The head of a column of a field or a metric, with its unit, for people."""
    ending, unit, _ = _scale(name)
    return _LABELS.get(name) or f"{name.removesuffix(ending).replace('_', ' ')} {unit}".strip()


_WORDS: Final = {
    "ttft_s": "time to first token, ms",
    "tpot_s": "time per output token, ms",
    "throughput_tokens_per_s": "throughput, output tokens/s",
    "energy_per_token_j": "energy of an output token, J",
    "usd_per_million_output_tokens": "US dollars per million output tokens",
    "hbm_bytes_per_s": "memory bandwidth, GB/s",
    "flops_per_s": "peak, TFLOP/s",
    "link_bytes_per_s": "link, GB/s",
    "batch_size": "batch size",
    "input_len": "prompt tokens",
    "output_len": "output tokens",
    "tp": "tensor-parallel ranks",
}


def words(name: str) -> str:
    """A field or a metric with its unit, as the axis of a picture is called."""
    ending, unit, _ = _scale(name)
    plain = name.removesuffix(ending).replace("_", " ")
    return _WORDS.get(name) or (f"{plain}, {unit}" if unit else plain)


def unit_of(name: str) -> float:
    """How much one of the unit of `label` and `words` is, in SI units."""
    return _scale(name)[2]


def shown(name: str, value: Any) -> str:
    """A value of a field or a metric in the unit of its column."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    number = value / _scale(name)[2]
    return f"{number:.0f}" if abs(number) >= MANY else f"{number:.3g}"


MANY: Final = 1000.0
"""Numbers from which on no digits after the point are shown."""


def _scale(name: str) -> tuple[str, str, float]:
    return next((scale for scale in _SCALES if name.endswith(scale[0])), ("", "", 1.0))
