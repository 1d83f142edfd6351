"""Configurations as points of two numbers, and the front that none of them beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from ..types import Array
from .canvas import COLOURS, MARKS, Picture, legend, note, picture, scale, style
from .labels import Label, place

MOST_POINTS: Final = 100_000
"""Points that are drawn; of more, evenly spread ones."""
LIGHT: Final = 3_000
"""Points from which they are kept as an image inside the picture."""
_LABELLED: Final = 7


class Cloud(NamedTuple):
    """Points that share a value of what tells them apart."""

    name: str
    x: Array
    y: Array


class Front(NamedTuple):
    """Points that no other beats, in their order: the cloud of each, and what else it is called."""

    name: str
    x: Array
    y: Array
    clouds: Sequence[str]
    words: Sequence[str]


def front(title: str, labels: tuple[str, str], clouds: Sequence[Cloud], by: str, best: Front) -> Picture:
    """The picture of all points, faint, with the front."""
    total = sum(len(cloud.x) for cloud in clouds)
    step = 1 + (total - 1) // MOST_POINTS
    alpha = 0.35 if total <= LIGHT else 0.12
    with style():
        figure, (axes,) = picture(title, 8.0, 5.0)
        for number, cloud in enumerate(clouds):
            look: dict[str, Any] = {"linestyle": "none", "marker": MARKS[number % len(MARKS)]}
            look |= {"color": COLOURS[number % len(COLOURS)], "markeredgewidth": 0.0}
            axes.plot(cloud.x[::step], cloud.y[::step], alpha=alpha, markersize=4.5, rasterized=total > LIGHT, **look)
            own = np.array([name == cloud.name for name in best.clouds])
            axes.plot(best.x[own], best.y[own], markersize=7.5, zorder=5, label=cloud.name or "configurations", **look)
        axes.plot(best.x, best.y, color="#000000", linewidth=1.2, label=best.name, zorder=4)
        scale(axes, "x", np.concatenate([cloud.x for cloud in clouds]))
        scale(axes, "y", np.concatenate([cloud.y for cloud in clouds]))
        axes.set(xlabel=labels[0], ylabel=labels[1])
        legend(axes, by)
        if step > 1:
            note(figure, f"one of {step} configurations is drawn; the front is that of all {total:,}")
        figure.draw_without_rendering()
        chosen = np.unique(np.round(np.linspace(0.0, len(best.x) - 1.0, _LABELLED)).astype(int))
        named = [Label(float(best.x[at]), float(best.y[at]), best.words[at]) for at in chosen if best.words[at]]
        place(axes, named, [(x, y, 3.5) for x, y in zip(best.x.tolist(), best.y.tolist(), strict=True)])
    return figure
