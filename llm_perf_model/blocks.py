"""Seconds of kernels whose work comes in blocks: products, experts, fused attention, passes over rows."""

from __future__ import annotations

from typing import cast

from .numeric import ceil, maximum, minimum
from .ops.attention import FusedAttention
from .ops.base import Product
from .ops.batch import UNLIMITED, Batch, Group
from .ops.elementwise import Elementwise
from .rates import AttentionRate, BlockRate, PassRate
from .types import Num

OUTPUT_TILES = (64.0, 128.0)
"""Rows and columns of an output tile: a kernel exists for each."""

EXPERT_ROWS = 64.0
"""Rows to which the products of an expert are padded."""

FEWEST_ROWS = 16.0
"""Rows of the smallest product of a tensor unit."""


def product_s(product: Product, rate: BlockRate, sms: float) -> Num:
    r"""Arithmetic seconds of a product on the tile and split that suit it best.

    .. math:: t = \min_{tile, s} \left\lceil \frac{s \lceil M/t \rceil \lceil N/t \rceil}{SMs} \right\rceil
       \left( \frac{K}{s} \max\left( \frac{2 m t}{P}, \frac{m b_i + t b_w}{L}, \delta \right) + t_{wave} \right)
       + [s > 1]\, t_{split}, \quad m = \min(M, t)

    with P and L the FLOP/s and the loaded bytes/s of one multiprocessor [1]_.

    .. [1] M. Osama et al., "Stream-K", arXiv:2301.03598.
    """
    best: Num = float("inf")
    for tile in OUTPUT_TILES:
        rows = minimum(tile, product.rows)
        loaded_s = (rows * rate.input_bytes + tile * rate.weight_bytes) / rate.load_bytes_per_s
        depth_s = maximum(2.0 * rows * tile / rate.flops_per_s, maximum(loaded_s, rate.depth_s))
        tiles = product.groups * ceil(product.rows / tile) * ceil(product.columns / tile)
        for split in rate.splits:
            wave_s = product.depth / split * depth_s + rate.wave_s
            best = minimum(best, ceil(tiles * split / sms) * wave_s + (split > 1.0) * rate.split_s)
    return best


def padded_flops(product: Product) -> Num:
    r"""FLOPs of the products of experts whose rows are padded to tiles, :math:`2 K N E_T \max(64, \bar m + 32)`.

    An expert's :math:`\bar m` rows end anywhere in a tile, so half a tile is lost on average, and a whole one is
    computed at least.
    """
    rows = maximum(EXPERT_ROWS, product.rows + EXPERT_ROWS / 2.0)
    return 2.0 * product.groups * rows * product.columns * product.depth


def attention_s(op: FusedAttention, batch: Batch, rate: AttentionRate, sms: float) -> tuple[Num, Num]:
    """Seconds that the blocks of fused attention compute, and those that their waves add."""
    busy_s: Num = 0.0
    wave_s: Num = 0.0
    for group in batch.groups:
        walked_s, waves = _walk(op, group, rate, sms)
        busy_s, wave_s = busy_s + walked_s, wave_s + waves * rate.wave_s
    return busy_s, wave_s


def _walk(op: FusedAttention, group: Group, rate: AttentionRate, sms: float) -> tuple[Num, Num]:
    r"""Seconds of one group's blocks and their waves.

    .. math:: t = \max\left( \frac{4 r d}{P} + \frac{r x}{E}, \frac{2 d b_{kv}}{L} \right)
       \max\left( \frac{n}{SMs} \bar k, \frac{k_{max}}{s} \right)

    with r rows a block, n blocks (in whole waves where keys are not split), :math:`\bar k` keys a query and
    the edges of its tile. Queries that share a key head share a block, unless the kernel pads.
    """
    shared = 1.0 if rate.padded else op.heads / op.kv_heads
    queries = group.new * shared
    rows = rate.query_rows if rate.padded else minimum(rate.query_rows, FEWEST_ROWS * ceil(queries / FEWEST_ROWS))
    load = group.seqs * op.heads / shared * ceil(queries / rows) / sms
    split = 1.0 + (group.new == 1.0) * (rate.splits - 1.0)
    edge = 0.0 if op.all_pairs else rate.key_rows / 2.0
    mean = op.mean_keys(group) + (0.0 if op.all_pairs else (minimum(group.new, rows) - 1.0) / 2.0 + edge)
    longest = group.keys(UNLIMITED if op.all_pairs else op.window) + edge
    key_s = maximum(
        rows * (op.head_dim * rate.row_s + rate.exponential_s), 2.0 * op.head_dim * op.kv_bytes / rate.load_bytes_per_s
    )
    waves = ceil(load)
    walked = maximum((waves - (split > 1.0) * (waves - load)) * mean, longest / split)
    return key_s * walked, waves


def cached_s(hbm_bytes: Num, memory_s: Num, rate: PassRate) -> Num:
    """Seconds of a pass whose tensors the second-level cache may hold: they come from there if that is faster."""
    saved_s = maximum(0.0, memory_s - hbm_bytes / rate.cache_bytes_per_s)
    return cast("Num", memory_s - (hbm_bytes < rate.cache_bytes) * saved_s)


def rows_s(op: Elementwise, batch: Batch, rate: PassRate, sms: float) -> Num:
    """Seconds of a kernel with one block a row to touch its values; a lone row keeps one multiprocessor busy."""
    return maximum(op.rows(batch), sms) * op.width * op.touches / rate.row_values_per_s
