"""What all pictures share: a figure that notebooks show, colours and marks, scales, files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ..report.export import PictureFormat
from ..types import Array

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
"""Told apart by colour-blind readers (Okabe and Ito, 2008); each has its own mark and line for print in grey."""

MARKS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: Final = ("-", "--", "-.", ":", (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (5, 1, 1, 1)))
HATCHES: Final = ("", "//", "--", "\\\\", "++", "||")
FAINT: Final = "#767676"
"""Grey of what is left aside: notes, and what cannot run."""

_LOG_FROM: Final = 20.0
"""Largest over smallest from which an axis is logarithmic."""
_FEW_DECADES: Final = 3.0
_FEW_TICKS: Final = 12
_LETTERS_PER_INCH: Final = 15.0
_STYLE: Final[Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "pictures",
}
_UNDATED: Final[dict[PictureFormat, dict[str, Any]]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


class Picture(Figure):
    """A Matplotlib figure that needs no display; a notebook shows it."""

    def rendered(self, form: PictureFormat, dots_per_inch: float = 144.0) -> bytes:
        """The bytes of a file; the same picture gives the same bytes."""
        file = io.BytesIO()
        with style():
            self.savefig(file, format=form, dpi=dots_per_inch, metadata=_UNDATED[form])
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.rendered("png", dots_per_inch=80.0)


@contextmanager
def style() -> Iterator[None]:
    """Sizes, colours and fonts of all pictures, whatever the user's own settings are."""
    with mpl.rc_context(_STYLE):
        yield


def picture(title: str, width_inches: float, height_inches: float, panels: int = 1) -> tuple[Picture, list[Axes]]:
    """An empty picture with panels side by side."""
    figure = Picture(figsize=(width_inches, height_inches), layout="constrained")
    axes = [figure.add_subplot(1, panels, 1 + place) for place in range(panels)]
    if panels == 1:
        axes[0].set_title(title)
    else:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11.0)
    return figure, axes


def spans_decades(values: Array) -> bool:
    """Whether numbers are told apart on a logarithmic scale only: all above 0, the largest many times the smallest."""
    known = values[np.isfinite(values)]
    return bool(known.size and np.min(known) > 0.0 and np.max(known) >= _LOG_FROM * np.min(known))


def scale(axes: Axes, side: Literal["x", "y"], values: Array, places: Array | None = None) -> None:
    """Logarithmic where the values span decades; ticks at the places if they are few; numbers without exponents."""
    axis = axes.xaxis if side == "x" else axes.yaxis
    if spans_decades(values):
        axes.set(**{f"{side}scale": "log"})
        known = values[np.isfinite(values)]
        steps = (1.0, 2.0, 5.0) if np.log10(np.max(known) / np.min(known)) < _FEW_DECADES else (1.0,)
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set_minor_locator(NullLocator())
    if places is not None and len(places) <= _FEW_TICKS:
        axis.set_ticks(list(places))
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.9g}"))


def legend(axes: Axes, title: str = "", **options: Any) -> None:
    """Beside the data, on the right."""
    axes.legend(title=title, loc="upper left", bbox_to_anchor=(1.01, 1.0), alignment="left", **options)


def note(figure: Picture, text: str) -> None:
    """A remark in grey at the foot."""
    if text:
        width = int(figure.get_figwidth() * _LETTERS_PER_INCH)
        lines = [line for part in text.split("\n") for line in textwrap.wrap(part, width)]
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8.5, color=FAINT)
