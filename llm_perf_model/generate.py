"""Prompt and output lengths -> the runs of a prefill and of a decode, with their totals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .energy import dynamic_j, energy_j
from .numeric import floor, maximum, minimum
from .ops.batch import START_TOKENS, UNLIMITED, Batch
from .ops.node import Graph, Node, running
from .rates import Machine
from .roofline import (
    NO_PIPELINE,
    Pipeline,
    Run,
    Totals,
    Work,
    host_s_per_step,
    step_s,
    totals,
    walk,
    with_stream,
)
from .types import Num

BOUNDS = ("compute", "memory", "communication", "host", "power")


class Steps(NamedTuple):
    """Passes that differ in the cached tokens alone. Fields broadcast."""

    seqs: Num
    past: Num
    """Tokens of a sequence that the first pass finds cached."""
    source: Num = 0.0
    """Tokens of a sequence that an encoder has read."""
    new: Num = 1.0
    """Tokens of a sequence in a pass."""
    stride: Num = 1.0
    """Tokens by which the cache of a sequence is longer after a pass."""

    def batch(self, index: Num) -> Batch:
        """That of one pass, from 0."""
        return Batch.uniform(self.seqs, self.new, self.past + index * self.stride, self.source)


@dataclass(frozen=True)
class Phase:
    """Prefill or decode: the runs of one graph on one machine, summed on first use."""

    graph: Graph
    machine: Machine
    runs: tuple[Run, ...]
    request_s: Num = 0.0
    encoder: Phase | None = None
    """The pass of an encoder, of the prompt or of its images, which comes before."""
    draft: Phase | None = None
    """Steps of what guesses tokens ahead, between its own."""
    pipeline: Pipeline = NO_PIPELINE

    @cached_property
    def totals(self) -> Totals:
        """FLOPs, bytes and seconds of the whole phase, for one device."""
        graph, m = self.graph, self.machine
        own = totals(graph, m, self.runs, self.request_s, self.pipeline)
        if m.host_link is not None:
            own = with_stream(own, graph, m, self.runs, m.host_link)
        for other in (self.encoder, self.draft):
            if other is not None:
                own = Totals(*(getattr(other.totals, each.name) + getattr(own, each.name) for each in fields(Totals)))
        return own

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
        terms = np.broadcast_arrays(t.compute_s, t.memory_s, t.comm_s + t.stream_s, host_s, t.power_s)
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
        """For each node, its work in every run; of one device of all stages."""
        for other in (self.encoder, self.draft):
            if other is not None:
                yield from other.works()
        share = self.pipeline.share
        for works in zip(*(tuple(walk(self.graph, self.machine, run)) for run in self.runs), strict=True):
            yield works if self.pipeline.stages == 1.0 else tuple(work.times(share) for work in works)


def _per(ideal_s: Num, time_s: Num) -> Num:
    return ideal_s / np.where(time_s == 0.0, 1.0, time_s)


def prefill(
    graph: Graph,
    machine: Machine,
    batch_size: Num,
    input_len: Num,
    copies: float = 1.0,
    token_by_token: bool = False,
    prefix_len: Num = 0.0,
    chunk_tokens: Num | None = None,
    pipeline: Pipeline = NO_PIPELINE,
) -> Phase:
    """One pass over the prompts, each `copies` times, and what a request costs once.

    `prefix_len` tokens are cached before; the others take passes of at most `chunk_tokens`, or of one token by token.
    An encoder passes over the prompts, each once; its decoder then over one token a copy.
    """
    prompt, source = decoder_lengths(graph, input_len)
    sequences, new, encoder = batch_size * copies, prompt - prefix_len, running(graph, "encoder")
    chunk = 1.0 if token_by_token else chunk_tokens
    if not encoder and chunk is not None:
        graph, each = running(graph, "always"), Steps(sequences, prefix_len, 0.0, chunk, chunk)
        runs = tuple(_chunks(graph, machine, each, new))
        return Phase(graph, machine, runs, machine.request_s, pipeline=pipeline)
    first = Run.single(Batch.uniform(sequences, new, prefix_len, source))
    if not encoder:
        return Phase(running(graph, "always"), machine, (first,), machine.request_s, pipeline=pipeline)
    alone = replace(machine, layers_host_s=machine.encoder_host_s, step_s=0.0, sequence_s=0.0)  # no step of its own
    before = Phase(encoder, alone, (Run.single(Batch.uniform(batch_size, input_len, 0.0)),))
    return Phase(running(graph, "first", "always"), machine, (first,), machine.request_s, before)


def vision(graph: Graph, machine: Machine, images: Num, patches: Num) -> Phase:
    """One pass over the patches of images, which is no step of an engine."""
    alone = replace(machine, layers_host_s=0.0, step_s=0.0, sequence_s=0.0)
    return Phase(running(graph, "vision"), alone, (Run.single(Batch.uniform(images, patches, 0.0)),))


def decode(
    graph: Graph,
    machine: Machine,
    batch_size: Num,
    input_len: Num,
    steps: Num,
    pipeline: Pipeline = NO_PIPELINE,
) -> Phase:
    """`steps` passes of one token a sequence; the first finds the `input_len` tokens of the prompt cached.

    The decoder of an encoder-decoder finds one token, and sees those of the prompt beside its own.

    No steps are no runs. Else their number depends on the kinks of the cost (a sliding window, the chunks that steps
    fill, and where the host or its link may be the limit a change of an operator's bound), not on the number of steps.
    """
    past, source = decoder_lengths(graph, input_len)
    return passes(graph, machine, Steps(batch_size, past, source), steps, pipeline)


def passes(graph: Graph, machine: Machine, each: Steps, steps: Num, pipeline: Pipeline = NO_PIPELINE) -> Phase:
    """So many passes of what always runs; none if there are no steps."""
    graph = running(graph, "always")
    empty = all(isinstance(value, float) for value in (*each, steps)) and steps == 0.0
    runs = () if empty else tuple(_runs(graph, machine, each, steps))
    return Phase(graph, machine, runs, pipeline=pipeline._replace(steady=True))


def shared_pass(graph: Graph, machine: Machine, groups: tuple[Steps, ...], pipeline: Pipeline = NO_PIPELINE) -> Phase:
    """One pass over several groups of sequences at once: those that decode, and chunks of prompts."""
    batch = Batch.of(group for each in groups for group in each.batch(0.0).groups)
    stages = pipeline._replace(steady=True)
    return Phase(running(graph, "always"), machine, (Run.single(batch),), pipeline=stages)


def decoder_lengths(graph: Graph, input_len: Num) -> tuple[Num, Num]:
    """Tokens of a prompt that the decoder itself passes over, and those that an encoder reads for it."""
    encodes = any(node.runs == "encoder" for node in graph)
    return (START_TOKENS, input_len) if encodes else (input_len, 0.0)


def _chunks(graph: Graph, machine: Machine, each: Steps, tokens: Num) -> Iterator[Run]:
    r"""Whole chunks of `tokens`, as many as there are, then a pass over the rest.

    A pass that finds c cached tokens costs :math:`a + b c`, so that those of whole chunks are one run, as the steps
    of a decode are; the first one stands apart because it may find no cache to read or copy.
    """
    whole = floor(tokens / each.new)
    rest = tokens - whole * each.new
    last = Batch.uniform(each.seqs, maximum(rest, 1.0), each.past + whole * each.stride)
    runs = (*_runs(graph, machine, each, whole, (minimum(whole, 1.0),)), Run(minimum(rest, 1.0), last, last))
    return (run for run in runs if np.any(run.steps))


def _runs(graph: Graph, machine: Machine, each: Steps, steps: Num, edges: tuple[Num, ...] = ()) -> Iterator[Run]:
    """So many passes, as runs along which cost is affine: between `edges` and where a window or the host changes it."""
    edges = (0.0, *_window_edges(graph, each, steps, edges), steps)
    hosted = host_s_per_step(graph, machine) is not None and not machine.synchronous
    if hosted or machine.host_link is not None:
        edges = _split_at_bound_changes(graph, machine, each, edges)
    return _between(each, edges)


def _between(each: Steps, edges: tuple[Num, ...]) -> Iterator[Run]:
    for low, high in pairwise(edges):
        yield Run(high - low, each.batch(low), each.batch(np.maximum(high - 1.0, low)))


def _filled_tokens(graph: Graph, each: Steps, steps: Num) -> list[float]:
    """Tokens of a sequence at which a window or a chunk of it is full."""
    windows = {node.op.attention_window for node in graph} - {UNLIMITED}
    for chunk in {node.op.attention_chunk_tokens for node in graph} - {UNLIMITED}:
        first, last = np.min(each.past) // chunk, np.max(each.past + steps * each.stride) // chunk
        windows |= {chunk * index for index in range(int(first) + 1, int(last) + 1)}
    return sorted(windows)


def _window_edges(graph: Graph, each: Steps, steps: Num, edges: tuple[Num, ...]) -> tuple[Num, ...]:
    """`edges` with the passes at which a window fills up, as query i sees min(past + i + 1, W) tokens, or a chunk does.

    Passes of several tokens have two edges for a window: before the first no query misses a token, from the second
    on each one does.
    """
    windows = _filled_tokens(graph, each, steps)
    filled = [np.clip(np.ceil((window - each.past) / each.stride), 0.0, steps) for window in windows]
    if not edges and type(each.new) is float and each.new == 1.0:
        return tuple(filled)
    begun = [np.clip(np.floor((window - each.new - each.past) / each.stride) + 1.0, 0.0, steps) for window in windows]
    return _sorted(*edges, *filled, *begun)


def _sorted(*edges: Num) -> tuple[Num, ...]:
    """Edges in order at every point."""
    return tuple(np.sort(np.stack(np.broadcast_arrays(*edges)), axis=0)) if edges else ()


def _excess_s(node: Node, machine: Machine, batch: Batch) -> Num:
    """Seconds by which arithmetic takes longer than memory traffic in one step."""
    step = step_s(node, batch, node.cost(batch), machine)
    return step.compute_s - step.memory_s


def _split_at_bound_changes(graph: Graph, machine: Machine, each: Steps, edges: tuple[Num, ...]) -> tuple[Num, ...]:
    """`edges` with the passes at which a growing operator turns from memory- to compute-bound or back."""
    growing = tuple(node for node in graph if node.op.grows)
    changes: list[Num] = []
    for low, run in zip(edges, _between(each, edges), strict=False):
        for node in growing:
            first, last = (_excess_s(node, machine, batch) for batch in (run.first, run.last))
            slope = (last - first) / np.maximum(run.steps - 1.0, 1.0)
            crossing = np.floor(-first / np.where(slope == 0.0, 1.0, slope)) + 1.0
            changes.append(low + np.where(first * last < 0.0, crossing, 0.0))
    return _sorted(*edges, *changes) if changes else edges
