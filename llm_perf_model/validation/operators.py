"""What a timed operator is in the terms of the model: nodes, a batch, a device and a precision."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from ..errors import InfeasibleError, UnknownNameError
from ..graph.parts import NORM_TOUCHES
from ..machine import gemm_peak
from ..ops.attention import FusedAttention
from ..ops.base import AbstractOp, Cost
from ..ops.batch import UNLIMITED, Batch
from ..ops.collective import AllGather, AllReduce, Transfer
from ..ops.dense import Embedding, Linear
from ..ops.elementwise import Elementwise
from ..ops.moe import ExpertLinear
from ..ops.node import Node
from ..placement import connection
from ..specs.catalog import is_path, load
from ..specs.ffn import GatedFfn
from ..specs.gpu import GpuSpec
from ..specs.model import ModelSpec
from ..specs.precision import PrecisionSpec
from . import layer_operators
from .conventions import convention
from .records import Record
from .routing import routed
from .unmappable import UnmappableError

Family = str
"""Kernels that share coefficients: gemm, convolution, recurrent, attention, elementwise, experts, collective."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A timed operator as nodes of a graph that run one after the other on one batch."""

    record: Record
    family: Family
    gpu: str
    precision: str
    engine: str
    nodes: tuple[Node, ...]
    batch: Batch
    ranks: int
    launch_s: float
    """Time of the method of measurement, not of the kernels."""
    least_s: float
    """Time below which the method shows nothing: the host launches no faster."""
    fitted: bool
    """Whether coefficients are fitted to it; else it is only scored."""
    cold: bool = False
    """Whether the method took care that operands come from memory."""


def timed(record: Record, engine: str | None = None) -> Timed:
    """A record of an operator in the terms of the model, of `engine` if one is given.

    Raises:
        UnmappableError: with the reason.
    """
    if record.outcome != "ok" or record.metric != "time_ms":
        raise UnmappableError(f"metric '{record.metric}' of an operator is not a time")
    try:
        device = load(GpuSpec, record.device)
    except UnknownNameError:
        raise UnmappableError(f"unknown device '{record.device}'") from None
    precision = _precision(record.w_dtype)
    family, nodes, batch = _built(record, precision)
    rules = convention(record)
    runs_as = engine or str(rules.get("runs_as", "generic-fused"))
    added_s = (rules.get("launch_s", 0.0), rules.get("least_s", 0.0))
    ranks = _ranks(record)
    _check_runs(device, precision, ranks)
    gpu = record.device if is_path(record.device) else device.name
    scored = (not rules.get("unfitted"), record.extra.get("cache") == "cold")
    return Timed(record, family, gpu, precision, runs_as, nodes, batch, ranks, *added_s, *scored)


def work(record: Record) -> Cost:
    """What a timed operator computes and moves, on one rank, whatever the device.

    Raises:
        UnmappableError: with the reason.
    """
    _, nodes, batch = _built(record, _precision(record.w_dtype))
    return Cost(*map(sum, zip(*(node.cost(batch) for node in nodes), strict=True)))


def _built(record: Record, precision: str) -> Built:
    """The nodes and the batch of a record."""
    name = record.operator.rsplit("/", 1)[-1]
    found = next((build for pattern, build in _BUILDERS.items() if re.fullmatch(pattern, record.operator)), None)
    if found is None:
        raise UnmappableError(f"operator '{record.operator}' is not in the model")
    try:
        return found(record, load(PrecisionSpec, precision), name)
    except KeyError as missing:
        raise UnmappableError(f"the record states no {missing.args[0]}") from None


def _check_runs(device: GpuSpec, precision: str, ranks: int) -> None:
    """Refuse what no such device can run."""
    if gemm_peak(device, load(PrecisionSpec, precision)) is None:
        raise UnmappableError(f"{device.name} has no unit for {precision}")
    if device.kind == "cpu" and ranks > 1:
        raise UnmappableError("processes of one processor exchange through its memory, for which there is no link")
    try:
        connection(device, ranks, None)
    except InfeasibleError as error:
        raise UnmappableError(f"cannot run: {error}") from None


_DTYPES: Final[Mapping[str, str]] = {
    r"bfloat16.*|bf16": "bf16",
    r"fp16|half|16 bit inputs, 16 bit multiplication.*": "w16a16",
    r"fp32|Float": "fp32",
    "tf32": "tf32",
    "int4_wo": "w4a16",
    "int8_wo": "w8a16",
    r"sq|int8": "w8a8",
    "fp8": "fp8",
    "fp8_block": "fp8-block",
}
"""Recorded type of an operator -> precision."""


def _precision(dtype: str) -> str:
    found = next((name for pattern, name in _DTYPES.items() if re.fullmatch(pattern, dtype)), None)
    if found is None:
        raise UnmappableError(f"precision '{dtype}' of an operator is not modelled")
    return found


Built = tuple[Family, tuple[Node, ...], Batch]
Builder = Callable[[Record, PrecisionSpec, str], Built]


def _gemm(record: Record, p: PrecisionSpec, _: str) -> Built:
    m, n, k = (record.sizes[name] for name in ("m", "n", "k"))
    if convention(record).get("layout") == "column-major":
        m, n = n, m
    op = Linear(k, n, p.weight_bytes, p.activation_bytes, input_bytes=p.read_bytes)
    return "gemm", (*_narrowing(p, k), Node("product", "ffn", op)), Batch.uniform(1.0, m, 0.0)


def _narrowing(p: PrecisionSpec, width: float) -> Iterator[Node]:
    if p.narrowing_pass:
        yield Node("narrowing", "ffn", Elementwise(width, 1.0 + p.read_bytes / p.activation_bytes, p.activation_bytes))


def _attention(record: Record, p: PrecisionSpec, name: str) -> Built:
    """Prefill or a decode step; some collectors store half of the cache, or keys for the whole batch."""
    rules, size = convention(record), record.sizes
    seqs, keys = size["batch"], size["kv_len"]
    new = size["q_len"] if name == "context_attention" else 1.0
    if rules.get("kv_len") == "of the batch" and new == 1.0:
        keys = keys // seqs
        if keys < 1.0:
            raise UnmappableError("no key is left for a sequence")
    kv_bytes = 1.0 if record.w_dtype.endswith("kv fp8") else p.activation_bytes
    if rules.get("values") == "alias keys" and size["heads"] != size["kv_heads"]:
        raise UnmappableError("the timed kernel keeps keys alone: its bytes are not those of a cache")
    op = FusedAttention(
        size["heads"],
        size["kv_heads"],
        size["head_dim"],
        p.activation_bytes,
        kv_bytes,
        UNLIMITED,
        rules.get("mask") == "none",
    )
    nodes = [Node("attention", "attention", op)]
    if rules.get("rotation") == "inside" and new > 1.0:
        width = (size["heads"] + 2.0 * size["kv_heads"]) * size["head_dim"]
        nodes.append(Node("rotation", "attention", Elementwise(width, 2.0, p.activation_bytes), kernels=0.0))
    return "attention", tuple(nodes), Batch.uniform(seqs, new, keys - new)


_TENSORS: Final = {"add": 3.0, "mul": 3.0, "div": 3.0, "pow": 3.0, "layernorm": 3.0, "softmax": 3.0, "triad": 3.0}
"""Tensors that a pass reads and writes, where they are not two: a norm reads its input twice."""


def _plain_pass(record: Record, p: PrecisionSpec, name: str) -> Built:
    """A pass over m rows of n values that takes many values at a time."""
    rows = record.sizes.get("m", 1.0)
    op = Elementwise(record.sizes["n"], _TENSORS.get(name, 2.0), p.activation_bytes)
    return "elementwise", (Node("pass", "ffn", op),), Batch.uniform(1.0, rows, 0.0)


def _layer_pass(record: Record, p: PrecisionSpec, name: str) -> Built:
    """A pass of a layer of the model that the record names, on one rank."""
    try:
        model = load(ModelSpec, record.shape)
    except UnknownNameError:
        raise UnmappableError(f"unknown model '{record.shape}'") from None
    group, tp, a = model.layers[0], float(record.tp or 1), p.activation_bytes
    hidden = float(model.hidden)
    inner = group.ffn.intermediate if group.ffn is not None else 0
    gated = isinstance(group.ffn, GatedFfn)
    ops: dict[str, AbstractOp] = {
        "emb": Embedding(1.0, (), hidden, 1.0, 0.0, a),
        "input_layernorm": Elementwise(hidden, 2.0, a, touches=NORM_TOUCHES),
        "post_attention_layernorm": Elementwise(hidden, 2.0, a, touches=NORM_TOUCHES),
        "attn_rope": Elementwise(
            (record.sizes["heads"] + record.sizes["kv_heads"]) * record.sizes["head_dim"], 2.0, a, touches=2.0
        ),
        "mlp_act": Elementwise(inner / tp, 3.0 if gated else 2.0, a, touches=3.0 if gated else 0.0),
        "add": Elementwise(hidden, 6.0 if group.parallel else 3.0, a),
    }
    kernels = 2.0 if name == "add" and group.parallel else 1.0
    node = Node(name, "norm", ops[name], kernels=kernels)
    return "elementwise", (node,), Batch.uniform(1.0, record.sizes["batch"], 0.0)


def _experts(record: Record, p: PrecisionSpec, _: str) -> Built:
    """The kernels of one rank's experts: those of others are masked, so that passes see every visit of every token."""
    words = dict(word.split("=", 1) for word in record.shape.split(","))
    visits, experts, ranks = (int(words[word]) for word in ("topk", "experts", "moe_ep"))
    tokens, hidden, a = record.sizes["m"], record.sizes["hidden"], p.activation_bytes
    inner = record.sizes["n"] / float(words["moe_tp"])
    rank = routed(words["dist"], int(tokens), experts, visits, ranks, convention(record).get("moved", ""))
    op = ExpertLinear(
        experts / ranks, rank.visits / tokens, hidden, 2.0 * inner, p.weight_bytes, a, p.read_bytes, inner=inner
    )
    batch = Batch.uniform(1.0, tokens, 0.0)
    up = replace(op, visited_share=float(rank.visited / op.visited(batch)))
    down = replace(up, d_in=inner, d_out=hidden)
    nodes = (
        *_narrowing(p, hidden),
        Node("experts_gate_up", "ffn", up),
        *_masked(visits - up.experts_per_token, up),
        Node("experts_activation", "ffn", Elementwise(visits * inner, 3.0, a)),
        *_narrowing(p, visits * inner),
        Node("experts_down", "ffn", down),
        *_masked(visits - down.experts_per_token, down),
        Node("experts_sum", "ffn", Elementwise(hidden, visits + 1.0, a)),
    )
    return "experts", nodes, batch


def _masked(visits: float, op: ExpertLinear) -> Iterator[Node]:
    """Zeros that the kernel of a product writes where a token visits experts of other ranks."""
    if visits > 0.0:
        yield Node("experts_masked", "ffn", Elementwise(visits * op.d_out, 1.0, op.activation_bytes), kernels=0.0)


def _ranks(record: Record) -> int:
    """Devices that exchange: a column, or a word of the shape."""
    stated = re.search(r' cards": (\d+)', record.shape)
    return int(stated[1]) if stated else record.n_devices or 1


def _collective(record: Record, p: PrecisionSpec, name: str) -> Built:
    ranks, payload = float(_ranks(record)), record.sizes["bytes"]
    mean = re.search(r'"Mean All Reduce Time \(msec\)": ([\d.e-]+)', record.shape)
    if mean and not math.isclose(record.value or 0.0, 1e-3 * float(mean[1]), rel_tol=1e-2):
        raise UnmappableError("another column of the same row: the mean is scored")
    if ranks < 2.0:
        raise UnmappableError("an exchange needs two devices")
    nodes_stated = re.search(r"devices_per_node=(\d+)", record.shape)
    if nodes_stated and float(nodes_stated[1]) < ranks:
        raise UnmappableError("ranks on several nodes: the network between them is not stated")
    width = payload / p.activation_bytes
    ops: dict[str, AbstractOp] = {
        "all_reduce": AllReduce(width, ranks, p.activation_bytes),
        "all_gather": AllGather(width, ranks, p.activation_bytes),
        "reduce_scatter": AllGather(width, ranks, p.activation_bytes),
        "send_recv": Transfer(width, p.activation_bytes),
    }
    return "collective", (Node(name, "communication", ops[name]),), Batch.uniform(1.0, 1.0, 0.0)


def _convolution(record: Record, p: PrecisionSpec, _: str) -> Built:
    node, batch = layer_operators.convolution(record, p)
    return "convolution", (node,), batch


def _recurrence(record: Record, p: PrecisionSpec, name: str) -> Built:
    if name == "Timesteps":
        raise UnmappableError("the number of steps of the row below is no time")
    node, batch = layer_operators.recurrence(record, p)
    return "recurrent", (node,), batch


def _host_call(*_: object) -> Built:
    raise UnmappableError("host time of a call is a figure of an engine (`dispatch_s`), not of an operator")


_BUILDERS: Final[Mapping[str, Builder]] = {
    r"gemm(/.*)?": _gemm,
    r"context_attention|generation_attention": _attention,
    r"emb|(input|post_attention)_layernorm|attn_rope|mlp_act|add": _layer_pass,
    r"elementwise/.*|gelu|layernorm|softmax": _plain_pass,
    "moe": _experts,
    r"all_reduce|all_gather|reduce_scatter|send_recv": _collective,
    r"conv/Forward \(msec\)|convolution": _convolution,
    r"rnn/.*": _recurrence,
    "dispatch": _host_call,
}
"""Name of an operator -> what it is."""
