"""An inference engine as the coefficients and choices of one shared model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from .base import CoefficientSpec, Count, Efficiency, NonNegative, Positive, Spec
from .ffn import Activation
from .kernels import KernelRates

Fusion = Literal["bias", "residual_norm", "activation", "rotary"]
EngineKind = Literal["ideal", "fused", "eager", "serving", "local"]
PassName = Literal["layernorm", "rmsnorm", "rotary", "layout", "logits"] | Activation


class Passes(Spec):
    """Tensors that a role reads and writes, and the kernels that do it."""

    tensors: NonNegative
    kernels: NonNegative


class EngineSpec(CoefficientSpec):
    """How well an engine's kernels use the device, and what it adds around them.

    An efficiency or `kernel_start_s` that is None is the GPU generation's own (its kernel file), or the
    kind of link's; a
    `gemm_compute_efficiency` that is given holds for every product, without tiles.

    On the host a step takes `dispatch_s` a kernel and `layer_s` a layer (`half_layer_s` more where
    activations are narrower than 32 bits). A step lasts for the longer of device and host, or for
    their sum where the engine is `synchronous`, plus `step_s` and `sequence_s` for each sequence; a request
    adds `request_s`.
    """

    kind: EngineKind
    patterns: tuple[str, ...] = ()
    """Words in the names of unknown engines for which this one stands in."""

    gemm_compute_efficiency: Efficiency | None = None
    gemm_memory_efficiency: Efficiency | None = None
    attention_compute_efficiency: Efficiency | None = None
    attention_memory_efficiency: Efficiency | None = None
    elementwise_memory_efficiency: Efficiency | None = None
    kernel_start_s: NonNegative | None = None
    compute_ratio: Positive | None = None
    """Arithmetic rate of this engine's kernels over the generation's; None: the same."""
    memory_ratio: Positive | None = None
    """Memory rate of this engine's kernels over the generation's; None: the same."""
    kernels: KernelRates | None = None
    """Coefficients in place of the generation's."""
    link_efficiency: Efficiency | None = None
    one_kernel_all_reduce: bool = False
    """Small all-reduces run in one kernel where the link has it."""
    collective_start_s: NonNegative = 0.0
    dispatch_s: NonNegative
    layer_s: NonNegative = 0.0
    half_layer_s: NonNegative = 0.0
    synchronous: bool = False
    step_s: NonNegative
    sequence_s: NonNegative = 0.0
    request_s: NonNegative = 0.0
    reserve_bytes: NonNegative

    attention: Literal["fused", "fused_masked", "materialised"]
    """Fused attention skips masked pairs, `fused_masked` computes them, `materialised` writes the scores."""
    attention_split: bool = True
    """False: one block for each head of each sequence, so few of them leave multiprocessors idle."""
    attention_padded: bool = False
    """Decode steps run the kernel of the prefill: a whole query tile for one head, not split."""
    fast_head_dims: tuple[Count, ...] | None = None
    """Head sizes that the attention kernel exists for; None: all."""
    slow_attention_memory_efficiency: Efficiency | None = None
    """Memory efficiency of the path for other head sizes."""
    cache_growth: Literal["in_place", "concatenated"] = "in_place"
    concat_values_per_clock_per_sm: Positive | None = None
    """Values that the kernel of a concatenation copies, whatever their width."""

    logits: Literal["last", "all"]
    fused: frozenset[Fusion] = frozenset()
    """Passes over activations that ride on a neighbouring kernel."""
    passes: dict[PassName, Passes] = Field(default_factory=dict)
    """Passes of roles that take more than one plain kernel."""

    staged_bytes_per_s: Positive | None = None
    """Rate at which a layer's inputs move between devices through host memory, for positions in `staged_positions`."""
    staged_positions: frozenset[str] = frozenset()

    @property
    def flat(self) -> bool:
        """Whether products and attention run at flat rates, without tiles and waves."""
        return self.gemm_compute_efficiency is not None

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        if self.fast_head_dims is not None and self.slow_attention_memory_efficiency is None:
            yield "slow_attention_memory_efficiency", "is missing, but fast_head_dims leaves out other head sizes"
        if self.cache_growth == "concatenated" and self.concat_values_per_clock_per_sm is None:
            yield "concat_values_per_clock_per_sm", "is missing, but cache_growth is concatenated"
        if self.staged_positions and self.staged_bytes_per_s is None:
            yield "staged_bytes_per_s", "is missing, but staged_positions is not empty"
