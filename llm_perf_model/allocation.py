"""Model + engine + precision + device -> how memory is allocated, as the numbers that its peak needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .graph.stack import kept, kv_bytes_per_token, parameters, state_bytes, weights_bytes
from .liveness import held_logits, largest_live
from .numeric import minimum
from .ops.base import Live
from .ops.node import Graph
from .specs.attention import CompressedAttention, GroupedQueryAttention, LatentAttention
from .specs.collective import CollectiveSpec
from .specs.engine import BeamCache, Cache, EngineSpec
from .specs.gpu import GpuSpec
from .specs.layout import LayoutSpec
from .specs.model import ModelSpec
from .specs.network import NetworkSpec
from .specs.precision import PrecisionSpec
from .types import Num

ALONE = LayoutSpec()

CACHE_TENSORS_PER_LAYER = 2.0
"""Keys and values."""


class Buffer(NamedTuple):
    """A workspace: bytes for a token of a sequence, of which it holds `held_bytes`.

    It is meant for `max_tokens` of each sequence, or for those of the request where they are more.
    """

    token_bytes: Num
    held_bytes: Num
    max_tokens: float
    spare_bytes: float
    cache_bytes: Num = 0.0
    """Of what it holds, the cache; 0 where the engine keeps it elsewhere."""


class Rolling(NamedTuple):
    """A cache of the last `window` tokens of a sequence, with bytes for each."""

    window: float
    token_bytes: Num


class OwnCache(NamedTuple):
    """What a sequence keeps beside what each token adds: states, and caches of the last tokens alone."""

    state_bytes: float = 0.0
    rolling: tuple[Rolling, ...] = ()

    def bytes(self, tokens: Num) -> Num:
        """Bytes of a sequence of so many tokens."""
        kept_bytes: Num = self.state_bytes
        for window, token_bytes in self.rolling:
            kept_bytes = kept_bytes + minimum(tokens, window) * token_bytes
        return kept_bytes


@dataclass(frozen=True, slots=True)
class Allocation:
    """Everything that sets the memory of one device beside the workload; of the fullest one of a layer split.

    `kv_token_bytes` is what a token of a sequence adds to the cache, which is kept as `cache` says in
    `cache_tensors` tensors. `live` and `logits` are alive in turn; the pool is `pool_fraction` of the device,
    or of what is free beside the cache (`pool_of_free`). Where an encoder reads the prompt, a token of it adds
    `source_token_bytes` to a cache that does not grow; `encoder_live` is alive in the encoder's pass, `first_live`
    in the decoder's first one only.
    """

    weights_bytes: Num
    kv_token_bytes: Num
    own: OwnCache
    cache: Cache
    beams: float
    """Beams of each sequence."""
    beam_cache: BeamCache
    cache_tensors: float
    block_tokens: float
    source_token_bytes: Num
    live: tuple[Live, ...]
    encoder_live: tuple[Live, ...]
    first_live: tuple[Live, ...]
    logits: Live
    overallocation: float
    token_by_token: bool
    """Whether a prompt is read in passes of one token."""
    pass_tokens: float | None
    pass_sequences: float
    buffer: Buffer | None
    comm_buffer_bytes: float
    graph_bytes: float
    context_bytes: float
    pool_fraction: float
    pool_of_free: bool
    capacity_bytes: Num
    layout: LayoutSpec = ALONE
    """How many of a replica's sequences a rank keeps, and how many it passes over at a time."""
    prefix_len: Num = 0.0
    """Tokens of each prompt that are cached before the prefill; sequences share their whole blocks."""
    chunk_tokens: Num = float("inf")
    """Most tokens of a sequence that a pass of the prefill takes."""
    images: Num = 0.0
    """Images of each prompt, of so many `patches`."""
    patches: float = 0.0
    vision_live: tuple[Live, ...] = ()
    """Alive in the pass over them."""
    step_tokens: Num = 1.0
    """Tokens of a sequence in a decode step: more than one where guesses are verified."""

    @property
    def encodes(self) -> bool:
        """Whether an encoder reads the prompt."""
        return bool(self.encoder_live)

    @property
    def limit_bytes(self) -> Num:
        """What the engine may use of the device."""
        return self.capacity_bytes if self.pool_of_free else self.pool_fraction * self.capacity_bytes


def allocation(
    model: ModelSpec | NetworkSpec,
    gpu: GpuSpec,
    engine: EngineSpec,
    precision: PrecisionSpec,
    layout: LayoutSpec,
    graph: Graph,
    collectives: CollectiveSpec | None,
    beams: int = 1,
) -> Allocation:
    """How the engine allocates the memory of one device of the layout."""
    layers, share = model.layer_count, layout.fullest_share(model.layer_count)
    cache, generates = engine.cache_of(model.position), isinstance(model, ModelSpec)
    kept_bytes = 0.0 if cache == "none" else kv_bytes_per_token(graph) * share
    return Allocation(
        weights_bytes=_weights_bytes(graph, share) + share * parameters(graph) * (precision.kept_weight_bytes or 0.0),
        kv_token_bytes=kept_bytes,
        own=OwnCache() if cache == "none" else _own_cache(graph, share),
        cache=cache,
        beams=float(beams),
        beam_cache=engine.beams,
        cache_tensors=CACHE_TENSORS_PER_LAYER * layers * share,
        block_tokens=float(engine.block_tokens or 1) if cache == "paged" else 1.0,
        source_token_bytes=_source_token_bytes(graph) if cache != "none" else 0.0,
        live=largest_live(graph, "always"),
        encoder_live=largest_live(graph, "encoder"),
        first_live=largest_live(graph, "first"),
        logits=held_logits(model, engine, precision) if isinstance(model, ModelSpec) else Live(),
        overallocation=engine.overallocation or 1.0,
        token_by_token=engine.feeds_tokens(model.causal),
        pass_tokens=float(engine.pass_tokens) if engine.pass_tokens and generates else None,
        pass_sequences=float(engine.pass_sequences or 0) if generates else 0.0,
        buffer=_buffer(model, engine, precision, kept_bytes) if isinstance(model, ModelSpec) else None,
        comm_buffer_bytes=(collectives.buffer_bytes or 0.0) if collectives and layout.layer_split == 1 else 0.0,
        graph_bytes=engine.graph_bytes or 0.0,
        context_bytes=engine.context_bytes,
        pool_fraction=engine.pool_fraction or 1.0,
        pool_of_free=engine.pool_of == "free",
        capacity_bytes=gpu.capacity_bytes,
        layout=layout,
    )


def _own_cache(graph: Graph, share: float) -> OwnCache:
    """A stage's share of the states and of the caches of each window."""
    found: dict[float, float] = {}
    for node in kept(graph):
        if node.op.rolling_bytes_per_token:
            window = node.op.attention_window
            found[window] = found.get(window, 0.0) + share * node.count * node.op.rolling_bytes_per_token
    return OwnCache(state_bytes(graph) * share, tuple(Rolling(*each) for each in found.items()))


def _source_token_bytes(graph: Graph) -> float:
    """Bytes that one token which an encoder has read adds to the cache of one rank."""
    return sum(node.count * node.op.source_kv_bytes_per_token for node in graph)


def _weights_bytes(graph: Graph, share: float) -> float:
    """A stage's share of the layers, with the embedding or the head where stages hold them apart."""
    if share == 1.0:
        return weights_bytes(graph)
    held = {"first": 0.0, "layers": 0.0, "last": 0.0}
    for node in kept(graph):
        held[node.place] += node.weights_bytes
    return share * held["layers"] + max(held["first"], held["last"])


def _buffer(model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec, cached: float) -> Buffer | None:
    """The engine's workspace: vectors of all heads, rows of scores, and the cache where it is not kept elsewhere.

    `cached` is what the device's layers keep of a token.
    """
    spec = engine.workspace
    if spec is None:
        return None
    b = precision.activation_bytes
    heads, width = _attending(model)
    vectors = spec.activation_vectors * width * b
    scores = spec.score_rows * heads * spec.max_tokens * b
    inside = 0.0 if engine.concatenates(engine.cache_of(model.position)) else cached
    held = vectors + scores + inside
    return Buffer(vectors + scores + cached, held, float(spec.max_tokens), float(spec.spare_bytes), inside)


def _attending(model: ModelSpec) -> tuple[int, int]:
    """Heads of the first attention, and values of a vector of all of them; those of the model where it has none."""
    for group in model.layers:
        match group.attention:
            case GroupedQueryAttention() | CompressedAttention() as spec:
                return spec.heads, spec.heads * spec.head_dim
            case LatentAttention() as spec:
                return spec.heads, spec.heads * spec.value_dim
    return 0, model.hidden
