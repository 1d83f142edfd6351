"""Every kind of mixer: weights by published counts, memory of a sequence, shares of ranks, and sums over steps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.generate import decode
from llm_perf_model.graph.stack import active_parameters, build, kv_bytes_per_token, parameters, state_bytes
from llm_perf_model.ops.attention import FusedAttention
from llm_perf_model.ops.base import Cost
from llm_perf_model.ops.batch import UNLIMITED, Batch, Group
from llm_perf_model.ops.moe import ExpertLinear
from llm_perf_model.ops.node import Graph, running
from llm_perf_model.ops.state import ChannelConvolution, StateUpdate
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .mixers import (
    COMPRESSED,
    KEYS_AS_VALUES,
    LATENT,
    PUBLISHED,
    SEEING_CHUNKS,
    SINKS,
    STATES_ALONE,
    gated,
    gqa,
    layers,
    model,
)
from .strategies import groups, wholes

every_model = pytest.mark.parametrize("name", PUBLISHED)
PLAIN = load(PrecisionSpec, "w16a16")


def graph_of(spec: ModelSpec, tp: int = 1, engine: str = "ideal", **changed: object) -> Graph:
    return build(spec, load(EngineSpec, engine).model_copy(update=changed), PLAIN, tp)


def work(graph: Graph, batch: Batch) -> Cost:
    """All fields of the whole pass."""
    costs = [(node.count, node.cost(batch)) for node in running(graph, "always")]
    return Cost(*(sum(count * cost[i] for count, cost in costs) for i in range(len(Cost._fields))))


@every_model
def test_weights_are_as_many_as_published(name: str) -> None:
    spec, published, active = PUBLISHED[name]
    graph = graph_of(spec)
    assert parameters(graph) == pytest.approx(published, rel=0.003 if name != "gemma-4-26B-A4B" else 0.001)
    assert active_parameters(graph, spec.active_counts) == pytest.approx(active, rel=0.02)


@every_model
def test_ranks_keep_at_least_the_whole_and_little_twice(name: str) -> None:
    """Routers, norms, and what narrows keys for all heads are whole on each rank."""
    spec = PUBLISHED[name][0]
    whole, shared = graph_of(spec), graph_of(spec, tp=2)
    assert parameters(whole) <= 2.0 * parameters(shared) <= 1.03 * parameters(whole)
    batch = Batch.of([Group(2.0, 300.0, 0.0), Group(3.0, 1.0, 700.0)])
    assert work(whole, batch).flops <= 2.0 * work(shared, batch).flops <= 1.1 * work(whole, batch).flops


@every_model
@pytest.mark.parametrize("engine", ["vllm", "hf-transformers"])
def test_a_decode_in_closed_form_is_the_loop_over_its_steps(name: str, engine: str) -> None:
    """Windows fill up and chunks begin on the way; attention and states take what their steps take one by one."""
    spec, past, steps = PUBLISHED[name][0], 8100.0, 150.0
    case = lpm.estimate(spec, gpu="h100", engine=engine, tp=8).case
    whole = decode(case.graph, case.machine, 3.0, past, steps)
    alone = [work(case.graph, Batch.uniform(3.0, 1.0, past + i)) for i in range(int(steps))]
    assert whole.flops == pytest.approx(sum(cost.flops for cost in alone), rel=1e-9)
    assert whole.hbm_bytes == pytest.approx(sum(cost.hbm_bytes for cost in alone), rel=1e-9)
    seconds = [decode(case.graph, case.machine, 3.0, past + i, 1.0).time_s for i in range(0, int(steps), 10)]
    assert whole.time_s / steps == pytest.approx(np.mean(seconds), rel=0.01)


DOCUMENTED = {
    "deepseek-v3": (LATENT, 70_272),
    "gpt-oss-20b": (SINKS, 49_152),
    "gemma-2-9b": (model(3584, 256000, layers(42, gqa(16, 8, 256), gated(14336)), tied=True), 344_064),
    "mistral-7b": (model(4096, 32000, layers(32, gqa(32, 8, 128), gated(14336))), 131_072),
    "llama-3-70b": (model(8192, 128256, layers(80, gqa(64, 8, 128), gated(28672))), 327_680),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_token_adds_what_is_documented(name: str) -> None:
    """2 x layers x key heads x values x 2 bytes; of latent vectors 61 x (512 + 64) x 2 bytes, on every rank."""
    spec, documented = DOCUMENTED[name]
    assert kv_bytes_per_token(graph_of(spec)) == documented
    ranks = 8 if name != "deepseek-v3" else 1
    assert ranks * kv_bytes_per_token(graph_of(spec, tp=8)) == documented


def test_a_cache_of_windows_stops_growing() -> None:
    """Of 24 layers 12 see 128 tokens: beyond them a token adds half as much; short sequences keep as much as ever."""
    whole, rolling = (
        lpm.estimate(SINKS, gpu="h100", engine=load(EngineSpec, "generic-serving").model_copy(update=changed),
                     batch_size=4, input_len=np.array([64.0, 1008.0]), output_len=16)
        for changed in ({"window_cache": False}, {"window_cache": True})
    )  # fmt: skip
    saved = whole.memory.kv_cache_bytes - rolling.memory.kv_cache_bytes
    assert saved == pytest.approx([0.0, 4 * (1024 - 128) * 49_152 / 2])
    assert np.array_equal(whole.total_s, rolling.total_s)
    assert np.all(rolling.memory.pool.concurrency >= whole.memory.pool.concurrency)


def test_a_state_is_kept_for_each_sequence_however_long_it_is() -> None:
    """64 layers of 80 heads of 64 x 128 values in 32 bits, and 3 tokens of 5376 channels in 16."""
    assert state_bytes(graph_of(STATES_ALONE)) == 64 * (80 * 64 * 128 * 4 + 3 * 5376 * 2)
    short, long = (
        lpm.estimate(STATES_ALONE, gpu="h100", engine="vllm", batch_size=8, input_len=n).memory for n in (16, 8000)
    )
    assert short.kv_cache_bytes == long.kv_cache_bytes == 8 * state_bytes(graph_of(STATES_ALONE))
    assert short.pool.concurrency >= long.pool.concurrency > 0.0


def test_entries_of_a_compressed_past_by_hand() -> None:
    """A token adds 1/4 and 1/128 of 512 values, and 1/4 of 128 of an index in 8 bits; a window of 128 stays."""
    graph = graph_of(COMPRESSED)
    assert kv_bytes_per_token(graph) == 21 * (512 * 2 + 128) / 4 + 20 * 512 * 2 / 128
    near = next(node.op for node in graph if node.name.endswith("layers1.attention"))
    far = next(node.op for node in graph if node.name.endswith("layers1.attention_entries"))
    assert isinstance(near, FusedAttention) and isinstance(far, FusedAttention)
    step = Group(1.0, 1.0, 99_999.0)
    assert (near.keys(step), far.keys(step)) == (128.0, 512.0)
    assert far.keys(Group(1.0, 1.0, 1023.0)) == 256.0


@given(wholes(0, 200), wholes(1, 200), wholes(1, 64))
def test_pairs_of_chunks_are_those_of_each_query(past: float, new: float, chunk: float) -> None:
    group = Group(1.0, new, past)
    seen = [(past + i) % chunk + 1.0 for i in range(int(new))]
    assert group.chunk_pairs(chunk) == sum(seen)
    assert group.chunk_keys(chunk) == past + new - chunk * (past // chunk)
    op = FusedAttention(4.0, 2.0, 8.0, 2.0, 2.0, chunk_tokens=chunk)
    assert op.cost(Batch.of([group])).flops == 4.0 * sum(seen) * 4 * 8


@given(groups(), st.sampled_from((8.0, 64.0)))
def test_one_chunk_is_plain_attention(group: Group, dim: float) -> None:
    plain = FusedAttention(4.0, 2.0, dim, 2.0, 2.0)
    chunked = FusedAttention(4.0, 2.0, dim, 2.0, 2.0, chunk_tokens=1024.0)
    assert chunked.cost(Batch.of([group])) == plain.cost(Batch.of([group]))
    assert plain.attention_chunk_tokens == UNLIMITED


def test_values_joined_to_keys_are_read_once() -> None:
    """One key of 576 values whose first 512 are the value: 576 values are cached, 1088 are multiplied."""
    op = FusedAttention(128.0, 1.0, 576.0, 2.0, 2.0, value_dim=512.0, joined=True)
    cost = op.cost(Batch.uniform(1.0, 1.0, 999.0))
    assert op.kv_bytes_per_token == 576 * 2
    assert cost.flops == 2 * 1000 * 128 * 1088
    assert cost.kv_bytes == 1001 * 576 * 2


def test_borrowed_keys_are_read_and_neither_made_nor_kept() -> None:
    own, lent = (model(512, 1000, layers(1, gqa(8, 2, 64, borrowed=borrowed), gated(64))) for borrowed in (False, True))
    assert parameters(graph_of(own)) - parameters(graph_of(lent)) == 512 * 2 * 2 * 64
    assert kv_bytes_per_token(graph_of(lent)) == 0.0
    step = Batch.uniform(1.0, 1.0, 99.0)
    assert work(graph_of(own), step).kv_bytes - work(graph_of(lent), step).kv_bytes == 2 * 2 * 64 * 2


def test_a_product_of_keys_that_makes_the_values_too_is_cached_twice() -> None:
    both, one = (gqa(16, 2, 512, values_are_keys=shared) for shared in (False, True))
    graphs = [graph_of(model(2816, 1000, layers(1, mixer))) for mixer in (both, one)]
    assert parameters(graphs[0]) - parameters(graphs[1]) == 2816 * 2 * 512
    assert kv_bytes_per_token(graphs[0]) == kv_bytes_per_token(graphs[1])
    assert parameters(graph_of(KEYS_AS_VALUES)) < 25.3e9


@pytest.mark.parametrize(("gate", "width"), [("value", 8 * 64), ("head", 8)])
def test_a_gate_is_a_product_of_the_input(gate: str, width: int) -> None:
    plain, gate_of = (graph_of(model(512, 1000, layers(1, gqa(8, 2, 64, gate=each)))) for each in (None, gate))
    assert parameters(gate_of) - parameters(plain) == 512 * width


def test_two_mixers_side_by_side_add_up() -> None:
    """One residual and one norm for both."""
    state = STATES_ALONE.layers[0].attention
    attention = gqa(8, 2, 64)
    both = layers(1, attention, gated(64)).model_copy(update={"beside_attention": state})
    alone, beside, joined = (
        parameters(graph_of(model(512, 1000, group)))
        for group in (layers(1, attention, gated(64)), layers(1, state, None, norms=0), both)
    )
    ends = parameters(graph_of(model(512, 1000, layers(1, None, gated(64), norms=0)))) - 3 * 512 * 64
    assert joined == alone + beside - ends


def test_layers_that_run_again_keep_their_weights_once() -> None:
    group = layers(12, gqa(8, 8, 64), gated(2048))
    each, one = (graph_of(model(512, 1000, group.model_copy(update={"stored": n}))) for n in (None, 1))
    beside = 2 * 1000 * 512 + 512
    assert parameters(each) - beside == 12 * (parameters(one) - beside)
    assert work(each, Batch.uniform(1.0, 9.0, 0.0)) == work(one, Batch.uniform(1.0, 9.0, 0.0))


def test_predicting_modules_count_only_where_they_are_used() -> None:
    """One module: two norms and a product beside a layer, and the model's own table and head."""
    graph = graph_of(LATENT)
    extra = parameters(graph, predicts=True) - parameters(graph)
    assert extra == pytest.approx(11.5e9, rel=0.02)
    assert {node.name.split(".")[0] for node in graph if node.runs == "prediction"} == {"prediction"}
    without = graph_of(LATENT.model_copy(update={"prediction": None}))
    assert parameters(without) == parameters(graph)
    assert kv_bytes_per_token(without) == kv_bytes_per_token(graph)


@given(wholes(1, 8), wholes(2, 500))
def test_a_state_is_updated_token_by_token_or_in_chunks(seqs: float, new: float) -> None:
    op = StateUpdate(4.0, 8.0, 16.0, 3.0, 64.0, width=200.0, state_bytes=4.0, activation_bytes=2.0)
    step, chunk = op.cost(Batch.uniform(seqs, 1.0, 10.0)), op.cost(Batch.uniform(seqs, new, 10.0))
    assert step.flops == 2.0 * seqs * 4 * 3 * 8 * 16
    assert chunk.flops == new * (step.flops + 2.0 * seqs * 4 * 64 * (8 + 16))
    assert step.kv_bytes == chunk.kv_bytes == 2.0 * seqs * op.sequence_bytes == 2.0 * seqs * 4 * 8 * 16 * 4


def test_a_short_convolution_keeps_the_tokens_before_the_last() -> None:
    op = ChannelConvolution(96.0, 4.0, weight_bytes=2.0, activation_bytes=2.0, bias=True)
    cost = op.cost(Batch.uniform(2.0, 5.0, 0.0))
    assert (op.parameters, op.sequence_bytes) == (96 * 5, 3 * 96 * 2)
    assert cost == Cost(2 * 10 * 96 * 4, 96 * 5 * 2, 2 * 10 * 96 * 2, 2 * 2 * 3 * 96 * 2)


@settings(max_examples=50)
@given(wholes(1, 3000), st.sampled_from(((8.0, 2.0), (128.0, 8.0), (256.0, 8.0))))
def test_visited_experts_are_those_that_an_even_router_is_expected_to_choose(
    tokens: float, sizes: tuple[float, float]
) -> None:
    experts, visits = sizes
    op = ExpertLinear(experts, visits, 4.0, 8.0, 2.0, 2.0, 2.0, bias=True)
    visited = op.visited(Batch.uniform(1.0, tokens, 0.0))
    assert visited == pytest.approx(experts * (1.0 - (1.0 - visits / experts) ** tokens))
    assert op.cost(Batch.uniform(1.0, tokens, 0.0)).weight_bytes == pytest.approx(visited * (4 + 1) * 8 * 2)
    assert op.parameters == experts * 5 * 8


def test_an_encoder_of_images_sees_every_patch_once() -> None:
    """336 x 336 pixels are 24 x 24 patches and a class token: 34 layers of four products and a feed-forward."""
    case_of = {"gpu": "h200", "engine": "vllm", "tp": 8, "input_len": 2048, "output_len": 4}
    plain, one, two = (lpm.estimate(SEEING_CHUNKS, images=n, image_size="336x336", **case_of) for n in (0, 1, 2))
    added = one.prefill.flops - plain.prefill.flops
    products = 34 * (4 * 1408**2 + 2 * 1408 * 5632) / 8
    whole = 14 * 14 * 3 * 1408 + (4 * 1408 * 4096 + 4096**2 + 4096 * 5120) / 4
    pairs = 34 * 4 * 577**2 * 1408 / 8
    assert added == pytest.approx(2 * 577 * (products + whole) + pairs, rel=0.03)
    assert two.prefill.flops - plain.prefill.flops == pytest.approx(2.0 * added)
    assert plain.ttft_s < one.ttft_s < two.ttft_s
    assert np.all(one.decode_s == plain.decode_s)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"images": 4}, "images: are 256 tokens each, which are part of the prompt; give input_len of at least 1024, "
                        "or fewer or smaller images"),
        ({"images": -1}, "images: is -1; must be a whole number of at least 0"),
        ({"images": 1, "image_size": "448"}, "image_size: is '448'; must be height and width in pixels, as 448x448"),
    ],
)  # fmt: skip
def test_images_that_cannot_be_are_refused(fields: dict[str, object], text: str) -> None:
    with pytest.raises(lpm.RequestError) as caught:
        lpm.estimate(SEEING_CHUNKS, gpu="h200", tp=8, input_len=512, **fields)
    assert text in str(caught.value)


def test_images_need_an_encoder_of_them() -> None:
    with pytest.raises(lpm.InfeasibleError, match=r"^images: llama-2-7b has no encoder of images; leave images out$"):
        lpm.estimate("llama-2-7b", gpu="h200", images=1)
