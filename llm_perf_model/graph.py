"""Model x engine x precision x layout -> the operators of one forward pass on one device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import assert_never

from .ops.attention import CacheConcat, FusedAttention, MaterialisedAttention, PositionBias
from .ops.base import Kind, Live
from .ops.collective import AllGather, AllReduce, Transfer
from .ops.dense import Embedding, Linear
from .ops.elementwise import Elementwise
from .ops.moe import ExpertLinear
from .ops.node import Graph, Node, Role
from .ops.source import SourceAttention, SourceGather
from .specs.attention import CrossAttention, GroupedQueryAttention
from .specs.engine import EngineSpec, Fusion, Passes, PassName
from .specs.ffn import Ffn, GatedFfn, MoeFfn, PlainFfn
from .specs.model import EncoderStack, LayerGroup, ModelSpec
from .specs.precision import PrecisionSpec

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
    spec: GroupedQueryAttention | CrossAttention,
    heads: float,
    kv_heads: float,
    causal: bool,
    biased: bool = False,
) -> Node:
    """softmax(QK^T)V of one rank's heads, as the engine computes it; keys are cached where queries see the past."""
    sizes = (heads, kv_heads, float(spec.head_dim), precision.activation_bytes, precision.kv_bytes)
    written = MaterialisedAttention(*sizes, causal, biased)
    fast = engine.fast_head_dims
    if fast is not None and spec.head_dim not in fast:
        return Node("attention", "attention", written, kernels=SLOW_ATTENTION_KERNELS + biased, rate="slow_attention")
    match engine.attention:
        case "fused" | "fused_masked":
            window = float((isinstance(spec, GroupedQueryAttention) and spec.window_tokens) or math.inf)
            all_pairs = engine.attention == "fused_masked" or not causal
            return Node("attention", "attention", FusedAttention(*sizes, window, all_pairs, causal, biased))
        case "materialised":
            softmax = engine.passes.get("softmax") or Passes(tensors=2.0, kernels=1.0)
            written = replace(written, softmax_tensors=softmax.tensors)
            return Node("attention", "attention", written, kernels=2.0 + softmax.kernels + biased)  # and two products
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
    borrows: bool = False
    """Whether the token table is another stack's."""

    def nodes(self) -> Iterator[Node]:
        """Those of the one stack that a model is, or of its encoder and then of its decoder."""
        encoder = self.model.encoder
        if encoder is None:
            yield from self._stack()
            return
        for node in self._reading(encoder)._stack():
            yield replace(node, name=f"encoder.{node.name}", runs="encoder")
        output = Live(source_bytes=self.model.hidden * self.precision.activation_bytes)
        for node in self._stack():
            yield replace(node, name=f"decoder.{node.name}", held=node.held.beside(output))

    def _reading(self, encoder: EncoderStack) -> _Builder:
        """The builder of an encoder: it sees every pair, keeps no cache and has no head."""
        stack = {field: getattr(encoder, field) for field in ("layers", "embedding_norm", "final_norm")}
        model = self.model.model_copy(update={**stack, "causal": False, "head": "none", "encoder": None})
        engine = self.engine.model_copy(update={"cache": "none", "concatenated_positions": frozenset()})
        return replace(self, model=model, engine=engine, searches=False, borrows=encoder.tied_embeddings)

    def _stack(self) -> Iterator[Node]:
        model = self.model
        yield Node("embedding", "embedding", self._embedding())
        if self.tp > 1:
            yield self._all_reduce("embedding_all_reduce", 1.0)
        if model.embedding_norm:
            yield self._norm_node("embedding_norm", 1.0)
        if model.position_buckets is not None:
            yield self._position_bias(float(model.position_buckets), model.layers[0].attention.heads / self.tp)
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
        return Embedding(rows, side_rows, float(m.hidden), self.tp, p.wide_bytes, p.activation_bytes, self.borrows)

    def _position_bias(self, buckets: float, heads: float) -> Node:
        """Once a pass, for all layers of the stack."""
        p, passes = self.precision, self._passes("position_bias", tensors=1.0)
        op = PositionBias(heads, buckets, passes.tensors, p.wide_bytes, p.activation_bytes)
        return Node("position_bias", "attention", op, kernels=passes.kernels)

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
        count, b = float(group.count), self.precision.activation_bytes
        held = Live(pair_bytes=(self.model.position == "relative") * group.attention.heads / self.tp * b)
        for node in self._norms_and_residuals(group):
            yield replace(node, name=prefix + node.name, count=count * node.count, held=held)
        beside_bytes = self.model.hidden * b * (2.0 if self.engine.kind == "eager" else 1.0)  # callers keep inputs
        crossed = () if group.cross_attention is None else self._cross_attention(group.cross_attention)
        for node in (*self._attention(group.attention), *crossed, *self._ffn(group.ffn)):
            beside = Live() if node.name == "attention" else held  # which has the biases among its own tensors
            placed = replace(node, name=prefix + node.name, count=count * node.count)
            yield replace(placed, beside_bytes=beside_bytes, held=beside)
        if self.tp > 1:
            yield self._all_reduce(f"{prefix}all_reduce", count * group.residuals)

    def _norms_and_residuals(self, group: LayerGroup) -> Iterator[Node]:
        """A fused kernel adds and normalises: reads branch and residual, writes residual and result."""
        hidden = float(self.model.hidden)
        residuals = float(group.residuals)
        joined = min(float(group.norms), residuals) if self._fuses("residual_norm") else 0.0
        if joined:
            yield Node("residual_norm", "norm", self._norm(hidden, passes=4.0), joined)
        if group.norms > joined:
            yield self._norm_node("norm", group.norms - joined)
        if residuals > joined:
            yield Node("residual", "norm", self._pass(hidden, passes=3.0), residuals - joined)

    def _attention(self, spec: GroupedQueryAttention) -> Iterator[Node]:
        model, hidden, dim = self.model, float(self.model.hidden), float(spec.head_dim)
        heads, kv_heads = self._heads(spec)
        qkv = (heads + 2.0 * kv_heads) * dim
        rotated = (heads + kv_heads) * dim
        yield from self._projection("qkv", hidden, qkv, spec.qkv_bias)
        if spec.qk_norm:
            p = self.precision
            op = Elementwise(rotated, 2.0, p.activation_bytes, weights=2.0 * dim, weight_bytes=p.wide_bytes)
            yield Node("qk_norm", "attention", op)
        if model.position == "rotary" and not self._fuses("rotary"):
            turns = self._passes("rotary", tensors=2.0)
            rotation = self._pass(rotated, turns.tensors, self._touches("rotary", 2.0))
            yield Node("rotary", "attention", rotation, kernels=turns.kernels)
        layout = self.engine.passes.get("layout")
        if layout is not None:
            moved = self._pass(qkv + heads * dim, layout.tensors)
            yield Node("layout", "attention", moved, kernels=layout.kernels)
        if self.engine.concatenates(self.engine.cache_of(model.position)):
            grown = CacheConcat(kv_heads, dim, self.precision.kv_bytes)
            yield Node("cache_concat", "attention", grown, kernels=2.0)
        if self.searches and self.engine.beams == "copied":
            gathered = CacheConcat(kv_heads, dim, self.precision.kv_bytes)  # as many bytes, at the rate of a gather
            yield Node("cache_reorder", "attention", gathered, kernels=2.0, rate="elementwise")
        yield scores(self.engine, self.precision, spec, heads, kv_heads, model.causal, model.position == "relative")
        yield from self._projection("attention_out", heads * dim, hidden, spec.out_bias)

    def _cross_attention(self, spec: CrossAttention) -> Iterator[Node]:
        """Keys and values of the encoder's output once, then attention over them in each pass."""
        hidden, dim = float(self.model.hidden), float(spec.head_dim)
        heads, kv_heads = self._heads(spec)
        read = self._projection("cross_kv", hidden, 2.0 * kv_heads * dim, spec.qkv_bias)
        for node in (*read, *self._cross_layout("cross_kv_layout", 2.0 * kv_heads * dim)):
            yield replace(node, runs="first")
        yield from self._projection("cross_q", hidden, heads * dim, spec.qkv_bias)
        yield from self._cross_layout("cross_layout", 2.0 * heads * dim)  # queries and results
        if self.searches and self.engine.beams == "copied":
            gathered = SourceGather(kv_heads, dim, self.precision.kv_bytes)
            yield Node("cross_reorder", "attention", gathered, kernels=2.0, rate="elementwise")
        seen = scores(self.engine, self.precision, spec, heads, kv_heads, causal=False)
        assert isinstance(seen.op, FusedAttention | MaterialisedAttention)
        yield replace(seen, name="cross_attention", op=SourceAttention(seen.op))
        yield from self._projection("cross_attention_out", heads * dim, hidden, spec.out_bias)

    def _cross_layout(self, name: str, width: float) -> Iterator[Node]:
        """Half of what lays out queries, keys, values and results where all are of the same tokens."""
        layout = self.engine.passes.get("layout")
        if layout is not None:
            yield Node(name, "attention", self._pass(width, layout.tensors), kernels=layout.kernels / 2.0)

    def _projection(self, name: str, d_in: float, d_out: float, bias: bool) -> Iterator[Node]:
        """A product of attention, and the pass that adds its bias."""
        yield from self._product(name, "attention", self._linear(d_in, d_out, bias))
        if bias and not self._fuses("bias"):
            yield Node(f"{name}_bias", "attention", self._pass(d_out, passes=2.0))

    def _heads(self, spec: GroupedQueryAttention | CrossAttention) -> tuple[float, float]:
        """Query and key heads of a rank, which keeps a copy where there are fewer key heads than ranks."""
        return spec.heads / self.tp, max(spec.kv_heads / self.tp, 1.0)

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
