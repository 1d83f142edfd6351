"""Kernels whose work comes in blocks: counted tile by tile, step by step and row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_perf_model.blocks import attention_s, cached_s, experts_s, product_s, rows_s
from llm_perf_model.ops.attention import FusedAttention
from llm_perf_model.ops.base import Product
from llm_perf_model.ops.batch import UNLIMITED, Batch, Group
from llm_perf_model.ops.elementwise import Elementwise
from llm_perf_model.ops.moe import ExpertLinear
from llm_perf_model.rates import AttentionRate, BlockRate, ExpertRate, PassRate, Tile

from .strategies import attention_rates, block_rates, expert_rates, groups, pass_rates, powers, wholes, windows

SMS = st.sampled_from((1.0, 16.0, 108.0))
products = st.builds(Product, wholes(1, 3000), wholes(1, 3000), wholes(1, 5000), wholes(1, 5))

UNIT = BlockRate(
    flops_per_s=2.0 * 64 * 64, load_bytes_per_s=1e30, depth_s=0.0, wave_s=10.0, split_s=5.0, start_s=0.0,
    splits=(1.0, 4.0), input_bytes=2.0, weight_bytes=2.0,
)  # fmt: skip
"""A unit of depth of a tile of 64 x 64 takes one second, of 128 x 128 four; a wave adds 10 s and a split 5 s."""


# Products.


def explicit_product_s(product: Product, rate: BlockRate, sms: float) -> float:
    """The best tile and split, with every block dealt out to the multiprocessors in turn."""
    times_s = []
    for tile, columns in rate.tiles:
        down, across = range(0, int(product.rows), int(tile)), range(0, int(product.columns), int(columns))
        blocks = [(i, j) for _ in range(int(product.groups)) for i in down for j in across]
        rows = min(tile, product.rows)
        loaded_s = (rows * rate.input_bytes + columns * rate.weight_bytes) / rate.load_bytes_per_s
        depth_s = max(2.0 * rows * columns / rate.flops_per_s, loaded_s, rate.depth_s)
        for split in rate.splits:
            waves = len(range(0, len(blocks) * int(split), int(sms)))
            summed_s = rate.split_s if split > 1.0 else 0.0
            times_s.append(waves * (product.depth / split * depth_s + rate.wave_s) + summed_s)
    return min(times_s)


@pytest.mark.parametrize(
    ("rows", "columns", "depth", "groups", "expected_s"),
    [
        (128, 128, 16, 1, 16 + 10),  # 4 blocks of 64 x 64 are a wave
        (64, 64, 16, 1, 16 / 4 + 10 + 5),  # one block in four parts
        (128, 64, 160, 1, 2 * (160 / 4 + 10) + 5),  # two in four parts each are two waves
        (192, 128, 16, 1, 2 * (16 + 10)),  # 6 blocks of 64 x 64 are two waves
        (192, 128, 1, 1, 1 * 4 + 10),  # 2 of 128 x 128 are one
        (64, 64, 16, 4, 16 + 10),  # a block of each of 4 products
        (64, 64, 16, 5, 2 * (16 + 10)),
        (1, 64, 16, 1, 16 / 64 + 10),  # few rows are few FLOPs
    ],
)
def test_a_product_on_four_multiprocessors_by_hand(
    rows: int, columns: int, depth: int, groups: int, expected_s: float
) -> None:
    product = Product(float(rows), float(columns), float(depth), float(groups))
    assert product_s(product, UNIT, 4.0) == pytest.approx(expected_s, rel=1e-15)


@pytest.mark.parametrize(("rows", "bytes_"), [(1.0, 1 * 2 + 64 * 2), (17.0, 17 * 2 + 64 * 2), (300.0, 64 * 2 + 64 * 2)])
def test_a_block_that_waits_for_its_operands(rows: float, bytes_: float) -> None:
    """Rows of the inputs, at most a tile of them, and 64 columns of the weights, for each unit of depth."""
    slow = UNIT._replace(flops_per_s=1e30, load_bytes_per_s=2.0, wave_s=0.0, splits=(1.0,))
    blocks = -(-rows // 64)
    assert product_s(Product(rows, 64.0, 8.0), slow, blocks) == pytest.approx(8 * bytes_ / 2.0, rel=1e-15)
    narrow = slow._replace(weight_bytes=0.5)
    fewer = bytes_ - 1.5 * 64
    assert product_s(Product(rows, 64.0, 8.0), narrow, blocks) == pytest.approx(8 * fewer / 2.0, rel=1e-15)


def test_a_unit_of_depth_has_a_least_time() -> None:
    scaled = UNIT._replace(depth_s=3.0, splits=(1.0,))
    assert product_s(Product(64.0, 64.0, 8.0), scaled, 4.0) == 8 * 3.0 + 10.0
    assert product_s(Product(64.0, 64.0, 8.0), scaled._replace(depth_s=0.5), 4.0) == 8 * 1.0 + 10.0


@given(products, block_rates(), SMS)
def test_a_product_takes_the_best_of_its_tiles_and_splits(product: Product, rate: BlockRate, sms: float) -> None:
    assert product_s(product, rate, sms) == pytest.approx(explicit_product_s(product, rate, sms), rel=1e-12)


@given(products, block_rates(), SMS)
def test_a_product_is_never_faster_than_its_multiprocessors(product: Product, rate: BlockRate, sms: float) -> None:
    work = 2.0 * product.groups * product.rows * product.columns * product.depth
    assert product_s(product, rate, sms) >= work / (sms * rate.flops_per_s) * (1.0 - 1e-12)


@given(products, block_rates(), SMS)
def test_a_split_only_helps(product: Product, rate: BlockRate, sms: float) -> None:
    whole, split = rate._replace(splits=(1.0,)), rate._replace(splits=(1.0, 4.0, 16.0))
    assert product_s(product, split, sms) <= product_s(product, whole, sms)
    assert product_s(product, split._replace(split_s=1e9), sms) == product_s(product, whole, sms)


def test_a_split_helps_a_deep_product_with_few_blocks_and_no_other() -> None:
    whole = UNIT._replace(splits=(1.0,))
    deep, full = Product(64.0, 64.0, 1e4), Product(64.0 * 27, 64.0 * 4, 1e4)
    assert product_s(deep, UNIT, 108.0) < 0.3 * product_s(deep, whole, 108.0)
    assert product_s(full, UNIT, 108.0) == product_s(full, whole, 108.0)


@given(products, block_rates(), SMS, wholes(1, 300))
@pytest.mark.parametrize("field", ["rows", "columns", "depth", "groups"])
def test_more_of_a_product_takes_no_less(
    field: str, product: Product, rate: BlockRate, sms: float, more: float
) -> None:
    larger = product._replace(**{field: getattr(product, field) + more})
    assert product_s(larger, rate, sms) >= product_s(product, rate, sms)


@given(block_rates(), SMS)
def test_a_large_product_tends_to_the_rate_of_its_multiprocessors(rate: BlockRate, sms: float) -> None:
    """Relative to the work, what the last wave and the last tiles leave idle fades with the size."""
    rate = rate._replace(load_bytes_per_s=1e30, depth_s=0.0)
    excess = []
    for size in (1e4, 1e5, 1e6):
        ideal_s = 2.0 * size**3 / (sms * rate.flops_per_s)
        waves_s = (size / 128.0) ** 2 / sms * rate.wave_s
        excess.append((product_s(Product(size, size, size), rate, sms) - waves_s) / ideal_s - 1.0)
    assert all(value <= bound for value, bound in zip(excess, (0.2, 0.02, 0.002), strict=True))


@given(st.lists(products, min_size=2, max_size=5), block_rates(), SMS)
def test_arrays_of_products_hold_what_scalars_give(rows: list[Product], rate: BlockRate, sms: float) -> None:
    arrays = Product(*(np.array(column) for column in zip(*rows, strict=True)))
    assert product_s(arrays, rate, sms).tolist() == [product_s(row, rate, sms) for row in rows]


# Experts.

TILES = ExpertRate(
    UNIT._replace(flops_per_s=2.0 * 16 * 16), (Tile(16.0, 16.0, tokens=64.0), Tile(64.0, 32.0)),
    tuned_tiles=(Tile(128.0, 128.0),), tuned_shapes=((8.0, 512.0),),
)  # fmt: skip
"""A unit of depth of a tile of 16 x 16 takes one second, of 64 x 32 eight, of 128 x 128 sixty-four."""


def of_experts(d_in: float = 7.0, d_out: float = 100.0, **changes: float) -> ExpertLinear:
    """The product of 4 experts, two visits a token, unless changed."""
    sizes = {"experts": 4.0, "experts_per_token": 2.0} | changes
    return ExpertLinear(d_in=d_in, d_out=d_out, weight_bytes=2.0, activation_bytes=2.0, input_bytes=2.0, **sizes)


expert_products = st.builds(
    of_experts,
    wholes(1, 5000),
    wholes(1, 3000),
    experts=st.sampled_from((4.0, 8.0, 60.0)),
    experts_per_token=st.sampled_from((0.25, 1.0, 4.0)),
    inner=st.sampled_from((0.0, 512.0)),
    visited_share=st.floats(0.2, 1.0),
)


@pytest.mark.parametrize(
    ("tokens", "sms", "tiles", "tile_s"),
    [
        # 12 rows an expert: a tile and an eighth, 7 columns of tiles, on one multiprocessor and on 10.
        (24.0, 1.0, 4 * 1.25 * 7, 1.0),
        (24.0, 10.0, 4 * 1.25 * 7 / 10, 1.0),
        # On 100 multiprocessors it still takes as long as one tile.
        (24.0, 100.0, 1.0, 1.0),
        # 512 rows an expert take the large tiles: eight and a half, 4 columns of them.
        (1024.0, 1.0, 4 * 8.5 * 4, 8.0),
    ],
)
def test_tiles_of_experts_by_hand(tokens: float, sms: float, tiles: float, tile_s: float) -> None:
    """Half a tile is lost on average; blocks of the last wave share what is idle."""
    batch = Batch.uniform(1.0, tokens, 0.0)
    assert experts_s(of_experts(), batch, TILES, sms) == pytest.approx(tiles * 7 * tile_s, rel=1e-6)


def test_loads_of_experts_hide_behind_no_arithmetic_and_weights_are_widened_once_a_tile() -> None:
    """16 rows and 16 columns of 2 bytes at 8 bytes/s are 8 s beside 1 s; 16 values of 3 s each are 48 s."""
    op, batch = of_experts(d_in=1.0, d_out=16.0), Batch.uniform(1.0, 1.0, 0.0)
    loading = TILES._replace(block=TILES.block._replace(load_bytes_per_s=8.0))
    assert experts_s(op, batch, loading, 1.0) == pytest.approx(2 * (1 + 8), rel=1e-12)
    assert experts_s(op, batch, loading._replace(widened_s=3.0), 1.0) == pytest.approx(2 * (1 + 8 + 48), rel=1e-12)
    floored = TILES._replace(block=TILES.block._replace(depth_s=50.0))
    assert experts_s(op, batch, floored, 1.0) == pytest.approx(2 * 50, rel=1e-12)


@pytest.mark.parametrize(
    ("tokens", "experts", "inner", "expected_s"),
    [
        (64.0, 8.0, 256.0, 1.0),  # the last pass of the small tile
        (65.0, 8.0, 256.0, 8.0),
        (64.0, 8.0, 512.0, 64.0),  # the shape is tuned
        (64.0, 9.0, 512.0, 1.0),
    ],
)
def test_a_pass_takes_the_first_tile_whose_bounds_it_keeps(
    tokens: float, experts: float, inner: float, expected_s: float
) -> None:
    op = of_experts(d_in=1.0, d_out=1.0, experts=experts, experts_per_token=0.1, inner=inner)
    assert experts_s(op, Batch.uniform(1.0, tokens, 0.0), TILES, 1e9) == pytest.approx(expected_s, rel=1e-6)


def test_a_tile_may_be_bound_by_the_tokens_of_each_expert() -> None:
    rate = TILES._replace(tiles=(Tile(16.0, 16.0, tokens_per_expert=2.0), Tile(64.0, 32.0)))
    times_s = [
        experts_s(of_experts(1.0, 1.0, experts_per_token=0.1), Batch.uniform(1.0, tokens, 0.0), rate, 1e9)
        for tokens in (8.0, 9.0)
    ]
    assert times_s == pytest.approx([1.0, 8.0], rel=1e-6)


@given(expert_products, expert_rates(), wholes(1, 3000))
def test_padding_of_experts_adds_work_and_at_most_a_tile_for_each(
    op: ExpertLinear, rate: ExpertRate, tokens: float
) -> None:
    """Arithmetic alone, where no multiprocessor idles: between that of the rows, and a tile more each."""
    block = rate.block._replace(load_bytes_per_s=1e30, depth_s=0.0)
    rate, batch = rate._replace(block=block, widened_s=0.0), Batch.uniform(1.0, tokens, 0.0)
    product = op.product(batch)
    tiles = (*rate.tiles, *rate.tuned_tiles)
    rows, columns = max(tile.rows for tile in tiles), max(tile.columns for tile in tiles)
    seconds = experts_s(op, batch, rate, 1e-3) * 1e-3
    assert seconds >= op.cost(batch).flops / block.flops_per_s * (1.0 - 1e-9)
    padded = product.groups * (product.rows + rows) * (product.columns + columns) * product.depth
    assert seconds <= 2.0 * padded / block.flops_per_s * (1.0 + 1e-9)


@given(st.lists(expert_products, min_size=2, max_size=5), expert_rates(), SMS, wholes(1, 3000))
def test_arrays_of_experts_hold_what_scalars_give(
    ops: list[ExpertLinear], rate: ExpertRate, sms: float, tokens: float
) -> None:
    batch = Batch.uniform(1.0, tokens, 0.0)
    varied = ("experts", "experts_per_token", "d_in", "d_out", "inner", "visited_share")
    arrays: Any = replace(ops[0], **{name: np.array([getattr(op, name) for op in ops]) for name in varied})
    expected = [experts_s(op, batch, rate, sms) for op in ops]
    assert np.broadcast_to(experts_s(arrays, batch, rate, sms), len(ops)).tolist() == expected


# Attention.

WALK = AttentionRate(
    query_rows=64.0, key_rows=32.0, row_s=1.0, exponential_s=0.0, load_bytes_per_s=1e30, wave_s=7.0, splits=1.0,
    padded=False,
)  # fmt: skip
"""A key costs a row one second for each value of the head; a wave adds 7 s, and keys are not split."""

SHARED = FusedAttention(heads=4.0, kv_heads=1.0, head_dim=2.0, activation_bytes=2.0, kv_bytes=2.0)


@st.composite
def attentions(draw: st.DrawFn, all_pairs: bool | None = None) -> FusedAttention:
    kv_heads = draw(st.sampled_from((1.0, 2.0, 8.0)))
    return FusedAttention(
        heads=kv_heads * draw(st.sampled_from((1.0, 2.0, 4.0, 71.0))),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from((16.0, 64.0, 128.0))),
        activation_bytes=2.0,
        kv_bytes=draw(st.sampled_from((1.0, 2.0))),
        window=draw(windows()),
        all_pairs=draw(st.booleans()) if all_pairs is None else all_pairs,
    )


@pytest.mark.parametrize(
    ("change", "batch", "busy_s", "wave_s"),
    [
        # Three sequences with a key head each on two multiprocessors are two waves of 16 rows; 10 keys and half a
        # step of 32.
        ({}, Batch.uniform(3.0, 1.0, 9.0), 2 * (16 * 2) * (10 + 16), 2 * 7),
        # Keys that are split fill both.
        ({"splits": 32.0}, Batch.uniform(3.0, 1.0, 9.0), 1.5 * (16 * 2) * (10 + 16), 2 * 7),
        # One alone is walked by both, in no more than 32 parts.
        ({"splits": 32.0}, Batch.uniform(1.0, 1.0, 9.0), 0.5 * (16 * 2) * (10 + 16), 7),
        # A padded kernel takes 64 rows for each head: 12 blocks.
        ({"padded": True}, Batch.uniform(3.0, 1.0, 9.0), 6 * (64 * 2) * (10 + 16), 6 * 7),
        # 20 queries of 4 heads are 80 rows: two blocks of 64; query i sees i keys, the edges of a tile of 20 and of a
        # step of 32 beside.
        ({}, Batch.uniform(1.0, 20.0, 0.0), 1 * (64 * 2) * max(10.5 + 9.5 + 16, 20 + 16), 7),
        # Two such sequences are two waves.
        ({}, Batch.uniform(2.0, 20.0, 0.0), 2 * (64 * 2) * (10.5 + 9.5 + 16), 2 * 7),
        # Keys of more than one query are not split: 16 queries of 4 heads are one block, which leaves one idle.
        ({"splits": 32.0}, Batch.uniform(1.0, 16.0, 0.0), 1 * (64 * 2) * (8.5 + 7.5 + 16), 7),
        # Exponentials of a row beside the products.
        ({"exponential_s": 0.5}, Batch.uniform(3.0, 1.0, 9.0), 2 * 16 * 2.5 * (10 + 16), 2 * 7),
        # A key and a value of 2 x 2 bytes each that arrive at a byte in 10 seconds.
        ({"load_bytes_per_s": 0.1}, Batch.uniform(3.0, 1.0, 9.0), 2 * (2 * 2 * 2 / 0.1) * (10 + 16), 2 * 7),
    ],
)
def test_attention_on_two_multiprocessors_by_hand(
    change: dict[str, Any], batch: Batch, busy_s: float, wave_s: float
) -> None:
    assert attention_s(SHARED, batch, WALK._replace(**change), 2.0) == pytest.approx((busy_s, wave_s), rel=1e-15)


@pytest.mark.parametrize(("sms", "parts"), [(2.0, 2.0), (32.0, 32.0), (108.0, 32.0)])
def test_a_lone_sequence_is_split_over_so_many_multiprocessors(sms: float, parts: float) -> None:
    """One block of 16 rows walks 10 keys and half a step of 32, in at most 32 parts."""
    busy_s, wave_s = attention_s(SHARED, Batch.uniform(1.0, 1.0, 9.0), WALK._replace(splits=32.0), sms)
    assert (busy_s, wave_s) == pytest.approx(((16 * 2) * (10 + 16) / parts, 7.0), rel=1e-15)


def test_without_a_mask_no_edge_is_added() -> None:
    """An encoder: 20 queries of 4 heads, in two blocks of 64 rows, see all 20 keys."""
    everything = replace(SHARED, all_pairs=True)
    assert attention_s(everything, Batch.uniform(1.0, 20.0, 0.0), WALK, 2.0) == (64 * 2 * 20.0, 7.0)


@given(attentions(), attention_rates(), SMS, st.lists(groups(), min_size=2, max_size=4))
def test_groups_of_a_batch_follow_each_other(
    op: FusedAttention, rate: AttentionRate, sms: float, mixed: list[Group]
) -> None:
    whole = attention_s(op, Batch.of(mixed), rate, sms)
    parts = [attention_s(op, Batch.of([group]), rate, sms) for group in mixed]
    assert whole == pytest.approx(tuple(sum(column) for column in zip(*parts, strict=True)), rel=1e-12)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("split", [False, True])
@given(
    op=attentions(),
    rate=attention_rates(),
    sms=SMS,
    seqs=st.sampled_from((1.0, 2.0, 30.0, 300.0)),
    past=wholes(0, 90),
    reach=wholes(1, 40),
)
def test_a_decode_step_is_affine_in_the_cache_on_each_side_of_the_window(
    padded: bool,
    split: bool,
    op: FusedAttention,
    rate: AttentionRate,
    sms: float,
    seqs: float,
    past: float,
    reach: float,
) -> None:
    """Second differences are nothing, so that a decode may be summed from its ends."""
    assume(past + 2.0 * reach + 1.0 <= op.window or past + 1.0 >= op.window)
    rate = rate._replace(padded=padded, splits=32.0 if split else 1.0)
    steps = [attention_s(op, Batch.uniform(seqs, 1.0, past + i * reach), rate, sms) for i in range(3)]
    (low, wave_s), (middle, _), (high, _) = steps
    assert low + high - 2.0 * middle == pytest.approx(0.0, abs=1e-12 * high)
    assert {step[1] for step in steps} == {wave_s}


@pytest.mark.parametrize("all_pairs", [False, True])
@pytest.mark.parametrize("window", [UNLIMITED, 16.0])
@pytest.mark.parametrize(("heads", "kv_heads"), [(8.0, 8.0), (32.0, 8.0), (71.0, 1.0)])
@pytest.mark.parametrize("seqs", [1.0, 5.0, 64.0])
def test_steps_of_a_decode_differ_by_equal_seconds(
    seqs: float, heads: float, kv_heads: float, window: float, all_pairs: bool
) -> None:
    """Before a window of 16 tokens is full, and after: on 108 multiprocessors, where a lone sequence is split most."""
    op = FusedAttention(heads, kv_heads, 64.0, 2.0, 2.0, window, all_pairs)
    for rate in (WALK._replace(splits=32.0), WALK, WALK._replace(padded=True)):
        for first, last in ((0.0, 15.0), (15.0, 400.0)):
            steps = [Batch.uniform(seqs, 1.0, past) for past in np.arange(first, last + 1.0).tolist()]
            times_s = np.array([attention_s(op, batch, rate, 108.0)[0] for batch in steps])
            assert np.abs(np.diff(times_s, 2)).max() <= 1e-12 * times_s.max()


@given(attentions(), attention_rates(), SMS, groups(), wholes(1, 200))
@pytest.mark.parametrize("field", ["seqs", "new", "past"])
def test_more_to_attend_to_takes_no_less(
    field: str, op: FusedAttention, rate: AttentionRate, sms: float, group: Group, more: float
) -> None:
    larger = replace(group, **{field: getattr(group, field) + more})
    less, greater = (attention_s(op, Batch.of([each]), rate, sms) for each in (group, larger))
    for low, high in zip(less, greater, strict=True):
        assert high >= low * (1.0 - 1e-12)


@given(attentions(), attention_rates(), SMS, groups())
def test_attention_is_never_faster_than_its_multiprocessors(
    op: FusedAttention, rate: AttentionRate, sms: float, group: Group
) -> None:
    """A row takes 4 FLOPs for each value and key: so many a second are the rate of a multiprocessor."""
    batch = Batch.of([group])
    busy_s, _ = attention_s(op, batch, rate, sms)
    assert busy_s >= op.cost(batch).flops / (sms * 4.0 / rate.row_s) * (1.0 - 1e-12)


@given(attention_rates(), SMS, wholes(1, 300), wholes(0, 3000))
def test_heads_that_share_keys_share_a_block(rate: AttentionRate, sms: float, seqs: float, past: float) -> None:
    """Up to 16 queries of a key head cost a decode step no more than one, unless the kernel pads."""
    alone = FusedAttention(8.0, 8.0, 64.0, 2.0, 2.0)
    batch = Batch.uniform(seqs, 1.0, past)
    for heads in (2.0, 4.0, 16.0):
        sharing = attention_s(replace(alone, heads=8.0 * heads), batch, rate._replace(padded=False), sms)
        assert sharing == attention_s(alone, batch, rate._replace(padded=False), sms)
    twice = attention_s(replace(alone, heads=256.0), batch, rate._replace(padded=False), sms)
    assert twice[0] > attention_s(alone, batch, rate._replace(padded=False), sms)[0] * (1.0 - 1e-12)
    padded = rate._replace(padded=True, splits=1.0)
    for heads, blocks in ((8.0, 1.0), (32.0, 4.0)):
        waves = np.ceil(seqs * 8.0 * blocks / sms)
        assert attention_s(replace(alone, heads=heads), batch, padded, sms)[1] == waves * rate.wave_s


@given(attentions(), attention_rates(), SMS, wholes(1, 300), wholes(0, 3000))
def test_a_padded_kernel_costs_a_decode_step_no_less(
    op: FusedAttention, rate: AttentionRate, sms: float, seqs: float, past: float
) -> None:
    batch = Batch.uniform(seqs, 1.0, past)
    fitting, padded = (attention_s(op, batch, rate._replace(padded=p, splits=1.0), sms) for p in (False, True))
    split = attention_s(op, batch, rate._replace(padded=False, splits=32.0), sms)
    assert split[0] <= fitting[0] * (1.0 + 1e-12)
    assert fitting[0] <= padded[0] * (1.0 + 1e-12)
    assert split[1] == fitting[1] <= padded[1]


def test_a_padded_kernel_takes_as_many_rows_as_its_tile() -> None:
    """64 rows for one head in place of 16 for four: 16 times the rows, on so many multiprocessors."""
    batch = Batch.uniform(1.0, 1.0, 100.0)
    fitting, padded = (attention_s(SHARED, batch, WALK._replace(padded=p), 1.0)[0] for p in (False, True))
    assert padded == 16.0 * fitting


@given(attentions(), attention_rates(), SMS, st.lists(groups(), min_size=2, max_size=5))
def test_arrays_of_batches_hold_what_scalars_give(
    op: FusedAttention, rate: AttentionRate, sms: float, rows: list[Group]
) -> None:
    columns = (np.array([getattr(row, name) for row in rows]) for name in ("seqs", "new", "past"))
    busy_s, wave_s = (np.broadcast_to(part, len(rows)) for part in attention_s(op, Batch.uniform(*columns), rate, sms))
    for index, row in enumerate(rows):
        assert (busy_s[index], wave_s[index]) == attention_s(op, Batch.of([row]), rate, sms)


def test_a_window_bounds_what_a_query_walks() -> None:
    windowed = replace(SHARED, window=8.0)
    near, far = (attention_s(windowed, Batch.uniform(3.0, 1.0, past), WALK, 2.0) for past in (7.0, 1000.0))
    assert near == far == attention_s(SHARED, Batch.uniform(3.0, 1.0, 7.0), WALK, 2.0)
    assert replace(SHARED, window=UNLIMITED) == SHARED


# Passes over activations.

PASS = PassRate(cache_bytes=1000.0, cache_bytes_per_s=100.0, row_values_per_s=8.0, gathered_values_per_s=1.0)


@pytest.mark.parametrize(
    ("hbm_bytes", "memory_s", "expected_s"),
    [
        (999.0, 99.9, 9.99),  # the cache holds it and is faster
        (999.0, 5.0, 5.0),  # the memory is faster still
        (1000.0, 100.0, 100.0),  # the cache is full
        (0.0, 0.0, 0.0),
    ],
)
def test_a_pass_from_the_cache_or_from_memory(hbm_bytes: float, memory_s: float, expected_s: float) -> None:
    assert cached_s(hbm_bytes, memory_s, PASS) == pytest.approx(expected_s, rel=1e-14)


@given(pass_rates(), powers(8.0, 12.0), powers(0.0, 9.0), powers(0.0, 9.0))
def test_a_cache_never_slows_a_pass_and_more_bytes_never_take_less(
    rate: PassRate, hbm_bytes_per_s: float, some: float, more: float
) -> None:
    def pass_s(hbm_bytes: float) -> float:
        return float(cached_s(hbm_bytes, hbm_bytes / hbm_bytes_per_s, rate))

    assert pass_s(some) <= some / hbm_bytes_per_s
    assert pass_s(some) * (1.0 + 1e-9) >= some / max(hbm_bytes_per_s, rate.cache_bytes_per_s)
    assert pass_s(some + more) * (1.0 + 1e-9) >= pass_s(some)


@pytest.mark.parametrize(("rows", "blocks"), [(1.0, 4.0), (4.0, 4.0), (5.0, 5.0), (400.0, 400.0)])
def test_a_row_keeps_one_multiprocessor_busy(rows: float, blocks: float) -> None:
    """Rows of 6 values touched 3 times at 8 values a second of 4 multiprocessors."""
    op = Elementwise(6.0, 2.0, 2.0, touches=3.0)
    assert rows_s(op, Batch.uniform(rows, 1.0, 0.0), PASS, 4.0) == blocks * 6 * 3 / 8.0


def test_a_kernel_that_takes_many_values_at_a_time_waits_for_none() -> None:
    op = Elementwise(6.0, 2.0, 2.0)
    assert rows_s(op, Batch.uniform(5.0, 7.0, 0.0), PASS, 4.0) == 0.0


def test_rows_of_the_last_position_alone() -> None:
    op = Elementwise(6.0, 2.0, 2.0, touches=1.0, last_only=True)
    assert rows_s(op, Batch.uniform(5.0, 7.0, 0.0), PASS, 4.0) == 5 * 6 / 8.0
    assert rows_s(replace(op, last_only=False), Batch.uniform(5.0, 7.0, 0.0), PASS, 4.0) == 35 * 6 / 8.0


@pytest.mark.parametrize("function", [cached_s, rows_s])
@given(rate=pass_rates(), values=st.lists(wholes(1, 100000), min_size=2, max_size=5))
def test_arrays_of_passes_hold_what_scalars_give(
    function: Callable[..., Any], rate: PassRate, values: list[float]
) -> None:
    def of(value: Any) -> Any:
        if function is cached_s:
            return cached_s(value, value / 1e9, rate)
        return rows_s(Elementwise(64.0, 2.0, 2.0, touches=2.0), Batch.uniform(value, 1.0, 0.0), rate, 16.0)

    assert of(np.array(values)).tolist() == [of(value) for value in values]
