"""Words -> the groups of equal layers of a stack."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Any

from ...specs.attention import CrossAttention
from ...specs.mixer import Mixer
from ...specs.model import LayerGroup
from .feeds import feed_forward
from .mixers import grouped, mixer
from .patterns import Layer, layers
from .reading import Words
from .rotation import is_rotated

_OF_STACKS = frozenset(
    {
        "mixer_types",
        "ffn_types",
        "moe_freq",
        "moe_layers",
        "dense_layers",
        "attention_layers",
        "blocks",
        "taps",
        "crossed_layers",
    }
)
"""Words whose lists are read as a whole."""


def groups(words: Words, crossed: bool = False) -> tuple[LayerGroup, ...]:
    """The layers of a stack, equal ones together; the order of groups does not change the work."""
    words = _of_blocks(words)
    stacked = layers(words)
    words = replace(words, values={**words.values, "layer_count": len(stacked)})
    lists = _by_layer(words, len(stacked))
    borrowing = len(stacked) - (words.whole("borrowing") or 0)
    turns = any(words.get(word) for word in ("rotated_layers", "unrotated_every"))
    counted: dict[Hashable, list[int]] = {}
    for index, layer in enumerate(stacked):
        if layer.mixer is not None or layer.ffn is not None:
            key = (layer, index >= borrowing, turns and is_rotated(words, layer.mixer or "", index))
            counted.setdefault((*key, *(values[index] for values in lists)), []).append(index)
    every = words.whole("shared_every")
    made = [_group(words, stacked[indices[0]], indices, crossed) for indices in counted.values()]
    if words.flag("twins"):
        made = [half for group in made for half in _twins(words, group)]
    return tuple(group.model_copy(update={"stored": every}) for group in made) if every else tuple(made)


def further(words: Words, last: LayerGroup) -> LayerGroup:
    """The layer of a module that predicts further tokens: the last one, unless lists go on behind the stack."""
    count, ratios = words.need("layer_count"), words.items("ratios")
    own = {} if ratios is None or len(ratios) <= count else {"attention": mixer(words, "full", count)}
    return last.model_copy(update={"count": 1, **own})


def _by_layer(words: Words, count: int) -> list[list[Any]]:
    """Lists with a value for each layer."""
    found = []
    for word, value in words.values.items():
        if not isinstance(value, list) or word in _OF_STACKS or any(isinstance(item, list | dict) for item in value):
            continue
        if len(value) >= count:
            found.append(value)
        elif value:
            raise words.fail(word, f"has {len(value)} values, fewer than the {count} layers")
    return found


def _group(words: Words, layer: Layer, indices: list[int], crossed: bool) -> LayerGroup:
    first = indices[0]
    attention, beside = _mixers(words, layer, first)
    fed = None if layer.ffn is None else feed_forward(words, layer.ffn, first)
    norms = words.whole("norms") or 0
    if layer.mixer is None or layer.ffn is None:
        norms = -(-norms // 2)
    if layer.ffn == "moe":
        norms += words.whole("moe_norms") or 0
    return LayerGroup(
        count=len(indices),
        attention=attention,
        beside_attention=beside,
        cross_attention=_crossed(words) if crossed or layer.mixer == "crossed" else None,
        ffn=fed,
        parallel=words.flag("parallel") and attention is not None and fed is not None,
        norms=norms,
    )


def _mixers(words: Words, layer: Layer, index: int) -> tuple[Mixer | None, Mixer | None]:
    """What mixes tokens, and what does so beside it."""
    if layer.mixer in (None, "crossed"):
        return None, None
    if layer.mixer == "both":
        return grouped(words, "full", index), mixer(words, "state", index)
    return mixer(words, layer.mixer, index), None


def _crossed(words: Words) -> CrossAttention:
    own = grouped(words, "full", 0)
    shape = {field: getattr(own, field) for field in ("heads", "kv_heads", "head_dim", "qkv_bias", "out_bias")}
    return CrossAttention(**shape)


def _twins(words: Words, group: LayerGroup) -> Iterator[LayerGroup]:
    """A layer of two mixers and two dense feed-forwards, with experts at the side of the first one."""
    yield group
    yield group.model_copy(update={"ffn": feed_forward(words, "dense", 0)})


def _of_blocks(words: Words) -> Words:
    """Words with a value for each layer, where a config describes its layers one by one."""
    blocks = words.items("blocks")
    if blocks is None:
        return words
    heads, hidden = words.need("heads"), words.need("hidden")
    parts = [(_part(words, block, "attention"), _part(words, block, "ffn")) for block in blocks]
    for attention, ffn in parts:
        for part in (attention, ffn):
            unknown = {field for field, value in part.items() if value} - _KNOWN_PARTS
            if unknown:
                field = min(unknown)
                raise words.fail(
                    "blocks", f"field '{field}' = {part[field]!r} is not known and may change the arithmetic"
                )
    values = {
        "blocks": None,
        "single": [
            ("full" if not attention.get("no_op") else None, "dense" if not ffn.get("no_op") else None)
            for attention, ffn in parts
        ],
        "kv_heads": [heads // (attention.get("n_heads_in_group") or heads) for attention, _ in parts],
        "intermediate": [_rounded(2.0 * (ffn.get("ffn_mult") or 0.0) * hidden / 3.0) for _, ffn in parts],
    }
    return replace(words, values={**words.values, **values})


_KNOWN_PARTS = frozenset({"no_op", "n_heads_in_group", "ffn_mult"})


def _part(words: Words, block: Any, name: str) -> dict[str, Any]:
    part = block.get(name) if isinstance(block, dict) else None
    if not isinstance(part, dict):
        raise words.fail("blocks", f"has a block without '{name}'")
    return part


def _rounded(width: float, step: int = 256) -> int:
    """A width as a multiple of a step."""
    return -(-int(width) // step) * step
