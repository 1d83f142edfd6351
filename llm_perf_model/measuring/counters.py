"""Counters of a card beside those of the framework: energy, clocks, power limit, temperature, driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Counters:
    """What the management library of a card tells; nothing, where there is none.

    `library` is the module pynvml, initialised, and `handle` its word for the card.
    """

    def __init__(self, library: Any = None, handle: Any = None) -> None:
        self._library, self._handle = library, handle

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; None: not counted."""
        millijoules = self._read(lambda library: library.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        return None if millijoules is None else millijoules / 1e3

    def state(self) -> Mapping[str, float]:
        """Clocks, power limit and temperature, of those that the card tells."""
        found = {
            "sm_clock_hz": self._read(lambda n: 1e6 * n.nvmlDeviceGetClockInfo(self._handle, n.NVML_CLOCK_SM)),
            "memory_clock_hz": self._read(lambda n: 1e6 * n.nvmlDeviceGetClockInfo(self._handle, n.NVML_CLOCK_MEM)),
            "power_limit_w": self._read(lambda n: n.nvmlDeviceGetEnforcedPowerLimit(self._handle) / 1e3),
            "temperature_celsius": self._read(
                lambda n: n.nvmlDeviceGetTemperature(self._handle, n.NVML_TEMPERATURE_GPU)
            ),
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def limits(self) -> Mapping[str, float]:
        """The highest clock, the power limit it is shipped with and the width of its memory, of those that it tells."""
        found = {
            "boost_hz": self._read(lambda n: 1e6 * n.nvmlDeviceGetMaxClockInfo(self._handle, n.NVML_CLOCK_SM)),
            "tdp_w": self._read(lambda n: n.nvmlDeviceGetPowerManagementDefaultLimit(self._handle) / 1e3),
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    @property
    def driver(self) -> str | None:
        """Version of the driver; None: not known."""
        version = self._read(lambda library: library.nvmlSystemGetDriverVersion())
        return None if version is None else str(version)

    def _read(self, read: Callable[[Any], Any]) -> Any:
        """A value, or None where the card or the library does not have it."""
        if self._library is None:
            return None
        try:
            return read(self._library)
        except (self._library.NVMLError, AttributeError):
            return None


def counters_of(properties: Any) -> Counters:
    """The counters of the card with these properties, found by its unique number."""
    try:
        import pynvml
    except ImportError:
        return Counters()
    try:
        pynvml.nvmlInit()
        return Counters(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}"))
    except (pynvml.NVMLError, AttributeError):
        return Counters()
