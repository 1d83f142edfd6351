"""Parts of memory on top of each other, under the line that they may not cross."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..types import Array
from .canvas import COLOURS, HATCHES, Picture, legend, picture, style

_GIB = 2.0**30


def stack(
    title: str, batches: Array, parts: Mapping[str, Array], lines: Mapping[str, float], largest: float
) -> Picture:
    """The picture of `parts` in bytes against batches, with horizontal `lines` and the largest batch that fits."""
    with style():
        figure, (axes,) = picture(title, 8.0, 4.6)
        below = np.zeros(len(batches))
        shown = {name: part for name, part in parts.items() if np.any(part > 0.0)}
        for number, (name, part) in enumerate(shown.items()):
            above = below + part / _GIB
            axes.fill_between(
                batches, below, above, label=name, facecolor=COLOURS[number], alpha=0.75, hatch=HATCHES[number],
                edgecolor="#ffffff", linewidth=0.0,
            )  # fmt: skip
            below = above
        for number, (name, held) in enumerate(lines.items()):
            axes.axhline(held / _GIB, color="#000000", linestyle="--" if number else "-", label=name)
        if batches[0] <= largest <= batches[-1]:
            axes.axvline(largest, color="#000000", linestyle=":", label=f"largest batch that fits: {largest:,.0f}")
        top = max(float(np.max(below)), *(held / _GIB for held in lines.values()))
        axes.set(xlim=(batches[0], batches[-1]), ylim=(0.0, 1.05 * top))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel="batch size of a replica", ylabel="memory of one device, GiB")
        handles, names = axes.get_legend_handles_labels()
        count = len(shown)
        order = [*range(count, len(names)), *range(count - 1, -1, -1)]  # as they stand in the picture
        legend(axes, handles=[handles[index] for index in order], labels=[names[index] for index in order])
    return figure
