"""Attention over latent vectors, of which each head's keys and values are products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..numeric import where
from ..types import Mask, Num
from .attention import FusedAttention
from .base import AbstractOp, Cost, Kind, Live, Product
from .batch import UNLIMITED, Batch, Group


@final
@dataclass(frozen=True, slots=True)
class LatentProducts(AbstractOp):
    r"""Products of latent vectors of r values with the weights of all heads, in one of two forms [1]_.

    .. math:: F = 2 R r h w,\quad Q = r h w\,b_w + R (r\,b_i + h w\,b_a)

    with h heads and w values of a key (its part that is not turned) and a value together. R is the number of tokens
    cached after the pass where keys and values of all of them are made; where the products are absorbed into queries
    and results, it is the number of new tokens. Groups of up to `absorbed_tokens` new tokens a sequence are absorbed.

    .. [1] DeepSeek-AI, "DeepSeek-V2", arXiv:2405.04434, section 2.1.
    """

    kind: ClassVar[Kind] = "gemm"
    grows: ClassVar[bool] = True

    heads: float
    kv_rank: float
    width: float
    weight_bytes: float
    activation_bytes: float
    input_bytes: float
    absorbed_tokens: float

    @property
    def d_in(self) -> float:
        """Values of a row that goes in."""
        return self.kv_rank

    @property
    def parameters(self) -> float:
        return self.kv_rank * self.heads * self.width

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    def rows(self, batch: Batch) -> Num:
        """Tokens that the weights are multiplied with."""
        return sum(g.seqs * where(is_absorbed(g, self.absorbed_tokens), g.new, g.past + g.new) for g in batch.groups)

    def product(self, batch: Batch) -> Product:
        """The matrix product that the operator is, as one over all heads."""
        return Product(self.rows(batch), self.heads * self.width, self.kv_rank)

    def cost(self, batch: Batch) -> Cost:
        rows, width = self.rows(batch), self.heads * self.width
        return Cost(
            flops=2.0 * rows * self.kv_rank * width,
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=rows * (self.kv_rank * self.input_bytes + width * self.activation_bytes),
        )

    @property
    def live(self) -> Live:
        return Live((self.kv_rank + self.heads * self.width) * self.activation_bytes)


def is_absorbed(group: Group, absorbed_tokens: float) -> bool | Mask:
    """Whether a group's queries meet latent vectors, not keys made of them."""
    return group.new <= absorbed_tokens


@final
@dataclass(frozen=True, slots=True)
class LatentScores(AbstractOp):
    r"""Attention of h heads whose tokens are cached as r latent values and d turned ones that all heads share [1]_.

    Over keys of n + d and values of v values that are made of the latent ones, or (groups of up to `absorbed_tokens`
    new tokens a sequence) over the latent values themselves, as one key head whose values are the first r of a key:

    .. math:: F = 2 P h (n + d + v)\quad\text{or}\quad F = 2 P h (2 r + d)

    with P causal query-key pairs; both are the kernel of `FusedAttention`. A token adds r + d values to the cache, on
    every rank. A query sees at most `chosen_tokens`.

    .. [1] DeepSeek-AI, "DeepSeek-V2", arXiv:2405.04434, section 2.1.
    """

    kind: ClassVar[Kind] = "attention"
    grows: ClassVar[bool] = True

    heads: float
    kv_rank: float
    nope_dim: float
    rope_dim: float
    value_dim: float
    activation_bytes: float
    kv_bytes: float
    absorbed_tokens: float
    chosen_tokens: float = UNLIMITED

    @property
    def kv_bytes_per_token(self) -> float:
        return (self.kv_rank + self.rope_dim) * self.kv_bytes

    @property
    def attention_window(self) -> float:
        return self.chosen_tokens

    @property
    def absorbed(self) -> FusedAttention:
        """Attention over the latent values."""
        sizes = (self.heads, 1.0, self.kv_rank + self.rope_dim, self.activation_bytes, self.kv_bytes)
        return FusedAttention(*sizes, self.chosen_tokens, value_dim=self.kv_rank, joined=True)

    @property
    def made(self) -> FusedAttention:
        """Attention over keys and values that are made for this pass."""
        width, activation_bytes = self.nope_dim + self.rope_dim, self.activation_bytes
        sizes = (self.heads, self.heads, width, activation_bytes, activation_bytes)
        return FusedAttention(*sizes, self.chosen_tokens, value_dim=self.value_dim)

    def cost(self, batch: Batch) -> Cost:
        return Cost(*(sum(parts) for parts in zip(*map(self._cost, batch.groups), strict=True)))

    def _cost(self, group: Group) -> Cost:
        """Work of one group, in its form."""
        absorbed, alone = is_absorbed(group, self.absorbed_tokens), Batch.of((group,))
        made = self.made.cost(alone)
        made = made._replace(kv_bytes=made.kv_bytes + alone.tokens * self.kv_bytes_per_token)
        return Cost(*(where(absorbed, a, b) for a, b in zip(self.absorbed.cost(alone), made, strict=True)))

    @property
    def live(self) -> Live:
        """Of the form that long passes take."""
        return (self.absorbed if self.absorbed_tokens == UNLIMITED else self.made).live


@final
@dataclass(frozen=True, slots=True)
class IndexScores(AbstractOp):
    r"""Scores by which a small attention picks the tokens that the large one sees [1]_.

    .. math:: F = 2 P h d,\quad Q = T h d\,b_a + (K + T) d\,b_{kv} / c + 2 P b_s

    with P pairs of a query and one of the cached entries, of which there is one for c tokens, h heads of d values and
    scores of :math:`b_s` bytes that are written and read. Scores are made piece by piece: few of them are alive.

    .. [1] DeepSeek-AI, "DeepSeek-V3.2", arXiv:2512.02556, section 2.1.
    """

    kind: ClassVar[Kind] = "attention"
    grows: ClassVar[bool] = True

    heads: float
    head_dim: float
    activation_bytes: float
    kv_bytes: float
    score_bytes: float = 4.0
    entry_tokens: float = 1.0
    """Tokens of an entry."""

    @property
    def kv_bytes_per_token(self) -> float:
        return self.head_dim * self.kv_bytes / self.entry_tokens

    def cost(self, batch: Batch) -> Cost:
        pairs = batch.causal_pairs() / self.entry_tokens
        queries = batch.tokens * self.heads * self.head_dim * self.activation_bytes
        return Cost(
            flops=2.0 * pairs * self.heads * self.head_dim,
            activation_bytes=queries + 2.0 * pairs * self.score_bytes,
            kv_bytes=(batch.kv_tokens() + batch.tokens) * self.kv_bytes_per_token,
        )

    @property
    def live(self) -> Live:
        width = (self.heads + 1.0) * self.head_dim
        return Live(width * self.activation_bytes)
