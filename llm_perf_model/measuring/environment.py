"""Where a measurement was made: versions, driver, card and processor."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from .device import Accelerator, Device, processor_name
from .packages import tensors

PACKAGES: Final = ("llm-perf-model", "torch", "transformers", "onnxruntime", "onnxruntime-gpu", "tensorrt")
CHANGING: Final = frozenset({"date"})
"""What may differ between records of one run."""


def environment(device: Device) -> dict[str, Any]:
    """Versions and hardware beside a measurement, of those that are known; values are text or whole numbers."""
    torch = tensors()
    found: dict[str, Any] = {
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "device": device.name,
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    if isinstance(device, Accelerator):
        found |= {"driver": device.driver, "runtime": _runtime(torch)}
    return {name: value for name, value in found.items() if value is not None}


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first thing in which two environments differ, in words; None: they are the same."""
    for name in (*now, *before):
        if name not in CHANGING and before.get(name) != now.get(name):
            return f"{name} {before.get(name, 'not there')}, not {now.get(name, 'there')}"
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _runtime(torch: Any) -> str | None:
    """What torch was built for."""
    built = {kind: getattr(torch.version, kind, None) for kind in ("cuda", "hip", "xpu")}
    return next((f"{kind} {version}" for kind, version in built.items() if version), None)
