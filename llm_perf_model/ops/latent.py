"""Attention over latent vectors, of which each head's keys and values are products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..numeric import where
from ..types import Mask, Num
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

    .. math:: F = 2 P h (n + d + v),\quad Q = T h (n + d + v)\,b_a + K (h (n + v) + d)\,b_a + T (r + d)\,b_{kv}

    over keys of n + d values and values of v made of the latent ones, and absorbed (`absorbed_tokens`):

    .. math:: F = 2 P h (2 r + d),\quad Q = T h (2 r + d)\,b_a + (K + T) (r + d)\,b_{kv}

    with P causal query-key pairs, T new tokens and K cached ones after the pass. A query sees at most `chosen` tokens.

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
    chosen: float = UNLIMITED

    @property
    def kv_bytes_per_token(self) -> float:
        return (self.kv_rank + self.rope_dim) * self.kv_bytes

    @property
    def attention_window(self) -> float:
        return self.chosen

    def cost(self, batch: Batch) -> Cost:
        flops: Num = 0.0
        activations: Num = 0.0
        kept: Num = 0.0
        made = self.nope_dim + self.rope_dim + self.value_dim
        latent = 2.0 * self.kv_rank + self.rope_dim
        keys_width = self.heads * (self.nope_dim + self.value_dim) + self.rope_dim
        for g in batch.groups:
            absorbed, keys = is_absorbed(g, self.absorbed_tokens), g.chosen_keys(self.chosen)
            width = where(absorbed, latent, made)
            flops = flops + 2.0 * g.seqs * g.causal_pairs(self.chosen) * self.heads * width
            read = where(absorbed, 0.0, keys * keys_width)
            activations = activations + g.seqs * (g.new * self.heads * width + read)
            kept = kept + g.seqs * (g.new + where(absorbed, keys, 0.0))
        return Cost(
            flops=flops,
            activation_bytes=activations * self.activation_bytes,
            kv_bytes=kept * self.kv_bytes_per_token,
        )

    @property
    def live(self) -> Live:
        width = self.heads * (self.nope_dim + self.rope_dim + self.value_dim)
        return Live((width + self.kv_rank + self.rope_dim) * self.activation_bytes)


@final
@dataclass(frozen=True, slots=True)
class IndexScores(AbstractOp):
    r"""Scores by which a small attention picks the tokens that the large one sees [1]_.

    .. math:: F = 2 P h d,\quad Q = T h d\,b_a + (K / c + T) d\,b_{kv} + P b_s

    with P pairs of a query and one of the cached entries, of which there is one for c tokens, h heads and d values.

    .. [1] DeepSeek-AI, "DeepSeek-V3.2", arXiv:2512.02556, section 2.1.
    """

    kind: ClassVar[Kind] = "attention"
    grows: ClassVar[bool] = True

    heads: float
    head_dim: float
    activation_bytes: float
    kv_bytes: float
    score_bytes: float = 4.0
    ratio: float = 1.0
    """Tokens of an entry."""

    @property
    def kv_bytes_per_token(self) -> float:
        return self.head_dim * self.kv_bytes / self.ratio

    def cost(self, batch: Batch) -> Cost:
        pairs = batch.causal_pairs() / self.ratio
        queries = batch.tokens * self.heads * self.head_dim * self.activation_bytes
        return Cost(
            flops=2.0 * pairs * self.heads * self.head_dim,
            activation_bytes=queries + 2.0 * pairs * self.score_bytes,
            kv_bytes=(batch.kv_tokens() + batch.tokens) * self.kv_bytes_per_token,
        )

    @property
    def live(self) -> Live:
        width = (self.heads + 1.0) * self.head_dim
        return Live(width * self.activation_bytes, pair_bytes=self.score_bytes / self.ratio)
