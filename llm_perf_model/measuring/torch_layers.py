"""Layers of a network as nodes of a PyTorch graph."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce
from math import prod
from typing import Any, assert_never

from ..specs.layer import (
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
    Pointwise,
    Pool,
    Recurrent,
    Repeat,
    Residual,
    Rows,
    Separate,
    Shape,
    Softmax,
    SqueezeExcite,
    edges,
    pair,
    shape_after,
)
from .torch_attention import attend, join_steps
from .written import Writer

ACTIVATIONS: dict[Pointwise, str] = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "leaky_relu": "LeakyReLU",
    "hard_swish": "Hardswish",
    "hard_sigmoid": "Hardsigmoid",
    "silu": "SiLU",
    "gelu": "GELU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "elu": "ELU",
    "softplus": "Softplus",
    "mish": "Mish",
}
"""Activation -> the class of `torch.nn` that computes it."""


def write_layers(to: Writer, layers: Iterable[Layer], x: Any, shape: Shape, prefix: str = "") -> Any:
    """Nodes of layers that take samples of a shape from the node `x`; returns the last.

    Modules are called as operators are in a breakdown, `2.body.0.conv`. The last node of each layer keeps the layer's
    name and shape as `meta["made"]`.
    """
    for number, layer in enumerate(layers):
        name = f"{prefix}{number}"
        x, shape = _write(to, layer, x, shape, name), layer.shape(shape)
        x.meta["made"] = name, shape
    return x


def _write(to: Writer, layer: Layer, x: Any, shape: Shape, name: str) -> Any:
    match layer:
        case Conv() | PatchEmbedding() | Dense() | SqueezeExcite() | Attention() | Recurrent():
            x = _products(to, layer, x, shape, name)
        case Flatten() | Rows() | OneStep() | JoinSteps():
            x = _moves(to, layer, x, shape)
        case Pool():
            x = _pool(to, layer, x, name)
        case GlobalPool():
            x = to.do(to.torch.mean, x, (2, 3) if len(shape) == 3 else 1)
        case LayerNorm() | Softmax():
            x = _over_features(to, layer, x, shape, name)
        case Separate():
            x = _following(to, x, shape, layer.norm, layer.activation, name)
        case Residual():
            x = _residual(to, layer, x, shape, name)
        case Parallel():
            x = _parallel(to, layer, x, shape, name)
        case Repeat():
            for number in range(layer.count):
                x = write_layers(to, layer.body, x, shape, f"{name}.{number}.")
        case never:
            assert_never(never)
    return x


def _products(
    to: Writer,
    layer: Conv | PatchEmbedding | Dense | SqueezeExcite | Attention | Recurrent,
    x: Any,
    shape: Shape,
    name: str,
) -> Any:
    """Layers with matrices of weights."""
    match layer:
        case Conv():
            x = _conv(to, layer, x, shape, name)
        case PatchEmbedding():
            x = _patches(to, layer, x, shape, name)
        case Dense():
            x = _dense(to, layer, x, shape, name)
        case SqueezeExcite():
            x = _squeeze_excite(to, layer, x, shape, name)
        case Attention():
            x = attend(to, layer, x, shape, name)
        case Recurrent():
            x = _recurrent(to, layer, x, shape, name)
        case never:
            assert_never(never)
    return x


def _moves(to: Writer, layer: Flatten | Rows | OneStep | JoinSteps, x: Any, shape: Shape) -> Any:
    """Layers that put values elsewhere, or leave some out."""
    match layer:
        case Flatten():
            x = to.reshape(x, prod(shape))
        case Rows():
            x = to.reshape(x, shape[0], prod(shape[1:]))
            x = x if layer.kind == "rows" else to.transpose(x, 1, 2)
        case OneStep():
            x = to.do(to.torch.select, x, 1, 0 if layer.kind == "first" else -1)
        case JoinSteps():
            x = join_steps(to, layer.steps, x, shape)
        case never:
            assert_never(never)
    return x


def _following(to: Writer, x: Any, shape: Shape, norm: bool, activation: Pointwise | None, name: str) -> Any:
    """A batch norm of channels or features, then an activation, where there are such."""
    if norm and len(shape) == 2:
        turned = to.call(f"{name}.norm", to.nn.BatchNorm1d(shape[1]), to.transpose(x, 1, 2))
        x = to.transpose(turned, 1, 2)
    elif norm:
        x = to.call(f"{name}.norm", (to.nn.BatchNorm2d if len(shape) == 3 else to.nn.BatchNorm1d)(shape[0]), x)
    return to.call(f"{name}.{activation}", getattr(to.nn, ACTIVATIONS[activation])(), x) if activation else x


def _conv(to: Writer, layer: Conv, x: Any, shape: Shape, name: str) -> Any:
    """Edges whose padding differs are padded by a node of their own."""
    (top, bottom), (left, right) = edges(layer.padding)
    even = (top, left) == (bottom, right)
    if not even:
        x = to.do(to.nn.functional.pad, x, (left, right, top, bottom))
    windows = (pair(layer.kernel), pair(layer.stride), (top, left) if even else 0, pair(layer.dilation))
    conv = to.nn.Conv2d(shape[0], layer.channels, *windows, layer.groups, layer.bias)
    x = to.call(f"{name}.conv", conv, x)
    return _following(to, x, layer.shape(shape), layer.norm, layer.activation, name)


def _pool(to: Writer, layer: Pool, x: Any, name: str) -> Any:
    """PyTorch pads all edges alike, by half a window at most; what differs is padded by a node of its own."""
    (top, bottom), (left, right) = edges(layer.padding)
    height, width = pair(layer.kernel)
    even = (top, left) == (bottom, right) and top <= height // 2 and left <= width // 2
    kind, empty = (to.nn.MaxPool2d, -float("inf")) if layer.kind == "max_pool" else (to.nn.AvgPool2d, 0.0)
    if not even:
        x = to.do(to.nn.functional.pad, x, (left, right, top, bottom), value=empty)
    pool = kind((height, width), pair(layer.stride), (top, left) if even else 0)
    return to.call(f"{name}.{layer.kind}", pool, x)


def _dense(to: Writer, layer: Dense, x: Any, shape: Shape, name: str, product: str = "linear") -> Any:
    x = to.call(f"{name}.{product}", to.nn.Linear(shape[-1], layer.features, layer.bias), x)
    return _following(to, x, layer.shape(shape), False, layer.activation, name)


def _over_features(to: Writer, layer: LayerNorm | Softmax, x: Any, shape: Shape, name: str) -> Any:
    """Features are the last axis, channels the first after the samples."""
    is_map = len(shape) == 3
    if isinstance(layer, Softmax):
        return to.do(to.nn.functional.softmax, x, 1 if is_map else -1)
    norm = to.nn.LayerNorm(shape[0] if is_map else shape[-1], bias=layer.bias)
    if not is_map:
        return to.call(f"{name}.layer_norm", norm, x)
    return to.permute(to.call(f"{name}.layer_norm", norm, to.permute(x, 0, 2, 3, 1)), 0, 3, 1, 2)


def _squeeze_excite(to: Writer, layer: SqueezeExcite, x: Any, shape: Shape, name: str) -> Any:
    channels = shape[0]
    squeeze = Dense(kind="linear", features=layer.channels, activation=layer.activation)
    excite = Dense(kind="linear", features=channels, activation=layer.gate)
    means = to.do(to.torch.mean, x, (2, 3))
    gate = _dense(to, squeeze, means, (channels,), f"{name}.squeeze", "down")
    gate = _dense(to, excite, gate, (layer.channels,), f"{name}.excite", "up")
    return to.do(operator.mul, x, to.reshape(gate, channels, 1, 1))


def _patches(to: Writer, layer: PatchEmbedding, x: Any, shape: Shape, name: str) -> Any:
    (steps, width), patch = layer.shape(shape), pair(layer.patch)
    x = to.call(f"{name}.conv", to.nn.Conv2d(shape[0], width, patch, patch, bias=layer.bias), x)
    x = to.transpose(to.reshape(x, width, steps - layer.class_token), 1, 2)
    if layer.class_token:
        token, count = to.weights(f"{name}.class_token", 1, 1, width), to.graph.call_method("size", (x, 0))
        x = to.do(to.torch.cat, (to.graph.call_method("expand", (token, count, -1, -1)), x), 1)
    if layer.positions:
        x = to.do(operator.add, x, to.weights(f"{name}.positions", 1, steps, width))
    return x


def _recurrent(to: Writer, layer: Recurrent, x: Any, shape: Shape, name: str) -> Any:
    kind = getattr(to.nn, layer.kind.upper())
    options = {"bias": layer.bias, "batch_first": True, "bidirectional": layer.bidirectional}
    cells = kind(shape[1], layer.hidden, layer.layers, **options)
    return to.do(operator.getitem, to.call(f"{name}.{layer.kind}", cells, x), 0)


def _residual(to: Writer, layer: Residual, x: Any, shape: Shape, name: str) -> Any:
    body = write_layers(to, layer.body, x, shape, f"{name}.body.")
    beside = write_layers(to, layer.shortcut, x, shape, f"{name}.shortcut.")
    return _following(to, to.do(operator.add, body, beside), layer.shape(shape), False, layer.activation, name)


def _parallel(to: Writer, layer: Parallel, x: Any, shape: Shape, name: str) -> Any:
    """Side by side by channels or features; of factors, one value a channel is spread over the map."""
    made, is_map = layer.shape(shape), len(layer.shape(shape)) == 3
    ways = [
        write_layers(to, branch, x, shape, f"{name}.branch{number}.") for number, branch in enumerate(layer.branches)
    ]
    if layer.join == "concat":
        x = to.do(to.torch.cat, tuple(ways), 1 if is_map else -1)
    else:
        shapes = [shape_after(branch, shape) for branch in layer.branches]
        ways = [
            to.reshape(way, made[0], 1, 1) if len(one) < len(made) and is_map else way
            for way, one in zip(ways, shapes, strict=True)
        ]
        x = reduce(lambda one, other: to.do(operator.mul, one, other), ways)
    return _following(to, x, made, False, layer.activation, name)
