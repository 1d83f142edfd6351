"""What is alive at once: the worst operators of a pass, and the logits after it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.graph.stack import build
from llm_perf_model.liveness import held_logits, largest_live
from llm_perf_model.ops.attention import MaterialisedAttention
from llm_perf_model.ops.base import Live
from llm_perf_model.ops.batch import Batch, Group
from llm_perf_model.ops.collective import AllReduce, Transfer
from llm_perf_model.ops.dense import Linear
from llm_perf_model.ops.elementwise import Elementwise
from llm_perf_model.ops.node import Graph, Node
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec, Passes
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .strategies import batches, engines, graphs, models, precisions

HALF = load(PrecisionSpec, "w16a16")
IDEAL = load(EngineSpec, "ideal")
CASTS = ("logits_cast", "sample")
"""Passes over logits, which are counted apart."""


def worst(lives: tuple[Live, ...], batch: Batch) -> float:
    return max(float(live.bytes(batch)) for live in lives)


# The worst operators.


@given(graphs(), batches())
def test_the_kept_operators_are_the_worst_of_any_batch(graph: Graph, batch: Batch) -> None:
    every = tuple(node.live for node in graph if node.name not in CASTS)
    assert worst(largest_live(graph), batch) == worst(every, batch)


@given(graphs())
def test_no_kept_operator_is_below_another(graph: Graph) -> None:
    kept = largest_live(graph)
    assert kept
    assert set(kept) <= {node.live for node in graph}
    for one in kept:
        others = [other for other in kept if other is not one]
        assert not any(all(a <= b for a, b in zip(one, other, strict=True)) for other in others)


@given(models(), engines())
def test_casts_of_logits_are_not_among_the_operators(model: ModelSpec, engine: EngineSpec) -> None:
    plain = engine.model_copy(update={"passes": {}})
    cast = engine.model_copy(update={"passes": {"logits": Passes(tensors=1e6, kernels=1)}})
    without, with_cast = build(model, plain, HALF, 1), build(model, cast, HALF, 1)
    assert len(with_cast) == len(without) + 1
    assert largest_live(with_cast) == largest_live(without)


@given(models(), precisions())
def test_callers_of_an_eager_engine_keep_the_inputs_of_a_branch(model: ModelSpec, precision: PrecisionSpec) -> None:
    stream_bytes = model.hidden * precision.activation_bytes
    for kind, streams in (("fused", 1), ("eager", 2)):
        graph = build(model, IDEAL.model_copy(update={"kind": kind}), precision, 1)
        for node in graph:
            inside = node.role in {"attention", "ffn"}
            assert node.beside_bytes == (streams * stream_bytes if inside else 0.0), node.name


@given(st.sampled_from((1.0, 2.0, 5.0)), batches())
def test_a_pass_in_several_kernels_holds_the_tensors_of_one(kernels: float, batch: Batch) -> None:
    op = Elementwise(width=30.0, passes=10.0, activation_bytes=2.0)
    node = Node("pass", "ffn", op, kernels=kernels, beside_bytes=7.0)
    assert node.live.bytes(batch) == batch.tokens * (30.0 * 10.0 * 2.0 / kernels + 7.0)
    product = Node("product", "ffn", Linear(30.0, 70.0, 2.0, 2.0), kernels=kernels, beside_bytes=7.0)
    assert product.live.bytes(batch) == batch.tokens * (100.0 * 2.0 + 7.0)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (Linear(3.0, 5.0, 0.5, 2.0), Live(16.0)),
        (Linear(3.0, 5.0, 0.5, 2.0, last_only=True), Live(6.0, 10.0)),
        (Elementwise(3.0, 4.0, 2.0), Live(24.0)),
        (Elementwise(3.0, 4.0, 2.0, last_only=True), Live(0.0, 24.0)),
        (AllReduce(3.0, 4.0, 2.0), Live(12.0)),
        (Transfer(3.0, 2.0, with_mask=True), Live(12.0, 0.0, 4.0)),
        (MaterialisedAttention(6.0, 2.0, 5.0, 2.0, 1.0, True), Live(2 * (6 + 2) * 5 * 2.0, 0.0, 2 * 6 * 2.0)),
    ],
)
def test_live_tensors_of_an_operator_by_hand(op: lpm.ops.base.AbstractOp, expected: Live) -> None:
    assert op.live == expected


def test_bytes_are_of_tokens_sequences_and_pairs() -> None:
    """3 sequences of 4 new and 6 old tokens: 12 tokens, 3 sequences, 3 x 4 x 10 pairs."""
    batch = Batch.of([Group(3.0, 4.0, 6.0)])
    assert Live(2.0, 5.0, 7.0).bytes(batch) == 12 * 2.0 + 3 * 5.0 + 120 * 7.0
    assert Live().bytes(batch) == 0.0


@pytest.mark.parametrize(
    ("engine", "values"),
    [
        ("ideal", 4096 + 4096 + 2 * 11008),  # residual, input and output of the two products side by side
        ("vllm", 4096 + 3 * 11008),  # residual, both products and what their activation writes
    ],
)
def test_the_worst_operator_of_llama_2_7b_by_hand(engine: str, values: int) -> None:
    graph = build(load(ModelSpec, "llama-2-7b"), load(EngineSpec, engine), HALF, 1)
    one_token = Batch.uniform(1.0, 1.0, 0.0)
    layer = tuple(node.live for node in graph if node.role != "head")
    assert worst(layer, one_token) == 2.0 * values


def test_written_scores_outgrow_the_products_with_the_length() -> None:
    """Of 32 heads, scores before and after the softmax at 2 bytes a pair; residual, inputs and outputs beside them."""
    graph = build(load(ModelSpec, "llama-2-7b"), load(EngineSpec, "fastertransformer"), HALF, 1)
    for length in (512.0, 2048.0):
        by_hand = length * 2 * (4096 + 2 * (32 + 32) * 128) + length**2 * 2 * 32 * 2
        assert worst(largest_live(graph), Batch.uniform(1.0, length, 0.0)) == by_hand


# Logits.


@given(models(heads=("lm", "pooler", "none"), encoders=True), engines(), precisions(), st.booleans())
def test_logits_are_held_as_the_engine_holds_them(
    model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec, wide: bool
) -> None:
    model = model.model_copy(update={"wide_logits": wide})
    row_bytes = 0.0
    for kind in engine.logits_held:
        is_wide = kind == "float32" or (kind == "model" and wide)
        row_bytes += model.vocab * (4.0 if is_wide else precision.activation_bytes)
    expected = Live(row_bytes, 0.0) if engine.logits == "all" else Live(0.0, row_bytes)
    assert held_logits(model, engine, precision) == (expected if model.head == "lm" else Live())


@pytest.mark.parametrize(
    ("model", "engine", "precision", "token_bytes", "sequence_bytes"),
    [
        ("llama-2-7b", "vllm", "w16a16", 0, 32000 * (2 + 4)),
        ("llama-2-7b", "hf-transformers", "w16a16", 0, 32000 * (4 + 4)),  # its reference casts to 32 bits
        ("opt-1.3b", "pytorch-forward", "w16a16", 50272 * (2 + 2), 0),
        ("opt-1.3b", "pytorch-forward", "fp32", 50272 * (4 + 4), 0),
        ("llama-2-7b", "llama.cpp", "w16a16", 0, 0),
        ("bert-base", "pytorch-forward", "w16a16", 0, 0),
    ],
)
def test_logits_by_hand(model: str, engine: str, precision: str, token_bytes: int, sequence_bytes: int) -> None:
    held = held_logits(load(ModelSpec, model), load(EngineSpec, engine), load(PrecisionSpec, precision))
    assert held == Live(float(token_bytes), float(sequence_bytes))
