"""Network x precision x engine fusion -> the nodes of a forward pass over samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import assert_never

from .graph import Graph, Node, Role
from .ops.base import Kind
from .ops.collective import Transfer
from .ops.convolution import Convolution
from .ops.dense import Linear
from .ops.elementwise import Elementwise
from .specs.engine import EngineSpec
from .specs.layer import (
    Conv,
    Dense,
    Flatten,
    GlobalPool,
    Layer,
    Lstm,
    Pool,
    Residual,
    Rows,
    Shape,
    SqueezeExcite,
)
from .specs.network import NetworkSpec
from .specs.precision import PrecisionSpec

GATES = 4.0
"""Of a long short-term memory: input, forget, cell and output."""

CELL_TENSORS = GATES + 3.0
"""Gates and cell are read, cell and output written."""


def build_network(network: NetworkSpec, engine: EngineSpec, precision: PrecisionSpec, shape: Shape) -> Graph:
    """The nodes of a pass over samples of a shape, in the order in which they run."""
    nodes = _Builder(precision, "activation" in engine.fused).layers(network.layers, shape, "")
    if not engine.host_samples:
        return tuple(nodes)
    moved = Transfer(float(prod(shape)), precision.activation_bytes)
    return Node("input_copy", "communication", moved, rate="staged"), *nodes


@dataclass(frozen=True, slots=True)
class _Builder:
    precision: PrecisionSpec
    fused: bool
    """Whether norms, activations and sums ride on the kernel before them."""

    def layers(self, layers: Iterable[Layer], shape: Shape, prefix: str) -> Iterator[Node]:
        for number, layer in enumerate(layers):
            for node in self._layer(layer, shape):
                yield replace(node, name=f"{prefix}{number}.{node.name}")
            shape = layer.shape(shape)

    def _layer(self, layer: Layer, shape: Shape) -> Iterator[Node]:
        match layer:
            case Conv():
                yield from self._conv(layer, shape)
            case Pool():
                yield self._reduced(layer.kind, shape, layer.shape(shape))
            case GlobalPool():
                yield self._reduced(layer.kind, shape, layer.shape(shape))
            case Flatten() | Rows():
                return
            case Dense():
                yield from self._dense("linear", float(shape[-1]), layer)
            case Lstm():
                yield from self._lstm(layer, shape)
            case SqueezeExcite():
                yield from self._squeeze_excite(layer, shape)
            case Residual():
                yield from self._residual(layer, shape)
            case never:
                assert_never(never)

    def _pass(self, name: str, values: float, tensors: float, role: Role = "pass") -> Node:
        return Node(name, role, Elementwise(values, tensors, self.precision.activation_bytes))

    def _following(self, values: float, norm: bool, activation: str | None) -> Iterator[Node]:
        """A norm and an activation, where they have kernels of their own."""
        if norm and not self.fused:
            yield self._pass("norm", values, 2.0)
        if activation is not None and not self.fused:
            yield self._pass(activation, values, 2.0)

    def _conv(self, layer: Conv, shape: Shape) -> Iterator[Node]:
        made, p = layer.shape(shape), self.precision
        extra = float(layer.channels * (layer.bias + 2 * layer.norm))
        op = Convolution(
            in_channels=float(shape[0]),
            out_channels=float(layer.channels),
            window=float(layer.kernel**2),
            positions=float(prod(made[1:])),
            in_values=float(prod(shape)),
            groups=float(layer.groups),
            weight_bytes=p.filter_bytes,
            activation_bytes=p.activation_bytes,
            extra=extra,
        )
        rate: Kind | None = "elementwise" if layer.groups == shape[0] > 1 else None
        yield Node("conv", "convolution", op, rate=rate)  # a filter for each channel alone is no product
        yield from self._following(float(prod(made)), layer.norm, layer.activation)

    def _reduced(self, name: str, shape: Shape, made: Shape) -> Node:
        """A pass that reads all values and writes fewer."""
        return self._pass(name, float(prod(made)), 1.0 + prod(shape) / prod(made), "pool")

    def _dense(self, name: str, d_in: float, layer: Dense) -> Iterator[Node]:
        p = self.precision
        yield Node(name, "dense", Linear(d_in, float(layer.features), p.weight_bytes, p.activation_bytes, layer.bias))
        yield from self._following(float(layer.features), False, layer.activation)

    def _lstm(self, layer: Lstm, shape: Shape) -> Iterator[Node]:
        """The first layer, then the others, which are equal; a framework dispatches them all at once."""
        inputs, *cells = self._cells("first", layer, float(shape[0]), float(shape[1]))
        yield inputs
        for node in cells:
            yield replace(node, calls=0.0)
        if layer.layers > 1:
            for node in self._cells("others", layer, float(shape[0]), float(layer.hidden)):
                yield replace(node, count=node.count * (layer.layers - 1.0), calls=0.0)

    def _cells(self, name: str, layer: Lstm, steps: float, d_in: float) -> Iterator[Node]:
        """Gates from all inputs in one product, then step after step from the output before."""
        p, hidden = self.precision, float(layer.hidden)
        gates = GATES * hidden
        sizes = (steps, steps * d_in, 1.0, p.weight_bytes, p.activation_bytes, layer.bias * gates)
        yield Node(f"{name}.inputs", "recurrent", Convolution(d_in, gates, 1.0, *sizes))
        step = Linear(hidden, gates, p.weight_bytes, p.activation_bytes, layer.bias)
        yield Node(f"{name}.step", "recurrent", step)
        if steps > 1.0:
            again = replace(step, shared=True, bias=False)
            yield Node(f"{name}.more_steps", "recurrent", again, count=steps - 1.0)
        yield Node(f"{name}.cell", "recurrent", Elementwise(hidden, CELL_TENSORS, p.activation_bytes), count=steps)

    def _squeeze_excite(self, layer: SqueezeExcite, shape: Shape) -> Iterator[Node]:
        channels = float(shape[0])
        yield self._reduced("squeeze", shape, (shape[0],))
        squeeze = Dense(kind="linear", features=layer.channels, activation="relu")
        excite = Dense(kind="linear", features=shape[0], activation="hard_sigmoid")
        for node in self._dense("down", channels, squeeze):
            yield replace(node, name=f"squeeze.{node.name}")
        for node in self._dense("up", float(layer.channels), excite):
            yield replace(node, name=f"excite.{node.name}")
        yield self._pass("scale", float(prod(shape)), 2.0)

    def _residual(self, layer: Residual, shape: Shape) -> Iterator[Node]:
        made = float(prod(layer.shape(shape)))
        beside_bytes = prod(shape) * self.precision.activation_bytes
        for number, node in enumerate(self.layers(layer.body, shape, "body.")):
            yield replace(node, beside_bytes=node.beside_bytes + (beside_bytes if number else 0.0))
        made_bytes = made * self.precision.activation_bytes
        for node in self.layers(layer.shortcut, shape, "shortcut."):
            yield replace(node, beside_bytes=node.beside_bytes + made_bytes)
        if not self.fused:
            yield self._pass("sum", made, 3.0)
        yield from self._following(made, False, layer.activation)
