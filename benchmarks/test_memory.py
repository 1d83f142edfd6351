"""Memory, the frontier and what else would fit, as ratios to one estimate in the same run; see docs/performance.md."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import llm_perf_model as lpm
from llm_perf_model.peak import memory
from llm_perf_model.sizing import Point, alternatives

CASE = lpm.estimate("test-13b", tp=2).case

MEMORY_SHARE = 0.15
FRONTIER_ESTIMATES = 4.0
ALTERNATIVES_ESTIMATES = 100.0


def median_s(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def estimate_s() -> float:
    return median_s(lambda: lpm.estimate("test-13b", tp=2, batch_size=4).total_s, 300)


def test_memory_of_one_workload(benchmark) -> None:
    """The peak by part, beside one estimate of time."""
    share = benchmark.pedantic(
        lambda: median_s(lambda: memory(CASE.allocation, 4.0, 512.0, 128.0), 300) / estimate_s(), rounds=3
    )
    assert share <= MEMORY_SHARE


def test_largest_batch(benchmark) -> None:
    """A bisection over thirty-two peaks."""

    def one() -> object:
        return lpm.estimate("test-13b", tp=2, batch_size=4).max_batch_size

    ratio = benchmark.pedantic(lambda: median_s(one, 100) / estimate_s(), rounds=3)
    assert ratio <= FRONTIER_ESTIMATES


def test_what_would_fit(benchmark) -> None:
    """Layouts, precisions and devices, with their cases built anew."""
    point = Point(200.0, 512.0, 32.0)
    ratio = benchmark.pedantic(lambda: median_s(lambda: alternatives(CASE, point), 5) / estimate_s(), rounds=1)
    assert ratio <= ALTERNATIVES_ESTIMATES
