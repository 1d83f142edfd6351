"""Cost of intervals beside that of an estimate; a ratio within one run, since machines are noisy.

Run with `pytest benchmarks --benchmark-enable`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import llm_perf_model as lpm
from llm_perf_model.estimate import INTERVALS

SHARE = 0.1
"""Of the time of an estimate, for the bounds of all its metrics."""


def seconds(call: Callable[[], object]) -> float:
    """Median of many calls."""
    times = []
    for _ in range(500):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def test_bounds_of_all_metrics(benchmark) -> None:
    def one() -> lpm.Estimate:
        return lpm.estimate("test-13b", tp=2, batch_size=4, input_len=512, output_len=128)

    def bounds() -> list[object]:
        return [e.bounds(metric) for metric in INTERVALS]

    e = one()
    shares = [seconds(bounds) / seconds(lambda: one().total_s) for _ in range(5)]
    benchmark.pedantic(lambda: e.interval, rounds=5)
    benchmark.extra_info["share_of_an_estimate"] = statistics.median(shares)
    print(f"\nbounds of {len(INTERVALS)} metrics: {statistics.median(shares):.1%} of an estimate")
    assert statistics.median(shares) < SHARE
