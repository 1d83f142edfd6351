"""Sweeps against the budgets of docs/performance.md, each in a process of its own, on one core.

Run with `pytest benchmarks --benchmark-enable`. Each prints its figure and fails beyond its budget.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest

MESH = 'lpm.sweep("test-13b", batch_size="1:100", input_len="16:1600:16", output_len="1:400:4")'
FLAT = (
    'lpm.sweep("test-13b", points={n: r.integers(1, 2000, 10**6) for n in ("batch_size", "input_len", "output_len")})'
)
CASES = """lpm.sweep(
    ["llama-3.1-8b", "llama-2-7b", "test-13b", "opt-1.3b", "mistral-7b-v0.1"], gpu=lpm.gpus()[:50],
    engine=["vllm", "tensorrt-llm", "fastertransformer", "deepspeed-mii", "ideal"], precision=["w16a16", "w8a16"],
    tp=[1, 2, 4, 8], batch_size="1:10",
    input_len="100:1000:100", output_len=128)"""

PROGRAM = """
import resource, sys, time
import numpy as np
import llm_perf_model as lpm
r = np.random.default_rng(1)
lpm.estimate("test-13b").to_dict()
start = time.perf_counter()
found = {sweep}
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, found.size)
"""


@pytest.mark.parametrize(
    ("sweep", "size", "budget_s", "budget_bytes"),
    [(MESH, 10**6, 1.0, 400e6), (FLAT, 10**6, 2.0, 500e6), (CASES, 10**6, 20.0, 500e6)],
    ids=["mesh", "flat", "cases"],
)
def test_a_million_configurations(benchmark, sweep: str, size: int, budget_s: float, budget_bytes: float) -> None:
    def figures() -> tuple[float, float, float]:
        code = PROGRAM.format(sweep=sweep)
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        seconds, peak_bytes, count = map(float, done.stdout.split())
        return seconds, peak_bytes, count

    found = [figures() for _ in range(2)]
    benchmark.pedantic(figures, rounds=1)
    seconds, peak_bytes = statistics.median(each[0] for each in found), max(each[1] for each in found)
    benchmark.extra_info.update(seconds=seconds, peak_bytes=peak_bytes)
    print(f"\n{size:.0e} configurations: {seconds:.2f} s, {peak_bytes / 1e6:.0f} MB resident at most")
    assert all(each[2] == size for each in found)
    assert seconds <= budget_s
    assert peak_bytes <= budget_bytes
