"""What fits: the frontier of one case, and the other cases that hold a request which does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .case import Case, alike, make_case
from .errors import InfeasibleError
from .estimate import Estimate
from .frontier import max_batch_size, max_input_len
from .peak import Memory, memory
from .placement import divides, node_ranks
from .specs.catalog import load, names
from .specs.ffn import MoeFfn
from .specs.gpu import GpuSpec
from .specs.layout import LayoutSpec
from .specs.model import ModelSpec
from .specs.precision import PrecisionSpec
from .units import binary_bytes

MOST_RANKS = 64
DOUBLED = (2, 4, 8, 16, 32, 64)
"""Stages, and ranks that share experts, that are tried."""


@dataclass(frozen=True, slots=True)
class Point:
    """One workload: equal sequences."""

    batch_size: float
    input_len: float
    output_len: float


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Single changes with which a workload fits; 0 or None where a change alone does not make it fit."""

    batch_size: int
    """The largest batch."""
    input_len: int
    """The longest prompt."""
    tp: int | None
    """The fewest tensor-parallel ranks."""
    layer_split: int | None
    """The fewest stages of a layer split; None too where ranks share layers."""
    precision: str | None
    """The widest narrower precision."""
    gpu: str | None
    """The device with the least memory that is enough."""
    tp_and_pp: tuple[int, int] | None = None
    """As many tensor-parallel ranks as a node has, and the fewest stages of them; tried where no `tp` is enough."""
    ep: int | None = None
    """The fewest ranks that attend apart and share all experts (attention_dp and ep); tried where no `tp` is enough."""

    @property
    def devices(self) -> int | None:
        """The fewest devices of a replica, in any of these layouts."""
        staged = None if self.tp_and_pp is None else self.tp_and_pp[0] * self.tp_and_pp[1]
        return min((n for n in (self.tp, self.layer_split, staged, self.ep) if n is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The same as data."""
        return asdict(self) | {"tp_and_pp": self.tp_and_pp and list(self.tp_and_pp)}

    def text(self) -> str:
        """What fits, in words."""
        changes = {"a batch of": self.batch_size, "prompts of": self.input_len}
        found = [f"{word} {value}" for word, value in changes.items() if value]
        staged = None if self.tp_and_pp is None else f"{self.tp_and_pp[0]} with pp {self.tp_and_pp[1]}"
        names_of = {"tp": self.tp or staged, "attention_dp and ep": self.ep, "layer_split": self.layer_split}
        names_of |= {"precision": self.precision, "gpu": self.gpu}
        found += [f"{name} {value}" for name, value in names_of.items() if value]
        return f"what fits: {', '.join(found)}" if found else "no single change makes it fit"


def memory_at(case: Case, point: Point) -> Memory:
    """Memory of one workload."""
    return memory(case.allocation, point.batch_size, point.input_len, point.output_len)


def worst_point(e: Estimate) -> Point:
    """The workload of an estimate that lacks most memory, or has least to spare."""
    return _worst(e)[1]


def worst_case(e: Estimate) -> Case:
    """The case of that workload: its techniques, and the devices of the prefill if those of the decode have room."""
    return _worst(e)[0]


def _worst(e: Estimate) -> tuple[Case, Point]:
    of_prefill = e.handover is not None and bool(np.all(e.memory.fits)) and not np.all(e.prefill_memory.fits)
    case, m = (e.prefill_case, e.prefill_memory) if of_prefill else (e.case, e.memory)
    w, output_len = e.workload, 1.0 if of_prefill else e.workload.output_len
    spare = np.asarray(m.limit_bytes - m.peak_bytes - m.beside_cache_bytes)
    numbers = np.broadcast_arrays(w.batch_size, w.input_len, output_len, spare)
    index = np.unravel_index(np.argmin(numbers[-1]), numbers[-1].shape)
    if case.equip is not None:
        case = case.equip.at(index, numbers[-1].shape)(alike(case))
    return case, Point(*(float(number[index]) for number in numbers[:-1]))


def alternatives(case: Case, point: Point) -> Alternatives:
    """Single changes with which the workload fits on the case's kind of engine."""
    positions, a, tokens = case.model.max_positions, case.allocation, isinstance(case.model, ModelSpec)
    output_len = point.output_len if case.model.causal else 0.0
    heard = case.model.source_positions
    longest = max_input_len(a, point.batch_size, output_len, positions, heard) if tokens else 0.0
    tp = _fewest(case, point, range(1, MOST_RANKS + 1), lambda n: LayoutSpec(tp=n))
    return Alternatives(
        batch_size=int(max_batch_size(a, point.input_len, point.output_len)),
        input_len=int(longest),
        tp=tp,
        layer_split=_fewest(case, point, range(1, MOST_RANKS + 1), lambda n: LayoutSpec(layer_split=n))
        if _splits(case)
        else None,
        precision=_narrower(case, point),
        gpu=_larger(case, point),
        tp_and_pp=None if tp or not tokens else _staged(case, point),
        ep=None if tp or not _has_experts(case) else _fewest(case, point, DOUBLED, _attending_apart),
    )


def _has_experts(case: Case) -> bool:
    groups = case.model.groups if isinstance(case.model, ModelSpec) else ()
    return any(isinstance(group.ffn, MoeFfn) for group in groups)


def _attending_apart(ranks: int) -> LayoutSpec:
    return LayoutSpec(attention_dp=ranks, ep=ranks)


def _staged(case: Case, point: Point) -> tuple[int, int] | None:
    """The most ranks of a node that divide the model, and the fewest stages of them that hold the workload."""
    ranks = next(n for n in range(node_ranks(case.gpu), 0, -1) if divides(case.model, n))
    stages = _fewest(case, point, DOUBLED, lambda n: LayoutSpec(tp=ranks, pp=n))
    return None if stages is None else (ranks, stages)


def _splits(case: Case) -> bool:
    return isinstance(case.model, ModelSpec) and case.layout.tp == 1 and case.engine.kind in {"eager", "local"}


def _fewest(case: Case, point: Point, counts: Iterable[int], layout: Callable[[int], LayoutSpec]) -> int | None:
    """The first of the counts with which a layout holds the workload."""
    for devices in counts:
        if _holds(case, point, layout=layout(devices)):
            return devices
    return None


def _narrower(case: Case, point: Point) -> str | None:
    """The widest precision with narrower weights, or weights as wide and a narrower cache, that holds the workload."""
    current = case.precision
    known = [load(PrecisionSpec, name) for name in names(PrecisionSpec)]
    offered = [p for p in known if not p.narrowing_pass and (p.offered_to is None or case.engine.kind in p.offered_to)]
    kept = [p.model_copy(update={"kv_bytes": min(p.kv_bytes, current.kv_bytes)}) for p in offered]
    narrower = [p for p in kept if _width(p) < _width(current)]
    ordered = sorted(narrower, key=lambda p: (*(-width for width in _width(p)), p.name))
    return next((p.name for p in ordered if _holds(case, point, precision=p)), None)


def _width(precision: PrecisionSpec) -> tuple[float, float]:
    return min(precision.weight_bytes, precision.filter_bytes), precision.kv_bytes


def _larger(case: Case, point: Point) -> str | None:
    """The device of the same vendor with the least memory that is enough."""
    known = [load(GpuSpec, name) for name in names(GpuSpec)]
    larger = [g for g in known if g.vendor == case.gpu.vendor and g.capacity_bytes > case.gpu.capacity_bytes]
    ordered = sorted(larger, key=lambda gpu: (gpu.capacity_bytes, gpu.name))
    return next((gpu.name for gpu in ordered if _holds(case, point, gpu=gpu)), None)


def _holds(
    case: Case,
    point: Point,
    layout: LayoutSpec | None = None,
    precision: PrecisionSpec | None = None,
    gpu: GpuSpec | None = None,
) -> bool:
    """Whether the case with a change can run and holds the workload."""
    parts = (case.model, gpu or case.gpu, case.engine, precision or case.precision, layout or case.layout)
    try:
        changed = make_case(*parts, case.named.inside, int(case.allocation.beams), None, *case.named[1:])
    except InfeasibleError:
        return False
    return bool(memory_at(changed if case.equip is None else case.equip(changed), point).fits)


def shortfall(e: Estimate) -> tuple[str, dict[str, Any]]:
    """One line on the worst point of an estimate that does not fit, and the same as data."""
    case, point = _worst(e)
    return _message(case, point), detail(case, point)


def detail(case: Case, point: Point) -> dict[str, Any]:
    """What is missing where, and what would fit, in SI units."""
    m, found = memory_at(case, point), alternatives(case, point)
    where: dict[str, Any] = {"model": case.model.name, "gpu": case.gpu.name, "engine": case.engine.name}
    where |= {"precision": case.precision.name, "tp": case.layout.tp, "layer_split": case.layout.layer_split}
    sizes = {
        name: float(getattr(m, name)) for name in ("peak_bytes", "limit_bytes", "capacity_bytes", "shortfall_bytes")
    }
    workload = {name: int(value) for name, value in asdict(point).items()}
    return where | workload | {"fits": bool(m.fits), "moment": str(m.moment)} | sizes | {"what_fits": found.to_dict()}


def _message(case: Case, point: Point) -> str:
    m = memory_at(case, point)
    has = binary_bytes(float(m.capacity_bytes))
    if float(m.limit_bytes) < float(m.capacity_bytes):
        has += f", of which {case.engine.name} takes {binary_bytes(float(m.limit_bytes))}"
    if float(m.beside_cache_bytes) > 0.0:
        has += f", of which {case.engine.name} leaves {binary_bytes(float(m.beside_cache_bytes))} beside such a cache"
    moment = {"prefill": "the prefill", "logits": "the logits", "decode": "the last decode step"}[str(m.moment)]
    return (
        f"{case.model.name} needs {binary_bytes(float(m.peak_bytes))} on each {case.gpu.name}, which has {has}: "
        f"{binary_bytes(float(m.shortfall_bytes))} too much in {moment}; {alternatives(case, point).text()}"
    )
