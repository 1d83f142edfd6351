"""Speed and memory against the budgets of docs/performance.md.

Run with `pytest benchmarks --benchmark-enable`. Each prints its figure and fails beyond its budget;
none is part of the test suite, because machines are noisy.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import llm_perf_model as lpm

INFER_PROCESS_S = 0.35
ESTIMATE_S = 300e-6
IMPORT_S = 1e-3
CONFIGS = Path(__file__).parents[1] / "tests" / "configs"
MESH_S, MESH_BYTES = 1.0, 500e6
PLAN_S, PLAN_PROCESS_S = 1.0, 2.0

MESH = """
import resource, sys, time
import numpy as np
import llm_perf_model as lpm
axes = np.meshgrid(np.arange(1.0, 101.0), np.arange(16.0, 1616.0, 16.0), np.arange(1.0, 401.0, 4.0),
                   indexing="ij", sparse=True)
lpm.estimate("test-13b").to_dict()
start = time.perf_counter()
e = lpm.estimate("test-13b", batch_size=axes[0], input_len=axes[1], output_len=axes[2])
fields = [e.total_s, e.ttft_s, e.tpot_s, e.throughput_tokens_per_s, e.memory.peak_bytes, e.fits, e.energy_j]
seconds = time.perf_counter() - start
assert all(np.broadcast_shapes(np.shape(f), (100, 100, 100)) == (100, 100, 100) for f in fields)
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def process_s(code: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *code], check=True, capture_output=True)
    return time.perf_counter() - start


def test_infer_process(benchmark) -> None:
    """A whole `infer` process, beside the import of numpy, pydantic and fire alone in the same run."""
    infer = ["-m", "llm_perf_model", "infer", "--model", "test-13b", "--tp", "2"]
    process_s(infer)
    floor_s = statistics.median(process_s(["-c", "import numpy, pydantic, fire"]) for _ in range(15))
    benchmark.pedantic(process_s, args=(infer,), rounds=15)
    benchmark.extra_info["imports_alone_s"] = floor_s
    assert benchmark.stats.stats.median <= INFER_PROCESS_S


def test_one_estimate(benchmark) -> None:
    def one() -> float:
        return float(lpm.estimate("test-13b", tp=2, batch_size=4, input_len=512, output_len=128).total_s)

    assert benchmark(one) > 0.0
    assert benchmark.stats.stats.median <= ESTIMATE_S


def test_import_of_a_config(benchmark) -> None:
    assert benchmark(lpm.import_hf, CONFIGS / "deepseek-v3.json").layer_count == 61
    assert benchmark.stats.stats.median <= IMPORT_S


def test_million_points_on_an_open_mesh(benchmark) -> None:
    def mesh() -> tuple[float, float]:
        done = subprocess.run([sys.executable, "-c", MESH], check=True, capture_output=True, text=True)
        seconds, peak_bytes = map(float, done.stdout.split())
        return seconds, peak_bytes

    figures = [mesh() for _ in range(4)]
    benchmark.pedantic(mesh, rounds=1)
    seconds = statistics.median(figure[0] for figure in figures)
    peak_bytes = max(figure[1] for figure in figures)
    benchmark.extra_info.update(seconds=seconds, peak_bytes=peak_bytes)
    print(f"\n1e6 points: {seconds:.2f} s, {peak_bytes / 1e6:.0f} MB resident at most")
    assert seconds <= MESH_S
    assert peak_bytes <= MESH_BYTES


def test_decode_cost_does_not_grow_with_output_length(benchmark) -> None:
    """Ratio in one run: 100,000 output tokens against 100."""

    def seconds(output_len: int) -> float:
        times = []
        for _ in range(300):
            start = time.perf_counter()
            float(lpm.estimate("aicrossim-clm-60m", input_len=16, output_len=output_len).total_s)
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    ratio = benchmark.pedantic(lambda: seconds(100_000) / seconds(100), rounds=1)
    assert ratio < 1.3


def test_plan_over_all_devices(benchmark) -> None:
    """One model on every device with a listed price, layouts of up to 16 devices, prefill and decode apart too."""

    def one() -> float:
        asked = {"requests_per_s": 20, "input_len": 1024, "output_len": 256, "ttft_s": 1.0, "tpot_s": 0.05}
        return float(lpm.plan("llama-3.1-8b", **asked).best.tpot_s)

    benchmark.pedantic(one, rounds=5, warmup_rounds=1)
    assert benchmark.stats.stats.median <= PLAN_S


def test_plan_process(benchmark) -> None:
    plan = [
        "-m",
        "llm_perf_model",
        "plan",
        "llama-3.1-8b",
        "--requests_per_s=20",
        "--input_len=1024",
        "--output_len=256",
    ]
    benchmark.pedantic(process_s, args=(plan,), rounds=5, warmup_rounds=1)
    assert benchmark.stats.stats.median <= PLAN_PROCESS_S
