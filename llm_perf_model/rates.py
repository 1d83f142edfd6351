"""What a device reaches, as the numbers that time needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .errors import InfeasibleError
from .ops.base import Kind
from .types import Num


class Rate(NamedTuple):
    """What kernels of one kind reach. Fields broadcast."""

    flops_per_s: Num
    hbm_bytes_per_s: Num


SQUARES = ((64.0, 64.0), (128.0, 128.0))
"""Rows and columns of an output tile: a kernel exists for each."""


class BlockRate(NamedTuple):
    """What a block of a matrix product reaches on its multiprocessor, and what a wave of blocks adds.

    Products of no more than `serial_flops` stay on one core; others wait `region_s` for threads.
    """

    flops_per_s: Num
    load_bytes_per_s: Num
    depth_s: Num
    wave_s: Num
    split_s: Num
    start_s: Num
    splits: tuple[float, ...]
    input_bytes: float
    weight_bytes: float
    tiles: tuple[tuple[float, float], ...] = SQUARES
    serial_flops: float = 0.0
    region_s: Num = 0.0


class Tile(NamedTuple):
    """Rows and columns of an output tile, and the most tokens of a pass that takes it: in all, and for each expert."""

    rows: float
    columns: float
    tokens: float = float("inf")
    tokens_per_expert: float = float("inf")


class ExpertRate(NamedTuple):
    """What a block of the products of experts reaches, and which tile a pass takes: the first whose bounds it keeps.

    `widened_s` is the time of one weight that is widened on the way in.
    """

    block: BlockRate
    tiles: tuple[Tile, ...]
    tuned_tiles: tuple[Tile, ...] = ()
    tuned_shapes: tuple[tuple[float, float], ...] = ()
    widened_s: Num = 0.0


class ConvolutionRate(NamedTuple):
    """What a block of an implicit product reaches, `columns` wide and over `channels` at once at a place of a window.

    `winograd_flops_per_s` is that of Winograd's kernel in one piece, 0 where there is none; `moved_bytes_per_s`
    that of transforms and of copies between layouts, which `copies` asks for.
    """

    flops_per_s: Num
    winograd_flops_per_s: Num
    moved_bytes_per_s: Num
    columns: float
    channels: float
    split_s: Num
    splits: tuple[float, ...]
    copies: bool
    group_s: Num = 0.0


class RecurrentRate(NamedTuple):
    """What the steps of a recurrent layer reach: a step's product, the bytes that it reads, what a step adds."""

    block: BlockRate
    hbm_bytes_per_s: Num
    step_s: Num


class AttentionRate(NamedTuple):
    """What a block of fused attention reaches, and what a wave of blocks adds.

    A key costs a block of `query_rows` rows `row_s` for each row and value of a head, and
    `exponential_s`; or its bytes at `load_bytes_per_s` if that takes longer.
    """

    query_rows: float
    key_rows: float
    row_s: Num
    exponential_s: Num
    load_bytes_per_s: Num
    wave_s: Num
    splits: float
    padded: bool


class PassRate(NamedTuple):
    """What passes over activations reach beside memory: a cache of `cache_bytes`, and values of a row kernel.

    A `last_level` cache holds operands of products too.
    """

    cache_bytes: float
    cache_bytes_per_s: Num
    row_values_per_s: Num
    gathered_values_per_s: Num
    last_level: bool = False


class Exchange(NamedTuple):
    """What a ring of ranks reaches. Fields broadcast."""

    bytes_per_s: Num
    start_s: Num
    hop_s: Num
    chunk_s: Num


class OneKernel(NamedTuple):
    """What an all-reduce in one kernel reaches, up to `max_bytes`."""

    bytes_per_s: Num
    start_s: Num
    rank_s: Num
    barrier_s: Num
    max_bytes: float


class Power(NamedTuple):
    """What a device draws: idling, for its work, and at most."""

    idle_w: float
    flop_j: Num
    byte_j: Num
    link_byte_j: Num
    design_w: float
    """Thermal design power."""
    limit_w: float
    """Power limit: the design power, or a lower one that the user sets."""

    @property
    def limited(self) -> bool:
        """Whether a limit other than the design power is set."""
        return self.limit_w != self.design_w


class HostLink(NamedTuple):
    """Shares of weights and of cache that are in host memory, and the rate at which they come. Fields broadcast."""

    weights_fraction: Num
    cache_fraction: Num
    bytes_per_s: Num


NO_POWER = Power(0.0, 0.0, 0.0, 0.0, float("inf"), float("inf"))
NO_EXCHANGE = Exchange(float("inf"), 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Machine:
    """One device as an engine drives it, beside the datasheet's figures that utilisation refers to.

    `blocks` quantise products of a kind to whole waves over `sms` multiprocessors; without an entry they run
    at the flat rate of `rates`. `attention_blocks` is how many blocks fill the device where attention has
    one block for each head of each sequence, 0 where it splits further.
    """

    rates: Mapping[Kind, Rate]
    kernel_start_s: Num
    dispatch_s: Num
    step_s: Num
    peak_flops_per_s: Num
    peak_hbm_bytes_per_s: Num
    power: Power = NO_POWER
    launch_s: Num = 0.0
    exchange: Exchange = NO_EXCHANGE
    network: Exchange = NO_EXCHANGE
    """The same between nodes."""
    one_kernel: OneKernel | None = None
    blocks: Mapping[Kind, BlockRate] = field(default_factory=dict)
    experts: ExpertRate | None = None
    convolution: ConvolutionRate | None = None
    recurrent: RecurrentRate | None = None
    attention: AttentionRate | None = None
    passes: PassRate | None = None
    sms: float = 1.0
    attention_blocks: Num = 0.0
    layers_host_s: Num = 0.0
    encoder_host_s: Num = 0.0
    """The same for the layers of an encoder, in the pass before the decoder's first."""
    synchronous: bool = False
    sequence_s: Num = 0.0
    request_s: Num = 0.0
    staged_bytes_per_s: Num = float("inf")
    host_link: HostLink | None = None
    """What comes over it in each pass; None: nothing."""

    @property
    def has_blocks(self) -> bool:
        """Whether too few attention blocks can leave multiprocessors idle."""
        return not (isinstance(self.attention_blocks, float) and self.attention_blocks == 0.0)


_PRODUCTS: tuple[Kind, ...] = (
    "gemm", "wide_gemm", "attention_gemm", "convolution", "expert_gemm", "attention", "slow_attention",
)  # fmt: skip


def with_efficiencies(m: Machine, flops_efficiency: Num | None, hbm_memory_efficiency: Num | None) -> Machine:
    """The machine with efficiencies replaced: of all products, of all memory traffic."""
    if flops_efficiency is None and hbm_memory_efficiency is None:
        return m
    rates = dict(m.rates)
    if flops_efficiency is not None:
        m = replace(m, blocks={}, experts=None, convolution=None, recurrent=None, attention=None)
        for kind in _PRODUCTS:
            rates[kind] = rates[kind]._replace(flops_per_s=m.peak_flops_per_s * flops_efficiency)
    if hbm_memory_efficiency is not None:
        m = replace(m, passes=None)
        bytes_per_s = m.peak_hbm_bytes_per_s * hbm_memory_efficiency
        rates = {kind: rate._replace(hbm_bytes_per_s=bytes_per_s) for kind, rate in rates.items()}
    return replace(m, rates=rates)


def with_power_limit(m: Machine, power_limit_w: float | None) -> Machine:
    """The machine under a power limit.

    Raises:
        InfeasibleError: the limit is above the design power, or no more than the device draws idling.
    """
    if power_limit_w is None:
        return m
    if not m.power.idle_w < power_limit_w <= m.power.design_w:
        raise InfeasibleError(
            f"power_limit_w = {power_limit_w:g}: must be above {m.power.idle_w:g} W, which the device draws idling, "
            f"and at most {m.power.design_w:g} W, its design power"
        )
    return replace(m, power=m.power._replace(limit_w=power_limit_w))


def counted_at(m: Machine, peak_flops_per_s: Num) -> Machine:
    """The machine whose FLOPs are held against another unit's peak, and draw as much as that unit does for one."""
    flop_j = m.power.flop_j * m.peak_flops_per_s / peak_flops_per_s
    return replace(m, peak_flops_per_s=peak_flops_per_s, power=m.power._replace(flop_j=flop_j))
