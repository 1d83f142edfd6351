"""Layers from the tensors of a GGUF file: shapes say widths, names say which parts a layer has."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from ..specs.attention import GroupedQueryAttention, LatentAttention
from ..specs.ffn import Activation, Ffn, GatedFfn, MoeFfn, PlainFfn
from ..specs.model import LayerGroup
from .facts import facts
from .stated import Stated


class Tensor(NamedTuple):
    """A tensor: its type, its shape with inputs before outputs, and the bytes that it takes."""

    kind: str
    shape: tuple[int, ...]
    stored_bytes: int

    @property
    def values(self) -> int:
        """Values in it."""
        return math.prod(self.shape)


_NORMS: Final = frozenset({"attn_norm", "attn_norm_2", "ffn_norm", "post_attention_norm", "post_ffw_norm"})
_ATTENTION: Final = frozenset(
    {
        "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "attn_q_norm", "attn_k_norm", "attn_sinks",
        "attn_q_a", "attn_q_a_norm", "attn_q_b", "attn_kv_a_mqa", "attn_kv_a_norm", "attn_kv_b", "attn_k_b", "attn_v_b",
    }
)  # fmt: skip
_FFN: Final = frozenset(
    {
        "ffn_up", "ffn_gate", "ffn_down", "ffn_gate_inp", "ffn_up_exps", "ffn_gate_exps", "ffn_gate_up_exps",
        "ffn_down_exps", "ffn_up_shexp", "ffn_gate_shexp", "ffn_down_shexp", "ffn_gate_inp_shexp", "exp_probs_b",
    }
)  # fmt: skip
_WINDOW: Final = "attention.sliding_window"
_KNOWN: Final = _NORMS | _ATTENTION | _FFN


class _Layer(NamedTuple):
    """One layer: its metadata, and its tensors without `blk.N.` before their names."""

    stated: Stated
    architecture: str
    own: Mapping[str, Tensor]

    def has(self, *stems: str) -> bool:
        return any(f"{stem}.weight" in self.own for stem in stems)

    def biased(self, *stems: str) -> bool:
        return any(f"{stem}.bias" in self.own for stem in stems)

    def width_of(self, stem: str, axis: int) -> int:
        tensor = self.own.get(f"{stem}.weight")
        if tensor is None or axis >= len(tensor.shape):
            raise self.stated.refuse(f"tensor {stem}.weight is missing or has too few axes")
        return tensor.shape[axis]


def layers_of(stated: Stated, architecture: str, tensors: Mapping[str, Tensor]) -> tuple[LayerGroup, ...]:
    """Groups of equal layers, in the order in which they first occur.

    Raises:
        SpecError: a tensor is not known, or shapes and metadata contradict each other.
    """
    found: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place = re.match(r"blk\.(\d+)\.", name)
        if place:
            found.setdefault(int(place[1]), {})[name[place.end() :]] = tensor
    counts: dict[LayerGroup, int] = {}
    for index in sorted(found):
        layer = _group(_Layer(_of_layer(stated, architecture, index), architecture, found[index]))
        counts[layer] = counts.get(layer, 0) + 1
    return tuple(layer.model_copy(update={"count": count}) for layer, count in counts.items())


def _of_layer(stated: Stated, architecture: str, index: int) -> Stated:
    """The metadata of one layer: its own item of each list, and its window if it has one."""
    fields = {key: value for key, value in stated.fields.items() if not isinstance(value, list)}
    lists = {key: value for key, value in stated.fields.items() if isinstance(value, list)}
    fields |= {key: value[index] for key, value in lists.items() if index < len(value) and value[index]}
    window = fields.pop(_WINDOW, None)
    if window and _is_windowed(stated, architecture, index):
        fields[_WINDOW] = window
    return Stated(f"{stated.where}: layer {index}", stated.tool, fields)


def _is_windowed(stated: Stated, architecture: str, index: int) -> bool:
    """Whether a layer sees a window: each but the last of a period does."""
    pattern = stated.fields.get("attention.sliding_window_pattern", facts("window_periods").get(architecture))
    if pattern is None:
        raise stated.refuse(f"{_WINDOW} is {stated.fields[_WINDOW]}, and nothing says which layers have it")
    if isinstance(pattern, list):
        return bool(pattern[index % len(pattern)])
    return bool(pattern == 0 or index % pattern < pattern - 1)


def _group(layer: _Layer) -> LayerGroup:
    """One layer; a tensor that is not known may change the arithmetic."""
    for name in layer.own:
        if name.rsplit(".", 1)[0] not in _KNOWN:
            raise layer.stated.refuse(f"tensor {name} is not known and may change the arithmetic")
    latent = layer.has("attn_kv_a_mqa")
    attention = None if not layer.has("attn_output") else _latent(layer) if latent else _grouped(layer)
    ffn = _ffn(layer)
    if attention is None and ffn is None:
        raise layer.stated.refuse("has neither attention nor a feed-forward")
    after = layer.has("ffn_norm", "post_attention_norm", "post_ffw_norm")
    beside = bool(layer.stated.fields.get("use_parallel_residual")) or (not after and layer.has("attn_norm"))
    norms = sum(layer.has(stem) for stem in _NORMS)
    parallel = beside and attention is not None and ffn is not None
    return LayerGroup(count=1, attention=attention, ffn=ffn, parallel=parallel, norms=norms)


def _grouped(layer: _Layer) -> GroupedQueryAttention:
    stated = layer.stated
    heads = stated.needed_count("attention.head_count")
    kv_heads = stated.count("attention.head_count_kv") or heads
    value_dim, rest = divmod(layer.width_of("attn_output", 0), heads)
    fused = layer.has("attn_qkv")
    head_dim = stated.count("attention.key_length") or value_dim
    made = layer.width_of("attn_qkv" if fused else "attn_q", 1)
    wanted = heads * head_dim + (kv_heads * (head_dim + value_dim) if fused else 0)
    if rest or made != wanted or heads % kv_heads:
        problem = f"makes {made} values, not those of {heads} heads and {kv_heads} key-value heads of {head_dim}"
        raise stated.refuse(f"{'attn_qkv' if fused else 'attn_q'} {problem}")
    return GroupedQueryAttention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=None if value_dim == head_dim else value_dim,
        qkv_bias=layer.biased("attn_q", "attn_qkv"),
        out_bias=layer.biased("attn_output"),
        qk_norm=_qk_norm(layer, head_dim),
        sinks=layer.has("attn_sinks"),
        window_tokens=stated.count(_WINDOW),
    )


def _qk_norm(layer: _Layer, head_dim: int) -> bool | Literal["whole"]:
    tensor = layer.own.get("attn_q_norm.weight")
    if tensor is None:
        return False
    return True if tensor.values == head_dim else "whole"


def _latent(layer: _Layer) -> LatentAttention:
    kv_rank = layer.width_of("attn_kv_a_norm", 0)
    rope_dim = layer.width_of("attn_kv_a_mqa", 1) - kv_rank
    if layer.has("attn_k_b"):
        nope_dim, value_dim = layer.width_of("attn_k_b", 0), layer.width_of("attn_v_b", 1)
        heads = layer.width_of("attn_k_b", 2)
    else:
        heads = layer.stated.needed_count("attention.head_count")
        value_dim = layer.width_of("attn_output", 0) // heads
        nope_dim = layer.width_of("attn_kv_b", 1) // heads - value_dim
    return LatentAttention(
        heads=heads,
        q_rank=layer.width_of("attn_q_a", 1) if layer.has("attn_q_a") else None,
        kv_rank=kv_rank,
        nope_dim=nope_dim,
        rope_dim=rope_dim,
        value_dim=value_dim,
    )


def _ffn(layer: _Layer) -> Ffn | None:
    activation: Activation | None = facts("activations").get(layer.architecture)
    if layer.has("ffn_gate_inp"):
        return _experts(layer, activation or "silu")
    if not layer.has("ffn_down"):
        return None
    inner, made = layer.width_of("ffn_down", 0), layer.width_of("ffn_up", 1)
    bias = layer.biased("ffn_up", "ffn_down")
    if layer.has("ffn_gate") or made == 2 * inner:
        return GatedFfn(intermediate=inner, activation=activation or "silu", bias=bias)
    return PlainFfn(intermediate=inner, activation=activation or "gelu_tanh", bias=bias)


def _experts(layer: _Layer, activation: Activation) -> MoeFfn:
    return MoeFfn(
        experts=layer.width_of("ffn_gate_inp", 1),
        experts_per_token=layer.stated.needed_count("expert_used_count"),
        intermediate=layer.width_of("ffn_down_exps", 0),
        activation=activation,
        gated=layer.has("ffn_gate_exps", "ffn_gate_up_exps"),
        bias=layer.biased("ffn_down_exps", "ffn_up_exps"),
        router_bias=layer.biased("ffn_gate_inp"),
        shared_intermediate=layer.width_of("ffn_down_shexp", 0) if layer.has("ffn_down_shexp") else None,
        shared_gate=layer.has("ffn_gate_inp_shexp"),
    )
