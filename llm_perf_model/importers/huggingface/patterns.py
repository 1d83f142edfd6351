"""What mixes tokens and what feeds forward in each layer, from the ways in which configs say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .reading import Words
from .rotation import is_rotated

KINDS = {
    "full": "full", "full_attention": "full", "attention": "full", "global": "full", "global_attention": "full",
    "indexed_attention": "full", "*": "full",
    "sliding_attention": "window", "sliding_window": "window", "local": "window", "local_attention": "window",
    "chunked_attention": "chunk",
    "linear_attention": "state", "mamba": "state", "mamba2": "state", "kda": "state", "recurrent": "state",
    "M": "state", "conv": "conv", "short_conv": "conv", "hybrid": "both",
    "sparse": "moe", "moe": "moe", "hash_moe": "moe", "E": "moe",
    "dense": "dense", "mlp": "dense", "-": "dense",
}  # fmt: skip
"""What configs call the parts of layers -> their kinds."""
LETTERS = {"L": "window", "G": "full"}
"""Letters of a pattern of windows."""
FEEDS = frozenset({"moe", "dense"})


class Layer(NamedTuple):
    """The kinds of what mixes tokens and of what feeds forward; None: there is none."""

    mixer: str | None
    ffn: str | None


def layers(words: Words) -> list[Layer]:
    """The layers of a stack in their order."""
    single = _single_blocks(words)
    if single is not None:
        return single
    count = words.need("layer_count")
    return [Layer(mixer, ffn) for mixer, ffn in zip(_mixers(words, count), _feeds(words, count), strict=True)]


def _single_blocks(words: Words) -> list[Layer] | None:
    """Layers that hold one block each, where a pattern says which; None: layers are not so."""
    told = words.items("single")
    if told is not None:
        return [Layer(*kinds) for kinds in told]
    pattern: list[Any] | None = list(words.text("pattern") or "") or None
    listed = words.items("mixer_types")
    if pattern is None and listed is not None and any(KINDS.get(item) in FEEDS for item in _hashable(listed)):
        pattern = listed
    if pattern is None:
        return None
    kinds = [_kind(words, "pattern" if words.text("pattern") else "mixer_types", item) for item in pattern]
    count = words.whole("layer_count")
    if count not in (None, len(kinds)) and words.text("pattern"):
        raise words.fail("pattern", f"names {len(kinds)} layers, but {words.named('layer_count')} is {count}")
    return [Layer(None, kind) if kind in FEEDS else Layer(kind, None) for kind in kinds]


def _hashable(items: list[Any]) -> Iterator[Any]:
    return (item for item in items if isinstance(item, str | int))


def _kind(words: Words, word: str, item: Any) -> str:
    """The kind that an entry of a list of layers stands for."""
    own = words.get("kinds") or {}
    kind = own.get(str(item)) or (KINDS.get(item) if isinstance(item, str) else None)
    if kind is None:
        raise words.fail(word, f"holds {item!r}, a kind of layer that is not known")
    return str(kind)


def _mixers(words: Words, count: int) -> list[str | None]:
    """What mixes tokens in each layer: a list, a rule, or the same everywhere."""
    listed = _listed(words, count)
    kinds = listed if listed is not None else list(_by_rule(words, count))
    window = words.whole("window") if _uses_window(words) else None
    limit = words.whole("max_positions")
    if window is None or (limit is not None and window >= limit):
        kinds = ["full" if kind == "window" else kind for kind in kinds]
    crossed = words.items("crossed_layers") or ()
    kinds = ["crossed" if index in crossed else kind for index, kind in enumerate(kinds)]
    if words.whole("chunk") is None:
        kinds = ["full" if kind == "chunk" else kind for kind in kinds]
    return kinds


def _uses_window(words: Words) -> bool:
    return words.get("use_window") is None or words.flag("use_window")


def _listed(words: Words, count: int) -> list[str | None] | None:
    """Kinds that a config lists, which may go on for layers that predict further tokens."""
    items = words.items("mixer_types")
    if not items:
        return None
    if isinstance(items[0], list):
        items = _repeated(words, items, count)
    if len(items) < count:
        raise words.fail("mixer_types", f"names {len(items)} layers, but {words.named('layer_count')} is {count}")
    return [_kind(words, "mixer_types", item) for item in items[:count]]


def _repeated(words: Words, items: list[Any], count: int) -> list[Any]:
    """Kinds that are told with how often they come: [[["global", "local"], 12]]."""
    match items:
        case [[[*kinds], int(times)]] if 0 < times <= count:
            return kinds * times
        case _:
            raise words.fail("mixer_types", f"is {items!r}; must list the kinds of layers")


def _by_rule(words: Words, count: int) -> Iterator[str | None]:
    """The kinds of layers whose numbers say them; `other` is what layers are that are not full attention."""
    other, places = words.text("other") or "window", range(count)
    period, attending = words.whole("attention_period"), words.get("attention_layers")
    pattern = words.get("window_pattern")
    if period is not None:
        offset = words.whole("attention_offset") or 0
        return ("full" if index % period == offset else other for index in places)
    if isinstance(attending, list):
        first = words.whole("first_layer") or 0
        return ("full" if index + first in attending else other for index in places)
    if isinstance(pattern, str) and pattern:
        letters = [LETTERS.get(letter) or _kind(words, "window_pattern", pattern) for letter in pattern]
        return ("full" if index == count - 1 else letters[index % len(letters)] for index in places)
    every = words.whole("window_pattern") or words.whole("full_every")
    if every is not None:
        return ("full" if (index + 1) % every == 0 else other for index in places)
    since, mixer = words.whole("window_from"), words.text("mixer") or "window"
    if mixer == "rotated":
        return (other if is_rotated(words, mixer, index) else "full" for index in places)
    return ("full" if mixer == "window" and since is not None and index < since else mixer for index in places)


def _feeds(words: Words, count: int) -> list[str | None]:
    """What feeds forward in each layer."""
    if words.text("ffn") == "none":
        return [None] * count
    if (words.whole("experts", 0) or 0) <= 1 or words.get("enable_experts") is False:
        return ["dense"] * count
    listed = words.items("ffn_types")
    if listed:
        if len(listed) < count:
            raise words.fail("ffn_types", f"names {len(listed)} layers, but {words.named('layer_count')} is {count}")
        return [_kind(words, "ffn_types", item) for item in listed[:count]]
    chosen = _enumerated(words)
    if chosen is None:
        chosen = _routing(words, count)
    return ["moe" if index in chosen else "dense" for index in range(count)]


def _enumerated(words: Words) -> set[int] | None:
    """Layers with experts, where a config names them one by one."""
    value = words.get("moe_layers")
    if isinstance(value, str):
        value = [int(item) for item in value.split(",") if item.strip().isdigit()]
    if isinstance(value, list):
        return set(value)
    flags = words.get("moe_freq")
    return {index for index, flag in enumerate(flags) if flag} if isinstance(flags, list) else None


def _routing(words: Words, count: int) -> set[int]:
    """Layers with experts, where rules say so: not the first ones, then each so many."""
    until = words.whole("moe_until")
    candidates = range(words.whole("dense_first") or 0, count if until is None else min(until + 1, count))
    dense = words.items("dense_layers") or ()
    period = words.whole("moe_period")
    if period is not None:
        offset = words.whole("moe_offset") or 0
        return {index for index in candidates if index % period == offset and index not in dense}
    step, freq = words.whole("moe_step") or 1, words.whole("moe_freq") or 1
    return {index for index in candidates if (index + 1) % step == index % freq == 0 and index not in dense}
