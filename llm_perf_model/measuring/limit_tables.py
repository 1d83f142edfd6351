"""A measured device beside its datasheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, Protocol

from ..report.document import Report, Table
from ..specs.gpu import GpuSpec, Peak
from ..units import binary_bytes, decimal, seconds


class Starts(Protocol):
    """What the report reads beside the device."""

    @property
    def launch_s(self) -> float | None: ...
    @property
    def dispatch_s(self) -> float | None: ...
    @property
    def failed(self) -> Mapping[str, str]: ...


Read = Callable[[GpuSpec], float | None]


def report(spec: GpuSpec, stated: GpuSpec | None, limits: Starts, like: str) -> Report:
    """What was measured and what the system tells, beside what the catalogue states of a device of that name."""
    rows = [_row(name, read, shown, spec, stated) for name, read, shown in (*_peaks(spec), *_NUMBERS)]
    starts = {"start of a kernel": limits.launch_s, "dispatch by the host": limits.dispatch_s}
    rows += [(name, seconds(value), "-", "-") for name, value in starts.items() if value is not None]
    notes = [f"{dtype} is left out: {reason}" for dtype, reason in limits.failed.items()]
    notes.append(f"what nobody told is that of {like}; each number states its origin in the file")
    if stated is None:
        notes.append("the catalogue has no device of this name to hold it against")
    table = Table(("", "measured", "stated", "ratio"), tuple(rows), spec.aliases[0])
    data = {
        "device": spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True),
        "stated": None if stated is None else stated.name,
        "launch_s": limits.launch_s,
        "dispatch_s": limits.dispatch_s,
    }
    return Report(f"{spec.name}: a draft of a device file", (table,), tuple(notes), data)


def _peaks(spec: GpuSpec) -> Iterator[tuple[str, Read, Callable[[float], str]]]:
    for peak in spec.peak_flops_per_s:
        yield f"{peak} peak", partial(_peak, peak), partial(decimal, unit="FLOP/s")


def _peak(peak: Peak, spec: GpuSpec) -> float | None:
    return spec.peak_flops_per_s.get(peak)


_NUMBERS: Final[tuple[tuple[str, Read, Callable[[float], str]], ...]] = (
    ("memory bandwidth", lambda spec: spec.hbm_bytes_per_s, partial(decimal, unit="B/s")),
    ("memory", lambda spec: spec.hbm_bytes, binary_bytes),
    ("last cache", lambda spec: spec.l2_bytes, binary_bytes),
    ("cores", lambda spec: spec.sms, "{:.0f}".format),
    ("clock", lambda spec: spec.boost_hz, partial(decimal, unit="Hz")),
    ("design power", lambda spec: spec.tdp_w, "{:.0f} W".format),
)
"""Row of the table, the number of a device that it shows, and how people read it."""


def _row(
    name: str, read: Read, shown: Callable[[float], str], spec: GpuSpec, stated: GpuSpec | None
) -> tuple[str, str, str, str]:
    own, other = read(spec), None if stated is None else read(stated)
    assert own is not None, "a device has the numbers of its own rows"
    return (name, shown(own), "-", "-") if other is None else (name, shown(own), shown(other), f"{own / other:.2f}")
