"""Operators to be timed: their names as records have them, the types of their values, and grids of their sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

from ..errors import RequestError
from ..specs.quantities import shortened
from ..sweeping.axes import numbers_in

Sizes = Mapping[str, int]

DTYPES: Final[Mapping[str, int]] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "int8": 1}
"""Type of values -> bytes of one."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of one shape and type; several `ranks` exchange."""

    name: str
    dtype: str
    sizes: Sizes
    layer: Sizes = field(default_factory=dict)
    """Sizes of a convolution, by the letters of the libraries."""
    ranks: int = 1

    @property
    def shape(self) -> str:
        """The sizes of a convolution as a record states them."""
        return json.dumps(dict(self.layer)) if self.layer else ""


@dataclass(frozen=True, slots=True)
class Grid:
    """Values of each size; operators take all combinations of those that they have."""

    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]
    batch: tuple[int, ...]
    length: tuple[int, ...]
    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    head_dim: tuple[int, ...]
    channels: tuple[int, ...]
    image: tuple[int, ...]
    window: tuple[int, ...]
    bytes: tuple[int, ...]
    ranks: tuple[int, ...]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Grid:
        """The grid of flags; those not given are `GRID`.

        Raises:
            RequestError: a value is no whole number above 0, or a range is none.
        """
        return cls(
            **{name: whole_numbers(name, GRID[name] if given.get(name) is None else given[name]) for name in GRID}
        )


GRID: Final[Mapping[str, str]] = {
    "m": "1:4096:x8",
    "n": "1024,4096",
    "k": "1024,4096",
    "batch": "1,8",
    "length": "128:2048:x4",
    "heads": "16",
    "kv_heads": "16",
    "head_dim": "64",
    "channels": "64,256",
    "image": "14,56",
    "window": "1,3",
    "bytes": "4096:67108864:x4",
    "ranks": "2",
}
"""Size -> its values where none are given."""


def whole_numbers(flag: str, value: Any) -> tuple[int, ...]:
    """The counts that a flag gives: one, several with commas, or ranges `lo:hi:step`, `lo:hi:x2`, `lo:hi:n5`."""
    items = value if isinstance(value, list | tuple) else str(value).split(",") if isinstance(value, str) else [value]
    numbers = [number for item in items for number in _numbers(flag, item)]
    wrong = [number for number in numbers if not (number >= 1 and float(number).is_integer())]
    if wrong or not numbers:
        raise RequestError(f"{flag}: is {shortened(value)}; give whole numbers from 1 on, as 1,8 or 1:4096:x4")
    return tuple(dict.fromkeys(int(number) for number in numbers))


def _numbers(flag: str, item: Any) -> list[float]:
    if isinstance(item, str):
        text = item.strip()
        return numbers_in(flag, text if ":" in text else f"{text}:{text}")
    return [item if isinstance(item, int | float) and not isinstance(item, bool) else 0]


def _products(g: Grid, dtype: str) -> Iterator[Operator]:
    for n, k, m in product(g.n, g.k, g.m):
        yield Operator("gemm", dtype, {"m": m, "n": n, "k": k})


def _attention(g: Grid, dtype: str) -> Iterator[Operator]:
    """Prefill of whole prompts, then decode steps over as many keys."""
    for name in ("context_attention", "generation_attention"):
        for heads, kv_heads, head_dim, batch, length in product(g.heads, g.kv_heads, g.head_dim, g.batch, g.length):
            if heads % kv_heads:
                continue
            new = length if name == "context_attention" else 1
            counts = {"batch": batch, "q_len": new, "kv_len": length}
            yield Operator(name, dtype, {**counts, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim})


def _rows(*names: str) -> Callable[[Grid, str], Iterator[Operator]]:
    """Passes over m rows of n values."""

    def passes(g: Grid, dtype: str) -> Iterator[Operator]:
        for name, n, m in product(names, g.n, g.m):
            yield Operator(name, dtype, {"m": m, "n": n})

    return passes


def _convolutions(g: Grid, dtype: str) -> Iterator[Operator]:
    """As many channels out as in, on square images; filters of each side move by one and keep the size."""
    for channels, side, window, batch in product(g.channels, g.image, g.window, g.batch):
        pad = (window - 1) // 2
        layer = {"W": side, "H": side, "C": channels, "N": batch, "K": channels, "R": window, "S": window}
        layer |= {"pad_w": pad, "pad_h": pad, "Horizontal stride": 1, "Vertical stride": 1}
        yield Operator("convolution", dtype, {"batch": batch}, layer)


def _copies(g: Grid, dtype: str) -> Iterator[Operator]:
    """A tensor to another, and the sum of one and a multiple of another, of so many bytes each."""
    for name, size_bytes in product(("elementwise/copy", "elementwise/triad"), g.bytes):
        yield Operator(name, dtype, {"m": 1, "n": max(size_bytes // DTYPES[dtype], 1)})


def _starts(name: str) -> Callable[[Grid, str], Iterator[Operator]]:
    """A sum of one value with itself: what is left is the start."""

    def one(_: Grid, dtype: str) -> Iterator[Operator]:
        yield Operator(name, dtype, {"m": 1, "n": 1})

    return one


def _exchanges(g: Grid, dtype: str) -> Iterator[Operator]:
    for ranks, size_bytes in product(g.ranks, g.bytes):
        if ranks > 1:
            yield Operator("all_reduce", dtype, {"bytes": size_bytes}, ranks=ranks)


FAMILIES: Final[Mapping[str, Callable[[Grid, str], Iterator[Operator]]]] = {
    "gemm": _products,
    "attention": _attention,
    "norm": _rows("elementwise/rms_norm", "elementwise/layer_norm"),
    "elementwise": _rows("elementwise/add", "elementwise/silu", "elementwise/gelu"),
    "convolution": _convolutions,
    "copy": _copies,
    "launch": _starts("elementwise/launch"),
    "dispatch": _starts("dispatch"),
    "all_reduce": _exchanges,
}
"""Family -> its operators on a grid."""

TYPED: Final[Mapping[str, frozenset[str]]] = {
    "tf32": frozenset({"gemm", "convolution"}),
    "int8": frozenset({"gemm"}),
}
"""Type -> the families that know it; all know the others."""


def operators(families: tuple[str, ...], dtypes: tuple[str, ...], grid: Grid) -> Iterator[Operator]:
    """All operators of the families in the types that they know, each once."""
    for family, dtype in product(families, dtypes):
        if family in TYPED.get(dtype, FAMILIES):
            yield from FAMILIES[family](grid, dtype)
