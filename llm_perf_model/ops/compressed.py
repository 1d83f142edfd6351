"""Attention over a window of tokens and a past that is compressed to entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from ..types import Num
from .base import AbstractOp, Cost, Kind, Live
from .batch import UNLIMITED, Batch, Group


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

    ratio: float
    width: float
    entry_dim: float
    activation_bytes: float
    weight_bytes: float

    @property
    def parameters(self) -> float:
        return self.ratio * self.width + self.entry_dim

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    @property
    def state_bytes_per_sequence(self) -> float:
        return 2.0 * self.ratio * self.width * self.activation_bytes

    def cost(self, batch: Batch) -> Cost:
        values = 2.0 * self.width + self.entry_dim / self.ratio
        return Cost(
            flops=5.0 * batch.tokens * self.width,
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=batch.tokens * values * self.activation_bytes,
        )

    @property
    def live(self) -> Live:
        return Live((2.0 * self.width + self.entry_dim / self.ratio) * self.activation_bytes)


@final
@dataclass(frozen=True, slots=True)
class CompressedScores(AbstractOp):
    r"""Attention of h heads over one key of d values that is its value too: a window and entries of the past [1]_.

    .. math:: F = 4 (P_W + P_C) h d,\quad Q = 2 T h d\,b_a + (K_W + K_C + T (1 + 1/c)) d\,b_{kv}

    with :math:`P_W` pairs of a query and a token of its window, :math:`P_C` pairs of a query and an entry, of which
    there is one for c tokens (no end of them where c is infinite) and of which a query sees at most `chosen`;
    :math:`K_W` and :math:`K_C` are the tokens and entries that are read. A token adds 1/c entries to the cache, and
    the window is kept by sequence.

    .. [1] DeepSeek-AI, "DeepSeek-V4", technical report, section 2.3.
    """

    kind: ClassVar[Kind] = "attention"
    grows: ClassVar[bool] = True

    heads: float
    head_dim: float
    activation_bytes: float
    kv_bytes: float
    window: float
    ratio: float
    chosen: float = UNLIMITED
    sinks: bool = False

    @property
    def parameters(self) -> float:
        return self.sinks * self.heads

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.activation_bytes

    @property
    def kv_bytes_per_token(self) -> float:
        return self.head_dim * self.kv_bytes / self.ratio

    @property
    def state_bytes_per_sequence(self) -> float:
        return self.window * self.head_dim * self.kv_bytes

    @property
    def attention_window(self) -> float:
        return self.window

    def _entry_pairs(self, group: Group) -> Num:
        """Pairs of a query and an entry; queries see entries of their whole past up to `chosen` of them."""
        return group.causal_pairs(self.chosen * self.ratio) / self.ratio

    def _entries(self, group: Group) -> Num:
        """Entries that at least one query of a sequence sees."""
        return np.minimum((group.past + group.new) / self.ratio, group.new * self.chosen)

    def cost(self, batch: Batch) -> Cost:
        pairs = sum(g.seqs * (g.causal_pairs(self.window) + self._entry_pairs(g)) for g in batch.groups)
        read = sum(g.seqs * (g.keys(self.window) + self._entries(g)) for g in batch.groups)
        written = batch.tokens * (1.0 + 1.0 / self.ratio)
        return Cost(
            flops=4.0 * pairs * self.heads * self.head_dim,
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=2.0 * batch.tokens * self.heads * self.head_dim * self.activation_bytes,
            kv_bytes=(read + written) * self.head_dim * self.kv_bytes,
        )

    @property
    def live(self) -> Live:
        return Live((2.0 * self.heads + 1.0) * self.head_dim * self.activation_bytes)
