"""Model x engine x precision x layout -> the operators of one forward pass on one device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from ..ops.attention import PositionBias
from ..ops.base import Live
from ..ops.collective import AllGather
from ..ops.dense import Embedding, Linear
from ..ops.elementwise import Elementwise
from ..ops.moe import ExpertLinear
from ..ops.node import NOTHING, Graph, Node, running
from ..specs.attention import GroupedQueryAttention
from ..specs.engine import EngineSpec
from ..specs.model import ActiveCounts, AudioInput, EncoderStack, LayerGroup, ModelSpec, Prediction, Vision
from ..specs.precision import PrecisionSpec
from .attention import cross_attention
from .exchanges import all_reduce, boundaries, context_exchange
from .ffn import feed_forward
from .inputs import TOKEN_TABLE, embedding, inputs
from .mixers import mixer
from .parts import FLOAT32_BYTES, Parts, Split
from .residual import LAYER_INPUTS_TABLE, joined_streams, layer_input, mixed_streams
from .vision import patches, projection, seeing

BEAM_SCORE_TENSORS, BEAM_SCORE_KERNELS = 6.0, 3.0
"""Log-softmax, sum with the scores of the beams, largest ones: each reads and writes 32 bits a word."""

LM_HEAD = "lm_head"


def build(
    model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec, tp: int, layer_split: int = 1, beams: int = 1
) -> Graph:
    """The nodes of one of `tp` ranks, in the order in which they run; of all stages of a layer split."""
    split = Split(tp=float(tp), expert_tp=float(tp), stages=float(layer_split))
    return build_split(model, engine, precision, split, beams)


def build_split(model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec, split: Split, beams: int = 1) -> Graph:
    """The nodes of one rank of each stage, in the order in which they run, as they see the rank's own sequences."""
    return tuple(_nodes(Parts(model, engine, precision, split, beams > 1)))


def kept(graph: Graph, predicts: bool = False) -> Graph:
    """The nodes whose weights a rank keeps: those that guess tokens ahead only if it `predicts` with them."""
    return graph if predicts else tuple(node for node in graph if node.runs != "prediction")


def parameters(graph: Graph, predicts: bool = False) -> float:
    """Weights that the nodes of one rank keep."""
    return sum(node.parameters for node in kept(graph, predicts))


def weights_bytes(graph: Graph, predicts: bool = False) -> float:
    """Bytes of those weights."""
    return sum(node.weights_bytes for node in kept(graph, predicts))


def active_parameters(graph: Graph, counts: ActiveCounts = "tables") -> float:
    """Weights of one rank that a token passes.

    Those of experts count by the share of them that a token visits; of the tables that layers have of their own a token
    passes a row. `counts` says whether the token table, as a whole, and the head are among them: both, the head alone
    (which may be the table), or neither. Layers that run the same weights again count once. An encoder of images and
    what guesses tokens ahead do not count.
    """
    passed = running(graph, "encoder", "first", "always")
    own_head = any(node.name == LM_HEAD and node.parameters for node in passed)
    ends = {"tables": (), "head": (TOKEN_TABLE,) if own_head else (), "layers": (TOKEN_TABLE, LM_HEAD)}[counts]
    return sum(_passed(node) * node.parameters for node in passed if node.name not in ends)


def _passed(node: Node) -> float:
    """Share of a node's weights that one token passes."""
    match node.op:
        case ExpertLinear() as op:
            return op.experts_per_token / op.experts
        case Embedding() as op if node.name == LAYER_INPUTS_TABLE:
            return 1.0 / op.rows
        case _:
            return 1.0


def kv_bytes_per_token(graph: Graph) -> float:
    """Bytes that one token of one sequence adds to the cache of one rank; caches of windows alone do not grow."""
    return sum(node.count * node.op.kv_bytes_per_token for node in kept(graph))


def state_bytes(graph: Graph) -> float:
    """Bytes that one sequence keeps on one rank, however long it is."""
    return sum(node.count * node.op.sequence_bytes for node in kept(graph))


def _nodes(parts: Parts) -> Iterator[Node]:
    """Those of its encoder of images, of the stack or stacks that a model is, and of what guesses tokens ahead."""
    if parts.model.vision is not None:
        for node in _vision(parts, parts.model.vision):
            yield replace(node, name=f"vision.{node.name}", runs="vision")
    yield from _stacks(parts)
    if parts.model.prediction is not None:
        for node in _prediction(parts, parts.model.prediction):
            yield replace(node, name=f"prediction.{node.name}", runs="prediction")


def _stacks(parts: Parts) -> Iterator[Node]:
    """Those of the one stack that a model is, or of its encoder and then of its decoder."""
    encoder = parts.model.encoder
    if encoder is None:
        yield from _stack(parts)
        return
    for node in _stack(_reading(parts, encoder), encoder.audio):
        yield replace(node, name=f"encoder.{node.name}", runs="encoder")
    output = Live(source_bytes=parts.model.hidden * parts.precision.activation_bytes)
    for node in _stack(parts):
        yield replace(node, name=f"decoder.{node.name}", held=node.held.beside(output))


def _reading(parts: Parts, encoder: EncoderStack) -> Parts:
    """The builder of an encoder: it sees every pair, keeps no cache and has no head."""
    stack = {field: getattr(encoder, field) for field in ("layers", "embedding_norm", "final_norm")}
    model = parts.model.model_copy(update={**stack, "causal": False, "head": "none", "encoder": None})
    engine = parts.engine.model_copy(update={"cache": "none", "concatenated_positions": frozenset()})
    return replace(parts, model=model, engine=engine, searches=False, borrows=encoder.tied_embeddings)


def _stack(parts: Parts, audio: AudioInput | None = None) -> Iterator[Node]:
    """What it reads, its layers, and its head."""
    model = parts.model
    yield from inputs(parts, audio)
    if model.position_buckets is not None:
        yield _position_bias(parts, float(model.position_buckets), _heads(model.layers[0]) / parts.tp)
    for index, group in enumerate(model.layers):
        prefix = "" if len(model.layers) == 1 else f"layers{index}."
        crossed = model.encoder is None and group.cross_attention is not None
        for node in _layer(parts, prefix, group):
            yield replace(node, runs="crossed") if crossed else node
    if model.residual_streams is not None:
        yield from joined_streams(parts, model.residual_streams)
    if model.final_norm:
        yield parts.norm_node("final_norm", 1.0)
    if parts.split.stages > 1:
        yield from boundaries(parts)
    for node in _head(parts):
        yield replace(node, place="last")


def _vision(parts: Parts, spec: Vision) -> Iterator[Node]:
    """A pass over the patches of images, before the prefill."""
    eyes = seeing(parts, spec)
    yield from patches(eyes, spec)
    for index, group in enumerate(spec.layers):
        yield from _layer(eyes, "" if len(spec.layers) == 1 else f"layers{index}.", group)
    yield from projection(eyes, spec)


def _prediction(parts: Parts, spec: Prediction) -> Iterator[Node]:
    """Modules that join the last hidden state and the next embedding, with the model's table and head or their own."""
    depth, hidden = float(spec.depth), float(parts.model.hidden)
    table = embedding(parts)
    yield Node("embedding", "embedding", replace(table, shared=not spec.own_embeddings), depth)
    yield replace(parts.norm_node("norm", 2.0), count=2.0 * depth)
    for node in parts.product("join", "ffn", parts.linear(2.0 * hidden, hidden, bias=False)):
        yield replace(node, count=depth)
    for index, group in enumerate(spec.layers):
        for node in _layer(parts, f"layers{index}.", group):
            yield replace(node, count=depth * node.count)
    yield replace(parts.norm_node("final_norm", 1.0), count=depth)
    for node in _head(parts):
        op = replace(node.op, shared=not spec.own_head) if isinstance(node.op, Linear) else node.op
        yield replace(node, count=depth, op=op)


def _position_bias(parts: Parts, buckets: float, heads: float) -> Node:
    """Once a pass, for all layers of the stack."""
    p, passes = parts.precision, parts.passes("position_bias", tensors=1.0)
    op = PositionBias(heads, buckets, passes.tensors, p.wide_bytes, p.activation_bytes)
    return Node("position_bias", "attention", op, kernels=passes.kernels)


def _head(parts: Parts) -> Iterator[Node]:
    match parts.model.head:
        case "lm":
            yield from _lm_head(parts)
        case "pooler":
            pooler = parts.linear(float(parts.model.hidden), float(parts.model.hidden), bias=True)
            yield Node("pooler", "head", replace(pooler, last_only=True))
        case "none":
            return
        case never:
            assert_never(never)


def _lm_head(parts: Parts) -> Iterator[Node]:
    m, p = parts.model, parts.precision
    last_only = parts.engine.logits == "last"
    vocab = float(math.ceil(m.vocab / parts.tp))
    if m.embedding_width is not None:
        narrowing = parts.linear(float(m.hidden), float(m.embedding_width), bias=False)
        yield Node("head_narrowing", "head", replace(narrowing, last_only=last_only))
    head = Linear(
        float(m.embedding_width or m.hidden),
        vocab,
        p.wide_bytes,
        p.activation_bytes,
        m.head_bias,
        last_only,
        m.tied_embeddings,
    )
    yield Node(LM_HEAD, "head", head, rate=parts.wide_rate())
    if parts.tp > 1:
        gather = AllGather(float(m.vocab), parts.tp, p.activation_bytes, last_only, parts.split.tp_nodes)
        yield Node("logits_all_gather", "communication", gather)
    passes = parts.engine.passes.get("logits")
    if passes is not None:
        cast = Elementwise(vocab, passes.tensors, p.activation_bytes, last_only=last_only)
        yield Node("logits_cast", "head", cast, kernels=passes.kernels)
    if parts.searches:
        scores = Elementwise(float(m.vocab), BEAM_SCORE_TENSORS, FLOAT32_BYTES, last_only=True)
        yield Node("beam_scores", "head", scores, kernels=BEAM_SCORE_KERNELS)
    sampled = Elementwise(float(m.vocab), 1.0, p.activation_bytes, flops_per_value=1.0, last_only=True)
    yield Node("sample", "head", sampled)


def _layer(parts: Parts, prefix: str, group: LayerGroup) -> Iterator[Node]:
    count, b = float(group.count), parts.precision.activation_bytes
    stored = None if group.stored is None else float(group.stored)
    held = Live(pair_bytes=(parts.model.position == "relative") * _heads(group) / parts.tp * b)
    for node in _norms_and_residuals(parts, group):
        kept_count = None if stored is None else stored * node.count
        yield replace(node, name=prefix + node.name, count=count * node.count, held=held, stored=kept_count)
    streams = 2.0 if parts.engine.kind == "eager" else 1.0  # callers keep inputs
    beside_bytes = parts.model.hidden * b * streams * parts.token_share
    for node in _blocks(parts, group):
        yield replace(
            node,
            name=prefix + node.name,
            count=count * node.count,
            stored=None if stored is None else stored * node.count,
            beside_bytes=beside_bytes,
            held=NOTHING if node.name == "attention" else held,  # which has the biases among its own tensors
        )
    yield from all_reduce(parts, f"{prefix}all_reduce", count * group.residuals)


def _blocks(parts: Parts, group: LayerGroup) -> Iterator[Node]:
    """What a layer is made of, in its order."""
    if group.attention is not None:
        yield from mixer(parts.mixing(), group.attention)
        yield from context_exchange(parts, group.attention)
    if group.beside_attention is not None:
        for node in (*mixer(parts.mixing(), group.beside_attention), *context_exchange(parts, group.beside_attention)):
            yield replace(node, name=f"beside_{node.name}")
    if group.cross_attention is not None:
        yield from cross_attention(parts.mixing(), group.cross_attention)
    if group.ffn is not None:
        yield from feed_forward(parts, group.ffn)
    if parts.model.layer_inputs is not None:
        yield from layer_input(parts, parts.model.layer_inputs)
    if parts.model.residual_streams is not None:
        for node in mixed_streams(parts, parts.model.residual_streams):
            yield replace(node, count=float(group.residuals))


def _heads(group: LayerGroup) -> int:
    """Heads whose scores have a bias."""
    return group.attention.heads if isinstance(group.attention, GroupedQueryAttention) else 0


def _norms_and_residuals(parts: Parts, group: LayerGroup) -> Iterator[Node]:
    """A fused kernel adds and normalises: reads branch and residual, writes residual and result."""
    hidden = float(parts.model.hidden)
    residuals = float(group.residuals)
    joined = min(float(group.norms), residuals) if parts.fuses("residual_norm") else 0.0
    if joined:
        yield Node("residual_norm", "norm", parts.norm(hidden, passes=4.0), joined, share=parts.token_share)
    if group.norms > joined:
        yield parts.norm_node("norm", group.norms - joined)
    if residuals > joined:
        added = parts.pass_over(hidden, passes=3.0)
        yield Node("residual", "norm", added, residuals - joined, share=parts.token_share)
