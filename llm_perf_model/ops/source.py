"""Attention of a decoder over the tokens that an encoder has read, whose keys do not grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .attention import FusedAttention, MaterialisedAttention
from .base import AbstractOp, Cost, Kind, Live
from .batch import Batch


@final
@dataclass(frozen=True, slots=True)
class SourceAttention(AbstractOp):
    r"""Attention over the keys of an encoder's output, which stay as they are [1]_.

    .. math:: F = 4 X h d,\quad Q = 2 T h d\,b_a + 2 E h_{kv} d\,b_{kv}

    with X pairs of one of T new tokens and one of E source tokens; `inner` adds what its scores move. It is the
    kernel that runs, over all pairs.

    .. [1] A. Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.2.3.
    """

    kind: ClassVar[Kind] = "attention"

    inner: FusedAttention | MaterialisedAttention

    @property
    def source_kv_bytes_per_token(self) -> float:
        return self.inner.kv_heads * self.inner.width * self.inner.kv_bytes

    def kernel(self, batch: Batch) -> tuple[AbstractOp, Batch]:
        return self.inner, batch.across()

    def cost(self, batch: Batch) -> Cost:
        inner = self.inner.cost(batch.across())
        return inner._replace(kv_bytes=batch.source_tokens() * self.source_kv_bytes_per_token)

    @property
    def live(self) -> Live:
        width = self.inner.heads * self.inner.width
        return Live(width * self.inner.activation_bytes, source_pair_bytes=self.inner.live.pair_bytes)


@final
@dataclass(frozen=True, slots=True)
class SourceGather(AbstractOp):
    r"""Reads and writes the keys of an encoder's output, as the beams of a step are gathered from those before.

    .. math:: Q = 2 E\,2 h_{kv} d\,b_{kv}

    with E source tokens of sequences that had a cache before the pass; others copy nothing.
    """

    kind: ClassVar[Kind] = "concat"

    kv_heads: float
    head_dim: float
    kv_bytes: float

    def cost(self, batch: Batch) -> Cost:
        return Cost(kv_bytes=2.0 * batch.kept_source_tokens() * 2.0 * self.kv_heads * self.head_dim * self.kv_bytes)

    @property
    def live(self) -> Live:
        return Live()
