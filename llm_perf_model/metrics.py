"""What a sweep may report of an estimate, by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final, Literal

from .errors import RequestError
from .estimate import MEMORY_PARTS, Estimate
from .units import binary_bytes, decimal, dollars, percent, seconds

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
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "throughput_tokens_per_s": "tokens/s",
    "energy_per_token_j": "J/token",
    "usd_per_million_output_tokens": "$/Mtok",
    "usd_per_request": "$/request",
    "hbm_bytes_per_s": "HBM",
    "flops_per_s": "FLOP/s",
    "link_bytes_per_s": "link",
    "batch_size": "batch",
    "input_len": "input",
    "output_len": "output",
}
_ENDINGS: Final[tuple[tuple[str, Callable[[float], str]], ...]] = (
    ("tokens_per_s", "{:.4g}".format),
    ("bytes_per_s", lambda value: decimal(value, "B/s")),
    ("flops_per_s", lambda value: decimal(value, "FLOP/s")),
    ("flops", lambda value: decimal(value, "FLOP")),
    ("bytes", binary_bytes),
    ("utilisation", percent),
    ("per_token_j", "{:.3g}".format),
    ("_s", seconds),
    ("_j", lambda value: decimal(value, "J")),
    ("_w", lambda value: decimal(value, "W")),
)
"""Ends of names -> how people read such a number."""


def label(name: str) -> str:
    """The head of a column of a field or a metric, for people."""
    ending = next((end for end in ("_bytes", "_s", "_j", "_w") if name.endswith(end)), "")
    return _LABELS.get(name, name.removesuffix(ending).replace("_", " "))


def shown(name: str, value: Any) -> str:
    """A value of a field or a metric, for people."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if name.startswith("usd") or name.endswith("_usd"):
        return dollars(value)
    return next((words(value) for end, words in _ENDINGS if name.endswith(end)), f"{value:.4g}")
