"""Models, devices and data types from the JSON files of llm-analysis [1]_.

.. [1] C. Li, "llm-analysis: latency and memory analysis of transformer models for training and inference",
   https://github.com/cli99/llm-analysis, `llm_analysis/config.py`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..errors import UnknownNameError
from ..specs.attention import GroupedQueryAttention, LatentAttention
from ..specs.base import Assumption
from ..specs.catalog import load
from ..specs.ffn import Activation, Ffn, GatedFfn, MoeFfn, PlainFfn
from ..specs.gpu import Peak
from ..specs.model import LayerGroup, ModelSpec, Norm, Position
from ..specs.precision import PrecisionSpec
from .counted import counted
from .devices import Device
from .facts import facts
from .stated import Stated, slug

TOOL: Final = "llm-analysis"

MODEL_MARKS: Final = frozenset({"num_layers", "n_head", "hidden_dim", "vocab_size"})
DEVICE_MARKS: Final = frozenset({"mem_per_GPU_in_GB", "hbm_bandwidth_in_GB_per_sec", "peak_fp16_TFLOPS"})
DTYPE_MARKS: Final = frozenset({"weight_bits", "activation_bits", "embedding_bits"})
"""Fields by which a file is known."""

_MODEL_FIELDS = MODEL_MARKS | {
    "name", "max_seq_len", "num_key_value_heads", "num_key_value_groups", "ffn_embed_dim", "expansion_ratio",
    "model_type", "mlp_gated_linear_units", "moe_num_experts", "moe_num_shared_experts", "moe_top_k",
    "moe_intermediate_size", "first_k_dense_replace", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
    "qk_rope_head_dim",
}  # fmt: skip
_DEVICE_FIELDS = DEVICE_MARKS | {
    "name", "intra_node_bandwidth_in_GB_per_sec", "intra_node_min_message_latency", "peak_i8_TFLOPS",
    "peak_i4_TFLOPS", "inter_node_bandwidth_in_GB_per_sec",
}  # fmt: skip
_DTYPE_FIELDS = DTYPE_MARKS | {"name", "linear_weight_bits", "linear_activation_bits"}

_NARROW: Final[Mapping[Peak, str]] = {"tensor_int8": "peak_i8_TFLOPS", "tensor_int4": "peak_i4_TFLOPS"}

_FFN_RATIO = 4
"""Width of a feed-forward over that of the model where a file gives none."""


class _Family(NamedTuple):
    """What a model type says beyond the fields of a file."""

    norm: Norm
    position: Position
    activation: Activation
    tied: bool
    bias: bool
    """Whether products have biases."""


_OTHER: Final = _Family("layernorm", "rotary", "gelu", True, False)


def model_of(where: str, data: Mapping[str, Any]) -> ModelSpec:
    """The model as llm-analysis counts it: its feed-forwards are plain unless the file says that they are gated."""
    stated = Stated.of(where, TOOL, data)
    stated.only(_MODEL_FIELDS)
    hidden, kind = stated.needed_count("hidden_dim"), str(stated.fields.get("model_type", "unknown"))
    family, limit = _family(kind), stated.count("max_seq_len")
    position = "rotary" if family.position == "learned" and limit is None else family.position
    name = str(stated.fields.get("name", "model"))
    fields = {
        "name": slug(name),
        "title": f"{name}, of {TOOL}",
        "hidden": hidden,
        "vocab": stated.needed_count("vocab_size"),
        "max_positions": limit,
        "position": position,
        "norm": family.norm,
        "tied_embeddings": family.tied,
        "layers": _layers(stated, hidden, family),
        "assumed": (_told(stated, limit), _guessed(stated, kind)),
    }
    return counted(fields, where)


def _family(kind: str) -> _Family:
    known = facts("families").get(kind)
    return _OTHER if known is None else _Family(**known)


def _told(stated: Stated, limit: int | None) -> Assumption:
    return stated.says("hidden", "vocab", "layers", "parameters", *(("max_positions",) if limit else ()))


def _guessed(stated: Stated, kind: str) -> Assumption:
    how = (
        f"as models of type {kind} have them"
        if kind in facts("families")
        else "as it counts weights, with one token table"
    )
    return stated.silent(how, "norm", "position", "tied_embeddings", "norm_bias")


def _layers(stated: Stated, hidden: int, family: _Family) -> tuple[LayerGroup, ...]:
    count, dense = stated.needed_count("num_layers"), stated.count("first_k_dense_replace") or 0
    attention, experts = _attention(stated, hidden, family), stated.count("moe_num_experts")
    width = stated.count("ffn_embed_dim")
    if width is None:
        width = int(hidden * (stated.positive("expansion_ratio") or _FFN_RATIO))
    gated = bool(stated.fields.get("mlp_gated_linear_units", False))
    plain: Ffn = (
        GatedFfn(intermediate=width, activation="silu", bias=False)
        if gated
        else PlainFfn(intermediate=width, activation=family.activation, bias=family.bias)
    )
    if experts is None:
        return (LayerGroup(count=count, attention=attention, ffn=plain),)
    if dense >= count:
        raise stated.refuse(f"first_k_dense_replace is {dense}, and num_layers only {count}")
    routed = LayerGroup(count=count - dense, attention=attention, ffn=_experts(stated, experts, width, gated))
    return (LayerGroup(count=dense, attention=attention, ffn=plain), routed) if dense else (routed,)


def _attention(stated: Stated, hidden: int, family: _Family) -> GroupedQueryAttention | LatentAttention:
    heads = stated.needed_count("n_head")
    kv_rank = stated.count("kv_lora_rank")
    if kv_rank is not None:
        nope = stated.needed_count("qk_nope_head_dim")
        return LatentAttention(
            heads=heads,
            q_rank=stated.count("q_lora_rank"),
            kv_rank=kv_rank,
            nope_dim=nope,
            rope_dim=stated.needed_count("qk_rope_head_dim"),
            value_dim=nope,
        )
    kv_heads = stated.count("num_key_value_heads") or heads
    for word, whole, part in (("hidden_dim", hidden, heads), ("n_head", heads, kv_heads)):
        if whole % part:
            other = "n_head" if word == "hidden_dim" else "num_key_value_heads"
            raise stated.refuse(f"{word} is {whole}, which {other} = {part} does not divide")
    bias = family.bias
    return GroupedQueryAttention(heads=heads, kv_heads=kv_heads, head_dim=hidden // heads, qkv_bias=bias, out_bias=bias)


def _experts(stated: Stated, experts: int, width: int, gated: bool) -> MoeFfn:
    inner, visits = stated.count("moe_intermediate_size") or width, stated.needed_count("moe_top_k")
    if visits > experts:
        raise stated.refuse(f"moe_top_k is {visits}, more than the {experts} of moe_num_experts")
    shared = stated.count("moe_num_shared_experts")
    return MoeFfn(
        experts=experts,
        experts_per_token=visits,
        intermediate=inner,
        activation="silu",
        gated=gated,
        shared_intermediate=shared * inner if shared else None,
    )


def device_of(where: str, data: Mapping[str, Any]) -> Device:
    """The device of a file; its gigabytes of memory are binary ones, those of rates decimal."""
    stated = Stated.of(where, TOOL, data)
    stated.only(_DEVICE_FIELDS)
    half = stated.needed("peak_fp16_TFLOPS") * 1e12
    peaks: dict[Peak, float] = {"tensor_fp16": half, "tensor_bf16": half}
    for peak, key in _NARROW.items():
        value = stated.positive(key)
        if value is not None:
            peaks[peak] = value * 1e12
    fabric = stated.positive("intra_node_bandwidth_in_GB_per_sec")
    return Device(
        stated=stated,
        name=str(stated.fields.get("name", "device")),
        hbm_bytes=stated.needed("mem_per_GPU_in_GB") * 1024.0**3,
        hbm_bytes_per_s=stated.needed("hbm_bandwidth_in_GB_per_sec") * 1e9,
        peak_flops_per_s=peaks,
        fabric_bytes_per_s=None if fabric is None else fabric * 1e9,
    )


def precision_of(where: str, data: Mapping[str, Any]) -> PrecisionSpec:
    """The data types of a file: widths as it says, units and cache as the precision of those widths has them."""
    stated = Stated.of(where, TOOL, data)
    stated.only(_DTYPE_FIELDS)
    weights = stated.count("linear_weight_bits") or stated.needed_count("weight_bits")
    activations = stated.count("linear_activation_bits") or stated.needed_count("activation_bits")
    wanted = f"w{weights}a{activations}"
    try:
        base = load(PrecisionSpec, wanted)
    except UnknownNameError:
        problem = f"no precision multiplies {weights}-bit weights by {activations}-bit activations"
        raise stated.refuse(f"{problem}; `list precisions` shows those that there are") from None
    name = str(stated.fields.get("name", wanted))
    widths = {
        "weight_bytes": weights / 8.0,
        "other_weight_bytes": stated.needed_count("embedding_bits") / 8.0,
        "activation_bytes": stated.needed_count("activation_bits") / 8.0,
    }
    notes = ("Bytes of weights are those of their bits alone, without scales.",)
    own = {"name": slug(name), "title": f"{name}, of {TOOL}", "aliases": (), "notes": notes, "sources": (), "fits": ()}
    origins = (stated.says(*widths), Assumption(fields=("*",), reason=f"{TOOL} does not say: as in {base.name}"))
    return base.model_copy(update={**widths, **own, "assumed": origins})
