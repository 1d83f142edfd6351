"""The device that is measured: its clock, its memory and its energy, or None where it has no counter."""

from __future__ import annotations

import gc
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from ..errors import RequestError
from .counters import Counters, counters_of
from .packages import tensors

AUTO: Final = "auto"
_PROCESSORS: Final = Path("/proc/cpuinfo")


class Device(ABC):
    """What runs a call, and what can be read of it."""

    target: Any
    """What tensors are placed on: a `torch.device`."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What its maker calls it."""

    @property
    @abstractmethod
    def accelerates(self) -> bool:
        """Whether it runs beside the host, which only hands work to it."""

    @property
    @abstractmethod
    def total_bytes(self) -> int:
        """Its memory."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work that was handed to it is done."""

    @abstractmethod
    def timed(self, call: Callable[[], object]) -> float:
        """Seconds from the start of a call until its work is done."""

    @abstractmethod
    def reset_peak(self) -> None:
        """Let the peaks of memory start from what is held now."""

    @property
    @abstractmethod
    def peak_allocated_bytes(self) -> int | None:
        """The most bytes of tensors since the last reset; None: not counted."""

    @property
    @abstractmethod
    def peak_reserved_bytes(self) -> int | None:
        """The most bytes that the framework took for tensors since the last reset; None: not counted."""

    @abstractmethod
    def energy_j(self) -> float | None:
        """Joules since a fixed time in the past; None: not counted."""

    @abstractmethod
    def state(self) -> Mapping[str, float]:
        """Clocks, power limit and temperature, of those that are known."""

    @abstractmethod
    def release(self) -> None:
        """Give back memory that nothing uses."""


class Processor(Device):
    """The processor that runs this program. A call returns when its work is done."""

    def __init__(self) -> None:
        self.target = tensors().device("cpu")

    @property
    def name(self) -> str:
        return processor_name()

    @property
    def accelerates(self) -> bool:
        return False

    @property
    def total_bytes(self) -> int:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def synchronize(self) -> None:
        """Nothing is outstanding."""

    def timed(self, call: Callable[[], object]) -> float:
        start_s = perf_counter()
        call()
        return perf_counter() - start_s

    def reset_peak(self) -> None:
        """Nothing is counted."""

    @property
    def peak_allocated_bytes(self) -> int | None:
        return None

    @property
    def peak_reserved_bytes(self) -> int | None:
        return None

    def energy_j(self) -> float | None:
        return None

    def state(self) -> Mapping[str, float]:
        return {}

    def release(self) -> None:
        gc.collect()


class Accelerator(Device):
    """A card. Calls return before their work is done, so its own clock is read: events before and after.

    `module` is what torch keeps for cards of its kind (`torch.get_device_module`).
    """

    def __init__(self, target: Any, module: Any, counters: Counters) -> None:
        self.target, self._module, self._counters = target, module, counters

    @property
    def name(self) -> str:
        return str(self._properties.name)

    @property
    def accelerates(self) -> bool:
        return True

    @property
    def total_bytes(self) -> int:
        return int(self._properties.total_memory)

    @property
    def _properties(self) -> Any:
        return self._module.get_device_properties(self.target)

    def synchronize(self) -> None:
        self._module.synchronize(self.target)

    def timed(self, call: Callable[[], object]) -> float:
        self.synchronize()
        start, end = (self._module.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        self.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def reset_peak(self) -> None:
        self._module.reset_peak_memory_stats(self.target)

    @property
    def peak_allocated_bytes(self) -> int | None:
        return int(self._module.max_memory_allocated(self.target))

    @property
    def peak_reserved_bytes(self) -> int | None:
        return int(self._module.max_memory_reserved(self.target))

    @property
    def driver(self) -> str | None:
        """Version of its driver; None: not known."""
        return self._counters.driver

    def energy_j(self) -> float | None:
        return self._counters.energy_j()

    def state(self) -> Mapping[str, float]:
        return self._counters.state()

    def release(self) -> None:
        gc.collect()
        self._module.empty_cache()


def device_of(word: str) -> Device:
    """The device of a word: `auto` (a card, else the processor), `cpu`, or a kind of card with or without a number.

    Raises:
        RequestError: there is none of that word, or torch is missing.
    """
    torch = tensors()
    card = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if word == AUTO:
        word = "cpu" if card is None else card.type
    try:
        target = torch.device(word)
    except RuntimeError:
        raise RequestError(f"device: '{word}' is none; give {_known(torch, card)}") from None
    if target.type == "cpu":
        return Processor()
    if card is None or target.type != card.type:
        raise RequestError(f"device: this machine has no {target.type} that torch can use; give {_known(torch, card)}")
    count = torch.accelerator.device_count()
    number = torch.accelerator.current_device_index() if target.index is None else target.index
    if number >= count:
        raise RequestError(f"device: there is no {word}; give {_known(torch, card)}")
    torch.accelerator.set_device_index(number)
    target, module = torch.device(target.type, number), torch.get_device_module(target)
    return Accelerator(target, module, counters_of(module.get_device_properties(target)))


def _known(torch: Any, card: Any) -> str:
    """Words of the devices of this machine."""
    cards = [] if card is None else [f"{card.type}:{number}" for number in range(torch.accelerator.device_count())]
    return " or ".join((*cards, "cpu"))


def processor_name() -> str:
    """What the maker calls the processor of this machine."""
    try:
        lines = _PROCESSORS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join((named[0] if named else platform.processor() or platform.machine()).split())
