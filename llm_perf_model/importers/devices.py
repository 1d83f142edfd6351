"""A device of another tool -> a device and a link: what is not stated is that of the device nearest to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UnknownNameError
from ..specs.base import Assumption
from ..specs.catalog import load, names
from ..specs.gpu import GpuSpec, Peak, ScaleUp
from ..specs.link import LinkSpec
from .stated import Stated, slug

_SAME = 0.02
"""Figures that differ by less are the same one, rounded."""


@dataclass(frozen=True, slots=True)
class Device:
    """What other tools state of a device."""

    stated: Stated
    name: str
    hbm_bytes: float
    hbm_bytes_per_s: float
    peak_flops_per_s: dict[Peak, float]
    """Dense peaks that the file states; one of 16 bits is among them."""
    lacks: frozenset[Peak] = frozenset()
    """Units that the device does not have, since the file states no peak of theirs."""
    tdp_w: float | None = None
    generation: str | None = None
    fabric_bytes_per_s: float | None = None
    """One way, from one device to the others of its node."""
    ranks: int | None = None
    """Devices that reach each other at that rate."""
    host_bytes_per_s: float | None = None

    @property
    def half_flops_per_s(self) -> float:
        """Peak of 16-bit products."""
        return self.peak_flops_per_s["tensor_fp16"]

    def like(self) -> GpuSpec:
        """The device of that name in the catalogue, or the nearest one of its generation."""
        try:
            return load(GpuSpec, self.name)
        except UnknownNameError:
            known = [load(GpuSpec, name) for name in names(GpuSpec)]
        kin = [gpu for gpu in known if gpu.kind == "gpu" and self.generation in {None, gpu.generation}]
        return min(kin or known, key=self._distance)

    def _distance(self, gpu: GpuSpec) -> float:
        """Sum of squares of the logarithms of what differs."""
        half = gpu.peak_flops_per_s.get("tensor_fp16") or gpu.peak_flops_per_s.get("vector_fp16")
        if half is None:
            return math.inf
        ratios = (
            half / self.half_flops_per_s,
            gpu.hbm_bytes_per_s / self.hbm_bytes_per_s,
            gpu.hbm_bytes / self.hbm_bytes,
        )
        return sum(math.log(ratio) ** 2 for ratio in ratios)


def gpu_of(device: Device) -> GpuSpec:
    """The device, completed; each field says whether the file states it."""
    stated, like = device.stated, device.like()
    peaks = _peaks(device, like)
    scale_up, why_fabric = _scale_up(device, like)
    host_link = _bus(device.host_bytes_per_s, like.host_link)
    told = {"hbm_bytes", "hbm_bytes_per_s", *(f"peak_flops_per_s.{peak}" for peak in device.peak_flops_per_s)}
    if device.tdp_w is not None:
        told.add("tdp_w")
    same_rate = abs(device.hbm_bytes_per_s / like.hbm_bytes_per_s - 1.0) < _SAME
    pins = {field: getattr(like, field) for field in ("memory_bus_bits", "memory_bits_per_s_per_pin") if same_rate}
    usable = None if like.usable_bytes is None else device.hbm_bytes * like.usable_bytes / like.hbm_bytes
    silent = [f"peak_flops_per_s.{peak}" for peak in peaks if peak not in device.peak_flops_per_s]
    silent += [field for field, value in {**pins, "usable_bytes": usable}.items() if value is not None]
    silent += ["launch_year", "sms", "boost_hz", "l2_bytes"] + ([] if "tdp_w" in told else ["tdp_w"])
    derived = stated.silent("peak / (sms x boost_hz), of the clock assumed", "flops_per_clock_per_sm")
    return GpuSpec(
        **like.model_dump(include={"kind", "vendor", "form", "launch_year", "sms", "boost_hz", "memory_kind"}),
        **pins,
        name=slug(device.name),
        title=f"{device.name}, of {stated.tool}",
        notes=(f"What {stated.tool} does not state is that of {like.name}.",),
        generation=device.generation or like.generation,
        flops_per_clock_per_sm={peak: value / (like.sms * like.boost_hz) for peak, value in peaks.items()},
        peak_flops_per_s=peaks,
        hbm_bytes=device.hbm_bytes,
        usable_bytes=usable,
        hbm_bytes_per_s=device.hbm_bytes_per_s,
        l2_bytes=like.l2_bytes,
        tdp_w=device.tdp_w or like.tdp_w,
        scale_up=scale_up,
        host_link=host_link,
        assumed=(stated.says(*sorted(told)), stated.silent(f"as in {like.name}", *silent), derived, *why_fabric),
    )


def link_of(device: Device) -> LinkSpec:
    """What joins the devices of a node, as one link."""
    stated, like = device.stated, device.like()
    if device.fabric_bytes_per_s is None:
        raise stated.refuse("states no link between devices of a node")
    return LinkSpec(
        name=f"{slug(device.name)}-link",
        title=f"Between the devices of a node of {device.name}, of {stated.tool}",
        kind="bus" if like.scale_up is None else "fabric",
        launch_year=like.launch_year,
        bytes_per_s=device.fabric_bytes_per_s,
        assumed=(stated.says("bytes_per_s"), stated.silent(f"as {like.name}", "launch_year")),
    )


def _peaks(device: Device, like: GpuSpec) -> dict[Peak, float]:
    """Those stated; others of tensor units change with that of 16 bits, those of vector units are the other's."""
    known = like.peak_flops_per_s
    half = known.get("tensor_fp16") or known.get("vector_fp16") or device.half_flops_per_s
    ratio = device.half_flops_per_s / half
    rest = {
        peak: value * (ratio if peak.startswith("tensor") else 1.0)
        for peak, value in known.items()
        if peak not in device.lacks and not (peak == "tensor_bf16" and "tensor_bf16" not in known)
    }
    return {**rest, **device.peak_flops_per_s}


def _scale_up(device: Device, like: GpuSpec) -> tuple[ScaleUp | None, tuple[Assumption, ...]]:
    """The link of the device that is like it, as often as gives the rate that is stated."""
    stated = device.stated
    if like.scale_up is None:
        return None, ()
    if device.fabric_bytes_per_s is None:
        return like.scale_up, (stated.silent(f"as in {like.name}", "scale_up"),)
    each = load(LinkSpec, like.scale_up.link).bytes_per_s
    links = max(round(device.fabric_bytes_per_s / each), 1)
    ranks = device.ranks or like.scale_up.ranks
    reason = f"{device.fabric_bytes_per_s:.4g} bytes/s are {links} links {like.scale_up.link} of {each:.4g}"
    origins = [Assumption(fields=("scale_up.links",), reason=f"{stated.tool} says the rate: {reason}")]
    said = "as the file says" if device.ranks else f"{stated.tool} does not say: as in {like.name}"
    origins.append(Assumption(fields=("scale_up.ranks",), reason=f"devices of a node, {said}"))
    return (ScaleUp(link=like.scale_up.link, links=links, ranks=ranks), tuple(origins)) if ranks > 1 else (None, ())


def _bus(bytes_per_s: float | None, otherwise: str) -> str:
    """The bus of the catalogue that is nearest to a rate; the one given where it is as near."""
    if bytes_per_s is None:
        return otherwise

    def distance(name: str) -> float:
        return abs(math.log(load(LinkSpec, name).bytes_per_s / bytes_per_s))

    nearest = min(_buses(), key=distance)
    return otherwise if distance(otherwise) <= distance(nearest) + _SAME else nearest


def _buses() -> Iterator[str]:
    return (name for name in names(LinkSpec) if load(LinkSpec, name).kind == "bus" and not name.endswith("-host"))
