"""Attention over cached keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..types import Num
from .base import AbstractOp, Cost, Kind, Live
from .batch import UNLIMITED, Batch, Group


@final
@dataclass(frozen=True, slots=True)
class FusedAttention(AbstractOp):
    r"""softmax(QK^T)V in one kernel that never writes the scores [1]_.

    .. math:: F = 2 P h (d + v),\quad Q = T h (d + v)\,b_a + (K + T) h_{kv} w\,b_{kv} + \beta P h\,b_a

    with P causal query-key pairs, T new tokens, K cached tokens read, h heads of d values in a key and v in a value
    (`value_dim`, 0 where it is d), :math:`h_{kv}` key heads whose keys and values are :math:`w = d + v` values, or
    w = d where a value is the first v of its key (`joined`). The T new ones are also written, unless they are
    `borrowed` from another layer. `all_pairs` are computed where nothing is masked (an encoder) or the kernel takes a
    mask instead of skipping pairs. Keys outlive the pass where they are `cached`; where the cache is `rolling` only
    those of the window do. :math:`\beta` is 1 where a bias of each score is read (`biased`).

    Queries see a `window`, or the tokens of their chunk of the sequence (`chunk_tokens`); where `entry_tokens` are one
    entry of a compressed past, they see the entries of it, and a window is a number of entries.

    .. [1] T. Dao et al., "FlashAttention", arXiv:2205.14135.
    """

    kind: ClassVar[Kind] = "attention"
    grows: ClassVar[bool] = True

    heads: float
    kv_heads: float
    head_dim: float
    activation_bytes: float
    kv_bytes: float
    window: float = UNLIMITED
    all_pairs: bool = False
    cached: bool = True
    biased: bool = False
    value_dim: float = 0.0
    borrowed: bool = False
    sinks: bool = False
    """Whether each head has a learned score that takes its share."""
    joined: bool = False
    rolling: bool = False
    chunk_tokens: float = UNLIMITED
    entry_tokens: float = 1.0

    @property
    def parameters(self) -> float:
        return self.sinks * self.heads

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.activation_bytes

    @property
    def width(self) -> float:
        """Values of a key and a value of one head, as they are multiplied."""
        return self.head_dim + (self.value_dim or self.head_dim)

    @property
    def token_bytes(self) -> float:
        """Bytes of the keys and values of one token."""
        width = self.head_dim if self.joined else self.width
        return self.kv_heads * width * self.kv_bytes / self.entry_tokens

    @property
    def kv_bytes_per_token(self) -> float:
        return (self.cached and not self.borrowed and not self.rolling) * self.token_bytes

    @property
    def rolling_bytes_per_token(self) -> float:
        return (self.cached and not self.borrowed and self.rolling) * self.token_bytes

    @property
    def attention_window(self) -> float:
        return self.window * self.entry_tokens

    @property
    def attention_chunk_tokens(self) -> float:
        return self.chunk_tokens

    def pairs(self, group: Group) -> Num:
        """Query-key pairs of one sequence."""
        if self.all_pairs:
            return group.new * (group.past + group.new)
        if self.chunk_tokens != UNLIMITED:
            return group.chunk_pairs(self.chunk_tokens)
        return group.causal_pairs(self.window * self.entry_tokens) / self.entry_tokens

    def keys(self, group: Group) -> Num:
        """Keys that at least one query of a sequence sees."""
        if self.chunk_tokens != UNLIMITED:
            return group.chunk_keys(self.chunk_tokens)
        return group.keys(self.window * self.entry_tokens) / self.entry_tokens

    def mean_keys(self, group: Group) -> Num:
        """Keys that a query sees on average."""
        return group.keys() if self.all_pairs else self.pairs(group) / group.new

    def cost(self, batch: Batch) -> Cost:
        pairs = sum(g.seqs * self.pairs(g) for g in batch.groups)
        read = sum(g.seqs * self.keys(g) for g in batch.groups) * self.entry_tokens
        written = 0.0 if self.borrowed else batch.tokens
        values = batch.tokens * self.heads * self.width + self.biased * pairs * self.heads
        return Cost(
            flops=2.0 * pairs * self.heads * self.width,
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=values * self.activation_bytes,
            kv_bytes=(read + written) * self.token_bytes,
        )

    @property
    def live(self) -> Live:
        width = (self.heads + self.kv_heads) * self.width
        return Live(width * self.activation_bytes, pair_bytes=self.biased * self.heads * self.activation_bytes)


@final
@dataclass(frozen=True, slots=True)
class MaterialisedAttention(AbstractOp):
    r"""softmax(QK^T)V as separate kernels that write the scores and read them back.

    .. math:: F = 2 A h (d + v),\quad Q = T h (d + v)\,b_a + (K + T) h_{kv} (d + v)\,b_{kv} + (2 + n + 3 \beta) A h\,b_a

    with symbols as in `FusedAttention` and A all query-key pairs, masked ones too: scores are written by the first
    product, read and written n times by the softmax, read by the second product. Where they are `biased`
    (:math:`\beta = 1`), a pass between reads them and the bias and writes them.
    """

    kind: ClassVar[Kind] = "attention"
    grows: ClassVar[bool] = True

    heads: float
    kv_heads: float
    head_dim: float
    activation_bytes: float
    kv_bytes: float
    cached: bool = True
    biased: bool = False
    softmax_tensors: float = 2.0
    value_dim: float = 0.0
    borrowed: bool = False
    sinks: bool = False

    @property
    def parameters(self) -> float:
        return self.sinks * self.heads

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.activation_bytes

    @property
    def width(self) -> float:
        """Values of a key and a value of one head."""
        return self.head_dim + (self.value_dim or self.head_dim)

    @property
    def kv_bytes_per_token(self) -> float:
        return (self.cached and not self.borrowed) * self.kv_heads * self.width * self.kv_bytes

    def blocks(self, batch: Batch) -> Num:
        """Thread blocks of a kernel without split loops: one for each head of each query tile."""
        return batch.query_tiles() * self.heads

    def cost(self, batch: Batch) -> Cost:
        width = self.heads * self.width
        pairs = batch.all_pairs()
        tokens = batch.kv_tokens() + (0.0 if self.borrowed else batch.tokens)
        scores = (2.0 + self.softmax_tensors + 3.0 * self.biased) * pairs * self.heads
        return Cost(
            flops=2.0 * pairs * width,
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=(batch.tokens * width + scores) * self.activation_bytes,
            kv_bytes=tokens * self.kv_heads * self.width * self.kv_bytes,
        )

    @property
    def live(self) -> Live:
        width = (self.heads + self.kv_heads) * self.width
        scores = (2.0 + self.biased) * self.heads
        return Live(width * self.activation_bytes, pair_bytes=scores * self.activation_bytes)


@final
@dataclass(frozen=True, slots=True)
class CacheConcat(AbstractOp):
    r"""The cache grown by concatenation: old and new are read, the longer one is written.

    .. math:: Q = 2 K\,2 h_{kv} d\,b_{kv}

    with K cached tokens after the pass. A pass that finds no cache starts one and copies nothing.
    """

    kind: ClassVar[Kind] = "concat"
    grows: ClassVar[bool] = True

    kv_heads: float
    head_dim: float
    kv_bytes: float

    def cost(self, batch: Batch) -> Cost:
        return Cost(kv_bytes=2.0 * batch.extended_tokens() * 2.0 * self.kv_heads * self.head_dim * self.kv_bytes)

    @property
    def live(self) -> Live:
        return Live()


@final
@dataclass(frozen=True, slots=True)
class PositionBias(AbstractOp):
    r"""A bias of each score, looked up by the distance of query and key [1]_.

    .. math:: Q = n A h\,b_a + p\,b_w

    with A query-key pairs, h heads, n tensors of them read and written, p the biases of all buckets of distances.

    .. [1] C. Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
       arXiv:1910.10683, section 2.1.
    """

    kind: ClassVar[Kind] = "elementwise"
    grows: ClassVar[bool] = True

    heads: float
    buckets: float
    passes: float
    weight_bytes: float
    activation_bytes: float

    @property
    def parameters(self) -> float:
        return self.buckets * self.heads

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    def cost(self, batch: Batch) -> Cost:
        return Cost(
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=self.passes * batch.all_pairs() * self.heads * self.activation_bytes,
        )

    @property
    def live(self) -> Live:
        return Live(pair_bytes=self.passes * self.heads * self.activation_bytes)
