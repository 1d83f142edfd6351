"""Configurations as points of two numbers, and the front that none of them beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from ..types import Array
from .canvas import COLOURS, MARKS, Picture, legend, note, picture, scale, style
from .labels import Label, place

MOST_POINTS: Final = 100_000
"""Points that are drawn; of more, evenly spread ones."""
_MOST_IN_LINES: Final = 3_000
"""Points from which they are kept as an image inside the picture."""
_LABELLED: Final = 7


class Cloud(NamedTuple):
    """Points that share a value of what tells them apart, and which of them are on the front, in its order."""

    name: str
    x: Array
    y: Array


def front(
    title: str, labels: tuple[str, str], clouds: Sequence[Cloud], by: str, best: Cloud, words: Sequence[str]
) -> Picture:
    """The picture of all points, faint, with the front `best`, whose points are called `words`."""
    total = sum(len(cloud.x) for cloud in clouds)
    step = 1 + (total - 1) // MOST_POINTS
    with style():
        figure, (axes,) = picture(title, 8.0, 5.0)
        for number, cloud in enumerate(clouds):
            axes.plot(
                cloud.x[::step], cloud.y[::step], linestyle="none", marker=MARKS[number % len(MARKS)],
                color=COLOURS[number % len(COLOURS)], alpha=0.4, markersize=4.5, markeredgewidth=0.0,
                rasterized=total > _MOST_IN_LINES, label=cloud.name or "configurations",
            )  # fmt: skip
        axes.plot(
            best.x, best.y, color="#000000", linewidth=1.2, marker="o", markersize=7.0, markerfacecolor="none",
            markevery=max(1, len(best.x) // 40), label=best.name, zorder=5,
        )  # fmt: skip
        scale(axes, "x", np.concatenate([cloud.x for cloud in clouds]))
        scale(axes, "y", np.concatenate([cloud.y for cloud in clouds]))
        axes.set(xlabel=labels[0], ylabel=labels[1])
        legend(axes, by)
        if step > 1:
            note(figure, f"one of {step} configurations is drawn; the front is that of all {total:,}")
        chosen = np.unique(np.round(np.linspace(0, len(words) - 1, _LABELLED)).astype(int)) if words else []
        named = [Label(float(best.x[index]), float(best.y[index]), words[index]) for index in chosen]
        place(axes, named, [(x, y, 3.5) for x, y in zip(best.x.tolist(), best.y.tolist(), strict=True)])
    return figure
