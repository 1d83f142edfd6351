"""Which axis of an ONNX tensor holds what: views move axes, and layers say what they need them to be.

An axis is text: `n` samples, `c` channels, `h` height, `w` width, `t` steps, `d` directions of a recurrent layer, `f`
features. Merged axes are written together (`chw`), and an axis of one value that stands for nothing is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from ..specs.layer import Shape

Axes = tuple[str, ...]


def plain(axes: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    """Axes of one sample that hold more than one value."""
    kept = ("".join(letter for letter in axis if letter != "n" and sizes[letter] > 1) for axis in axes)
    return [axis.replace("df", "f") for axis in kept if axis]


def sizes_of(axes: Axes, sizes: Mapping[str, int]) -> Shape:
    """Size of each axis."""
    return tuple(prod(sizes[letter] for letter in axis) for axis in axes)


def regrouped(axes: Axes, sizes: Mapping[str, int], made: Shape) -> Axes | None:
    """Axes after the values, in their order, are given another shape; None where that splits an axis."""
    letters = list("".join(axes))
    groups = []
    for size in made:
        group, held = "", 1
        while letters and (held < size or (size == 1 and not group and sizes[letters[0]] == 1)):
            held *= sizes[letters[0]]
            group += letters.pop(0)
        if held != size:
            return None
        groups.append(group)
    if any(sizes[letter] > 1 for letter in letters):
        return None
    return (*groups[:-1], groups[-1] + "".join(letters)) if groups else ()


def renamed(axes: Axes, sizes: Mapping[str, int], names: Mapping[str, str]) -> Axes:
    """Axes under other names, where what has one value is left out: `hw` as `t`."""
    found = []
    for axis in axes:
        kept = "".join(letter for letter in axis if letter == "n" or sizes[letter] > 1)
        for old, new in names.items():
            short = "".join(letter for letter in old if sizes[letter] > 1)
            kept = kept.replace(short, new) if short else kept
        found.append(kept)
    return tuple(found)
