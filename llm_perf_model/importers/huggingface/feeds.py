"""Words -> the spec of what feeds forward in a layer."""

from __future__ import annotations

from typing import cast

from ...specs.ffn import Activation, Ffn, GatedFfn, MoeFfn, PlainFfn
from .reading import Words, activations


def feed_forward(words: Words, kind: str, layer: int) -> Ffn:
    """What feeds forward in a layer of some kind."""
    if kind == "moe":
        return _experts(words, layer)
    return _dense(words, dense_width(words, layer))


def activation(words: Words) -> Activation:
    """The activation of feed-forwards."""
    value = words.get("activation")
    if isinstance(value, dict):  # {"name": "silu"}
        value = value.get("name")
    known = activations()
    if not isinstance(value, str) or value not in known:
        raise words.fail("activation", f"is {value!r}; known are {', '.join(known)}")
    return cast("Activation", known[value])


def _dense(words: Words, width: int) -> GatedFfn | PlainFfn:
    kind = GatedFfn if words.flag("gated") else PlainFfn
    return kind(intermediate=width, activation=activation(words), bias=words.flag("ffn_bias"))


def dense_width(words: Words, layer: int) -> int:
    """Width of a feed-forward without experts, rounded as some configs say."""
    if not words.whole("experts", 0) and words.whole("shared_width", layer):
        return words.need("shared_width", layer)
    width = words.whole("dense_width", layer) or words.whole("intermediate", layer)
    if width is None:
        factor = words.factor("wider")
        width = int(factor * words.need("hidden")) if factor else words.need("intermediate", layer)
    if words.flag("narrowed"):
        width = 2 * width // 3
        factor, step = words.factor("narrowed_by"), words.whole("narrowed_to") or 1
        width = width if factor is None else -(-int(factor * width) // step) * step
    borrowed = layer >= words.need("layer_count") - (words.whole("borrowing") or 0)
    return width * (2 if words.flag("double_wide") and borrowed else 1)


def _experts(words: Words, layer: int) -> MoeFfn:
    width = words.whole("expert_width", layer) or words.need("intermediate", layer)
    experts, visits = words.need("experts", layer), words.need("experts_per_token", layer)
    if visits > experts:
        raise words.fail("experts_per_token", f"is {visits}, more than the {experts} experts")
    idle = words.whole("zero_experts") or 0
    return MoeFfn(
        experts=experts,
        experts_per_token=max(round(visits * experts / (experts + idle)), 1),
        intermediate=width,
        activation=activation(words),
        gated=words.flag("gated"),
        bias=words.flag("expert_bias"),
        router_bias=words.flag("router_bias"),
        latent=words.whole("latent"),
        shared_intermediate=_shared_width(words, width, layer) or None,
        shared_gate=words.flag("shared_gate"),
    )


def _shared_width(words: Words, width: int, layer: int) -> int:
    """Width of what every token sees beside its experts: shared ones, and a feed-forward at their side."""
    shared = words.whole("shared_width", layer) or (words.whole("shared_experts", layer) or 0) * width
    if words.whole("shared_times"):
        shared *= words.whole("shared_experts", layer) or 1
    if words.get("expert_beside") in (None, False):
        return shared
    beside = cast("str", words.get("beside_width") or "intermediate")
    return shared + (words.whole("dense_width", layer) or words.need(beside, layer))
