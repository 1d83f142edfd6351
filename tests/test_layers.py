"""Laws of layers: windows of two sides, sequences, recurrent cells, attention, patches and repeated blocks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.graph.parts import NORM_TOUCHES
from llm_perf_model.graph.stack import parameters
from llm_perf_model.layers import build_network
from llm_perf_model.liveness import largest_live
from llm_perf_model.ops.attention import FusedAttention, MaterialisedAttention
from llm_perf_model.ops.base import AbstractOp, Cost, Kind, Live
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.convolution import Convolution
from llm_perf_model.ops.dense import Linear
from llm_perf_model.ops.elementwise import Elementwise
from llm_perf_model.ops.node import Graph, Node
from llm_perf_model.ops.recurrence import Recurrence
from llm_perf_model.rates import Machine
from llm_perf_model.roofline import step_s, walk
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.layer import Shape, shape_after

from .strategies import batches, machines, op_types, ops
from .test_networks import W16A16, B, Data, conv, graph_of, layers_of, linear, network, parallel, pool, residual, sizes

ENGINES = (
    "hf-eager",
    "fastertransformer",
    "fastertransformer-encoder",
    "eet",
    "generic-fused",
    "pytorch-forward",
    "ideal",
)
EVERY_ENGINE = pytest.mark.parametrize("engine", ENGINES)
SAMPLES = Batch.uniform(5.0, 1.0, 0.0)
few = st.integers(1, 9)


def repeat(count: int, *body: Data) -> Data:
    return {"kind": "repeat", "count": count, "body": list(body)}


def attention(heads: int, bias: bool = True) -> Data:
    return {"kind": "attention", "heads": heads, "bias": bias}


def recurrent(kind: str, hidden: int, **options: int) -> Data:
    return {"kind": kind, "hidden": hidden} | options


NORM: Data = {"kind": "layer_norm"}


def total(graph: Graph, batch: Batch = SAMPLES) -> Cost:
    """Work of a whole graph."""
    costs = [[node.count * np.asarray(value) for value in node.cost(batch)] for node in graph]
    return Cost(*(float(sum(column)) for column in zip(*costs, strict=True)))


def live_bytes(graph: Graph, batch: Batch = SAMPLES) -> float:
    """What is alive at the worst node."""
    return max((float(np.asarray(live.bytes(batch))) for live in largest_live(graph)), default=0.0)


# Blocks that follow each other.


@cache
@st.composite
def blocks(draw: st.DrawFn) -> list[Data]:
    """Layers that keep 8 channels of any height and width."""
    kernel, groups = draw(st.sampled_from((1, 3, 5))), draw(st.sampled_from((1, 2, 8)))
    same = conv(8, kernel, padding=kernel // 2, groups=groups, norm=draw(st.booleans()), activation="relu")
    excite = {"kind": "squeeze_excite", "channels": 4, "activation": "silu", "gate": "sigmoid"}
    return draw(
        st.sampled_from(
            ([same], [same, excite], [residual(same, excite)], [NORM, residual(same)], [repeat(2, same), excite])
        )
    )


@cache
@st.composite
def sequences(draw: st.DrawFn) -> list[Data]:
    """Layers that keep any number of steps of 8 features."""
    mixed = attention(draw(st.sampled_from((1, 2, 8))), draw(st.booleans()))
    wide = [NORM, linear(draw(st.sampled_from((8, 24))), activation="gelu"), linear(8, bias=draw(st.booleans()))]
    kind = draw(st.sampled_from(("lstm", "gru", "rnn")))
    both = recurrent(kind, 4, bidirectional=True, layers=draw(st.integers(1, 3)))
    return draw(
        st.sampled_from(([mixed], [residual(NORM, mixed), residual(*wide)], wide, [both], [repeat(3, mixed), *wide]))
    )


FORMS = ((blocks(), (8, 6, 5)), (blocks(), (8, 1, 9)), (sequences(), (7, 8)), (sequences(), (1, 8)))
EVERY_FORM = pytest.mark.parametrize(("drawn", "shape"), FORMS, ids=["map", "row", "steps", "step"])


@EVERY_FORM
@given(data=st.data(), count=few, fused=st.booleans())
def test_a_repeated_block_costs_what_its_copies_cost(
    drawn: st.SearchStrategy[list[Data]], shape: Shape, data: st.DataObject, count: int, fused: bool
) -> None:
    body = data.draw(drawn)
    once, copies = (graph_of(layers_of(*layers), shape, fused) for layers in ([repeat(count, *body)], body * count))
    assert total(once) == pytest.approx(total(copies), rel=1e-12)
    assert parameters(once) == parameters(copies)
    assert live_bytes(once) == live_bytes(copies)
    assert sum(n.count * n.kernels for n in once) == sum(n.count * n.kernels for n in copies)
    assert len(once) * count == len(copies)


@EVERY_ENGINE
@pytest.mark.parametrize("count", [1, 7])
def test_a_repeated_block_takes_the_time_and_memory_of_its_copies(engine: str, count: int) -> None:
    body = [residual(NORM, attention(4)), residual(NORM, linear(512, activation="gelu"), linear(128))]
    once, copies = (
        lpm.estimate(network(layers_of(*layers), (50, 128)), engine=engine, batch_size=[1, 33])
        for layers in ([repeat(count, *body)], body * count)
    )
    assert np.asarray(once.total_s) == pytest.approx(np.asarray(copies.total_s), rel=1e-12)
    assert np.all(np.asarray(once.memory.peak_bytes) == np.asarray(copies.memory.peak_bytes))


@EVERY_FORM
@given(data=st.data(), fused=st.booleans())
def test_a_network_is_the_sum_of_its_layers(
    drawn: st.SearchStrategy[list[Data]], shape: Shape, data: st.DataObject, fused: bool
) -> None:
    layers = layers_of(*data.draw(drawn), *data.draw(drawn))
    whole = graph_of(layers, shape, fused)
    parts = [graph_of((layer,), shape_after(layers[:number], shape), fused) for number, layer in enumerate(layers)]
    assert total(whole) == pytest.approx([sum(values) for values in zip(*map(total, parts), strict=True)], rel=1e-12)
    assert parameters(whole) == sum(map(parameters, parts))
    assert live_bytes(whole) == max(map(live_bytes, parts))


def test_names_of_a_repeated_block() -> None:
    graph = graph_of(layers_of(repeat(3, conv(4, 1), residual(repeat(2, conv(4, 1))))), (4, 5, 5))
    assert {node.name: node.count for node in graph} == {
        "0.body.0.conv": 3.0,
        "0.body.1.body.0.body.0.conv": 6.0,
        "0.body.1.sum": 3.0,
    }


# Windows of two sides.


@given(st.data())
def test_shapes_are_those_of_windows_that_slide_over_ones(data: st.DataObject) -> None:
    """Every place of a window that lies inside the padded map gives a value."""
    pairs = {
        name: data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))
        for name, low, high in (("kernel", 1, 4), ("stride", 1, 3), ("padding", 0, 2), ("dilation", 1, 3))
    }
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    padded = np.pad(np.ones(size), [(p, p) for p in pairs["padding"]])
    reach = [e * (k - 1) + 1 for k, e in zip(pairs["kernel"], pairs["dilation"], strict=True)]
    places = [range(0, n - r + 1, s) for n, r, s in zip(padded.shape, reach, pairs["stride"], strict=True)]
    layers = layers_of(conv(2, 1) | {name: list(value) for name, value in pairs.items()})
    if all(places):
        assert shape_after(layers, (3, *size)) == (2, *map(len, places))
        (node,) = graph_of(layers, (3, *size))
        assert node.cost(SAMPLES).flops == 2 * 5 * 2 * 3 * prod(map(len, places)) * prod(pairs["kernel"])
    else:
        with pytest.raises(ValueError, match=r"layer 0 \(conv\): a window of .* does not fit into"):
            shape_after(layers, (3, *size))


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), sizes)
def test_a_pair_of_equal_numbers_is_one_number(kernel: int, stride: int, padding: int, size: int) -> None:
    shape = (4, size + kernel, size + kernel + 3)
    for one in (
        conv(8, kernel, stride=stride, padding=padding, dilation=1),
        pool(kernel, stride, padding),
    ):
        two = {key: [x, x] if key in {"kernel", "stride", "padding", "dilation"} else x for key, x in one.items()}
        assert graph_of(layers_of(one), shape) == graph_of(layers_of(two), shape)


@given(few, few, st.integers(1, 3), st.integers(1, 3), sizes, sizes)
def test_a_turned_window_on_a_turned_map_costs_the_same(
    height: int, width: int, down: int, right: int, rows: int, columns: int
) -> None:
    shape = (4, rows + height, columns + width)
    for layer in (conv(8, 1), pool(1, 1)):
        upright = layers_of(layer | {"kernel": [height, width], "stride": [down, right]})
        turned = layers_of(layer | {"kernel": [width, height], "stride": [right, down]})
        one, two = graph_of(upright, shape), graph_of(turned, (shape[0], shape[2], shape[1]))
        assert total(one) == total(two)
        assert parameters(one) == parameters(two)


@given(st.sampled_from((2, 4, 8, 16)), st.sampled_from((1, 3, 5)), sizes)
def test_groups_divide_the_work_and_the_weights(groups: int, kernel: int, size: int) -> None:
    whole, grouped = (graph_of(layers_of(conv(32, kernel, padding=2, groups=g)), (16, size, size)) for g in (1, groups))
    assert total(grouped).flops * groups == total(whole).flops
    assert parameters(grouped) * groups == parameters(whole)
    assert total(grouped).activation_bytes == total(whole).activation_bytes


# Sequences.


@given(few, few, st.booleans())
def test_a_product_of_each_step_is_that_of_as_many_samples(steps: int, features: int, bias: bool) -> None:
    layers = layers_of(linear(features, bias=bias, activation="gelu"))
    sequence, rows = graph_of(layers, (steps, 7)), graph_of(layers, (7,))
    assert total(sequence) == total(rows, Batch.uniform(5.0 * steps, 1.0, 0.0))
    assert parameters(sequence) == parameters(rows)
    assert live_bytes(sequence) == live_bytes(rows, Batch.uniform(5.0 * steps, 1.0, 0.0))


@given(st.sampled_from(op_types()).flatmap(ops), st.integers(2, 300), st.integers(1, 50), machines())
def test_a_node_of_steps_is_its_operator_on_sequences(
    op: AbstractOp, steps: int, samples: int, machine: Machine
) -> None:
    batch, seen = Batch.uniform(float(samples), 1.0, 0.0), Batch.uniform(float(samples), float(steps), 0.0)
    plain = Node("op", "pass", op)
    node = replace(plain, steps=float(steps))
    assert node.cost(batch) == op.cost(seen)
    assert step_s(node, batch, node.cost(batch), machine) == step_s(plain, seen, op.cost(seen), machine)
    assert node.live.bytes(batch) == pytest.approx(op.live.bytes(seen), rel=1e-12)


@given(st.sampled_from(op_types()).flatmap(ops), batches())
def test_one_step_leaves_the_batch_alone(op: AbstractOp, batch: Batch) -> None:
    assert Node("op", "pass", op).seen(batch) is batch
    assert Node("op", "pass", op).live == op.live


def test_one_step_of_a_sequence_costs_nothing() -> None:
    for kind in ("first", "last"):
        assert graph_of(layers_of({"kind": kind}), (6, 9)) == ()


def test_a_layer_norm_by_hand() -> None:
    """A block a step reads each value twice; a map has as many rows as places."""
    norm = Elementwise(9.0, 2.0, B, weights=18.0, weight_bytes=B, touches=NORM_TOUCHES)
    assert graph_of(layers_of(NORM), (6, 9)) == (Node("0.layer_norm", "norm", norm, steps=6.0),)
    assert graph_of(layers_of(NORM), (9, 3, 4)) == (Node("0.layer_norm", "norm", norm, steps=12.0),)
    assert graph_of(layers_of(NORM), (9,), fused=True) == (Node("0.layer_norm", "norm", norm),)
    assert parameters(graph_of(layers_of(NORM | {"bias": False}), (6, 9))) == 9


def test_a_residual_of_a_sequence_keeps_all_its_steps() -> None:
    graph = graph_of(layers_of(residual(NORM, attention(2))), (6, 8))
    kept = 6 * 8 * B
    found = {node.name: node.beside_bytes for node in graph}
    names = ("0.body.0.layer_norm", "0.body.1.qkv", "0.body.1.attention", "0.body.1.attention_out", "0.sum")
    assert found == dict(zip(names, (0.0, kept, kept, kept, 0.0), strict=True))
    live = {node.name: node.live for node in graph}
    assert live["0.body.1.qkv"] == Live(6 * (8 + 24) * B + kept)


# Recurrent cells.


GATES = {"lstm": 4, "gru": 3, "rnn": 1}
LIBRARY = {"lstm": 5920, "gru": 4440, "rnn": 1480}
"""Weights of PyTorch's modules of 10 inputs, 20 outputs and two layers, added up from the shapes that it documents."""


def library_shapes(kind: str, d_in: int, hidden: int, layers: int, bias: bool, directions: int) -> list[Shape]:
    """Of `weight_ih_l[k]`, `weight_hh_l[k]`, `bias_ih_l[k]` and `bias_hh_l[k]`, and the same with `_reverse`."""
    gates = GATES[kind] * hidden
    found: list[Shape] = []
    for number in range(layers):
        inputs = d_in if number == 0 else directions * hidden
        found += directions * [(gates, inputs), (gates, hidden), *bias * 2 * [(gates,)]]
    return found


@given(st.sampled_from(sorted(GATES)), few, few, st.integers(1, 4), st.booleans(), st.booleans(), few)
def test_weights_of_recurrent_layers_are_those_of_the_library(
    kind: str, d_in: int, hidden: int, layers: int, bias: bool, bidirectional: bool, steps: int
) -> None:
    layer = recurrent(kind, hidden, layers=layers, bias=bias, bidirectional=bidirectional)
    graph = graph_of(layers_of(layer), (steps, d_in))
    shapes = library_shapes(kind, d_in, hidden, layers, bias, 1 + bidirectional)
    assert parameters(graph) == sum(map(prod, shapes))
    products = tuple(node for node in graph if not isinstance(node.op, Elementwise))
    matrices = sum(prod(shape) for shape in shapes if len(shape) == 2)
    assert total(products, Batch.uniform(1.0, 1.0, 0.0)).flops == 2 * steps * matrices


@pytest.mark.parametrize("kind", sorted(LIBRARY))
def test_weights_of_a_recurrent_module(kind: str) -> None:
    graph = graph_of(layers_of(recurrent(kind, 20, layers=2)), (3, 10))
    assert parameters(graph) == LIBRARY[kind]


def test_steps_of_a_gated_unit_by_hand() -> None:
    """4 steps of 7 features, read in both directions by two layers of 5 values."""
    graph = graph_of(layers_of(recurrent("gru", 5, layers=2, bidirectional=True)), (4, 7))
    again = Recurrence(5.0, 3.0, 4.0, 6.0, B, B, extra=15.0)  # reads three gates, one twice, and the output, writes one
    inputs = [Linear(d, 15.0, B, B, bias=True) for d in (7.0, 10.0)]
    found = [(node.name, node.role, node.op, node.steps, node.kernels, node.count) for node in graph]
    assert found == [
        (f"0.{layer}.{name}", "recurrent", op, steps, kernels, 2)
        for layer, wide in zip(("first", "others"), inputs, strict=True)
        for name, op, steps, kernels in (("inputs", wide, 4, 1), ("steps", again, 1, 8))
    ]


@given(st.sampled_from(sorted(GATES)), st.integers(1, 4), st.booleans(), few)
def test_a_framework_dispatches_a_recurrent_module_once(
    kind: str, layers: int, bidirectional: bool, steps: int
) -> None:
    graph = graph_of(layers_of(recurrent(kind, 5, layers=layers, bidirectional=bidirectional)), (steps, 7))
    assert sum(node.dispatched for node in graph) == 1.0


@pytest.mark.parametrize(("kind", "tensors"), [("lstm", 4 + 1 + 2), ("gru", 4 + 1 + 1), ("rnn", 1 + 1)])
def test_what_a_cell_reads_and_writes(kind: str, tensors: int) -> None:
    graph = graph_of(layers_of(recurrent(kind, 5)), (4, 7))
    assert graph[-1].cost(SAMPLES).activation_bytes == 5 * 4 * tensors * 5 * B


@EVERY_ENGINE
def test_fewer_gates_take_no_longer(engine: str) -> None:
    times = [
        lpm.estimate(network(layers_of(recurrent(kind, 512)), (20, 256)), engine=engine, batch_size=[1, 64]).total_s
        for kind in ("rnn", "gru", "lstm")
    ]
    assert np.all(np.diff(times, axis=0) > (0.0 if engine == "ideal" else -1e-12))


# Attention.


ENCODER = "bert-base"


@EVERY_ENGINE
@pytest.mark.parametrize("precision", ["w16a16", "fp32"])
def test_attention_of_a_network_is_that_of_an_encoder(engine: str, precision: str) -> None:
    """12 layers of 12 heads over 384 tokens of 768 features: work, time and live tensors."""
    asked = {"engine": engine, "precision": precision, "batch_size": 8}
    written = network(layers_of(repeat(12, attention(12))), (384, 768))
    encoder, layers = lpm.estimate(ENCODER, input_len=384, output_len=1, **asked), lpm.estimate(written, **asked)
    nodes = {work.node.name: work for work in walk(encoder.case.graph, encoder.case.machine, encoder.prefill.runs[0])}
    found = list(walk(layers.case.graph, layers.case.machine, layers.prefill.runs[0]))
    assert [work.node.name for work in found] == [f"0.body.0.{name}" for name in ("qkv", "attention", "attention_out")]
    for work in found:
        same = nodes[work.node.name.rpartition(".")[2]]
        assert work.cost == pytest.approx(same.cost, rel=1e-12)
        assert work.timing == pytest.approx(same.timing, rel=1e-12)
        assert (work.node.kind, work.node.kernels) == (same.node.kind, same.node.kernels)
        assert parameters((work.node,)) == parameters((same.node,))
        tokens, samples = Batch.uniform(8.0, 384.0, 0.0), Batch.uniform(8.0, 1.0, 0.0)
        assert work.node.live.bytes(samples) == same.node.op.live.bytes(tokens)


@pytest.mark.parametrize(
    ("engine", "op", "kernels", "rate"),
    [
        ("ideal", FusedAttention(2.0, 2.0, 4.0, B, B, all_pairs=True, cached=False), 1.0, None),
        ("hf-eager", MaterialisedAttention(2.0, 2.0, 4.0, B, B, cached=False), 3.0, None),
        ("eet", MaterialisedAttention(2.0, 2.0, 4.0, B, B, cached=False), 7.0, "slow_attention"),
    ],
)
def test_nodes_of_attention_by_hand(engine: str, op: AbstractOp, kernels: float, rate: Kind | None) -> None:
    """6 steps of 8 features and two heads; an engine's slow path where it has no kernel for heads of 4 values."""
    layers = layers_of(attention(2))
    graph = build_network(network(layers, (6, 8)), load(lpm.EngineSpec, engine), W16A16, (6, 8))
    assert graph == (
        Node("0.qkv", "attention", Linear(8.0, 24.0, B, B, bias=True), steps=6.0),
        Node("0.attention", "attention", op, kernels=kernels, rate=rate, steps=6.0),
        Node("0.attention_out", "attention", Linear(8.0, 8.0, B, B, bias=True), steps=6.0),
    )
    assert parameters(graph) == 4 * 8 * 8 + 4 * 8
    assert graph[1].cost(SAMPLES).flops == 4 * 5 * 6**2 * 8


@EVERY_ENGINE
def test_a_network_with_attention_keeps_no_cache(engine: str) -> None:
    e = lpm.estimate("vit-b-16", engine=engine, batch_size=4)
    assert e.memory.kv_cache_bytes == e.memory.logits_bytes == 0.0
    assert e.total_s == e.prefill_s


@given(st.integers(2, 40), st.integers(2, 9))
@settings(max_examples=20)
def test_pairs_grow_with_the_square_of_the_steps(steps: int, times: int) -> None:
    short, long = (graph_of(layers_of(attention(2, bias=False)), (n, 8)) for n in (steps, steps * times))
    work = [[node.cost(SAMPLES).flops for node in graph] for graph in (short, long)]
    assert [b / a for a, b in zip(*work, strict=True)] == pytest.approx([times, times**2, times])


# Patches.


def test_nodes_of_patches_by_hand() -> None:
    """3 x 8 x 12 values in patches of 4 x 6: 4 steps and a class token of 5 features."""
    layer = {"kind": "patch_embedding", "features": 5, "patch": [4, 6], "class_token": True, "positions": True}
    learned = 5.0 + 5.0 + 5 * 5.0  # bias, class token, positions
    conv_op = Convolution(3.0, 5.0, 24.0, 4.0, 288.0, 1.0, B, B, extra=learned, position_rows=2.0)
    assert graph_of(layers_of(layer), (3, 8, 12)) == (
        Node("0.conv", "convolution", conv_op),
        Node("0.class_token", "pass", Elementwise(25.0, 2.0, B)),
        Node("0.positions", "pass", Elementwise(25.0, 2.0, B)),
    )
    assert graph_of(layers_of(layer), (3, 8, 12), fused=True) == (Node("0.conv", "convolution", conv_op),)


@given(st.booleans(), st.booleans(), st.booleans(), few, few)
def test_weights_of_patches(bias: bool, class_token: bool, positions: bool, rows: int, columns: int) -> None:
    layer = {
        "kind": "patch_embedding", "features": 7, "patch": 4,
        "bias": bias, "class_token": class_token, "positions": positions,
    }  # fmt: skip
    steps = rows * columns + class_token
    shape = (3, 4 * rows, 4 * columns)
    assert shape_after(layers_of(layer), shape) == (steps, 7)
    assert parameters(graph_of(layers_of(layer), shape)) == 7 * (3 * 16 + bias + class_token + positions * steps)


def test_more_patches_need_more_positions() -> None:
    """384 x 384 values in patches of 16: 577 steps, as printed for the fine-tuned networks."""
    small, large = (lpm.estimate("vit-b-16", input_shape=(3, n, n)).case.graph for n in (224, 384))
    assert parameters(large) - parameters(small) == (577 - 197) * 768


# What an image transformer takes.


@EVERY_ENGINE
def test_an_image_transformer_takes_the_time_of_its_products(engine: str) -> None:
    """The products of ViT-B/16 and of an encoder of as many equal blocks and tokens."""
    e = lpm.estimate("vit-b-16", engine=engine, batch_size=64)
    same = lpm.estimate(ENCODER, engine=engine, batch_size=64, input_len=197, output_len=1)
    products = {"1.body.1.body.1.linear": "ffn_up", "1.body.1.body.2.linear": "ffn_down", "1.body.0.body.1.qkv": "qkv"}
    named = {work.node.name: work for work in walk(same.case.graph, same.case.machine, same.prefill.runs[0])}
    found = {work.node.name: work for work in walk(e.case.graph, e.case.machine, e.prefill.runs[0])}
    for name, other in products.items():
        assert found[name].timing == pytest.approx(named[other].timing, rel=1e-12)
    assert e.total_s == pytest.approx(same.total_s, rel=0.25)


# Branches.


def test_nodes_of_branches_by_hand() -> None:
    """What each node finds alive beside it: the input while others take it, and what the branches before have made."""
    given_ = layers_of(parallel("concat", [conv(2, 1), conv(3, 1)], [], [conv(5, 1), conv(6, 1)], activation="relu"))
    map_bytes = 6 * 5 * B
    nodes = graph_of(given_, (4, 6, 5))
    assert [(node.name, node.beside_bytes) for node in nodes] == [
        ("0.branch0.0.conv", 0.0),
        ("0.branch0.1.conv", 4 * map_bytes),
        ("0.branch2.0.conv", 3 * map_bytes),
        ("0.branch2.1.conv", (3 + 4) * map_bytes),
        ("0.concat", 0.0),
        ("0.relu", 0.0),
    ]
    assert [node.op for node in nodes[-2:]] == [Elementwise((3 + 4 + 6) * 30.0, 2.0, B)] * 2
    assert [node.name for node in graph_of(given_, (4, 6, 5), fused=True)] == [node.name for node in nodes[:-2]]


def test_nodes_of_a_product_of_branches_by_hand() -> None:
    *_, node = graph_of(layers_of(parallel("multiply", [conv(4, 1)], [], [conv(4, 1)])), (4, 6, 5))
    assert node == Node("0.product", "pass", Elementwise(120.0, 4.0, B))


@EVERY_ENGINE
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_the_last_branch_does_not_wait_for_the_input(engine: str, data: st.DataObject) -> None:
    """A residual and branches side by side hold the same tensors beside the same nodes."""
    body, shortcut = data.draw(blocks()), data.draw(blocks())
    summed, joined = (
        lpm.estimate(network(layers_of(layer), (8, 6, 5)), engine=engine).case.graph
        for layer in (residual(*body, shortcut=shortcut), parallel("concat", body, shortcut))
    )
    beside = [
        [node.beside_bytes for node in graph if node.name not in {"0.sum", "0.concat"}] for graph in (summed, joined)
    ]
    assert beside[0] == beside[1]


@pytest.mark.parametrize("fused", [True, False])
def test_a_norm_without_a_product_keeps_its_weights(fused: bool) -> None:
    nodes = graph_of(layers_of({"kind": "pointwise", "norm": True, "activation": "relu"}), (8, 6, 5), fused)
    assert [node.name for node in nodes] == (["0.norm_relu"] if fused else ["0.norm", "0.relu"])
    assert parameters(nodes) == 16.0
    assert nodes[0].op.stored_weight_bytes == 16.0 * B


@given(few, sizes, sizes)
def test_a_padding_of_four_equal_edges_is_that_of_one_number(padding: int, height: int, width: int) -> None:
    shapes = [layers_of(conv(2, 1, padding=form))[0].shape((3, height, width)) for form in (padding, [padding] * 4)]
    assert shapes[0] == shapes[1]
