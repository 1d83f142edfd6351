"""Operators as points under the roofs of their device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from ..units import decimal, percent
from .canvas import COLOURS, MARKS, Picture, note, picture, style
from .labels import CLEAR, Label, place

_LABELLED: Final = 5
_LARGEST_POINTS2: Final = 700.0
"""Area of the mark of an operator that takes all of the time."""
_LEAST_POINTS2: Final = 14.0
_ALONG: Final = 80
_SHOWN_SHARE: Final = 5e-4


class Panel(NamedTuple):
    """A phase: its records of a breakdown by operators, and the peaks of the device that runs it."""

    name: str
    records: Sequence[Mapping[str, Any]]
    flops_per_s: Mapping[str, float]
    hbm_bytes_per_s: float

    @property
    def placed(self) -> list[Mapping[str, Any]]:
        """Operators that have a place: those with arithmetic, memory traffic and time."""
        return [each for each in self.records if each["flops"] > 0.0 < each["hbm_bytes"] and each["time_s"] > 0.0]

    @property
    def unplaced_fraction(self) -> dict[str, float]:
        """Name -> share of the time of all others."""
        named = {id(each) for each in self.placed}
        return {
            each["name"]: each["share"]
            for each in self.records
            if id(each) not in named and each["share"] >= _SHOWN_SHARE
        }


def intensity(record: Mapping[str, Any]) -> float:
    """FLOPs for each byte between the device and its memory."""
    return float(record["flops"] / record["hbm_bytes"])


def reached_flops_per_s(record: Mapping[str, Any]) -> float:
    """FLOPs over the time that the operator takes, its start included."""
    return float(record["flops"] / record["time_s"])


def roofline(title: str, panels: Sequence[Panel]) -> Picture:
    """The picture with a panel for each phase, on the same scales."""
    roles = list(dict.fromkeys(each["role"] for panel in panels for each in panel.placed))
    looks = {role: (COLOURS[n % len(COLOURS)], MARKS[n % len(MARKS)]) for n, role in enumerate(roles)}
    with style():
        figure, axes = picture(title, 5.6 * len(panels) + 1.4, 5.4, len(panels))
        limits = _limits(panels)
        for panel, each in zip(panels, axes, strict=True):
            each.set(xscale="log", yscale="log", xlim=limits[0], ylim=limits[1])
            if len(panels) > 1:
                each.set_title(panel.name)
            each.set(xlabel="arithmetic intensity, FLOP per byte of device memory")
            _roofs(each, panel, limits)
            _points(each, panel, looks)
        axes[0].set_ylabel("TFLOP/s of one device")
        for each in axes:
            each.yaxis.set_major_formatter(lambda number, _: f"{number / 1e12:,.9g}")
            for axis in (each.xaxis, each.yaxis):
                axis.set_minor_locator(NullLocator())
            each.xaxis.set_major_formatter(lambda number, _: f"{number:,.9g}")
        for role, (colour, mark) in looks.items():
            axes[-1].plot([], [], linestyle="none", marker=mark, color=colour, label=role)
        axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), title="area: share of time", alignment="left")
        beside = [_words(panel) for panel in panels if panel.unplaced_fraction]
        note(figure, "\n".join(beside))
        figure.draw_without_rendering()
        for panel, each in zip(panels, axes, strict=True):
            _named(each, panel)
    return figure


def _limits(panels: Sequence[Panel]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Both scales: all operators, and all roofs with their edges."""
    x = [intensity(each) for panel in panels for each in panel.placed]
    y = [reached_flops_per_s(each) for panel in panels for each in panel.placed]
    for panel in panels:
        peaks = list(panel.flops_per_s.values())
        x += [peak / panel.hbm_bytes_per_s for peak in peaks]
        y += peaks
    return (min(x) / 2.0, max(x) * 4.0), (min(y) / 3.0, max(y) * 8.0)


def _roofs(axes: Axes, panel: Panel, limits: tuple[tuple[float, float], tuple[float, float]]) -> None:
    """The slope of the memory, up to the highest unit, and the level of each unit from it on."""
    (left, right), (bottom, _) = limits
    rate = panel.hbm_bytes_per_s
    highest = max(panel.flops_per_s.values(), default=rate * right)
    start = max(left, bottom / rate)
    axes.plot([start, highest / rate], [start * rate, highest], color="#000000", linewidth=1.6)
    for number, (unit, peak) in enumerate(sorted(panel.flops_per_s.items(), key=lambda roof: -roof[1])):
        axes.plot([peak / rate, right], [peak, peak], color="#000000", linewidth=1.6, linestyle="--" if number else "-")
        words = f"{unit.replace('_', ' ')}, {decimal(peak, 'FLOP/s')}"
        axes.text(right / 1.1, peak * 1.12, words, ha="right", va="bottom", fontsize=8.5, bbox=CLEAR, zorder=7)
    middle = float(np.sqrt(start * highest / rate))
    axes.text(middle / 1.15, middle * rate, decimal(rate, "B/s"), ha="right", va="bottom", fontsize=8.5)


def _area_points2(record: Mapping[str, Any]) -> float:
    return max(_LARGEST_POINTS2 * float(record["share"]), _LEAST_POINTS2)


def _points(axes: Axes, panel: Panel, looks: Mapping[str, tuple[str, str]]) -> None:
    for each in sorted(panel.placed, key=lambda record: -record["share"]):
        colour, mark = looks[each["role"]]
        axes.scatter(
            [intensity(each)], [reached_flops_per_s(each)], s=_area_points2(each), color=colour, marker=mark,
            alpha=0.85, edgecolors="#ffffff", linewidths=0.6, zorder=4,
        )  # fmt: skip


def _named(axes: Axes, panel: Panel) -> None:
    """The operators that take most of the time, by name."""
    ordered = sorted(panel.placed, key=lambda record: -record["share"])
    labels = [
        Label(intensity(each), reached_flops_per_s(each), f"{each['name']} {percent(each['share'])}")
        for each in ordered[:_LABELLED]
    ]
    marks = [
        (intensity(each), reached_flops_per_s(each), 0.5 * float(np.sqrt(_area_points2(each)))) for each in ordered
    ]
    place(axes, labels, [*marks, *_along(axes)])


def _along(axes: Axes) -> list[tuple[float, float, float]]:
    """Points along the roofs, which names should not cross."""
    found = []
    for line in axes.lines:
        x, y = (np.log(np.asarray(values, dtype=np.float64)) for values in line.get_data())
        if x.size > 1:
            steps = np.linspace(0.0, 1.0, _ALONG)
            between = (np.exp(start + (end - start) * steps) for start, end in (x, y))
            found += [(at_x, at_y, 1.0) for at_x, at_y in zip(*between, strict=True)]
    return found


def _words(panel: Panel) -> str:
    """What takes time without a place in the panel."""
    found = sorted(panel.unplaced_fraction.items(), key=lambda item: -item[1])
    return f"{panel.name}, beside these: " + ", ".join(f"{name} {percent(share)}" for name, share in found)
