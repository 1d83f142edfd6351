"""Networks of explicit layers: shapes, files, nodes, estimates, memory and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

import llm_perf_model as lpm
from llm_perf_model.graph.stack import parameters
from llm_perf_model.layers import build_network
from llm_perf_model.ops.attention import FusedAttention, MaterialisedAttention
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.convolution import Convolution
from llm_perf_model.ops.dense import Linear
from llm_perf_model.ops.elementwise import Elementwise
from llm_perf_model.ops.node import Graph, Node
from llm_perf_model.ops.recurrence import Recurrence
from llm_perf_model.roofline import walk
from llm_perf_model.specs.catalog import folder_of, load, names, parse
from llm_perf_model.specs.layer import Layer, Repeat, Residual, Shape, shape_after, text_of

from .strategies import DRAWN

Data = dict[str, Any]

LAYERS: TypeAdapter[tuple[Layer, ...]] = TypeAdapter(tuple[Layer, ...])
NAMES = names(lpm.NetworkSpec)
EVERY_NETWORK = pytest.mark.parametrize("name", NAMES)
ENGINES = ("hf-eager", "fastertransformer", "ideal")
EVERY_ENGINE = pytest.mark.parametrize("engine", ENGINES)
W16A16 = load(lpm.PrecisionSpec, "w16a16")


def layers_of(*data: Data) -> tuple[Layer, ...]:
    return LAYERS.validate_json(json.dumps(data))


def network(layers: tuple[Layer, ...], shape: Shape) -> lpm.NetworkSpec:
    return lpm.NetworkSpec(name="drawn", title="Drawn", input=shape, layers=layers, parameters=1.0, assumed=DRAWN)


def graph_of(layers: tuple[Layer, ...], shape: Shape, fused: bool = False) -> Graph:
    engine = load(lpm.EngineSpec, "ideal").model_copy(update={"fused": frozenset({"activation"} if fused else ())})
    return build_network(network(layers, shape), engine, W16A16, shape)


def conv(channels: int, kernel: int, **options: Any) -> Data:
    return {"kind": "conv", "channels": channels, "kernel": kernel} | options


def pool(kernel: int, stride: int, padding: int = 0, kind: str = "max_pool") -> Data:
    return {"kind": kind, "kernel": kernel, "stride": stride, "padding": padding}


def linear(features: int, **options: Any) -> Data:
    return {"kind": "linear", "features": features} | options


def residual(*body: Data, **options: Any) -> Data:
    return {"kind": "residual", "body": list(body)} | options


def parallel(join: str, *branches: list[Data], **options: Any) -> Data:
    return {"kind": "parallel", "join": join, "branches": list(branches)} | options


# Shapes.

SHAPES = [
    (conv(64, 7, stride=2, padding=3), (3, 224, 224), (64, 112, 112)),  # (224 + 6 - 7) // 2 + 1
    (conv(8, 3), (4, 10, 7), (8, 8, 5)),
    (conv(8, 3, padding=1), (4, 10, 7), (8, 10, 7)),
    (conv(8, 3, stride=2), (4, 10, 7), (8, 4, 3)),  # the last column stays unread: (10 - 3) // 2 + 1
    (conv(8, 3, dilation=2), (4, 10, 7), (8, 6, 3)),  # a window of 3 reaches over 5 values
    (conv(8, 3, dilation=2, padding=2), (4, 10, 7), (8, 10, 7)),
    (conv(8, 3, dilation=3, padding=1, stride=2), (4, 10, 7), (8, 3, 2)),  # (10 + 2 - 7) // 2 + 1
    (conv(8, 3, groups=4), (4, 10, 7), (8, 8, 5)),
    (conv(8, 7), (4, 7, 7), (8, 1, 1)),
    (pool(3, 2, 1), (64, 112, 112), (64, 56, 56)),  # (112 + 2 - 3) // 2 + 1
    (pool(2, 2), (6, 9, 8), (6, 4, 4)),
    (pool(2, 1, kind="average_pool"), (6, 9, 8), (6, 8, 7)),
    ({"kind": "global_pool"}, (6, 9, 8), (6,)),
    ({"kind": "global_pool"}, (6, 9), (9,)),
    ({"kind": "flatten"}, (6, 9, 8), (432,)),
    ({"kind": "flatten"}, (6, 9), (54,)),
    ({"kind": "rows"}, (3, 224, 224), (3, 50176)),
    ({"kind": "rows"}, (3, 7), (3, 7)),
    ({"kind": "places"}, (3, 224, 224), (50176, 3)),
    ({"kind": "softmax"}, (3, 7), (3, 7)),
    ({"kind": "pointwise", "norm": True}, (6, 9, 8), (6, 9, 8)),
    (conv(8, 3, padding=[0, 1, 1, 2]), (4, 10, 7), (8, 9, 8)),  # 10 + 0 + 1 - 3 + 1, 7 + 1 + 2 - 3 + 1
    (pool(3, 2) | {"padding": [0, 0, 1, 1]}, (4, 10, 8), (4, 5, 4)),  # (10 + 1 - 3) // 2 + 1, (8 + 1 - 3) // 2 + 1
    (linear(10), (432,), (10,)),
    (linear(10), (3, 432), (3, 10)),
    (conv(8, [1, 7], padding=[0, 3]), (4, 10, 7), (8, 10, 7)),
    (conv(8, [3, 2], stride=[2, 1], dilation=[1, 3]), (4, 10, 7), (8, 4, 4)),  # (10 - 3) // 2 + 1, 7 - 4 + 1
    (pool([2, 1], [2, 3], [1, 0]), (6, 9, 8), (6, 5, 3)),  # (9 + 2 - 2) // 2 + 1, (8 - 1) // 3 + 1
    ({"kind": "patch_embedding", "features": 5, "patch": 4}, (3, 12, 8), (6, 5)),
    ({"kind": "patch_embedding", "features": 5, "patch": [3, 8], "class_token": True}, (3, 12, 8), (5, 5)),
    ({"kind": "first"}, (3, 7), (7,)),
    ({"kind": "last"}, (3, 7), (7,)),
    ({"kind": "layer_norm"}, (3, 7), (3, 7)),
    ({"kind": "layer_norm"}, (3, 7, 5), (3, 7, 5)),
    ({"kind": "attention", "heads": 4}, (3, 8), (3, 8)),
    ({"kind": "attention", "heads": 4, "window": 2, "relative_positions": "table"}, (12, 8), (12, 8)),
    ({"kind": "join_steps", "steps": 4}, (12, 8), (3, 32)),
    ({"kind": "lstm", "hidden": 5, "layers": 4}, (3, 7), (3, 5)),
    ({"kind": "lstm", "hidden": 5, "bidirectional": True}, (3, 7), (3, 10)),
    ({"kind": "gru", "hidden": 5}, (3, 7), (3, 5)),
    ({"kind": "rnn", "hidden": 5}, (3, 7), (3, 5)),
    ({"kind": "squeeze_excite", "channels": 2}, (6, 9, 8), (6, 9, 8)),
    (residual(conv(4, 3, padding=1)), (4, 9, 8), (4, 9, 8)),
    (residual(conv(6, 3, padding=1, stride=2), shortcut=[conv(6, 1, stride=2)]), (4, 9, 8), (6, 5, 4)),
    ({"kind": "repeat", "count": 3, "body": [conv(4, 3, padding=1)]}, (4, 9, 8), (4, 9, 8)),
    (parallel("concat", [], [conv(2, 1)], [conv(3, 1)]), (4, 9, 8), (9, 9, 8)),
    (parallel("concat", [], [linear(2)]), (9, 8), (9, 10)),
    (parallel("multiply", [conv(4, 1)], []), (4, 9, 8), (4, 9, 8)),
    (parallel("multiply", [{"kind": "global_pool"}], []), (4, 9, 8), (4, 9, 8)),
]


@pytest.mark.parametrize(("layer", "given_", "made"), SHAPES, ids=[f"{x['kind']}-{text_of(y)}" for x, y, _ in SHAPES])
def test_shapes_by_hand(layer: Data, given_: Shape, made: Shape) -> None:
    assert shape_after(layers_of(layer), given_) == made


def _kinds(layers: tuple[Layer, ...]) -> Iterator[str]:
    for layer in layers:
        yield layer.kind
        if isinstance(layer, Residual | Repeat):
            yield from _kinds(layer.body)
        if isinstance(layer, Residual):
            yield from _kinds(layer.shortcut)


def test_every_kind_of_layer_has_a_shape_by_hand() -> None:
    mapping = LAYERS.json_schema()["items"]["discriminator"]["mapping"]
    assert {layer["kind"] for layer, _, _ in SHAPES} == set(mapping)
    used = {kind for name in NAMES for kind in _kinds(load(lpm.NetworkSpec, name).layers)}
    written_by_hand = {"average_pool", "gru", "rnn"}
    assert set(mapping) - used == written_by_hand | {"parallel", "places", "pointwise", "softmax"}


def test_layers_follow_each_other() -> None:
    given_ = layers_of(conv(8, 3), pool(2, 2), {"kind": "flatten"}, linear(10))
    assert shape_after(given_, (3, 10, 10)) == (10,)
    assert shape_after(given_[:2], (3, 10, 10)) == (8, 4, 4)
    assert shape_after((), (3, 10, 10)) == (3, 10, 10)


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.integers(1, 3))
def test_a_window_slides_over_every_place_where_it_fits(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    places = [
        start for start in range(0, size + 2 * padding, stride) if start + dilation * (kernel - 1) < size + 2 * padding
    ]
    layer = layers_of(conv(2, kernel, stride=stride, padding=padding, dilation=dilation))
    if places:
        assert shape_after(layer, (1, size, size)) == (2, len(places), len(places))
    else:
        with pytest.raises(ValueError, match=rf"does not fit into {size} values padded by {padding}$"):
            shape_after(layer, (1, size, size))


UNFIT = [
    ([conv(8, 3), conv(8, 9)], "layer 1 (conv): a window of 9 does not fit into 8 values padded by 0"),
    ([conv(8, 3, dilation=5)], "layer 0 (conv): a window of 11 does not fit into 10 values padded by 0"),
    ([conv(8, 3, groups=3)], "layer 0 (conv): 4 to 8 channels do not split into 3 groups"),
    ([conv(6, 3, groups=4)], "layer 0 (conv): 4 to 6 channels do not split into 4 groups"),
    ([pool(12, 2)], "layer 0 (max_pool): a window of 12 does not fit into 10 values padded by 0"),
    (
        [linear(7)],
        "layer 0 (linear): linear takes rows of features, but its input is 4 x 10 x 10: flatten it first",
    ),
    ([{"kind": "lstm", "hidden": 2}], "layer 0 (lstm): lstm takes steps and features, but its input is 4 x 10 x 10"),
    (
        [{"kind": "flatten"}, conv(8, 3)],
        "layer 1 (conv): conv takes channels, height and width, but its input is 400",
    ),
    (
        [{"kind": "flatten"}, {"kind": "global_pool"}],
        "layer 1 (global_pool): global_pool takes channels, height and width, but its input is 400",
    ),
    (
        [{"kind": "rows"}, pool(2, 2, kind="average_pool")],
        "layer 1 (average_pool): average_pool takes channels, height and width, but its input is 4 x 100",
    ),
    (
        [{"kind": "flatten"}, {"kind": "squeeze_excite", "channels": 2}],
        "layer 1 (squeeze_excite): squeeze_excite takes channels, height and width, but its input is 400",
    ),
    ([{"kind": "pointwise"}], "layer 0 (pointwise): pointwise needs a norm or an activation"),
    (
        [parallel("concat", [], [conv(4, 3)])],
        "layer 0 (parallel): the branches make 4 x 10 x 10 and 4 x 8 x 8, which do not concat",
    ),
    (
        [parallel("multiply", [], [{"kind": "global_pool"}, linear(3)])],
        "layer 0 (parallel): the branches make 4 x 10 x 10 and 3, which do not multiply",
    ),
    (
        [conv(8, 30, padding=[1, 2, 3, 4])],
        "layer 0 (conv): a window of 30 does not fit into 10 values padded by 1 and 3",
    ),
    ([{"kind": "gru", "hidden": 2}], "layer 0 (gru): gru takes steps and features, but its input is 4 x 10 x 10"),
    (
        [conv(8, [3, 1]), conv(8, [1, 11])],
        "layer 1 (conv): a window of 11 does not fit into 10 values padded by 0",
    ),
    (
        [{"kind": "attention", "heads": 2}],
        "layer 0 (attention): attention takes steps and features, but its input is 4 x 10 x 10",
    ),
    (
        [{"kind": "rows"}, {"kind": "attention", "heads": 3}],
        "layer 1 (attention): 100 features do not split into 3 heads",
    ),
    (
        [{"kind": "rows"}, {"kind": "attention", "heads": 4, "window": 3}],
        "layer 1 (attention): 4 steps do not split into windows of 3 x 3",
    ),
    ([{"kind": "rows"}, {"kind": "join_steps", "steps": 3}], "layer 1 (join_steps): 4 steps do not join by 3"),
    (
        [{"kind": "flatten"}, {"kind": "last"}],
        "layer 1 (last): last takes steps and features, but its input is 400",
    ),
    (
        [{"kind": "patch_embedding", "features": 8, "patch": [5, 4]}],
        "layer 0 (patch_embedding): 10 x 10 values do not split into patches of 5 x 4",
    ),
    (
        [conv(4, 1), {"kind": "repeat", "count": 2, "body": [conv(4, 3)]}],
        "layer 1 (repeat): what is repeated must keep its shape, but it makes 4 x 8 x 8 of 4 x 10 x 10",
    ),
    (
        [{"kind": "repeat", "count": 2, "body": [conv(4, 1), residual(conv(4, 11))]}],
        "layer 0 (repeat): layer 1 (residual): layer 0 (conv): a window of 11 does not fit into 10 values padded by 0",
    ),
    ([residual(conv(4, 3))], "layer 0 (residual): the body makes 4 x 8 x 8 and the shortcut 4 x 10 x 10"),
    (
        [conv(4, 1), residual(conv(4, 1), linear(3))],
        "layer 1 (residual): layer 1 (linear): linear takes rows of features, but its input is 4 x 10 x 10: "
        "flatten it first",
    ),
]


@pytest.mark.parametrize(("layers", "message"), UNFIT, ids=[message.split(":")[0] for _, message in UNFIT])
def test_a_layer_that_does_not_take_the_shape_is_named(layers: list[Data], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        shape_after(layers_of(*layers), (4, 10, 10))
    assert str(caught.value) == message
    data = {"name": "drawn", "title": "Drawn", "input": [4, 10, 10], "layers": layers, "parameters": 1}
    data["assumed"] = [{"fields": ["*"], "reason": "made up for a test"}]
    with pytest.raises(lpm.SpecError) as refused:
        parse(lpm.NetworkSpec, json.dumps(data).encode(), "some/file.json")
    assert str(refused.value) == f"some/file.json: 1 problem in this network file\n  layers: {message}"


@pytest.mark.parametrize(
    "layer",
    [
        conv(0, 3), conv(8, 0), conv(8, 3, stride=0), conv(8, 3, padding=-1), conv(8, 3, dilation=0),
        conv(8, 3, groups=0), conv(8, 3, activation="softmax"), conv(8, 3, strides=2), pool(2, 0), linear(0),
        residual(), {"kind": "lstm", "hidden": 0}, {"kind": "lstm", "hidden": 4, "layers": 0}, {"kind": "upsample"},
        {"kind": "squeeze_excite", "channels": 0}, {"kind": "flatten", "axis": 1}, {"kind": "gru", "hidden": 0},
        {"kind": "squeeze_excite", "channels": 4, "gate": "softmax"}, {"kind": "attention", "heads": 0},
        {"kind": "attention", "heads": 2, "window": 0}, {"kind": "join_steps", "steps": 0},
        {"kind": "attention", "heads": 2, "relative_positions": "table"},
        {"kind": "repeat", "count": 0, "body": [conv(8, 3)]}, {"kind": "repeat", "count": 2, "body": []},
        conv(8, [3]), conv(8, [3, 3, 3]), conv(8, [3, 0]), conv(8, "3"), conv(8, 3, padding=[0, -1]), pool([2, 0], 1),
        {"kind": "patch_embedding", "features": 8, "patch": 0}, {"kind": "lstm", "hidden": 4, "bidirectional": 1},
    ],
    ids=str,
)  # fmt: skip
def test_values_of_a_layer_are_checked(layer: Data) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        layers_of(layer)


# The files.


def _transformer(blocks: int, width: int, side: int = 14) -> int:
    """Multiply-adds of an image of side x side patches of 3 x 16 x 16 values, with a class token."""
    steps = side**2 + 1
    return side**2 * 768 * width + blocks * (12 * steps * width**2 + 2 * steps**2 * width) + 1000 * width


def _windowed(width: int, depths: tuple[int, ...], side: int, window: int) -> int:
    """Multiply-adds of stages that see windows, each with half the side and twice the width of the one before."""
    adds = side**2 * 48 * width + 1000 * width * 8
    for stage, blocks in enumerate(depths):
        steps, features = (side >> stage) ** 2, width << stage
        adds += blocks * steps * (12 * features**2 + 2 * window**2 * features)
        adds += steps // 4 * 8 * features**2 if stage < len(depths) - 1 else 0
    return adds


PUBLISHED = {
    "resnet101": (44_549_160, 7.801e9),
    "resnext101-32x4d": (44_177_704, 8.003e9),
    "se-resnext101-32x4d": (48_955_416, 8.013e9),
    "mobilenet-v2": (3_504_872, 0.301e9),
    "efficientnet-b0": (5_288_548, 0.386e9),
    "efficientnet-b4": (19_341_616, 4.394e9),
    "efficientnet-widese-b0": (8_423_848, 388_948_192),
    "efficientnet-widese-b4": (34_927_246, 4_409_350_864),
    "vgg16": (138_357_544, 15.470e9),
    "vit-b-16": (86_567_656, _transformer(12, 768)),
    "vit-l-16": (304_326_632, _transformer(24, 1024)),
    "vit-b-16-384": (86_859_496, _transformer(12, 768, side=24)),
    "vit-l-16-384": (304_715_752, _transformer(24, 1024, side=24)),
    "swin-tiny": (28_288_354, 4.491e9),
    "swin-small": (49_606_258, 8.741e9),
    "swin-base": (87_768_224, 15.431e9),
    "swin-large": (196_532_476, _windowed(192, (2, 2, 18, 2), side=56, window=7)),
    "swin-v2-tiny": (28_351_570, _windowed(96, (2, 2, 6, 2), side=64, window=8)),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet50": (25_557_032, 4_089_184_256),
    "mobilenet-v3-large": (5_483_032, 0.217e9),
    "custom-cnn": (153_377, 21_780_000 + 20_224_800 + 17_287_200 + 240_000 + 142_080),
    "custom-fcn": (34_044_296, 150_528 * 224 + 2 * 224 * 224 + 224 * 1000),
    "custom-lstm": (28_211_400, 3 * 400 * (50_176 + 100) + 99 * 3 * 400 * 200 + 100 * 1000),
}
"""Weights, and multiply-adds of a sample: printed ones, or those of the products of a transformer; of four convolutions
and three dense layers; of dense layers alone; of an EfficientNet with
a wider squeeze; of three steps of the first of 100 layers, of the others and of the last
product."""


PRODUCTS = (Convolution, Linear, Recurrence, FusedAttention, MaterialisedAttention)


def _multiply_adds(graph: Graph) -> float:
    one = Batch.uniform(1.0, 1.0, 0.0)
    products = [node for node in graph if isinstance(node.op, PRODUCTS)]
    return float(sum(node.count * np.asarray(node.cost(one).flops) for node in products)) / 2.0


@cache
def _graph(name: str) -> Graph:
    return lpm.estimate(name).case.graph


def test_every_file_is_held_against_published_counts() -> None:
    assert set(PUBLISHED) == set(NAMES) == set(lpm.networks())


@EVERY_NETWORK
def test_parameters_are_the_published_ones(name: str) -> None:
    assert parameters(_graph(name)) == load(lpm.NetworkSpec, name).parameters == PUBLISHED[name][0]


@EVERY_NETWORK
def test_multiply_adds_are_the_published_ones(name: str) -> None:
    found, stated = _multiply_adds(_graph(name)), load(lpm.NetworkSpec, name).multiply_adds
    assert found == pytest.approx(PUBLISHED[name][1], rel=5e-3 if "resnext" in name else 2e-3)  # with norms and pools
    assert stated is None or found == pytest.approx(stated, rel=0.01)


@pytest.mark.parametrize("name", [name for name, (_, work) in PUBLISHED.items() if isinstance(work, int)])
def test_multiply_adds_are_exact_where_they_are_known(name: str) -> None:
    assert _multiply_adds(_graph(name)) == PUBLISHED[name][1]


@pytest.mark.parametrize("name", [name for name, (_, work) in PUBLISHED.items() if isinstance(work, float)])
def test_multiply_adds_round_to_the_printed_ones(name: str) -> None:
    """Those of the other source count norms and pools too."""
    digits = 1 if "resnext" in name else 3
    assert round(_multiply_adds(_graph(name)) / 1e9, digits) == round(PUBLISHED[name][1] / 1e9, digits)


@EVERY_NETWORK
def test_every_file_classifies_a_thousand_kinds_of_images(name: str) -> None:
    spec = load(lpm.NetworkSpec, name)
    side = {"b4": 380, "384": 384, "swin-v2-tiny": 256}
    assert spec.input == (3, *[next((side[end] for end in side if name.endswith(end)), 224)] * 2)
    assert shape_after(spec.layers, spec.input) == (1000,)


@EVERY_NETWORK
def test_weights_take_the_bytes_of_their_width(name: str) -> None:
    for precision, width in (("w16a16", 2), ("fp32", 4)):
        assert lpm.estimate(name, precision=precision).memory.weights_bytes == width * PUBLISHED[name][0]


# Nodes.

SMALL = layers_of(
    conv(4, 3, stride=2, padding=1, bias=True, norm=True, activation="relu"),
    residual(conv(4, 3, padding=1), activation="relu"),
    pool(2, 2),
    {"kind": "global_pool"},
    linear(5, activation="tanh"),
)
"""From 3 x 8 x 8 to 4 x 4 x 4, 4 x 2 x 2, 4 and 5 values."""

B = 2.0
FIRST = Convolution(3.0, 4.0, 9.0, 16.0, 192.0, 1.0, B, B, extra=3 * 4.0, position_rows=4.0)
SECOND = Convolution(4.0, 4.0, 9.0, 16.0, 64.0, 1.0, B, B, position_rows=4.0, winograd=True)
BY_HAND = (
    Node("0.conv", "convolution", FIRST),
    Node("0.norm", "pass", Elementwise(64.0, 2.0, B)),
    Node("0.relu", "pass", Elementwise(64.0, 2.0, B)),
    Node("1.body.0.conv", "convolution", SECOND),
    Node("1.sum", "pass", Elementwise(64.0, 3.0, B)),
    Node("1.relu", "pass", Elementwise(64.0, 2.0, B)),
    Node("2.max_pool", "pool", Elementwise(16.0, 1.0 + 64 / 16, B)),
    Node("3.global_pool", "pool", Elementwise(4.0, 1.0 + 16 / 4, B)),
    Node("4.linear", "dense", Linear(4.0, 5.0, B, B, bias=True)),
    Node("4.tanh", "pass", Elementwise(5.0, 2.0, B)),
)


def test_nodes_of_a_small_network_by_hand() -> None:
    assert graph_of(SMALL, (3, 8, 8)) == BY_HAND
    assert parameters(BY_HAND) == (3 * 4 * 9 + 12) + 4 * 4 * 9 + (4 * 5 + 5)


def test_fusion_drops_the_passes_and_nothing_else() -> None:
    fused = graph_of(SMALL, (3, 8, 8), fused=True)
    assert fused == tuple(node for node in BY_HAND if node.role != "pass")
    assert parameters(fused) == parameters(BY_HAND)


@EVERY_NETWORK
def test_fusion_saves_passes_of_every_network(name: str) -> None:
    eager, fused = (lpm.estimate(name, engine=engine) for engine in ("hf-eager", "fastertransformer"))
    assert len(fused.case.graph) <= len(eager.case.graph)
    assert _multiply_adds(fused.case.graph) == _multiply_adds(eager.case.graph)
    if name != "custom-lstm":
        assert fused.prefill.hbm_bytes < eager.prefill.hbm_bytes


def test_a_pool_reads_all_values_and_writes_fewer() -> None:
    (node,) = graph_of(layers_of(pool(2, 2, kind="average_pool")), (6, 9, 8))
    assert (node.name, node.role) == ("0.average_pool", "pool")
    assert node.op.cost(Batch.uniform(3.0, 1.0, 0.0)).hbm_bytes == 3 * (6 * 9 * 8 + 6 * 4 * 4) * B


def test_reshaping_costs_nothing() -> None:
    assert graph_of(layers_of({"kind": "flatten"}), (6, 9, 8)) == ()
    assert graph_of(layers_of({"kind": "rows"}), (6, 9, 8)) == ()


def test_a_residual_keeps_what_it_adds_beside_what_runs_in_it() -> None:
    """64 values in, 128 after the first layer and after all: the first layer of a body reads what is kept."""
    inner = residual(conv(16, 1), conv(8, 1), activation="relu")
    graph = graph_of(layers_of(residual(conv(8, 1), inner, shortcut=[conv(8, 1)])), (4, 4, 4))
    assert {node.name: node.beside_bytes / B for node in graph} == {
        "0.body.0.conv": 0.0,
        "0.body.1.body.0.conv": 64.0,
        "0.body.1.body.1.conv": 64.0 + 128.0,
        "0.body.1.sum": 64.0,
        "0.body.1.relu": 64.0,
        "0.shortcut.0.conv": 128.0,
        "0.sum": 0.0,
    }
    assert {node.name: node.live.token_bytes for node in graph}["0.body.1.body.1.conv"] == (256 + 128 + 64 + 128) * B


def test_squeeze_excite_by_hand() -> None:
    graph = graph_of(layers_of({"kind": "squeeze_excite", "channels": 2}), (4, 3, 3))
    assert graph == (
        Node("0.squeeze", "pool", Elementwise(4.0, 1.0 + 36 / 4, B)),
        Node("0.squeeze.down", "dense", Linear(4.0, 2.0, B, B, bias=True)),
        Node("0.squeeze.relu", "pass", Elementwise(2.0, 2.0, B)),
        Node("0.excite.up", "dense", Linear(2.0, 4.0, B, B, bias=True)),
        Node("0.excite.hard_sigmoid", "pass", Elementwise(4.0, 2.0, B)),
        Node("0.scale", "pass", Elementwise(36.0, 2.0, B)),
    )
    assert parameters(graph) == 4 * 2 + 2 + 2 * 4 + 4


def test_a_filter_for_each_channel_costs_bytes() -> None:
    """18 FLOPs for each 2 values of 2 bytes: below the balance of any device."""
    (node,) = graph_of(layers_of(conv(64, 3, padding=1, groups=64)), (64, 28, 28))
    assert node.kind == "elementwise"
    machine = lpm.estimate("resnet18").case.machine
    run = lpm.estimate("resnet18", batch_size=16).prefill.runs[0]
    (work,) = walk((node,), machine, run)
    moved_bytes = 16 * 2 * 64 * 28 * 28 * B + 64 * 9 * B
    assert work.cost.hbm_bytes == moved_bytes
    assert work.timing.busy_s == moved_bytes / machine.rates["elementwise"].hbm_bytes_per_s
    assert work.timing.memory_bound_s == work.timing.busy_s


@pytest.mark.parametrize(
    ("groups", "kind"), [(1, "convolution"), (2, "convolution"), (32, "convolution"), (64, "elementwise")]
)
def test_groups_of_several_channels_are_products(groups: int, kind: str) -> None:
    (node,) = graph_of(layers_of(conv(64, 3, groups=groups)), (64, 28, 28))
    assert node.kind == kind
    (single,) = graph_of(layers_of(conv(64, 3)), (1, 28, 28))
    assert single.kind == "convolution"  # one channel is a group, but no filter stands alone


# Long short-term memories.


def test_steps_of_a_memory_by_hand() -> None:
    """6 steps of 7 features through three layers of 5 values, with two biases for each gate."""
    graph = graph_of(layers_of({"kind": "lstm", "hidden": 5, "layers": 3}), (6, 7))
    again = Recurrence(5.0, 4.0, 6.0, 7.0, B, B, extra=20.0)
    first, other = (Linear(d, 20.0, B, B, bias=True) for d in (7.0, 5.0))
    assert graph == (
        Node("0.first.inputs", "recurrent", first, calls=1.0, steps=6.0),
        Node("0.first.steps", "recurrent", again, kernels=12.0, calls=0.0),
        Node("0.others.inputs", "recurrent", other, count=2.0, calls=0.0, steps=6.0),
        Node("0.others.steps", "recurrent", again, count=2.0, kernels=12.0, calls=0.0),
    )


@given(st.integers(1, 9), st.integers(2, 9), st.booleans())
def test_steps_share_their_weights(layers: int, steps: int, bias: bool) -> None:
    given_ = layers_of({"kind": "lstm", "hidden": 5, "layers": layers, "bias": bias})
    short, long = graph_of(given_, (1, 7)), graph_of(given_, (steps, 7))
    weights = 20 * (7 + 5) + (layers - 1) * 20 * (5 + 5) + layers * bias * 2 * 20
    assert parameters(short) == parameters(long) == weights
    assert _multiply_adds(long) == steps * _multiply_adds(short)


def test_a_memory_takes_hardly_longer_for_more_samples() -> None:
    """300 dependent steps of small products: 64 samples take hardly longer than one, those of convolutions do."""
    for gpu, most in (("a100-sxm-40gb", 1.1), ("rtx-3080ti", 1.35)):
        e = lpm.estimate("custom-lstm", gpu=gpu, engine="hf-eager", batch_size=[1, 4, 16, 64, 4096])
        total_s = np.asarray(e.total_s)
        assert np.all(np.diff(total_s) > 0.0)
        assert total_s[3] < most * total_s[0]
        assert total_s[4] > 2.0 * total_s[3]
    convolutions = lpm.estimate("resnet18", gpu="rtx-3080ti", engine="hf-eager", batch_size=[1, 64])
    assert np.divide(*np.asarray(convolutions.total_s)[::-1]) > 5.0


# Laws of drawn networks.


@cache
@st.composite
def blocks(draw: st.DrawFn, deep: bool = True) -> Data:
    """A layer that takes any channels, height and width: kernels are odd and padded to keep the size."""
    kernel = draw(st.sampled_from((1, 3, 5)))
    convolution = conv(
        draw(st.sampled_from((4, 8, 16))),
        kernel,
        padding=kernel // 2,
        stride=draw(st.sampled_from((1, 1, 2))),
        bias=draw(st.booleans()),
        norm=draw(st.booleans()),
        activation=draw(st.sampled_from((None, "relu"))),
    )
    kinds = ["conv", "depthwise", "pool", "squeeze_excite", *["residual"] * deep]
    match draw(st.sampled_from(kinds)):
        case "conv":
            return convolution
        case "depthwise":
            return convolution | {"channels": 4, "groups": 4}
        case "pool":
            return pool(
                kernel, draw(st.integers(1, 3)), kernel // 2, draw(st.sampled_from(("max_pool", "average_pool")))
            )
        case "squeeze_excite":
            return {"kind": "squeeze_excite", "channels": draw(st.sampled_from((1, 4)))}
    inner = convolution | {"stride": 1, "channels": 8}
    return residual(inner, shortcut=[conv(8, 1)], activation=draw(st.sampled_from((None, "relu"))))


@cache
def stacks() -> st.SearchStrategy[tuple[Layer, ...]]:
    """Layers for 4 channels of any height and width, and a classifier."""
    end = ({"kind": "global_pool"}, linear(10))

    def stack(found: list[Data]) -> tuple[Layer, ...]:
        to_four = [layer for block in found for layer in (block, conv(4, 1))]
        return layers_of(*to_four, *end)

    return st.lists(blocks(), min_size=1, max_size=4).map(stack)


sizes = st.integers(1, 40)


@given(stacks(), sizes, sizes, sizes, sizes)
def test_parameters_do_not_depend_on_the_input_shape(
    layers: tuple[Layer, ...], height: int, width: int, other: int, third: int
) -> None:
    one, two = (graph_of(layers, (4, *size)) for size in ((height, width), (other, third)))
    assert parameters(one) == parameters(two)
    assert [node.name for node in one] == [node.name for node in two]


@given(stacks(), sizes, sizes, st.booleans())
def test_names_are_unique_and_numbered_by_layer(
    layers: tuple[Layer, ...], height: int, width: int, fused: bool
) -> None:
    found = [node.name for node in graph_of(layers, (4, height, width), fused)]
    assert len(found) == len(set(found))
    numbers = [int(name.split(".")[0]) for name in found]
    assert numbers == sorted(numbers)
    assert numbers[-1] == len(layers) - 1


def times(layers: tuple[Layer, ...], engine: str, batch_size: Any, shape: Shape) -> Any:
    e = lpm.estimate(network(layers, (4, 9, 9)), engine=engine, batch_size=batch_size, input_shape=shape)
    return e.total_s


@EVERY_ENGINE
@given(stacks(), sizes, sizes, st.integers(1, 500), st.integers(1, 500))
@settings(max_examples=20)
def test_more_samples_take_no_less(
    engine: str, layers: tuple[Layer, ...], height: int, width: int, number: int, more: int
) -> None:
    shape = (4, height, width)
    fewer, many = times(layers, engine, number, shape), times(layers, engine, number + more, shape)
    assert many >= fewer * (1.0 - 1e-12)
    batch, larger = Batch.uniform(float(number), 1.0, 0.0), Batch.uniform(float(number + more), 1.0, 0.0)
    for node in graph_of(layers, shape):
        for low, high in zip(node.cost(batch), node.cost(larger), strict=True):
            assert high >= low


@EVERY_ENGINE
@given(stacks(), sizes, sizes, st.integers(0, 20), st.integers(1, 64))
@settings(max_examples=20)
def test_a_smaller_input_is_never_slower(
    engine: str, layers: tuple[Layer, ...], height: int, width: int, more: int, number: int
) -> None:
    small, large = (times(layers, engine, number, (4, height + n, width + n)) for n in (0, more))
    assert small <= large * (1.0 + 1e-12)


@EVERY_ENGINE
@given(stacks(), st.lists(st.integers(1, 300), min_size=1, max_size=5))
@settings(max_examples=20)
def test_an_array_holds_what_scalars_give(engine: str, layers: tuple[Layer, ...], numbers: list[int]) -> None:
    together = times(layers, engine, numbers, (4, 12, 12))
    assert np.shape(together) == (len(numbers),)
    for index, number in enumerate(numbers):
        assert together[index] == times(layers, engine, number, (4, 12, 12))


# Estimates.


@EVERY_NETWORK
@EVERY_ENGINE
def test_estimates_of_many_batches(name: str, engine: str) -> None:
    batches = [1, 2, 16, 64]
    e = lpm.estimate(name, engine=engine, batch_size=batches)
    for index, batch_size in enumerate(batches):
        one = lpm.estimate(name, engine=engine, batch_size=batch_size)
        assert one.total_s == np.asarray(e.total_s)[index]
        assert one.memory.peak_bytes == np.asarray(e.memory.peak_bytes)[index]
    assert np.all(np.diff(e.total_s) > 0.0)
    assert np.all(np.asarray(e.throughput_tokens_per_s) == np.array(batches) / e.total_s)


@EVERY_NETWORK
def test_a_network_passes_once_over_its_samples(name: str) -> None:
    e = lpm.estimate(name, batch_size=8)
    assert e.total_s == e.prefill_s == e.ttft_s
    assert e.decode_s == e.decode_steps == e.memory.kv_cache_bytes == 0.0
    assert e.prefill.flops >= 8 * 2.0 * _multiply_adds(e.case.graph)
    assert 0.0 < e.prefill.flops_utilisation < 1.0
    assert float(np.asarray(e.power_w)) > 0.0
    assert json.loads(json.dumps(e.to_dict(), allow_nan=False)) == e.to_dict()


def test_replicas_multiply_the_throughput() -> None:
    one, four = (lpm.estimate("resnet18", batch_size=8, dp=dp) for dp in (1, 4))
    assert four.total_s == one.total_s
    assert four.throughput_tokens_per_s == 4.0 * one.throughput_tokens_per_s


@pytest.mark.parametrize("shape", ["3,160,160", "3x160x160", "3, 160, 160", [3, 160, 160], (3, 160, 160)])
def test_any_spelling_of_a_shape(shape: Any) -> None:
    e = lpm.estimate("resnet18", input_shape=shape)
    assert e.request.input_shape == (3, 160, 160)
    assert e.total_s < lpm.estimate("resnet18").total_s
    assert "samples of 3 x 160 x 160" in str(e)


def test_a_stated_shape_is_part_of_the_answer() -> None:
    answer = lpm.estimate("resnet18", input_shape="3x160x160").to_dict()
    assert answer["request"]["input_shape"] == [3, 160, 160]
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert lpm.estimate("resnet18").to_dict()["request"]["input_shape"] is None


@EVERY_NETWORK
def test_the_shape_of_the_file_is_the_default(name: str) -> None:
    plain, stated = lpm.estimate(name), lpm.estimate(name, input_shape=load(lpm.NetworkSpec, name).input)
    assert plain.case.graph == stated.case.graph
    assert f"samples of {text_of(load(lpm.NetworkSpec, name).input)}" in str(plain)


def test_another_shape_changes_the_work_by_its_area() -> None:
    """All of ResNet-18 but its last layer slides over the image."""
    small, large = (_multiply_adds(lpm.estimate("resnet18", input_shape=(3, n, n)).case.graph) for n in (128, 256))
    assert large - 512_000 == 4.0 * (small - 512_000)


def test_an_answer_speaks_of_samples() -> None:
    text = str(lpm.estimate("resnet18"))
    assert all(word in text for word in ("forward pass", "energy per sample", "a million samples", "samples/s"))
    assert "token" not in text
    assert "prompt" not in str(lpm.memory("resnet18"))


@pytest.mark.parametrize("precision", [name for name in lpm.precisions() if "fp8" not in name])
def test_no_network_reaches_more_than_the_peak_of_its_unit(precision: str) -> None:
    """Convolutions of 8 bits are held against the peak of 8 bits, though dense layers stay wide.

    On vector units Winograd's forms save up to three quarters of the FLOPs that are counted.
    """
    e = lpm.estimate("resnet18", gpu="rtx-3080ti", engine="tensorrt", precision=precision, batch_size=[1, 64, 1024])
    assert np.all(np.asarray(e.prefill.flops_utilisation) <= (4.0 if precision == "fp32" else 1.0))
    assert np.all(e.power_w <= e.case.gpu.tdp_w * (1.0 + 1e-12))


def test_names_and_aliases_find_networks() -> None:
    assert lpm.estimate("ResNet18").case.model is load(lpm.NetworkSpec, "resnet18")
    spec = load(lpm.NetworkSpec, "resnet18")
    assert lpm.estimate(spec).total_s == lpm.estimate("resnet-18").total_s


def test_no_network_is_called_like_a_model() -> None:
    called = [
        {word.lower() for name in names(kind) for word in (name, *load(kind, name).aliases)}
        for kind in (lpm.ModelSpec, lpm.NetworkSpec)
    ]
    assert called[0] & called[1] == set()


# Memory.


@EVERY_NETWORK
@EVERY_ENGINE
def test_the_largest_batch_fits_and_one_more_does_not(name: str, engine: str) -> None:
    found = lpm.memory(name, engine=engine, gpu="rtx-3080ti").max_batch_size
    assert found == lpm.estimate(name, engine=engine, gpu="rtx-3080ti").max_batch_size
    assert found > 200.0
    assert lpm.memory(name, engine=engine, gpu="rtx-3080ti", batch_size=found).fits
    too_many = lpm.memory(name, engine=engine, gpu="rtx-3080ti", batch_size=found + 1.0)
    assert not too_many.fits
    with pytest.raises(lpm.OutOfMemoryError, match=rf"what fits: a batch of {found:.0f}") as caught:
        too_many.estimate.require_feasible()
    assert caught.value.detail["what_fits"]["batch_size"] == found


def test_memory_is_weights_and_the_worst_layer() -> None:
    """3 x 8 x 8 samples: the first convolution holds the most, its input and its output."""
    small = network(SMALL, (3, 8, 8))
    m = lpm.memory(small, engine="ideal", batch_size=1000).memory
    assert m.weights_bytes == 2 * parameters(BY_HAND)
    assert m.live_bytes == m.activation_bytes == 1000 * (192 + 64) * B
    assert m.kv_cache_bytes == 0.0


def test_a_smaller_input_leaves_room_for_more_samples() -> None:
    small, large = (lpm.memory("resnet50", input_shape=(3, n, n)).max_batch_size for n in (112, 224))
    assert small == pytest.approx(4.0 * large, rel=0.01)


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tp": 2}, "resnet18 is a network of layers: only tp = 1 and layer_split = 1 are answered; use dp"),
        ({"layer_split": 2}, "resnet18 is a network of layers: only tp = 1 and layer_split = 1 are answered; use dp"),
        ({"num_beams": 4}, "num_beams = 4: resnet18 generates no text to search in"),
        ({"input_len": 5}, "resnet18 takes samples, not tokens: leave input_len out, or give input_shape"),
        ({"output_len": 2}, "resnet18 generates nothing: leave output_len out or give 1"),
        (
            {"input_shape": (3, 224)},
            "input_shape 3 x 224 does not suit resnet18: layer 0 (conv): conv takes channels, height and width, "
            "but its input is 3 x 224",
        ),
        ({"model": "gpt3-125m", "input_shape": (3, 4, 4)}, "input_shape: gpt3-125m takes tokens: give input_len"),
        (
            {"model": "custom-cnn", "input_shape": (3, 20, 20)},
            "input_shape 3 x 20 x 20 does not suit custom-cnn: layer 4 (conv): a window of 5 does not fit into "
            "2 values padded by 0",
        ),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, dict) else "",
)
def test_what_a_network_does_not_answer(options: Data, message: str) -> None:
    for ask in (lpm.estimate, lpm.memory):
        with pytest.raises(lpm.InfeasibleError) as caught:
            ask(**({"model": "resnet18"} | options))
        assert str(caught.value) == message


def test_what_a_network_does_answer() -> None:
    plain = lpm.estimate("resnet18").total_s
    assert lpm.estimate("resnet18", output_len=1, num_beams=1, tp=1, layer_split=1).total_s == plain


@pytest.mark.parametrize(
    "shape",
    ["", "big", "3,,4", "3,4,5,6", [3, 4, 5, 6], [], [0, 4, 4], "3,-4,4", 64, 2.5, {}],
)
def test_a_shape_is_one_to_three_whole_numbers(shape: Any) -> None:
    with pytest.raises(lpm.RequestError, match=r"input_shape: is .*; must be one to three whole numbers, as 3,224,224"):
        lpm.estimate("resnet18", input_shape=shape)


@pytest.mark.parametrize("shape", [[3, 64.5, 64], [3.0, 64, True]])
def test_a_shape_is_of_whole_numbers_only(shape: Any) -> None:
    with pytest.raises(lpm.RequestError, match="input_shape"):
        lpm.estimate("resnet18", input_shape=shape)


@pytest.mark.parametrize(
    ("name", "kind", "near"),
    [
        ("resnet17", "network", "resnet18"),
        ("mobilenet-v3-lagre", "network", "mobilenet-v3-large"),
        ("custom-rnn", "network", "custom-"),
        ("llama-2-7bb", "model", "llama-2-7b"),
        ("gpt3-126m", "model", "gpt3-125m"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_of_its_kind(name: str, kind: str, near: str) -> None:
    with pytest.raises(lpm.UnknownNameError, match=f"^unknown {kind} '{name}': did you mean .*{near}"):
        lpm.estimate(name)


def test_a_name_near_to_nothing_is_an_unknown_model() -> None:
    with pytest.raises(lpm.UnknownNameError, match=r"^unknown model 'qqqqq'"):
        lpm.estimate("qqqqq")


# Files of one's own.


def _written(path: Path, source: Path, **changes: Any) -> str:
    data = json.loads(source.read_text(encoding="utf-8")) | {"name": path.stem, "aliases": []}
    path.write_text(json.dumps({key: item for key, item in (data | changes).items() if item is not None}))
    return str(path)


RESNET = folder_of(lpm.NetworkSpec) / "resnet18.json"
DECODER = folder_of(lpm.ModelSpec) / "gpt3-125m.json"


def test_a_path_to_a_network_file(tmp_path: Path) -> None:
    path = _written(tmp_path / "mine.json", RESNET, title="Mine")
    e = lpm.estimate(path, batch_size=4)
    assert isinstance(e.case.model, lpm.NetworkSpec)
    assert e.total_s == lpm.estimate("resnet18", batch_size=4).total_s
    assert lpm.estimate(_written(tmp_path / "text.json", DECODER)).total_s == lpm.estimate("gpt3-125m").total_s


def test_a_wrong_field_of_a_network_file_is_named(tmp_path: Path) -> None:
    path = _written(tmp_path / "mine.json", RESNET, inputs=[3, 4, 4])
    with pytest.raises(lpm.SpecError) as caught:
        lpm.estimate(path)
    headline, *problems = str(caught.value).splitlines()
    assert headline == f"{path}: 1 problem in this network file"
    assert len(problems) == 1
    assert problems[0].startswith("  inputs: ")
    assert "did you mean input?" in problems[0]


def test_a_wrong_field_of_a_model_file_is_named(tmp_path: Path) -> None:
    path = _written(tmp_path / "mine.json", DECODER, hidden="many")
    with pytest.raises(lpm.SpecError, match=r"1 problem in this model file\n  hidden: "):
        lpm.estimate(path)


def test_a_file_that_is_neither(tmp_path: Path) -> None:
    path = tmp_path / "neither.json"
    path.write_text('{"name": "neither"}')
    with pytest.raises(lpm.SpecError, match=r"neither.json: is no model file: it lacks title, "):
        lpm.estimate(str(path))
    path.write_text("{")
    with pytest.raises(lpm.SpecError, match="Invalid JSON"):
        lpm.estimate(str(path))
    with pytest.raises(lpm.UnknownNameError, match="no such model file"):
        lpm.estimate(str(tmp_path / "missing.json"))


@given(sizes, sizes)
def test_text_of_a_shape(height: int, width: int) -> None:
    assert text_of((3, height, width)) == f"3 x {height} x {width}"
    assert prod(shape_after(layers_of({"kind": "flatten"}), (3, height, width))) == 3 * height * width


FITTED_OR_NOT = ("tensorrt", "generic-fused")


def test_an_interval_of_a_network_rests_on_networks() -> None:
    own, other = (lpm.estimate("resnet18", gpu="rtx-3080ti", engine=name, precision="tf32") for name in FITTED_OR_NOT)
    assert own.bounds("total_s").basis.startswith("tensorrt on rtx-3080ti, network: ")
    assert other.bounds("total_s").basis.startswith("engines with records of networks: ")
    low, high, _ = own.bounds("total_s")
    assert low is not None
    assert high is not None
    assert low < own.total_s < high
