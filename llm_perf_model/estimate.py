"""The answer: times, rates, memory, energy and where each number comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .breakdown import Detail, breakdown
from .case import Case
from .cost import Cost, price_of, usd
from .errors import InfeasibleError, OutOfMemoryError, RequestError
from .frontier import max_batch_size
from .generate import Phase
from .handover import Handover
from .intervals import PhaseName, interval
from .numeric import maximum, minimum
from .peak import Memory, memory
from .provenance import provenance
from .rates import Machine
from .report.document import Report
from .specs.network import NetworkSpec
from .specs.request import Request
from .specs.workload import WorkloadSpec
from .speculation import Speculation
from .types import Mask, Num

if TYPE_CHECKING:
    from .pictures.canvas import Picture

INTERVALS: dict[str, PhaseName] = {
    "prefill_s": "prefill",
    "decode_step_s": "decode",
    "total_s": "whole",
    "ttft_s": "prefill",
    "tpot_s": "decode",
    "throughput_tokens_per_s": "whole",
}
"""Metric with an interval -> the phase whose records tell how far it may be off."""


MEMORY_PARTS = (
    "weights_bytes", "kv_cache_bytes", "activation_bytes", "reserve_bytes", "peak_bytes", "limit_bytes",
    "capacity_bytes", "shortfall_bytes", "live_bytes", "fragment_bytes", "logits_bytes", "workspace_bytes",
    "comm_buffer_bytes", "graph_bytes", "context_bytes",
)  # fmt: skip
"""Fields of `Memory` in an answer: four parts that add up to the peak, and what is inside them."""

UNMEASURED = frozenset({"draft", "offload_weights", "offload_kv", "disaggregated"})
"""Techniques that change what a step is, and of which there are no records."""


class Bounds(NamedTuple):
    """What a measurement lies between, and the records that say so."""

    low: Num | None
    high: Num | None
    basis: str


@dataclass(frozen=True)
class Estimate:
    """What a request costs.

    Numbers are floats, or arrays where the request held arrays. Times are in seconds, memory in bytes on
    one device. `prefill` and `decode` hold the FLOPs and bytes of one device over the whole phase;
    `throughput_tokens_per_s` counts the output tokens of all replicas.
    """

    case: Case
    machine: Machine
    request: Request
    workload: WorkloadSpec
    prefill: Phase
    decode: Phase
    describe: Callable[[Estimate], Report] = field(repr=False)
    explain: Callable[[Estimate], tuple[str, dict[str, Any]]] = field(repr=False)
    """Why it does not fit and what would, as text and as data."""
    speculation: Speculation | None = None
    """Guesses of tokens ahead; None: a step makes one token."""
    handover: Handover | None = None
    """The devices of the prefill and the cache on its way from them; None: one set of devices does all."""

    @property
    def decode_steps(self) -> Num:
        """Passes after the prefill, which makes the first output token."""
        steps: Num = self.workload.output_len - 1.0
        return steps if self.speculation is None else self.speculation.steps

    @property
    def expected_tokens_per_step(self) -> Num:
        """Tokens that a decode step adds to a sequence."""
        return 1.0 if self.speculation is None else self.speculation.tokens_per_step

    @property
    def transfer_s(self) -> Num:
        """Seconds for which the cache is on its way to other devices."""
        return 0.0 if self.handover is None else self.handover.transfer.time_s

    @property
    def exposed_transfer_s(self) -> Num:
        """Of these, those after the prefill, for which the second token waits."""
        return 0.0 if self.handover is None else self.handover.exposed_s(self.prefill_s)

    @property
    def prefill_s(self) -> Num:
        """Seconds of the pass over the prompts."""
        return self.prefill.time_s

    @property
    def decode_s(self) -> Num:
        """Seconds of all decode steps."""
        return self.decode.time_s

    @property
    def decode_step_s(self) -> Num:
        """Mean seconds of a decode step; 0 where there is none."""
        return self.decode_s / np.maximum(self.decode_steps, 1.0)

    @property
    def total_s(self) -> Num:
        """Seconds from the prompt to the last token."""
        return self.prefill_s + self.exposed_transfer_s + self.decode_s

    @property
    def period_s(self) -> Num:
        """Seconds after which another batch may follow.

        Those of all, or of the slowest of prefill, transfer and decode where they have devices of their own, which
        work on the next batch meanwhile.
        """
        if self.handover is None:
            return self.total_s
        return maximum(maximum(self.prefill_s, self.transfer_s), self.decode_s)

    @property
    def time_per_sample_s(self) -> Num:
        """Seconds of the whole batch over its sequences or samples, of all replicas."""
        return self.total_s / (self.case.layout.dp * self.workload.batch_size)

    @property
    def ttft_s(self) -> Num:
        """Seconds to the first token."""
        return self.prefill_s

    @property
    def tpot_s(self) -> Num:
        """Seconds per output token after the first, waiting for a cache included."""
        return (self.exposed_transfer_s + self.decode_s) / np.maximum(self.workload.output_len - 1.0, 1.0)

    @property
    def throughput_tokens_per_s(self) -> Num:
        """Output tokens of all replicas per second, one batch after another."""
        return self.case.layout.dp * self.workload.batch_size * self.workload.output_len / self.period_s

    @cached_property
    def memory(self) -> Memory:
        """What one device holds at its worst moment, by part."""
        w = self.workload
        return memory(self.case.allocation, w.batch_size, w.input_len, w.output_len)

    @cached_property
    def prefill_memory(self) -> Memory:
        """The same of a device of the prefill, where it has its own; it makes one token."""
        if self.handover is None:
            return self.memory
        return memory(self.handover.case.allocation, self.workload.batch_size, self.workload.input_len, 1.0)

    @property
    def fits(self) -> Mask:
        """Whether each device holds its peak memory."""
        return self.memory.fits if self.handover is None else self.memory.fits & self.prefill_memory.fits

    @property
    def extrapolated(self) -> Mask:
        """Whether a sequence exceeds the positions that the model knows."""
        beyond: Mask = False
        for _, tokens, positions in self._lengths:
            beyond = beyond | (tokens > (positions or np.inf))
        return beyond

    @property
    def _lengths(self) -> tuple[tuple[str, Num, int | None], ...]:
        """What of a sequence needs positions: in words, in tokens, and how many the model has; None: no limit."""
        w, model = self.workload, self.case.model
        if self.case.allocation.encodes:  # prompt and output have positions of their own
            prompt = ("input_len", w.input_len, model.source_positions)
            return prompt, ("output_len", w.output_len, model.max_positions)
        if not model.causal:
            return (("input_len", w.input_len, model.max_positions),)
        return (("input_len + output_len", w.input_len + w.output_len, model.max_positions),)

    @cached_property
    def max_batch_size(self) -> Num:
        """The largest batch of these lengths that one replica's devices hold."""
        w = self.workload
        largest = max_batch_size(self.case.allocation, w.input_len, w.output_len)
        if self.handover is None:
            return largest
        return minimum(largest, max_batch_size(self.handover.case.allocation, w.input_len, 1.0))

    @property
    def prefill_case(self) -> Case:
        """That of the devices of the prefill."""
        return self.case if self.handover is None else self.handover.case

    @property
    def energy_j(self) -> Num:
        """Joules of all devices.

        With the convention `tdp`, design power x time of the devices at work.
        """
        return self._energy_j(self.prefill, self.prefill_case) + self._energy_j(self.decode, self.case)

    def _energy_j(self, phase: Phase, case: Case) -> Num:
        """Joules of all devices over a phase: stages of a layer split take turns, the others idle."""
        layout, power = case.layout, phase.machine.power
        if self.request.energy_convention == "tdp":
            return layout.working_ranks * power.limit_w * phase.time_s
        idle_ranks = layout.ranks - layout.working_ranks
        return layout.working_ranks * phase.energy_j + idle_ranks * power.idle_w * phase.time_s

    @property
    def power_w(self) -> Num:
        """Mean watts of all devices together."""
        return self.energy_j / self.total_s

    @property
    def energy_per_request_j(self) -> Num:
        """Joules of one sequence, from prompt to last token."""
        return self.energy_j / (self.case.layout.dp * self.workload.batch_size)

    @cached_property
    def cost(self) -> Cost | None:
        """US dollars of the batch; None where no price of the device is known or given."""
        hourly_usd: list[float] = []
        spent_usd: list[Num] = []
        for case, phase in ((self.prefill_case, self.prefill), (self.case, self.decode)):
            price = price_of(self.request, case.gpu.name)
            if price is None:
                return None
            hourly_usd.append(case.layout.ranks * price.usd_per_gpu_hour / price.utilisation)
            spent_usd.append(usd(price, case.layout.ranks, phase.time_s, self._energy_j(phase, case)))
        assert price is not None, "two phases"
        w, sequences = self.workload, self.case.layout.dp * self.workload.batch_size
        per_hour = hourly_usd[1] if self.handover is None else sum(hourly_usd)
        counts = (sequences, sequences * w.input_len, sequences * w.output_len)
        return Cost(price, per_hour, spent_usd[0], spent_usd[1], *counts)

    @property
    def energy_per_token_j(self) -> Num:
        """Joules per output token."""
        return self.energy_j / (self.case.layout.dp * self.workload.batch_size * self.workload.output_len)

    @property
    def interval(self) -> dict[str, Any]:
        """Low and high by metric and what they rest on; None where no record can tell."""
        parts = {metric: self.bounds(metric) for metric in INTERVALS}
        found = {
            metric: {"low": plain(part.low), "high": plain(part.high), "basis": part.basis}
            for metric, part in parts.items()
        }
        return {"level": self.request.interval_level} | found

    def bounds(self, metric: str) -> Bounds:
        """What a measurement of a metric lies between, as often as the level says.

        Low and high have the shape of the metric, a key of `INTERVALS`; both are None where no record can tell.
        """
        case, request = self.case, self.request
        if case.allocation.encodes:
            return Bounds(None, None, "none: no engine has records of encoder-decoders yet")
        if case.engine.flat:
            return Bounds(None, None, "none: an engine with flat rates states a bound, not an estimate")
        unmeasured = sorted(request.techniques & UNMEASURED)
        if unmeasured:
            return Bounds(None, None, f"none: no engine has records with {unmeasured[0]} yet")
        if request.flops_efficiency is not None or request.hbm_memory_efficiency is not None:
            return Bounds(None, None, "none: the efficiencies were given, not fitted")
        if request.hardware is not None:
            return Bounds(None, None, "none: numbers of the device were given, so that no record is of it")
        phase: PhaseName = INTERVALS[metric] if case.model.causal else "prefill"
        if isinstance(case.model, NetworkSpec):
            phase = "network"
        found = interval(case.engine, case.gpu, case.kernels, phase, request.interval_level)
        factor, value = math.exp(found.half_width), getattr(self, metric)
        return Bounds(value / factor, value * factor, found.basis)

    def breakdown(self, by: Detail = "ops") -> Report:
        """FLOPs, bytes, time, bound and share of every operator, or of every role."""
        moved = {} if self.handover is None else {"transfer": self.handover.transfer}
        return breakdown({"prefill": self.prefill} | moved | {"decode": self.decode}, by)

    def plot_roofline(self) -> Picture:
        """A picture of every operator under the roofs of its device.

        Prefill and decode have a panel each: FLOP/s against FLOPs for each byte of device memory.

        Raises:
            RequestError: the estimate holds arrays, or Matplotlib is missing (extra `plot`).
        """
        from .plots import roofline

        self._require_one("plot_roofline")
        phases = {"prefill": (self.prefill_case, self.prefill), "decode": (self.case, self.decode)}
        return roofline(self.describe(self).title, self.breakdown("ops").records, phases)

    def plot_memory(self, batch_size: Iterable[float] | None = None) -> Picture:
        """A picture of the peak memory of one device by part, against batch.

        Args:
            batch_size: ascending batches (default: from 1 on to a few that do not fit).

        Raises:
            RequestError: the estimate holds arrays, batches are no such numbers, or Matplotlib is missing.
        """
        from .plots import stack

        self._require_one("plot_memory")
        w, head = self.workload, self.describe(self).title.splitlines()[0]
        tokens = f"\n{float(w.input_len):g} tokens in, {float(w.output_len):g} out"
        title = head if isinstance(self.case.model, NetworkSpec) else head + tokens
        lengths = float(w.input_len), float(w.output_len)
        return stack(title, self.case, lengths, float(self.max_batch_size), batch_size)

    def _require_one(self, name: str) -> None:
        if np.ndim(self.total_s) > 0:
            raise RequestError(f"{name}: the estimate holds {np.size(self.total_s)} configurations; give it one")

    def require_feasible(self) -> None:
        """Raise if a point cannot run.

        Raises:
            OutOfMemoryError: the peak exceeds the device.
            InfeasibleError: the sequences exceed the model's positions.
        """
        for words, tokens, positions in self._lengths:
            if np.any(tokens > (positions or np.inf)):
                most = float(np.max(tokens))
                raise InfeasibleError(
                    f"{words} is {most:.0f} tokens, but {self.case.model.name} has {positions} positions"
                )
        if not np.all(self.fits):
            raise OutOfMemoryError(*self.explain(self))

    def _techniques(self) -> dict[str, Any]:
        """What techniques did, as plain data; empty without any."""
        if not self.request.techniques:
            return {}
        found: dict[str, Num] = {"expected_tokens_per_step": self.expected_tokens_per_step}
        if self.speculation is not None:
            found |= {"draft_tokens": self.speculation.draft_tokens, "speedup": self.speculation.speedup}
        if self.machine.host_link is not None:
            found |= {"prefill_streamed_bytes": self.prefill.totals.streamed_bytes}
            found |= {"decode_streamed_bytes": self.decode.totals.streamed_bytes}
            found |= {"host_link_bytes_per_s": self.machine.host_link.bytes_per_s}
        answer = {name: plain(value) for name, value in found.items()}
        if self.handover is not None:
            names = ("transfer_s", "exposed_transfer_s", "period_s")
            answer |= {name: plain(getattr(self, name)) for name in names}
            answer |= {"transferred_bytes": plain(self.handover.transfer.comm_bytes)}
            answer |= {"prefill_gpu": self.handover.case.gpu.name, "transfer_link": self.handover.link.name}
            answer |= {"prefill_memory": _sizes(self.prefill_memory)}
        return {"techniques": answer}

    def to_dict(self, detail: Detail | None = None) -> dict[str, Any]:
        """The answer in SI units: numbers, lists, text and None.

        `detail` adds `breakdown`.
        """
        scalars = (
            "prefill_s", "decode_step_s", "decode_s", "total_s", "time_per_sample_s", "ttft_s", "tpot_s",
            "throughput_tokens_per_s",
        )  # fmt: skip
        answer: dict[str, Any] = {"request": self.request.plain()}
        answer |= {name: plain(getattr(self, name)) for name in scalars}
        answer |= {"prefill": _phase(self.prefill), "decode": _phase(self.decode)}
        answer["memory"] = self.memory_dict()
        later = (
            "fits", "extrapolated", "max_batch_size", "energy_j", "energy_per_token_j", "energy_per_request_j",
            "power_w",
        )  # fmt: skip
        answer |= {name: plain(getattr(self, name)) for name in later}
        answer |= {"cost": None if self.cost is None else self.cost.to_dict()}
        answer |= {"interval": self.interval, "provenance": provenance(self.case, self.request)}
        answer |= self._techniques()
        if detail is not None:
            answer["breakdown"] = list(self.breakdown(detail).records)
        return answer

    def memory_dict(self) -> dict[str, Any]:
        """Bytes of each part of the peak, and the moment that sets it."""
        return _sizes(self.memory)

    def report(self) -> Report:
        """Tables for people."""
        return self.describe(self)

    def __str__(self) -> str:
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()


def _sizes(memory: Memory) -> dict[str, Any]:
    return {name: plain(getattr(memory, name)) for name in MEMORY_PARTS} | {"moment": plain(memory.moment)}


def _phase(phase: Phase) -> dict[str, Any]:
    names = ("flops", "hbm_bytes", "comm_bytes", "bound", "flops_utilisation", "bandwidth_utilisation")
    return {name: plain(getattr(phase, name)) for name in names}


def plain(value: Any) -> Any:
    """NumPy values as Python's own."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
