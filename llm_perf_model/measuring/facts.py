"""What the system tells of a device beside its name and its memory: cores, clock, last cache, design power."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from .counters import counters_of
from .device import Device
from .packages import tensors

_CPUS: Final = Path("/sys/devices/system/cpu")
_PROCESSORS: Final = Path("/proc/cpuinfo")
_UNITS: Final = {"K": 2**10, "M": 2**20, "G": 2**30}

UNKNOWN_CACHE_BYTES: Final = 2**28
"""Operands are taken from more memory than this where nobody tells the size of the cache."""

PART_OF_MEMORY: Final = 8
"""At most one part in so many of a device's memory is taken for its cache: virtual machines tell that of their host."""


class Facts(NamedTuple):
    """None: the system does not tell."""

    cores: int | None
    boost_hz: float | None
    cache_bytes: int | None
    tdp_w: float | None


def facts_of(device: Device, cpus: Path = _CPUS, processors: Path = _PROCESSORS) -> Facts:
    """What the system tells of a device: its driver, or the files of the kernel."""
    if not device.accelerates:
        return Facts(_cores(cpus), _clock_hz(cpus, processors), _last_cache_bytes(cpus), None)
    properties = tensors().get_device_module(device.target).get_device_properties(device.target)
    limits = counters_of(properties).limits()
    cores = getattr(properties, "multi_processor_count", None)
    return Facts(cores, limits.get("boost_hz"), getattr(properties, "L2_cache_size", None), limits.get("tdp_w"))


def rotated_bytes(device: Device, facts: Facts) -> int:
    """What is taken for the size of the last cache when operands are to come from memory."""
    return min(facts.cache_bytes or UNKNOWN_CACHE_BYTES, device.total_bytes // PART_OF_MEMORY)


def usable_cores() -> int:
    """Processors that this process may run on."""
    count: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(count(0)) if count is not None else os.cpu_count() or 1


def _cores(cpus: Path) -> int | None:
    """Cores that this process may run on: threads of one core count once."""
    siblings = {_text(file) for file in cpus.glob("cpu[0-9]*/topology/thread_siblings_list")}
    return min(len(siblings), usable_cores()) if siblings else usable_cores()


def _clock_hz(cpus: Path, processors: Path) -> float | None:
    """The highest clock of a core, else that of the moment."""
    stated = _text(cpus / "cpu0/cpufreq/cpuinfo_max_freq")
    if stated.isdigit():
        return 1e3 * int(stated)
    found = re.search(r"^cpu MHz\s*:\s*([\d.]+)", _text(processors), re.MULTILINE)
    return 1e6 * float(found[1]) if found else None


def _last_cache_bytes(cpus: Path) -> int | None:
    """The size of the cache of the highest level, as often as cores have one of their own."""
    levels: dict[int, dict[str, int]] = {}
    for folder in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        level, size = _text(folder / "level"), re.fullmatch(r"(\d+)([KMG]?)", _text(folder / "size"))
        if level.isdigit() and size is not None:
            shared = levels.setdefault(int(level), {})
            shared[_text(folder / "shared_cpu_list")] = int(size[1]) * _UNITS.get(size[2], 1)
    return sum(levels[max(levels)].values()) if levels else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
