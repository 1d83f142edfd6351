"""The edge of what fits: the largest batch, the longest prompt."""

from __future__ import annotations

from collections.abc import Callable

from .allocation import Allocation
from .numeric import maximum, minimum, where
from .peak import memory
from .types import Mask, Num

MOST = 2.0**31
"""Nothing beyond it is looked for."""


def max_batch_size(a: Allocation, input_len: Num, output_len: Num) -> Num:
    """The largest batch that fits; 0 where not even one sequence does. Shape: broadcast."""
    return largest(lambda batch_size: memory(a, batch_size, input_len, output_len).fits, MOST)


def max_input_len(
    a: Allocation, batch_size: Num, output_len: Num, positions: float | None, source_positions: float | None = None
) -> Num:
    """The longest prompt that fits, within the model's positions; 0 where none does. Shape: broadcast.

    An encoder reads prompts of `source_positions` at most, which are `positions` where it has none of its own.
    """
    longest = largest(lambda input_len: memory(a, batch_size, input_len, output_len).fits, MOST)
    if positions is None:
        return longest
    if a.encodes:  # prompt and output have positions of their own
        return minimum(longest, where(output_len <= positions, source_positions or positions, 0.0))
    return minimum(longest, maximum(positions - output_len, 0.0))


def largest(fits: Callable[[Num], Mask], most: float) -> Num:
    """The largest whole number below twice `most`, a power of two, that fits, where all smaller ones do; 0 for none."""
    found: Num = 0.0
    step = most
    while step >= 1.0:
        found = found + where(fits(found + step), step, 0.0)
        step /= 2.0
    return found
