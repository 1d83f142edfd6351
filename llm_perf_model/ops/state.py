"""States of fixed size that the tokens of a sequence update, and the short convolutions before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..numeric import where
from ..types import Num
from .base import AbstractOp, Cost, Kind, Live
from .batch import Batch, Group


@final
@dataclass(frozen=True, slots=True)
class StateUpdate(AbstractOp):
    r"""Each of h heads keeps a matrix of k keys by v values, updates it by each token and reads it [1]_.

    A decode step updates it token by token, a longer pass by chunks of C tokens whose products are those of a small
    attention [2]_:

    .. math:: F_{step} = 2 u\,h k v,\quad F_{chunk} = 2 h (u\,k v + C\,(k + v))

    FLOPs a token, with u products of the state's size: it is written and read (2), and recalled before it is
    corrected (3). The state is read and written once a pass and sequence, :math:`Q = 2 S h k v\,b_s + T w\,b_a`, with
    w the `width` of what tokens bring and take. `weights` are those that decay and scale.

    .. [1] S. Yang et al., "Gated Delta Networks", arXiv:2412.06464.
    .. [2] T. Dao, A. Gu, "Transformers are SSMs", arXiv:2405.21060, section 6.
    """

    kind: ClassVar[Kind] = "attention"

    heads: float
    key_dim: float
    value_dim: float
    updates: float
    chunk_tokens: float
    width: float
    state_bytes: float
    activation_bytes: float
    weights: float = 0.0
    weight_bytes: float = 4.0

    @property
    def parameters(self) -> float:
        return self.weights

    @property
    def stored_weight_bytes(self) -> float:
        return self.weights * self.weight_bytes

    @property
    def sequence_bytes(self) -> float:
        return self.heads * self.key_dim * self.value_dim * self.state_bytes

    def _flops(self, group: Group) -> Num:
        """FLOPs of one sequence: the first token needs no chunk."""
        state = self.updates * self.key_dim * self.value_dim
        inner = where(group.new > 1.0, self.chunk_tokens * (self.key_dim + self.value_dim), 0.0)
        return 2.0 * group.new * self.heads * (state + inner)

    def cost(self, batch: Batch) -> Cost:
        return Cost(
            flops=sum(g.seqs * self._flops(g) for g in batch.groups),
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=batch.tokens * self.width * self.activation_bytes,
            kv_bytes=2.0 * batch.seqs * self.sequence_bytes,
        )

    @property
    def live(self) -> Live:
        return Live(self.width * self.activation_bytes)


@final
@dataclass(frozen=True, slots=True)
class ChannelConvolution(AbstractOp):
    r"""Each channel becomes a weighted sum of its last w tokens, :math:`F = 2 T c w,\ Q = 2 (T + S (w - 1)) c\,b_a`.

    The last w - 1 tokens of each of c channels are kept for the next pass.
    """

    kind: ClassVar[Kind] = "elementwise"

    channels: float
    window: float
    weight_bytes: float
    activation_bytes: float
    bias: bool = False

    @property
    def parameters(self) -> float:
        return self.channels * (self.window + self.bias)

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    @property
    def sequence_bytes(self) -> float:
        return self.channels * (self.window - 1.0) * self.activation_bytes

    def cost(self, batch: Batch) -> Cost:
        return Cost(
            flops=2.0 * batch.tokens * self.channels * self.window,
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=2.0 * batch.tokens * self.channels * self.activation_bytes,
            kv_bytes=2.0 * batch.seqs * self.sequence_bytes,
        )

    @property
    def live(self) -> Live:
        return Live(2.0 * self.channels * self.activation_bytes)
