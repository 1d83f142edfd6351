"""A device whose clock, memory and energy are told what to show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain, repeat

from llm_perf_model.measuring.device import Device


class FakeDevice(Device):
    """Each timed call takes the next of `times`, the last one again and again; power is constant where it is given."""

    target = "cpu"

    def __init__(
        self, times: Iterable[float] = (1.0,), power_w: float | None = None, peak_bytes: int | None = None
    ) -> None:
        listed = list(times)
        self._times = chain(listed, repeat(listed[-1]))
        self._power_w, self._peak_bytes = power_w, peak_bytes
        self.clock_s = 0.0
        self.events: list[str] = []

    @property
    def name(self) -> str:
        return "fake device"

    @property
    def accelerates(self) -> bool:
        return True

    @property
    def total_bytes(self) -> int:
        return 2**40

    def synchronize(self) -> None:
        self.events.append("synchronize")

    def timed(self, call: Callable[[], object]) -> float:
        call()
        taken = next(self._times)
        self.clock_s += taken
        return taken

    def reset_peak(self) -> None:
        self.events.append("reset")

    @property
    def peak_allocated_bytes(self) -> int | None:
        return self._peak_bytes

    @property
    def peak_reserved_bytes(self) -> int | None:
        return self._peak_bytes

    def energy_j(self) -> float | None:
        return None if self._power_w is None else self._power_w * self.clock_s

    def state(self) -> Mapping[str, float]:
        return {"temperature_celsius": 40.0}

    def release(self) -> None:
        self.events.append("release")
