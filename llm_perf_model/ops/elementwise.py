"""Passes over activations: norms, residual sums, activation functions, rotations, sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..types import Num
from .base import AbstractOp, Cost, Kind, Live
from .batch import Batch


@final
@dataclass(frozen=True, slots=True)
class Elementwise(AbstractOp):
    r"""A pass over tensors of T rows: :math:`Q = T w\,n\,b_a + p\,b_w`, :math:`F = T w f`.

    w is the width, n the tensors read and written, f the FLOPs a value (5 for a norm: mean, variance,
    scale), p the stored weights (a norm's scale and shift). T counts sequences where `last_only`.
    """

    kind: ClassVar[Kind] = "elementwise"

    width: float
    passes: float
    activation_bytes: float
    flops_per_value: float = 5.0
    weights: float = 0.0
    weight_bytes: float = 0.0
    moved_bytes: float = 0.0
    """Bytes read and written whatever the rows are: copies of weights."""
    last_only: bool = False
    touches: float = 0.0
    """Times that a kernel with one block a row touches each of its values; 0 where it takes many at a time."""

    @property
    def parameters(self) -> float:
        return self.weights

    @property
    def stored_weight_bytes(self) -> float:
        return self.weights * self.weight_bytes

    def rows(self, batch: Batch) -> Num:
        """Rows that the pass covers."""
        return batch.seqs if self.last_only else batch.tokens

    def cost(self, batch: Batch) -> Cost:
        values = self.rows(batch) * self.width
        return Cost(
            flops=self.flops_per_value * values,
            weight_bytes=self.stored_weight_bytes + self.moved_bytes,
            activation_bytes=self.passes * values * self.activation_bytes,
        )

    @property
    def live(self) -> Live:
        row_bytes = self.width * self.passes * self.activation_bytes
        return Live(sequence_bytes=row_bytes) if self.last_only else Live(row_bytes)
