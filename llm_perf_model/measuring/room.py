"""Whether a trial can fit the memory of a device, as its estimate says before anything is allocated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..api import answer
from ..errors import InfeasibleError, RequestError, UnknownNameError
from ..estimate import Estimate
from ..specs.catalog import load, names
from ..specs.gpu import GpuSpec
from ..specs.model import ModelSpec
from ..specs.network import NetworkSpec
from ..specs.request import Request
from .device import Device
from .trials import Trial

_GIB = 2.0**30


class Room:
    """What fits the memory of a device, and stays within the positions of a model."""

    def __init__(self, model: ModelSpec | NetworkSpec, gpu: str, device: Device) -> None:
        self._model, self._gpu, self._device = model, gpu, device
        self._skipped: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each reason why trials were left out."""
        return tuple(f"skipped: {count} {why}" for why, count in self._skipped.items())

    def skip(self, why: str) -> None:
        """Count a trial that is left out."""
        self._skipped[why] += 1

    def has(self, precision: str, engine: str, trial: Trial) -> bool:
        """Whether a trial is worth to be tried.

        A card says when its memory is full, so that it may try; a processor's system ends the program instead.

        Raises:
            RequestError: the weights alone are larger than the memory.
        """
        estimate = self._estimate({"model": self._model, "engine": engine, "precision": precision, **trial.asked})
        if estimate is None:
            return True
        need = estimate.memory
        if float(need.weights_bytes) > self._device.total_bytes:
            raise self._too_large(precision, float(need.weights_bytes))
        if bool(estimate.extrapolated):
            self.skip(f"with more tokens than the positions of {self._model.name}")
            return False
        if float(need.peak_bytes) > self._device.total_bytes and not self._device.accelerates:
            self.skip(f"that take more than {self._size} by their estimate; --force tries them")
            return False
        return True

    def _estimate(self, asked: Mapping[str, Any]) -> Estimate | None:
        """By the device file, or by the first that computes in the precision: what is allocated is the same."""
        for gpu in (self._gpu, *names(GpuSpec)):
            try:
                estimate = answer(Request.of({**asked, "gpu": gpu}))
                float(estimate.memory.peak_bytes)
            except InfeasibleError:
                continue
            return estimate
        return None

    def _too_large(self, precision: str, weights_bytes: float) -> RequestError:
        return RequestError(
            f"{self._model.name}: its weights in {precision} take {weights_bytes / _GIB:.1f} GiB, but "
            f"{self._device.name} has {self._size}; give a smaller model or another precision, or --force to try"
        )

    @property
    def _size(self) -> str:
        return f"{self._device.total_bytes / _GIB:.1f} GiB"


def gpu_of(device: Device, gpu: str | None) -> tuple[str, str]:
    """The device file for estimates of memory, and what records call the device: its own name where no file is of it.

    What is allocated does not depend on which file it is, so that any of the kind will do.

    Raises:
        SpecError: the file that is given is not valid.
    """
    if gpu is not None:
        load(GpuSpec, gpu)
        return gpu, gpu
    try:
        name = load(GpuSpec, device.name).name
    except UnknownNameError:
        kind = "gpu" if device.accelerates else "cpu"
        return next(name for name in names(GpuSpec) if load(GpuSpec, name).kind == kind), device.name
    return name, name
