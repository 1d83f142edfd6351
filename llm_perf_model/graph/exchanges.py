"""Exchanges between the ranks of a replica -> nodes."""

from __future__ import annotations

from collections.abc import Iterator

from ..ops.collective import AllGather, AllReduce, AllToAll, CacheTransfer, ContextExchange, Transfer
from ..ops.node import Node
from ..ops.router import Router
from ..specs.attention import GroupedQueryAttention, LatentAttention
from ..specs.ffn import MoeFfn
from ..specs.mixer import Mixer
from ..types import Num
from .parts import Parts


def all_reduce(parts: Parts, name: str, count: float) -> Iterator[Node]:
    """Sums of partial results of `tp` ranks; where these share norms by tokens, in two halves around the norms."""
    split, bytes_per_value = parts.split, parts.precision.activation_bytes
    if split.tp == 1.0:
        return
    if not split.shares_norms:
        op = AllReduce(float(parts.model.hidden), split.tp, bytes_per_value, split.tp_nodes)
        yield Node(name, "communication", op, count)
        return
    half = AllGather(float(parts.model.hidden), split.tp, bytes_per_value, nodes=split.tp_nodes)
    yield Node(name.replace("all_reduce", "reduce_scatter"), "communication", half, count)
    yield Node(name.replace("all_reduce", "all_gather"), "communication", half, count)


def boundaries(parts: Parts) -> Iterator[Node]:
    """Activations cross to the next stage; a mask tensor makes all inputs of each layer travel.

    Each of `tp` ranks sends its share, and those of the next stage gather them.
    """
    split, bytes_per_value = parts.split, parts.precision.activation_bytes
    hidden, crossed = float(parts.model.hidden), split.stages - 1.0
    for name, between_nodes in (("stage_boundary", False), ("stage_boundary_network", True)):
        count = split.crossings if between_nodes else crossed - split.crossings
        if count:
            op = Transfer(hidden / split.tp, bytes_per_value, between_nodes=between_nodes)
            yield Node(name, "communication", op, count)
    if split.tp > 1.0 and not split.shares_norms:
        gather = AllGather(hidden, split.tp, bytes_per_value, nodes=split.tp_nodes)
        yield Node("stage_all_gather", "communication", gather, crossed)
    if parts.model.position in parts.engine.staged_positions:
        moved = sum(group.count for group in parts.model.layers) * crossed / split.stages
        inputs = Transfer(hidden, bytes_per_value, with_mask=True)
        yield Node("layer_inputs", "communication", inputs, moved, rate="staged")


def context_exchange(parts: Parts, spec: Mixer) -> Iterator[Node]:
    """Keys, or queries and results, between the ranks that share the tokens of a sequence."""
    split, p = parts.split, parts.precision
    if split.cp == 1.0:
        return
    window = float("inf")
    match spec:
        case GroupedQueryAttention():
            heads, kv_heads = parts.heads(spec)
            dims = float(spec.head_dim + (spec.value_dim or spec.head_dim))
            width, key_bytes = heads * dims / 2.0, kv_heads * dims * p.kv_bytes
            window = float(spec.window_tokens or window)
        case LatentAttention():
            kept = float(spec.kv_rank + spec.rope_dim)
            width, key_bytes = spec.heads / split.tp * kept, kept * p.kv_bytes
        case _:
            raise NotImplementedError(spec.kind)
    op = ContextExchange(width, key_bytes, split.cp, p.activation_bytes, window, split.cp_nodes)
    yield Node("context_exchange", "communication", op)


def dispatch(parts: Parts, spec: MoeFfn, name: str, width: float, value_bytes: float) -> Iterator[Node]:
    """Tokens of several groups of ranks to the experts that they visit, or the results back.

    Each of `tp` ranks, which all have the tokens of their group, sends a share of them.
    """
    split = parts.split
    if split.sharers == 1.0:
        return
    router = Router(float(spec.experts), float(spec.experts_per_token), split.ep, split.imbalance)
    ranks, seen = split.sharers * split.tp, split.sharers * split.tp
    op = AllToAll(width, ranks, value_bytes, router, split.expert_tp, split.stage_nodes, seen)
    yield Node(name, "communication", op, share=1.0 / split.tp)


def cache_transfer(sequence_bytes: Num) -> Node:
    """The cache of a sequence, sent to other devices."""
    return Node("cache_transfer", "communication", CacheTransfer(sequence_bytes), kernels=0.0)
