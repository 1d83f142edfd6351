"""Model x engine x precision x layout -> the operators of one forward pass on one device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, assert_never

from .ops.attention import CacheConcat, FusedAttention, MaterialisedAttention
from .ops.base import AbstractOp, Cost, Kind, Live
from .ops.batch import Batch
from .ops.collective import AllGather, AllReduce, Transfer
from .ops.dense import Embedding, Linear
from .ops.elementwise import Elementwise
from .ops.moe import ExpertLinear
from .specs.attention import GroupedQueryAttention
from .specs.engine import EngineSpec, Fusion, Passes, PassName
from .specs.ffn import Ffn, GatedFfn, MoeFfn, PlainFfn
from .specs.model import LayerGroup, ModelSpec
from .specs.precision import PrecisionSpec

Role = Literal[
    "embedding", "attention", "ffn", "norm", "head", "communication",
    "convolution", "dense", "recurrent", "pool", "pass",
]  # fmt: skip
"""Part that a node belongs to: of a transformer, or of a network of layers."""


@dataclass(frozen=True, slots=True)
class Node:
    """An operator that runs `count` times a pass, as `kernels` kernels each time."""

    name: str
    role: Role
    op: AbstractOp
    count: float = 1.0
    kernels: float = 1.0
    calls: float | None = None
    """Operators that a framework dispatches for it each time; None: one a kernel."""
    rate: Kind | None = None
    """Rate that it runs at, where that is not its operator's own."""
    beside_bytes: float = 0.0
    """Bytes a token that stay alive beside its own tensors: the residual stream, inputs that a caller keeps."""
    steps: float = 1.0
    """Tokens of one sequence that a sample of a network is to its operator."""

    @property
    def kind(self) -> Kind:
        """Which of a machine's rates it runs at."""
        return self.rate or self.op.kind

    @property
    def dispatched(self) -> float:
        """Operators that a framework dispatches for it in a pass."""
        return self.count * (self.kernels if self.calls is None else self.calls)

    @property
    def launched(self) -> float:
        """Kernels that a library launches in a pass beside one for each call."""
        return self.count * max(self.kernels - (self.kernels if self.calls is None else self.calls), 0.0)

    @property
    def live(self) -> Live:
        """What is alive while it runs; a pass in several kernels holds the tensors of one of them."""
        own, share = self.op.live, self.kernels if isinstance(self.op, Elementwise) else 1.0
        token_bytes, sequence_bytes = own.token_bytes / share, own.sequence_bytes / share
        if self.steps == 1.0:
            return Live(token_bytes + self.beside_bytes, sequence_bytes, own.pair_bytes)
        sample_bytes = self.steps * token_bytes + sequence_bytes + self.steps**2 * own.pair_bytes
        return Live(sample_bytes + self.beside_bytes)

    def seen(self, batch: Batch) -> Batch:
        """The batch as its operator sees it: each sample of a network may be a sequence of several tokens."""
        return batch if self.steps == 1.0 else Batch.uniform(batch.tokens, self.steps, 0.0)

    def cost(self, batch: Batch) -> Cost:
        """Work of its operator, each time that it runs."""
        return self.op.cost(self.seen(batch))


Graph = tuple[Node, ...]

FLOAT32_BYTES = 4.0

BEAM_SCORE_TENSORS, BEAM_SCORE_KERNELS = 6.0, 3.0
"""Log-softmax, sum with the scores of the beams, largest ones: each reads and writes 32 bits a word."""

NORM_TOUCHES = 3.0
"""A norm reads each value twice and writes it once."""

SLOW_ATTENTION_KERNELS = 7.0
"""Split heads, store keys, store values, product, softmax, product, merge heads."""


def build(
    model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec, tp: int, layer_split: int = 1, beams: int = 1
) -> Graph:
    """The nodes of one of `tp` ranks, in the order in which they run; of all stages of a layer split."""
    return tuple(_Builder(model, engine, precision, float(tp), float(layer_split), beams > 1).nodes())


def parameters(graph: Graph) -> float:
    """Weights that the nodes of one rank keep."""
    return sum(node.count * node.op.parameters for node in graph)


def weights_bytes(graph: Graph) -> float:
    """Bytes of those weights."""
    return sum(node.count * node.op.stored_weight_bytes for node in graph)


def kv_bytes_per_token(graph: Graph) -> float:
    """Bytes that one token of one sequence adds to the cache of one rank."""
    return sum(node.count * node.op.kv_bytes_per_token for node in graph)


def scores(
    engine: EngineSpec,
    precision: PrecisionSpec,
    spec: GroupedQueryAttention,
    heads: float,
    kv_heads: float,
    causal: bool,
) -> Node:
    """softmax(QK^T)V of one rank's heads, as the engine computes it; keys are cached where queries see the past."""
    sizes = (heads, kv_heads, float(spec.head_dim), precision.activation_bytes, precision.kv_bytes)
    fast = engine.fast_head_dims
    if fast is not None and spec.head_dim not in fast:
        slow = MaterialisedAttention(*sizes, causal)
        return Node("attention", "attention", slow, kernels=SLOW_ATTENTION_KERNELS, rate="slow_attention")
    match engine.attention:
        case "fused" | "fused_masked":
            window = float(spec.window_tokens or math.inf)
            all_pairs = engine.attention == "fused_masked" or not causal
            return Node("attention", "attention", FusedAttention(*sizes, window, all_pairs, causal))
        case "materialised":
            written = MaterialisedAttention(*sizes, causal)
            return Node("attention", "attention", written, kernels=3.0)  # product, softmax, product
        case never:
            assert_never(never)


@dataclass(frozen=True, slots=True)
class _Builder:
    model: ModelSpec
    engine: EngineSpec
    precision: PrecisionSpec
    tp: float
    stages: float
    searches: bool
    """Whether sequences are beams of a search."""

    def nodes(self) -> Iterator[Node]:
        model = self.model
        yield Node("embedding", "embedding", self._embedding())
        if self.tp > 1:
            yield self._all_reduce("embedding_all_reduce", 1.0)
        if model.embedding_norm:
            yield self._norm_node("embedding_norm", 1.0)
        for index, group in enumerate(model.layers):
            prefix = "" if len(model.layers) == 1 else f"layers{index}."
            yield from self._layer(prefix, group)
        if model.final_norm:
            yield self._norm_node("final_norm", 1.0)
        if self.stages > 1:
            yield from self._boundaries()
        yield from self._head()

    def _fuses(self, fusion: Fusion) -> bool:
        return fusion in self.engine.fused

    def _linear(self, d_in: float, d_out: float, bias: bool) -> Linear:
        p = self.precision
        return Linear(d_in, d_out, p.weight_bytes, p.activation_bytes, bias, input_bytes=p.read_bytes)

    def _wide_rate(self) -> Kind | None:
        """Rate of products that a narrow precision leaves wide."""
        return None if self.precision.scheme == "plain" else "wide_gemm"

    def _product(self, name: str, role: Role, op: Linear | ExpertLinear, visits: float = 1.0) -> Iterator[Node]:
        """A product, after the pass that narrows its inputs where the precision needs one."""
        if self.precision.narrowing_pass:
            tensors = 1.0 + self.precision.read_bytes / self.precision.activation_bytes
            yield Node(f"{name}_narrowing", role, self._pass(visits * op.d_in, tensors))
        yield Node(name, role, op)

    def _pass(self, width: float, passes: float, touches: float = 0.0) -> Elementwise:
        return Elementwise(width, passes, self.precision.activation_bytes, touches=touches)

    def _norm(self, width: float, passes: float) -> Elementwise:
        vectors = 2.0 if self.model.norm == "layernorm" and self.model.norm_bias else 1.0
        p = self.precision
        weights = vectors * width
        return Elementwise(
            width, passes, p.activation_bytes, weights=weights, weight_bytes=p.wide_bytes, touches=NORM_TOUCHES
        )

    def _passes(self, name: PassName, tensors: float, kernels: float = 1.0) -> Passes:
        """The engine's passes of a role, or those of one plain kernel."""
        return self.engine.passes.get(name) or Passes(tensors=tensors, kernels=kernels)

    def _touches(self, name: PassName, touches: float) -> float:
        """Touches of a kernel with one block a row; passes that the engine lists take many values at a time."""
        return 0.0 if name in self.engine.passes else touches

    def _norm_node(self, name: str, count: float) -> Node:
        passes = self._passes(self.model.norm, tensors=2.0)
        return Node(name, "norm", self._norm(float(self.model.hidden), passes.tensors), count, passes.kernels)

    def _boundaries(self) -> Iterator[Node]:
        """Activations cross to the next stage; a mask tensor makes all inputs of each layer travel."""
        hidden, bytes_per_value = float(self.model.hidden), self.precision.activation_bytes
        yield Node("stage_boundary", "communication", Transfer(hidden, bytes_per_value), self.stages - 1.0)
        if self.model.position in self.engine.staged_positions:
            moved = sum(group.count for group in self.model.layers) * (self.stages - 1.0) / self.stages
            inputs = Transfer(hidden, bytes_per_value, with_mask=True)
            yield Node("layer_inputs", "communication", inputs, moved, rate="staged")

    def _all_reduce(self, name: str, count: float) -> Node:
        op = AllReduce(float(self.model.hidden), self.tp, self.precision.activation_bytes)
        return Node(name, "communication", op, count)

    def _embedding(self) -> Embedding:
        m, p = self.model, self.precision
        rows = float(math.ceil(m.vocab / self.tp))
        side_rows = tuple(float(rows) for rows in (m.learned_rows, m.token_types) if rows)
        return Embedding(rows, side_rows, float(m.hidden), self.tp, p.wide_bytes, p.activation_bytes)

    def _head(self) -> Iterator[Node]:
        match self.model.head:
            case "lm":
                yield from self._lm_head()
            case "pooler":
                pooler = self._linear(float(self.model.hidden), float(self.model.hidden), bias=True)
                yield Node("pooler", "head", replace(pooler, last_only=True))
            case "none":
                return
            case never:
                assert_never(never)

    def _lm_head(self) -> Iterator[Node]:
        m, p = self.model, self.precision
        last_only = self.engine.logits == "last"
        vocab = float(math.ceil(m.vocab / self.tp))
        head = Linear(
            float(m.hidden), vocab, p.wide_bytes, p.activation_bytes, m.head_bias, last_only, m.tied_embeddings
        )
        yield Node("lm_head", "head", head, rate=self._wide_rate())
        if self.tp > 1:
            gather = AllGather(float(m.vocab), self.tp, p.activation_bytes, last_only)
            yield Node("logits_all_gather", "communication", gather)
        passes = self.engine.passes.get("logits")
        if passes is not None:
            cast = Elementwise(vocab, passes.tensors, p.activation_bytes, last_only=last_only)
            yield Node("logits_cast", "head", cast, kernels=passes.kernels)
        if self.searches:
            scores = Elementwise(float(m.vocab), BEAM_SCORE_TENSORS, FLOAT32_BYTES, last_only=True)
            yield Node("beam_scores", "head", scores, kernels=BEAM_SCORE_KERNELS)
        sampled = Elementwise(float(m.vocab), 1.0, p.activation_bytes, flops_per_value=1.0, last_only=True)
        yield Node("sample", "head", sampled)

    def _layer(self, prefix: str, group: LayerGroup) -> Iterator[Node]:
        count = float(group.count)
        for node in self._norms_and_residuals(group):
            yield replace(node, name=prefix + node.name, count=count * node.count)
        stream_bytes = self.model.hidden * self.precision.activation_bytes
        beside_bytes = stream_bytes * (2.0 if self.engine.kind == "eager" else 1.0)  # callers keep the normed input
        for node in (*self._attention(group.attention), *self._ffn(group.ffn)):
            yield replace(node, name=prefix + node.name, count=count * node.count, beside_bytes=beside_bytes)
        if self.tp > 1:
            yield self._all_reduce(f"{prefix}all_reduce", count * (1.0 if group.parallel else 2.0))

    def _norms_and_residuals(self, group: LayerGroup) -> Iterator[Node]:
        """A fused kernel adds and normalises: reads branch and residual, writes residual and result."""
        hidden = float(self.model.hidden)
        residuals = 1.0 if group.parallel else 2.0
        joined = min(float(group.norms), residuals) if self._fuses("residual_norm") else 0.0
        if joined:
            yield Node("residual_norm", "norm", self._norm(hidden, passes=4.0), joined)
        if group.norms > joined:
            yield self._norm_node("norm", group.norms - joined)
        if residuals > joined:
            yield Node("residual", "norm", self._pass(hidden, passes=3.0), residuals - joined)

    def _attention(self, spec: GroupedQueryAttention) -> Iterator[Node]:
        hidden, dim = float(self.model.hidden), float(spec.head_dim)
        heads = spec.heads / self.tp
        kv_heads = max(spec.kv_heads / self.tp, 1.0)  # fewer key heads than ranks: each rank keeps a copy
        qkv = (heads + 2.0 * kv_heads) * dim
        rotated = (heads + kv_heads) * dim
        yield from self._product("qkv", "attention", self._linear(hidden, qkv, spec.qkv_bias))
        if spec.qkv_bias and not self._fuses("bias"):
            yield Node("qkv_bias", "attention", self._pass(qkv, passes=2.0))
        if spec.qk_norm:
            p = self.precision
            op = Elementwise(rotated, 2.0, p.activation_bytes, weights=2.0 * dim, weight_bytes=p.wide_bytes)
            yield Node("qk_norm", "attention", op)
        if self.model.position == "rotary" and not self._fuses("rotary"):
            turns = self._passes("rotary", tensors=2.0)
            rotation = self._pass(rotated, turns.tensors, self._touches("rotary", 2.0))
            yield Node("rotary", "attention", rotation, kernels=turns.kernels)
        layout = self.engine.passes.get("layout")
        if layout is not None:
            moved = self._pass(qkv + heads * dim, layout.tensors)
            yield Node("layout", "attention", moved, kernels=layout.kernels, calls=layout.calls)
        if self.engine.concatenates(self.engine.cache_of(self.model.position)):
            grown = CacheConcat(kv_heads, dim, self.precision.kv_bytes)
            yield Node("cache_concat", "attention", grown, kernels=2.0)
        if self.searches and self.engine.beams == "copied":
            gathered = CacheConcat(kv_heads, dim, self.precision.kv_bytes)  # as many bytes, at the rate of a gather
            yield Node("cache_reorder", "attention", gathered, kernels=2.0, rate="elementwise")
        yield scores(self.engine, self.precision, spec, heads, kv_heads, self.model.causal)
        yield from self._product("attention_out", "attention", self._linear(heads * dim, hidden, spec.out_bias))
        if spec.out_bias and not self._fuses("bias"):
            yield Node("attention_out_bias", "attention", self._pass(hidden, passes=2.0))

    def _ffn(self, spec: Ffn) -> Iterator[Node]:
        match spec:
            case PlainFfn() | GatedFfn():
                yield from self._dense_ffn(spec)
            case MoeFfn():
                yield from self._moe_ffn(spec)
            case never:
                assert_never(never)

    def _dense_ffn(self, spec: PlainFfn | GatedFfn) -> Iterator[Node]:
        hidden, inner = float(self.model.hidden), spec.intermediate / self.tp
        match spec:
            case PlainFfn():
                first, width = "ffn_up", inner
                passes = self._passes(spec.activation, tensors=2.0)
            case GatedFfn():
                first, width = "ffn_gate_up", 2.0 * inner
                passes = self._passes(spec.activation, tensors=3.0)
            case never:
                assert_never(never)
        yield from self._product(first, "ffn", self._linear(hidden, width, spec.bias))
        if spec.bias and not self._fuses("bias"):
            yield Node(f"{first}_bias", "ffn", self._pass(width, passes=2.0))
        if not self._fuses("activation"):
            activation = self._pass(inner, passes.tensors, self._touches(spec.activation, passes.tensors))
            yield Node("ffn_activation", "ffn", activation, kernels=passes.kernels)
        yield from self._product("ffn_down", "ffn", self._linear(inner, hidden, spec.bias))
        if spec.bias and not self._fuses("bias"):
            yield Node("ffn_down_bias", "ffn", self._pass(hidden, passes=2.0))

    def _moe_ffn(self, spec: MoeFfn) -> Iterator[Node]:
        """Router, shared expert, then the products of the experts that the tokens visit, each split over the ranks."""
        hidden, p = float(self.model.hidden), self.precision
        experts, visits, inner = float(spec.experts), float(spec.experts_per_token), spec.intermediate / self.tp
        router = Linear(hidden, experts, p.wide_bytes, p.activation_bytes)
        yield Node("router", "ffn", router, rate=self._wide_rate())
        yield Node("route", "ffn", self._pass(experts, passes=2.0))
        if spec.shared_intermediate:
            shared = GatedFfn(intermediate=spec.shared_intermediate, activation=spec.activation)
            for node in self._dense_ffn(shared):
                yield replace(node, name=f"shared_{node.name}")
        sizes = (p.weight_bytes, p.activation_bytes, p.read_bytes)
        gate_up = ExpertLinear(experts, visits, hidden, 2.0 * inner, *sizes)
        yield from self._product("experts_gate_up", "ffn", gate_up)
        if not self._fuses("activation"):
            passes = self._passes(spec.activation, tensors=3.0)
            activation = self._pass(visits * inner, passes.tensors, self._touches(spec.activation, passes.tensors))
            yield Node("experts_activation", "ffn", activation, kernels=passes.kernels)
        down = ExpertLinear(experts, visits, inner, hidden, *sizes)
        yield from self._product("experts_down", "ffn", down, visits)
        yield Node("experts_sum", "ffn", self._pass(hidden, passes=visits + 1.0))
