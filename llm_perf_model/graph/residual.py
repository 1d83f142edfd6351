"""What is beside the blocks of a layer: token tables of its own, and copies of the residual stream."""

from __future__ import annotations

from collections.abc import Iterator

from ..ops.dense import Embedding
from ..ops.elementwise import Elementwise
from ..ops.node import Node
from ..specs.model import LayerInputs
from .parts import Parts

LAYER_INPUTS_TABLE = "layer_inputs_table"


def layer_input_tables(parts: Parts, spec: LayerInputs, layers: int) -> Iterator[Node]:
    """Once a pass: a row of the second token table, and a product of the first one's row that is added to it."""
    hidden, width, p = float(parts.model.hidden), float(layers * spec.width), parts.precision
    table = Embedding(float(spec.vocab), (), width, 1.0, p.wide_bytes, p.activation_bytes)
    yield Node(LAYER_INPUTS_TABLE, "embedding", table)
    yield from parts.product("layer_inputs_product", "embedding", parts.linear(hidden, width, bias=False))
    norm = Elementwise(width, 4.0, p.activation_bytes, weights=float(spec.width), weight_bytes=p.wide_bytes)
    yield Node("layer_inputs_norm", "embedding", norm)


def layer_input(parts: Parts, spec: LayerInputs) -> Iterator[Node]:
    """At the end of a layer: a product that its row of the table gates, another one back, a norm and a sum."""
    hidden, width = float(parts.model.hidden), float(spec.width)
    yield from parts.product("input_gate", "ffn", parts.linear(hidden, width, bias=False))
    yield Node("input_activation", "ffn", parts.pass_over(width, passes=3.0))
    yield from parts.product("input_out", "ffn", parts.linear(width, hidden, bias=False))
    yield parts.norm_node("input_norm", 1.0)
    yield Node("input_residual", "norm", parts.pass_over(hidden, passes=3.0))


def mixed_streams(parts: Parts, streams: int) -> Iterator[Node]:
    r"""Before and behind a block, n copies of the residual stream are joined, and its result is spread over them [1]_.

    A product of all of them brings :math:`n (n + 2)` weights: n to join, n to spread, :math:`n^2` to mix.

    .. [1] DeepSeek-AI, "mHC: Manifold-Constrained Hyper-Connections", arXiv:2512.24880.
    """
    n, hidden = float(streams), float(parts.model.hidden)
    yield from _weights(parts, "streams", n, n * (n + 2.0))
    yield Node("streams_join", "norm", parts.pass_over(hidden, passes=n + 1.0))
    yield Node("streams_mix", "norm", parts.pass_over(hidden, passes=2.0 * n + 1.0))


def joined_streams(parts: Parts, streams: int) -> Iterator[Node]:
    """Behind the last layer."""
    n = float(streams)
    yield from _weights(parts, "streams_out", n, n)
    yield Node("streams_out_join", "norm", parts.pass_over(float(parts.model.hidden), passes=n + 1.0))


def _weights(parts: Parts, name: str, streams: float, width: float) -> Iterator[Node]:
    """A product of all streams, kept wide, with a bias for each value of what it brings."""
    op = parts.linear(streams * parts.model.hidden, width, bias=True)
    p = parts.precision
    wide = Elementwise(streams * parts.model.hidden, 2.0, p.activation_bytes)
    yield Node(f"{name}_norm", "norm", wide)
    yield Node(f"{name}_weights", "norm", parts.wide(op), rate=parts.wide_rate())
