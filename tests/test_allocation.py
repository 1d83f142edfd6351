"""How an engine allocates: what each device stores, holds beside it, and may take."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.allocation import Allocation, Buffer
from llm_perf_model.case import Case, make_case
from llm_perf_model.graph.stack import build, weights_bytes
from llm_perf_model.liveness import held_logits, largest_live
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.engine import Cache, EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.layout import LayoutSpec
from llm_perf_model.specs.model import LayerGroup, ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .strategies import TPS, cases, engines, models, precisions_on, spec_parameters

HALF = load(PrecisionSpec, "w16a16")
A100 = load(GpuSpec, "a100-sxm-40gb")
POSITIONS = ("learned", "rotary", "alibi", "none")


def of(
    model: ModelSpec, engine: EngineSpec, tp: int = 1, layer_split: int = 1, precision: PrecisionSpec = HALF
) -> Allocation:
    return make_case(model, A100, engine, precision, LayoutSpec(tp=tp, layer_split=layer_split)).allocation


def named(model: str, engine: str, tp: int = 1, layer_split: int = 1) -> Allocation:
    return of(load(ModelSpec, model), load(EngineSpec, engine), tp, layer_split)


# What the engine says.


@given(cases())
def test_the_choices_of_the_engine_are_kept(case: Case) -> None:
    a, engine = case.allocation, case.engine
    assert a.cache == engine.cache_of(case.model.position)
    assert (a.context_bytes, a.graph_bytes) == (engine.context_bytes, engine.graph_bytes or 0.0)
    assert (a.pass_tokens, a.pass_sequences) == (engine.pass_tokens, engine.pass_sequences or 0.0)
    assert a.overallocation == (engine.overallocation or 1.0) >= 1.0
    assert a.pool_fraction == (engine.pool_fraction or 1.0)
    assert a.pool_of_free == (engine.pool_of == "free")
    assert a.block_tokens == (engine.block_tokens if a.cache == "paged" else 1)
    assert (a.buffer is None) == (engine.workspace is None)
    assert a.live == largest_live(case.graph)
    assert a.logits == held_logits(case.model, engine, case.precision)
    assert a.capacity_bytes == case.gpu.capacity_bytes


def test_an_engine_that_says_nothing_takes_the_whole_device_and_no_more_than_it_needs() -> None:
    a = named("llama-2-7b", "ideal")
    assert (a.cache, a.block_tokens, a.overallocation) == ("contiguous", 1.0, 1.0)
    assert (a.pass_tokens, a.pass_sequences, a.buffer) == (None, 0.0, None)
    assert a.context_bytes == a.graph_bytes == a.comm_buffer_bytes == 0.0
    assert a.limit_bytes == a.capacity_bytes == A100.usable_bytes


@given(cases())
def test_a_pool_of_the_device_limits_all_and_a_pool_of_the_rest_only_the_cache(case: Case) -> None:
    a = case.allocation
    assert replace(a, pool_of_free=True).limit_bytes == a.capacity_bytes
    assert replace(a, pool_of_free=False, pool_fraction=0.25).limit_bytes == 0.25 * a.capacity_bytes


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", names(EngineSpec))
def test_only_deepspeed_concatenates_by_the_positions_of_a_model(name: str, position: str) -> None:
    engine = load(EngineSpec, name)
    grows = name == "deepspeed-inference" and position == "alibi"
    assert engine.cache_of(position) == ("concatenated" if grows else engine.cache)


@pytest.mark.parametrize(
    ("engine", "cache", "copies"),
    [
        ("hf-eager", "concatenated", True),
        ("hf-dynamic-cache", "concatenated_by_layer", True),
        ("vllm", "paged", False),
        ("fastertransformer", "contiguous", False),
        ("pytorch-forward", "none", False),
    ],
)
def test_a_cache_that_is_concatenated_is_copied_in_the_graph(engine: str, cache: str, copies: bool) -> None:
    case = lpm.estimate("llama-2-7b", engine=engine, output_len=1).case
    assert case.allocation.cache == cache
    assert EngineSpec.concatenates(case.allocation.cache) == copies
    assert any(node.name == "cache_concat" for node in case.graph) == copies


@given(cases())
def test_a_capacity_is_what_a_process_can_allocate(case: Case) -> None:
    gpu = case.gpu
    marketed = gpu.model_copy(update={"usable_bytes": None})
    assert gpu.usable_bytes is not None
    assert case.allocation.capacity_bytes == gpu.usable_bytes < marketed.capacity_bytes == gpu.hbm_bytes


@pytest.mark.parametrize("fraction", [0.3, 1.0])
@pytest.mark.parametrize("engine", ["vllm", "tensorrt-llm", "ideal"])
def test_a_request_may_set_the_fraction_of_the_pool(engine: str, fraction: float) -> None:
    of_file, given_ = (
        lpm.estimate("opt-1.3b", engine=engine, pool_fraction=f).case.allocation for f in (None, fraction)
    )
    assert given_ == replace(of_file, pool_fraction=fraction)


# Ranks.


def copied(model: ModelSpec, tp: int) -> float:
    """Weights that each further rank keeps whole, and copies of key-value heads that are fewer than ranks."""
    hidden = model.hidden
    norm = hidden * (2 if model.norm == "layernorm" and model.norm_bias else 1)
    whole = norm * (model.embedding_norm + model.final_norm)
    whole += hidden * (model.learned_rows + (model.token_types or 0))
    heads = 0
    for group in model.layers:
        whole += group.count * (group.norms * norm + _copied_of_a_layer(group, hidden))
        heads += group.count * _copied_columns(group, tp) * (hidden + group.attention.qkv_bias)
    return (tp - 1) * whole + heads


def _copied_of_a_layer(group: LayerGroup, hidden: int) -> int:
    """Biases of products whose outputs are summed, norms of queries and keys, the router."""
    a, f = group.attention, group.ffn
    own = hidden * f.experts if f.kind == "moe" else hidden * f.bias
    return hidden * a.out_bias + 2 * a.head_dim * a.qk_norm + own


def _copied_columns(group: LayerGroup, tp: int) -> int:
    a = group.attention
    return 2 * a.head_dim * (max(tp, a.kv_heads) - a.kv_heads)


@pytest.mark.parametrize("tp", TPS)
@given(models(), engines())
def test_weights_of_the_ranks_sum_to_the_whole_and_the_replicas(tp: int, model: ModelSpec, engine: EngineSpec) -> None:
    whole = spec_parameters(model)
    assert of(model, engine).weights_bytes == 2.0 * whole
    assert tp * of(model, engine, tp).weights_bytes == 2.0 * (whole + copied(model, tp))


@pytest.mark.parametrize("cache", get_args(Cache))
@pytest.mark.parametrize("tp", TPS)
@settings(max_examples=20)
@given(models(), engines(), precisions_on(A100))
def test_caches_of_the_ranks_sum_to_the_whole_and_the_replicas(
    tp: int, cache: Cache, model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec
) -> None:
    engine = engine.model_copy(update={"cache": cache})
    values = sum(g.count * (2 * g.attention.kv_heads * g.attention.head_dim) for g in model.layers)
    copies = sum(g.count * _copied_columns(g, tp) for g in model.layers)
    kept = engine.cache_of(model.position) != "none"
    one, many = of(model, engine, precision=precision), of(model, engine, tp, precision=precision)
    assert one.kv_token_bytes == kept * values * precision.kv_bytes
    assert tp * many.kv_token_bytes == kept * (values + copies) * precision.kv_bytes
    assert one.cache_tensors == many.cache_tensors == 2.0 * sum(g.count for g in model.layers)


@given(models(), engines(), st.sampled_from(TPS))
def test_only_ranks_that_exchange_hold_buffers(model: ModelSpec, engine: EngineSpec, tp: int) -> None:
    fabric = load(CollectiveSpec, "fabric")
    assert fabric.buffer_bytes
    assert of(model, engine, tp).comm_buffer_bytes == (fabric.buffer_bytes if tp > 1 else 0.0)


@pytest.mark.parametrize(("gpu", "kind"), [("a100-sxm-40gb", "fabric"), ("l4-pcie-24gb", "bus")])
def test_buffers_are_those_of_the_link(gpu: str, kind: str) -> None:
    held = load(CollectiveSpec, kind).buffer_bytes
    assert held
    assert lpm.estimate("opt-1.3b", gpu=gpu, tp=2).memory.comm_buffer_bytes == held
    assert lpm.estimate("opt-1.3b", gpu=gpu).memory.comm_buffer_bytes == 0.0
    assert lpm.estimate("opt-1.3b", gpu=gpu, engine="ideal", layer_split=2).memory.comm_buffer_bytes == 0.0


# Stages.


@given(models(), engines(), st.integers(1, 8))
def test_the_fullest_stage_holds_no_less_than_its_share(model: ModelSpec, engine: EngineSpec, most: int) -> None:
    layers = sum(group.count for group in model.layers)
    stages = min(most, layers)
    whole, stage = of(model, engine), of(model, engine, layer_split=stages)
    fullest = -(-layers // stages)
    assert whole.weights_bytes / stages * (1.0 - 1e-12) <= stage.weights_bytes <= whole.weights_bytes
    assert stage.kv_token_bytes == pytest.approx(whole.kv_token_bytes * fullest / layers, rel=1e-12)
    assert stage.cache_tensors == pytest.approx(2.0 * fullest, rel=1e-12)


@given(models(), engines(), precisions_on(A100), st.sampled_from(TPS))
def test_one_stage_holds_all_weights(model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec, tp: int) -> None:
    whole = weights_bytes(build(model, engine, precision, tp))
    assert of(model, engine, tp, precision=precision).weights_bytes == whole


@pytest.mark.parametrize(("stages", "fullest"), [(2, 16), (5, 7), (8, 4), (7, 5)])
def test_the_fullest_stage_of_llama_2_7b_by_hand(stages: int, fullest: int) -> None:
    """32 layers of 202,383,360 weights, a final norm of 4,096; embedding or head of 131,072,000 at one end."""
    inner = 32 * 202_383_360 + 4096
    a = named("llama-2-7b", "ideal", layer_split=stages)
    assert a.weights_bytes == pytest.approx(2.0 * (inner * fullest / 32 + 131_072_000), rel=1e-14)
    assert a.kv_token_bytes == 524_288 * fullest / 32
    assert a.cache_tensors == 2 * fullest


def test_a_tied_head_is_stored_once() -> None:
    """24 layers of a model with 2,048 x 50,272 tied scores, and 2,050 learned positions beside them."""
    model = load(ModelSpec, "opt-1.3b")
    assert model.tied_embeddings
    one, half = of(model, load(EngineSpec, "ideal")), of(model, load(EngineSpec, "ideal"), layer_split=2)
    ends = 2.0 * 2048 * (50272 + model.learned_rows)
    assert half.weights_bytes == (one.weights_bytes - ends) / 2 + ends


# A workspace.


def test_the_workspace_of_deepspeed_by_hand() -> None:
    """16 vectors of 16 heads x 128, 2 rows of 1,024 scores a head, the cache of 24 layers; 2 bytes a value."""
    vectors, scores, cached = 16 * 2048, 2 * 16 * 1024, 2 * 24 * 2048
    elsewhere = named("bloom-24l-2048h", "deepspeed-inference")
    assert elsewhere.cache == "concatenated"
    assert elsewhere.buffer == Buffer(
        2.0 * (vectors + scores + cached), 2.0 * (vectors + scores), 1024.0, 500 * 2.0**20
    )
    bloom = load(ModelSpec, "bloom-24l-2048h")
    within = of(bloom.model_copy(update={"position": "none"}), load(EngineSpec, "deepspeed-inference")).buffer
    assert within == elsewhere.buffer._replace(held_bytes=elsewhere.buffer.token_bytes, cache_bytes=2.0 * cached)


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_ranks_share_the_cache_of_a_workspace_but_not_its_vectors(tp: int) -> None:
    buffer = named("bloom-24l-2048h", "deepspeed-inference", tp).buffer
    assert buffer is not None
    assert buffer.held_bytes == 2.0 * (16 * 2048 + 2 * 16 * 1024)
    assert buffer.token_bytes - buffer.held_bytes == 2.0 * 2 * 24 * 2048 / tp


def test_a_narrower_cache_makes_a_smaller_workspace() -> None:
    engine = load(EngineSpec, "deepspeed-inference")
    narrow = HALF.model_copy(update={"kv_bytes": 1.0})
    buffer = of(load(ModelSpec, "opt-1.3b"), engine, precision=narrow).buffer
    assert buffer is not None
    vectors, scores, cached = 16 * 2048, 2 * 32 * 1024, 2 * 24 * 2048
    assert buffer.token_bytes == 2.0 * (vectors + scores) + cached
