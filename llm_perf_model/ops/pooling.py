"""Entries of a compressed past, each made of several tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .base import AbstractOp, Cost, Kind, Live
from .batch import Batch


@final
@dataclass(frozen=True, slots=True)
class Pooling(AbstractOp):
    r"""Makes an entry of every c tokens: a sum of their vectors by gates, a softmax of which adds up to one [1]_.

    .. math:: F = 5 T w,\quad Q = T (2 w + d / c)\,b_a + p\,b_w

    with w values of a token's vector and as many gates, d those of an entry, p weights: a bias of each gate of an
    entry's tokens and a norm. The last c tokens' vectors and gates are kept until an entry is full.

    .. [1] DeepSeek-AI, "DeepSeek-V4", technical report, section 2.3.
    """

    kind: ClassVar[Kind] = "elementwise"

    entry_tokens: float
    width: float
    entry_dim: float
    activation_bytes: float
    weight_bytes: float

    @property
    def parameters(self) -> float:
        return self.entry_tokens * self.width + self.entry_dim

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    @property
    def sequence_bytes(self) -> float:
        return 2.0 * self.entry_tokens * self.width * self.activation_bytes

    def cost(self, batch: Batch) -> Cost:
        values = 2.0 * self.width + self.entry_dim / self.entry_tokens
        return Cost(
            flops=5.0 * batch.tokens * self.width,
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=batch.tokens * values * self.activation_bytes,
        )

    @property
    def live(self) -> Live:
        return Live((2.0 * self.width + self.entry_dim / self.entry_tokens) * self.activation_bytes)
