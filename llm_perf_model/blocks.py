"""Seconds of kernels whose work comes in blocks: products, convolutions, experts, fused attention, passes over rows."""

from __future__ import annotations

from typing import NamedTuple, cast

from .numeric import ceil, floor, hypot, maximum, minimum, where
from .ops.attention import FusedAttention
from .ops.base import Cost, Product
from .ops.batch import Batch, Group
from .ops.convolution import Convolution
from .ops.elementwise import Elementwise
from .ops.latent import LatentScores, is_absorbed
from .ops.moe import ExpertLinear
from .rates import AttentionRate, BlockRate, ConvolutionRate, ExpertRate, PassRate, Tile
from .types import Mask, Num

IMPLICIT_ROWS = 64.0
"""Positions of a block of an implicit product."""

TRANSFORMED_KERNELS = 4.0
"""Transforms of input and filters, the product, the transform of the output."""

COPIES = 2.0
"""Kernels that copy input and output between layouts."""

FEWEST_ROWS = 16.0
"""Rows of the smallest product of a tensor unit."""


def product_s(product: Product, rate: BlockRate, sms: float) -> Num:
    r"""Arithmetic seconds of a product on the tile and split that suit it best.

    .. math:: t = \min_{r \times c, s} \left\lceil \frac{s \lceil M/r \rceil \lceil N/c \rceil}{SMs} \right\rceil
       \left( \frac{K}{s} \max\left( \frac{2 m c}{P}, \frac{m b_i + c b_w}{L}, \delta \right) + t_{wave} \right)
       + [s > 1]\, t_{split}, \quad m = \min(M, r)

    with P and L the FLOP/s and the loaded bytes/s of one multiprocessor [1]_. What stays on one core has SMs = 1.

    .. [1] M. Osama et al., "Stream-K", arXiv:2301.03598.
    """
    best: Num = float("inf")
    cores = where(_is_serial(product, rate), 1.0, sms) if rate.serial_flops else sms
    for tile_rows, columns in rate.tiles:
        rows = minimum(tile_rows, product.rows)
        loaded_s = (rows * rate.input_bytes + columns * rate.weight_bytes) / rate.load_bytes_per_s
        depth_s = maximum(2.0 * rows * columns / rate.flops_per_s, maximum(loaded_s, rate.depth_s))
        tiles = product.groups * ceil(product.rows / tile_rows) * ceil(product.columns / columns)
        for split in rate.splits:
            wave_s = product.depth / split * depth_s + rate.wave_s
            busy_s = ceil(tiles * split / cores) * wave_s
            best = minimum(best, busy_s + rate.split_s if split > 1.0 else busy_s)
    return best


def _is_serial(product: Product, rate: BlockRate) -> Mask:
    """Whether a product is so small that it stays on one core."""
    return _flops(product) <= rate.serial_flops


def begun_s(product: Product, rate: BlockRate) -> Num:
    """Seconds before a product begins: what its kernel adds, and the threads of one that cores share."""
    if not rate.serial_flops:
        return rate.start_s + rate.region_s
    return rate.start_s + where(_is_serial(product, rate), 0.0, rate.region_s)


def implicit_s(product: Product, flops_per_s: Num, rate: ConvolutionRate, sms: float) -> Num:
    r"""Arithmetic seconds of an implicit product on blocks of 64 rows and as many columns as the narrowest has.

    .. math:: t = \min_s \left\lceil \frac{s\,g \lceil M/64 \rceil \lceil N/c \rceil}{SMs} \right\rceil
       \frac{K}{s} \frac{2 c \min(M, 64)}{P} + [s > 1]\, t_{split}
    """
    tiles = product.groups * ceil(product.rows / IMPLICIT_ROWS) * ceil(product.columns / rate.columns)
    depth_s = 2.0 * minimum(IMPLICIT_ROWS, product.rows) * rate.columns / flops_per_s
    best: Num = float("inf")
    for split in rate.splits:
        busy_s = ceil(tiles * split / sms) * (product.depth / split * depth_s)
        best = minimum(best, busy_s + (split > 1.0) * rate.split_s)
    return best


class Form(NamedTuple):
    """A way to compute a convolution. Fields broadcast."""

    flops: Num
    compute_s: Num
    memory_s: Num
    busy_s: Num
    kernels: Num


def convolution_s(
    op: Convolution, batch: Batch, memory_s: Num, rate: ConvolutionRate, sms: float, start_s: Num
) -> Form:
    """The fastest form of a convolution: an implicit product, or Winograd's where that saves arithmetic."""
    best = _implicit(op, batch, memory_s, rate, sms)
    own = rate.winograd_flops_per_s
    if not op.winograd or (isinstance(own, float) and own == 0.0):
        return best
    direct = best.flops
    for form in (_fused(op, batch, memory_s, rate, sms), _transformed(op, batch, rate, sms)):
        seconds, least_s = form.busy_s + form.kernels * start_s, best.busy_s + best.kernels * start_s
        better = (form.flops < direct) & (seconds < least_s)
        best = Form(*(where(better, new, old) for new, old in zip(form, best, strict=True)))
    return best


def _implicit(op: Convolution, batch: Batch, memory_s: Num, rate: ConvolutionRate, sms: float) -> Form:
    """One product, between copies of input and output where the unit takes another layout.

    Small groups are joined until they fill the channels that a block takes at once; zeros stand between them.
    """
    product, channels = op.product(batch), op.in_channels / op.groups
    joined = maximum(1.0, minimum(op.groups, floor(rate.channels / channels)))
    depth = op.window * rate.channels * ceil(joined * channels / rate.channels)
    blocks = Product(product.rows, joined * product.columns, depth, ceil(op.groups / joined))
    compute_s = implicit_s(blocks, rate.flops_per_s, rate, sms)
    busy_s = hypot(compute_s, memory_s)
    if not rate.copies:
        return Form(_flops(product), compute_s, memory_s, busy_s, 1.0)
    copies_s = 2.0 * op.cost(batch).activation_bytes / rate.moved_bytes_per_s
    return Form(_flops(product), compute_s, memory_s + copies_s, busy_s + copies_s, 1.0 + COPIES)


def _flops(product: Product) -> Num:
    return 2.0 * product.groups * product.rows * product.columns * product.depth


def _fused(op: Convolution, batch: Batch, memory_s: Num, rate: ConvolutionRate, sms: float) -> Form:
    """Winograd's form for 2 x 2 positions in one kernel: a block takes all transformed values of its tiles."""
    product = op.winograd_product(batch, 2.0)
    values = product.groups / op.groups
    deep = product._replace(depth=product.depth * values, groups=op.groups)
    compute_s = implicit_s(deep, rate.winograd_flops_per_s, rate, sms)
    return Form(_flops(product), compute_s, memory_s, hypot(compute_s, memory_s), 1.0)


def _transformed(op: Convolution, batch: Batch, rate: ConvolutionRate, sms: float) -> Form:
    """Winograd's form for 4 x 4 positions, whose transforms of input, filters and output go through memory."""
    product = op.winograd_product(batch, 4.0)
    inputs = product.groups * product.rows * product.depth * op.activation_bytes
    filters = product.groups * product.columns * product.depth * op.weight_bytes
    outputs = product.groups * product.rows * product.columns * op.activation_bytes
    product_s = (inputs + filters + outputs) / rate.moved_bytes_per_s
    passes_s = op.cost(batch).hbm_bytes / rate.moved_bytes_per_s + product_s
    compute_s = implicit_s(product, rate.flops_per_s, rate, sms)
    busy_s = passes_s + hypot(compute_s, product_s)
    return Form(_flops(product), compute_s, passes_s + product_s, busy_s, TRANSFORMED_KERNELS)


def experts_s(op: ExpertLinear, batch: Batch, rate: ExpertRate, sms: float) -> Num:
    r"""Arithmetic seconds of the products of experts, whose rows are padded to tiles of r x c.

    .. math:: t = \max\left( \frac{n}{SMs}, 1 \right) K
       \max\left( \frac{2 r c}{P} + \frac{r b_i + c b_w}{L} + c\,\omega, \delta \right), \quad
       n = E_T \max\left( 1, \frac{\bar m}{r} + \frac{1}{2} \right) \left\lceil \frac{N}{c} \right\rceil

    An expert's :math:`\bar m` rows end anywhere in a tile, so half a tile is lost on average, and a whole one is
    computed at least. Loads hide behind no arithmetic, blocks of the last wave share what others leave idle.
    """
    product, block = op.product(batch), rate.block
    rows, columns = _tile_of(op, batch, rate)
    loaded_s = (rows * block.input_bytes + columns * block.weight_bytes) / block.load_bytes_per_s
    busy_s = 2.0 * rows * columns / block.flops_per_s + loaded_s + columns * rate.widened_s
    tiles = product.groups * maximum(1.0, product.rows / rows + 0.5) * ceil(product.columns / columns)
    return maximum(tiles / sms, 1.0) * product.depth * maximum(busy_s, block.depth_s)


def _tile_of(op: ExpertLinear, batch: Batch, rate: ExpertRate) -> tuple[Num, Num]:
    """Rows and columns of the tile that a pass takes."""
    rows, columns = _first(rate.tiles, op, batch)
    if not rate.tuned_shapes:
        return rows, columns
    tuned_rows, tuned_columns = _first(rate.tuned_tiles, op, batch)
    tuned: Mask = False
    for experts, inner in rate.tuned_shapes:
        tuned = tuned | ((op.router.kept == experts) & (op.inner == inner))
    return where(tuned, tuned_rows, rows), where(tuned, tuned_columns, columns)


def _first(tiles: tuple[Tile, ...], op: ExpertLinear, batch: Batch) -> tuple[Num, Num]:
    """Rows and columns of the first of the tiles whose bounds a pass keeps."""
    rows: Num = tiles[-1].rows
    columns: Num = tiles[-1].columns
    for tile in reversed(tiles[:-1]):
        keeps = (batch.tokens <= tile.tokens) & (batch.tokens <= tile.tokens_per_expert * op.router.kept)
        rows, columns = where(keeps, tile.rows, rows), where(keeps, tile.columns, columns)
    return rows, columns


def attention_s(op: FusedAttention | LatentScores, batch: Batch, rate: AttentionRate, sms: float) -> tuple[Num, Num]:
    """Seconds that the blocks of fused attention compute, and those that their waves add."""
    busy_s: Num = 0.0
    wave_s: Num = 0.0
    for group in batch.groups:
        walked_s, waves = (
            _walk(op, group, rate, sms) if isinstance(op, FusedAttention) else _chosen(op, group, rate, sms)
        )
        busy_s, wave_s = busy_s + walked_s, wave_s + waves * rate.wave_s
    return busy_s, wave_s


def _chosen(op: LatentScores, group: Group, rate: AttentionRate, sms: float) -> tuple[Num, Num]:
    """Seconds of one group's blocks and their waves, in the form that the group takes."""
    absorbed = is_absorbed(group, op.absorbed_tokens)
    forms = zip(_walk(op.absorbed, group, rate, sms), _walk(op.made, group, rate, sms), strict=True)
    walked_s, waves = (where(absorbed, one, other) for one, other in forms)
    return walked_s, waves


def _walk(op: FusedAttention, group: Group, rate: AttentionRate, sms: float) -> tuple[Num, Num]:
    r"""Seconds of one group's blocks and their waves.

    .. math:: t = \max\left( \frac{2 r (d + v)}{P} + \frac{r x}{E}, \frac{w b_{kv}}{L} \right)
       \max\left( \frac{n}{SMs} \bar k, \frac{k_{max}}{s} \right)

    with r rows a block, sizes as in `FusedAttention`, n blocks (in whole waves where keys are not split),
    :math:`\bar k` keys a query and the edges of its tile. Queries that share a key head share a block, unless
    the kernel pads.
    """
    shared = 1.0 if rate.padded else op.heads / op.kv_heads
    queries = group.new * shared
    rows = rate.query_rows if rate.padded else minimum(rate.query_rows, FEWEST_ROWS * ceil(queries / FEWEST_ROWS))
    load = group.seqs * op.heads / shared * ceil(queries / rows) / sms
    split = 1.0 + (group.new == 1.0) * (rate.splits - 1.0)
    edge = 0.0 if op.all_pairs else rate.key_rows / 2.0
    mean = op.mean_keys(group) + (0.0 if op.all_pairs else (minimum(group.new, rows) - 1.0) / 2.0 + edge)
    longest = (group.keys() if op.all_pairs else op.keys(group)) + edge
    loaded_bytes = op.token_bytes * op.entry_tokens / op.kv_heads
    key_s = maximum(rows * (op.width / 2.0 * rate.row_s + rate.exponential_s), loaded_bytes / rate.load_bytes_per_s)
    waves = ceil(load)
    walked = maximum((waves - (split > 1.0) * (waves - load)) * mean, longest / split)
    return key_s * walked, waves


def cached_s(hbm_bytes: Num, memory_s: Num, rate: PassRate) -> Num:
    """Seconds of a pass whose tensors a cache may hold: they come from there if that is faster."""
    saved_s = maximum(0.0, memory_s - hbm_bytes / rate.cache_bytes_per_s)
    return cast("Num", memory_s - _held(hbm_bytes, rate) * saved_s)


def _held(hbm_bytes: Num, rate: PassRate) -> Num | Mask:
    r"""Share of a pass's tensors that the cache holds.

    All or nothing; where the cache is the last level, :math:`\min(1, \max(0, 2 - 2 Q / C))` of Q bytes.
    """
    if not rate.last_level:
        return hbm_bytes < rate.cache_bytes
    return minimum(1.0, maximum(0.0, 2.0 - 2.0 * hbm_bytes / max(rate.cache_bytes, 1.0)))


def operands_s(cost: Cost, memory_s: Num, rate: PassRate | None) -> Num:
    """Seconds of a product's operands: weights from memory, inputs and outputs from a last-level cache."""
    if rate is None or not rate.last_level:
        return memory_s
    share = cost.activation_bytes / cost.hbm_bytes
    return memory_s * (1.0 - share) + cached_s(cost.activation_bytes, memory_s * share, rate)


def rows_s(op: Elementwise, batch: Batch, rate: PassRate, sms: float) -> Num:
    """Seconds of a kernel with one block a row to touch its values; a lone row keeps one multiprocessor busy."""
    return maximum(op.rows(batch), sms) * op.width * op.touches / rate.row_values_per_s
