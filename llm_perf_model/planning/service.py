"""What replicas of a case do in a second: steps that prompts and running sequences share, at every batch size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from statistics import NormalDist

import numpy as np

from ..case import Case
from ..energy import dynamic_j
from ..errors import InfeasibleError
from ..generate import Steps, prefill, shared_pass
from ..handover import handover
from ..peak import memory
from ..roofline import Pipeline, Totals
from ..specs.link import LinkSpec
from ..types import Array, CountArray
from ..units import binary_bytes
from .load import Load


@dataclass(frozen=True)
class Service:
    """What replicas do, by the number of sequences that share a step. The leading axes are those of cases.

    Arrays by batch have the entries of 1, 2, ... sequences, or of 0 as well where that is said.
    """

    largest: CountArray
    """Sequences that share a step at most."""
    capacity_per_s: Array
    """Requests that a replica completes if it always has work."""
    completions_per_s: Array
    """Requests that so many sequences complete, with the prompts of those that follow."""
    token_s: Array
    """Seconds per output token after the first, at the percentile of prompts met."""
    step_s: Array
    """A mean step, from 0 sequences on."""
    beside_s: Array
    """What so many running sequences add to a step with a prompt, from 0 on."""
    prompt_s: Array
    """For how long a mean prompt keeps others waiting where steps are full of them, from 0 running sequences on."""
    alone_s: Array
    """The prefill of each length of the load in a replica without other work."""
    chunks: Array
    """Steps of that prefill."""
    request_j: Array
    """Joules of one device beyond idling for a request."""


def stacked(services: Iterable[Service]) -> Service:
    """Services of several cases as one, with a leading axis."""
    several = tuple(services)
    return Service(*(np.stack([getattr(s, each.name) for s in several]) for each in fields(Service)))


@dataclass(frozen=True, slots=True)
class Batching:
    """How an engine fills its steps, and the percentile that is asked for."""

    max_batch_size: int
    chunk_tokens: float
    percentile: float

    @property
    def numbers(self) -> Array:
        """Batch sizes that are walked: halves and wholes of powers of two; what lies between is interpolated."""
        powers = 2.0 ** np.arange(1, 31)
        sizes: Array = np.concatenate(([1.0], np.sort(np.concatenate((powers, 1.5 * powers)))))
        return np.append(sizes[sizes < self.max_batch_size], float(self.max_batch_size))

    def at_all(self, values: Array | float) -> Array:
        """Values of these batch sizes at every one from 1."""
        shape = np.broadcast_to(values, self.numbers.shape)
        return np.asarray(np.interp(np.arange(1, self.max_batch_size + 1), self.numbers, shape))


@dataclass(frozen=True)
class Replica:
    r"""Devices that hold one copy of a model, under a load; their steps are walked once over batch sizes.

    A prompt takes :math:`k = I / p` steps of p tokens, at most the chunk C. With n running sequences of s decode steps
    prompts arrive as others end, :math:`n I / s` tokens a step, so that several share a step where they are shorter:

    .. math:: p_n = \min(\max(\min(I, C), n I / s), C)
    """

    case: Case
    load: Load
    batching: Batching

    def step(self, seqs: Array | float, prompt_tokens: Array | float) -> Totals:
        """One step of a mixed batch; every stage of a pipeline has its part of sequences and prompts."""
        layout, load = self.case.layout, self.load
        parts = layout.parts(np.maximum(seqs, 1.0))
        pipeline = Pipeline(float(layout.pp), parts, layout.fullest_share(self.case.model.layer_count))
        decoding = Steps(layout.pass_sequences(np.maximum(seqs, 1.0)), load.context_tokens)
        groups = [decoding] if np.all(np.asarray(seqs) > 0.0) else []
        if np.all(np.asarray(prompt_tokens) > 0.0):
            chunk = min(load.input_tokens, self.batching.chunk_tokens)
            prompts = prompt_tokens / chunk / parts / layout.sharers
            groups.append(Steps(prompts, (load.input_tokens - chunk) / 2.0, new=chunk))
        return shared_pass(self.case.graph, self.case.machine, tuple(groups), pipeline).totals

    def dynamic_j(self, t: Totals) -> Array:
        """Joules of one device beyond idling."""
        return np.asarray(dynamic_j(self.case.machine.power, t.flops, t.hbm_bytes, t.comm_bytes))

    @cached_property
    def max_batch_size(self) -> int:
        """Sequences that the devices hold at a time.

        Raises:
            InfeasibleError: not even the longest request fits.
        """
        a = replace(self.case.allocation, chunk_tokens=self.batching.chunk_tokens)
        load, sizes = self.load, np.arange(1.0, self.batching.max_batch_size + 1.0)
        longest = memory(a, 1.0, load.longest_tokens - load.output_tokens, load.output_tokens)
        if not longest.fits:
            short = binary_bytes(float(longest.shortfall_bytes))
            raise InfeasibleError(f"memory: {short} too little on each device for the longest request")
        # what ends up cached where lengths differ: twice the way from the prompt to the mean context
        output_len = max(load.output_tokens, 2.0 * (load.context_tokens - load.input_tokens) + 1.0)
        fits = np.broadcast_to(memory(a, sizes, load.input_tokens, output_len).fits, sizes.shape)
        return max(int(np.argmin(fits)) if not fits.all() else sizes.size, 1)

    @cached_property
    def alone(self) -> tuple[Array, Array]:
        """The prefill of each length of the load in an idle replica, in seconds, and its steps."""
        case, lengths, chunk = self.case, self.load.prompt_tokens, self.batching.chunk_tokens
        pipeline = Pipeline(float(case.layout.pp), 1.0, case.layout.fullest_share(case.model.layer_count))
        seqs, inner = case.layout.pass_sequences(1.0), float(np.max(lengths)) > chunk
        phase = prefill(
            case.graph, case.machine, seqs, lengths, chunk_tokens=chunk if inner else None, pipeline=pipeline
        )
        return np.broadcast_to(phase.time_s, lengths.shape), np.ceil(lengths / chunk)

    @cached_property
    def plain(self) -> Totals:
        """Steps without prompts."""
        return self.step(self.batching.numbers, 0.0)

    @cached_property
    def chunk(self) -> Totals:
        """A step of one prompt, or of as much of it as a step takes."""
        return self.step(0.0, min(self.load.input_tokens, self.batching.chunk_tokens))

    def shared(self) -> Service:
        r"""Replicas that do all: prompts and running sequences share the steps.

        A request takes :math:`\max(s / n, k)` steps of its own and its prompt adds to k of them, so that n sequences
        complete

        .. math:: \mu_n = \left( \max(s / n, k_n)\, t_n + k_n (t_{n,p} - t_n) \right)^{-1}

        requests a second, with :math:`t_{n,p}` the time of a step of n tokens and p of prompts.
        """
        load, batching, numbers = self.load, self.batching, self.batching.numbers
        s, whole, tokens = load.decode_steps, batching.chunk_tokens, load.input_tokens
        p = np.minimum(np.maximum(min(tokens, whole), numbers * tokens / s), whole)
        fitting, count = self.max_batch_size, numbers.size
        both = self.step(np.concatenate((numbers, numbers)), np.concatenate((p, np.full(count, whole))))
        both_s = np.asarray(both.time_s)
        full_s = batching.at_all(both_s[count:]) * tokens / whole
        step_s, k = batching.at_all(self.plain.time_s), batching.at_all(tokens / p)
        mixed_s = np.maximum(batching.at_all(both_s[:count]), step_s)
        sizes = np.arange(1, batching.max_batch_size + 1)
        completions = 1.0 / (np.maximum(s / sizes, k) * step_s + k * (mixed_s - step_s))
        plain_j, mixed_j = (batching.at_all(self.dynamic_j(t)[:count]) for t in (self.plain, both))
        largest = int(np.argmax(completions[:fitting])) + 1
        alone_s, chunks = self.alone
        lone_s = float(np.max(self.chunk.time_s))
        return Service(
            np.array(largest),
            completions[largest - 1],
            completions,
            np.maximum.accumulate(step_s + (mixed_s - step_s) * self._met((sizes - 1.0) * k / s)),
            np.concatenate(([0.0], step_s + (mixed_s - step_s) * np.minimum(sizes * k / s, 1.0))),
            np.concatenate(([0.0], np.maximum(mixed_s - lone_s, 0.0))),
            np.concatenate((full_s[:1], full_s)),
            alone_s,
            chunks,
            np.concatenate(([0.0], np.maximum(s / sizes, k) * plain_j + k * (mixed_j - plain_j))),
        )

    def _met(self, share: Array) -> Array:
        r"""Share of the steps of a request with a prompt of another, at the percentile.

        Of s steps a binomial number with the mean :math:`f s`, here :math:`f + z_q \sqrt{f (1 - f) / s}`.
        """
        f = np.minimum(share, 1.0)
        z = NormalDist().inv_cdf(self.batching.percentile)
        return np.minimum(f + z * np.sqrt(f * (1.0 - f) / self.load.decode_steps), 1.0)

    def prefilling(self) -> Service:
        """Replicas that only prefill, one prompt after another."""
        alone_s, chunks = self.alone
        mean_s, size = float(self.load.prompt_fraction @ alone_s), self.batching.max_batch_size
        prompt_j = float(np.max(self.dynamic_j(self.chunk))) * max(
            self.load.input_tokens / self.batching.chunk_tokens, 1.0
        )
        zero, none = np.zeros(size), np.zeros(size + 1)
        rows = (zero + 1e12, zero, none, none, none + mean_s, alone_s, chunks, none + prompt_j)
        return Service(np.array(1), np.array(1.0 / mean_s), *rows)

    def decoding(self, link: LinkSpec) -> Service:
        """Replicas that only decode: the second token waits for the cache to come over a link."""
        load, sizes = self.load, np.arange(1, self.batching.max_batch_size + 1)
        step_s, s = self.batching.at_all(self.plain.time_s), load.decode_steps
        completions = sizes / (s * step_s)
        alone_s, _ = self.alone
        moved = handover(self.case, link, self.case, 1.0, load.input_tokens)
        waits_s = float(np.max(moved.exposed_s(float(load.prompt_fraction @ alone_s))))
        largest = int(np.argmax(completions[: self.max_batch_size])) + 1
        zero, none = np.zeros_like(load.prompt_tokens), np.zeros(sizes.size + 1)
        joules = np.concatenate(([0.0], s / sizes * self.batching.at_all(self.dynamic_j(self.plain))))
        token_s = np.maximum.accumulate(step_s) + waits_s / s
        steps_s = np.concatenate(([0.0], step_s))
        rows = (completions, token_s, steps_s, none, none, zero, zero, joules)
        return Service(np.array(largest), completions[largest - 1], *rows)
