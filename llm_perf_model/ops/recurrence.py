"""Recurrent layers: steps that wait for each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, final

from .base import AbstractOp, Cost, Kind, Live, Product
from .batch import Batch

RecurrentKind = Literal["lstm", "gru", "rnn"]


class Cell(NamedTuple):
    """A step of a recurrent layer: its gates, and the tensors that its pass reads and writes."""

    gates: float
    tensors: float


CELLS: dict[RecurrentKind, Cell] = {
    "lstm": Cell(gates=4.0, tensors=4.0 + 3.0),
    "gru": Cell(gates=3.0, tensors=4.0 + 2.0),
    "rnn": Cell(gates=1.0, tensors=1.0 + 1.0),
}
"""Gates are read and the output is written; a memory reads and writes its cell too. A unit [1]_ reads the output before
and one gate twice, since its reset gate scales what comes from the step before and not what comes from the input.

.. [1] PyTorch, "GRU", https://pytorch.org/docs/stable/generated/torch.nn.GRU.html
"""

STEP_KERNELS = 2.0
"""A product, then a pass over the gates."""


@final
@dataclass(frozen=True, slots=True)
class Recurrence(AbstractOp):
    r"""s steps of a layer of H units, each a product of the output before with the weights of g gates, and a cell.

    .. math:: F = 2 T s g H^2,\quad Q = s (g H^2 b_w + T v H b_a)

    with T sequences and v `tensors` of H values that a step reads and writes: gates, states, outputs [1]_. Weights
    are read anew in each step; `extra` are those beside them, biases.

    .. [1] J. Appleyard et al., "Optimizing Performance of Recurrent Neural Networks on GPUs", arXiv:1604.01946.
    """

    kind: ClassVar[Kind] = "gemm"

    hidden: float
    gates: float
    steps: float
    tensors: float
    weight_bytes: float
    activation_bytes: float
    extra: float = 0.0

    @property
    def kernels(self) -> float:
        """Kernels of all steps."""
        return STEP_KERNELS * self.steps

    @property
    def parameters(self) -> float:
        return self.gates * self.hidden**2 + self.extra

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    def product(self, batch: Batch) -> Product:
        """The matrix product of one step."""
        return Product(batch.tokens, self.gates * self.hidden, self.hidden)

    def cost(self, batch: Batch) -> Cost:
        values = batch.tokens * self.tensors * self.hidden
        return Cost(
            flops=2.0 * batch.tokens * self.steps * self.gates * self.hidden**2,
            weight_bytes=(self.steps * self.gates * self.hidden**2 + self.extra) * self.weight_bytes,
            activation_bytes=self.steps * values * self.activation_bytes,
        )

    @property
    def live(self) -> Live:
        """Tensors of one step, beside the gates that wait for the other steps and the outputs that they leave."""
        values = self.tensors + (self.steps - 1.0) * (self.gates + 1.0)
        return Live(values * self.hidden * self.activation_bytes)
