"""A number against another, one line for each value of a third."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from ..types import Array, MaskArray
from .canvas import COLOURS, DASHES, FAINT, MARKS, Picture, legend, picture, scale, style

_MARKED = 24
"""Points of a line up to which each has a mark."""
_SPACING = 0.05
"""Between marks where there are more, as a share of the picture."""


class Curve(NamedTuple):
    """Points of one line from left to right; NaN where nothing is known."""

    name: str
    x: Array
    y: Array
    runs: MaskArray
    """Whether a point can run; others are faint."""


def curves(
    title: str, labels: tuple[str, str], lines: Sequence[Curve], by: str, places: Sequence[str] | None = None
) -> Picture:
    """The picture of lines. `places` are names of what stands on the x axis, where that is no number."""
    with style():
        figure, (axes,) = picture(title, 8.0, 4.6)
        for number, line in enumerate(lines):
            _draw(axes, line, number, joined=places is None)
        known = np.concatenate([line.y for line in lines])
        scale(axes, "y", known)
        if places is None:
            scale(axes, "x", np.concatenate([line.x for line in lines]), lines[0].x)
        else:
            axes.set_xticks(range(len(places)), list(places), rotation=30.0 if len(places) > 4 else 0.0, ha="center")
        axes.set(xlabel=labels[0], ylabel=labels[1])
        if any(np.any(~line.runs & np.isfinite(line.y)) for line in lines):
            axes.plot([], [], color=FAINT, linestyle=":", marker="o", markerfacecolor="none", label="cannot run *")
            figure.supxlabel(
                "* does not fit the memory, or is longer than the positions of the model",
                x=0.01, ha="left", fontsize=8.5, color=FAINT,
            )  # fmt: skip
        if len(axes.get_legend_handles_labels()[0]) > 0:
            legend(axes, by)
    return figure


def _draw(axes: Axes, line: Curve, number: int, joined: bool) -> None:
    """One line: solid where it runs, faint where it does not."""
    colour, mark = COLOURS[number % len(COLOURS)], MARKS[number % len(MARKS)]
    dashes = DASHES[(number + number // len(COLOURS)) % len(DASHES)]  # the second round of colours has other lines
    every = 1 if len(line.x) <= _MARKED else _SPACING
    options: dict[str, Any] = {"color": colour, "marker": mark, "markevery": every}
    runs = np.where(line.runs, line.y, np.nan)
    axes.plot(line.x, runs, linestyle=dashes if joined else "none", label=line.name or None, **options)
    rest = ~line.runs & np.isfinite(line.y)
    if np.any(rest):
        edge = rest.copy()
        if joined:  # the faint part meets the line that runs
            edge[1:] |= rest[:-1]
            edge[:-1] |= rest[1:]
        faint = np.where(edge, line.y, np.nan)
        marks = np.flatnonzero(rest)[:: max(1, len(line.x) // _MARKED)].tolist()
        axes.plot(
            line.x, faint, color=colour, alpha=0.45, linewidth=1.2, marker=mark, markerfacecolor="none",
            markevery=marks, linestyle=":" if joined else "none",
        )  # fmt: skip
