"""Network x precision x engine fusion -> the nodes of a forward pass over samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import assert_never, cast

from .graph.attention import scores
from .graph.parts import NORM_TOUCHES
from .ops.base import Kind
from .ops.collective import Transfer
from .ops.convolution import Convolution
from .ops.dense import Linear
from .ops.elementwise import Elementwise
from .ops.node import Graph, Node, Role
from .ops.recurrence import CELLS, Recurrence
from .specs.attention import GroupedQueryAttention
from .specs.engine import EngineSpec, Passes
from .specs.layer import (
    Attention,
    Conv,
    Dense,
    Flatten,
    GlobalPool,
    JoinSteps,
    Layer,
    LayerNorm,
    OneStep,
    Parallel,
    PatchEmbedding,
    Pool,
    Recurrent,
    Repeat,
    Residual,
    Rows,
    Separate,
    Shape,
    Softmax,
    SqueezeExcite,
    pair,
    shape_after,
)
from .specs.network import NetworkSpec
from .specs.precision import PrecisionSpec

ONE_PASS = Passes(tensors=2.0, kernels=1.0)
OFFSET_WIDTH = 512
"""Values inside the network that makes biases of offsets (Swin Transformer V2, arXiv:2111.09883, section 3.3)."""


def build_network(network: NetworkSpec, engine: EngineSpec, precision: PrecisionSpec, shape: Shape) -> Graph:
    """The nodes of a pass over samples of a shape, in the order in which they run."""
    builder = _Builder(engine, precision)
    return *builder.arriving(shape), *builder.layers(network.layers, shape, "")


@dataclass(frozen=True, slots=True)
class _Builder:
    engine: EngineSpec
    precision: PrecisionSpec

    @property
    def fused(self) -> bool:
        """Whether batch norms, activations and sums ride on the kernel before them."""
        return "activation" in self.engine.fused

    def of(self, shape: Shape) -> _Builder:
        """With the bytes that activations of a shape have."""
        if len(shape) < 3:
            return self
        return replace(self, precision=self.precision.model_copy(update={"activation_bytes": self.precision.map_bytes}))

    def arriving(self, shape: Shape) -> Iterator[Node]:
        """The copy from the host, and the pass that makes samples as narrow as the first layer wants them."""
        kept, values = self.of(shape).precision.activation_bytes, float(prod(shape))
        arrived = kept if self.precision.sample_bytes is None else self.precision.sample_bytes
        if self.engine.host_samples:
            yield Node("input_copy", "communication", Transfer(values, arrived), rate="staged")
        yield from self.cast("input_cast", values, arrived, kept)

    def cast(self, name: str, values: float, read_bytes: float, written_bytes: float) -> Iterator[Node]:
        """A pass that makes values wider or narrower, where they are not as wide as wanted."""
        if read_bytes != written_bytes:
            yield Node(name, "pass", Elementwise(values, 1.0 + read_bytes / written_bytes, written_bytes))

    def layers(self, layers: Iterable[Layer], shape: Shape, prefix: str) -> Iterator[Node]:
        for number, layer in enumerate(layers):
            own, made = self.of(shape), layer.shape(shape)
            for node in own._layer(layer, shape):
                yield replace(node, name=f"{prefix}{number}.{node.name}")
            if isinstance(layer, Flatten | Rows):
                widths = (own.precision.activation_bytes, self.of(made).precision.activation_bytes)
                yield from self.cast(f"{prefix}{number}.cast", float(prod(made)), *widths)
            shape = made

    def _layer(self, layer: Layer, shape: Shape) -> Iterator[Node]:
        match layer:
            case Conv():
                yield from self._conv(layer, shape)
            case Pool() | GlobalPool():
                yield self._reduced(layer.kind, shape, layer.shape(shape))
            case SqueezeExcite():
                yield from self._squeeze_excite(layer, shape)
            case Flatten() | Rows() | OneStep():
                return
            case PatchEmbedding():
                yield from self._patches(layer, shape)
            case Dense() | LayerNorm() | Softmax() | JoinSteps() | Attention() | Recurrent():
                yield from self._of_features(layer, shape)
            case Separate():
                yield from self._separate(layer, shape)
            case Residual():
                yield from self._residual(layer, shape)
            case Parallel():
                yield from self._parallel(layer, shape)
            case Repeat():
                for node in self.layers(layer.body, shape, "body."):
                    yield replace(node, count=layer.count * node.count)
            case never:
                assert_never(never)

    def _of_features(
        self, layer: Dense | LayerNorm | Softmax | JoinSteps | Attention | Recurrent, shape: Shape
    ) -> Iterator[Node]:
        """What takes the features of each step of a sequence."""
        match layer:
            case Dense():
                yield from self._dense("linear", shape, layer)
            case LayerNorm() | Softmax():
                yield self._over_features(layer, shape)
            case JoinSteps():
                yield self._pass(layer.kind, float(prod(shape)), 2.0)
            case Attention():
                yield from self._attention(layer, shape)
            case Recurrent():
                yield from self._recurrent(layer, shape)
            case never:
                assert_never(never)

    def _pass(self, name: str, values: float, tensors: float, role: Role = "pass", weights: float = 0.0) -> Node:
        op = Elementwise(values, tensors, self.precision.activation_bytes)
        if weights:
            op = replace(op, weights=weights, weight_bytes=self.precision.weight_bytes)
        return Node(name, role, op)

    def _following(self, values: float, norm: bool, activation: str | None) -> Iterator[Node]:
        """A norm and an activation, where they have kernels of their own, or one together."""
        folded = {"batch_norm": "norm", "relu": "relu"}
        riding = {None, "", *(folded[fusion] for fusion in folded.keys() & self.engine.fused)}
        names = [name for name in ("norm" * norm, activation) if name not in riding]
        if self.fused or not names:
            return
        for name in ["_".join(map(str, names))] if "pointwise" in self.engine.fused else map(str, names):
            own = cast("Mapping[str, Passes]", self.engine.passes).get(name, ONE_PASS)
            yield replace(self._pass(name, values, own.tensors), kernels=own.kernels)

    def _conv(self, layer: Conv, shape: Shape, weights: int = 0) -> Iterator[Node]:
        """The product, with the norm, the activation and further `weights` that belong to it."""
        made, p = layer.shape(shape), self.precision
        extra = float(layer.channels * (layer.bias + 2 * layer.norm) + weights)
        op = Convolution(
            in_channels=float(shape[0]),
            out_channels=float(layer.channels),
            window=float(prod(pair(layer.kernel))),
            positions=float(prod(made[1:])),
            in_values=float(prod(shape)),
            groups=float(layer.groups),
            weight_bytes=p.filter_bytes,
            activation_bytes=p.activation_bytes,
            extra=extra,
            position_rows=float(made[1]),
            winograd=(pair(layer.kernel), pair(layer.stride), pair(layer.dilation)) == ((3, 3), (1, 1), (1, 1)),
        )
        rate: Kind | None = "elementwise" if layer.groups == shape[0] > 1 else None
        yield Node("conv", "convolution", op, rate=rate)  # a filter for each channel alone is no product
        yield from self._following(float(prod(made)), layer.norm, layer.activation)

    def _reduced(self, name: str, shape: Shape, made: Shape) -> Node:
        """A pass that reads all values and writes fewer."""
        return self._pass(name, float(prod(made)), 1.0 + prod(shape) / prod(made), "pool")

    def _patches(self, layer: PatchEmbedding, shape: Shape) -> Iterator[Node]:
        """A convolution; a copy behind the class token; a sum with the positions."""
        steps, width = layer.shape(shape)
        conv = Conv(kind="conv", channels=width, kernel=layer.patch, stride=layer.patch, bias=layer.bias)
        yield from self._conv(conv, shape, layer.class_token * width + layer.positions * steps * width)
        if layer.class_token and not self.fused:
            yield self._pass("class_token", float(steps * width), 2.0)
        if layer.positions and not self.fused:
            yield self._pass("positions", float(steps * width), 2.0)

    def _dense(self, name: str, shape: Shape, layer: Dense) -> Iterator[Node]:
        """A product of each step, of which features alone are one."""
        p, steps = self.precision, float(prod(shape[:-1]))
        op = Linear(float(shape[-1]), float(layer.features), p.weight_bytes, p.activation_bytes, layer.bias)
        yield Node(name, "dense", op, steps=steps)
        yield from self._following(steps * layer.features, False, layer.activation)

    def _over_features(self, layer: LayerNorm | Softmax, shape: Shape) -> Node:
        """A pass with one block a step, or a place of a map; a norm keeps a scale and a shift."""
        p, width = self.precision, _width(shape)
        weights = (1.0 + layer.bias) * width if isinstance(layer, LayerNorm) else 0.0
        op = Elementwise(
            width, 2.0, p.activation_bytes, weights=weights, weight_bytes=p.weight_bytes, touches=NORM_TOUCHES
        )
        return Node(layer.kind, "norm", op, steps=prod(shape) / width)

    def _separate(self, layer: Separate, shape: Shape) -> Iterator[Node]:
        """Kernels of their own with every engine, since no product goes before; one where the engine joins them."""
        names = [name for name in ("norm" * layer.norm, layer.activation) if name]
        weights = 2.0 * _width(shape) * layer.norm
        joined = self.fused or "pointwise" in self.engine.fused
        for number, name in enumerate(["_".join(names)] if joined else names):
            yield self._pass(name, float(prod(shape)), 2.0, weights=0.0 if number else weights)

    def _attention(self, layer: Attention, shape: Shape) -> Iterator[Node]:
        """One product for queries, keys and values, the scores as in a transformer without a mask, a product.

        Heads of one window are to the scores what further heads of a shorter sequence are.
        """
        steps, width = shape
        seen = steps if layer.window is None else layer.window**2
        spec = GroupedQueryAttention(heads=layer.heads, kv_heads=layer.heads, head_dim=width // layer.heads)
        heads, added = float(layer.heads * (steps // seen)), layer.relative_positions is not None
        mixed = scores(self.engine, self.precision, spec, heads, heads, causal=False, biased=added)
        wide, narrow = (Dense(kind="linear", features=n * width, bias=layer.bias) for n in (3, 1))
        if added:
            yield self._pass("relative_positions", 0.0, 0.0, "attention", float(_relative_weights(layer, seen)))
        for node in self._dense("qkv", shape, wide):
            yield replace(node, role="attention", steps=float(steps))
        yield replace(mixed, role="attention", steps=float(seen))
        for node in self._dense("attention_out", shape, narrow):
            yield replace(node, role="attention", steps=float(steps))

    def _recurrent(self, layer: Recurrent, shape: Shape) -> Iterator[Node]:
        """The first layer, then the others, which are equal; each way of reading the steps after the other.

        A framework dispatches all of it at once.
        """
        steps, d_in = (float(n) for n in shape)
        if self.engine.gathers_recurrent_weights:
            yield self._gathered(layer, d_in)
        for name, width, layers in (("first", d_in, 1), ("others", float(layer.shape(shape)[1]), layer.layers - 1)):
            for node in self._cells(name, layer, steps, width) if layers else ():
                calls = 1.0 / layer.directions if node.name == "first.inputs" else 0.0
                yield replace(node, count=node.count * layers * layer.directions, calls=calls)

    def _gathered(self, layer: Recurrent, d_in: float) -> Node:
        """Each weight tensor read and written by a kernel of its own."""
        p, gates, inner = self.precision, CELLS[layer.kind].gates, float(layer.hidden * layer.directions)
        rows = d_in + (layer.layers - 1.0) * inner + layer.layers * (layer.hidden + 2.0 * layer.bias)
        values = layer.directions * gates * layer.hidden * rows
        tensors = layer.layers * layer.directions * (2.0 + 2.0 * layer.bias)
        op = Elementwise(0.0, 0.0, p.activation_bytes, moved_bytes=2.0 * values * p.weight_bytes)
        return Node("gather_weights", "recurrent", op, kernels=tensors, calls=0.0)

    def _cells(self, name: str, layer: Recurrent, steps: float, d_in: float) -> Iterator[Node]:
        """Gates from all inputs in one product, then step after step from the output before."""
        p, hidden, cell = self.precision, float(layer.hidden), CELLS[layer.kind]
        gates = cell.gates * hidden
        inputs = Linear(d_in, gates, p.weight_bytes, p.activation_bytes, layer.bias)
        yield Node(f"{name}.inputs", "recurrent", inputs, steps=steps)
        sizes = (hidden, cell.gates, steps, cell.tensors, p.weight_bytes, p.activation_bytes)
        again = Recurrence(*sizes, extra=layer.bias * gates)
        yield Node(f"{name}.steps", "recurrent", again, kernels=again.kernels)

    def _squeeze_excite(self, layer: SqueezeExcite, shape: Shape) -> Iterator[Node]:
        yield self._reduced("squeeze", shape, (shape[0],))
        squeeze = Dense(kind="linear", features=layer.channels, activation=layer.activation)
        excite = Dense(kind="linear", features=shape[0], activation=layer.gate)
        for node in self._dense("down", (shape[0],), squeeze):
            yield replace(node, name=f"squeeze.{node.name}")
        for node in self._dense("up", (layer.channels,), excite):
            yield replace(node, name=f"excite.{node.name}")
        yield self._pass("scale", float(prod(shape)), 2.0)

    def _residual(self, layer: Residual, shape: Shape) -> Iterator[Node]:
        yield from self._branches({"body": layer.body, "shortcut": layer.shortcut}, shape)
        yield from self._joined("sum", 3.0, prod(layer.shape(shape)), layer.activation)

    def _parallel(self, layer: Parallel, shape: Shape) -> Iterator[Node]:
        """Branches side by side are copied once; a product is taken factor by factor."""
        yield from self._branches({f"branch{number}": branch for number, branch in enumerate(layer.branches)}, shape)
        name, tensors = ("concat", 2.0) if layer.join == "concat" else ("product", len(layer.branches) + 1.0)
        yield from self._joined(name, tensors, prod(layer.shape(shape)), layer.activation)

    def _branches(self, branches: Mapping[str, tuple[Layer, ...]], shape: Shape) -> Iterator[Node]:
        """One branch after the other.

        The input stays alive as long as a later branch or the join reads it, and what each branch makes until the join.
        """
        value_bytes = self.precision.activation_bytes
        given_bytes, made_bytes = prod(shape) * value_bytes, 0.0
        joins_input = not all(branches.values())
        for following, (name, layers) in zip(range(len(branches))[::-1], branches.items(), strict=True):
            waiting_bytes = given_bytes if joins_input or following else 0.0
            for number, node in enumerate(self.layers(layers, shape, f"{name}.")):
                beside_bytes = made_bytes + (waiting_bytes if number else 0.0)
                yield replace(node, beside_bytes=node.beside_bytes + beside_bytes)
            made_bytes += prod(shape_after(layers, shape)) * value_bytes if layers else 0.0

    def _joined(self, name: str, tensors: float, values: int, activation: str | None) -> Iterator[Node]:
        """The pass that joins branches, unless it rides on their kernels, and an activation after it."""
        if self.fused or (name == "sum" and activation == "relu" and "relu" in self.engine.fused):
            return
        together = "pointwise" in self.engine.fused and activation
        yield self._pass(f"{name}_{activation}" if together else name, float(values), tensors)
        if not together:
            yield from self._following(float(values), False, activation)


def _width(shape: Shape) -> float:
    """Channels of a map, or features."""
    return float(shape[0] if len(shape) == 3 else shape[-1])


def _relative_weights(layer: Attention, seen: int) -> int:
    """Weights of what scores gain by the offset of two steps in a window of `seen` steps."""
    if layer.relative_positions == "network":
        return OFFSET_WIDTH * (2 + 1 + layer.heads) + layer.heads  # two coordinates, a bias, heads; a scale a head
    return (2 * math.isqrt(seen) - 1) ** 2 * layer.heads
