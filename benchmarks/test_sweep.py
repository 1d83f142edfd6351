"""Sweeps against the budgets of docs/performance.md, each in a process of its own, on one core or on two.

Run with `pytest benchmarks --benchmark-enable`. Each prints its figure and fails beyond its budget.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

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


STREAMED = """
import resource, sys, time
import llm_perf_model as lpm

def main():
    start = time.perf_counter()
    folder = lpm.write_sweep(
        sys.argv[1], "test-13b", batch_size="1:{batches}", input_len="16:16000:16", output_len="1:400:4",
        executor=sys.argv[2])
    seconds = time.perf_counter() - start
    assert not folder.missing
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(seconds, peak * 1024, folder.size)

if __name__ == "__main__":
    main()
"""


def _streamed(batches: int, folder: Path, executor: str) -> tuple[float, float, float]:
    """Seconds, peak bytes of the largest process, and configurations of a sweep that is written."""
    program = folder.with_suffix(".py")
    program.write_text(STREAMED.format(batches=batches))
    command = [sys.executable, str(program), str(folder), executor]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak_bytes, count = map(float, done.stdout.split())
    return seconds, peak_bytes, count


def test_a_hundred_million_configurations_are_streamed(benchmark, tmp_path: Path) -> None:
    _, small_bytes, _ = _streamed(100, tmp_path / "small", "processes:2")
    found = benchmark.pedantic(_streamed, (1000, tmp_path / "large", "processes:2"), rounds=1)
    seconds, peak_bytes, count = found
    benchmark.extra_info.update(configurations_per_s=count / seconds, peak_bytes=peak_bytes)
    print(f"\n{count / seconds / 1e6:.2f} million/s, {peak_bytes / 1e6:.0f} MB resident at most in a process")
    assert count == 10**8
    assert count / seconds >= 1e6
    assert 2.0 * peak_bytes <= 1e9  # two workers; the process that waits for them holds less
    assert peak_bytes <= 1.2 * small_bytes


def _cluster(stack: ExitStack, workers: int) -> str:
    """The address of a Dask scheduler of so many workers, each a process with one thread."""

    def begun(kind: str, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-m", f"distributed.cli.dask_{kind}", *words]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
        stack.callback(process.communicate)
        stack.callback(process.kill)
        return process

    scheduler = begun("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-jupyter")
    address = next(m[1] for line in scheduler.stderr if (m := re.search(r"Scheduler at:\s+(tcp://\S+)", line)))
    for _ in range(workers):
        begun("worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(workers, timeout=60)
    return address


def test_two_workers_of_a_cluster_against_one(benchmark, tmp_path: Path) -> None:
    def seconds(workers: int, name: str) -> float:
        with ExitStack() as stack:
            address = _cluster(stack, workers)
            _streamed(10, tmp_path / f"warm-{name}", address)
            return _streamed(400, tmp_path / name, address)[0]

    pytest.importorskip("distributed")
    one = seconds(1, "one")
    two = benchmark.pedantic(seconds, (2, "two"), rounds=1)
    benchmark.extra_info.update(one_s=one, two_s=two)
    print(f"\n4e7 configurations: one worker {one:.1f} s, two {two:.1f} s, {one / two:.2f} times")
    assert one / two >= 1.7
