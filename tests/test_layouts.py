"""Layouts: what ranks share, what they tell each other, over which links, and what they wait for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.case import Case, make_case
from llm_perf_model.exchange import exchange_s, flat, nested_ring, ring
from llm_perf_model.graph.parts import Split
from llm_perf_model.graph.stack import build, parameters
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.collective import AllGather, AllReduce, AllToAll, ContextExchange, Transfer
from llm_perf_model.ops.dense import Linear
from llm_perf_model.ops.moe import ExpertLinear
from llm_perf_model.ops.node import Node
from llm_perf_model.ops.router import Router
from llm_perf_model.placement import joints
from llm_perf_model.rates import Exchange, Machine
from llm_perf_model.roofline import Pipeline
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.layout import LayoutSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .strategies import cases, powers

H100 = "h100-sxm-80gb"
NETWORK = "infiniband-ndr-400g"
EXPERTS = "mixtral-8x7b"
"""32 heads, 8 key heads, 8 experts of which a token visits 2, 32 layers."""

PRODUCTS = (Linear, ExpertLinear)


def case_of(model: str = EXPERTS, gpu: str = H100, engine: str = "ideal", **layout: Any) -> Case:
    specs = load(ModelSpec, model), load(GpuSpec, gpu), load(EngineSpec, engine), load(PrecisionSpec, "w16a16")
    return make_case(*specs, LayoutSpec(**layout))


def estimate(model: str = EXPERTS, **options: Any) -> lpm.Estimate:
    fields = {"gpu": H100, "engine": "ideal", "batch_size": 64, "input_len": 512, "output_len": 65, **options}
    return lpm.estimate(model, **fields)


def named(case: Case, name: str) -> Node:
    found = [node for node in case.graph if node.name.endswith(name)]
    assert len(found) == 1, name
    return found[0]


# What each rank has.


@given(cases())
def test_a_layout_of_ones_is_no_layout(case: Case) -> None:
    parts = (case.model, case.gpu, case.engine, case.precision)
    plain, ones = make_case(*parts, LayoutSpec()), make_case(*parts, LayoutSpec(attention_dp=1, cp=1, ep=1, pp=1))
    assert plain.graph == ones.graph == build(case.model, case.engine, case.precision, 1)
    assert plain.machine == ones.machine


@given(
    st.sampled_from((1, 2, 4)),
    st.sampled_from((1, 2, 4)),
    st.sampled_from((1, 2)),
    st.sampled_from((1, 2, 4, 8)),
    st.sampled_from((1, 64)),
)
def test_ranks_do_and_keep_the_whole_together(tp: int, attention_dp: int, cp: int, ep: int, new: int) -> None:
    """Products and attention of all ranks add up; experts are kept once, the rest once for each group of tp ranks."""
    layout = {"tp": tp, "attention_dp": attention_dp, "cp": cp, "ep": ep}
    stage = tp * attention_dp * cp
    if stage % ep:
        with pytest.raises(lpm.InfeasibleError, match=f"ep = {ep} does not divide the {stage} ranks"):
            case_of(**layout)
        return
    imbalance = {"expert_imbalance": 1.0} if ep > 1 else {}
    whole, rank = case_of(), case_of(**layout, **imbalance, nodes=None)
    batch_size = 16.0
    batches = [Batch.uniform(seqs, float(new), 512.0) for seqs in (batch_size, batch_size / (attention_dp * cp))]
    for node in rank.graph:
        counterpart = next((other for other in whole.graph if other.name == node.name), None)
        if counterpart is None or node.name == "router" or not (isinstance(node.op, PRODUCTS) or node.op.grows):
            continue
        own, all_ranks = node.cost(batches[1]).flops, counterpart.cost(batches[0]).flops
        assert own * stage == pytest.approx(all_ranks, rel=1e-12), node.name
        keepers = stage if isinstance(node.op, ExpertLinear) else tp
        assert node.op.parameters * keepers == pytest.approx(counterpart.op.parameters, rel=1e-12), node.name


def test_experts_of_a_rank_are_visited_by_the_tokens_of_all() -> None:
    """8 ranks with 4 sequences each and one expert: 1 - (1 - 2/8)^32 of it is read, and all of it kept."""
    node = named(case_of(attention_dp=8, ep=8), "experts_down")
    assert isinstance(node.op, ExpertLinear)
    seen = node.seen(Batch.uniform(4.0, 1.0, 100.0))
    assert seen.tokens == 32.0
    assert node.op.visited(seen) == pytest.approx(1.0 - 0.75**32, rel=1e-12)
    assert node.op.parameters == 14336 * 4096


def test_experts_that_ranks_do_not_share_evenly_are_those_of_the_fullest() -> None:
    assert Router(8.0, 2.0, 3.0).kept == 3.0


def test_attention_groups_keep_caches_of_their_own() -> None:
    one, eight = estimate(engine="vllm"), estimate(engine="vllm", attention_dp=8, ep=8)
    assert eight.memory.kv_cache_bytes == one.memory.kv_cache_bytes / 8
    assert eight.case.layout.ranks == eight.case.layout.working_ranks == 8
    assert estimate(attention_dp=8, batch_size=9).prefill_s == estimate(attention_dp=8, batch_size=16).prefill_s


def test_contexts_share_the_cache_and_the_tokens() -> None:
    one, four = estimate("llama-2-70b"), estimate("llama-2-70b", cp=4)
    assert four.memory.kv_cache_bytes == one.memory.kv_cache_bytes / 4
    own, shared = (sum(works[0].cost.kv_bytes for works in e.decode.works()) for e in (one, four))
    assert shared == pytest.approx(own / 4, rel=1e-12)
    assert four.decode.flops == pytest.approx(one.decode.flops / 4, rel=1e-12)
    assert four.memory.weights_bytes == one.memory.weights_bytes


def test_norms_shared_shares_norms_read_a_share_and_send_as_much() -> None:
    whole, shared = case_of(tp=4), case_of(tp=4, sequence_parallel=True)
    batch = Batch.uniform(4.0, 64.0, 0.0)
    for name in ("norm", "final_norm"):
        own = [node for node in shared.graph if node.role == "norm" and node.name.endswith(name)]
        assert own
        assert all(node.seen(batch).tokens == 64.0 for node in own)
    assert named_total(shared, batch) == pytest.approx(named_total(whole, batch), rel=1e-12)
    names = [node.name for node in shared.graph if node.role == "communication"]
    assert names[:-1] == ["embedding_reduce_scatter", "embedding_all_gather", "reduce_scatter", "all_gather"]


def named_total(case: Case, batch: Batch) -> float:
    """Bytes that a rank sends in a pass, without those of logits."""
    sent = (node.count * node.cost(batch).sent_bytes for node in case.graph if node.name != "logits_all_gather")
    return float(sum(sent))


# Stages.


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_one_micro_batch_takes_the_sum_of_the_stages(stages: int) -> None:
    alone, piped = estimate("llama-2-7b"), estimate("llama-2-7b", pp=stages, micro_batches=1)
    sent_s = sum(works[0].timing.comm_s for works in piped.prefill.works()) * stages
    assert piped.prefill_s == pytest.approx(alone.prefill_s + sent_s, rel=1e-12)
    assert piped.prefill.flops == pytest.approx(alone.prefill.flops / stages, rel=1e-12)
    assert piped.prefill.totals.bubble_s == pytest.approx(piped.prefill_s * (1.0 - 1.0 / stages), rel=1e-9)


@given(st.integers(2, 16), st.integers(1, 64), powers(-3.0, 1.0))
def test_bubbles_of_even_stages_by_hand(stages: int, parts: int, stage_s: float) -> None:
    """(m + p - 1) steps of a stage where m would do; in steady state as many as stages or parts are."""
    pipeline = Pipeline(float(stages), float(parts), 1.0 / stages)
    assert pipeline.time_s(stages * stage_s, stage_s) == pytest.approx((parts + stages - 1) * stage_s, rel=1e-12)
    steady = pipeline._replace(steady=True).time_s(stages * stage_s, stage_s)
    assert steady == pytest.approx(max(stages, parts) * stage_s, rel=1e-12)


def test_bubbles_vanish_as_micro_batches_grow_in_number() -> None:
    shares = []
    for parts in (1, 2, 4, 8, 16, 32):
        e = estimate("llama-2-7b", pp=4, micro_batches=parts, batch_size=2 * parts, output_len=1)
        shares.append(e.prefill.totals.bubble_s / e.prefill_s)
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.7
    assert shares[-1] < 0.12


def test_as_many_micro_batches_as_stages_unless_sequences_are_fewer() -> None:
    layout = LayoutSpec(pp=4)
    assert layout.parts(np.array([1.0, 3.0, 4.0, 64.0])).tolist() == [1.0, 3.0, 4.0, 4.0]
    assert layout.pass_sequences(np.array([1.0, 3.0, 4.0, 64.0])).tolist() == [1.0, 1.0, 1.0, 16.0]
    assert LayoutSpec(pp=4, micro_batches=8).pass_sequences(64.0) == 8.0


def test_a_stage_keeps_its_layers_and_all_sequences() -> None:
    """40 layers in 3 stages: 14 in the fullest, the head beside them."""
    one, three = estimate("llama-2-13b", engine="vllm"), estimate("llama-2-13b", engine="vllm", pp=3, nodes=1)
    assert three.memory.kv_cache_bytes == pytest.approx(one.memory.kv_cache_bytes * 14 / 40, rel=1e-12)
    head = 32000 * 5120 * 2.0
    inner = one.memory.weights_bytes - 2.0 * head
    assert three.memory.weights_bytes == pytest.approx(inner * 14 / 40 + head, rel=1e-9)


def test_stages_wait_for_the_slowest_which_has_the_head() -> None:
    e = estimate("llama-2-7b", pp=2, micro_batches=2, output_len=2)
    t, head_s = (
        e.decode.totals,
        sum(works[0].timing.device_s for works in e.decode.works() if works[0].node.place == "last"),
    )
    others_s = sum(works[0].timing.device_s for works in e.decode.works()) - head_s
    assert e.decode_s == pytest.approx(2.0 * (others_s / 2.0 + head_s), rel=1e-2)
    assert t.bubble_s > 0.0


def test_a_breakdown_shows_bubbles_and_adds_up() -> None:
    e = estimate("llama-2-7b", engine="vllm", pp=4)
    records = [r for r in e.breakdown("ops").records if r["phase"] == "prefill"]
    assert sum(r["time_s"] for r in records) == pytest.approx(e.prefill_s, rel=1e-9)
    assert "pipeline_bubble" in {r["name"] for r in records}


def test_energy_is_that_of_all_stages() -> None:
    one, four = (estimate("llama-2-7b", output_len=1, **o) for o in ({}, {"pp": 4, "micro_batches": 1}))
    assert four.case.layout.working_ranks == 4
    assert four.prefill.flops * 4 == pytest.approx(one.prefill.flops, rel=1e-12)
    assert one.energy_j < four.energy_j < 4.0 * one.energy_j * four.prefill_s / one.prefill_s


# What ranks tell each other.


def test_all_to_all_by_hand() -> None:
    """4 ranks with 2 of 8 experts each, 2 picks: a token visits 4 (1 - C(6,2)/C(8,2)) = 13/7 ranks, 3/4 others."""
    router = Router(8.0, 2.0, 4.0, 1.0)
    assert router.holders(4.0) == pytest.approx(4.0 * (1.0 - 15.0 / 28.0), rel=1e-12)
    cost = AllToAll(100.0, 4.0, 2.0, router).cost(Batch.uniform(7.0, 1.0, 0.0))
    assert cost.comm_bytes == pytest.approx(7 * 100 * 2 * 13 / 7 * 3 / 4, rel=1e-12)
    assert (cost.comm_steps, cost.network_bytes, cost.network_steps) == (1.0, 0.0, 0.0)


def test_all_to_all_of_two_nodes_by_hand() -> None:
    """A token visits 2 (1 - C(4,2)/C(8,2)) = 11/7 of 2 nodes, half of them the other; inside, all its ranks but one."""
    router = Router(8.0, 2.0, 4.0, 1.0)
    cost = AllToAll(100.0, 4.0, 2.0, router, nodes=2.0).cost(Batch.uniform(7.0, 1.0, 0.0))
    assert cost.network_bytes == pytest.approx(7 * 100 * 2 * 11 / 7 / 2, rel=1e-12)
    assert cost.comm_bytes == pytest.approx(7 * 100 * 2 * 13 / 7 / 2, rel=1e-12)


def test_tokens_go_out_as_narrow_as_products_read_them_and_come_back_wide() -> None:
    e = lpm.estimate(EXPERTS, gpu=H100, engine="vllm", precision="fp8", attention_dp=8, ep=8, batch_size=64)
    out, back = (named(e.case, name).op for name in ("experts_dispatch", "experts_combine"))
    assert isinstance(out, AllToAll)
    assert isinstance(back, AllToAll)
    assert (out.value_bytes, back.value_bytes) == (1.0, 2.0)


@pytest.mark.parametrize(("experts", "picks", "ranks", "tokens"), [(64, 4, 8, 256), (256, 8, 32, 4096), (8, 2, 4, 100)])
def test_the_busiest_rank_is_as_busy_as_in_a_draw(experts: int, picks: int, ranks: int, tokens: int) -> None:
    """The excess over the mean within a tenth of that of 400 draws without replacement."""
    generator = np.random.default_rng(7)
    held = experts // ranks
    drawn = []
    for _ in range(400):
        order = np.argpartition(generator.random((tokens, experts)), picks, axis=1)[:, :picks]
        drawn.append(np.bincount((order // held).ravel(), minlength=ranks).max())
    excess = float(np.mean(drawn)) / (tokens * picks / ranks) - 1.0
    router = Router(float(experts), float(picks), float(ranks))
    assert router.imbalance(float(tokens)) - 1.0 == pytest.approx(excess, rel=0.1)


@given(st.sampled_from((2.0, 4.0, 8.0)), st.lists(powers(0.0, 6.0), min_size=2, max_size=4))
def test_more_tokens_spread_more_evenly(ranks: float, tokens: list[float]) -> None:
    router = Router(8.0, 2.0, ranks)
    found = router.imbalance(np.array(sorted(tokens)))
    assert np.all(np.diff(found) <= 1e-12)
    assert np.all((found >= 1.0) & (found <= ranks))
    assert Router(8.0, 2.0).imbalance(1.0) == 1.0
    assert Router(8.0, 2.0, ranks, 1.5).imbalance(1.0) == 1.5


def test_an_imbalance_that_is_given_counts() -> None:
    even, double = (estimate(attention_dp=8, ep=8, expert_imbalance=value) for value in (1.0, 2.0))
    experts = [
        sum(w[0].cost.flops for w in e.prefill.works() if isinstance(w[0].node.op, ExpertLinear))
        for e in (even, double)
    ]
    assert experts[1] == pytest.approx(2.0 * experts[0], rel=1e-12)
    assert even.prefill_s < estimate(attention_dp=8, ep=8).prefill_s < double.prefill_s


def test_keys_go_round_in_a_prefill_and_queries_in_a_decode_step() -> None:
    """4 ranks, 8 heads of 16 and 2 key heads: 64 values of keys a token against 2 x 128 of queries and results."""
    op = ContextExchange(128.0, 64.0 * 2.0, 4.0, 2.0)
    prefill, step = op.cost(Batch.uniform(1.0, 100.0, 0.0)), op.cost(Batch.uniform(1.0, 1.0, 1000.0))
    assert prefill.comm_bytes == 3 * 100 * 64 * 2
    assert step.comm_bytes == 3 * 2 * 128 * 2
    assert prefill.comm_steps == 3.0


# Links.

RANKS = st.sampled_from((2.0, 4.0, 8.0))


@given(RANKS, RANKS, powers(0.0, 10.0), powers(9.0, 12.0), powers(9.0, 11.0), powers(-7.0, -4.0), powers(-7.0, -4.0))
def test_rings_of_rings_are_never_slower_than_flat_ones(
    inside: float, nodes: float, payload: float, fast: float, slow: float, hop_s: float, network_hop_s: float
) -> None:
    m = Machine({}, *[0.0] * 5, exchange=Exchange(fast, hop_s, hop_s, hop_s))
    m = replace(m, network=Exchange(slow, network_hop_s, network_hop_s, 0.0))
    batch = Batch.uniform(1.0, 1.0, 0.0)
    for op in (AllReduce, AllGather):
        whole = op(payload, inside * nodes, 1.0).cost(batch)
        staged = op(payload, inside * nodes, 1.0, nodes=nodes).cost(batch)
        phases = 2.0 if op is AllReduce else 1.0
        assert flat(staged, phases).comm_bytes == pytest.approx(whole.comm_bytes, rel=1e-12)
        found = exchange_s(op.kind, staged, m)
        assert found <= ring(whole, m.network) * (1.0 + 1e-12)
        assert found <= nested_ring(staged, m)


def test_a_ring_of_rings_by_hand() -> None:
    """400 bytes over 2 nodes of 2: 400 in 2 steps inside, 200 in 2 steps across."""
    cost = AllReduce(400.0, 4.0, 1.0, nodes=2.0).cost(Batch.uniform(1.0, 1.0, 0.0))
    assert (cost.comm_bytes, cost.comm_steps, cost.network_bytes, cost.network_steps) == (400.0, 2.0, 200.0, 2.0)
    assert cost.sent_bytes == 600.0
    m = replace(Machine({}, *[0.0] * 5, exchange=Exchange(100.0, 1.0, 1.0, 0.0)), network=Exchange(10.0, 5.0, 2.0, 0.0))
    assert exchange_s("all_reduce", cost, m) == (1 + 2 + 4) + (5 + 4 + 20)


def test_all_to_all_uses_both_links_at_once() -> None:
    m = replace(Machine({}, *[0.0] * 5, exchange=Exchange(100.0, 1.0, 1.0, 0.0)), network=Exchange(10.0, 5.0, 2.0, 0.0))
    cost = AllToAll(100.0, 4.0, 2.0, Router(8.0, 2.0, 4.0, 1.0), nodes=2.0).cost(Batch.uniform(7.0, 1.0, 0.0))
    assert exchange_s("all_to_all", cost, m) == pytest.approx(max(1 + 1 + 13.0, 5 + 2 + 110.0), rel=1e-12)


def test_ranks_of_one_layer_lie_side_by_side() -> None:
    joined = case_of("llama-2-70b", tp=8, pp=4).joints
    assert joined.inside is not None
    assert joined.network is not None
    assert (joined.inside.link.name, joined.network.link.name, joined.node_ranks) == ("nvlink-4", NETWORK, 8)
    split = Split.of(LayoutSpec(tp=8, pp=4), 8)
    assert (split.tp_nodes, split.crossings) == (1.0, 3.0)
    assert Split.of(LayoutSpec(tp=4, pp=4), 8).crossings == 1.0
    assert Split.of(LayoutSpec(tp=16), 8).tp_nodes == 2.0
    deep = Split.of(LayoutSpec(tp=4, attention_dp=8, ep=32), 8)
    assert (deep.tp_nodes, deep.stage_nodes, deep.expert_tp) == (1.0, 4.0, 1.0)


def test_boundaries_between_nodes_cross_the_network() -> None:
    case = case_of("llama-2-70b", tp=4, pp=4)
    inside, across = named(case, "stage_boundary"), named(case, "stage_boundary_network")
    assert (inside.count, across.count) == (2.0, 1.0)
    assert isinstance(across.op, Transfer)
    assert across.op.cost(Batch.uniform(1.0, 1.0, 0.0)).network_bytes == 8192 / 4 * 2


@pytest.mark.parametrize("layout", [{"tp": 72}, {"tp": 8, "attention_dp": 9, "ep": 72}])
def test_a_rack_of_72_is_one_domain(layout: dict[str, int]) -> None:
    joined = joints(load(GpuSpec, "gb200-186gb"), LayoutSpec(**layout))
    assert joined.inside is not None
    assert joined.network is None
    assert (joined.inside.link.name, joined.inside.bundles, joined.node_ranks) == ("nvlink-5", 18, 72)


def test_an_oversubscribed_network_is_slower_by_as_much() -> None:
    fair, shared = (lpm.estimate("llama-2-70b", gpu=H100, engine="vllm", tp=16, oversubscription=x) for x in (1.0, 4.0))
    rates = [e.machine.network.bytes_per_s for e in (fair, shared)]
    assert rates[0] == 4.0 * rates[1]
    assert shared.prefill_s > fair.prefill_s


def test_replicas_need_no_network() -> None:
    assert case_of("llama-2-7b", tp=8, dp=4).joints.network is None
    assert case_of("llama-2-7b", tp=8, dp=4, nodes=4).joints.network is None
    assert case_of("llama-2-7b", tp=8, dp=2, nodes=4).joints.network is not None


# What cannot run.

WRONG = [
    (
        {"tp": 8, "ep": 3},
        "ep = 3 does not divide the 8 ranks of a stage (tp x attention_dp x cp); possible: 1, 2, 4, 8",
    ),
    (
        {"attention_dp": 16, "ep": 16},
        "ep = 16 exceeds the 8 experts of mixtral-8x7b; possible: 1, 2, 4, 8",
    ),
    ({"pp": 33}, "pp = 33 exceeds the 32 layers of mixtral-8x7b"),
    ({"micro_batches": 2}, "micro_batches = 2 needs stages that work side by side: give pp above 1"),
    ({"sequence_parallel": True}, "sequence_parallel shares tokens among tp ranks: give tp above 1"),
    ({"expert_imbalance": 2.0}, "expert_imbalance is one of ranks that hold whole experts: give ep above 1"),
    ({"tp": 8, "nodes": 3}, "nodes = 3 does not divide the 8 devices"),
    (
        {"tp": 16, "nodes": 1},
        "nodes = 1: 16 devices on each are more than one node of h100-sxm-80gb holds (8); give at least 2",
    ),
    ({"pp": 2, "layer_split": 2}, "pp and layer_split exclude each other: give one of them"),
    ({"attention_dp": 8, "batch_size": 4}, "batch_size = 4 is less than attention_dp = 8: give at least 8"),
    (
        {"attention_dp": 2, "pp": 2, "micro_batches": 4, "batch_size": 7},
        "batch_size = 7 is less than attention_dp = 2 x micro_batches = 4: give at least 8",
    ),
    ({"model": "llama-2-7b", "ep": 2, "tp": 2}, "ep = 2: llama-2-7b has no experts to spread; use tp, pp or dp"),
    (
        {"model": "llama-2-7b", "attention_dp": 2},
        "attention_dp = 2: llama-2-7b has no experts that its ranks would share, so that is dp = 2",
    ),
    (
        {"model": "t5-base", "pp": 2},
        "pp = 2: t5-base has an encoder and a decoder, which are not split by layers; use tp or dp",
    ),
    ({"model": "t5-base", "cp": 2}, "cp = 2: answered for decoders alone; use tp or dp for t5-base"),
    (
        {"gpu": "rtx-4090", "tp": 4, "pp": 4},
        "16 devices are more than one node of rtx-4090 holds (8); name the network with --network, or one link for "
        "all with --link",
    ),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_what_cannot_run_is_said_in_a_line(fields: dict[str, Any], message: str) -> None:
    options = {"model": EXPERTS, "gpu": H100, "engine": "ideal", **fields}
    with pytest.raises(lpm.InfeasibleError) as failure:
        lpm.estimate(options.pop("model"), **options)
    assert str(failure.value) == message


def test_experts_may_be_wider_than_ranks_that_slice_them() -> None:
    """14336 over 8 ranks of experts that 8 groups hold whole: nothing is sliced."""
    assert case_of(tp=2, attention_dp=4, ep=8).layout.expert_tp == 1
    with pytest.raises(lpm.InfeasibleError, match="feed-forward width 14336"):
        case_of(tp=1, attention_dp=3)


def test_parameters_of_a_rank_of_experts() -> None:
    """Attention and norms whole, one expert of 8."""
    whole, rank = parameters(case_of().graph), parameters(case_of(attention_dp=8, ep=8).graph)
    experts = 32 * 8 * 3 * 4096 * 14336
    assert rank == pytest.approx(whole - experts * 7 / 8, rel=1e-12)
