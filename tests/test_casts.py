"""Weights that are kept wide and narrowed anew in each pass."""

from __future__ import annotations

import pytest

import llm_perf_model as lpm
from llm_perf_model.casts import with_casts
from llm_perf_model.graph.stack import parameters, weights_bytes
from llm_perf_model.ops.batch import Batch
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec

ONE = Batch.uniform(1.0, 1.0, 0.0)
CASTING = load(EngineSpec, "pytorch-dgx-1")
V100 = {"gpu": "v100", "engine": CASTING, "precision": "fp16-autocast"}
MODELS = pytest.mark.parametrize("model", ["resnet50", "se-resnext101-32x4d", "bert-base"])


@MODELS
def test_a_cast_reads_four_bytes_and_writes_two_of_each_weight_of_a_product(model: str) -> None:
    graph = lpm.estimate(model, **V100).case.graph
    products = [node for node in graph if hasattr(node.op, "product")]
    casts = [node for node in graph if node.name.endswith("_cast")]
    assert len(casts) == len(products) > 4
    moved = sum(node.count * node.cost(ONE).hbm_bytes for node in casts)
    filters = sum(node.count * getattr(node.op, "filters", node.op.parameters) for node in products)
    assert moved == pytest.approx(6.0 * filters, rel=1e-12)


def test_a_convolution_is_one_kernel_more_and_a_dense_layer_with_a_bias_two() -> None:
    nodes = {node.name: node for node in lpm.estimate("resnet50", **V100).case.graph}
    assert nodes["0.conv_cast"].kernels == 1.0
    assert [node.kernels for name, node in nodes.items() if name.endswith("linear_cast")] == [2.0]


@MODELS
def test_casts_store_nothing_and_take_time(model: str) -> None:
    cast = lpm.estimate(model, **V100)
    kept = lpm.estimate(model, **V100 | {"engine": CASTING.model_copy(update={"casts_weights": False})})
    assert parameters(cast.case.graph) == parameters(kept.case.graph)
    assert weights_bytes(cast.case.graph) == weights_bytes(kept.case.graph)
    assert float(cast.prefill_s) > float(kept.prefill_s)
    assert float(cast.memory.weights_bytes) == float(kept.memory.weights_bytes)


@pytest.mark.parametrize("precision", ["fp32", "w16a16"])
def test_a_precision_without_a_wider_copy_casts_nothing(precision: str) -> None:
    graph = lpm.estimate("resnet50", **V100 | {"precision": precision}).case.graph
    assert not [node for node in graph if node.name.endswith("_cast")]


def test_weights_that_are_stored_elsewhere_are_cast_there() -> None:
    graph = lpm.estimate("gpt2-small").case.graph  # its head shares the table of the tokens
    names = [node.name for node in with_casts(graph, 4.0)]
    assert "lm_head_cast" not in names
    assert names[names.index("qkv") - 1] == "qkv_cast"


def test_host_time_of_autocast_is_one_operator_more_a_product() -> None:
    wide, narrow = (lpm.estimate("resnet50", **V100 | {"precision": p}) for p in ("fp32", "fp16-autocast"))
    added = 53 + 2  # convolutions; the dense layer with its bias
    assert float(narrow.prefill_s - wide.prefill_s) == pytest.approx(added * CASTING.dispatch_s, rel=1e-6)


def test_a_softmax_of_several_kernels_reads_and_writes_scores_that_often() -> None:
    eager = load(EngineSpec, "tensorflow-xla")
    ask = {"gpu": "v100", "precision": "fp32", "batch_size": 2, "input_len": 384, "output_len": 1}
    plain = eager.model_copy(update={"passes": {k: v for k, v in eager.passes.items() if k != "softmax"}})
    more, less = (
        next(node for node in lpm.estimate("bert-base", engine=e, **ask).case.graph if node.name == "attention")
        for e in (eager, plain)
    )
    batch = Batch.uniform(2.0, 384.0, 0.0)
    scores_bytes = 2 * 384**2 * 12 * 4
    assert more.cost(batch).hbm_bytes - less.cost(batch).hbm_bytes == pytest.approx(6 * scores_bytes, rel=1e-12)
    assert (more.kernels, less.kernels) == (2 + 3, 2 + 1)
