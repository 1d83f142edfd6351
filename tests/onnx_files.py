"""ONNX files for tests: graphs written node by node, and network files as an exporter would write them."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

import llm_perf_model as lpm
from llm_perf_model.specs.layer import (
    Attention,
    Conv,
    Dense,
    Flatten,
    GlobalPool,
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
    edges,
    pair,
)

OPSET = 20


class Graph:
    """Nodes in their order; each method adds one and gives the name of its first output."""

    def __init__(self, opset: int = OPSET) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def name(self, word: str) -> str:
        return f"{word}_{len(self.nodes) + len(self.weights)}"

    def weight(self, *shape: int, external: bool = True) -> str:
        """A trained tensor, whose values lie in another file that is not there."""
        name = self.name("w")
        if external:
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", "weights.bin"
        else:
            tensor = numpy_helper.from_array(np.zeros(shape, np.float32), name)
        self.weights.append(tensor)
        return name

    def values(self, values: Any, dtype: Any = np.int64) -> str:
        name = self.name("c")
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def number(self, value: float) -> str:
        return self.values(value, np.float32)

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        made = [f"{self.name(kind.lower())}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name=made[0], **attributes))
        return made[0]

    def model(self, output: str, shape: Iterable[int | str], *, input_name: str = "x", made: Any = None) -> Any:
        given = helper.make_tensor_value_info(input_name, TensorProto.FLOAT, list(shape))
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, made)
        graph = helper.make_graph(self.nodes, "net", [given], [result], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)

    def save(self, path: Path, output: str, shape: Iterable[int | str], **options: Any) -> Path:
        model = self.model(output, shape, **options)
        _check(model)
        path.write_bytes(model.SerializeToString())
        return path


def _check(model: Any) -> None:
    """Hold a graph to the standard; weights that lie elsewhere count as inputs."""
    whole = type(model).FromString(model.SerializeToString())
    del whole.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            whole.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            whole.graph.initializer.append(tensor)
    for value in whole.graph.output:
        value.type.tensor_type.shape.SetInParent()
    checker.check_model(whole)


def activation(g: Graph, x: str, name: str | None) -> str:
    """As PyTorch's exporter writes each: single operators, or several."""
    match name:
        case None:
            return x
        case "relu" | "sigmoid" | "tanh" | "elu" | "softplus" | "mish":
            return g.op(name.capitalize(), x)
        case "relu6":
            return g.op("Clip", x, g.number(0.0), g.number(6.0))
        case "leaky_relu":
            return g.op("LeakyRelu", x, alpha=0.1)
        case "hard_sigmoid":
            return g.op("HardSigmoid", x, alpha=1.0 / 6.0)
        case "hard_swish":
            return g.op("HardSwish", x)
        case "silu":
            return g.op("Mul", x, g.op("Sigmoid", x))
        case "gelu":
            erf = g.op("Erf", g.op("Div", x, g.number(2.0**0.5)))
            return g.op("Mul", g.op("Mul", x, g.op("Add", erf, g.number(1.0))), g.number(0.5))
    raise AssertionError(name)


class Exporter(Graph):
    """A network file as a graph with a batch that is open."""

    def network(self, network: lpm.NetworkSpec, path: Path) -> Path:
        x, shape = self.layers("x", network.layers, network.input)
        return self.save(path, x, ("batch", *network.input), made=("batch", *shape))

    def layers(self, x: str, layers: Iterable[Layer], shape: Shape) -> tuple[str, Shape]:
        for layer in layers:
            x = self.layer(x, layer, shape)
            shape = layer.shape(shape)
        return x, shape

    def layer(self, x: str, layer: Layer, shape: Shape) -> str:
        match layer:
            case Conv():
                return self.conv(x, layer, shape)
            case Pool():
                before, after = zip(*edges(layer.padding), strict=True)
                sizes = {"kernel_shape": pair(layer.kernel), "strides": pair(layer.stride), "pads": before + after}
                return self.op("MaxPool" if layer.kind == "max_pool" else "AveragePool", x, **sizes)
            case GlobalPool() if len(shape) == 2:
                return self.op("ReduceMean", x, self.values([1]), keepdims=0)
            case GlobalPool():
                return self.op("Flatten", self.op("GlobalAveragePool", x))
            case Flatten():
                return self.op("Flatten", x)
            case Rows(kind="rows"):
                return self.op("Reshape", x, self.values([0, 0, -1]))
            case Rows():
                return self.op("Transpose", self.op("Reshape", x, self.values([0, 0, -1])), perm=[0, 2, 1])
            case OneStep():
                return self.op("Gather", x, self.values(0 if layer.kind == "first" else -1), axis=1)
            case Softmax():
                return self.op("Softmax", x, axis=1 if len(shape) == 3 else -1)
            case Separate():
                x = self.batch_norm(x, shape[0] if len(shape) == 3 else shape[-1]) if layer.norm else x
                return activation(self, x, layer.activation)
            case Residual():
                body, _ = self.layers(x, layer.body, shape)
                shortcut, _ = self.layers(x, layer.shortcut, shape)
                return activation(self, self.op("Add", body, shortcut), layer.activation)
            case Parallel():
                ends = [self.layers(x, branch, shape)[0] for branch in layer.branches]
                axis = 1 if len(shape) == 3 else -1
                joined = self.op("Concat", *ends, axis=axis) if layer.join == "concat" else self.op("Mul", *ends)
                return activation(self, joined, layer.activation)
            case Repeat():
                for _ in range(layer.count):
                    x, _ = self.layers(x, layer.body, shape)
                return x
            case _:
                return self.of_features(x, layer, shape)

    def of_features(self, x: str, layer: Any, shape: Shape) -> str:
        match layer:
            case Dense():
                return activation(self, self.product(x, shape, layer.features, layer.bias), layer.activation)
            case LayerNorm() if len(shape) == 3:
                rows = self.op("Transpose", x, perm=[0, 2, 3, 1])
                return self.op("Transpose", self.norm(rows, shape[0], layer.bias), perm=[0, 3, 1, 2])
            case LayerNorm():
                return self.norm(x, shape[-1], layer.bias)
            case SqueezeExcite():
                return self.squeeze_excite(x, layer, shape)
            case PatchEmbedding():
                return self.patches(x, layer, shape)
            case Attention():
                return self.attention(x, layer, shape)
            case Recurrent():
                return self.recurrent(x, layer, shape)
        raise AssertionError(layer)

    def norm(self, x: str, width: int, bias: bool) -> str:
        weights = [self.weight(width) for _ in range(1 + bias)]
        return self.op("LayerNormalization", x, *weights, axis=-1)

    def batch_norm(self, x: str, channels: int) -> str:
        return self.op("BatchNormalization", x, *(self.weight(channels) for _ in range(4)))

    def conv(self, x: str, layer: Conv, shape: Shape) -> str:
        before, after = zip(*edges(layer.padding), strict=True)
        weights = [self.weight(layer.channels, shape[0] // layer.groups, *pair(layer.kernel))]
        weights += [self.weight(layer.channels)] * layer.bias
        sizes = {"kernel_shape": pair(layer.kernel), "strides": pair(layer.stride), "dilations": pair(layer.dilation)}
        x = self.op("Conv", x, *weights, pads=before + after, group=layer.groups, **sizes)
        x = self.batch_norm(x, layer.channels) if layer.norm else x
        return activation(self, x, layer.activation)

    def product(self, x: str, shape: Shape, features: int, bias: bool) -> str:
        if len(shape) == 1:
            weights = [self.weight(features, shape[-1]), *([self.weight(features)] * bias)]
            return self.op("Gemm", x, *weights, transB=1)
        x = self.op("MatMul", x, self.weight(shape[-1], features))
        return self.op("Add", self.weight(features), x) if bias else x

    def squeeze_excite(self, x: str, layer: SqueezeExcite, shape: Shape) -> str:
        squeezed = self.op("ReduceMean", x, self.values([2, 3]), keepdims=1)
        down = self.op("Conv", squeezed, self.weight(layer.channels, shape[0], 1, 1), self.weight(layer.channels))
        down = activation(self, down, layer.activation)
        up = self.op("Conv", down, self.weight(shape[0], layer.channels, 1, 1), self.weight(shape[0]))
        return self.op("Mul", activation(self, up, layer.gate), x)

    def patches(self, x: str, layer: PatchEmbedding, shape: Shape) -> str:
        """As an image transformer does: the token is copied for as many samples as the batch has."""
        steps, width = layer.shape(shape)
        conv = Conv(kind="conv", channels=width, kernel=layer.patch, stride=layer.patch, bias=layer.bias)
        batch = self.op("Gather", self.op("Shape", x), self.values(0), axis=0)
        whole = [self.op("Unsqueeze", batch, self.values([0])), self.values([width]), self.values([-1])]
        places = self.op("Reshape", self.conv(x, conv, shape), self.op("Concat", *whole, axis=0))
        x = self.op("Transpose", places, perm=[0, 2, 1])
        if layer.class_token:
            copies = self.op("Concat", whole[0], self.values([1, 1]), axis=0)
            x = self.op("Concat", self.op("Expand", self.weight(1, 1, width), copies), x, axis=1)
        return self.op("Add", x, self.weight(1, steps, width)) if layer.positions else x

    def attention(self, x: str, layer: Attention, shape: Shape) -> str:
        steps, width = shape
        dim = width // layer.heads
        heads = self.values([0, -1, layer.heads, dim])
        q, k, v = (self.op("Reshape", self.product(x, shape, width, layer.bias), heads) for _ in range(3))
        q, k, v = (self.op("Transpose", y, perm=perm) for y, perm in ((q, _HEADS), (k, _KEYS), (v, _HEADS)))
        scores = self.op("Div", self.op("MatMul", q, k), self.number(dim**0.5))
        mixed = self.op("Transpose", self.op("MatMul", self.op("Softmax", scores, axis=-1), v), perm=_HEADS)
        mixed = self.op("Reshape", mixed, self.values([0, -1, width]))
        return self.product(mixed, (steps, width), width, layer.bias)

    def recurrent(self, x: str, layer: Recurrent, shape: Shape) -> str:
        """As PyTorch's exporter with the batch first: one operator a layer between two transpositions."""
        gates, d_in = {"lstm": 4, "gru": 3, "rnn": 1}[layer.kind], shape[1]
        x = self.op("Transpose", x, perm=[1, 0, 2])
        for _ in range(layer.layers):
            rows = gates * layer.hidden
            sizes = [(rows, d_in), (rows, layer.hidden), *([(2 * rows,)] * layer.bias)]
            weights = [self.weight(layer.directions, *size) for size in sizes]
            options = {"hidden_size": layer.hidden, "direction": "bidirectional" if layer.bidirectional else "forward"}
            y = self.op(layer.kind.upper(), x, *weights, outputs=2, **options)
            d_in = layer.directions * layer.hidden
            turned = self.op("Transpose", y, perm=[0, 2, 1, 3])
            x = self.op("Reshape", turned, self.values([0, 0, d_in]))
        return self.op("Transpose", x, perm=[1, 0, 2])


_HEADS, _KEYS = [0, 2, 1, 3], [0, 2, 3, 1]


def elements(weights: Iterable[Any]) -> int:
    """Numbers in trained tensors."""
    return sum(prod(tensor.dims) for tensor in weights if tensor.data_location == TensorProto.EXTERNAL)
