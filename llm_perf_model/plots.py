"""Pictures of an estimate: its operators under the roofs of the device, and its memory against batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .case import Case
from .errors import RequestError
from .generate import Phase
from .machine import units
from .ops.node import Graph
from .peak import memory
from .types import Array

if TYPE_CHECKING:
    from .pictures.canvas import Picture

PARTS = {
    "engine's reserve": "reserve_bytes",
    "weights": "weights_bytes",
    "activations": "activation_bytes",
    "KV cache": "kv_cache_bytes",
}
"""Part of the peak in words -> field of `Memory`; they add up to it."""

_BATCHES = 100
_ROOM = 1.25
"""Batches are shown up to so many times the largest that fits."""
_FEW = 8.0
_MANY = 4096.0
_NO_LIMIT = 1e6


def roofs_flops_per_s(case: Case, graph: Graph) -> dict[str, float]:
    """Unit of the device -> its peak, for the units that operators of the graph run on."""
    known = units(case.gpu, case.running)
    used = dict.fromkeys(known[node.kind] for node in graph if node.kind in known)
    return {unit: float(case.gpu.peak_flops_per_s[unit]) for unit in used}


def roofline(title: str, records: Sequence[Mapping[str, Any]], phases: Mapping[str, tuple[Case, Phase]]) -> Picture:
    """A panel for each phase that takes time: its records of a breakdown under the roofs of the case that runs it.

    Raises:
        RequestError: Matplotlib is missing.
    """
    from .pictures.roofline import Panel
    from .pictures.roofline import roofline as drawn

    panels = []
    for name, (case, phase) in phases.items():
        if phase.time_s > 0.0:
            own = [record for record in records if record["phase"] == name]
            graph = (*(phase.encoder.graph if phase.encoder else ()), *phase.graph)
            rate = float(phase.machine.peak_hbm_bytes_per_s)
            panels.append(Panel(name, own, roofs_flops_per_s(case, graph), rate))
    return drawn(title, panels)


def stack(
    title: str, case: Case, lengths: tuple[float, float], largest: float, batch_size: Iterable[float] | None = None
) -> Picture:
    """The peak of one device by part against batch, for so many tokens in and out.

    Raises:
        RequestError: the batches are no ascending numbers from 1 on, or Matplotlib is missing.
    """
    from .pictures.stack import stack as drawn

    batches = _batches(largest) if batch_size is None else _given(batch_size)
    held = memory(case.allocation, batches, *lengths)
    parts = {word: np.broadcast_to(getattr(held, name), batches.shape) for word, name in PARTS.items()}
    capacity_bytes, limit_bytes = (float(np.max(each)) for each in (held.capacity_bytes, held.limit_bytes))
    lines = {"capacity": capacity_bytes}
    if limit_bytes < capacity_bytes:
        lines["what the engine takes"] = limit_bytes
    return drawn(title, batches, parts, lines, largest)


def _batches(largest: float) -> Array:
    """Batches up to some that do not fit, where there are such."""
    most = _MANY if largest >= _NO_LIMIT else max(_ROOM * largest, _FEW)
    found: Array = np.unique(np.round(np.linspace(1.0, most, _BATCHES)))
    return found


def _given(batch_size: Any) -> Array:
    try:
        batches = np.array(list(batch_size), dtype=np.float64)
    except (TypeError, ValueError):
        batches = np.zeros(0)
    if batches.ndim != 1 or batches.size < 2 or batches[0] < 1.0 or not np.all(np.diff(batches) > 0.0):
        raise RequestError("batch_size: give two or more ascending numbers from 1 on, as range(1, 129)")
    return batches
