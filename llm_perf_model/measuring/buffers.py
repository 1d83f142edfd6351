"""Memory that the operands of timed operators are cut from, so that each call finds them where it is meant to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, Final

from .packages import tensors

Shape = tuple[int, ...]

ALIGNED_VALUES: Final = 128
"""Tensors start at multiples of so many values."""

MOST_SETS: Final = 8192
"""Sets of operands that are kept; more of them take longer to make than to use."""

_BLOCK_VALUES: Final = 2**22
_SCATTER: Final = 12.9898
"""A step that brings sines of neighbours far apart."""


class Buffers:
    """One stretch of memory without zeros, handed out in turn.

    Operands that are handed out again have left a cache of `cache_bytes`: twice as much was handed out since.

    Args:
        target: the `torch.device` to place it on.
        dtype: type of its values.
        cache_bytes: size of the last cache before memory; 0 where operands are to stay in the cache.
    """

    def __init__(self, target: Any, dtype: Any, cache_bytes: int) -> None:
        self._target, self._dtype, self.cache_bytes = target, dtype, cache_bytes
        self._values: Any = None
        self._next = 0

    def sets(self, shapes: Sequence[Shape]) -> list[tuple[Any, ...]]:
        """Sets of tensors of these shapes: as many as the memory holds, one where operands stay in the cache."""
        needed = sum(map(_padded, shapes))
        self._hold(needed)
        held = len(self._values) // needed if self.cache_bytes else 1
        return [tuple(self._take(shapes)) for _ in range(max(1, min(held, MOST_SETS)))]

    def bytes_of(self, shapes: Sequence[Shape]) -> int:
        """Bytes of a set."""
        return int(sum(map(prod, shapes)) * self._dtype.itemsize)

    def _hold(self, values: int) -> None:
        """Make the memory large enough for the cache twice, and for so many values."""
        values = max(values, 2 * self.cache_bytes // self._dtype.itemsize)
        if self._values is None or len(self._values) < values:
            self._values, self._next = None, 0
            self._values = _filled(self._target, self._dtype, values)

    def _take(self, shapes: Sequence[Shape]) -> Iterator[Any]:
        for shape in shapes:
            if self._next + _padded(shape) > len(self._values):
                self._next = 0
            yield self._values[self._next : self._next + prod(shape)].view(shape)
            self._next += _padded(shape)


def _padded(shape: Shape) -> int:
    return -(-prod(shape) // ALIGNED_VALUES) * ALIGNED_VALUES


def _filled(target: Any, dtype: Any, values: int) -> Any:
    """So many values between -1 and 1, or whole numbers from -8 to 7, without order: a block of them that repeats."""
    torch = tensors()
    count = min(values, _BLOCK_VALUES)
    numbers = torch.arange(count, dtype=torch.float64)
    scattered = torch.sin(_SCATTER * numbers) if dtype.is_floating_point else torch.floor(_SCATTER * numbers) % 16 - 8
    block = scattered.to(dtype)
    held = torch.empty(values, dtype=dtype, device=target)
    for first in range(0, values, count):
        part = held[first : first + count]
        part.copy_(block[: len(part)])
    return held
