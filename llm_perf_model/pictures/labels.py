"""Words beside points, where they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin
from typing import Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ..types import Array
from .canvas import FAINT

_REACHES: Final = (9.0, 16.0, 26.0, 40.0, 58.0)
"""Points of distance that are tried, the nearest first."""
_DIRECTIONS: Final = tuple(pi * eighth / 4.0 for eighth in (1, 7, 3, 5, 0, 4, 2, 6))
_OUTSIDE: Final = 50.0
CLEAR: Final = {"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
"""What words stand on, so that lines pass beneath them."""


class Label(NamedTuple):
    """Words for the point at `x`, `y` of a panel."""

    x: float
    y: float
    words: str


def place(axes: Axes, labels: Sequence[Label], points: Sequence[tuple[float, float, float]]) -> None:
    """Write the labels, each at the first free place around its point.

    They do not cover `points`, which have a half width in points (1/72 inch) each, if there is room. What stands in
    the panel already (the names of roofs) stays readable too. The picture was drawn before, so that places are known.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None, "panels of a picture"
    pixels, inside = figure.dpi / 72.0, np.array(axes.get_window_extent().extents)
    centres = axes.transData.transform([point[:2] for point in points])
    margins = pixels * np.array([[point[2]] for point in points])
    written = [text.get_window_extent().padded(2.0 * pixels).extents for text in axes.texts]
    taken = np.vstack([np.hstack([centres - margins, centres + margins]), *written])
    for label in labels:
        text = axes.annotate(
            label.words, (label.x, label.y), xytext=(0.0, 0.0), textcoords="offset points", fontsize=8.5,
            bbox=CLEAR, zorder=7,
        )  # fmt: skip
        text.set_in_layout(False)
        box = text.get_window_extent()
        size = np.array([box.width, box.height])
        tries = np.array([_offset(reach, angle, *(size / pixels)) for reach in _REACHES for angle in _DIRECTIONS])
        corners = np.asarray(axes.transData.transform((label.x, label.y))) + pixels * tries
        boxes = np.hstack([corners, corners + size])
        best = int(np.argmin(_covered(boxes, taken) + _OUTSIDE * _beyond(boxes, inside)))
        text.set_position((float(tries[best, 0]), float(tries[best, 1])))
        taken = np.vstack([taken, boxes[best]])
        _lead(axes, label, tries[best], size / pixels)


def _lead(axes: Axes, label: Label, corner: Array, size: Array) -> None:
    """A thin line from a point to the nearest place of its words, beneath all words."""
    end = np.clip(np.zeros(2), corner, corner + size)
    if np.hypot(*end) > _REACHES[0]:
        arrow = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 0.0, "shrinkB": 0.0}
        at = float(end[0]), float(end[1])
        line = axes.annotate("", (label.x, label.y), xytext=at, textcoords="offset points", arrowprops=arrow, zorder=5)
        line.set_in_layout(False)


def _offset(reach: float, angle: float, width: float, height: float) -> tuple[float, float]:
    """Lower left corner of a text whose nearest edge is so far away in a direction."""
    x, y = reach * cos(angle), reach * sin(angle)
    return x - width * (0.5 - 0.5 * _sign(x)), y - height * (0.5 - 0.5 * _sign(y))


def _sign(number: float) -> float:
    return 0.0 if abs(number) < 1e-9 else 1.0 if number > 0.0 else -1.0


def _covered(boxes: Array, others: Array) -> Array:
    """Area that each box (left, bottom, right, top) shares with others."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    areas: Array = np.sum(np.prod(np.maximum(high - low, 0.0), axis=2), axis=1)
    return areas


def _beyond(boxes: Array, inside: Array) -> Array:
    """How far each sticks out."""
    out = np.maximum(np.maximum(inside[:2] - boxes[:, :2], boxes[:, 2:] - inside[2:]), 0.0)
    return np.asarray(np.hypot(out[:, 0], out[:, 1]))
