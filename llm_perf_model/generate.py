"""Prompt and output lengths -> the runs of a prefill and of a decode, with their totals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from .energy import dynamic_j, energy_j
from .graph import Graph, Node
from .ops.batch import UNLIMITED, Batch
from .rates import Machine
from .roofline import Run, Totals, Work, host_s_per_step, step_s, totals, walk
from .types import Num

BOUNDS = ("compute", "memory", "communication", "host", "power")


@dataclass(frozen=True)
class Phase:
    """Prefill or decode: the runs of one graph on one machine, summed on first use."""

    graph: Graph
    machine: Machine
    runs: tuple[Run, ...]
    request_s: Num = 0.0

    @cached_property
    def totals(self) -> Totals:
        """FLOPs, bytes and seconds of the whole phase, for one device."""
        return totals(self.graph, self.machine, self.runs, self.request_s)

    @property
    def time_s(self) -> Num:
        """Seconds that the phase takes."""
        return self.totals.time_s

    @property
    def flops(self) -> Num:
        """FLOPs of one device over the phase."""
        return self.totals.flops

    @property
    def hbm_bytes(self) -> Num:
        """Bytes between one device and its memory over the phase."""
        return self.totals.hbm_bytes

    @property
    def comm_bytes(self) -> Num:
        """Bytes that one device sends over the phase."""
        return self.totals.comm_bytes

    @property
    def energy_j(self) -> Num:
        """Joules of one device over the phase."""
        power = self.machine.power
        return energy_j(power, self.time_s, dynamic_j(power, self.flops, self.hbm_bytes, self.comm_bytes))

    @property
    def bound(self) -> Any:
        """What takes most of the time: compute, memory, communication, host (launches and waits for them) or power.

        Text, or an array of it; "none" for an empty phase.
        """
        t = self.totals
        host_s = t.start_s + t.host_s + t.overhead_s
        terms = np.broadcast_arrays(t.compute_s, t.memory_s, t.comm_s, host_s, t.power_s)
        largest = np.argmax(np.stack(terms), axis=0)
        return np.where(np.max(np.stack(terms), axis=0) > 0.0, np.array(BOUNDS)[largest], "none")

    @property
    def flops_utilisation(self) -> Num:
        """FLOP/s over the datasheet's peak of the unit used; 0 for an empty phase."""
        return _per(self.flops / self.machine.peak_flops_per_s, self.time_s)

    @property
    def bandwidth_utilisation(self) -> Num:
        """Bytes/s over the datasheet's memory bandwidth; 0 for an empty phase."""
        return _per(self.hbm_bytes / self.machine.peak_hbm_bytes_per_s, self.time_s)

    def works(self) -> Iterator[tuple[Work, ...]]:
        """For each node, its work in every run."""
        return zip(*(tuple(walk(self.graph, self.machine, run)) for run in self.runs), strict=True)


def _per(ideal_s: Num, time_s: Num) -> Num:
    return ideal_s / np.where(time_s == 0.0, 1.0, time_s)


def prefill(graph: Graph, machine: Machine, batch_size: Num, input_len: Num) -> Phase:
    """One pass over the prompts, and what a request costs once."""
    run = Run.single(Batch.uniform(batch_size, input_len, 0.0))
    return Phase(graph, machine, (run,), machine.request_s)


def decode(graph: Graph, machine: Machine, batch_size: Num, input_len: Num, steps: Num) -> Phase:
    """`steps` passes of one token a sequence; the first finds `input_len` cached tokens.

    The number of runs depends on the kinks of the cost (a sliding window, and where the host may be
    the limit a change of an operator's bound), never on the number of steps.
    """
    edges: list[Num] = [0.0, *_window_edges(graph, input_len, steps), steps]
    if host_s_per_step(graph, machine) is not None and not machine.synchronous:
        edges = _split_at_bound_changes(graph, machine, batch_size, input_len, edges)
    return Phase(graph, machine, tuple(_runs(batch_size, input_len, edges)))


def _runs(batch_size: Num, input_len: Num, edges: list[Num]) -> Iterator[Run]:
    for low, high in pairwise(edges):
        first = Batch.uniform(batch_size, 1.0, input_len + low)
        last = Batch.uniform(batch_size, 1.0, input_len + np.maximum(high - 1.0, low))
        yield Run(high - low, first, last)


def _window_edges(graph: Graph, input_len: Num, steps: Num) -> Iterator[Num]:
    """Steps at which a window fills up: step i sees min(input_len + i + 1, W) tokens."""
    windows = {node.op.attention_window for node in graph} - {UNLIMITED}
    for window in sorted(windows):
        yield np.clip(window - input_len, 0.0, steps)


def _excess_s(node: Node, machine: Machine, batch: Batch) -> Num:
    """Seconds by which arithmetic takes longer than memory traffic in one step."""
    step = step_s(node, batch, node.cost(batch), machine)
    return step.compute_s - step.memory_s


def _split_at_bound_changes(
    graph: Graph, machine: Machine, batch_size: Num, input_len: Num, edges: list[Num]
) -> list[Num]:
    """`edges` with the steps at which a growing operator turns from memory- to compute-bound or back."""
    growing = tuple(node for node in graph if node.op.grows)
    changes: list[Num] = []
    for low, run in zip(edges, _runs(batch_size, input_len, edges), strict=False):
        for node in growing:
            first, last = (_excess_s(node, machine, batch) for batch in (run.first, run.last))
            slope = (last - first) / np.maximum(run.steps - 1.0, 1.0)
            crossing = np.floor(-first / np.where(slope == 0.0, 1.0, slope)) + 1.0
            changes.append(low + np.where(first * last < 0.0, crossing, 0.0))
    return list(np.sort(np.stack(np.broadcast_arrays(*edges, *changes)), axis=0)) if changes else edges
