"""Networks from ONNX files: those of the catalogue there and back, graphs of many tools, and what is refused."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import llm_perf_model as lpm
from llm_perf_model.graph.stack import parameters
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.layer import Layer, Repeat, Residual, Shape, shape_after

from .onnx_files import Exporter, Graph
from .running import Run, runner
from .test_layers import FORMS, blocks, sequences, total
from .test_networks import (
    Data,
    _multiply_adds,
    conv,
    graph_of,
    layers_of,
    linear,
    network,
    parallel,
    residual,
)

NAMES = [name for name in names(lpm.NetworkSpec) if not name.startswith("swin")]  # windows have no one form in ONNX
FILES = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 100)


def unrolled(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Layers with every block written as often as it runs."""
    found: list[Layer] = []
    for layer in layers:
        if isinstance(layer, Repeat):
            found += unrolled(layer.body) * layer.count
        elif isinstance(layer, Residual):
            found.append(layer.model_copy(update={"body": unrolled(layer.body), "shortcut": unrolled(layer.shortcut)}))
        else:
            found.append(layer)
    return tuple(found)


# There and back.


@pytest.mark.parametrize("name", NAMES)
def test_every_network_of_the_catalogue_comes_back(name: str, tmp_path: Path) -> None:
    written = load(lpm.NetworkSpec, name)
    back = lpm.import_onnx(Exporter().network(written, tmp_path / f"{name}.onnx"))
    assert (back.name, back.input, back.parameters) == (name, written.input, written.parameters)
    assert unrolled(back.layers) == unrolled(written.layers)
    for engine in ("hf-eager", "ideal"):
        before, after = (lpm.estimate(net, engine=engine, batch_size=[1, 32]) for net in (written, back))
        assert np.asarray(after.total_s) == pytest.approx(np.asarray(before.total_s), rel=1e-12)
        assert np.all(np.asarray(after.memory.peak_bytes) == np.asarray(before.memory.peak_bytes))
        assert parameters(after.case.graph) == parameters(before.case.graph)
        assert _multiply_adds(after.case.graph) == _multiply_adds(before.case.graph)


same = st.sampled_from((1, 3)).map(lambda kernel: conv(8, kernel, padding=kernel // 2, norm=True, activation="relu"))
beside = st.tuples(same, same).map(
    lambda two: [parallel("concat", [two[0]], [], [two[1]], activation="silu"), conv(8, 1)]
)
apart = st.sampled_from(
    (
        [{"kind": "pointwise", "norm": True, "activation": "relu"}, conv(8, 3, padding=1)],
        [conv(8, [1, 3], padding=[0, 1, 0, 1], bias=True), {"kind": "pointwise", "norm": True}],
        [conv(8, 2, padding=[0, 0, 1, 1]), {"kind": "softmax"}],
        [parallel("multiply", [], [conv(8, 1)])],
    )
)
maps = st.one_of(blocks(), beside, apart)


@pytest.mark.parametrize(
    ("drawn", "shape"),
    [(maps, (8, 6, 5)), *((sequences(), shape) for drawn, shape in FORMS if len(shape) == 2)],
    ids=["map", "steps", "step"],
)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_layers_in_any_order_come_back(
    drawn: st.SearchStrategy[list[Data]], shape: Shape, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    layers = layers_of(*data.draw(drawn), *data.draw(drawn))
    path = Exporter().network(network(layers, shape), tmp_path_factory.mktemp("onnx") / "net.onnx")
    back = lpm.import_onnx(path)
    before, after = (graph_of(found, shape) for found in (layers, back.layers))
    assert shape_after(back.layers, shape) == shape_after(layers, shape)
    assert total(after) == pytest.approx(total(before), rel=1e-12)
    assert back.parameters == parameters(after) == parameters(before)


@pytest.mark.parametrize("name", ["vit-b-16", "custom-lstm", "se-resnext101-32x4d"])
def test_a_batch_that_the_file_fixes_is_no_part_of_a_sample(name: str, tmp_path: Path) -> None:
    written, exporter = load(lpm.NetworkSpec, name), Exporter()
    x, _ = exporter.layers("x", written.layers, written.input)
    back = lpm.import_onnx(exporter.save(tmp_path / "net.onnx", x, (4, *written.input)))
    assert (back.input, back.parameters) == (written.input, written.parameters)
    assert unrolled(back.layers) == unrolled(written.layers)


@pytest.mark.parametrize("sample", [(3, 40, 40), (3, 64, 32)])
def test_open_sizes_take_those_that_are_asked_for(sample: Shape, tmp_path: Path) -> None:
    written = load(lpm.NetworkSpec, "resnet18")
    exporter = Exporter()
    x, _ = exporter.layers("x", written.layers, sample)
    path = exporter.save(tmp_path / "net.onnx", x, ("n", 3, "height", "width"))
    assert lpm.import_onnx(path, input_shape=sample).input == sample
    asked = [lpm.estimate(net, input_shape=sample).total_s for net in (written, str(path))]
    assert asked[0] == pytest.approx(asked[1], rel=1e-12)
    with pytest.raises(lpm.SpecError, match=r"input x is n x 3 x height x width: the size of height is open; give inp"):
        lpm.import_onnx(path)


# Files that the package onnx brings for its tests, of the published networks.

PUBLISHED = {
    "resnet50": (25_557_032, 4.089e9),  # torchvision, resnet50; this file strides in the 1 x 1 filters
    "vgg19": (143_667_240, 19.632e9),  # torchvision, vgg19
    "squeezenet": (1_235_496, 0.349e9),  # torchvision, squeezenet1_1
    "densenet121": (7_978_856 + 83_648, 2.834e9),  # torchvision, densenet121; norms with a scale of their own
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_of_published_files(name: str) -> None:
    """Parameters are exact; multiply-adds within the differences of the versions of a network."""
    net = lpm.import_onnx(FILES / f"light_{name}.onnx")
    graph = lpm.estimate(net).case.graph
    counted, work = PUBLISHED[name]
    assert net.parameters == parameters(graph) == counted
    assert _multiply_adds(graph) == pytest.approx(work, rel=0.06 if name == "resnet50" else 0.02)


@pytest.mark.parametrize("name", ["inception_v2", "shufflenet"])
def test_branches_and_shuffles_of_published_files(name: str) -> None:
    net = lpm.import_onnx(FILES / f"light_{name}.onnx")
    assert parameters(lpm.estimate(net).case.graph) == net.parameters
    assert any(layer.kind == "parallel" for layer in unrolled(net.layers))


@pytest.mark.parametrize("name", ["bvlc_alexnet", "inception_v1", "zfnet512"])
def test_an_operator_that_no_layer_stands_for(name: str) -> None:
    with pytest.raises(lpm.SpecError, match=r"light_\w+\.onnx: node n\d+ \(LRN of 1 x \d+ x \d+ x \d+\): is no layer"):
        lpm.import_onnx(FILES / f"light_{name}.onnx")


# Graphs as tools write them.


def imported(g: Graph, output: str, path: Path, *shape: int | str, **options: Any) -> lpm.NetworkSpec:
    """The network of a graph, whose layers hold the weights of the file."""
    net = lpm.import_onnx(g.save(path / "net.onnx", output, shape or ("batch", 8, 6, 6), **options))
    assert parameters(lpm.estimate(net).case.graph) == net.parameters
    return net


def filters(g: Graph, x: str, channels: int, d_in: int, kernel: int = 1, **options: Any) -> str:
    return g.op("Conv", x, g.weight(channels, d_in, kernel, kernel), **options)


def _gelu_tanh(g: Graph, x: str) -> str:
    cube = g.op("Mul", x, g.op("Mul", x, x))
    inner = g.op("Mul", g.op("Add", x, g.op("Mul", g.number(0.044715), cube)), g.number(math.sqrt(2.0 / math.pi)))
    return g.op("Mul", g.op("Mul", g.number(0.5), x), g.op("Add", g.op("Tanh", inner), g.number(1.0)))


def _gelu_power(g: Graph, x: str) -> str:
    cube = g.op("Mul", g.op("Pow", x, g.number(3.0)), g.number(0.044715))
    inner = g.op("Mul", g.op("Add", cube, x), g.number(math.sqrt(2.0 / math.pi)))
    return g.op("Mul", g.op("Add", g.number(1.0), g.op("Tanh", inner)), g.op("Mul", x, g.number(0.5)))


def _hard_swish(g: Graph, x: str) -> str:
    shifted = g.op("Clip", g.op("Add", x, g.number(3.0)), g.number(0.0), g.number(6.0))
    return g.op("Div", g.op("Mul", x, shifted), g.number(6.0))


def _hard_sigmoid(g: Graph, x: str) -> str:
    return g.op("Clip", g.op("Add", g.op("Mul", x, g.number(1.0 / 6.0)), g.number(0.5)), g.number(0.0), g.number(1.0))


def _mish(g: Graph, x: str) -> str:
    return g.op("Mul", x, g.op("Tanh", g.op("Softplus", x)))


ACTIVATIONS: list[tuple[str, Callable[[Graph, str], str]]] = [
    ("relu", lambda g, x: g.op("Relu", x)),
    ("relu", lambda g, x: g.op("Max", x, g.number(0.0))),
    ("relu6", lambda g, x: g.op("Min", g.op("Relu", x), g.number(6.0))),
    ("leaky_relu", lambda g, x: g.op("LeakyRelu", x, alpha=0.2)),
    ("sigmoid", lambda g, x: g.op("Reciprocal", g.op("Add", g.op("Exp", g.op("Neg", x)), g.number(1.0)))),
    ("hard_sigmoid", lambda g, x: g.op("HardSigmoid", x)),
    ("hard_sigmoid", _hard_sigmoid),
    ("hard_swish", lambda g, x: g.op("Mul", g.op("HardSigmoid", x, alpha=1.0 / 6.0), x)),
    ("hard_swish", _hard_swish),
    ("silu", lambda g, x: g.op("Mul", g.op("Sigmoid", x), x)),
    ("gelu", lambda g, x: g.op("Gelu", x, approximate="tanh")),
    ("gelu", lambda g, x: g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.number(1.702))))),
    ("gelu", _gelu_tanh),
    ("gelu", _gelu_power),
    ("elu", lambda g, x: g.op("Elu", x, alpha=0.7)),
    ("mish", _mish),
    ("tanh", lambda g, x: g.op("Tanh", x)),
]


@pytest.mark.parametrize(("name", "write"), ACTIVATIONS, ids=[f"{i}-{n}" for i, (n, _) in enumerate(ACTIVATIONS)])
def test_an_activation_is_known_by_its_values(name: str, write: Callable[[Graph, str], str], tmp_path: Path) -> None:
    g = Graph()
    net = imported(g, write(g, filters(g, "x", 4, 8)), tmp_path)
    assert net.layers == layers_of(conv(4, 1, activation=name))


def test_a_function_that_is_no_activation_is_refused(tmp_path: Path) -> None:
    g = Graph()
    path = g.save(tmp_path / "net.onnx", g.op("Exp", filters(g, "x", 4, 8)), ("n", 8, 6, 6))
    with pytest.raises(lpm.SpecError, match=r"node exp_2_0 \(Exp of 1 x 4 x 6 x 6\): makes a function that is none of"):
        lpm.import_onnx(path)


def test_a_block_with_its_norms_folded_into_its_filters(tmp_path: Path) -> None:
    g = Graph()

    def folded(x: str, channels: int, d_in: int, kernel: int, stride: int = 1) -> str:
        weights = (g.weight(channels, d_in, kernel, kernel), g.weight(channels))
        return g.op("Conv", x, *weights, strides=[stride] * 2, pads=[kernel // 2] * 4)

    first = g.op("Relu", folded("x", 16, 8, 3, 2))
    x = g.op("Relu", g.op("Add", folded(first, 16, 16, 3), folded("x", 16, 8, 1, 2)))
    x = g.op("Gemm", g.op("Flatten", g.op("GlobalAveragePool", x)), g.weight(16, 10), g.weight(10))
    body = [conv(16, 3, stride=2, padding=1, bias=True, activation="relu"), conv(16, 3, padding=1, bias=True)]
    shortcut = [conv(16, 1, stride=2, bias=True)]
    whole = residual(*body, shortcut=shortcut, activation="relu")
    assert imported(g, x, tmp_path).layers == layers_of(whole, {"kind": "global_pool"}, linear(10))


def test_a_mobile_block_with_squeeze_and_excite(tmp_path: Path) -> None:
    """Depthwise filters, hard-swish, and a gate whose layers are filters of one place."""
    g = Graph()
    x = g.op("HardSwish", filters(g, "x", 24, 8))
    x = g.op("Conv", x, g.weight(24, 1, 5, 5), g.weight(24), group=24, pads=[2] * 4)
    gate = g.op("GlobalAveragePool", x)
    gate = g.op("Relu", g.op("Conv", gate, g.weight(6, 24, 1, 1), g.weight(6)))
    gate = g.op("HardSigmoid", g.op("Conv", gate, g.weight(24, 6, 1, 1), g.weight(24)), alpha=1.0 / 6.0)
    x = g.op("Add", "x", filters(g, g.op("Mul", gate, x), 8, 24))
    depthwise = conv(24, 5, padding=2, groups=24, bias=True)
    excite = {"kind": "squeeze_excite", "channels": 6}
    body = [conv(24, 1, activation="hard_swish"), depthwise, excite, conv(8, 1)]
    assert imported(g, x, tmp_path).layers == layers_of(residual(*body))


def test_a_gate_that_is_no_squeeze_and_excite_is_a_product_of_branches(tmp_path: Path) -> None:
    g = Graph()
    gate = g.op("Sigmoid", g.op("Conv", g.op("GlobalAveragePool", "x"), g.weight(8, 8, 1, 1), g.weight(8)))
    (layer,) = imported(g, g.op("Mul", "x", gate), tmp_path).layers
    assert layer == layers_of(parallel("multiply", [], [{"kind": "global_pool"}, linear(8, activation="sigmoid")]))[0]


def test_features_that_gather_are_joins_in_joins(tmp_path: Path) -> None:
    """A dense block reads all tensors before it, written as one operator a layer."""
    g = Graph()
    tensors = ["x"]
    for number in range(3):
        joined = g.op("Concat", *tensors, axis=1)
        tensors.append(filters(g, joined, 4, 8 + 4 * number, 3, pads=[1] * 4))
    one = conv(4, 3, padding=1)
    blocks_ = [parallel("concat", [], [one])] * 3
    net = imported(g, g.op("Concat", *tensors, axis=1), tmp_path)
    assert net.layers == layers_of(*blocks_)
    assert shape_after(net.layers, net.input) == (20, 6, 6)


def test_branches_within_branches(tmp_path: Path) -> None:
    g = Graph()
    one = filters(g, "x", 4, 8)
    split = g.op("Concat", filters(g, one, 2, 4), filters(g, one, 3, 4), axis=1)
    pooled = g.op("MaxPool", "x", kernel_shape=[3, 3], pads=[1] * 4)
    inner = parallel("concat", [conv(2, 1)], [conv(3, 1)])
    pooled_layer = {"kind": "max_pool", "kernel": 3, "stride": 1, "padding": 1}
    net = imported(g, g.op("Concat", split, pooled, "x", axis=1), tmp_path)
    assert net.layers == layers_of(parallel("concat", [conv(4, 1), inner], [pooled_layer], []))


def test_branches_that_cross_are_refused(tmp_path: Path) -> None:
    g = Graph()
    a, b = filters(g, "x", 8, 8), filters(g, "x", 8, 8)
    left = g.op("Add", filters(g, a, 8, 8), b)
    right = g.op("Add", a, filters(g, b, 8, 8))
    path = g.save(tmp_path / "net.onnx", g.op("Add", left, right), ("n", 8, 6, 6))
    with pytest.raises(lpm.SpecError, match="its branches do not end in one join before others begin"):
        lpm.import_onnx(path)


def test_what_does_not_lead_to_the_output_is_refused(tmp_path: Path) -> None:
    g = Graph()
    first, second = filters(g, "x", 8, 8), filters(g, "x", 8, 8)
    path = g.save(tmp_path / "net.onnx", second, ("n", 8, 6, 6))
    with pytest.raises(lpm.SpecError, match=rf"node {first} \(Conv of 1 x 8 x 6 x 6\): does not lead to the output"):
        lpm.import_onnx(path)


# Windows.

WINDOWS: list[tuple[Data, int | list[int], int]] = [
    ({"pads": [0, 0, 1, 1], "strides": [2, 2]}, [0, 0, 1, 1], 3),
    ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [0, 0, 1, 1], 3),
    ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, [1, 1, 0, 0], 3),
    ({"auto_pad": "VALID", "strides": [2, 2]}, 0, 2),
    ({"pads": [1, 2, 1, 2]}, [1, 2], 6),
    ({"dilations": [2, 2], "pads": [2, 2, 2, 2]}, 2, 6),
]


@pytest.mark.parametrize(("attributes", "padding", "height"), WINDOWS)
def test_windows_stand_where_the_file_says(
    attributes: Data, padding: int | list[int], height: int, tmp_path: Path
) -> None:
    g = Graph()
    net = imported(g, filters(g, "x", 4, 8, 3, **attributes), tmp_path)
    options = {"stride": attributes.get("strides", [1])[0], "dilation": attributes.get("dilations", [1])[0]}
    assert net.layers == layers_of(conv(4, 3, padding=padding, **options))
    assert shape_after(net.layers, net.input)[1] == height


def test_zeros_around_a_map_belong_to_the_next_window(tmp_path: Path) -> None:
    g = Graph()
    x = filters(g, g.op("Pad", "x", g.values([0, 0, 0, 0, 0, 0, 1, 1])), 4, 8, 3, strides=[2, 2])
    assert imported(g, x, tmp_path).layers == layers_of(conv(4, 3, stride=2, padding=[0, 0, 1, 1]))
    path = g.save(tmp_path / "net.onnx", g.op("Relu", g.nodes[0].output[0]), ("n", 8, 6, 6))
    del g.nodes[1]
    path = g.save(tmp_path / "net.onnx", g.nodes[-1].output[0], ("n", 8, 6, 6))
    with pytest.raises(lpm.SpecError, match="follows zeros around a map"):
        lpm.import_onnx(path)


def test_a_pool_whose_last_window_begins_before_the_end(tmp_path: Path) -> None:
    g = Graph()
    x = g.op("MaxPool", filters(g, "x", 8, 8), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    net = imported(g, x, tmp_path)
    assert net.layers == layers_of(conv(8, 1), {"kind": "max_pool", "kernel": 3, "stride": 2, "padding": [0, 0, 1, 1]})
    assert shape_after(net.layers, net.input) == (8, 3, 3)


def test_a_signal_is_a_map_of_height_one(tmp_path: Path) -> None:
    g = Graph()
    x = g.op("Conv", "x", g.weight(4, 8, 5), strides=[2], pads=[2, 2])
    net = imported(g, g.op("GlobalAveragePool", g.op("Relu", x)), tmp_path, "batch", 8, 100)
    assert net.input == (8, 1, 100)
    kernel: Data = {"kernel": [1, 5], "stride": [1, 2], "padding": [0, 2]}
    assert net.layers == layers_of(conv(4, 1, activation="relu") | kernel, {"kind": "global_pool"})


def test_an_image_with_its_channels_last(tmp_path: Path) -> None:
    g = Graph()
    x = filters(g, g.op("Transpose", "x", perm=[0, 3, 1, 2]), 4, 3, 3)
    x = g.op("Transpose", x, perm=[0, 2, 3, 1])
    x = g.op("Add", g.op("MatMul", x, g.weight(4, 5)), g.weight(5))
    net = imported(g, g.op("Reshape", x, g.values([0, -1])), tmp_path, "batch", 12, 10, 3)
    assert net.input == (3, 12, 10)
    assert net.layers == layers_of(conv(4, 3), conv(5, 1, bias=True), {"kind": "flatten"})


def test_integers_and_casts_are_passed_through(tmp_path: Path) -> None:
    g = Graph()
    scale, zero = g.number(0.1), g.values(0, np.int8)
    x = g.op("DequantizeLinear", g.op("QuantizeLinear", "x", scale, zero), scale, zero)
    weight = g.op("DequantizeLinear", g.values(np.zeros((4, 8, 1, 1)), np.int8), scale, zero)
    x = g.op("Dropout", g.op("Relu", g.op("Conv", x, weight)))
    assert imported(g, g.op("Identity", x), tmp_path).layers == layers_of(conv(4, 1, activation="relu"))


# Sequences.


def test_attention_of_one_product_for_queries_keys_and_values(tmp_path: Path) -> None:
    """As an image transformer of another library is written: five axes, and steps taken from the first."""
    g = Graph()
    qkv = g.op("Add", g.op("MatMul", "x", g.weight(32, 96)), g.weight(96))
    five = g.op("Transpose", g.op("Reshape", qkv, g.values([0, -1, 3, 4, 8])), perm=[2, 0, 3, 1, 4])
    q, k, v = (g.op("Gather", five, g.values(place), axis=0) for place in range(3))
    scores = g.op("MatMul", g.op("Mul", q, g.number(8**-0.5)), g.op("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores), v), perm=[0, 2, 1, 3])
    mixed = g.op("Reshape", mixed, g.values([0, -1, 32]))
    x = g.op("Add", "x", g.op("Add", g.op("MatMul", mixed, g.weight(32, 32)), g.weight(32)))
    net = imported(g, x, tmp_path, "batch", 7, 32)
    assert net.layers == layers_of(residual({"kind": "attention", "heads": 4}))


@pytest.mark.parametrize("batch", ["batch", 4])
def test_attention_with_the_steps_first(batch: int | str, tmp_path: Path) -> None:
    """As a module of PyTorch is exported: heads joined with samples, and one row a step and sample at the end."""
    g = Graph()
    turned = g.op("Transpose", g.op("LayerNormalization", "x", g.weight(32), g.weight(32)), perm=[1, 0, 2])
    qkv = g.op("Reshape", g.op("Add", g.op("MatMul", turned, g.weight(32, 96)), g.weight(96)), g.values([7, -1, 3, 32]))
    three = g.op("Transpose", g.op("Unsqueeze", qkv, g.values([0])), perm=[3, 1, 2, 0, 4])
    parts = [g.op("Gather", g.op("Squeeze", three, g.values([3])), g.values(place), axis=0) for place in range(3)]
    turns = [g.op("Transpose", g.op("Reshape", part, g.values([7, -1, 8])), perm=[1, 0, 2]) for part in parts]
    q, k, v = (g.op("Reshape", turn, g.values([-1, 4, 7, 8])) for turn in turns)
    q, k = (g.op("Mul", one, g.number(8**-0.25)) for one in (q, k))
    shares = g.op("Softmax", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2])))
    rows = g.op("Reshape", g.op("Transpose", g.op("MatMul", shares, v), perm=[2, 0, 1, 3]), g.values([-1, 32]))
    rows = g.op("Gemm", rows, g.weight(32, 32), g.weight(32), transB=1)
    x = g.op("Transpose", g.op("Reshape", rows, g.values([7, -1, 32])), perm=[1, 0, 2])
    net = imported(g, g.op("Add", x, "x"), tmp_path, batch, 7, 32)
    assert net.layers == layers_of(residual({"kind": "layer_norm"}, {"kind": "attention", "heads": 4}))


def test_a_mask_or_other_steps_are_no_attention(tmp_path: Path) -> None:
    g = Exporter()
    x = g.attention("x", layers_of({"kind": "attention", "heads": 4})[0], (7, 32))  # type: ignore[arg-type]
    path = g.save(tmp_path / "net.onnx", x, ("n", 7, 32))
    assert lpm.import_onnx(path).layers == layers_of({"kind": "attention", "heads": 4})
    place = next(place for place, node in enumerate(g.nodes) if node.op_type == "Softmax")
    mask = helper.make_node("Add", [g.nodes[place].input[0], g.values(np.zeros((7, 7)), np.float32)], ["masked"])
    g.nodes.insert(place, mask)
    g.nodes[place + 1].input[0] = "masked"
    with pytest.raises(lpm.SpecError, match=r"node masked \(Add of 1 x 4 x 7 x 7\): attention is a layer without"):
        lpm.import_onnx(g.save(path, x, ("n", 7, 32)))


@pytest.mark.parametrize("square", ["Pow", "Mul"])
def test_a_layer_norm_in_single_operators(square: str, tmp_path: Path) -> None:
    g = Graph(opset=13)
    centred = g.op("Sub", "x", g.op("ReduceMean", "x", axes=[-1]))
    squared = g.op("Pow", centred, g.number(2.0)) if square == "Pow" else g.op("Mul", centred, centred)
    spread = g.op("Sqrt", g.op("Add", g.op("ReduceMean", squared, axes=[-1]), g.number(1e-5)))
    x = g.op("Add", g.op("Mul", g.op("Div", centred, spread), g.weight(32)), g.weight(32))
    assert imported(g, x, tmp_path, "batch", 7, 32).layers == layers_of({"kind": "layer_norm"})


def test_a_layer_norm_of_the_channels_of_each_place(tmp_path: Path) -> None:
    g = Graph()
    x = g.op("Transpose", "x", perm=[0, 2, 3, 1])
    x = g.op("LayerNormalization", x, g.weight(8), g.weight(8))
    x = g.op("Relu", g.op("MatMul", x, g.weight(8, 16)))
    x = filters(g, g.op("Transpose", x, perm=[0, 3, 1, 2]), 2, 16)
    wanted = layers_of({"kind": "layer_norm"}, conv(16, 1, activation="relu"), conv(2, 1))
    assert imported(g, x, tmp_path).layers == wanted


def _recurrent(g: Graph, x: str, d_in: int, hidden: int, kind: str = "LSTM", ways: int = 1) -> str:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * hidden
    weights = [g.weight(ways, gates, d_in), g.weight(ways, gates, hidden), g.weight(ways, 2 * gates)]
    return g.op(kind, x, *weights, outputs=2, hidden_size=hidden, direction="bidirectional" if ways == 2 else "forward")


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_with_the_samples_second(kind: str, tmp_path: Path) -> None:
    """Steps first; two layers of one size are a stack; the last output is the first tensor of its own."""
    g = Graph()
    x = _recurrent(g, "x", 12, 20, kind)
    x = g.op("Squeeze", x, g.values([1]))
    _recurrent(g, x, 20, 20, kind)
    last = g.op("Squeeze", g.nodes[-1].output[1], g.values([0]))
    x = g.op("Gemm", last, g.weight(3, 20), g.weight(3), transB=1)
    net = imported(g, x, tmp_path, 9, "batch", 12)
    assert net.input == (9, 12)
    stack = {"kind": kind.lower(), "hidden": 20, "layers": 2}
    assert net.layers == layers_of(stack, {"kind": "last"}, linear(3))


def test_a_recurrent_layer_of_both_directions(tmp_path: Path) -> None:
    g = Graph()
    x = _recurrent(g, g.op("Transpose", "x", perm=[1, 0, 2]), 12, 10, ways=2)
    x = g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3]), g.values([0, 0, -1]))
    x = g.op("Squeeze", g.op("Slice", x, g.values([-1]), g.values([2**31]), g.values([0])), g.values([0]))
    net = imported(g, x, tmp_path, "batch", 9, 12)
    assert net.input == (9, 12)
    assert net.layers == layers_of({"kind": "lstm", "hidden": 10, "bidirectional": True}, {"kind": "last"})


def test_the_mean_of_steps(tmp_path: Path) -> None:
    g = Graph()
    x = g.op("ReduceMean", g.op("MatMul", "x", g.weight(12, 5)), g.values([1]), keepdims=0)
    net = imported(g, x, tmp_path, "batch", 9, 12)
    assert net.layers == layers_of(linear(5, bias=False), {"kind": "global_pool"})
    assert shape_after(net.layers, net.input) == (5,)


def test_a_product_over_steps_is_refused(tmp_path: Path) -> None:
    g = Graph()
    x = g.op("MatMul", g.op("Transpose", g.op("Relu", "x"), perm=[0, 2, 1]), g.weight(9, 5))
    path = g.save(tmp_path / "net.onnx", x, ("n", 9, 12))
    with pytest.raises(lpm.SpecError, match="is a product over an axis that holds neither features nor channels"):
        lpm.import_onnx(path)


def test_a_table_of_words_is_refused(tmp_path: Path) -> None:
    g = Graph()
    path = g.save(tmp_path / "net.onnx", g.op("Gather", g.weight(100, 32), g.op("Cast", "x", to=7)), ("n", 9))
    with pytest.raises(lpm.SpecError, match=r"\(Gather of 1 x 9\): looks up rows of a table: embeddings are no layer"):
        lpm.import_onnx(path)


@pytest.mark.parametrize(
    ("kind", "weights", "options", "part"),
    [
        ("ConvTranspose", [(8, 4, 2, 2)], {"strides": [2, 2]}, r"\(ConvTranspose of 1 x 8 x 6 x 6\): is no layer that"),
        ("ReduceMean", [], {}, "a mean is a layer over all places of a map, or all steps of a sequence"),
        ("LayerNormalization", [(8, 6, 6)], {"axis": 1}, "normalises other axes than features, or channels of each"),
        ("MaxPool", [], {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilated pools are no layer"),
        ("Softmax", [], {"axis": 2}, "is over an axis that holds neither features nor channels"),
        ("Split", [], {"num_outputs": 2}, r"is no layer that is known; supported operators: Add, Attention"),
    ],
)
def test_what_no_layer_stands_for_is_named(
    kind: str, weights: list[Shape], options: Data, part: str, tmp_path: Path
) -> None:
    g = Graph()
    made = g.op(kind, "x", *(g.weight(*shape) for shape in weights), outputs=1 + (kind == "Split"), **options)
    path = g.save(tmp_path / "net.onnx", made, ("n", 8, 6, 6))
    with pytest.raises(lpm.SpecError, match=part) as caught:
        lpm.import_onnx(path)
    assert len(str(caught.value).splitlines()) == 1


# Files.


def _plain(path: Path, **options: Any) -> Path:
    g = Graph()
    return g.save(path / "My Net_2.onnx", filters(g, "x", 4, 8), ("n", 8, 6, 6), **options)


def test_names_come_from_the_file_unless_given(tmp_path: Path) -> None:
    path = _plain(tmp_path)
    assert (lpm.import_onnx(path).name, lpm.import_onnx(path).title) == ("my-net-2", "My Net_2")
    assert lpm.import_onnx(path, name="mine").name == "mine"
    with pytest.raises(lpm.SpecError, match=r"My Net_2.onnx: name: .*\[a-z0-9\]"):
        lpm.import_onnx(path, name="Not So")


def test_every_number_of_an_imported_file_names_its_origin(tmp_path: Path) -> None:
    (origin,) = lpm.import_onnx(_plain(tmp_path)).assumed
    assert (origin.fields, origin.reason) == (("*",), "as the operators and weights of My Net_2.onnx say")


@pytest.mark.parametrize("content", [b"", b"\x00\x01nothing", b'{"name": "net"}', "cut"])
def test_a_file_that_is_no_model(content: bytes | str, tmp_path: Path) -> None:
    path = _plain(tmp_path)
    path.write_bytes(path.read_bytes()[:-40] if isinstance(content, str) else content)
    with pytest.raises(lpm.SpecError, match=r"My Net_2.onnx: (is no ONNX file, or a part of it is missing|holds no)"):
        lpm.import_onnx(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(lpm.SpecError, match=r"none.onnx: cannot be read: No such file or directory"):
        lpm.estimate(str(tmp_path / "none.onnx"))


def test_an_output_that_is_declared_otherwise(tmp_path: Path) -> None:
    with pytest.raises(lpm.SpecError, match="is declared as n x 4 x 6 x 7, but its operators make 1 x 4 x 6 x 6"):
        lpm.import_onnx(_plain(tmp_path, made=("n", 4, 6, 7)))


def test_a_graph_with_two_inputs(tmp_path: Path) -> None:
    g = Graph()
    model = g.model(g.op("Add", "x", "y"), ("n", 8))
    model.graph.input.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 8]))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(lpm.SpecError, match="a network of layers takes one input, but the graph has 2: x, y"):
        lpm.import_onnx(path)


def test_the_package_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _plain(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(lpm.RequestError, match=r"needs the package onnx: pip install 'llm-perf-model\[onnx\]'"):
        lpm.import_onnx(path)


# Commands.


def test_the_command_writes_a_network_file(run: Run, tmp_path: Path) -> None:
    path, written = Exporter().network(load(lpm.NetworkSpec, "resnet18"), tmp_path / "net.onnx"), tmp_path / "net.json"
    ran = run("import_onnx", str(path), "--name", "mine", "--output", str(written))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("mine: samples of 3 x 224 x 224, 11,689,512 parameters\n")
    assert f"written: {written}" in ran.out
    assert load(lpm.NetworkSpec, str(written)) == lpm.import_onnx(path, "mine")
    assert json.loads(run("import_onnx", str(path), "--format", "json").out)["layers"][0]["channels"] == 64
    assert json.loads(written.read_text())["parameters"] == 11_689_512


def test_commands_take_the_file_in_place_of_a_name(run: Run, tmp_path: Path) -> None:
    path = str(Exporter().network(load(lpm.NetworkSpec, "resnet18"), tmp_path / "net.onnx"))
    by_path, by_name = (json.loads(run("infer", name, "--format", "json").out) for name in (path, "resnet18"))
    assert by_path["total_s"] == pytest.approx(by_name["total_s"], rel=1e-12)
    assert run("memory", path).code == run("show", path).code == 0
    assert "takes samples of" not in run("infer", path, "--input_shape", "3,64,64").err


def test_the_command_refuses_in_one_line(run: Run, tmp_path: Path) -> None:
    for arguments, part in (
        ([], "path: is missing; give an ONNX file"),
        ([str(FILES / "light_bvlc_alexnet.onnx")], "(LRN of 1 x 96 x 54 x 54): is no layer that is known; supported"),
        ([str(_plain(tmp_path)), "--input_shape", "big"], "must be one to three whole numbers"),
    ):
        ran = run("import_onnx", *arguments)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (1, "", 1)
        assert part in ran.err
