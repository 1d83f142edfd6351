"""Sensitivities and crossovers against the budgets of docs/performance.md.

Run with `pytest benchmarks --benchmark-enable`. Each prints its figure and fails beyond its budget.
"""

from __future__ import annotations

import pytest

import llm_perf_model as lpm

ANSWER_S = 50e-3
CASES = {
    "dense": {"model": "llama-3.1-70b", "gpu": "h100-sxm-80gb", "engine": "vllm", "tp": 4},
    "latent": {"model": "deepseek-v3", "gpu": "h200-sxm-141gb", "engine": "vllm", "tp": 8},
}


@pytest.mark.parametrize("asked", ["sensitivity", "crossovers"])
@pytest.mark.parametrize("case", list(CASES))
def test_one_answer(benchmark, asked: str, case: str) -> None:
    found = benchmark.pedantic(getattr(lpm, asked), kwargs=CASES[case], warmup_rounds=2, rounds=15)
    assert found.estimate.case.model.name == CASES[case]["model"]
    print(f"\n{asked}, {case}: {1e3 * benchmark.stats.stats.median:.1f} ms")
    assert benchmark.stats.stats.median <= ANSWER_S
