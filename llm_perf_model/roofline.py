"""Cost / machine -> time, and the one walk over a graph that totals, breakdown and reports consume.

The walk covers a `Run`: steps whose batches differ only in the cached tokens, which grow by one a
step. A prefill is a run of one step, a decode a run of many; both are summed in closed form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np

from .blocks import attention_s, begun_s, cached_s, convolution_s, experts_s, operands_s, product_s, rows_s
from .energy import delay_s, dynamic_j
from .exchange import EXCHANGES, exchange_s
from .numeric import absolute, hypot, maximum, minimum
from .ops.attention import FusedAttention, MaterialisedAttention
from .ops.base import Cost
from .ops.batch import Batch
from .ops.convolution import Convolution
from .ops.dense import Embedding, Linear
from .ops.elementwise import Elementwise
from .ops.latent import LatentProducts, LatentScores
from .ops.moe import ExpertLinear
from .ops.node import Graph, Node, Place
from .ops.recurrence import Recurrence
from .rates import HostLink, Machine
from .types import Num


@dataclass(frozen=True, slots=True)
class Run:
    """`steps` passes from the batch `first` to the batch `last`, along which every cost is affine."""

    steps: Num
    first: Batch
    last: Batch

    @classmethod
    def single(cls, batch: Batch) -> Run:
        """One pass."""
        return cls(1.0, batch, batch)


class Timing(NamedTuple):
    r"""Seconds of one node over a run. Fields broadcast together.

    .. math:: t = \sum_i \max(F_i / P, Q_i / B) + t_{comm} + t_{start}

    `busy_s` is that sum of maxima over the steps, `comm_s` the time of exchanges with their starts,
    `start_s` the device time of kernel starts; `first_s` and `last_s` are the device time of the first
    and of the last step.
    """

    compute_s: Num
    memory_s: Num
    busy_s: Num
    comm_s: Num
    start_s: Num
    first_s: Num
    last_s: Num

    @property
    def compute_bound_s(self) -> Num:
        """Busy seconds where arithmetic binds, else 0."""
        return cast("Num", (self.compute_s > self.memory_s) * self.busy_s)

    @property
    def memory_bound_s(self) -> Num:
        """Busy seconds where memory traffic binds, else 0."""
        return cast("Num", (self.compute_s <= self.memory_s) * self.busy_s)

    @property
    def device_s(self) -> Num:
        """Seconds on the device."""
        return self.busy_s + self.comm_s + self.start_s


class Work(NamedTuple):
    """A node with its cost and time over a run, all layers and steps together."""

    node: Node
    cost: Cost
    timing: Timing

    def times(self, share: Num) -> Work:
        """So many times the work."""
        cost, timing = Cost(*[share * part for part in self.cost]), Timing(*[share * part for part in self.timing])
        return Work(self.node, cost, timing)


def walk(graph: Graph, machine: Machine, run: Run) -> Iterator[Work]:
    """The work of each node over `run`, in the order of the graph."""
    for node in graph:
        yield _work(node, machine, run)


class Step(NamedTuple):
    """Seconds of one operator in one step, without exchanges. Fields broadcast."""

    compute_s: Num
    memory_s: Num
    busy_s: Num
    start_s: Num


def _work(node: Node, m: Machine, run: Run) -> Work:
    count, times, exchanges = node.count, node.count * run.steps, node.kind in EXCHANGES
    cost = node.cost(run.first)
    first = last = step_s(node, run.first, cost, m)
    comm_first = comm_last = exchange_s(node.kind, cost, m) if exchanges else 0.0
    busy_s = first.busy_s * times
    if node.op.grows and run.last is not run.first:
        last_cost = node.cost(run.last)
        last = step_s(node, run.last, last_cost, m)
        comm_last = exchange_s(node.kind, last_cost, m) if exchanges else 0.0
        cost = Cost(*[(a + b) / 2.0 for a, b in zip(cost, last_cost, strict=True)])
        excess_s = positive_sum(first.compute_s - first.memory_s, last.compute_s - last.memory_s, run.steps)
        busy_s = (first.memory_s + last.memory_s) * (times / 2.0) + count * excess_s
    first_s = last_s = count * (first.busy_s + comm_first + first.start_s)
    compute_s, memory_s, comm_s = first.compute_s * times, first.memory_s * times, comm_first * times
    if last is not first:
        last_s = count * (last.busy_s + comm_last + last.start_s)
        compute_s = (first.compute_s + last.compute_s) * (times / 2.0)
        memory_s = (first.memory_s + last.memory_s) * (times / 2.0)
        comm_s = (comm_first + comm_last) * (times / 2.0)
    timing = Timing(compute_s, memory_s, busy_s, comm_s, first.start_s * times, first_s, last_s)
    return Work(node, Cost(*[value * times for value in cost]), timing)


def step_s(node: Node, batch: Batch, cost: Cost, m: Machine) -> Step:
    """Seconds of a node's operator in one step.

    Operators whose cost grows with the cache take the longer of arithmetic and memory, which is
    affine in the cached tokens; in others the two meet smoothly.
    """
    kind, batch = node.kind, node.seen(batch)
    rate = m.rates[kind]
    compute_s, memory_s = cost.flops / rate.flops_per_s, cost.hbm_bytes / rate.hbm_bytes_per_s
    start_s: Num = 0.0 if kind in EXCHANGES else node.kernels * m.kernel_start_s
    op, batch = node.op.kernel(batch)
    match op:  # the most frequent first: a class that does not match costs a look-up
        case Linear() | LatentProducts() if kind in m.blocks:
            blocks, product = m.blocks[kind], op.product(batch)
            compute_s, memory_s = product_s(product, blocks, m.sms), operands_s(cost, memory_s, m.passes)
            busy_s = maximum(compute_s, memory_s) if op.grows else hypot(compute_s, memory_s)
            return Step(compute_s, memory_s, busy_s, start_s + begun_s(product, blocks))
        case Elementwise() if m.passes is not None:
            memory_s = cached_s(cost.hbm_bytes, memory_s, m.passes)
            compute_s = maximum(compute_s, rows_s(op, batch, m.passes, m.sms))
            return Step(compute_s, memory_s, hypot(compute_s, memory_s), start_s)
        case FusedAttention() | LatentScores() if m.attention is not None:
            compute_s, wave_s = attention_s(op, batch, m.attention, m.sms)
            start_s = start_s + wave_s
        case MaterialisedAttention() if m.has_blocks:
            memory_s = memory_s * maximum(1.0, m.attention_blocks / op.blocks(batch))
        case Convolution() | Recurrence() if m.convolution is not None and kind == op.kind:
            return _layer_step_s(op, batch, cost, m)
        case Convolution():
            memory_s, start_s = operands_s(cost, memory_s, m.passes), start_s + _grouped_s(op, batch, m)
        case ExpertLinear() if m.experts is not None:
            compute_s, start_s = experts_s(op, batch, m.experts, m.sms), start_s + m.experts.block.start_s
            return Step(compute_s, memory_s, hypot(compute_s, memory_s), start_s)
        case Embedding() if m.passes is not None:
            compute_s = batch.tokens * op.hidden / m.passes.gathered_values_per_s
            return Step(compute_s, memory_s, hypot(compute_s, memory_s), start_s)
    return Step(compute_s, memory_s, maximum(compute_s, memory_s), start_s)


def _layer_step_s(op: Convolution | Recurrence, batch: Batch, cost: Cost, m: Machine) -> Step:
    """Seconds of an operator of networks in the kernels that libraries have for it."""
    assert m.convolution is not None and m.recurrent is not None, "a machine has both or none"
    match op:
        case Convolution():
            memory_s = operands_s(cost, cost.hbm_bytes / m.rates[op.kind].hbm_bytes_per_s, m.passes)
            form = convolution_s(op, batch, memory_s, m.convolution, m.sms, m.kernel_start_s)
            start_s = form.kernels * m.kernel_start_s + _grouped_s(op, batch, m)
            return Step(form.compute_s, form.memory_s, form.busy_s, start_s)
        case Recurrence():
            product, block = op.product(batch), m.recurrent.block
            compute_s = op.steps * product_s(product, block, m.sms)
            memory_s = operands_s(cost, cost.hbm_bytes / m.recurrent.hbm_bytes_per_s, m.passes)
            start_s = op.steps * (m.recurrent.step_s + begun_s(product, block) - block.start_s)
            return Step(compute_s, memory_s, hypot(compute_s, memory_s), start_s)


def _grouped_s(op: Convolution, batch: Batch, m: Machine) -> Num:
    """Seconds of groups that are products of their own, one after the other, for each sample."""
    group_s = 0.0 if m.convolution is None else m.convolution.group_s
    return group_s * op.groups * batch.tokens if op.groups > 1.0 else 0.0


def positive_sum(first: Num, last: Num, steps: Num) -> Num:
    r"""Closed form of :math:`\sum_{i=0}^{n-1} \max(0, x_i)` for x affine from `first` to `last`.

    The k positive terms are the largest, so they sum to :math:`k h - g k (k-1) / 2` with h the
    larger end and g the absolute slope.
    """
    high = maximum(first, last)
    slope = absolute(last - first) / maximum(steps - 1.0, 1.0)
    steeper = maximum(slope, maximum(absolute(high) / (steps + 1.0), _TINY))  # below it all terms are positive
    terms = cast("Num", (high > 0.0) * minimum(np.floor(high / steeper) + 1.0, steps))
    return terms * high - slope * terms * (terms - 1.0) / 2.0


_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the nodes of a phase; the seconds add up to `time_s`. Fields broadcast together.

    Busy time is under `compute_s` or `memory_s`, whichever binds the node. `host_s` is the time for
    which the device waits for launches, `overhead_s` the engine's own time a step, `power_s` what a power
    limit below the design power adds, `bubble_s` the time for which it waits for other stages, `stream_s` that for
    which it waits for bytes from the host.
    """

    flops: Num
    hbm_bytes: Num
    comm_bytes: Num
    compute_s: Num
    memory_s: Num
    comm_s: Num
    start_s: Num
    host_s: Num
    overhead_s: Num
    bubble_s: Num
    power_s: Num
    time_s: Num
    stream_s: Num = 0.0
    streamed_bytes: Num = 0.0
    """Over the host link."""


class Pipeline(NamedTuple):
    """Stages that work side by side on `parts` of a batch; the fullest holds a share `fullest` of the layers.

    In `steady` state the stages are full from step to step, else they fill up and run empty. Fields broadcast.
    """

    stages: float = 1.0
    parts: Num = 1.0
    fullest: float = 1.0
    steady: bool = False

    @property
    def share(self) -> Num:
        """Work of a device, on average, over that of one part's pass through all stages."""
        return self.parts / self.stages

    def time_s(self, through_s: Num, slowest_s: Num) -> Num:
        r"""Seconds of all parts: :math:`t + (m-1)\,t_{max}`, in steady state :math:`\max(t, m\,t_{max})`.

        t is the time of one part through all stages, :math:`t_{max}` that of one part in the slowest stage [1]_.

        .. [1] Y. Huang et al., "GPipe", arXiv:1811.06965.
        """
        if self.steady:
            return maximum(through_s, self.parts * slowest_s)
        return through_s + (self.parts - 1.0) * slowest_s


NO_PIPELINE = Pipeline()

Through = tuple[Num, Num, Num, Num, Num, Num, Num, Num]
"""FLOPs, bytes of memory and of links, and the seconds of arithmetic, memory, links, starts and the host."""


def totals(
    graph: Graph, machine: Machine, runs: Iterable[Run], request_s: Num = 0.0, pipeline: Pipeline = NO_PIPELINE
) -> Totals:
    """The sums over all nodes and runs of one device, and the time that they take with `request_s` on top."""
    flops: Num = 0.0
    hbm_bytes: Num = 0.0
    comm_bytes: Num = 0.0
    compute_s: Num = 0.0
    memory_s: Num = 0.0
    comm_s: Num = 0.0
    start_s: Num = 0.0
    host_s: Num = 0.0
    steps: Num = 0.0
    sequence_steps: Num = 0.0
    ends_s: dict[Place, Num] = {"first": 0.0, "last": 0.0}
    step_host_s = host_s_per_step(graph, machine)
    waits = step_host_s is not None and not machine.synchronous
    for run in runs:
        run_s: tuple[Num, Num] = (0.0, 0.0)
        for node, cost, t in walk(graph, machine, run):
            flops = flops + cost.flops
            hbm_bytes = hbm_bytes + cost.hbm_bytes
            comm_bytes = comm_bytes + cost.sent_bytes
            compute_s = compute_s + t.compute_bound_s
            memory_s = memory_s + t.memory_bound_s
            comm_s = comm_s + t.comm_s
            start_s = start_s + t.start_s
            if waits:
                run_s = (run_s[0] + t.first_s, run_s[1] + t.last_s)
            if node.place != "layers" and pipeline.stages != 1.0:
                ends_s[node.place] = ends_s[node.place] + t.device_s
        steps = steps + run.steps
        sequence_steps = sequence_steps + run.steps * run.first.seqs
        if step_host_s is not None and machine.synchronous:
            host_s = host_s + run.steps * step_host_s
        elif step_host_s is not None:
            host_s = host_s + positive_sum(step_host_s - run_s[0], step_host_s - run_s[1], run.steps)
    through = (flops, hbm_bytes, comm_bytes, compute_s, memory_s, comm_s, start_s, host_s)
    work, bubble_s = _of_one_stage(pipeline, through, ends_s)
    overhead_s = steps * machine.step_s + sequence_steps * pipeline.parts * machine.sequence_s + request_s
    return _limited(machine, work, overhead_s, bubble_s)


def _of_one_stage(pipeline: Pipeline, through: Through, ends_s: Mapping[Place, Num]) -> tuple[Through, Num]:
    """The work of a device, and the seconds for which it waits for other stages.

    `through` is that of one part through all stages. The slowest stage has the most layers, and the embedding or the
    head besides.
    """
    if pipeline.stages == 1.0:
        return through, 0.0
    through_s, first_s, last_s = sum(through[3:]), ends_s["first"], ends_s["last"]
    slowest_s = pipeline.fullest * (through_s - first_s - last_s) + maximum(first_s, last_s)
    flops, hbm_bytes, comm_bytes, compute_s, memory_s, comm_s, start_s, host_s = (pipeline.share * x for x in through)
    bubble_s = pipeline.time_s(through_s, slowest_s) - pipeline.share * through_s
    return (flops, hbm_bytes, comm_bytes, compute_s, memory_s, comm_s, start_s, host_s), bubble_s


def _limited(machine: Machine, work: Through, overhead_s: Num, bubble_s: Num) -> Totals:
    """The totals of so much work, and what a power limit adds."""
    flops, hbm_bytes, comm_bytes, compute_s, memory_s, comm_s, start_s, host_s = work
    time_s = compute_s + memory_s + comm_s + start_s + host_s + overhead_s + bubble_s
    power_s: Num = 0.0
    if machine.power.limited:
        power_s = delay_s(machine.power, time_s, dynamic_j(machine.power, flops, hbm_bytes, comm_bytes))
        time_s = time_s + power_s
    seconds = (compute_s, memory_s, comm_s, start_s, host_s, overhead_s, bubble_s, power_s, time_s)
    return Totals(flops, hbm_bytes, comm_bytes, *seconds)


def host_s_per_step(graph: Graph, machine: Machine) -> Num | None:
    """Host seconds of one step, for launches and layers, or None where they are hidden."""
    host_s = machine.layers_host_s
    if not _is_nothing(machine.dispatch_s):
        host_s = host_s + machine.dispatch_s * sum(node.dispatched for node in graph)
    if not _is_nothing(machine.launch_s):
        host_s = host_s + machine.launch_s * sum(node.launched for node in graph)
    return None if _is_nothing(host_s) else host_s


def _is_nothing(seconds: Num) -> bool:
    return isinstance(seconds, float) and seconds == 0.0


def with_stream(t: Totals, graph: Graph, machine: Machine, runs: Iterable[Run], link: HostLink) -> Totals:
    r"""The totals with what a share of weights and cache adds that is on the host.

    It comes while the device works, so that a step takes the longer of the two:
    :math:`\sum_i \max(0, Q_i / B - t_i)` is added to device and host time :math:`t_i`.
    """
    stream_s: Num = 0.0
    streamed_bytes: Num = 0.0
    for run in runs:
        timings = [work.timing for work in walk(graph, machine, run)]
        first_s, last_s = sum(t.first_s for t in timings), sum(t.last_s for t in timings)
        first_bytes, last_bytes = (
            sum(streamed_bytes_of(node, batch, link) for node in graph) for batch in (run.first, run.last)
        )
        first_excess_s = first_bytes / link.bytes_per_s - _with_host(graph, machine, first_s)
        last_excess_s = last_bytes / link.bytes_per_s - _with_host(graph, machine, last_s)
        stream_s = stream_s + positive_sum(first_excess_s, last_excess_s, run.steps)
        streamed_bytes = streamed_bytes + (first_bytes + last_bytes) * run.steps / 2.0
    time_s = t.time_s - t.power_s + stream_s
    power_s: Num = 0.0
    if machine.power.limited:
        power_s = delay_s(machine.power, time_s, dynamic_j(machine.power, t.flops, t.hbm_bytes, t.comm_bytes))
    return replace(t, power_s=power_s, time_s=time_s + power_s, stream_s=stream_s, streamed_bytes=streamed_bytes)


def _with_host(graph: Graph, machine: Machine, device_s: Num) -> Num:
    """Seconds of a step of device and host."""
    host_s = host_s_per_step(graph, machine)
    if host_s is None:
        return device_s
    return device_s + host_s if machine.synchronous else maximum(device_s, host_s)


def streamed_bytes_of(node: Node, batch: Batch, link: HostLink) -> Num:
    r"""Bytes of a node over the host link in one step, :math:`f W + g K`.

    A share f of the weights W that its kernel reads, and a share g of the K bytes of cache: those that it finds and
    those that it adds, which go the other way. A kernel that adds keys and values reads them too, on the device.
    """
    cost = node.cost(batch)
    read_again_bytes = node.seen(batch).tokens * node.op.kv_bytes_per_token
    return node.count * (
        link.weights_fraction * cost.weight_bytes + link.cache_fraction * (cost.kv_bytes - read_again_bytes)
    )
