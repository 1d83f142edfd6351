"""Specs of feed-forwards -> nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from ..ops.dense import Linear
from ..ops.moe import ExpertLinear
from ..ops.node import Node
from ..specs.ffn import Ffn, GatedFfn, MoeFfn, PlainFfn
from .exchanges import dispatch
from .parts import Parts


def feed_forward(parts: Parts, spec: Ffn) -> Iterator[Node]:
    """The products of a feed-forward and what is between them."""
    match spec:
        case PlainFfn() | GatedFfn():
            yield from _dense(parts, spec)
        case MoeFfn():
            yield from _experts(parts, spec)
        case never:
            assert_never(never)


def _dense(parts: Parts, spec: PlainFfn | GatedFfn) -> Iterator[Node]:
    hidden, inner = float(parts.model.hidden), spec.intermediate / parts.tp
    match spec:
        case PlainFfn():
            first, width = "ffn_up", inner
            passes = parts.passes(spec.activation, tensors=2.0)
        case GatedFfn():
            first, width = "ffn_gate_up", 2.0 * inner
            passes = parts.passes(spec.activation, tensors=3.0)
        case never:
            assert_never(never)
    yield from parts.product(first, "ffn", parts.linear(hidden, width, spec.bias))
    if spec.bias and not parts.fuses("bias"):
        yield Node(f"{first}_bias", "ffn", parts.pass_over(width, passes=2.0))
    if not parts.fuses("activation"):
        activation = parts.pass_over(inner, passes.tensors, parts.touches(spec.activation, passes.tensors))
        yield Node("ffn_activation", "ffn", activation, kernels=passes.kernels)
    yield from parts.product("ffn_down", "ffn", parts.linear(inner, hidden, spec.bias))
    if spec.bias and not parts.fuses("bias"):
        yield Node("ffn_down_bias", "ffn", parts.pass_over(hidden, passes=2.0))


def _experts(parts: Parts, spec: MoeFfn) -> Iterator[Node]:
    """Router, shared expert, then the products of the experts that the tokens visit, each split over ranks.

    Experts see the tokens of all groups of ranks in the stage.
    """
    hidden, p = float(parts.model.hidden), parts.precision
    router = Linear(hidden, float(spec.experts), p.wide_bytes, p.activation_bytes, spec.router_bias)
    yield Node("router", "ffn", router, rate=parts.wide_rate())
    yield Node("route", "ffn", parts.pass_over(float(spec.experts), passes=2.0))
    if spec.shared_intermediate:
        yield from _shared_experts(parts, spec)
    width = float(spec.latent or hidden)
    if spec.latent:
        yield from parts.product("experts_narrowing", "ffn", parts.linear(hidden, width, bias=False))
    yield from dispatch(parts, spec, "experts_dispatch", width, parts.routed().precision.read_bytes)
    for node in _routed(parts, spec, width):
        yield replace(node, share=parts.split.sharers)
    yield from dispatch(parts, spec, "experts_combine", width, p.activation_bytes)
    yield Node("experts_sum", "ffn", parts.pass_over(width, passes=spec.experts_per_token + 1.0))
    if spec.latent:
        yield from parts.product("experts_widening", "ffn", parts.linear(width, hidden, bias=False))


def _routed(parts: Parts, spec: MoeFfn, width: float) -> Iterator[Node]:
    """The products of the experts of a rank, as they see the tokens of all that share them."""
    own, split, halves = parts.routed(), parts.split, 1.0 + spec.gated
    p = own.precision
    sizes = (p.weight_bytes, p.activation_bytes, p.read_bytes, spec.bias, split.ep, split.imbalance)
    experts, visits, inner = float(spec.experts), float(spec.experts_per_token), spec.intermediate / split.expert_tp
    first = ExpertLinear(experts, visits, width, halves * inner, *sizes, inner)
    yield from own.product("experts_gate_up" if spec.gated else "experts_up", "ffn", first)
    here = visits / split.ep
    if not parts.fuses("activation"):
        passes = parts.passes(spec.activation, tensors=1.0 + halves)
        activation = parts.pass_over(here * inner, passes.tensors, parts.touches(spec.activation, passes.tensors))
        yield Node("experts_activation", "ffn", activation, kernels=passes.kernels)
    down = ExpertLinear(experts, visits, inner, width, *sizes, inner)
    yield from own.product("experts_down", "ffn", down, here)


def _shared_experts(parts: Parts, spec: MoeFfn) -> Iterator[Node]:
    """The experts that see every token, as one feed-forward, and what scales its output."""
    assert spec.shared_intermediate is not None
    kind = GatedFfn if spec.gated else PlainFfn
    for node in _dense(parts, kind(intermediate=spec.shared_intermediate, activation=spec.activation)):
        yield replace(node, name=f"shared_{node.name}")
    if spec.shared_gate:
        hidden = float(parts.model.hidden)
        yield from parts.product("shared_gate", "ffn", parts.linear(hidden, 1.0, bias=False))
        yield Node("shared_scale", "ffn", parts.pass_over(hidden, passes=2.0))
