"""Guesses of tokens ahead: what they cost, what verifying them costs, and how many of them pay."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .case import Draft
from .generate import Phase, Steps, passes
from .graph.guesses import verifying
from .numeric import maximum, minimum, where
from .ops.node import Graph
from .rates import Machine
from .types import Num

MOST_GUESSES = 16
"""Guesses of a step that are tried for the fastest number."""


@dataclass(frozen=True)
class Speculation:
    """How a decode with guesses went. Fields broadcast."""

    draft_tokens: Num
    """Guesses of a step."""
    tokens_per_step: Num
    """Tokens that a step adds to a sequence, as expected: guesses that are accepted, and one of the model's own."""
    steps: Num
    decode: Phase
    plain: Phase
    """The decode without guesses."""

    @property
    def speedup(self) -> Num:
        """How many times as fast as without guesses; below 1 where they do not pay."""
        return self.plain.time_s / where(self.decode.time_s > 0.0, self.decode.time_s, 1.0)


@dataclass(frozen=True)
class Guessed:
    """A decode whose tokens a draft guesses ahead: everything but the number of guesses."""

    graph: Graph
    machine: Machine
    draft: Draft
    seqs: Num
    input_len: Num
    tokens: Num
    """Tokens of a sequence after the first one."""
    acceptance: Num

    def tokens_per_step(self, guesses: Num) -> Num:
        r"""Expected tokens of a step, :math:`(1 - a^{\gamma+1}) / (1 - a)` [1]_.

        Each of :math:`\gamma` guesses is accepted with probability a if those before it are.

        .. [1] Y. Leviathan, M. Kalman, Y. Matias, "Fast Inference from Transformers via Speculative Decoding",
           arXiv:2211.17192, equation 1.
        """
        a = self.acceptance
        certain = a == 1.0
        missed = where(certain, 1.0, 1.0 - a)
        return where(certain, guesses + 1.0, (1.0 - np.power(a, guesses + 1.0)) / missed)

    def steps(self, guesses: Num) -> Num:
        """Expected steps, at least one where there are tokens."""
        return maximum(self.tokens / self.tokens_per_step(guesses), minimum(self.tokens, 1.0))

    def phase(self, guesses: Num) -> Phase:
        r"""Steps of :math:`\gamma` passes of the draft and one of the model over :math:`\gamma + 1` tokens.

        The draft's passes find :math:`p + i E + j` tokens cached in step i, those of all steps together are one run.
        """
        stride, steps = self.tokens_per_step(guesses), self.steps(guesses)
        verified = Steps(self.seqs, self.input_len, 0.0, guesses + 1.0, stride)
        made = steps * guesses
        between = (maximum(steps - 1.0, 0.0) * stride + guesses - 1.0) / maximum(made - 1.0, 1.0)
        guessed = Steps(self.seqs, self.input_len, 0.0, 1.0, between)
        drafted = passes(self.draft.graph, self.draft.machine, guessed, made)
        return replace(passes(verifying(self.graph), self.machine, verified, steps), draft=drafted)

    def fastest(self) -> Num:
        """The number of guesses, up to 16, with which the decode takes least time."""
        axes = max(np.ndim(each) for each in (self.seqs, self.input_len, self.tokens, self.acceptance))
        rates = (*self.machine.rates.values(), *self.draft.machine.rates.values())
        axes = max(axes, *(np.ndim(number) for rate in rates for number in rate))
        guesses = np.arange(1.0, MOST_GUESSES + 1.0).reshape(MOST_GUESSES, *[1] * axes)
        best = 1.0 + np.argmin(self.phase(guesses).time_s, axis=0)
        return float(best) if np.ndim(best) == 0 else best

    def speculation(self, guesses: Num | None) -> Speculation:
        """The decode with so many guesses a step, or with the number that is fastest."""
        made = self.fastest() if guesses is None else guesses
        plain = passes(self.graph, self.machine, Steps(self.seqs, self.input_len), self.tokens)
        return Speculation(made, self.tokens_per_step(made), self.steps(made), self.phase(made), plain)
