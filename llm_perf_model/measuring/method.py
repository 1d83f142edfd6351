"""How a call is timed: warm-up, repeats until the median is known well enough, and the middle of what was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median, quantiles
from typing import Any, Final

from ..errors import RequestError
from .device import Device

ENERGY_LEAST_S: Final = 0.5
"""A counter of energy is renewed some ten times a second: over less time it tells nothing."""


@dataclass(frozen=True, slots=True)
class Method:
    """When to stop."""

    warmup: int = 3
    """Calls that are not counted; the first ones build, search and fill caches."""
    repeats_least: int = 5
    repeats_most: int = 50
    spread: float = 0.03
    """Half the width of the 95 % interval of the median, over the median, that is small enough."""
    budget_s: float = 10.0
    """Time of the repeats after which there are no more of them, and of the warm-up likewise."""

    @classmethod
    def of(cls, **limits: Any) -> Method:
        """The method with these limits.

        Raises:
            RequestError: one of them is no number that counts or limits anything.
        """
        for name, limit in limits.items():
            least, whole = (0 if name == "warmup" else 1), name in {"warmup", "repeats_least", "repeats_most"}
            number = isinstance(limit, int | float) and not isinstance(limit, bool)
            if whole and not (number and limit >= least and limit == int(limit)):
                raise RequestError(f"{name}: is {limit!r}; must be a whole number of at least {least}")
            if not whole and not (number and limit > 0):
                raise RequestError(f"{name}: is {limit!r}; must be a number above 0")
        return cls(**limits)


@dataclass(frozen=True, slots=True)
class Timing:
    """What was seen of one call."""

    median_s: float
    lower_quartile_s: float
    upper_quartile_s: float
    repeats: int
    energy_j: float | None = None
    """Of one call; None: not counted, or too short for the counter."""
    peak_allocated_bytes: int | None = None
    peak_reserved_bytes: int | None = None


def timed(
    call: Callable[[], object], device: Device, method: Method, before: Callable[[], object] | None = None
) -> Timing:
    """The time of a call on a device, its peak of memory and its energy.

    It is repeated until the median is known to `method.spread`, at least `repeats_least` times, and ends when
    `repeats_most` or `budget_s` is reached, whatever comes first. `before` runs ahead of each call and is not timed.
    """
    timer = _Timer(call, device, method.budget_s, before)
    timer.seconds(lambda times: len(times) >= method.warmup)
    device.synchronize()
    device.reset_peak()
    before_j = device.energy_j()
    times = timer.seconds(lambda seen: _enough(seen, method))
    spent_j = _spent(before_j, device.energy_j(), sum(times))
    lower, middle, upper = _quartiles(times)
    return Timing(
        median_s=middle,
        lower_quartile_s=lower,
        upper_quartile_s=upper,
        repeats=len(times),
        energy_j=None if spent_j is None else spent_j / len(times),
        peak_allocated_bytes=device.peak_allocated_bytes,
        peak_reserved_bytes=device.peak_reserved_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Timer:
    """A call and the device that runs it."""

    call: Callable[[], object]
    device: Device
    budget_s: float
    before: Callable[[], object] | None

    def seconds(self, enough: Callable[[Sequence[float]], bool]) -> list[float]:
        """Times of the call, again and again until they are enough or the budget is spent."""
        times: list[float] = []
        while not enough(times) and sum(times) < self.budget_s:
            if self.before is not None:
                self.before()
            times.append(self.device.timed(self.call))
        return times


def _spent(before_j: float | None, after_j: float | None, duration_s: float) -> float | None:
    """Energy between two readings of a counter; None: there is none, or the time is too short for it."""
    if before_j is None or after_j is None or duration_s < ENERGY_LEAST_S:
        return None
    return after_j - before_j


def _enough(times: Sequence[float], method: Method) -> bool:
    if len(times) < max(min(method.repeats_least, method.repeats_most), 1):
        return False
    return len(times) >= method.repeats_most or spread_of(times) <= method.spread


def spread_of(times: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a median, over the median: 1.57 (q3 - q1) / (sqrt(n) q2) [1].

    [1] McGill, Tukey, Larsen, Variations of Box Plots, The American Statistician 32, 1978, doi:10.2307/2683468
    """
    lower, middle, upper = _quartiles(times)
    return 1.57 * (upper - lower) / (sqrt(len(times)) * middle)


def _quartiles(times: Sequence[float]) -> tuple[float, float, float]:
    if len(times) == 1:
        return times[0], times[0], times[0]
    lower, _, upper = quantiles(times, n=4, method="inclusive")
    return lower, median(times), upper
