"""Which layers turn queries and keys by their places."""

from __future__ import annotations

from .reading import Words


def is_rotated(words: Words, kind: str, layer: int) -> bool:
    """Whether queries and keys of a layer are turned."""
    rotated = words.get("rotated_layers")
    if isinstance(rotated, list) and rotated:
        return bool(words.get("rotated_layers", layer))
    every = words.whole("unrotated_every")
    if every is not None:
        return bool((layer + 1) % every)
    return words.text("unrotated") != kind
