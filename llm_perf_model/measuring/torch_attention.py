"""Attention over steps or windows of steps as nodes of a PyTorch graph."""

from __future__ import annotations

import math
import operator
from math import isqrt
from typing import Any

from ..layers import OFFSET_WIDTH
from ..specs.layer import Attention, Shape
from .written import Writer

LARGEST_SCALE = math.log(100.0)
"""Logarithm of what a score is multiplied by at most (Swin Transformer V2, arXiv:2111.09883, section 3.2)."""


def attend(to: Writer, layer: Attention, x: Any, shape: Shape, name: str) -> Any:
    """Self-attention; windows are to the kernel what further samples are.

    Where steps are no square map, the steps of a window follow each other.
    """
    if layer.window is None:
        return _heads(to, layer, x, shape, name)
    (steps, features), side = shape, layer.window
    across = squares_across(steps, side)
    if across:
        x = _by_squares(to, x, across, side, features)
    windows = to.reshape(x, side**2, features)
    x = to.reshape(_heads(to, layer, windows, (side**2, features), name), steps, features)
    return to.reshape(_by_squares(to, x, across, side, features, back=True), steps, features) if across else x


def join_steps(to: Writer, joined: int, x: Any, shape: Shape) -> Any:
    """Features of `joined` steps side by side: those of a square where steps are a square map, or of a run."""
    (steps, features), side = shape, isqrt(joined)
    across = squares_across(steps, side) if side**2 == joined else 0
    if across:
        x = _by_squares(to, x, across, side, features)
    return to.reshape(x, steps // joined, features * joined)


def squares_across(steps: int, side: int) -> int:
    """Squares of a side in a row of a square map of steps; 0 where the steps are no such map."""
    width = isqrt(steps)
    return width // side if width**2 == steps and width % side == 0 else 0


def _by_squares(to: Writer, x: Any, across: int, side: int, features: int, *, back: bool = False) -> Any:
    """Steps row by row in the order of their squares, or back: squares down, across; within one rows, columns."""
    sizes = (across, across, side, side) if back else (across, side, across, side)
    return to.permute(to.reshape(x, *sizes, features), 0, 1, 3, 2, 4, 5)


def _heads(to: Writer, layer: Attention, x: Any, shape: Shape, name: str) -> Any:
    """One product for queries, keys and values, the scores of all steps with all steps, a product."""
    (steps, features), nn = shape, to.nn
    qkv = to.call(f"{name}.qkv", nn.Linear(features, 3 * features, layer.bias), x)
    parts = to.permute(to.reshape(qkv, steps, 3, layer.heads, features // layer.heads), 2, 0, 3, 1, 4)
    q, k, v = (to.do(operator.getitem, parts, place) for place in range(3))
    options: dict[str, Any] = {}
    if layer.relative_positions:
        options["attn_mask"] = _added_to_scores(to, layer, name)
    if layer.relative_positions == "network":
        q, k = _with_learned_scale(to, q, k, layer.heads, name)
        options["scale"] = 1.0
    mixed = to.transpose(to.do(nn.functional.scaled_dot_product_attention, q, k, v, **options), 1, 2)
    return to.call(
        f"{name}.attention_out", nn.Linear(features, features, layer.bias), to.reshape(mixed, steps, features)
    )


def _added_to_scores(to: Writer, layer: Attention, name: str) -> Any:
    """What each pair of steps of a window adds to its score: 1 x heads x steps x steps."""
    side = layer.window or 1
    offsets = 2 * side - 1
    if layer.relative_positions == "table":
        table = to.weights(f"{name}.table", offsets**2, layer.heads)
    else:
        table = _made_of_offsets(to, offsets, layer.heads, name)
    pairs = to.get(f"{name}.pairs", _pairs(to.torch, side))
    found = to.reshape(to.do(operator.getitem, table, pairs), side**2, side**2, layer.heads)
    return to.permute(found, 0, 3, 1, 2)


def _pairs(torch: Any, side: int) -> Any:
    """Row of the table of offsets that each pair of steps of a window reads."""
    places = torch.arange(side)
    rows, columns = (places.repeat_interleave(side), places.repeat(side))
    down, right = (values[:, None] - values[None, :] + side - 1 for values in (rows, columns))
    return (down * (2 * side - 1) + right).flatten()


def _made_of_offsets(to: Writer, offsets: int, heads: int, name: str) -> Any:
    """A table that a small network makes of the logarithms of the offsets, in each pass [1]_.

    .. [1] Swin Transformer V2, arXiv:2111.09883, equations 3 and 4.
    """
    nn, torch = to.nn, to.torch
    line = torch.linspace(-8.0, 8.0, offsets) if offsets > 1 else torch.zeros(1)
    line = torch.sign(line) * torch.log2(line.abs() + 1.0) / 3.0
    places = to.get(f"{name}.offsets", torch.cartesian_prod(line, line))
    inner = to.call(f"{name}.offsets_in", nn.Linear(2, OFFSET_WIDTH), places)
    outer = to.call(f"{name}.offsets_out", nn.Linear(OFFSET_WIDTH, heads, bias=False), to.do(nn.functional.relu, inner))
    return to.do(operator.mul, to.do(torch.sigmoid, outer), 16.0)


def _with_learned_scale(to: Writer, q: Any, k: Any, heads: int, name: str) -> tuple[Any, Any]:
    """Queries and keys of length 1, the former times a scale of each head."""
    normalize = to.nn.functional.normalize
    scale = to.do(to.torch.clamp, to.weights(f"{name}.scale", heads, 1, 1), max=LARGEST_SCALE)
    q = to.do(operator.mul, to.do(normalize, q, dim=-1), to.do(to.torch.exp, scale))
    return q, to.do(normalize, k, dim=-1)
