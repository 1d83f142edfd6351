"""Device + link + engine + kernels + precision -> the rates that time needs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import NamedTuple

from .numeric import maximum, minimum
from .ops.base import Kind
from .ops.recurrence import STEP_KERNELS
from .rates import (
    SQUARES,
    AttentionRate,
    BlockRate,
    ConvolutionRate,
    Exchange,
    ExpertRate,
    Machine,
    OneKernel,
    PassRate,
    Power,
    Rate,
    RecurrentRate,
    Tile,
)
from .specs.collective import CollectiveSpec
from .specs.engine import EngineSpec
from .specs.gpu import GpuSpec, Peak
from .specs.kernels import ExpertScheme, ExpertTiles, GemmKernels, KernelRates, SchemeKernels
from .specs.link import LinkSpec
from .specs.power import PowerSpec
from .specs.precision import PrecisionSpec, Products
from .types import Num

FULL_WIDTH_BYTES = 4.0
SPLITS = (1.0, 4.0, 16.0)
"""Blocks that may share the depth of one output tile."""

ATTENTION_SPLITS = 32.0
"""Blocks that may share the keys of one decode step."""

EXPONENTIALS_PER_CYCLE = 16.0
"""Of a multiprocessor's special-function units."""


class Connection(NamedTuple):
    """The link between the ranks, how many bundles of it a device uses, and what exchanges reach on it."""

    link: LinkSpec
    bundles: int
    reached: CollectiveSpec
    oversubscription: float = 1.0
    """Rate of the devices' ports over that of the switches above them."""

    @property
    def bytes_per_s(self) -> float:
        """Rate that a device has of it, in one direction."""
        return self.link.bytes_per_s * self.bundles / self.oversubscription


def gemm_peak(gpu: GpuSpec, precision: PrecisionSpec) -> Peak | None:
    """The best unit of the device for the precision's products, if it has one."""
    return _first(gpu, precision.gemm_peaks)


def convolution_peak(gpu: GpuSpec, precision: PrecisionSpec, peak: Peak) -> Peak:
    """The unit of the precision's convolutions; that of its products, `peak`, where it states no other."""
    return _first(gpu, precision.convolution_peaks) or peak


def _first(gpu: GpuSpec, peaks: tuple[Peak, ...]) -> Peak | None:
    return next((peak for peak in peaks if peak in gpu.peak_flops_per_s), None)


def machine(
    gpu: GpuSpec,
    engine: EngineSpec,
    kernels: KernelRates,
    precision: PrecisionSpec,
    peak: Peak,
    layers: int,
    connection: Connection | None,
    power: PowerSpec,
    encoder_layers: int = 0,
) -> Machine:
    """The rates of kernels whose products run on the unit `peak`, for a model of `layers` layers.

    An encoder-decoder has `encoder_layers` besides. Ranks of one node are joined by `connection`.
    """
    half = engine.half_layer_s if precision.activation_bytes < FULL_WIDTH_BYTES else 0.0
    wide = _first(gpu, precision.wide_gemm_peaks) or peak
    convolution = convolution_peak(gpu, precision, peak)
    units = _Units(gpu, engine, kernels, precision, peak, wide, convolution)
    reached = Machine(
        rates=units.rates(),
        kernel_start_s=units.kernel_start_s,
        dispatch_s=engine.dispatch_s,
        launch_s=engine.launch_s or 0.0,
        step_s=engine.step_s,
        peak_flops_per_s=units.fastest_flops_per_s,
        peak_hbm_bytes_per_s=gpu.hbm_bytes_per_s,
        power=_power(gpu, power, units.fastest_flops_per_s, connection),
        blocks={} if engine.flat else units.blocks(),
        experts=None if engine.flat else units.of(precision.experts).experts(),
        convolution=None if engine.flat else units.convolutions(),
        recurrent=None if engine.flat else units.recurrent(),
        attention=None if engine.flat else units.attention(),
        passes=None if engine.flat else units.passes(),
        sms=float(gpu.sms),
        attention_blocks=0.0 if engine.attention_split else float(gpu.sms),
        layers_host_s=layers * (engine.layer_s + half),
        encoder_host_s=encoder_layers * (engine.layer_s + half),
        synchronous=engine.synchronous,
        sequence_s=engine.sequence_s,
        request_s=engine.request_s,
        staged_bytes_per_s=engine.staged_bytes_per_s or float("inf"),
    )
    return reached if connection is None else _connected(reached, gpu, engine, connection)


def with_network(m: Machine, gpu: GpuSpec, engine: EngineSpec, network: Connection | None) -> Machine:
    """The machine with what joins its node to others."""
    return m if network is None else replace(m, network=_ring(gpu, engine, network))


def _power(gpu: GpuSpec, power: PowerSpec, peak_flops_per_s: Num, connection: Connection | None) -> Power:
    """Shares of the design power, spread over what the units do at their peaks."""
    return Power(
        idle_w=power.idle_fraction * gpu.tdp_w,
        flop_j=power.flops_fraction * gpu.tdp_w / peak_flops_per_s,
        byte_j=power.bytes_fraction * gpu.tdp_w / gpu.hbm_bytes_per_s,
        link_byte_j=power.link_fraction * gpu.tdp_w / connection.bytes_per_s if connection else 0.0,
        design_w=gpu.tdp_w,
        limit_w=gpu.tdp_w,
    )


def _ring(gpu: GpuSpec, engine: EngineSpec, connection: Connection) -> Exchange:
    """A ring over a link, as fast as the engine's exchanges drive it."""
    c, cycle_s = connection.reached, 1.0 / gpu.boost_hz
    return Exchange(
        connection.bytes_per_s * (engine.link_efficiency or c.link_efficiency),
        c.start_cycles * cycle_s + engine.collective_start_s,
        c.hop_cycles * cycle_s,
        0.0 if engine.flat else c.chunk_cycles * cycle_s,
    )


def _connected(m: Machine, gpu: GpuSpec, engine: EngineSpec, connection: Connection) -> Machine:
    """The machine with its link, as fast as the engine's exchanges drive it."""
    c, cycle_s = connection.reached, 1.0 / gpu.boost_hz
    ring, bytes_per_s = _ring(gpu, engine, connection), connection.bytes_per_s
    one = c.one_kernel if engine.one_kernel_all_reduce else None
    if one is None:
        return replace(m, exchange=ring)
    start_s = one.start_cycles * cycle_s + engine.collective_start_s
    rank_s, barrier_s = one.rank_cycles * cycle_s, one.barrier_cycles * cycle_s
    return replace(
        m,
        exchange=ring,
        one_kernel=OneKernel(bytes_per_s * one.link_efficiency, start_s, rank_s, barrier_s, one.max_bytes),
    )


@dataclass(frozen=True, slots=True)
class _Units:
    """The rates of a device's units under an engine: the engine's efficiencies where it has its own."""

    gpu: GpuSpec
    engine: EngineSpec
    kernels: KernelRates
    precision: PrecisionSpec
    peak: Peak
    wide: Peak
    convolution: Peak

    def of(self, own: Products | None) -> _Units:
        """The units of products that have a width and ways of their own; these where they have none."""
        if own is None:
            return self
        return replace(self, precision=self.precision.of(own), peak=_first(self.gpu, own.gemm_peaks) or self.peak)

    @property
    def fastest_flops_per_s(self) -> Num:
        """The highest peak of the units that run products of layers."""
        each = (self, self.of(self.precision.attention), self.of(self.precision.experts))
        peaks: list[Num] = [self.gpu.peak_flops_per_s[units.peak] for units in each]
        return reduce(maximum, peaks)

    @property
    def kernel_start_s(self) -> float:
        """Device time that each kernel adds."""
        own = self.engine.kernel_start_s
        return self.kernels.kernel_start_s if own is None else own

    def rates(self) -> dict[Kind, Rate]:
        """Flat rates by kind: of FLOPs where nothing is quantised to blocks, and of bytes."""
        gpu, engine, hbm = self.gpu, self.engine, self.gpu.hbm_bytes_per_s
        attention, wide_s = self.kernels.attention, gpu.peak_flops_per_s[self.wide]
        flat, wide_memory = engine.gemm_compute_efficiency or 1.0, self.wide_memory_efficiency
        attended_s = wide_s * (engine.attention_compute_efficiency or self.computed(attention.compute_efficiency))
        attention_memory = engine.attention_memory_efficiency or self.capped(attention.memory_efficiency)
        slow_memory = engine.slow_attention_memory_efficiency or attention_memory
        elementwise = Rate(
            gpu.peak_flops_per_s.get("vector_fp32", wide_s),
            hbm * (engine.elementwise_memory_efficiency or self.capped(self.kernels.elementwise.memory_efficiency)),
        )
        return {
            "gemm": self.narrow(flat),
            "wide_gemm": Rate(wide_s * flat, hbm * wide_memory),
            "attention_gemm": self.of(self.precision.attention).narrow(flat),
            "convolution": Rate(gpu.peak_flops_per_s[self.convolution] * flat, hbm * wide_memory),
            "expert_gemm": self.of(self.precision.experts).expert(flat),
            "attention": Rate(attended_s, hbm * attention_memory),
            "slow_attention": Rate(attended_s, hbm * slow_memory),
            "elementwise": elementwise,
            "concat": elementwise._replace(hbm_bytes_per_s=self.concat_bytes_per_s(elementwise)),
            "all_reduce": elementwise,
            "collective": elementwise,
            "all_to_all": elementwise,
            "transfer": elementwise,
            "staged": elementwise,
        }

    @property
    def wide_memory_efficiency(self) -> float:
        """Share of the bandwidth that products whose operands stay wide reach."""
        return self.engine.gemm_memory_efficiency or self.capped(self.gemm(self.wide).memory_efficiency)

    def narrow(self, efficiency: float) -> Rate:
        """Flat rates of the precision's products."""
        scheme, gpu = self.scheme().memory_efficiency, self.gpu
        own = self.wide_memory_efficiency if scheme is None else self.capped(scheme)
        memory = self.engine.gemm_memory_efficiency or own
        return Rate(gpu.peak_flops_per_s[self.peak] * efficiency, gpu.hbm_bytes_per_s * memory)

    def expert(self, efficiency: float) -> Rate:
        """Flat rates of the products of experts."""
        own = self.expert_scheme().memory_efficiency or self.kernels.experts.memory_efficiency
        memory = self.engine.gemm_memory_efficiency or self.capped(own)
        return Rate(self.gpu.peak_flops_per_s[self.peak] * efficiency, self.gpu.hbm_bytes_per_s * memory)

    def computed(self, efficiency: float, ratio: float | None = None) -> float:
        """An efficiency of arithmetic under this engine's kernels, or under a `ratio` of its own."""
        return min(efficiency * (ratio or self.engine.compute_ratio or 1.0), 1.0)

    def ratio(self, peak: Peak) -> float | None:
        """The engine's own ratio of products on a unit."""
        return None if peak.startswith("tensor_") else self.engine.vector_ratio

    def capped(self, efficiency: float) -> float:
        """An efficiency of memory under this engine's kernels."""
        return min(efficiency * (self.engine.memory_ratio or 1.0), 1.0)

    def gemm(self, peak: Peak) -> GemmKernels:
        """The coefficients of products on a unit."""
        return self.kernels.gemm if peak.startswith("tensor_") else self.kernels.vector_gemm

    def scheme(self) -> SchemeKernels:
        """What the precision changes; nothing where the generation has no coefficients for it."""
        return self.kernels.schemes.get(self.precision.scheme, self.plain(self.peak))

    def plain(self, peak: Peak) -> SchemeKernels:
        """Products whose operands are as wide as the unit takes them."""
        return SchemeKernels(compute_efficiency=self.gemm(peak).compute_efficiency)

    def filters(self) -> SchemeKernels:
        """What the precision changes of convolutions."""
        return self.kernels.schemes.get(self.precision.convolution_scheme, self.plain(self.convolution))

    def blocks(self) -> dict[Kind, BlockRate]:
        """What a block reaches: in the precision's products, and in those that stay wide."""
        p = self.precision
        own: dict[Kind, BlockRate] = {"attention_gemm": self.of(p.attention).narrow_block()} if p.attention else {}
        return {
            "gemm": self.narrow_block(),
            "wide_gemm": self.block(self.wide, self.plain(self.wide), p.activation_bytes, p.wide_bytes),
            **own,
        }

    def narrow_block(self) -> BlockRate:
        """What a block of the precision's products reaches."""
        return self.block(self.peak, self.scheme(), self.precision.read_bytes, self.precision.weight_bytes)

    def block(self, peak: Peak, scheme: SchemeKernels, input_bytes: float, weight_bytes: float) -> BlockRate:
        """What a block of products on one unit reaches."""
        gemm, cycles_per_s = self.gemm(peak), self.gpu.boost_hz
        return BlockRate(
            self.gpu.peak_flops_per_s[peak] / self.gpu.sms * self.computed(scheme.compute_efficiency, self.ratio(peak)),
            gemm.load_bytes_per_cycle * cycles_per_s,
            (scheme.depth_cycles or 0.0) / cycles_per_s,
            gemm.wave_s,
            gemm.split_s,
            scheme.start_s or 0.0,
            SPLITS if scheme.splits and gemm.splits else SPLITS[:1],
            input_bytes,
            weight_bytes,
            SQUARES if gemm.tiles is None else tuple((float(rows), float(columns)) for rows, columns in gemm.tiles),
            gemm.serial_flops or 0.0,
            self.engine.region_s or 0.0,
        )

    def expert_scheme(self) -> ExpertScheme:
        """What the precision changes of products of experts."""
        return self.kernels.experts.schemes.get(self.precision.scheme, ExpertScheme())

    def experts(self) -> ExpertRate:
        """What a block of products of experts reaches: as a block of products, with another way to load."""
        e, scheme, block = self.kernels.experts, self.expert_scheme(), self.narrow_block()
        widened_per_s = (scheme.widened_values_per_cycle or float("inf")) * self.gpu.boost_hz
        return ExpertRate(
            block._replace(load_bytes_per_s=block.load_bytes_per_s * e.load_ratio, start_s=block.start_s + e.start_s),
            tiles_of(scheme.tiles or e.tiles),
            () if e.tuned is None else tiles_of(e.tuned.tiles),
            () if e.tuned is None else tuple((float(experts), float(inner)) for experts, inner in e.tuned.shapes),
            1.0 / widened_per_s,
        )

    def convolutions(self) -> ConvolutionRate:
        """What a block of a convolution reaches; narrow operands change it as they change dense products."""
        engine, gemm, tensor = self.engine, self.gemm(self.convolution), self.convolution.startswith("tensor_")
        c = self.kernels.convolution if tensor else self.kernels.vector_convolution
        narrow, ratio = self.filters().compute_efficiency / gemm.compute_efficiency, engine.convolution_ratio
        flops_per_s = self.gpu.peak_flops_per_s[self.convolution] / self.gpu.sms
        return ConvolutionRate(
            flops_per_s * self.computed(c.compute_efficiency * narrow, ratio),
            0.0
            if c.winograd_efficiency is None
            else flops_per_s * self.computed(c.winograd_efficiency * narrow, ratio),
            self.gpu.hbm_bytes_per_s * self.capped(self.kernels.elementwise.memory_efficiency),
            float(engine.convolution_columns or c.columns),
            max((c.channel_bytes or 0.0) / self.precision.map_bytes, 1.0),
            gemm.split_s,
            SPLITS if c.splits else SPLITS[:1],
            tensor and self.precision.map_bytes < 4.0 and engine.image_layout == "channels_first",
            engine.group_s or 0.0,
        )

    def recurrent(self) -> RecurrentRate:
        """What the steps of a recurrent layer reach."""
        r = self.kernels.recurrent
        block = self.narrow_block()
        depth_s = max(float(block.depth_s), r.depth_cycles / self.gpu.boost_hz)
        block = block._replace(load_bytes_per_s=float("inf"), depth_s=depth_s, wave_s=0.0, splits=SPLITS[:1])
        step_s = STEP_KERNELS * self.kernel_start_s if r.step_s is None else r.step_s
        return RecurrentRate(block, self.gpu.hbm_bytes_per_s * self.capped(r.memory_efficiency), step_s)

    def attention(self) -> AttentionRate:
        """What a block of fused attention reaches."""
        a, engine, gpu = self.kernels.attention, self.engine, self.gpu
        flops_per_s = gpu.peak_flops_per_s[self.wide] / gpu.sms
        efficiency = engine.attention_compute_efficiency or self.computed(a.compute_efficiency)
        return AttentionRate(
            float(a.query_rows),
            float(a.key_rows),
            4.0 / (flops_per_s * efficiency),
            a.exposed_exponentials / (EXPONENTIALS_PER_CYCLE * gpu.boost_hz),
            a.load_bytes_per_cycle * gpu.boost_hz,
            a.wave_s,
            ATTENTION_SPLITS if engine.attention_split and not engine.attention_padded else 1.0,
            engine.attention_padded,
        )

    def passes(self) -> PassRate:
        """What passes over activations reach beside memory."""
        e, cycles_per_s = self.kernels.elementwise, self.gpu.sms * self.gpu.boost_hz
        cache = e.cache_bytes_per_cycle * cycles_per_s
        rows, gathered = e.row_values_per_cycle * cycles_per_s, e.gathered_values_per_cycle * cycles_per_s
        return PassRate(self.gpu.l2_bytes, cache, rows, gathered, self.kernels.last_level_cache)

    def concat_bytes_per_s(self, elementwise: Rate) -> Num:
        """Bytes read and written by a copy that is limited by its values or by the memory."""
        per_cycle = self.engine.concat_values_per_clock_per_sm
        if per_cycle is None:
            return elementwise.hbm_bytes_per_s
        values_per_s = per_cycle * self.gpu.sms * self.gpu.boost_hz
        return minimum(elementwise.hbm_bytes_per_s, 2.0 * self.precision.kv_bytes * values_per_s)


def tiles_of(tiles: ExpertTiles) -> tuple[Tile, ...]:
    """Tiles of products of experts, in the order in which passes look for theirs."""
    none = float("inf")
    return tuple(
        Tile(float(t.rows), float(t.columns), float(t.tokens or none), t.tokens_per_expert or none) for t in tiles
    )
