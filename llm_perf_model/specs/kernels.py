"""What the vendor's kernels reach on one GPU generation, whatever engine calls them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from .base import CoefficientSpec, Count, Efficiency, NonNegative, Positive, Spec
from .precision import Scheme

Tile = tuple[Count, Count]


class GemmKernels(Spec):
    """Products on tensor units, or on vector units: what a block of an output tile costs, and a wave of blocks.

    A block multiplies at `compute_efficiency` of its multiprocessor's peak, or loads its operands at
    `load_bytes_per_cycle` if that takes longer; each wave adds `wave_s`, and a depth that is split
    over several blocks `split_s` for their sum.
    """

    compute_efficiency: Efficiency
    memory_efficiency: Efficiency
    load_bytes_per_cycle: Positive
    wave_s: NonNegative
    split_s: NonNegative
    tiles: Annotated[tuple[Tile, ...], Field(min_length=1)] | None = None
    """Rows and columns of an output tile: a kernel exists for each; None: squares of 64 and of 128."""
    splits: bool = True
    """Whether a kernel exists that splits the depth."""
    serial_flops: NonNegative | None = None
    """FLOPs of the largest product that stays on one core; None: all are shared out."""


class SchemeKernels(Spec):
    """What differs from plain products where operands are narrow."""

    compute_efficiency: Efficiency
    memory_efficiency: Efficiency | None = None
    """None: as plain products."""
    depth_cycles: NonNegative | None = None
    """Least cycles of a block for each unit of depth (scaling of partial sums)."""
    start_s: NonNegative | None = None
    """Added to the start of a kernel."""
    splits: bool = True
    """Whether a kernel exists that splits the depth."""


class ConvolutionKernels(Spec):
    """Convolutions as implicit products: blocks of 64 positions and `columns` output channels.

    Loads and waves hide behind the arithmetic. `winograd_efficiency` is that of Winograd's kernel in one piece, whose
    transforms are arithmetic beside the product; the products between transforms that are kernels of their own
    run at `compute_efficiency`.
    """

    compute_efficiency: Efficiency
    columns: Count
    """Output channels of the narrowest block."""
    channel_bytes: Count | None = None
    """Bytes of input channels that a block takes at once from each place of a window, padded to them; None: any."""
    splits: bool
    """Whether kernels exist that split the depth."""
    winograd_efficiency: Efficiency | None = None
    """None: there are no Winograd kernels for this unit."""


class RecurrentKernels(Spec):
    """Steps of a recurrent layer inside one call of a library: a product that waits for the one before, and a cell.

    A block takes at least `depth_cycles` for each unit of depth; weights are read anew in each step.
    """

    step_s: NonNegative | None = None
    """Added by each step; None: its product and its pass start like other kernels."""
    depth_cycles: NonNegative
    memory_efficiency: Efficiency


class AttentionKernels(Spec):
    """Fused attention: a block takes `query_rows` of one key head and walks over its keys.

    Each key costs the block its two products at `compute_efficiency` and a share of `query_rows`
    exponentials that hides behind nothing; a wave of blocks adds `wave_s`. Keys and values are read at
    `memory_efficiency`.
    """

    query_rows: Count
    key_rows: Count
    """Keys of one step of a block: what it computes beyond the mask."""
    compute_efficiency: Efficiency
    exposed_exponentials: NonNegative
    memory_efficiency: Efficiency
    load_bytes_per_cycle: Positive
    """Keys and values that reach one multiprocessor from the second-level cache."""
    wave_s: NonNegative


class ElementwiseKernels(Spec):
    """Passes over activations: bytes from memory, or from a second-level cache that holds them all.

    Kernels with one block a row, and look-ups, also pay for each value that a multiprocessor touches.
    """

    memory_efficiency: Efficiency
    cache_bytes_per_cycle: Positive
    row_values_per_cycle: Positive
    gathered_values_per_cycle: Positive
    """Of a look-up in a table."""


class ExpertTile(Spec):
    """A tile of the products of experts, and the passes that take it: those of few tokens."""

    rows: Count
    columns: Count
    tokens: Count | None = None
    """Most tokens of such a pass; None: any."""
    tokens_per_expert: Positive | None = None
    """Most tokens of such a pass for each expert of the rank; None: any."""

    @property
    def is_bounded(self) -> bool:
        """Whether some passes have too many tokens for it."""
        return self.tokens is not None or self.tokens_per_expert is not None


def _end_open(tiles: tuple[ExpertTile, ...]) -> tuple[ExpertTile, ...]:
    """Refuse tiles that leave a pass of many tokens without one, or that none takes."""
    bounded = [tile.is_bounded for tile in tiles]
    if bounded != [True] * (len(tiles) - 1) + [False]:
        raise ValueError("the last tile, and no other, has no bound: a pass takes the first whose bounds it keeps")
    return tiles


ExpertTiles = Annotated[tuple[ExpertTile, ...], Field(min_length=1), AfterValidator(_end_open)]


class TunedExperts(Spec):
    """Shapes for which the library brings tiles that were searched for on the device."""

    shapes: Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1)]
    """Experts of a rank, and the width of one on it."""
    tiles: ExpertTiles


class ExpertScheme(Spec):
    """What differs in products of experts where operands are narrow."""

    tiles: ExpertTiles | None = None
    """None: as plain products of experts."""
    memory_efficiency: Efficiency | None = None
    """None: as plain products of experts."""
    widened_values_per_cycle: Positive | None = None
    """Weights that a multiprocessor widens to the inputs' type; None: that hides behind the rest."""


class ExpertKernels(Spec):
    """Products of experts in one kernel: rows of each expert padded to whole tiles.

    A block computes as a block of plain products does, after its operands have come: nothing hides their load, at
    `load_ratio` of what plain products load.
    """

    tiles: ExpertTiles
    """A pass takes the first whose bounds it keeps."""
    tuned: TunedExperts | None = None
    load_ratio: Positive
    memory_efficiency: Efficiency
    schemes: dict[Scheme, ExpertScheme] = Field(default_factory=dict)
    start_s: NonNegative
    """Added to the start of a kernel: sorting tokens by expert."""


class KernelRates(Spec):
    """Coefficients of kernels; those per cycle are per multiprocessor."""

    gemm: GemmKernels
    vector_gemm: GemmKernels
    schemes: dict[Scheme, SchemeKernels] = Field(default_factory=dict)
    convolution: ConvolutionKernels
    """On tensor units."""
    vector_convolution: ConvolutionKernels
    recurrent: RecurrentKernels
    experts: ExpertKernels
    attention: AttentionKernels
    elementwise: ElementwiseKernels
    last_level_cache: bool = False
    """Whether the cache is the last level before memory of a processor of cores: inputs and outputs of products come
    from it as those of passes do, and it gives way to larger tensors little by little."""
    kernel_start_s: NonNegative


class KernelSpec(CoefficientSpec, KernelRates):
    """Kernels of the generation that the file is named after."""
