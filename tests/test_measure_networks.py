"""Networks as PyTorch modules: the shapes, the weights and the arithmetic that the estimate counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.errors import InfeasibleError, RequestError
from llm_perf_model.graph.stack import parameters as parameters_of
from llm_perf_model.importers.functions import KNOWN
from llm_perf_model.measuring.networks import built, parameters, samples
from llm_perf_model.measuring.torch_layers import ACTIVATIONS
from llm_perf_model.ops.attention import MaterialisedAttention
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.convolution import Convolution
from llm_perf_model.ops.dense import Linear
from llm_perf_model.ops.node import Graph
from llm_perf_model.ops.recurrence import Recurrence
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.layer import Conv, Pointwise, Shape, shape_after, text_of

from .test_networks import NAMES, SHAPES, Data, conv, graph_of, layers_of, linear, network, parallel, pool, residual

torch = pytest.importorskip("torch")

EVERY_NETWORK = pytest.mark.parametrize("name", NAMES)
TWO = Batch.uniform(2.0, 1.0, 0.0)
PRODUCTS = (Convolution, Linear, MaterialisedAttention, Recurrence)


def graph_in_32_bits(name: str) -> Graph:
    return lpm.estimate(name, engine="pytorch-eager", gpu="rtx-3080ti", precision="fp32").case.graph


def module_of(shape: Shape, *data: Data) -> Any:
    return built(network(layers_of(*data), shape))


def ran(module: Any, given_: Any) -> Any:
    with torch.inference_mode():
        return module(given_)


# What the files describe.


@EVERY_NETWORK
def test_a_network_has_the_weights_and_the_output_of_its_file(name: str) -> None:
    """Exactly: the published count is within 1 % of the file's layers, the module has no weight more or less."""
    spec = load(lpm.NetworkSpec, name)
    module = built(spec, "meta")
    assert parameters(module) == parameters_of(graph_in_32_bits(name)) == spec.parameters
    made = module(samples(spec, 3, "meta", torch.float32))
    assert tuple(made.shape) == (3, *shape_after(spec.layers, spec.input)) == (3, 1000)


# A small network makes the biases of its windows in each pass; an estimate reads its weights alone.
UNCOUNTED = {"swin-v2-tiny": 0.0016}


@EVERY_NETWORK
def test_a_network_does_the_products_that_the_estimate_counts(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    spec = load(lpm.NetworkSpec, name)
    module, given = built(spec, "meta"), samples(spec, 2, "meta", torch.float32)
    with FlopCounterMode(display=False) as counter:
        module(given)
    products = [node for node in graph_in_32_bits(name) if isinstance(node.op, PRODUCTS)]
    counted = sum(node.count * node.cost(TWO).flops for node in products)
    assert counted == pytest.approx(counter.get_total_flops(), rel=UNCOUNTED.get(name, 1e-12))


# Layers, one by one.


@pytest.mark.parametrize(("layer", "given_", "made"), SHAPES, ids=[f"{x['kind']}-{text_of(y)}" for x, y, _ in SHAPES])
def test_a_layer_makes_the_shape_and_has_the_weights_of_its_file(layer: Data, given_: Shape, made: Shape) -> None:
    module = module_of(given_, layer)
    assert tuple(ran(module, torch.randn(2, *given_)).shape) == (2, *made)
    assert parameters(module) == parameters_of(graph_of(layers_of(layer), given_))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_function_of_its_name(name: Pointwise) -> None:
    points = np.linspace(-5.0, 5.0, 41, dtype=np.float32)
    made = ran(module_of((41,), {"kind": "pointwise", "activation": name}), torch.from_numpy(points)[None])[0].numpy()
    known = [function(points) for other, function in KNOWN if other == name]
    known += [np.where(points < 0.0, slope, points) for slope in (0.01 * points,) if name == "leaky_relu"]
    known += [np.where(points < 0.0, np.expm1(points), points)] if name == "elu" else []
    assert min(np.max(np.abs(made - values)) for values in known) < 1e-6


def test_every_activation_has_a_module() -> None:
    assert set(ACTIVATIONS) == set(Pointwise.__args__)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_layers_after_each_other_make_what_their_shapes_say(data: st.DataObject) -> None:
    """Windows of two sides, uneven edges, strides, dilation, groups, forks: any row of them."""
    edge = st.lists(st.integers(0, 3), min_size=4, max_size=4)
    channels = st.sampled_from([4, 8])
    rows: list[Data] = []
    for kind in data.draw(st.lists(st.sampled_from(["conv", "max_pool", "average_pool", "fork"]), max_size=4)):
        if kind == "conv":
            options = {
                "padding": data.draw(edge),
                "stride": data.draw(st.integers(1, 2)),
                "norm": data.draw(st.booleans()),
            }
            rows.append(
                conv(
                    data.draw(channels),
                    data.draw(st.integers(1, 3)),
                    groups=data.draw(st.sampled_from([1, 4])),
                    **options,
                )
            )
        elif kind == "fork":
            rows.append(parallel("concat", [], [conv(data.draw(channels), 1, activation="silu")]))
        else:
            rows.append(
                pool(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)), kind=kind)
                | {"padding": data.draw(edge)}
            )
    rows.append(linear(3)) if not rows else rows.extend([{"kind": "global_pool"}, linear(3)])
    given_ = (4, 13, 11) if len(rows) > 1 else (7,)
    module = module_of(given_, *rows)
    assert tuple(ran(module, torch.randn(2, *given_)).shape) == (2, 3)
    assert parameters(module) == parameters_of(graph_of(layers_of(*rows), given_))


# What the layers compute.


def test_a_window_sees_its_own_square_and_nothing_else() -> None:
    """A map of 4 x 4 steps in windows of 2 x 2: each corner's output is that of the corner alone."""
    module = module_of((16, 8), {"kind": "attention", "heads": 2, "window": 2})
    alone = module_of((4, 8), {"kind": "attention", "heads": 2})
    alone.load_state_dict(module.state_dict())
    given_ = torch.randn(1, 4, 4, 8)
    made = ran(module, given_.reshape(1, 16, 8)).reshape(1, 4, 4, 8)
    for rows in (slice(0, 2), slice(2, 4)):
        for columns in (slice(0, 2), slice(2, 4)):
            corner = ran(alone, given_[:, rows, columns].reshape(1, 4, 8)).reshape(1, 2, 2, 8)
            torch.testing.assert_close(made[:, rows, columns], corner)


def test_steps_join_by_squares_where_they_are_a_square_map_and_by_runs_elsewhere() -> None:
    squares = ran(module_of((16, 1), {"kind": "join_steps", "steps": 4}), torch.arange(16.0).reshape(1, 16, 1))
    assert squares[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    runs = ran(module_of((6, 1), {"kind": "join_steps", "steps": 3}), torch.arange(6.0).reshape(1, 6, 1))
    assert runs[0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_a_score_gains_depends_on_the_offset_alone() -> None:
    """Of the 4 x 4 pairs of a window of 2 x 2, those of one offset read one row of nine."""
    module = module_of((4, 8), {"kind": "attention", "heads": 2, "window": 2, "relative_positions": "table"})
    pairs = dict(module.named_buffers())["0.pairs"].reshape(4, 4)
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    rows: dict[tuple[int, int], set[int]] = {}
    for one, (down, right) in enumerate(places):
        for other, (below, beside) in enumerate(places):
            rows.setdefault((down - below, right - beside), set()).add(int(pairs[one, other]))
    assert sorted(row for found in rows.values() for row in found) == list(range(9))
    assert module.state_dict()["0.table"].shape == (9, 2)


def test_branches_meet() -> None:
    """A sum, a product with one value a channel, and channels side by side."""
    given_ = torch.randn(2, 3, 5, 4)
    means = given_.mean((2, 3), keepdim=True)
    assert torch.equal(ran(module_of((3, 5, 4), residual({"kind": "softmax"})), given_), given_ + given_.softmax(1))
    spread = module_of((3, 5, 4), parallel("multiply", [{"kind": "global_pool"}], []))
    torch.testing.assert_close(ran(spread, given_), given_ * means)
    beside = module_of((3, 5, 4), parallel("concat", [], [{"kind": "pointwise", "activation": "relu"}]))
    assert torch.equal(ran(beside, given_), torch.cat([given_, given_.relu()], 1))


def test_what_a_window_holds_beside_the_map_is_no_value() -> None:
    given_ = -torch.ones(1, 1, 2, 2)
    largest = module_of((1, 2, 2), pool(2, 1) | {"padding": [2, 0, 0, 0]})
    assert ran(largest, given_)[0, 0].tolist() == [[-float("inf")], [-1.0], [-1.0]]
    mean = module_of((1, 2, 2), pool(2, 1, kind="average_pool") | {"padding": [1, 0, 0, 0]})
    assert ran(mean, given_)[0, 0].tolist() == [[-0.5], [-1.0]]


@pytest.mark.parametrize("name", ["resnet18", "mobilenet-v3-large", "vgg16", "custom-cnn", "custom-fcn"])
def test_weights_bear_the_names_of_a_breakdown(name: str) -> None:
    weighted = {layer.rpartition(".")[0] for layer, _ in built(load(lpm.NetworkSpec, name), "meta").named_parameters()}
    assert weighted
    assert weighted <= {node.name for node in graph_in_32_bits(name)}


# Dtypes, shapes, and what does not suit.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_and_samples_are_of_the_dtype(dtype: str) -> None:
    narrow = getattr(torch, dtype)
    spec = network(layers_of(conv(4, 3, norm=True), {"kind": "flatten"}, linear(2)), (3, 6, 6))
    module, given_ = built(spec, "cpu", narrow), samples(spec, 5, "cpu", narrow)
    assert {weights.dtype for weights in module.parameters()} == {given_.dtype} == {narrow}
    assert given_.shape == (5, 3, 6, 6) and ran(module, given_).dtype == narrow
    assert not module.training


def test_another_shape_of_samples() -> None:
    spec = load(lpm.NetworkSpec, "resnet18")
    module = built(spec, "meta", input_shape=(3, 64, 96))
    assert tuple(module(samples(spec, 2, "meta", torch.float32, (3, 64, 96))).shape) == (2, 1000)


def test_a_shape_that_does_not_suit_is_refused_as_by_an_estimate() -> None:
    with pytest.raises(InfeasibleError) as refused:
        built(load(lpm.NetworkSpec, "custom-cnn"), "meta", input_shape=(1, 20, 20))
    with pytest.raises(InfeasibleError) as estimated:
        lpm.estimate("custom-cnn", input_shape=(1, 20, 20))
    assert str(refused.value) == str(estimated.value)


def test_a_layer_that_makes_another_shape_than_its_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = network(layers_of(conv(4, 3), {"kind": "global_pool"}), (3, 6, 6))
    monkeypatch.setattr(Conv, "shape", lambda *_: (4, 5, 5))
    with pytest.raises(RequestError, match=r"^drawn: layer 0 makes 4 x 4 x 4 in PyTorch, 4 x 5 x 5 in the file$"):
        built(spec)


@pytest.mark.parametrize("name", ["efficientnet-b0", "mobilenet-v2", "mobilenet-v3-large", "resnet50"])
def test_values_keep_their_size_from_layer_to_layer(name: str) -> None:
    """Numbers near zero are slow on processors, and large ones overflow in 16 bits: either would be timed."""
    spec, shape = load(lpm.NetworkSpec, name), (3, 96, 96)
    module = built(spec, input_shape=shape)
    seen: list[float] = []
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.register_forward_hook(lambda _part, _given, made: seen.append(float(made.std())))
    ran(module, samples(spec, 4, "cpu", torch.float32, shape))
    assert len(seen) > 40
    assert min(seen) > 0.1 and max(seen) < 10.0


def test_a_deep_recurrent_net_does_not_fade() -> None:
    spec, shape = load(lpm.NetworkSpec, "custom-lstm"), (3, 8, 8)
    made = ran(built(spec, input_shape=shape), samples(spec, 1, "cpu", torch.float32, shape)).abs()
    assert made.isfinite().all() and made.median() > 1e-6
