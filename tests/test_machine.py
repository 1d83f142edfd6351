from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.errors import InfeasibleError
from llm_perf_model.machine import Connection, gemm_peak, machine
from llm_perf_model.rates import Exchange, Machine, Power, Tile, with_efficiencies, with_power_limit
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec, Peak
from llm_perf_model.specs.kernels import KernelRates, KernelSpec
from llm_perf_model.specs.link import LinkSpec
from llm_perf_model.specs.power import PowerSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .strategies import DRAWN, NARROW, PRECISIONS, collectives, engines, gpus, kernel_rates, precisions_on

A100 = load(GpuSpec, "a100-sxm-40gb")
H100 = load(GpuSpec, "h100-sxm-80gb")
IDEAL = load(EngineSpec, "ideal")
FUSED = load(EngineSpec, "generic-fused")
AMPERE = load(KernelSpec, "ampere")
HALF = load(PrecisionSpec, "w16a16")
FULL = load(PrecisionSpec, "fp32")
NVLINK = load(LinkSpec, "nvlink-3")
DRAW = PowerSpec(
    name="drawn",
    title="Drawn",
    assumed=DRAWN,
    idle_fraction=0.2,
    flops_fraction=0.5,
    bytes_fraction=0.75,
    link_fraction=0.1,
)
LAYERS = 12
ON_H100 = tuple(name for name in NARROW if gemm_peak(H100, load(PrecisionSpec, name)) is not None)


def of(
    engine: EngineSpec,
    peak: Peak = "tensor_fp16",
    connection: Connection | None = None,
    precision: PrecisionSpec = HALF,
    gpu: GpuSpec = A100,
    kernels: KernelRates = AMPERE,
    power: PowerSpec = DRAW,
) -> Machine:
    return machine(gpu, engine, kernels, precision, peak, LAYERS, connection, power)


@given(st.data(), gpus(), engines(), kernel_rates())
def test_no_kernel_is_faster_than_the_datasheet(
    data: st.DataObject, gpu: GpuSpec, engine: EngineSpec, kernels: KernelRates
) -> None:
    precision = data.draw(precisions_on(gpu))
    peak = gemm_peak(gpu, precision)
    assert peak is not None
    m = of(engine, peak, None, precision, gpu, kernels)
    assert m.peak_flops_per_s == gpu.peak_flops_per_s[peak]
    wide = next((gpu.peak_flops_per_s[p] for p in precision.wide_gemm_peaks if p in gpu.peak_flops_per_s), None)
    fastest = {"gemm": m.peak_flops_per_s, "wide_gemm": wide or m.peak_flops_per_s}
    filters = next((gpu.peak_flops_per_s[p] for p in precision.convolution_peaks if p in gpu.peak_flops_per_s), None)
    fastest |= {"expert_gemm": fastest["gemm"], "convolution": filters or m.peak_flops_per_s}
    fastest |= dict.fromkeys(("attention", "slow_attention"), fastest["wide_gemm"])
    for kind, flops_per_s in fastest.items():
        assert m.rates[kind].flops_per_s <= flops_per_s
    for kind, rate in m.blocks.items():
        assert m.sms * rate.flops_per_s <= fastest[kind] * (1.0 + 1e-12)
    if m.attention is not None:
        assert m.sms * 4.0 / m.attention.row_s <= fastest["attention"] * (1.0 + 1e-12)
    for rate in m.rates.values():
        assert rate.hbm_bytes_per_s <= m.peak_hbm_bytes_per_s == gpu.hbm_bytes_per_s


@given(gpus(), engines(), kernel_rates())
def test_the_rest_is_the_datasheets_and_the_engines(gpu: GpuSpec, engine: EngineSpec, kernels: KernelRates) -> None:
    m = of(engine, "vector_fp32", None, FULL, gpu, kernels)
    assert (m.power.idle_w, m.power.design_w, m.power.limit_w) == (0.2 * gpu.tdp_w, gpu.tdp_w, gpu.tdp_w)
    start_s = kernels.kernel_start_s if engine.kernel_start_s is None else engine.kernel_start_s
    assert (m.kernel_start_s, m.dispatch_s, m.step_s) == (start_s, engine.dispatch_s, engine.step_s)
    assert (m.synchronous, m.sequence_s, m.request_s) == (engine.synchronous, engine.sequence_s, engine.request_s)
    assert m.sms == gpu.sms
    assert m.attention_blocks == (0.0 if engine.attention_split else gpu.sms)
    assert m.has_blocks == (not engine.attention_split)
    assert m.staged_bytes_per_s == engine.staged_bytes_per_s


@given(engines(flat=True), kernel_rates())
def test_each_efficiency_of_a_flat_engine_scales_its_own_rate(engine: EngineSpec, kernels: KernelRates) -> None:
    """Its own where it has one, else the generation's times the engine's ratio, never above 1."""
    m = of(engine, kernels=kernels)

    def memory(own: float | None, generation: float) -> float:
        return 1.555e12 * (own or min(generation * (engine.memory_ratio or 1.0), 1.0))

    compute = engine.attention_compute_efficiency
    generation = min(kernels.attention.compute_efficiency * (engine.compute_ratio or 1.0), 1.0)
    product_flops_per_s = 312e12 * (engine.gemm_compute_efficiency or 0.0)
    product_memory = memory(engine.gemm_memory_efficiency, kernels.gemm.memory_efficiency)
    for kind in ("gemm", "wide_gemm"):
        assert m.rates[kind] == pytest.approx((product_flops_per_s, product_memory), rel=1e-12)
    expert_memory = memory(engine.gemm_memory_efficiency, kernels.experts.memory_efficiency)
    assert m.rates["expert_gemm"] == pytest.approx((product_flops_per_s, expert_memory), rel=1e-12)
    attention_memory = memory(engine.attention_memory_efficiency, kernels.attention.memory_efficiency)
    assert m.rates["attention"] == pytest.approx((312e12 * (compute or generation), attention_memory), rel=1e-12)
    slow = engine.slow_attention_memory_efficiency
    assert slow is not None
    assert m.rates["slow_attention"] == (m.rates["attention"].flops_per_s, 1.555e12 * slow)
    elementwise = memory(engine.elementwise_memory_efficiency, kernels.elementwise.memory_efficiency)
    assert m.rates["elementwise"] == pytest.approx((19.5e12, elementwise), rel=1e-12)
    assert (m.blocks, m.experts, m.attention, m.passes) == ({}, None, None, None)


@given(engines(flat=False), kernel_rates())
def test_an_engine_without_a_flat_rate_has_the_blocks_of_its_kernels(engine: EngineSpec, kernels: KernelRates) -> None:
    m, hz, ratio = of(engine, kernels=kernels), A100.boost_hz, engine.compute_ratio or 1.0
    reached = min(kernels.gemm.compute_efficiency * ratio, 1.0)
    for rate in m.blocks.values():
        assert rate.flops_per_s * 108 == pytest.approx(312e12 * reached, rel=1e-12)
        assert rate.load_bytes_per_s == kernels.gemm.load_bytes_per_cycle * hz
        assert (rate.depth_s, rate.wave_s, rate.split_s) == (0.0, kernels.gemm.wave_s, kernels.gemm.split_s)
        assert (rate.start_s, rate.splits) == (0.0, (1.0, 4.0, 16.0))
        assert (rate.input_bytes, rate.weight_bytes) == (2.0, 2.0)
    assert m.blocks.keys() == {"gemm", "wide_gemm"}
    experts, gemm = m.experts, m.blocks["gemm"]
    assert experts is not None
    assert experts.block.flops_per_s == gemm.flops_per_s
    assert experts.block.load_bytes_per_s == gemm.load_bytes_per_s * kernels.experts.load_ratio
    assert (experts.block.start_s, experts.widened_s) == (kernels.experts.start_s, 0.0)
    assert [(tile.rows, tile.columns) for tile in experts.tiles] == [(16.0, 64.0), (128.0, 128.0)]
    assert experts.tiles[-1] == Tile(128.0, 128.0)
    assert bool(experts.tuned_shapes) == (kernels.experts.tuned is not None)
    a, k = m.attention, kernels.attention
    assert a is not None
    assert (a.query_rows, a.key_rows, a.wave_s, a.padded) == (
        k.query_rows,
        k.key_rows,
        k.wave_s,
        engine.attention_padded,
    )
    attended = engine.attention_compute_efficiency or min(k.compute_efficiency * ratio, 1.0)
    assert 4.0 / a.row_s * 108 == pytest.approx(312e12 * attended, rel=1e-12)
    assert a.exponential_s == pytest.approx(k.exposed_exponentials / (16 * hz), rel=1e-12)
    assert a.load_bytes_per_s == k.load_bytes_per_cycle * hz
    assert a.splits == (32.0 if engine.attention_split and not engine.attention_padded else 1.0)
    assert m.passes is not None
    of_a_cycle = kernels.elementwise
    assert not m.passes.last_level
    assert m.passes[:4] == pytest.approx(
        (
            A100.l2_bytes,
            108 * hz * of_a_cycle.cache_bytes_per_cycle,
            108 * hz * of_a_cycle.row_values_per_cycle,
            108 * hz * of_a_cycle.gathered_values_per_cycle,
        ),
        rel=1e-12,
    )


def test_vector_units_have_kernels_of_their_own() -> None:
    tensor, vector = (of(FUSED, peak) for peak in ("tensor_fp16", "vector_fp32"))
    assert AMPERE.gemm != AMPERE.vector_gemm
    for m, kernels, flops_per_s in ((tensor, AMPERE.gemm, 312e12), (vector, AMPERE.vector_gemm, 19.5e12)):
        assert m.blocks["gemm"].wave_s == kernels.wave_s
        assert m.blocks["gemm"].flops_per_s * 108 == pytest.approx(flops_per_s * kernels.compute_efficiency, rel=1e-12)
        assert m.rates["gemm"].hbm_bytes_per_s == 1.555e12 * kernels.memory_efficiency


# Precisions.


@pytest.mark.parametrize("name", ON_H100)
def test_products_of_a_narrow_precision_and_those_that_stay_wide(name: str) -> None:
    """Blocks of the layers' products load narrow operands on their unit; attention and the head keep the wide one."""
    precision = load(PrecisionSpec, name)
    peak = gemm_peak(H100, precision)
    assert peak is not None
    hopper = load(KernelSpec, H100.generation)
    m = of(FUSED, peak, None, precision, H100, hopper)
    narrow, wide = m.blocks["gemm"], m.blocks["wide_gemm"]
    assert (narrow.input_bytes, narrow.weight_bytes) == (precision.read_bytes, precision.weight_bytes)
    assert (wide.input_bytes, wide.weight_bytes) == (2.0, 2.0)
    scheme = hopper.schemes.get(precision.scheme)
    reached = hopper.gemm.compute_efficiency if scheme is None else scheme.compute_efficiency
    assert narrow.flops_per_s * 132 == pytest.approx(H100.peak_flops_per_s[peak] * reached, rel=1e-12)
    half = H100.peak_flops_per_s["tensor_fp16"]
    assert wide.flops_per_s * 132 == pytest.approx(half * hopper.gemm.compute_efficiency, rel=1e-12)
    assert m.rates["attention"].flops_per_s == half * hopper.attention.compute_efficiency
    if precision.wide_gemm_peaks:
        assert H100.peak_flops_per_s[peak] == pytest.approx(2.0 * half, rel=0.01)


@given(kernel_rates(), st.sampled_from(ON_H100))
def test_a_scheme_changes_what_its_kernels_state_and_nothing_else(kernels: KernelRates, name: str) -> None:
    precision = load(PrecisionSpec, name)
    peak = gemm_peak(H100, precision)
    assert peak is not None
    m, hz = of(FUSED, peak, None, precision, H100, kernels), H100.boost_hz
    scheme, rate = kernels.schemes.get(precision.scheme), m.blocks["gemm"]
    gemm, wide_memory = kernels.gemm, H100.hbm_bytes_per_s * kernels.gemm.memory_efficiency
    assert m.rates["wide_gemm"].hbm_bytes_per_s == wide_memory
    assert (rate.wave_s, rate.split_s) == (gemm.wave_s, gemm.split_s)
    if scheme is None:
        assert (rate.depth_s, rate.start_s, rate.splits) == (0.0, 0.0, (1.0, 4.0, 16.0))
        assert m.rates["gemm"].hbm_bytes_per_s == wide_memory
        return
    assert rate.depth_s == pytest.approx((scheme.depth_cycles or 0.0) / hz, rel=1e-12)
    assert rate.start_s == (scheme.start_s or 0.0)
    assert rate.splits == ((1.0, 4.0, 16.0) if scheme.splits else (1.0,))
    memory = gemm.memory_efficiency if scheme.memory_efficiency is None else scheme.memory_efficiency
    assert m.rates["gemm"].hbm_bytes_per_s == H100.hbm_bytes_per_s * memory
    experts, narrow = m.experts, kernels.experts.schemes.get(precision.scheme)
    assert experts is not None
    assert (experts.block.flops_per_s, experts.block.depth_s) == (rate.flops_per_s, rate.depth_s)
    assert experts.block.start_s == rate.start_s + kernels.experts.start_s
    widened = narrow.widened_values_per_cycle if narrow else None
    assert experts.widened_s == pytest.approx(1.0 / (widened * hz) if widened else 0.0, rel=1e-12)
    own = narrow.memory_efficiency if narrow else None
    reached = kernels.experts.memory_efficiency if own is None else own
    assert m.rates["expert_gemm"].hbm_bytes_per_s == H100.hbm_bytes_per_s * reached


@pytest.mark.parametrize("name", PRECISIONS)
def test_an_ideal_engine_loses_nothing_at_any_precision(name: str) -> None:
    precision = load(PrecisionSpec, name)
    for gpu in (A100, H100):
        peak = gemm_peak(gpu, precision)
        if peak is None:
            continue
        m = of(IDEAL, peak, None, precision, gpu, load(KernelSpec, gpu.generation))
        for kind in ("gemm", "expert_gemm"):
            assert m.rates[kind] == (gpu.peak_flops_per_s[peak], gpu.hbm_bytes_per_s), (gpu.name, kind)
        for kind in ("wide_gemm", "attention", "slow_attention"):
            assert m.rates[kind].hbm_bytes_per_s == gpu.hbm_bytes_per_s, (gpu.name, kind)
        assert m.rates["attention"].flops_per_s == m.rates["wide_gemm"].flops_per_s


@given(engines(), kernel_rates(), st.sampled_from(ON_H100))
def test_an_efficiency_of_the_engines_own_holds_at_any_precision(
    engine: EngineSpec, kernels: KernelRates, name: str
) -> None:
    precision = load(PrecisionSpec, name)
    peak = gemm_peak(H100, precision)
    assert peak is not None
    m = of(engine, peak, None, precision, H100, kernels)
    own = engine.gemm_memory_efficiency
    if own is not None:
        for kind in ("gemm", "wide_gemm", "expert_gemm"):
            assert m.rates[kind].hbm_bytes_per_s == H100.hbm_bytes_per_s * own, kind


# Links.


def test_one_card_has_no_link_to_wait_for() -> None:
    m = of(IDEAL)
    assert m.exchange == Exchange(float("inf"), 0.0, 0.0, 0.0)
    assert m.one_kernel is None


@given(engines(), collectives())
def test_exchanges_reach_what_the_kind_of_link_reaches(engine: EngineSpec, reached: CollectiveSpec) -> None:
    """12 bundles of 25e9 bytes/s; latencies are cycles of the device's clock, and the engine's own start.

    A flat engine sends its bytes in one piece.
    """
    m, hz = of(engine, connection=Connection(NVLINK, 12, reached)), A100.boost_hz
    own = engine.link_efficiency or reached.link_efficiency
    start_s = reached.start_cycles / hz + engine.collective_start_s
    chunk_s = 0.0 if engine.flat else reached.chunk_cycles / hz
    ring = (12 * 25e9 * own, start_s, reached.hop_cycles / hz, chunk_s)
    assert m.exchange == pytest.approx(ring, rel=1e-12)
    one = reached.one_kernel
    if one is None or not engine.one_kernel_all_reduce:
        assert m.one_kernel is None
        return
    start_s = one.start_cycles / hz + engine.collective_start_s
    joined = (12 * 25e9 * one.link_efficiency, start_s, one.rank_cycles / hz, one.barrier_cycles / hz, one.max_bytes)
    assert m.one_kernel == pytest.approx(joined, rel=1e-12)


@given(engines(), collectives())
def test_a_link_changes_exchanges_and_nothing_else(engine: EngineSpec, reached: CollectiveSpec) -> None:
    alone, joined = of(engine), of(engine, connection=Connection(NVLINK, 12, reached))
    changed = {"exchange", "one_kernel", "power"}
    other = {field: getattr(joined, field) for field in Machine.__slots__ if field not in changed}
    assert other == {field: getattr(alone, field) for field in other}
    assert joined.power._replace(link_byte_j=0.0) == alone.power


# Power.


@pytest.mark.parametrize("peak", ["tensor_fp16", "vector_fp32"])
def test_shares_of_the_design_power_are_spread_over_what_the_units_do(peak: Peak) -> None:
    """400 W; half of it at the unit's peak FLOP/s, three quarters at 1.555e12 bytes/s, a tenth on 12 x 25e9 bytes/s."""
    alone, joined = (of(IDEAL, peak, link) for link in (None, Connection(NVLINK, 12, load(CollectiveSpec, "fabric"))))
    flops_per_s = A100.peak_flops_per_s[peak]
    expected = Power(80.0, 200.0 / flops_per_s, 300.0 / 1.555e12, 0.0, 400.0, 400.0)
    assert alone.power == pytest.approx(expected, rel=1e-12)
    assert joined.power == pytest.approx(expected._replace(link_byte_j=40.0 / 3e11), rel=1e-12)
    assert not alone.power.limited


@pytest.mark.parametrize("name", lpm.gpus())
def test_every_device_idles_below_its_design_power(name: str) -> None:
    gpu = load(GpuSpec, name)
    for peak in gpu.peak_flops_per_s:
        kernels, power = load(KernelSpec, gpu.generation), load(PowerSpec, gpu.generation)
        drawn = of(IDEAL, peak, None, HALF, gpu, kernels, power).power
        assert 0.0 < drawn.idle_w < drawn.design_w == gpu.tdp_w
        assert min(drawn.flop_j, drawn.byte_j, drawn.link_byte_j) >= 0.0


@pytest.mark.parametrize("limit_w", [80.1, 250.0, 399.0])
def test_a_power_limit_changes_the_limit_and_nothing_else(limit_w: float) -> None:
    m = of(IDEAL)
    held = with_power_limit(m, limit_w)
    assert (held.power.limit_w, held.power.design_w, held.power.limited) == (limit_w, 400.0, True)
    assert held.power._replace(limit_w=400.0) == m.power
    assert [field for field in Machine.__slots__ if getattr(held, field) != getattr(m, field)] == ["power"]


@pytest.mark.parametrize("limit_w", [None, 400.0])
def test_the_design_power_is_no_limit(limit_w: float | None) -> None:
    assert with_power_limit(of(IDEAL), limit_w) == of(IDEAL)
    assert not with_power_limit(of(IDEAL), limit_w).power.limited


@pytest.mark.parametrize("limit_w", [1.0, 80.0, 400.1, 1e4])
def test_a_power_limit_lies_between_idling_and_the_design_power(limit_w: float) -> None:
    with pytest.raises(InfeasibleError, match=r"power_limit_w = .*: must be above 80 W, .* and at most 400 W"):
        with_power_limit(of(IDEAL), limit_w)


# The host, copies, units.


@pytest.mark.parametrize(("precision", "half_layers"), [(HALF, 1.0), (FULL, 0.0)])
def test_the_host_takes_its_time_for_each_layer(precision: PrecisionSpec, half_layers: float) -> None:
    """Narrow activations take `half_layer_s` more: their casts are kernels too."""
    engine = IDEAL.model_copy(update={"layer_s": 3e-4, "half_layer_s": 1e-4})
    m = of(engine, "tensor_fp16", None, precision)
    assert m.layers_host_s == pytest.approx(LAYERS * (3e-4 + half_layers * 1e-4), rel=1e-12)


@pytest.mark.parametrize("values_per_clock", [0.1, 0.39])
def test_a_copy_limited_by_its_values_takes_the_same_time_at_any_width(values_per_clock: float) -> None:
    """Each value is read and written once: the bytes double with the width, and so does the rate in bytes."""
    engine = IDEAL.model_copy(update={"concat_values_per_clock_per_sm": values_per_clock})
    half, full = (of(engine, "tensor_fp16", None, precision) for precision in (HALF, FULL))
    values_per_s = values_per_clock * A100.sms * A100.boost_hz
    assert half.rates["concat"].hbm_bytes_per_s == pytest.approx(2.0 * 2.0 * values_per_s, rel=1e-12)
    assert full.rates["concat"].hbm_bytes_per_s == 2.0 * half.rates["concat"].hbm_bytes_per_s


def test_a_copy_is_never_faster_than_other_passes_over_memory() -> None:
    for values_per_clock in (None, 1e3):
        m = of(IDEAL.model_copy(update={"concat_values_per_clock_per_sm": values_per_clock}))
        assert m.rates["concat"] == m.rates["elementwise"]


@pytest.mark.parametrize(
    ("gpu", "precision", "peak"),
    [
        ("a100-sxm-40gb", "w16a16", "tensor_fp16"),
        ("a100-sxm-40gb", "fp32", "vector_fp32"),
        ("a100-sxm-40gb", "tf32", "tensor_tf32"),
        ("p100-sxm-16gb", "w16a16", "vector_fp16"),
        ("v100-sxm-16gb", "bf16", None),
        ("v100-sxm-16gb", "tf32", None),
        ("a100-sxm-40gb", "w4a16", "tensor_fp16"),
        ("p100-sxm-16gb", "w8a16", "vector_fp16"),
        ("a100-sxm-40gb", "w8a8", "tensor_int8"),
        ("h100-sxm-80gb", "fp8", "tensor_fp8"),
        ("a100-sxm-40gb", "fp8", None),
    ],
)
def test_the_best_unit_that_the_device_has(gpu: str, precision: str, peak: str | None) -> None:
    assert gemm_peak(load(GpuSpec, gpu), load(PrecisionSpec, precision)) == peak


def test_efficiencies_replace_those_of_the_engine() -> None:
    """Of arithmetic, every product's, without blocks; of memory, all traffic's, without a cache."""
    m = of(load(EngineSpec, "fastertransformer"))
    assert m.blocks
    fast = with_efficiencies(m, 0.5, None)
    assert (fast.blocks, fast.attention, fast.passes) == ({}, None, m.passes)
    for kind in ("gemm", "wide_gemm", "expert_gemm", "attention", "slow_attention"):
        assert fast.rates[kind] == (156e12, m.rates[kind].hbm_bytes_per_s)
    assert fast.rates["elementwise"] == m.rates["elementwise"]
    full = with_efficiencies(m, None, 0.5)
    assert (full.blocks, full.attention, full.passes) == (m.blocks, m.attention, None)
    for kind, rate in full.rates.items():
        assert rate == (m.rates[kind].flops_per_s, 0.5 * 1.555e12)
    assert with_efficiencies(m, None, None) == m


def test_efficiencies_may_be_arrays() -> None:
    m = of(IDEAL)
    both = with_efficiencies(m, np.array([0.25, 1.0]), np.array([[0.5], [1.0]]))
    assert both.rates["gemm"].flops_per_s.tolist() == [78e12, 312e12]
    assert both.rates["elementwise"].hbm_bytes_per_s.tolist() == [[0.7775e12], [1.555e12]]


@pytest.mark.parametrize("name", lpm.gpus())
def test_every_device_has_rates(name: str) -> None:
    """The datasheet's under an engine that loses nothing; less under one with blocks."""
    gpu = load(GpuSpec, name)
    kernels = load(KernelSpec, gpu.generation)
    for peak in gpu.peak_flops_per_s:
        m = of(IDEAL, peak, None, HALF, gpu, kernels)
        assert m.rates["gemm"].flops_per_s == m.peak_flops_per_s > 0.0
        assert m.rates["elementwise"].flops_per_s > 0.0
        blocks: Any = of(FUSED, peak, None, HALF, gpu, kernels).blocks
        assert 0.0 < blocks["gemm"].flops_per_s * gpu.sms < m.peak_flops_per_s
