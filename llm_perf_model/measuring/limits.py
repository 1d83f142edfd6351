"""The command `measure_device`: what the machine at hand reaches, as a draft of its device file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, get_args

from ..errors import RequestError, UnknownNameError
from ..report.document import Report
from ..specs.base import Assumption, Fit
from ..specs.catalog import is_path, load, names
from ..specs.gpu import GpuSpec, Peak, Vendor
from ..validation.records import Record
from .device import Device
from .facts import Facts, facts_of
from .grids import DTYPES, Operator
from .limit_tables import report
from .operator_run import Task, types_of
from .operator_tables import bytes_per_s, flops_per_s

SIDES: Final = {False: (1024, 2048, 4096), True: (2048, 4096, 8192)}
"""Rows of the products that are timed, on a processor and on a card."""

FORMS: Final = ((1, 1), (4, 1), (1, 4))
"""By how much columns and depth are less than rows: libraries are not fastest at cubes everywhere."""

STREAMED_BYTES: Final = (2**24, 2**26, 2**28)
"""Sizes of tensors that are read and copied, where memory is large enough."""

REPEATS_LEAST: Final = 15
"""Repeats of which a quarter is counted."""

TYPES: Final = {False: ("fp32", "bf16", "fp16", "int8"), True: tuple(DTYPES)}
"""Types whose peaks are measured, of a processor and of a card."""

BUDGET_S: Final = 3.0
_RECORDS: Final = "products, copies and starts, timed on this machine"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device reached in products of each type and in streams of memory, and how long starts take."""

    flops_per_s: Mapping[str, float]
    hbm_bytes_per_s: float
    launch_s: float | None
    dispatch_s: float | None
    rows: int
    quartile_ratio: float
    """How far the upper quartile of the times that count is above the lower one, at most."""
    failed: Mapping[str, str]
    """Type that products do not run in -> why."""


def measure_device(
    device: str = "auto",
    *,
    dtypes: str | Iterable[str] | None = None,
    like: str | None = None,
    name: str | None = None,
    budget_s: float = BUDGET_S,
) -> GpuSpec:
    """The machine at hand as a device.

    Its rates are those of the fastest products and copies that were timed.

    Args:
        device: `auto`, `cpu`, or a kind of card with or without a number.
        dtypes: types of products; all that the device has if not given.
        like: device that gives what neither a measurement nor the system tells; the nearest of its kind if not given.
        name: name of the new device, which `estimate` takes as an object `gpu=`.
        budget_s: seconds for the repeats of an operator.

    Raises:
        RequestError: an argument is wrong, torch is missing, or no product could be timed.
        UnknownNameError: there is no device `like`.
    """
    _, text = drafted(device, dtypes, like, name, budget_s)
    return GpuSpec.model_validate_json(text)


def drafted(device: str, dtypes: Any, like: str | None, name: str | None, budget_s: float) -> tuple[Report, str]:
    """The report of a draft, and the text of the device file."""
    if name is not None and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) is None:
        raise RequestError(f"name: is '{name}'; must be lower-case letters, digits, dots and dashes, as 'our-server'")
    given = None if like is None else load(GpuSpec, like)
    task = Task.of("gemm", None, device, None, False, budget_s, {})
    found = task.device
    if given is not None and (given.kind == "cpu") is found.accelerates:
        raise RequestError(f"like: {given.name} is a {given.kind}, and {found.name} is none; name another device")
    types = types_of(dtypes, found, TYPES)
    method = replace(task.method, repeats_least=REPEATS_LEAST)
    limits = limits_of(list(replace(task, operators=_operators(found, types), method=method).records()))
    facts, stated = facts_of(found), stated_of(found)
    draft = Draft(found, facts, limits, given or stated or nearest(found, limits), stated, name)
    spec = draft.spec()
    text = json.dumps(spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True), indent=2)
    return report(spec, stated, limits, draft.like.name), text


def _operators(device: Device, dtypes: Sequence[str]) -> tuple[Operator, ...]:
    """Large products of each type, reads and copies of much memory, and starts."""
    sides = SIDES[device.accelerates]
    shapes = [(side, side // flat, side // shallow) for side in sides for flat, shallow in FORMS]
    products = [Operator("gemm", dtype, dict(zip("mnk", shape, strict=True))) for dtype in dtypes for shape in shapes]
    streams: list[Operator] = []
    for size_bytes in STREAMED_BYTES:
        values = min(size_bytes, device.total_bytes // 64) // DTYPES["fp32"]
        side = math.isqrt(values)
        streams.append(Operator("gemm", "fp32", {"m": 1, "n": side, "k": side}))
        streams += [Operator(name, "fp32", {"m": 1, "n": values}) for name in sorted(_COPIES)]
    starts = [Operator(name, "fp32", {"m": 1, "n": 1}) for name in ("elementwise/launch", "dispatch")]
    return (*products, *streams, *starts)


def limits_of(records: Sequence[Record]) -> Limits:
    """The best that records of operators show.

    Raises:
        RequestError: no product or no copy ended.
    """
    ended = [_at_best(record) for record in records if record.value is not None]
    products = {dtype: [r for r in ended if r.operator == "gemm" and r.w_dtype == dtype] for dtype in DTYPES}
    fastest = {dtype: max(same, key=flops_per_s) for dtype, same in products.items() if same}
    streams = [r for r in ended if r.operator in _COPIES or (r.operator == "gemm" and r.sizes["m"] == 1.0)]
    if not fastest or not streams:
        reasons = "; ".join(dict.fromkeys(record.note for record in records if record.value is None))
        raise RequestError(f"device: no product or no copy could be timed ({reasons})")
    stream = max(streams, key=bytes_per_s)
    starts = {record.operator: record.value for record in ended}
    return Limits(
        {dtype: flops_per_s(record) for dtype, record in fastest.items()},
        bytes_per_s(stream),
        starts.get("elementwise/launch"),
        starts.get("dispatch"),
        len(ended),
        max(map(_spread, (stream, *fastest.values()))),
        {r.w_dtype: r.note for r in records if r.value is None and r.w_dtype not in fastest},
    )


_COPIES: Final = frozenset({"elementwise/copy", "elementwise/triad"})


def _at_best(record: Record) -> Record:
    """A record with the time that a quarter of its repeats stayed below: what else ran then is no limit of a device."""
    return replace(record, value=record.extra["lower_quartile_s"])


def _spread(record: Record) -> float:
    """Quartiles of a time, over the lower one."""
    lower_s, upper_s = (float(record.extra[f"{side}_quartile_s"]) for side in ("lower", "upper"))
    return upper_s / lower_s - 1.0


def stated_of(device: Device) -> GpuSpec | None:
    """The catalogue's device that is called as this one."""
    try:
        return None if is_path(device.name) else load(GpuSpec, device.name)
    except UnknownNameError:
        return None


def nearest(device: Device, limits: Limits) -> GpuSpec:
    """The device of the catalogue of the same kind whose memory and bandwidth are nearest."""
    kind = "gpu" if device.accelerates else "cpu"
    known = [gpu for gpu in (load(GpuSpec, name) for name in names(GpuSpec)) if gpu.kind == kind]

    def distance(gpu: GpuSpec) -> float:
        ratios = (gpu.hbm_bytes_per_s / limits.hbm_bytes_per_s, gpu.hbm_bytes / device.total_bytes)
        return sum(math.log(ratio) ** 2 for ratio in ratios)

    return min(known, key=distance)


def unit_of(dtype: str, like: GpuSpec) -> Peak:
    """The unit that a peak of products is stated for; those of a processor's cores are vector units, whatever ran."""
    units = ("vector", "tensor") if like.kind == "cpu" else ("tensor", "vector")
    named = [peak for unit in units for peak in get_args(Peak) if peak == f"{unit}_{dtype}"]
    found: Peak = next((peak for peak in named if peak in like.peak_flops_per_s), named[0])
    return found


@dataclass(frozen=True, slots=True)
class Draft:
    """A device file in the making: what was measured, what the system tells, and what another device gives."""

    device: Device
    facts: Facts
    limits: Limits
    like: GpuSpec
    stated: GpuSpec | None
    name: str | None

    def spec(self) -> GpuSpec:
        """The device, each of its numbers with its origin."""
        like, told = self.like, self._told()
        peaks = {unit_of(dtype, like): _rounded(value) for dtype, value in self.limits.flops_per_s.items()}
        taken = self._taken()
        cores, boost_hz = {**taken, **told}["sms"], {**taken, **told}["boost_hz"]
        called = self.device.name
        return GpuSpec(
            **{**like.model_dump(include=_TEXTS), **taken, **told},
            name=self.name or slug(called),
            title=f"{called}, measured",
            aliases=(called,),
            notes=(
                "Peaks are what the fastest products reached, not what a datasheet states: efficiencies of kernels and "
                "engines refer to datasheets, so calibrate them on operators or runs of this machine.",
            ),
            vendor=vendor_of(called, like),
            flops_per_clock_per_sm={peak: _rounded(value / (cores * boost_hz), 6) for peak, value in peaks.items()},
            peak_flops_per_s=peaks,
            memory_kind=like.memory_kind if self.stated else "unknown",
            hbm_bytes_per_s=_rounded(self.limits.hbm_bytes_per_s),
            fits=(self._fit(),),
            assumed=self._origins(told, taken),
        )

    def _told(self) -> dict[str, Any]:
        """What the system tells."""
        f = self.facts
        told = {"sms": f.cores, "boost_hz": f.boost_hz, "l2_bytes": f.cache_bytes, "tdp_w": f.tdp_w}
        told["hbm_bytes"] = self.device.total_bytes
        found = {field: value for field, value in told.items() if value is not None}
        return {field: value if field == "sms" else float(value) for field, value in found.items()}

    def _taken(self) -> dict[str, Any]:
        """What another device gives: of a processor, design power for each core."""
        like, cores = self.like, self.facts.cores
        tdp_w = like.tdp_w * cores / like.sms if cores and not self.device.accelerates else like.tdp_w
        numbers = {
            "launch_year": like.launch_year,
            "sms": like.sms,
            "boost_hz": like.boost_hz,
            "l2_bytes": like.l2_bytes,
        }
        own = {"scale_up": like.scale_up} if self.stated and like.scale_up else {}
        return {**numbers, "tdp_w": _rounded(tdp_w), **own}

    def _fit(self) -> Fit:
        return Fit(
            fields=("peak_flops_per_s", "hbm_bytes_per_s"),
            records=(_RECORDS,),
            rows=self.limits.rows,
            date=datetime.now(UTC).date().isoformat(),
            error=f"lower quartiles of the fastest; the upper ones are up to {self.limits.quartile_ratio:.1%} above",
        )

    def _origins(self, told: Mapping[str, Any], taken: Mapping[str, Any]) -> tuple[Assumption, ...]:
        lent = tuple(sorted(taken.keys() - told.keys()))
        per_core = ", design power for each core" if "tdp_w" in lent and not self.device.accelerates else ""
        system = "as the driver tells" if self.device.accelerates else "as the operating system tells"
        return (
            Assumption(fields=tuple(sorted(told)), reason=f"{system}; a virtual machine may tell what its host has"),
            Assumption(fields=lent, reason=f"told by nobody: as in {self.like.name}{per_core}"),
            Assumption(fields=("flops_per_clock_per_sm",), reason="peak / (sms x boost_hz)"),
        )


_TEXTS: Final = {"kind", "generation", "form", "host_link", "network"}
"""What a draft has of another device beside numbers."""


def vendor_of(called: str, like: GpuSpec) -> Vendor:
    """The vendor whose name stands in what its maker calls a device; that of another device where there is none."""
    named: Vendor = next((word for word in get_args(Vendor) if word in called.lower()), like.vendor)
    return named


def slug(called: str) -> str:
    """What a maker calls a device, as a catalogue name."""
    plain = re.sub(r"\((r|tm|c)\)", " ", called.lower())
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.") or "device"


def _rounded(value: float, digits: int = 4) -> float:
    return float(f"{value:.{digits}g}")
