"""An inference engine as the coefficients and choices of one shared model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from .base import CoefficientSpec, Count, Efficiency, EngineKind, NonNegative, Positive, Spec
from .ffn import Activation
from .kernels import KernelRates

Fusion = Literal["bias", "residual_norm", "activation", "batch_norm", "relu", "pointwise", "rotary"]
"""What rides on a neighbouring kernel: a product's bias; a sum on the norm after it; norms, activations and sums on the
product before them, or batch norms (folded into its filters) and rectifiers alone, or (pointwise) all on each other;
the rotation of keys and queries."""
LogitsKind = Literal["activations", "float32", "model"]
"""A tensor of logits: as wide as the activations, 32 bits, or as the model's reference implementation has it."""

Cache = Literal["contiguous", "paged", "concatenated", "concatenated_by_layer", "none"]
"""How the key-value cache is kept: at the longest length from the start; in blocks; grown by concatenation, with all
layers' old tensors alive until the step ends, or only one layer's; not at all, for a single forward pass."""

BeamCache = Literal["copied", "own", "shared"]
"""How the beams of a search keep their caches: prompts are repeated and the cache is gathered anew in each step;
each beam has a cache of its own, found by an index; beams share the blocks of the prompt."""

PromptPass = Literal["one_pass", "token_by_token"]
"""How a prompt is read: all its tokens in one pass, or each in a pass of its own, as in a decode step."""

PassName = (
    Literal["layernorm", "rmsnorm", "rotary", "position_bias", "layout", "softmax", "logits", "hard_swish"] | Activation
)


class Passes(Spec):
    """Tensors that a role reads and writes, and the kernels that do it."""

    tensors: NonNegative
    kernels: NonNegative


class Workspace(Spec):
    """A buffer for tokens of each sequence, taken at the first pass: for `max_tokens` or as many as fit.

    For a token of a sequence it holds `activation_vectors` vectors of all heads, `score_rows` rows of
    `max_tokens` scores a head, and the cache where that is not kept elsewhere; `spare_bytes` are left free.
    """

    activation_vectors: NonNegative
    score_rows: NonNegative
    max_tokens: Count
    spare_bytes: NonNegative


class EngineSpec(CoefficientSpec):
    """How well an engine's kernels use the device, and what it adds around them.

    An efficiency or `kernel_start_s` that is None is the GPU generation's own (its kernel file), or the
    kind of link's; a
    `gemm_compute_efficiency` that is given holds for every product, without tiles.

    On the host a step takes `dispatch_s` an operator, `launch_s` a kernel that an operator launches beside its first,
    and `layer_s` a layer (`half_layer_s` more where
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
    vector_ratio: Positive | None = None
    """Arithmetic rate of its products on units without tensor cores over the generation's; None: as `compute_ratio`."""
    convolution_ratio: Positive | None = None
    """Arithmetic rate of this engine's convolutions over the generation's; None: as `compute_ratio`."""
    convolution_columns: Count | None = None
    """Output channels of the narrowest block of its convolutions; None: as the generation's."""
    image_layout: Literal["channels_first", "channels_last"] = "channels_last"
    """Order of values in memory: tensor units take the channels of a place together, so others are copied for them."""
    region_s: NonNegative | None = None
    """Added to each product that is shared out to cores: waking threads; None: none sleep."""
    group_s: NonNegative | None = None
    """Added for each group and sample of a convolution whose groups are products one after the other; None: they are
    not."""
    memory_ratio: Positive | None = None
    """Memory rate of this engine's kernels over the generation's; None: the same."""
    kernels: KernelRates | None = None
    """Coefficients in place of the generation's."""
    link_efficiency: Efficiency | None = None
    one_kernel_all_reduce: bool = False
    """Small all-reduces run in one kernel where the link has it."""
    collective_start_s: NonNegative = 0.0
    dispatch_s: NonNegative
    launch_s: NonNegative | None = None
    layer_s: NonNegative = 0.0
    half_layer_s: NonNegative = 0.0
    synchronous: bool = False
    step_s: NonNegative
    sequence_s: NonNegative = 0.0
    beam_s: NonNegative | None = None
    """Host seconds of a search for each beam in a step, while the device waits; None: the device searches alone."""
    request_s: NonNegative = 0.0
    context_bytes: NonNegative
    """Device memory of the driver's context, of libraries and their workspaces."""
    graph_bytes: NonNegative | None = None
    """Device memory of captured graphs; None: there are none."""
    overallocation: Annotated[float, Field(ge=1)] | None = None
    """Bytes that the allocator holds for each byte of live activations; None: no more than those."""
    cache: Cache = "contiguous"
    window_cache: bool = False
    """Whether layers whose queries see a window keep only its tokens."""
    beams: BeamCache = "own"
    block_tokens: Count | None = None
    """Tokens of a block of a paged cache."""
    pool_fraction: Efficiency | None = None
    """Share of the memory that the engine takes for itself (`pool_of` device), or share of what weights and
    activations leave that the cache takes (`pool_of` free)."""
    pool_of: Literal["device", "free"] = "device"
    pass_tokens: Count | None = None
    """Tokens that activations are sized for, whatever the request; None: those of its prompts."""
    pass_sequences: Count | None = None
    """Sequences that logits are sized for at least."""
    logits_held: tuple[LogitsKind, ...] = ("activations",)
    """Tensors of logits that are alive together."""
    workspace: Workspace | None = None

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
    concatenated_positions: frozenset[str] = frozenset()
    """Position schemes whose models grow their cache by concatenation whatever `cache` says."""
    concat_values_per_clock_per_sm: Positive | None = None
    """Values that the kernel of a concatenation copies, whatever their width."""

    prefill: PromptPass = "one_pass"
    """How the prompts of a model that generates are read; an encoder takes one pass in any engine."""
    logits: Literal["last", "all"]
    fused: frozenset[Fusion] = frozenset()
    """Passes over activations that ride on a neighbouring kernel."""
    passes: dict[PassName, Passes] = Field(default_factory=dict)
    """Passes of roles that take more than one plain kernel."""

    staged_bytes_per_s: Positive | None = None
    """Rate through host memory: of a layer's inputs between devices for positions in `staged_positions`, and of samples
    where they are `host_samples`."""
    gathers_recurrent_weights: bool = False
    """Whether the weights of recurrent layers are copied into one buffer in each pass."""
    casts_weights: bool = False
    """Whether weights that a precision keeps wide beside narrow ones are narrowed anew in each pass."""
    host_samples: bool = False
    """Whether a network's samples come from host memory with each request."""
    staged_positions: frozenset[str] = frozenset()

    def cache_of(self, position: str) -> Cache:
        """How it keeps the cache of a model with that position scheme."""
        return "concatenated" if position in self.concatenated_positions else self.cache

    def feeds_tokens(self, causal: bool) -> bool:
        """Whether it reads the prompts of a model token by token."""
        return causal and self.prefill == "token_by_token"

    @staticmethod
    def concatenates(cache: Cache) -> bool:
        """Whether a cache kept in that way is copied as it grows."""
        return cache in {"concatenated", "concatenated_by_layer"}

    @property
    def flat(self) -> bool:
        """Whether products and attention run at flat rates, without tiles and waves."""
        return self.gemm_compute_efficiency is not None

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        if self.fast_head_dims is not None and self.slow_attention_memory_efficiency is None:
            yield "slow_attention_memory_efficiency", "is missing, but fast_head_dims leaves out other head sizes"
        if (
            self.concatenates(self.cache) or self.concatenated_positions
        ) and self.concat_values_per_clock_per_sm is None:
            yield "concat_values_per_clock_per_sm", "is missing, but a cache is concatenated"
        if self.cache == "paged" and self.block_tokens is None:
            yield "block_tokens", "is missing, but the cache is paged"
        if (self.staged_positions or self.host_samples) and self.staged_bytes_per_s is None:
            yield "staged_bytes_per_s", "is missing, but inputs move through host memory"
