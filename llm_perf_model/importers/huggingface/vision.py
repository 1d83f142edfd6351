"""Words of a `vision_config` -> the encoder of images of a model."""

from __future__ import annotations

import math

from ...specs.attention import GroupedQueryAttention
from ...specs.ffn import GatedFfn
from ...specs.model import LayerGroup, Norm, Vision
from ...specs.quantities import shortened
from .feeds import activation, feed_forward
from .reading import Words

MOST_PIXELS = 100_000
"""The longest side of an image that is taken for one."""


def vision(words: Words, text_hidden: int, outer: Words) -> Vision:
    """The encoder of images, and the products that bring its results to the width of the language model."""
    hidden, heads = words.need("hidden"), words.need("heads")
    merge = words.whole("merge") or outer.whole("merge") or 1
    widths = _projector(words, outer, hidden, merge, text_hidden)
    taps = words.items("taps") or ()
    return Vision(
        hidden=hidden,
        patch=_patch(words),
        channels=words.whole("channels") or 3,
        frames=words.whole("frames") or 1,
        position_rows=_rows(words),
        patch_bias=words.flag("patch_bias"),
        class_token=words.flag("class_token"),
        norm=norm_of(words),
        embedding_norm=words.flag("embedding_norm"),
        final_norm=words.flag("final_norm"),
        layers=_layers(words, hidden, heads),
        merged=merge**2,
        tapped=len(words.items("tapped") or ()),
        pooled=words.text("merging") == "mean",
        merged_norm=words.flag("merged_norm"),
        projector=widths,
        projector_bias=words.flag("projector_bias"),
        projector_ffn=_behind(words),
        projectors=1 + len(taps),
    )


def _behind(words: Words) -> GatedFfn | None:
    """The feed-forward behind a projector."""
    width = words.whole("projector_width")
    return None if width is None else GatedFfn(intermediate=width, activation=activation(words))


def _patch(words: Words) -> int:
    """Height and width of a patch, which some configs tell apart."""
    sides = words.get("patch")
    if isinstance(sides, list) and sides and isinstance(sides[0], int) and sides == sides[:1] * len(sides):
        return max(sides[0], 1)
    return words.need("patch")


def norm_of(words: Words) -> Norm:
    """How layers are normalised."""
    return "layernorm" if words.text("norm") == "layernorm" else "rmsnorm"


def _layers(words: Words, hidden: int, heads: int) -> tuple[LayerGroup, ...]:
    attention = GroupedQueryAttention(
        heads=heads,
        kv_heads=words.whole("kv_heads") or heads,
        head_dim=words.whole("head_dim") or hidden // heads,
        qkv_bias=words.flag("attention_bias") if words.get("qkv_bias") is None else words.flag("qkv_bias"),
        out_bias=words.flag("attention_bias") if words.get("out_bias") is None else words.flag("out_bias"),
        qk_norm=words.flag("qk_norm") and ("whole" if words.text("qk_norm_of") == "whole" else True),
    )
    fed = feed_forward(words, "dense", 0)
    norms = words.whole("norms") or 2
    stacked = LayerGroup(
        count=words.need("layer_count") + (words.whole("global_layers") or 0), attention=attention, ffn=fed, norms=norms
    )
    if not words.flag("pooling_layer"):
        return (stacked,)
    return stacked, LayerGroup(count=1, attention=attention, ffn=fed, norms=1)  # a query that pools the patches


def _rows(words: Words) -> int | None:
    """Rows of a table of learned positions: one a patch of the largest image, unless the config counts them."""
    if words.text("position") != "learned":
        return None
    rows = words.whole("image_rows")
    if rows is not None:
        return rows * (words.whole("row_tables") or 1)
    patches = int(math.prod(side // _patch(words) for side in sides_of(words)))
    return patches if words.whole("tiles") is None else _rows_of_tiles(words, patches)


def _rows_of_tiles(words: Words, patches: int) -> int:
    """Rows for each place of a tile, of tiles at each place in each shape of an image, and of those two kinds of tiles.

    A shape that is none of those listed has rows too.
    """
    shapes = words.items("tile_shapes")
    places = words.need("tiles") * (1 + (8 if shapes is None else len(shapes)))
    return (patches + 1) * (1 + places) + 2 * places


def sides_of(words: Words) -> list[int]:
    """Height and width of the largest image in pixels."""
    sides = words.get("image_size")
    sides = sides if isinstance(sides, list) else [sides, sides]
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MOST_PIXELS for side in sides):
        raise words.fail("image_size", f"is {shortened(sides)}; must be a whole number from 1 to {MOST_PIXELS}")
    return sides


def _projector(words: Words, outer: Words, hidden: int, merge: int, text_hidden: int) -> tuple[int, ...]:
    """Widths of the products of the projector, from the words for them that a family lists."""
    joined = hidden if words.text("merging") == "mean" else hidden * merge**2
    sizes = {"joined": joined, "hidden": hidden, "text": words.whole("out") or text_hidden}
    listed = words.items("projector") or outer.items("projector") or ["text"]
    return tuple(sizes.get(name) or words.whole(name) or outer.need(name) for name in listed)
