"""Specs of mixers whose memory of a sequence does not grow -> nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..ops.collective import AllReduce
from ..ops.elementwise import Elementwise
from ..ops.node import Node
from ..ops.state import ChannelConvolution, StateUpdate
from ..specs.mixer import DecayState, DeltaState, HeadState, SelectiveState, ShortConvolution
from .parts import FLOAT32_BYTES, Parts

WRITE_AND_READ, RECALL = 2.0, 1.0
"""Products of a state's size for each token: its update and its result; what it recalls before it is corrected."""

MAMBA_CHUNK, HEAD_CHUNK, DELTA_CHUNK, DECAY_CHUNK = 0.0, 256.0, 64.0, 256.0
"""Tokens of a chunk in a pass over many: Mamba scans token by token, Mamba-2's published chunk is 256, the delta rule's
kernels take 64, lightning attention's 256."""


def selective_state(parts: Parts, spec: SelectiveState) -> Iterator[Node]:
    """Mamba [1]_: a gated branch, a short convolution, products that say how the state changes, and its update.

    .. [1] A. Gu, T. Dao, "Mamba", arXiv:2312.00752, section 3.
    """
    hidden, inner, state = float(parts.model.hidden), spec.inner / parts.tp, float(spec.state)
    brought, steps = spec.step_rank + 2.0 * state, float(spec.step_rank)
    yield from parts.projection("state_in", hidden, 2.0 * inner, spec.bias)
    yield _convolution(parts, inner, spec.conv_window, spec.conv_bias)
    yield from parts.projection("state_vectors", inner, brought, bias=False)
    if parts.tp > 1:
        reduced = AllReduce(brought, parts.tp, parts.precision.activation_bytes, parts.split.tp_nodes)
        yield Node("state_all_reduce", "communication", reduced)
    if spec.inner_norms:
        yield _norm(parts, "state_norms", brought, brought)
    yield from parts.projection("state_steps", steps, inner, bias=True)
    weights = inner * (state + 1.0)  # decays, and what passes beside the state
    width = 4.0 * inner + 2.0 * state
    update = _update(parts, (inner, state, 1.0), WRITE_AND_READ, MAMBA_CHUNK, width, weights)
    yield replace(update, rate="elementwise")  # a scan has no products for tensor units
    yield from parts.projection("attention_out", inner, hidden, spec.bias)


def head_state(parts: Parts, spec: HeadState) -> Iterator[Node]:
    """Mamba-2 [1]_: one product brings gate, values, the state's two vectors and a step size a head.

    .. [1] T. Dao, A. Gu, "Transformers are SSMs", arXiv:2405.21060, section 7.
    """
    hidden, heads, groups = float(parts.model.hidden), spec.heads / parts.tp, max(spec.groups / parts.tp, 1.0)
    inner, state = heads * spec.head_dim, float(spec.state)
    vectors = 2.0 * groups * state
    yield from parts.projection("state_in", hidden, 2.0 * inner + vectors + heads, spec.bias)
    yield _convolution(parts, inner + vectors, spec.conv_window, spec.conv_bias)
    sizes = (heads, state, float(spec.head_dim))
    yield _update(parts, sizes, WRITE_AND_READ, HEAD_CHUNK, 2.0 * inner + vectors + heads, weights=3.0 * heads)
    yield from _gated_norm(parts, inner, inner if spec.gated_norm else 0.0)
    yield from parts.projection("attention_out", inner, hidden, spec.bias)


def delta_state(parts: Parts, spec: DeltaState) -> Iterator[Node]:
    """A gated delta net [1]_, with one decay a head or (Kimi Delta Attention [2]_) one for each value of a key.

    .. [1] S. Yang, J. Kautz, A. Hatamizadeh, "Gated Delta Networks", arXiv:2412.06464.
    .. [2] Kimi Team, "Kimi Linear", arXiv:2510.26692.
    """
    hidden, heads, key_heads = float(parts.model.hidden), spec.value_heads / parts.tp, spec.key_heads / parts.tp
    keys, values = key_heads * spec.key_dim, heads * spec.value_dim
    gates = 0.0 if spec.gate_rank else values
    scalars = heads if spec.decay_rank else 2.0 * heads
    yield from parts.projection("state_in", hidden, 2.0 * keys + values + gates + scalars, bias=False)
    decays = heads
    if spec.decay_rank:
        yield from _through(parts, "decay", float(spec.decay_rank), keys)
        decays = keys
    if spec.gate_rank:
        yield from _through(parts, "gate", float(spec.gate_rank), values)
    yield _convolution(parts, 2.0 * keys + values, spec.conv_window, bias=False)
    sizes = (heads, float(spec.key_dim), float(spec.value_dim))
    brought = 2.0 * keys + 2.0 * values + decays + heads
    yield _update(parts, sizes, WRITE_AND_READ + RECALL, DELTA_CHUNK, brought, weights=heads + decays)
    yield from _gated_norm(parts, values, float(spec.value_dim))
    yield from parts.projection("attention_out", values, hidden, bias=False)


def decay_state(parts: Parts, spec: DecayState) -> Iterator[Node]:
    """Lightning attention [1]_.

    .. [1] Z. Qin et al., "Lightning Attention-2", arXiv:2401.04658.
    """
    hidden, heads, dim = float(parts.model.hidden), spec.heads / parts.tp, float(spec.head_dim)
    inner = heads * dim
    yield from parts.projection("state_in", hidden, (3.0 + spec.gated) * inner, bias=False)
    yield _update(parts, (heads, dim, dim), WRITE_AND_READ, DECAY_CHUNK, 4.0 * inner, weights=0.0)
    yield from _gated_norm(parts, inner, inner if spec.norm else 0.0)
    yield from parts.projection("attention_out", inner, hidden, bias=False)


def short_convolution(parts: Parts, spec: ShortConvolution) -> Iterator[Node]:
    """Two gates around a convolution of each channel."""
    hidden, inner = float(parts.model.hidden), spec.inner / parts.tp
    yield from parts.projection("state_in", hidden, 3.0 * inner, spec.bias)
    yield Node("state_gates", "attention", parts.pass_over(inner, 6.0))
    yield _convolution(parts, inner, spec.conv_window, spec.bias)
    yield from parts.projection("attention_out", inner, hidden, spec.bias)


def _through(parts: Parts, name: str, rank: float, width: float) -> Iterator[Node]:
    """A product by way of a few values, the first half of which is whole on every rank."""
    yield from parts.projection(f"{name}_narrowing", float(parts.model.hidden), rank, bias=False)
    yield from parts.projection(f"{name}_widening", rank, width, bias=False)


def _convolution(parts: Parts, channels: float, window: int, bias: bool) -> Node:
    p = parts.precision
    return Node("state_conv", "attention", ChannelConvolution(channels, window, p.wide_bytes, p.activation_bytes, bias))


def _update(
    parts: Parts, sizes: tuple[float, float, float], updates: float, chunk: float, width: float, weights: float
) -> Node:
    activation_bytes = parts.precision.activation_bytes
    op = StateUpdate(*sizes, updates, chunk, width, FLOAT32_BYTES, activation_bytes, weights, FLOAT32_BYTES)
    return Node("state", "attention", op)


def _gated_norm(parts: Parts, width: float, weights: float) -> Iterator[Node]:
    """Reads results and gate, writes their product normalised."""
    p = parts.precision
    op = Elementwise(width, 3.0, p.activation_bytes, weights=weights, weight_bytes=p.wide_bytes)
    yield Node("state_gate", "attention", op)


def _norm(parts: Parts, name: str, width: float, weights: float) -> Node:
    p = parts.precision
    op = Elementwise(width, 2.0, p.activation_bytes, weights=weights, weight_bytes=p.wide_bytes)
    return Node(name, "attention", op)
