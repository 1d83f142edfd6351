"""Operators beside the least time that a device file allows: what is faster shows a fault of the file or of a clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from ..ops.convolution import Convolution
from ..roofline import step_s
from ..validation.operators import Timed, timed
from ..validation.records import Record
from ..validation.stacks import stacked
from ..validation.unmappable import UnmappableError

TOLERANCE: Final = 0.05
"""Part of the floor by which a time may fall short of it: the rates of a file were measured too."""

_LOSSLESS: Final = "ideal"


@dataclass(frozen=True, slots=True)
class Held:
    """A timed operator beside the least time that a device file allows."""

    record: Record
    floor_s: float

    @property
    def floor_ratio(self) -> float:
        """Floor over measured time: what it reached of what is possible."""
        return self.floor_s / (self.record.value or 1.0)

    @property
    def too_fast(self) -> bool:
        """Whether the file does not allow the time."""
        return self.floor_ratio > 1.0 + TOLERANCE


def held_to_floor(records: Iterable[Record], gpu: str) -> tuple[Held, ...]:
    r"""Timed operators beside :math:`\max(F / P, Q / B)` of a device, by name or path, without any loss.

    Operands that stayed in a cache owe nothing to memory, nor do convolutions that may take Winograd's form owe all of
    their multiplications. Records that ended otherwise, and operators that have no such time, are left out.
    """
    rows = []
    for record in records:
        try:
            rows.append(timed(replace(record, device=gpu), _LOSSLESS))
        except UnmappableError:
            continue
    return tuple(Held(row.record, _floor_s(row)) for row in rows if row.family != "collective")


def _floor_s(row: Timed) -> float:
    (stack,) = stacked([row])
    machine, warm = stack.machine(), row.record.extra.get("cache") == "warm"
    floor_s = 0.0
    for node in row.nodes:
        step = step_s(node, row.batch, node.cost(row.batch), machine)
        quick = isinstance(node.op, Convolution) and node.op.winograd
        floor_s += max(0.0 if quick else float(step.compute_s), 0.0 if warm else float(step.memory_s))
    return floor_s
