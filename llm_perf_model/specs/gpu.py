"""A device as its datasheet states it: no derating, no calibration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from .base import Count, FileSpec, Name, NonNegative, Positive, Spec

DeviceKind = Literal["gpu", "cpu", "accelerator"]
Vendor = Literal["nvidia", "amd", "intel", "google"]
Peak = Literal[
    "vector_fp64",
    "vector_fp32",
    "vector_fp16",
    "vector_bf16",
    "tensor_fp64",
    "tensor_tf32",
    "tensor_bf16",
    "tensor_fp16",
    "tensor_fp16_acc16",
    "tensor_fp8",
    "tensor_fp8_acc16",
    "tensor_fp6",
    "tensor_fp4",
    "tensor_int8",
    "tensor_int4",
]
"""Unit and dtype of a peak; products accumulate in fp32 (int32) unless `_acc16` says fp16."""

_TOLERANCE = 0.02
_LEAST_USABLE = 0.9


class ScaleUp(Spec):
    """The fast fabric between devices of one node (or of one rack).

    `links` of the named link leave each device; `ranks` devices reach each other over them.
    """

    link: Name
    links: Count
    ranks: Annotated[int, Field(ge=2)]


class GpuSpec(FileSpec):
    """One card in one form: dense peaks, memory, caches, power, links.

    `sms` counts streaming multiprocessors (NVIDIA), compute units (AMD), cores (CPU) or
    matrix units (other accelerators). `hbm_*` describes the device's main memory whatever its
    technology. `hbm_bytes` is the marketed capacity in binary gigabytes, as drivers report it.
    """

    kind: DeviceKind = "gpu"
    vendor: Vendor
    generation: Name
    form: Literal["sxm", "pcie", "nvl", "oam", "superchip", "socket", "pod"]
    launch_year: Annotated[int, Field(ge=2010, le=2035)]
    sms: Count
    base_hz: Positive | None = None
    boost_hz: Positive
    flops_per_clock_per_sm: dict[Peak, Positive]
    peak_flops_per_s: Annotated[dict[Peak, Positive], Field(min_length=1)]
    memory_kind: str
    memory_bus_bits: Count | None = None
    memory_bits_per_s_per_pin: Positive | None = None
    hbm_bytes: Positive
    usable_bytes: Positive | None = None
    """What a process can allocate: the capacity less what driver and error correction keep; None: all of it."""
    hbm_bytes_per_s: Positive
    l2_bytes: NonNegative
    tdp_w: Positive
    scale_up: ScaleUp | None = None
    host_link: Name
    """The bus to the host: a link whose name ends in -host where cards have no access to each other over it."""
    network: Name | None = None
    """The link between nodes that the vendor's own systems have, one port for each device; None: no usual one."""

    @property
    def capacity_bytes(self) -> float:
        """What a process can allocate, as far as it is known."""
        return self.usable_bytes or self.hbm_bytes

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        yield from self._peaks_are_dense()
        yield from self._bandwidth_is_bus_times_rate()
        if self.usable_bytes is not None and not _LEAST_USABLE <= self.usable_bytes / self.hbm_bytes <= 1.0:
            yield (
                "usable_bytes",
                f"is {self.usable_bytes:.4g} of {self.hbm_bytes:.4g} bytes: between 90 % and all are usable",
            )

    def _peaks_are_dense(self) -> Iterator[tuple[str, str]]:
        """Peak = SMs x clock x FLOP per clock."""
        for peak in self.flops_per_clock_per_sm.keys() - self.peak_flops_per_s.keys():
            yield f"flops_per_clock_per_sm.{peak}", "has no counterpart in peak_flops_per_s"
        for peak in self.peak_flops_per_s.keys() - self.flops_per_clock_per_sm.keys():
            yield f"peak_flops_per_s.{peak}", "has no counterpart in flops_per_clock_per_sm"
        for peak, per_clock in self.flops_per_clock_per_sm.items():
            derived = self.sms * self.boost_hz * per_clock
            stated = self.peak_flops_per_s.get(peak, derived)
            if abs(stated / derived - 1.0) > _TOLERANCE:
                hint = "; twice the dense peak: is it the sparse figure?" if _is_twice(stated, derived) else ""
                yield (
                    f"peak_flops_per_s.{peak}",
                    f"is {stated:.4g} but sms x boost_hz x flops_per_clock_per_sm is {derived:.4g} "
                    f"(ratio {stated / derived:.2f}{hint})",
                )

    def _bandwidth_is_bus_times_rate(self) -> Iterator[tuple[str, str]]:
        if self.memory_bus_bits is None or self.memory_bits_per_s_per_pin is None:
            return
        derived = self.memory_bus_bits * self.memory_bits_per_s_per_pin / 8.0
        if abs(self.hbm_bytes_per_s / derived - 1.0) > _TOLERANCE:
            yield (
                "hbm_bytes_per_s",
                f"is {self.hbm_bytes_per_s:.4g} but memory_bus_bits x memory_bits_per_s_per_pin / 8 is {derived:.4g}",
            )


def _is_twice(stated: float, derived: float) -> bool:
    return abs(stated / derived / 2.0 - 1.0) <= _TOLERANCE
