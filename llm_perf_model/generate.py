"""Prompt and output lengths -> the runs of a prefill and of a decode, with their totals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from .energy import dynamic_j, energy_j
from .ops.batch import START_TOKENS, UNLIMITED, Batch
from .ops.node import Graph, Node, running
from .rates import Machine
from .roofline import Run, Totals, Work, host_s_per_step, step_s, totals, walk
from .types import Num

BOUNDS = ("compute", "memory", "communication", "host", "power")

Sequences = tuple[Num, Num, Num]
"""Sequences of a decode, the tokens of each that its first step finds cached, and those that an encoder has read."""


@dataclass(frozen=True)
class Phase:
    """Prefill or decode: the runs of one graph on one machine, summed on first use."""

    graph: Graph
    machine: Machine
    runs: tuple[Run, ...]
    request_s: Num = 0.0
    encoder: Phase | None = None
    """The pass of an encoder, which comes before."""

    @cached_property
    def totals(self) -> Totals:
        """FLOPs, bytes and seconds of the whole phase, for one device."""
        own = totals(self.graph, self.machine, self.runs, self.request_s)
        if self.encoder is None:
            return own
        before = self.encoder.totals
        return Totals(*(getattr(before, field.name) + getattr(own, field.name) for field in fields(Totals)))

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
        if self.encoder is not None:
            yield from self.encoder.works()
        yield from zip(*(tuple(walk(self.graph, self.machine, run)) for run in self.runs), strict=True)


def _per(ideal_s: Num, time_s: Num) -> Num:
    return ideal_s / np.where(time_s == 0.0, 1.0, time_s)


def prefill(
    graph: Graph, machine: Machine, batch_size: Num, input_len: Num, copies: float = 1.0, token_by_token: bool = False
) -> Phase:
    """One pass over the prompts, each `copies` times, and what a request costs once.

    An encoder passes over the prompts, each once; its decoder then over one token a copy. Token by token, the first
    of a prompt finds an empty cache, and each other one is a decode step.
    """
    prompt, source = decoder_lengths(graph, input_len)
    sequences = batch_size * copies
    first = Run.single(Batch.uniform(sequences, 1.0 if token_by_token else prompt, 0.0, source))
    encoder = running(graph, "encoder")
    if not encoder:
        others = decode(graph, machine, sequences, 1.0, prompt - 1.0).runs if token_by_token else ()
        return Phase(running(graph, "always"), machine, (first, *others), machine.request_s)
    alone = replace(machine, layers_host_s=machine.encoder_host_s, step_s=0.0, sequence_s=0.0)  # no step of its own
    before = Phase(encoder, alone, (Run.single(Batch.uniform(batch_size, input_len, 0.0)),))
    return Phase(running(graph, "first", "always"), machine, (first,), machine.request_s, before)


def decode(graph: Graph, machine: Machine, batch_size: Num, input_len: Num, steps: Num) -> Phase:
    """`steps` passes of one token a sequence; the first finds the `input_len` tokens of the prompt cached.

    The decoder of an encoder-decoder finds one token, and sees those of the prompt beside its own.

    No steps are no runs. Else their number depends on the kinks of the cost (a sliding window, and where the host may
    be the limit a change of an operator's bound), never on the number of steps.
    """
    if all(isinstance(value, float) for value in (batch_size, input_len, steps)) and steps == 0.0:
        return Phase(running(graph, "always"), machine, ())
    past, source = decoder_lengths(graph, input_len)
    graph = running(graph, "always")
    edges: list[Num] = [0.0, *_window_edges(graph, past, steps), steps]
    if host_s_per_step(graph, machine) is not None and not machine.synchronous:
        edges = _split_at_bound_changes(graph, machine, (batch_size, past, source), edges)
    return Phase(graph, machine, tuple(_runs((batch_size, past, source), edges)))


def decoder_lengths(graph: Graph, input_len: Num) -> tuple[Num, Num]:
    """Tokens of a prompt that the decoder itself passes over, and those that an encoder reads for it."""
    return (START_TOKENS, input_len) if running(graph, "encoder") else (input_len, 0.0)


def _runs(sequences: Sequences, edges: list[Num]) -> Iterator[Run]:
    batch_size, past, source = sequences
    for low, high in pairwise(edges):
        first = Batch.uniform(batch_size, 1.0, past + low, source)
        last = Batch.uniform(batch_size, 1.0, past + np.maximum(high - 1.0, low), source)
        yield Run(high - low, first, last)


def _window_edges(graph: Graph, past: Num, steps: Num) -> Iterator[Num]:
    """Steps at which a window fills up: step i sees min(past + i + 1, W) tokens."""
    windows = {node.op.attention_window for node in graph} - {UNLIMITED}
    for window in sorted(windows):
        yield np.clip(window - past, 0.0, steps)


def _excess_s(node: Node, machine: Machine, batch: Batch) -> Num:
    """Seconds by which arithmetic takes longer than memory traffic in one step."""
    step = step_s(node, batch, node.cost(batch), machine)
    return step.compute_s - step.memory_s


def _split_at_bound_changes(graph: Graph, machine: Machine, sequences: Sequences, edges: list[Num]) -> list[Num]:
    """`edges` with the steps at which a growing operator turns from memory- to compute-bound or back."""
    growing = tuple(node for node in graph if node.op.grows)
    changes: list[Num] = []
    for low, run in zip(edges, _runs(sequences, edges), strict=False):
        for node in growing:
            first, last = (_excess_s(node, machine, batch) for batch in (run.first, run.last))
            slope = (last - first) / np.maximum(run.steps - 1.0, 1.0)
            crossing = np.floor(-first / np.where(slope == 0.0, 1.0, slope)) + 1.0
            changes.append(low + np.where(first * last < 0.0, crossing, 0.0))
    return list(np.sort(np.stack(np.broadcast_arrays(*edges, *changes)), axis=0)) if changes else edges
