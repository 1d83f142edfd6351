"""Words beside points, where they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, hypot, pi, sin
from typing import Final, NamedTuple

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from .canvas import FAINT, Picture

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
    the panel already (the names of roofs) stays readable too.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Picture), "panels of a picture"
    figure.draw_without_rendering()  # places of all else are known now
    inside, pixels = axes.get_window_extent(), figure.dpi / 72.0
    taken = [text.get_window_extent().padded(2.0 * pixels) for text in axes.texts]
    places = axes.transData.transform([point[:2] for point in points])
    marked = [Bbox([at, at]).padded(point[2] * pixels) for at, point in zip(places, points, strict=True)]
    for label in labels:
        written = axes.annotate(
            label.words, (label.x, label.y), xytext=(0.0, 0.0), textcoords="offset points", fontsize=8.5,
            bbox=CLEAR, zorder=7,
        )  # fmt: skip
        written.set_in_layout(False)
        box = written.get_window_extent()
        width, height = box.width / pixels, box.height / pixels
        tries = [_offset(reach, angle, width, height) for reach in _REACHES for angle in _DIRECTIONS]
        at_x, at_y = axes.transData.transform((label.x, label.y))
        boxes = [Bbox.from_bounds(at_x + x * pixels, at_y + y * pixels, box.width, box.height) for x, y in tries]
        costs = [_covered(each, [*taken, *marked]) + _OUTSIDE * _beyond(each, inside) for each in boxes]
        best = min(range(len(tries)), key=lambda index: (costs[index], index))
        written.set_position(tries[best])
        taken.append(boxes[best])
        _lead(axes, label, tries[best], width, height)


def _lead(axes: Axes, label: Label, corner: tuple[float, float], width: float, height: float) -> None:
    """A thin line from a point to the nearest place of its words, beneath all words."""
    end = min(max(0.0, corner[0]), corner[0] + width), min(max(0.0, corner[1]), corner[1] + height)
    if hypot(*end) > _REACHES[0]:
        arrow = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 0.0, "shrinkB": 0.0}
        line = axes.annotate(
            "", (label.x, label.y), xytext=end, textcoords="offset points", arrowprops=arrow, zorder=5
        )  # fmt: skip
        line.set_in_layout(False)


def _offset(reach: float, angle: float, width: float, height: float) -> tuple[float, float]:
    """Lower left corner of a text whose nearest edge is so far away in a direction."""
    x, y = reach * cos(angle), reach * sin(angle)
    return x - width * (0.5 - 0.5 * _sign(x)), y - height * (0.5 - 0.5 * _sign(y))


def _sign(number: float) -> float:
    return 0.0 if abs(number) < 1e-9 else 1.0 if number > 0.0 else -1.0


def _covered(box: Bbox, others: Sequence[Bbox]) -> float:
    """Area that a box shares with others."""
    found = (Bbox.intersection(box, other) for other in others)
    return sum(part.width * part.height for part in found if part is not None)


def _beyond(box: Bbox, inside: Bbox) -> float:
    """How far it sticks out."""
    right, top = max(box.x1 - inside.x1, 0.0), max(box.y1 - inside.y1, 0.0)
    left, bottom = max(inside.x0 - box.x0, 0.0), max(inside.y0 - box.y0, 0.0)
    return hypot(max(left, right), max(bottom, top))
