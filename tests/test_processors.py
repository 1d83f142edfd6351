"""Processors of cores: products on one core or on all, a last-level cache, and the engines that run on them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.blocks import begun_s, cached_s, operands_s, product_s
from llm_perf_model.ops.base import Cost, Product
from llm_perf_model.ops.convolution import Convolution
from llm_perf_model.rates import SQUARES, BlockRate, PassRate
from llm_perf_model.roofline import Work, walk
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.validation.run import held_against

from .strategies import powers

CPU = "ryzen-9-5950x"
ENGINES = ("pytorch-cpu", "pytorch-cpu-jit", "onnxruntime-cpu")
EVERY_ENGINE = pytest.mark.parametrize("engine", ENGINES)
NETWORKS = ("custom-cnn", "custom-fcn", "custom-lstm", "mobilenet-v3-large", "resnet18")
CORES = BlockRate(
    flops_per_s=1e6, load_bytes_per_s=float("inf"), depth_s=0.0, wave_s=0.0, split_s=0.0, start_s=0.0,
    splits=(1.0,), input_bytes=4.0, weight_bytes=4.0, tiles=((64.0, 48.0),), serial_flops=1e4, region_s=0.5,
)  # fmt: skip
LAST = PassRate(64e6, 1e12, 1e12, 1e12, last_level=True)


@cache
def estimate(network: str, engine: str, batch_size: int, device: GpuSpec | str = CPU) -> lpm.Estimate:
    return lpm.estimate(network, gpu=device, engine=engine, precision="fp32", batch_size=batch_size)


def time_s(network: str, engine: str, batch_size: int, **changed: Any) -> float:
    device = load(GpuSpec, CPU).model_copy(update=changed)
    return float(lpm.estimate(network, gpu=device, engine=engine, precision="fp32", batch_size=batch_size).total_s)


def work(network: str, engine: str, batch_size: int) -> list[Work]:
    e = estimate(network, engine, batch_size)
    (run,) = e.prefill.runs
    return list(walk(e.case.graph, e.case.machine, run))


# Products on cores.


@pytest.mark.parametrize(
    ("rows", "columns", "depth", "expected_s"),
    [
        (64, 48, 100, 100 * 2 * 64 * 48 / 1e6),  # one tile keeps one core busy, however deep
        (64, 49, 100, 100 * 2 * 64 * 48 / 1e6),  # two tiles on two of four cores
        (16, 192, 100, 100 * 2 * 16 * 48 / 1e6),  # rows are not padded, columns are
        (64, 240, 100, 2 * 100 * 2 * 64 * 48 / 1e6),  # five tiles on four cores
        (64, 64, 1, 2 * 2 * 64 * 48 / 1e6),  # 8192 FLOPs stay on one core: its two tiles follow each other
    ],
)
def test_a_product_on_four_cores_by_hand(rows: int, columns: int, depth: int, expected_s: float) -> None:
    product = Product(float(rows), float(columns), float(depth))
    assert product_s(product, CORES, 4.0) == pytest.approx(expected_s, rel=1e-15)


def test_threads_wake_for_products_that_cores_share() -> None:
    """2 x 10 x 10 x 50 = 10000 FLOPs are the most that one core keeps."""
    rate = CORES._replace(start_s=0.25)
    assert begun_s(Product(10.0, 10.0, 50.0), rate) == 0.25
    assert begun_s(Product(10.0, 10.0, 51.0), rate) == 0.75
    depths = np.array([50.0, 51.0])
    assert np.array_equal(begun_s(Product(10.0, 10.0, depths), rate), [0.25, 0.75])
    both = [product_s(Product(100.0, 100.0, depth), CORES, 4.0) for depth in depths.tolist()]
    assert np.array_equal(product_s(Product(100.0, 100.0, depths), CORES, 4.0), both)


# The last-level cache.


@pytest.mark.parametrize(("hbm_bytes", "held"), [(1e6, 1.0), (32e6, 1.0), (48e6, 0.5), (64e6, 0.0), (1e9, 0.0)])
def test_the_last_level_gives_way_between_half_and_all_of_it(hbm_bytes: float, held: float) -> None:
    memory_s = hbm_bytes / 1e10
    expected_s = (1.0 - held) * memory_s + held * hbm_bytes / 1e12
    assert cached_s(hbm_bytes, memory_s, LAST) == pytest.approx(expected_s, rel=1e-12)


@given(powers(3.0, 10.0), powers(3.0, 10.0), powers(8.0, 13.0), st.booleans())
def test_a_cache_never_slows_a_kernel(weights: float, activations: float, bytes_per_s: float, last: bool) -> None:
    cost = Cost(weight_bytes=weights, activation_bytes=activations)
    memory_s = cost.hbm_bytes / bytes_per_s
    rate = LAST._replace(last_level=last)
    assert cached_s(activations, memory_s, rate) <= memory_s
    found_s = operands_s(cost, memory_s, rate)
    assert weights / bytes_per_s * (1 - 1e-12) <= found_s <= memory_s * (1 + 1e-12)
    if not last:
        assert found_s == memory_s  # elsewhere operands of products are memory traffic, as ever


@given(powers(3.0, 9.0), powers(0.0, 2.0))
def test_more_bytes_never_take_less_time(some: float, times: float) -> None:
    assert cached_s(some, some / 1e10, LAST) <= cached_s(some * times, some * times / 1e10, LAST) * (1 + 1e-12)


# What the engines make of it.


@EVERY_ENGINE
@pytest.mark.parametrize("network", NETWORKS)
def test_no_operator_is_above_the_peaks_of_the_device(network: str, engine: str) -> None:
    device = load(GpuSpec, CPU)
    for batch_size in (1, 32):
        for node, cost, timing in work(network, engine, batch_size):
            flops = float(cost.flops)
            assert flops <= device.peak_flops_per_s["vector_fp32"] * float(timing.device_s), node.name
            least_s = float(cost.weight_bytes) / device.hbm_bytes_per_s
            assert least_s <= float(timing.device_s) * (1 + 1e-12), node.name


@EVERY_ENGINE
@pytest.mark.parametrize("network", NETWORKS)
def test_time_falls_with_cores_bandwidth_and_cache(network: str, engine: str) -> None:
    peaks = load(GpuSpec, CPU).peak_flops_per_s
    twice = {name: 2.0 * peak for name, peak in peaks.items()}
    base_s = time_s(network, engine, 32)
    for better in ({"sms": 32, "peak_flops_per_s": twice}, {"hbm_bytes_per_s": 102.4e9}, {"l2_bytes": 128.0 * 2**20}):
        assert time_s(network, engine, 32, **better) <= base_s * (1 + 1e-12), better
    assert time_s(network, engine, 32, sms=32, peak_flops_per_s=twice, hbm_bytes_per_s=102.4e9) < base_s


def test_small_products_are_flat_once_threads_wake_for_them() -> None:
    """300 cells of an LSTM: a step stays on one core at batch 1, and wakes all at 16, whatever the batch."""
    one, few, many = (float(estimate("custom-lstm", "pytorch-cpu", n).total_s) for n in (1, 16, 64))
    assert few > 4.0 * one
    assert many < 1.3 * few


def test_folded_norms_leave_only_their_passes_out() -> None:
    eager, frozen = ({w.node.name for w in work("resnet18", name, 1)} for name in ("pytorch-cpu", "pytorch-cpu-jit"))
    assert frozen < eager
    assert eager - frozen == {name for name in eager if name.endswith(".norm")}


def test_groups_one_after_the_other_count_for_each_sample() -> None:
    engine = load(EngineSpec, "onnxruntime-cpu")
    assert engine.group_s is not None
    together = engine.model_copy(update={"group_s": None})
    groups = {w.node.op.groups for w in work("resnet18", "onnxruntime-cpu", 8) if isinstance(w.node.op, Convolution)}
    assert groups == {1.0}
    nodes = [w.node.op for w in work("mobilenet-v3-large", "onnxruntime-cpu", 8)]
    number = sum(op.groups for op in nodes if isinstance(op, Convolution) and op.groups > 1.0)
    found = [
        float(lpm.estimate("mobilenet-v3-large", gpu=CPU, engine=e, precision="fp32", batch_size=8).total_s)
        for e in (engine, together)
    ]
    assert found[0] - found[1] == pytest.approx(8 * number * engine.group_s, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in names(KernelSpec) if name != "zen3"])
def test_other_devices_keep_their_tiles_and_their_cache(name: str) -> None:
    kernels = load(KernelSpec, name)
    assert not kernels.last_level_cache and kernels.recurrent.step_s is not None
    assert all((g.tiles, g.splits, g.serial_flops) == (None, True, None) for g in (kernels.gemm, kernels.vector_gemm))
    assert BlockRate(*[1.0] * 6, splits=(1.0,), input_bytes=4.0, weight_bytes=4.0).tiles == SQUARES


def test_the_records_of_this_processor() -> None:
    """82 timed cells of seven networks; the errors only go down."""
    scores = held_against(["records/model_optimisations_rtx3080ti.csv"]).scores
    errors = np.abs([s.error for s in scores if s.mapped.engine in ENGINES])
    assert len(errors) == 82
    assert np.median(errors) < 0.096
    assert np.quantile(errors, 0.9) < 0.25
