"""Laws of every operator: a class added to the package is tested without a change here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_perf_model.ops.attention import CacheConcat, FusedAttention, MaterialisedAttention, PositionBias
from llm_perf_model.ops.base import AbstractOp, Cost, Live
from llm_perf_model.ops.batch import UNLIMITED, Batch, Group
from llm_perf_model.ops.collective import AllGather, AllReduce, AllToAll, CacheTransfer, ContextExchange, Transfer
from llm_perf_model.ops.convolution import Convolution
from llm_perf_model.ops.dense import Embedding, Linear
from llm_perf_model.ops.elementwise import Elementwise
from llm_perf_model.ops.latent import IndexScores, LatentProducts, LatentScores
from llm_perf_model.ops.moe import ExpertLinear
from llm_perf_model.ops.pooling import Pooling
from llm_perf_model.ops.recurrence import Recurrence
from llm_perf_model.ops.router import Router
from llm_perf_model.ops.source import SourceAttention, SourceGather
from llm_perf_model.ops.state import ChannelConvolution, StateUpdate

from .strategies import batches, groups, op_types, ops, wholes

every_op = pytest.mark.parametrize("cls", op_types(), ids=lambda cls: cls.__name__)
ALL_PAIRS = (MaterialisedAttention, PositionBias)
"""Operators that also compute the pairs which the mask hides: smaller chunks hide fewer."""
STARTED_BY_A_CACHE = (CacheConcat, SourceGather)
"""Operators that do nothing where no token is cached before the pass."""
CHOICES = (LatentProducts, LatentScores, StateUpdate)
"""Operators whose form depends on how many tokens are new: shorter chunks may take the other one."""
KEPT = (CacheConcat, CacheTransfer, SourceGather)
"""Operators whose tensors are the cache, which is no activation."""


def assert_not_less(more: Cost, less: Cost) -> None:
    for field, high, low in zip(Cost._fields, more, less, strict=True):
        assert high >= low, field


def counts_sequences(op: AbstractOp) -> bool:
    return getattr(op, "last_only", False)


def counts_all_pairs(op: AbstractOp) -> bool:
    return isinstance(op, ALL_PAIRS) or getattr(op, "all_pairs", False)


def test_every_operator_module_is_found() -> None:
    dense = {Linear, Convolution, Embedding, Elementwise, ExpertLinear}
    attention = {FusedAttention, MaterialisedAttention, CacheConcat, PositionBias, SourceAttention, SourceGather}
    assert dense | attention | {AllReduce, AllGather, Transfer} <= set(op_types())


@every_op
@given(data=st.data(), batch=batches())
def test_work_and_sizes_are_never_negative(cls: type[AbstractOp], data: st.DataObject, batch: Batch) -> None:
    op = data.draw(ops(cls))
    assert all(value >= 0.0 for value in op.cost(batch))
    idle = isinstance(op, STARTED_BY_A_CACHE) and all(group.past == 0.0 for group in batch.groups)
    assert (sum(op.cost(batch)) > 0.0) == (not idle)
    assert all(value >= 0.0 for value in op.live)
    assert (op.live.bytes(batch) > 0.0) == (not isinstance(op, KEPT))
    assert op.parameters >= 0.0
    assert op.kv_bytes_per_token >= 0.0
    assert op.attention_window >= 1.0
    assert (op.stored_weight_bytes > 0.0) == (op.parameters > 0.0)


@every_op
@given(data=st.data(), group=groups(), more=wholes(1, 30))
@pytest.mark.parametrize("field", ["seqs", "new", "past", "source"])
def test_more_work_in_costs_no_less(
    cls: type[AbstractOp], data: st.DataObject, group: Group, more: float, field: str
) -> None:
    op = data.draw(ops(cls))
    if isinstance(op, ContextExchange):  # one new token takes another form
        assume(group.new > 1.0)
    larger = replace(group, **{field: getattr(group, field) + more})
    assert_not_less(op.cost(Batch.of([larger])), op.cost(Batch.of([group])))
    assert op.live.bytes(Batch.of([larger])) >= op.live.bytes(Batch.of([group]))


@every_op
@given(data=st.data(), rows=st.lists(groups(), min_size=2, max_size=5))
def test_an_array_holds_what_scalars_give(cls: type[AbstractOp], data: st.DataObject, rows: list[Group]) -> None:
    op = data.draw(ops(cls))
    columns = [np.array([getattr(row, name) for row in rows]) for name in ("seqs", "new", "past", "source")]
    arrays = Batch.uniform(*columns)
    costs = [np.broadcast_to(value, len(rows)) for value in op.cost(arrays)]
    alive = np.broadcast_to(op.live.bytes(arrays), len(rows))
    for index, row in enumerate(rows):
        scalar = Batch.of([row])
        assert tuple(value[index] for value in costs) == tuple(op.cost(scalar))
        assert alive[index] == op.live.bytes(scalar)


@every_op
@given(data=st.data(), seqs=wholes(1, 8), past=wholes(0, 90), later=wholes(1, 90))
def test_grows_tells_whether_a_decode_step_depends_on_the_cache(
    cls: type[AbstractOp], data: st.DataObject, seqs: float, past: float, later: float
) -> None:
    op = data.draw(ops(cls))
    past += isinstance(op, STARTED_BY_A_CACHE)
    first, last = (op.cost(Batch.uniform(seqs, 1.0, tokens, 5.0)) for tokens in (past, past + later))
    if not op.grows:
        assert first == last
    elif op.attention_window == UNLIMITED and not (isinstance(op, Transfer) and not op.with_mask):
        assert (first != last) == (not isinstance(op, LatentProducts))  # of a transfer only the mask grows
    if op.kv_bytes_per_token > 0.0:
        assert op.grows


@every_op
@given(data=st.data(), seqs=wholes(1, 8), past=wholes(0, 90), reach=wholes(1, 40))
def test_a_decode_step_is_affine_in_the_cache_on_each_side_of_the_window(
    cls: type[AbstractOp], data: st.DataObject, seqs: float, past: float, reach: float
) -> None:
    op = data.draw(ops(cls))
    past += isinstance(op, STARTED_BY_A_CACHE)  # a decode follows a prefill: it finds at least one cached token
    assume(past + 2.0 * reach + 1.0 <= op.attention_window or past + 1.0 >= op.attention_window)
    low, middle, high = (op.cost(Batch.uniform(seqs, 1.0, past + i * reach)) for i in range(3))
    for field, a, b, c in zip(Cost._fields, low, middle, high, strict=True):
        assert a + c == 2.0 * b, field


@every_op
@given(data=st.data(), group=groups(), times=wholes(2, 9))
def test_live_tensors_are_proportional_to_the_sequences(
    cls: type[AbstractOp], data: st.DataObject, group: Group, times: float
) -> None:
    op = data.draw(ops(cls))
    larger = replace(group, seqs=group.seqs * times)
    assert op.live.bytes(Batch.of([larger])) == times * op.live.bytes(Batch.of([group]))


@every_op
@given(data=st.data(), rows=st.lists(groups(), min_size=2, max_size=4))
def test_live_tensors_of_a_mixed_batch_are_those_of_its_parts(
    cls: type[AbstractOp], data: st.DataObject, rows: list[Group]
) -> None:
    live = data.draw(ops(cls)).live
    assert live.bytes(Batch.of(rows)) == sum(live.bytes(Batch.of([row])) for row in rows)


@given(wholes(0, 9), wholes(0, 9), wholes(0, 9), wholes(0, 9), wholes(0, 9))
def test_live_bytes_by_hand(
    token_bytes: float, sequence_bytes: float, pair_bytes: float, source_bytes: float, source_pair_bytes: float
) -> None:
    """3 sequences of 2 new and 5 cached tokens, and one of 4 without a cache: 10 tokens, 4 sequences, 58 pairs.

    An encoder has read 6 tokens for each of the three and 9 for the one: 27 tokens, 72 pairs.
    """
    batch = Batch.of([Group(3.0, 2.0, 5.0, 6.0), Group(1.0, 4.0, 0.0, 9.0)])
    live = Live(token_bytes, sequence_bytes, pair_bytes, source_bytes, source_pair_bytes)
    own = 10 * token_bytes + 4 * sequence_bytes + (3 * 2 * 7 + 4 * 4) * pair_bytes
    assert live.bytes(batch) == own + (3 * 6 + 9) * source_bytes + (3 * 2 * 6 + 4 * 9) * source_pair_bytes


@every_op
@given(data=st.data())
def test_what_a_pass_reads_and_writes_is_alive_while_it_runs(cls: type[AbstractOp], data: st.DataObject) -> None:
    """Inputs no wider than the results; written scores are read and written again, one after the other."""
    op, batch = data.draw(ops(cls)), Batch.uniform(3.0, 5.0, 0.0, 7.0)
    assume(getattr(op, "input_bytes", 0.0) <= getattr(op, "activation_bytes", 0.0))
    kernel, _ = op.kernel(batch)
    times = 1.0
    if isinstance(kernel, MaterialisedAttention):  # first product, bias, softmax, second product
        times += kernel.softmax_tensors / 2.0 + kernel.biased
    if isinstance(kernel, Recurrence):  # states are read and written again in each step
        times = kernel.steps
    if isinstance(op, LatentScores):  # passes that meet latent vectors are short, unless all of them do
        assume(op.absorbed_tokens == UNLIMITED or op.absorbed_tokens < 5.0)
    if isinstance(op, IndexScores):  # scores are written and read piece by piece
        op = replace(op, score_bytes=0.0)
    assert times * op.live.bytes(batch) >= op.cost(batch).activation_bytes


LIVE_BY_HAND: list[tuple[AbstractOp, Live]] = [
    (Linear(3.0, 5.0, weight_bytes=1.0, activation_bytes=2.0), Live((3 + 5) * 2.0)),
    (Linear(3.0, 5.0, 1.0, 2.0, last_only=True), Live(3 * 2.0, 5 * 2.0)),
    (Linear(3.0, 5.0, 1.0, 2.0, input_bytes=1.0), Live((3 + 5) * 2.0)),
    (Convolution(3.0, 5.0, 9.0, 4.0, 48.0, 1.0, weight_bytes=1.0, activation_bytes=2.0), Live((48 + 20) * 2.0)),
    (Recurrence(8.0, 4.0, 3.0, 7.0, weight_bytes=1.0, activation_bytes=2.0), Live((3 * (4 + 1) + 2) * 8 * 2.0)),
    (Embedding(100.0, (50.0,), 8.0, 4.0, weight_bytes=2.0, activation_bytes=2.0), Live(8 * 2.0)),
    (Elementwise(8.0, 3.0, 2.0), Live(8 * 3 * 2.0)),
    (Elementwise(8.0, 3.0, 2.0, last_only=True), Live(sequence_bytes=8 * 3 * 2.0)),
    (ExpertLinear(4.0, 2.0, 3.0, 5.0, 2.0, 2.0, 1.0), Live(2 * (3 + 5) * 2.0)),
    (FusedAttention(4.0, 2.0, 8.0, 2.0, 1.0), Live((4 + 2 + 2 + 4) * 8 * 2.0)),
    (MaterialisedAttention(4.0, 2.0, 8.0, 2.0, 1.0), Live((4 + 2 + 2 + 4) * 8 * 2.0, pair_bytes=2 * 4 * 2.0)),
    (FusedAttention(4.0, 2.0, 8.0, 2.0, 1.0, biased=True), Live((4 + 2 + 2 + 4) * 8 * 2.0, pair_bytes=4 * 2.0)),
    (
        MaterialisedAttention(4.0, 2.0, 8.0, 2.0, 1.0, biased=True),
        Live((4 + 2 + 2 + 4) * 8 * 2.0, pair_bytes=3 * 4 * 2.0),
    ),
    (LatentProducts(4.0, 6.0, 8.0, 1.0, 2.0, 2.0, absorbed_tokens=1.0), Live((6 + 4 * 8) * 2.0)),
    (LatentScores(4.0, 6.0, 5.0, 3.0, 7.0, 2.0, 1.0, absorbed_tokens=1.0), Live(2 * 4 * (5 + 3 + 7) * 2.0)),
    (LatentScores(4.0, 6.0, 5.0, 3.0, 7.0, 2.0, 1.0, UNLIMITED, 9.0), Live((4 + 1) * (9 + 6) * 2.0)),
    (IndexScores(4.0, 8.0, activation_bytes=2.0, kv_bytes=1.0), Live((4 + 1) * 8 * 2.0)),
    (Pooling(4.0, 16.0, 8.0, activation_bytes=2.0, weight_bytes=2.0), Live((2 * 16 + 8 / 4) * 2.0)),
    (StateUpdate(4.0, 8.0, 16.0, 2.0, 64.0, width=200.0, state_bytes=4.0, activation_bytes=2.0), Live(200 * 2.0)),
    (ChannelConvolution(96.0, 4.0, weight_bytes=2.0, activation_bytes=2.0), Live(2 * 96 * 2.0)),
    (CacheConcat(2.0, 8.0, 2.0), Live()),
    (PositionBias(4.0, 32.0, 3.0, 2.0, 2.0), Live(pair_bytes=3 * 4 * 2.0)),
    (SourceAttention(FusedAttention(4.0, 2.0, 8.0, 2.0, 1.0, all_pairs=True)), Live((4 + 4) * 8 * 2.0)),
    (
        SourceAttention(MaterialisedAttention(4.0, 2.0, 8.0, 2.0, 1.0)),
        Live((4 + 4) * 8 * 2.0, source_pair_bytes=2 * 4 * 2.0),
    ),
    (SourceGather(2.0, 8.0, 2.0), Live()),
    (AllReduce(8.0, 4.0, 2.0), Live(2 * 8 * 2.0)),
    (AllGather(8.0, 4.0, 2.0), Live(2 * 8 * 2.0)),
    (AllGather(8.0, 4.0, 2.0, last_only=True), Live(sequence_bytes=2 * 8 * 2.0)),
    (AllToAll(8.0, 4.0, 2.0, Router(8.0, 2.0, 4.0)), Live((1 + 2 / 4) * 8 * 2.0)),
    (ContextExchange(8.0, 32.0, 4.0, 2.0), Live(2 * 32.0 + 8 * 2.0)),
    (CacheTransfer(64.0), Live()),
    (Transfer(8.0, 2.0), Live(2 * 8 * 2.0)),
    (Transfer(8.0, 2.0, with_mask=True), Live(2 * 8 * 2.0, pair_bytes=2 * 2.0)),
]
"""Inputs and results of 2 bytes a value; queries, keys, values and results of attention, its scores twice;
gates and outputs of all steps of a recurrent layer, and one cell that is read and written."""


@pytest.mark.parametrize(("op", "live"), LIVE_BY_HAND, ids=[type(op).__name__ for op, _ in LIVE_BY_HAND])
def test_what_is_alive_by_hand(op: AbstractOp, live: Live) -> None:
    assert op.live == live


def test_every_operator_is_held_by_hand() -> None:
    assert {type(op) for op, _ in LIVE_BY_HAND} == set(op_types())


@every_op
@given(data=st.data(), group=groups(), cut=wholes(1, 39))
def test_a_prefill_in_chunks_does_the_work_of_the_whole(
    cls: type[AbstractOp], data: st.DataObject, group: Group, cut: float
) -> None:
    assume(cut < group.new)
    op = data.draw(ops(cls))
    chunks = (replace(group, new=cut), replace(group, new=group.new - cut, past=group.past + cut))
    whole, parts = op.cost(Batch.of([group])), [op.cost(Batch.of([chunk])) for chunk in chunks]
    chunked = sum(cost.flops for cost in parts)
    if counts_sequences(op):
        assert chunked == 2.0 * whole.flops
    elif isinstance(op, PositionBias):
        assert sum(cost.activation_bytes for cost in parts) < whole.activation_bytes
    elif counts_all_pairs(op):
        assert chunked < whole.flops
    elif not isinstance(op, CHOICES):
        assert chunked == whole.flops
        assert sum(cost.hbm_bytes for cost in parts) >= whole.hbm_bytes


@every_op
@given(data=st.data(), rows=st.lists(groups(), min_size=2, max_size=4))
def test_one_pass_over_a_mixed_batch_reads_weights_once(
    cls: type[AbstractOp], data: st.DataObject, rows: list[Group]
) -> None:
    op = data.draw(ops(cls))
    mixed, parts = op.cost(Batch.of(rows)), [op.cost(Batch.of([row])) for row in rows]
    for field in ("flops", "activation_bytes", "kv_bytes", "comm_bytes"):
        assert getattr(mixed, field) == pytest.approx(sum(getattr(part, field) for part in parts), rel=1e-12), field
    assert max(part.weight_bytes for part in parts) <= mixed.weight_bytes <= sum(part.weight_bytes for part in parts)
    assert mixed.comm_steps == parts[0].comm_steps


def test_linear_by_hand() -> None:
    op = Linear(3.0, 5.0, weight_bytes=1.0, activation_bytes=2.0, bias=True)
    cost = op.cost(Batch.uniform(2.0, 7.0, 0.0))
    assert cost == Cost(flops=2.0 * 14 * 15, weight_bytes=15.0 + 5.0, activation_bytes=14.0 * (3 + 5) * 2)
    assert op.parameters == 20.0
    assert replace(op, shared=True).parameters == 5.0
    assert replace(op, shared=True).cost(Batch.uniform(2.0, 7.0, 0.0)) == cost
    assert replace(op, last_only=True).cost(Batch.uniform(2.0, 7.0, 0.0)).flops == 2.0 * 2 * 15


def test_embedding_reads_a_row_of_each_table() -> None:
    op = Embedding(100.0, (), 8.0, 4.0, weight_bytes=2.0, activation_bytes=2.0)
    batch = Batch.uniform(1.0, 4.0, 0.0)
    assert op.cost(batch) == Cost(weight_bytes=4 * 8 * 2.0 / 4.0, activation_bytes=4 * 8 * 2.0)
    learned = replace(op, side_rows=(50.0,))
    assert learned.cost(batch).weight_bytes == 4 * 8 * 2.0 * 1.25
    assert learned.stored_weight_bytes == 150.0 * 8 * 2.0


def test_elementwise_by_hand() -> None:
    op = Elementwise(8.0, 3.0, 2.0, flops_per_value=5.0, weights=16.0, weight_bytes=4.0)
    cost = op.cost(Batch.uniform(2.0, 3.0, 9.0))
    assert cost == Cost(flops=6 * 8 * 5.0, weight_bytes=64.0, activation_bytes=3 * 6 * 8 * 2.0)


def test_attention_by_hand() -> None:
    """Two queries behind 3 cached tokens: 4 + 5 causal pairs, 2 x 5 pairs in all, 5 keys read, 2 written."""
    batch = Batch.uniform(1.0, 2.0, 3.0)
    fused = FusedAttention(heads=4.0, kv_heads=2.0, head_dim=8.0, activation_bytes=2.0, kv_bytes=1.0)
    keys = (5 + 2) * 2 * 2 * 8 * 1.0
    assert fused.cost(batch) == Cost(flops=4 * 9 * 32.0, activation_bytes=2 * 2 * 32 * 2.0, kv_bytes=keys)
    written = MaterialisedAttention(4.0, 2.0, 8.0, 2.0, 1.0)
    scores = 4 * 10 * 4 * 2.0
    assert written.cost(batch) == Cost(4 * 10 * 32.0, 0.0, 2 * 2 * 32 * 2.0 + scores, keys)


@pytest.mark.parametrize("ranks", [2.0, 4.0, 8.0])
def test_a_ring_all_reduce_is_two_all_gathers(ranks: float) -> None:
    """Reduce-scatter, then all-gather: each sends (p-1)/p of the payload in p-1 steps."""
    batch = Batch.uniform(1.0, 16.0, 0.0)
    reduced = AllReduce(64.0, ranks, 2.0).cost(batch)
    gathered = AllGather(64.0, ranks, 2.0).cost(batch)
    payload_bytes = 16 * 64 * 2.0
    assert gathered.comm_bytes == (ranks - 1) / ranks * payload_bytes
    assert reduced.comm_bytes == 2.0 * gathered.comm_bytes
    assert (gathered.comm_steps, reduced.comm_steps) == (ranks - 1, 2.0 * (ranks - 1))


def test_a_mask_in_the_kernel_leaves_the_traffic_and_computes_every_pair() -> None:
    batch = Batch.uniform(1.0, 2.0, 3.0)
    skips = FusedAttention(heads=4.0, kv_heads=2.0, head_dim=8.0, activation_bytes=2.0, kv_bytes=1.0)
    masked = replace(skips, all_pairs=True)
    assert masked.cost(batch) == skips.cost(batch)._replace(flops=4 * 10 * 32.0)


def test_growing_a_cache_reads_and_writes_all_of_it() -> None:
    """3 sequences of 5 cached and 1 new token, and 2 without a cache: 2 x 18 tokens of 2 x 2 x 8 values at 2 B."""
    op = CacheConcat(kv_heads=2.0, head_dim=8.0, kv_bytes=2.0)
    batch = Batch.of([Group(3.0, 1.0, 5.0), Group(2.0, 4.0, 0.0)])
    assert op.cost(batch) == Cost(kv_bytes=2 * 18 * 2 * 2 * 8 * 2.0)
    assert op.cost(Batch.uniform(2.0, 4.0, 0.0)) == Cost(kv_bytes=0.0)
    assert op.kv_bytes_per_token == 0.0


def test_attention_over_a_source_by_hand() -> None:
    """2 sequences of 3 queries over 5 source tokens: 30 pairs of 4 heads of 8; the keys are read, none is written."""
    batch = Batch.uniform(2.0, 3.0, 40.0, 5.0)
    moved = 2 * 3 * 2 * 4 * 8 * 2.0
    fused = SourceAttention(FusedAttention(4.0, 2.0, 8.0, 2.0, 1.0, all_pairs=True))
    keys_bytes = 2 * 5 * 2 * 2 * 8 * 1.0
    assert fused.cost(batch) == Cost(4 * 30 * 4 * 8.0, 0.0, moved, keys_bytes)
    written = SourceAttention(MaterialisedAttention(4.0, 2.0, 8.0, 2.0, 1.0))
    assert written.cost(batch) == Cost(4 * 30 * 4 * 8.0, 0.0, moved + 4 * 30 * 4 * 2.0, keys_bytes)
    assert (fused.kv_bytes_per_token, fused.source_kv_bytes_per_token) == (0.0, 2 * 2 * 8 * 1.0)


def test_gathering_a_source_reads_and_writes_all_of_it() -> None:
    """3 sequences with a cache beside 7 source tokens, and 2 in their first pass: 21 tokens of 2 x 2 x 8 values."""
    op = SourceGather(kv_heads=2.0, head_dim=8.0, kv_bytes=2.0)
    batch = Batch.of([Group(3.0, 1.0, 5.0, 7.0), Group(2.0, 1.0, 0.0, 9.0)])
    assert op.cost(batch) == Cost(kv_bytes=2 * 21 * 2 * 2 * 8 * 2.0)


def test_biases_of_scores_by_hand() -> None:
    """2 sequences of 3 queries and 5 keys are 30 pairs of 4 heads: one tensor written, then read with the scores."""
    batch = Batch.uniform(2.0, 3.0, 2.0)
    bias = PositionBias(heads=4.0, buckets=32.0, passes=1.0, weight_bytes=2.0, activation_bytes=2.0)
    assert bias.cost(batch) == Cost(weight_bytes=32 * 4 * 2.0, activation_bytes=30 * 4 * 2.0)
    assert bias.parameters == 32 * 4
    plain = MaterialisedAttention(4.0, 2.0, 8.0, 2.0, 1.0)
    added = replace(plain, biased=True).cost(batch).activation_bytes - plain.cost(batch).activation_bytes
    assert added == 3 * 30 * 4 * 2.0
    fused = FusedAttention(4.0, 2.0, 8.0, 2.0, 1.0)
    read = replace(fused, biased=True).cost(batch).activation_bytes - fused.cost(batch).activation_bytes
    assert read == 2 * (3 + 4 + 5) * 4 * 2.0


def test_a_stage_sends_its_rows_and_a_mask_if_there_is_one() -> None:
    batch = Batch.uniform(2.0, 3.0, 4.0)
    assert Transfer(8.0, 2.0).cost(batch) == Cost(comm_bytes=6 * 8 * 2.0, comm_steps=1.0)
    assert Transfer(8.0, 2.0, with_mask=True).cost(batch) == Cost(comm_bytes=(6 * 8 + 2 * 3 * 7) * 2.0, comm_steps=1.0)


@given(wholes(1, 8), wholes(1, 300), wholes(0, 90))
def test_a_block_is_64_queries_or_a_shorter_sequence(seqs: float, new: float, past: float) -> None:
    batch = Batch.uniform(seqs, new, past)
    whole, cut = divmod(new, 64.0)
    assert seqs * max(1.0, whole) <= batch.query_tiles() <= seqs * (whole + (cut > 0.0))
    assert batch.query_tiles() == seqs * max(1.0, new / 64.0)
    assert MaterialisedAttention(4.0, 2.0, 8.0, 2.0, 1.0).blocks(batch) == 4.0 * batch.query_tiles()


@pytest.mark.parametrize("cls", [Linear, ExpertLinear])
@given(data=st.data(), batch=batches())
def test_a_product_has_the_flops_of_its_shape(
    cls: type[Linear] | type[ExpertLinear], data: st.DataObject, batch: Batch
) -> None:
    op = data.draw(ops(cls))
    assert isinstance(op, Linear | ExpertLinear)
    product = op.product(batch)
    work = 2.0 * product.groups * product.rows * product.columns * product.depth
    assert work == pytest.approx(op.cost(batch).flops, rel=1e-12)
    assert (product.columns, product.depth) == (op.d_out, op.d_in)


def test_inputs_narrower_than_the_activations_are_read_at_their_own_width() -> None:
    batch = Batch.uniform(2.0, 7.0, 0.0)
    narrow = Linear(3.0, 5.0, weight_bytes=1.0, activation_bytes=2.0, input_bytes=1.0)
    assert narrow.cost(batch).activation_bytes == 14 * (3 * 1.0 + 5 * 2.0)
    assert replace(narrow, input_bytes=0.0).cost(batch).activation_bytes == 14 * (3 + 5) * 2.0
    assert narrow.live.bytes(batch) == 14 * (3 + 5) * 2.0


@pytest.mark.parametrize(("window", "keys"), [(UNLIMITED, 4.5), (3.0, 3.0), (1.0, 1.0)])
def test_keys_that_a_query_sees_on_average(window: float, keys: float) -> None:
    """Two queries behind 3 cached tokens see 4 and 5 keys, or the window; with every pair computed, all 5."""
    op = FusedAttention(4.0, 2.0, 8.0, 2.0, 1.0, window)
    assert op.mean_keys(Group(3.0, 2.0, 3.0)) == keys
    assert replace(op, all_pairs=True, window=UNLIMITED).mean_keys(Group(3.0, 2.0, 3.0)) == 5.0


# Experts.


def expert_linear(experts: float, visits: float) -> ExpertLinear:
    return ExpertLinear(experts, visits, 3.0, 5.0, weight_bytes=2.0, activation_bytes=2.0, input_bytes=1.0)


@given(st.integers(1, 64), st.integers(1, 64), wholes(1, 5000))
def test_tokens_visit_between_their_own_experts_and_all(experts: int, visits: int, tokens: float) -> None:
    """One token finds its own; many leave none out; never more than there are visits."""
    assume(visits <= experts)
    op = expert_linear(float(experts), float(visits))
    assert op.visited(Batch.uniform(1.0, 1.0, 0.0)) == pytest.approx(visits, rel=1e-12)
    assert op.visited(Batch.uniform(1.0, 1e6, 0.0)) == pytest.approx(experts, rel=1e-12)
    visited = op.visited(Batch.uniform(tokens, 1.0, 7.0))
    assert visits * (1.0 - 1e-12) <= visited <= min(experts, visits * tokens) * (1.0 + 1e-12)


def test_experts_that_two_tokens_visit_by_counting() -> None:
    """Of 4 experts, each of two tokens takes one of the six pairs: on average 3 distinct ones."""
    pairs = [{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}]
    counted = sum(len(one | other) for one in pairs for other in pairs) / 36.0
    assert expert_linear(4.0, 2.0).visited(Batch.uniform(2.0, 1.0, 0.0)) == counted == 3.0


def test_experts_by_hand() -> None:
    """Two tokens of two visits each are 4 rows, on 3 of 4 experts of 3 x 5 weights."""
    op, batch = expert_linear(4.0, 2.0), Batch.uniform(2.0, 1.0, 9.0)
    assert op.cost(batch) == Cost(2.0 * 4 * 15, 3 * 15 * 2.0, 4 * (3 * 1.0 + 5 * 2.0))
    assert op.parameters == 4 * 15
    assert op.stored_weight_bytes == 4 * 15 * 2.0
    product = op.product(batch)
    assert (product.rows, product.columns, product.depth, product.groups) == (4.0 / 3.0, 5.0, 3.0, 3.0)


@given(wholes(1, 300), wholes(1, 9))
def test_a_single_expert_is_a_plain_product(tokens: float, d_in: float) -> None:
    batch = Batch.uniform(1.0, tokens, 0.0)
    expert = ExpertLinear(1.0, 1.0, d_in, 5.0, 2.0, 2.0, 1.0)
    plain = Linear(d_in, 5.0, 2.0, 2.0, input_bytes=1.0)
    assert expert.cost(batch) == plain.cost(batch)
    assert expert.product(batch) == plain.product(batch)
    assert (expert.parameters, expert.stored_weight_bytes) == (plain.parameters, plain.stored_weight_bytes)


@pytest.mark.parametrize(("experts", "visits"), [(8.0, 2.0), (60.0, 4.0), (64.0, 6.0), (128.0, 8.0), (256.0, 8.0)])
def test_an_array_of_tokens_visits_what_single_numbers_do(experts: float, visits: float) -> None:
    op, tokens = expert_linear(experts, visits), np.arange(1.0, 300.0)
    visited = op.visited(Batch.uniform(1.0, tokens, 0.0))
    assert visited.tolist() == [op.visited(Batch.uniform(1.0, n, 0.0)) for n in tokens.tolist()]
