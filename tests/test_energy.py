from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.energy import tdp_energy_j
from llm_perf_model.rates import Machine

from .strategies import machines


@given(machines(), st.integers(1, 64), st.floats(0.0, 1e3))
def test_energy_is_ranks_times_tdp_times_time(m: Machine, ranks: int, time_s: float) -> None:
    assert tdp_energy_j(m, ranks, time_s) == pytest.approx(ranks * 300.0 * time_s, rel=1e-15)
    assert tdp_energy_j(m, ranks, np.array([time_s, 2.0])).tolist() == [tdp_energy_j(m, ranks, t) for t in (time_s, 2)]


@pytest.mark.parametrize(("tp", "dp"), [(1, 1), (2, 1), (2, 3)])
def test_energy_of_an_estimate_counts_every_device(tp: int, dp: int) -> None:
    e = lpm.estimate("test-13b", tp=tp, dp=dp, batch_size=4, output_len=9)
    assert e.energy_j == pytest.approx(tp * dp * 400.0 * e.total_s, rel=1e-12)
    assert e.energy_per_token_j == pytest.approx(e.energy_j / (dp * 4 * 9), rel=1e-12)
    assert e.energy_per_token_j * e.throughput_tokens_per_s == pytest.approx(tp * dp * 400.0, rel=1e-12)
