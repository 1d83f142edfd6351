"""One number of each of several things, the least first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .canvas import COLOURS, Picture, note, picture, style


class Bar(NamedTuple):
    """A thing, its number, and what is told beside it."""

    name: str
    value: float
    words: str


def bars(title: str, label: str, found: Sequence[Bar], left_out: Mapping[str, str]) -> Picture:
    """The picture of bars, with the names of what has none and why."""
    ordered = sorted(found, key=lambda bar: bar.value)
    with style():
        figure, (axes,) = picture(title, 8.0, 1.4 + 0.34 * len(ordered) + 0.18 * len(left_out))
        drawn = axes.barh(
            [bar.name for bar in ordered], [bar.value for bar in ordered], height=0.62, color=COLOURS[0],
            edgecolor="#000000", linewidth=0.5,
        )  # fmt: skip
        axes.bar_label(drawn, [bar.words for bar in ordered], padding=4.0, fontsize=9.0)
        axes.set_xlim(0.0, 1.75 * float(np.max([bar.value for bar in ordered])))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
        note(figure, "\n".join(f"left out: {name}: {why}" for name, why in left_out.items()))
    return figure
