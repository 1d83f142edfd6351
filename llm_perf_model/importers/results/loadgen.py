"""Summaries of MLPerf LoadGen, `mlperf_log_summary.txt` [1]_.

A summary states no version, model, device or lengths: the user states the last three. Read are runs of performance;
times of tokens are there where LoadGen was asked for them. `samples_per_query` is the batch where queries come one
after the other.

.. [1] https://github.com/mlcommons/inference, loadgen/results.cc
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..stated import Stated
from .result import Result
from .tool import known, over_requests, text, tools

_MARKS: Final = frozenset({"SUT name", "Scenario", "Mode"})
_SCENARIOS: Final = ("SingleStream", "MultiStream", "Server", "Offline")
_PERFORMANCE: Final = ("PerformanceOnly", "Performance")
_IN_TURN: Final = ("SingleStream", "MultiStream")
"""Scenarios whose queries come one after the other."""

_MS: Final = 1e-6
"""Milliseconds in a nanosecond."""

_FIRST: Final = "First Token latency (ns)", "first token latency (ns)"
_NEXT: Final = "Time to Output Token (ns)", "time to output token (ns)"


def recognises(data: Mapping[str, Any]) -> bool:
    """Whether a file is one of these."""
    return data.keys() >= _MARKS


def results(where: str, data: Mapping[str, Any]) -> Iterator[Result]:
    """Samples and tokens per second, and times of queries and tokens."""
    tool = tools()["loadgen"]
    stated = tool.stated(where, data)
    scenario = (text(stated, "Scenario") or "").replace(" ", "")
    if scenario not in _SCENARIOS:
        raise stated.refuse(f"Scenario is {scenario!r}, known are {', '.join(_SCENARIOS)}")
    mode = text(stated, "Mode")
    if mode not in _PERFORMANCE:
        raise stated.refuse(f"Mode is {mode}, which measures no performance; must be PerformanceOnly")
    run = tool.run(where, batch=_batch(stated, scenario), extra=_load(stated, scenario))
    per_s = _first_of(stated, "Samples per second", "Completed samples per second")
    tokens_per_s = _first_of(stated, "Tokens per second", "Completed tokens per second")
    if tokens_per_s is not None:
        yield run.measured("throughput_tok_s", tokens_per_s, "tok/s")
    elif per_s is not None:
        yield run.measured("throughput", per_s, "img/s")
    if scenario in _IN_TURN:
        keys = ("50.00 percentile latency (ns)", "Mean latency (ns)", "99.00 percentile latency (ns)")
        yield from over_requests(run, stated, "latency_ms", keys, _MS)
    for metric, (mean, at) in {"ttft_ms": _FIRST, "tpot_ms": _NEXT}.items():
        keys = (f"50.00 percentile {at}", f"Mean {mean}", f"99.00 percentile {at}")
        yield from over_requests(run, stated, metric, keys, _MS)


def _first_of(stated: Stated, *keys: str) -> float | None:
    return next((value for value in (known(stated, key) for key in keys) if value is not None), None)


def _batch(stated: Stated, scenario: str) -> int | None:
    return stated.count("samples_per_query") if scenario in _IN_TURN else None


def _load(stated: Stated, scenario: str) -> dict[str, Any]:
    told = {
        "scenario": scenario,
        "request_rate": "inf" if scenario == "Offline" else known(stated, "Scheduled samples per second"),
        "concurrency": 1 if scenario == "SingleStream" else None,
        "result": stated.fields.get("Result is"),
    }
    return {key: item for key, item in told.items() if item is not None}
