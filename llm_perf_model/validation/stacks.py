"""Timed operators of equal structure as one operator over arrays, so that fifty thousand are timed at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from ..exchange import exchange_s
from ..machine import gemm_peak, machine
from ..numeric import maximum
from ..ops.batch import Batch
from ..ops.node import Node
from ..placement import connection
from ..rates import Machine
from ..roofline import step_s
from ..specs.catalog import load
from ..specs.collective import CollectiveSpec
from ..specs.engine import EngineSpec
from ..specs.gpu import GpuSpec
from ..specs.kernels import KernelRates, KernelSpec
from ..specs.power import PowerSpec
from ..specs.precision import PrecisionSpec
from ..types import Num
from .operators import Timed

T = TypeVar("T")


@dataclass(frozen=True)
class Stack:
    """Timed operators that differ in numbers only."""

    rows: tuple[Timed, ...]
    nodes: tuple[Node, ...]
    batch: Batch

    @property
    def first(self) -> Timed:
        """One of them: family, device, precision, engine, ranks and where operands come from are those of all."""
        return self.rows[0]

    @cached_property
    def measured_s(self) -> Any:
        """Recorded seconds."""
        return np.array([row.record.value for row in self.rows], dtype=np.float64)

    @cached_property
    def launch_s(self) -> Any:
        """Seconds of the method of measurement."""
        return np.array([row.launch_s for row in self.rows], dtype=np.float64)

    @cached_property
    def least_s(self) -> Any:
        """Seconds below which the method shows nothing."""
        return np.array([row.least_s for row in self.rows], dtype=np.float64)

    @cached_property
    def generation(self) -> str:
        """The generation of the device."""
        return load(KernelSpec, load(GpuSpec, self.first.gpu).generation).name

    @cached_property
    def link_kind(self) -> str | None:
        """The kind of link between the ranks, if there are several."""
        joined = connection(load(GpuSpec, self.first.gpu), self.first.ranks, None)
        return None if joined is None else joined.link.kind

    def machine(self, kernels: KernelRates | None = None, reached: CollectiveSpec | None = None) -> Machine:
        """The device under these coefficients, or under those of the catalogue."""
        first = self.first
        gpu, precision = load(GpuSpec, first.gpu), load(PrecisionSpec, first.precision)
        engine, peak = load(EngineSpec, first.engine), gemm_peak(gpu, precision)
        assert peak is not None, "a timed operator has a unit"
        joined = connection(gpu, first.ranks, None)
        if joined is not None and reached is not None:
            joined = joined._replace(reached=reached)
        rates = kernels or engine.kernels or load(KernelSpec, gpu.generation)
        found = machine(gpu, engine, rates, precision, peak, 0, joined, load(PowerSpec, gpu.generation))
        if first.cold and found.passes is not None:
            return dataclasses.replace(found, passes=found.passes._replace(cache_bytes=0.0))
        return found

    def time_s(self, kernels: KernelRates | None = None, reached: CollectiveSpec | None = None) -> Num:
        """Estimated seconds of every row."""
        m, total = self.machine(kernels, reached), self.launch_s
        for node in self.nodes:
            cost = node.cost(self.batch)
            step = step_s(node, self.batch, cost, m)
            total = total + step.busy_s + step.start_s + exchange_s(node.kind, cost, m)
        return maximum(total, self.least_s)


def stacked(rows: Iterable[Timed]) -> tuple[Stack, ...]:
    """The rows grouped by everything that is not a number."""
    groups: dict[tuple[Any, ...], list[Timed]] = {}
    for row in rows:
        structure = tuple((node.name, node.kernels, type(node.op), _structure(node.op)) for node in row.nodes)
        case = (row.family, row.gpu, row.precision, row.engine, row.ranks, row.cold)
        groups.setdefault((*case, structure), []).append(row)
    return tuple(_stack(same) for same in groups.values())


def _structure(op: Any) -> tuple[Any, ...]:
    values = (getattr(op, field.name) for field in dataclasses.fields(op))
    return tuple(None if isinstance(value, float) else value for value in values)


def _stack(rows: Sequence[Timed]) -> Stack:
    nodes = tuple(
        dataclasses.replace(same[0], op=_merged([node.op for node in same]))
        for same in zip(*(row.nodes for row in rows), strict=True)
    )
    groups = [row.batch.groups[0] for row in rows]
    merged = _merged(groups)
    return Stack(tuple(rows), nodes, Batch.uniform(merged.seqs, merged.new, merged.past))


def _merged(objects: Sequence[T]) -> T:
    """One object whose numbers are arrays where they differ."""
    first: Any = objects[0]
    changes = {}
    for field in dataclasses.fields(first):
        if isinstance(getattr(first, field.name), float):
            values = np.array([getattr(item, field.name) for item in objects], dtype=np.float64)
            changes[field.name] = float(values[0]) if np.all(values == values[0]) else values
    merged: T = dataclasses.replace(first, **changes)
    return merged
