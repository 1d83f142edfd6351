"""Exchanges between ranks: what each sends, and in how many dependent steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..types import Num
from .base import AbstractOp, Cost, Kind, Live
from .batch import Batch


@final
@dataclass(frozen=True, slots=True)
class AllReduce(AbstractOp):
    r"""Sum of a tensor over p ranks by a ring: :math:`2\frac{p-1}{p} S` bytes in 2(p-1) steps [1]_.

    S is T rows of `width` values.

    .. [1] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication
       Operations in MPICH", IJHPCA 19(1), 2005.
    """

    kind: ClassVar[Kind] = "all_reduce"

    width: float
    ranks: float
    activation_bytes: float

    def cost(self, batch: Batch) -> Cost:
        payload_bytes = batch.tokens * self.width * self.activation_bytes
        return Cost(
            comm_bytes=2.0 * (self.ranks - 1.0) / self.ranks * payload_bytes,
            comm_steps=2.0 * (self.ranks - 1.0),
        )

    @property
    def live(self) -> Live:
        return Live(2.0 * self.width * self.activation_bytes)


@final
@dataclass(frozen=True, slots=True)
class AllGather(AbstractOp):
    r"""Each rank's share of `width` values a row to all ranks: :math:`\frac{p-1}{p} S` bytes in p-1 steps.

    Rows are sequences where `last_only`, else tokens.
    """

    kind: ClassVar[Kind] = "collective"

    width: float
    ranks: float
    activation_bytes: float
    last_only: bool = False

    def cost(self, batch: Batch) -> Cost:
        return Cost(
            comm_bytes=(self.ranks - 1.0) / self.ranks * self._payload_bytes(batch),
            comm_steps=self.ranks - 1.0,
        )

    @property
    def live(self) -> Live:
        row_bytes = 2.0 * self.width * self.activation_bytes
        return Live(sequence_bytes=row_bytes) if self.last_only else Live(row_bytes)

    def _payload_bytes(self, batch: Batch) -> Num:
        rows = batch.seqs if self.last_only else batch.tokens
        return rows * self.width * self.activation_bytes


@final
@dataclass(frozen=True, slots=True)
class Transfer(AbstractOp):
    r"""Activations from one stage to the next: :math:`(T w + A) b_a` bytes in one step.

    A counts the query-key pairs of an explicit attention mask that travels along (`with_mask`).
    """

    kind: ClassVar[Kind] = "transfer"
    grows: ClassVar[bool] = True

    width: float
    activation_bytes: float
    with_mask: bool = False

    def cost(self, batch: Batch) -> Cost:
        return Cost(comm_bytes=self._payload_bytes(batch), comm_steps=1.0)

    @property
    def live(self) -> Live:
        return Live(2.0 * self.width * self.activation_bytes, pair_bytes=2.0 * self.with_mask * self.activation_bytes)

    def _payload_bytes(self, batch: Batch) -> Num:
        mask = batch.all_pairs() if self.with_mask else 0.0
        return (batch.tokens * self.width + mask) * self.activation_bytes


@final
@dataclass(frozen=True, slots=True)
class CacheTransfer(AbstractOp):
    """A prompt's cache on its way to other devices: so many bytes a token and a sequence, those cached before too."""

    kind: ClassVar[Kind] = "transfer"
    grows: ClassVar[bool] = True

    token_bytes: float
    sequence_bytes: float

    def cost(self, batch: Batch) -> Cost:
        cached = batch.kv_tokens() * self.token_bytes + batch.seqs * self.sequence_bytes
        return Cost(comm_bytes=cached, comm_steps=1.0)

    @property
    def live(self) -> Live:
        return Live()
