"""What one forward pass processes, reduced to the few sums that every operator needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from ..numeric import floor, maximum
from ..types import Num

UNLIMITED = float("inf")
QUERY_TILE = 64.0

START_TOKENS = 1.0
"""Tokens that a decoder starts from where an encoder reads the prompt."""


@dataclass(frozen=True, slots=True)
class Group:
    """`seqs` sequences that each add `new` tokens to `past` cached ones. Fields broadcast.

    The decoder of an encoder-decoder also sees `source` tokens, those that the encoder has read.
    """

    seqs: Num
    new: Num
    past: Num
    source: Num = 0.0

    def causal_pairs(self, window: float = UNLIMITED) -> Num:
        r"""Query-key pairs of one sequence under a causal mask, :math:`\sum_{i=1}^{n}\min(p+i, W)`."""
        if window == UNLIMITED:
            return self.new * (self.past + (self.new + 1.0) / 2.0)
        growing = np.clip(window - self.past, 0.0, self.new)  # queries that still see their whole past
        return growing * (self.past + (growing + 1.0) / 2.0) + (self.new - growing) * window

    def keys(self, window: float = UNLIMITED) -> Num:
        r"""Keys that at least one query of a sequence sees, :math:`\min(p + n, W + n - 1)`."""
        if window == UNLIMITED:
            return self.past + self.new
        return np.minimum(self.past + self.new, window + self.new - 1.0)

    def chunk_pairs(self, chunk: float) -> Num:
        r"""Query-key pairs of one sequence in chunks of C tokens, :math:`\sum_{i=p}^{p+n-1} (i \bmod C) + 1`."""
        return _pairs_in_chunks(self.past + self.new, chunk) - _pairs_in_chunks(self.past, chunk)

    def chunk_keys(self, chunk: float) -> Num:
        r"""Keys that at least one query of a sequence sees: from the first one's chunk on."""
        return self.past + self.new - chunk * floor(self.past / chunk)


def _pairs_in_chunks(tokens: Num, chunk: float) -> Num:
    """Pairs of the first tokens of a sequence."""
    whole = floor(tokens / chunk)
    rest = tokens - whole * chunk
    return whole * (chunk * (chunk + 1.0) / 2.0) + rest * (rest + 1.0) / 2.0


@dataclass(frozen=True, slots=True)
class Batch:
    r"""Any mix of prefill chunks (past >= 0) and decodes (new = 1), as a bag of groups.

    `tokens` is :math:`\sum_g s_g n_g`, the rows that linear layers see, and `seqs` is
    :math:`\sum_g s_g`, the rows that need logits where only the last position does.
    """

    groups: tuple[Group, ...]
    seqs: Num
    tokens: Num

    @classmethod
    def of(cls, groups: Iterable[Group]) -> Batch:
        """The batch of several groups."""
        groups = tuple(groups)
        return cls(groups, sum(g.seqs for g in groups), sum(g.seqs * g.new for g in groups))

    @classmethod
    def uniform(cls, seqs: Num, new: Num, past: Num, source: Num = 0.0) -> Batch:
        """`seqs` equal sequences."""
        return cls((Group(seqs, new, past, source),), seqs, seqs * new)

    def times(self, share: float) -> Batch:
        """A share of the sequences, or a multiple of them."""
        return Batch.of(replace(g, seqs=share * g.seqs) for g in self.groups)

    def of_source(self) -> Batch:
        """The tokens that an encoder has read for these sequences, as a pass of their own."""
        return Batch.of(Group(g.seqs, g.source, 0.0) for g in self.groups)

    def across(self) -> Batch:
        """The same queries, as if the encoder's tokens were the ones up to each sequence's last."""
        return Batch.of(Group(g.seqs, g.new, g.source - g.new) for g in self.groups)

    def causal_pairs(self, window: float = UNLIMITED) -> Num:
        r"""Query-key pairs under a causal mask, :math:`\sum_s\sum_{i=1}^{n_s}\min(p_s+i, W)`."""
        return sum(g.seqs * g.causal_pairs(window) for g in self.groups)

    def all_pairs(self) -> Num:
        r"""Query-key pairs without a mask, :math:`\sum_s n_s (p_s + n_s)`."""
        return sum(g.seqs * g.new * (g.past + g.new) for g in self.groups)

    def query_tiles(self) -> Num:
        r"""Blocks of 64 queries, :math:`\sum_s \max(1, n_s / 64)`."""
        return sum(g.seqs * maximum(1.0, g.new / QUERY_TILE) for g in self.groups)

    def extended_tokens(self) -> Num:
        """Cached tokens after the pass, of sequences that had some before it."""
        return sum(g.seqs * np.where(g.past > 0.0, g.past + g.new, 0.0) for g in self.groups)

    def source_tokens(self) -> Num:
        r"""Tokens that an encoder has read, :math:`\sum_s e_s`."""
        return sum(g.seqs * g.source for g in self.groups)

    def source_pairs(self) -> Num:
        r"""Pairs of a query and a token that an encoder has read, :math:`\sum_s n_s e_s`."""
        return sum(g.seqs * g.new * g.source for g in self.groups)

    def kept_source_tokens(self) -> Num:
        """Tokens that an encoder has read, of sequences that had some cached before the pass."""
        return sum(g.seqs * np.where(g.past > 0.0, g.source, 0.0) for g in self.groups)

    def kv_tokens(self, window: float = UNLIMITED) -> Num:
        r"""Keys that at least one query sees, :math:`\sum_s \min(p_s + n_s, W + n_s - 1)`."""
        return sum(g.seqs * g.keys(window) for g in self.groups)
