"""Latent attention: two forms of one result, what each costs, and the tokens that an indexer picks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.graph.latent import ABSORBED_TOKENS
from llm_perf_model.graph.stack import kv_bytes_per_token
from llm_perf_model.ops.batch import UNLIMITED, Batch, Group
from llm_perf_model.ops.latent import IndexScores, LatentProducts, LatentScores

from .mixers import LATENT, SPARSE
from .strategies import wholes
from .test_mixers import graph_of, work

SIZES = (128.0, 512.0, 128.0, 64.0, 128.0, 2.0, 2.0)


def scores(absorbed_tokens: float, chosen_tokens: float = UNLIMITED) -> LatentScores:
    return LatentScores(*SIZES, absorbed_tokens, chosen_tokens)


def products(absorbed_tokens: float) -> LatentProducts:
    return LatentProducts(128.0, 512.0, 256.0, 2.0, 2.0, 2.0, absorbed_tokens)


def test_a_decode_step_meets_latent_vectors() -> None:
    """4096 cached tokens, one new: 2 x 128 x 512 x 256 of products, and 4096 pairs of 128 heads over 1088 values."""
    step = Batch.uniform(1.0, 1.0, 4095.0)
    assert products(ABSORBED_TOKENS).cost(step).flops == 2 * 128 * 512 * 256
    cost = scores(ABSORBED_TOKENS).cost(step)
    assert cost.flops == 2 * 4096 * 128 * (2 * 512 + 64)
    assert cost.kv_bytes == (4096 + 1) * 576 * 2


def test_a_prompt_makes_keys_and_values() -> None:
    prompt = Batch.uniform(2.0, 1000.0, 0.0)
    assert products(ABSORBED_TOKENS).cost(prompt).flops == 2 * 2000 * 512 * 128 * 256
    assert scores(ABSORBED_TOKENS).cost(prompt).flops == 2 * 2 * (1000 * 1001 / 2) * 128 * (128 + 64 + 128)


@given(past=wholes(0, 4000), new=wholes(129, 2000))
def test_a_later_chunk_makes_the_keys_of_the_tokens_before_it_again(past: float, new: float) -> None:
    """Chunks do more products than the whole, and as much attention."""
    first, later = Batch.uniform(1.0, past + 129.0, 0.0), Batch.uniform(1.0, new, past + 129.0)
    whole = Batch.uniform(1.0, past + 129.0 + new, 0.0)
    made, mixed = products(ABSORBED_TOKENS), scores(ABSORBED_TOKENS)
    again = sum(made.cost(batch).flops for batch in (first, later)) - made.cost(whole).flops
    assert again == pytest.approx(2 * (past + 129) * 512 * 128 * 256)
    assert sum(mixed.cost(batch).flops for batch in (first, later)) == pytest.approx(mixed.cost(whole).flops)


@given(past=wholes(2000, 200_000))
def test_the_absorbed_form_takes_less_arithmetic_where_few_tokens_are_new(past: float) -> None:
    for new, cheaper in ((1.0, True), (128.0, True), (400.0, False)):
        batch = Batch.uniform(1.0, new, past)
        absorbed, made = (
            products(tokens).cost(batch).flops + scores(tokens).cost(batch).flops for tokens in (UNLIMITED, 0.5)
        )
        assert (absorbed < made) == cheaper


@given(wholes(1, 100_000), st.sampled_from((64.0, 2048.0)))
def test_a_query_sees_the_tokens_that_are_picked(past: float, chosen_tokens: float) -> None:
    op, step = scores(UNLIMITED, chosen_tokens), Batch.uniform(1.0, 1.0, past)
    seen = min(past + 1.0, chosen_tokens)
    assert op.cost(step).flops == 2 * seen * 128 * 1088
    assert op.cost(step).kv_bytes == (seen + 1) * 576 * 2
    assert op.kv_bytes_per_token == 576 * 2


def test_an_index_scores_every_token() -> None:
    op = IndexScores(64.0, 128.0, activation_bytes=1.0, kv_bytes=1.0)
    cost = op.cost(Batch.uniform(1.0, 1.0, 9999.0))
    assert cost.flops == 2 * 10_000 * 64 * 128
    assert cost.kv_bytes == 10_001 * 128
    assert op.kv_bytes_per_token == 128
    assert kv_bytes_per_token(graph_of(SPARSE)) == 61 * (576 * 2 + 128)


def test_picking_pays_where_the_past_is_long() -> None:
    short, long = (Batch.uniform(1.0, 1.0, past) for past in (1000.0, 100_000.0))
    whole, picked = graph_of(LATENT), graph_of(SPARSE)
    assert work(picked, short).flops > work(whole, short).flops
    assert work(picked, long).flops < work(whole, long).flops


def test_reference_implementations_cache_keys_and_values_of_every_head() -> None:
    """61 layers of 128 heads of 192 + 128 values in 16 bits: 57 times the latent vectors."""
    eager = graph_of(LATENT, engine="hf-eager")
    assert kv_bytes_per_token(eager) == 61 * 128 * (192 + 128) * 2
    step = Batch.uniform(1.0, 1.0, 4095.0)
    assert work(eager, step).kv_bytes > 50 * work(graph_of(LATENT), step).kv_bytes


def test_groups_of_a_batch_take_their_own_form() -> None:
    mixed = [Group(3.0, 1.0, 500.0), Group(1.0, 700.0, 0.0)]
    for op in (products(ABSORBED_TOKENS), scores(ABSORBED_TOKENS)):
        assert op.cost(Batch.of(mixed)).flops == sum(op.cost(Batch.of([group])).flops for group in mixed)


def test_ranks_keep_the_whole_latent_cache() -> None:
    one, eight = (
        lpm.estimate(LATENT, gpu="h200", engine="vllm", tp=tp, batch_size=16, input_len=1000, output_len=24).memory
        for tp in (1, 8)
    )
    assert one.kv_cache_bytes == eight.kv_cache_bytes == 16 * 1024 * 70_272
