"""Matrix products with weights, and table look-ups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from .base import AbstractOp, Cost, Kind, Live, Product
from .batch import Batch


@final
@dataclass(frozen=True, slots=True)
class Linear(AbstractOp):
    r"""y = x W (+ b) with W of shape (d_in, d_out).

    .. math:: F = 2 T d_{in} d_{out},\quad Q = (d_{in} d_{out} + d_{out}) b_w + T (d_{in} b_i + d_{out} b_a)

    with T rows (tokens, or sequences where `last_only`), F in FLOP, Q in bytes, b in bytes per value [1]_; both as
    often as there are `groups` of such products.
    `shared` marks weights that another operator already stores (a tied output head).

    .. [1] S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009.
    """

    kind: ClassVar[Kind] = "gemm"

    d_in: float
    d_out: float
    weight_bytes: float
    activation_bytes: float
    bias: bool = False
    last_only: bool = False
    shared: bool = False
    input_bytes: float = 0.0
    """Bytes per value of the inputs, where they are narrower than the activations."""
    groups: float = 1.0
    """Products side by side, each with inputs, weights and outputs of its own."""

    @property
    def read_bytes(self) -> float:
        """Bytes per value of the inputs."""
        return self.input_bytes or self.activation_bytes

    @property
    def parameters(self) -> float:
        return self.groups * (self.bias * self.d_out + (0.0 if self.shared else self.d_in * self.d_out))

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    def product(self, batch: Batch) -> Product:
        """The matrix product that the operator is."""
        return Product(batch.seqs if self.last_only else batch.tokens, self.d_out, self.d_in, self.groups)

    def cost(self, batch: Batch) -> Cost:
        rows = self.groups * (batch.seqs if self.last_only else batch.tokens)
        return Cost(
            flops=2.0 * rows * self.d_in * self.d_out,
            weight_bytes=self.groups * (self.d_in + self.bias) * self.d_out * self.weight_bytes,
            activation_bytes=rows * (self.d_in * self.read_bytes + self.d_out * self.activation_bytes),
        )

    @property
    def live(self) -> Live:
        inputs, outputs = (self.groups * width * self.activation_bytes for width in (self.d_in, self.d_out))
        return Live(inputs, outputs) if self.last_only else Live(inputs + outputs)


@final
@dataclass(frozen=True, slots=True)
class Embedding(AbstractOp):
    r"""Rows of a token table and of tables beside it: a gather, :math:`Q = T h (t b_w + b_a)`.

    Each of `ranks` devices stores 1/ranks of the token table (`rows` of it) and finds that share of
    the tokens in it; `side_rows` are the rows of each further table (learned positions, token types),
    and t counts the tables read for a token: :math:`1/ranks` and 1 for each further one. A `shared` token
    table is stored by another operator.
    """

    kind: ClassVar[Kind] = "elementwise"

    rows: float
    side_rows: tuple[float, ...]
    hidden: float
    ranks: float
    weight_bytes: float
    activation_bytes: float
    shared: bool = False

    @property
    def parameters(self) -> float:
        return (sum(self.side_rows) + (0.0 if self.shared else self.rows)) * self.hidden

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    def cost(self, batch: Batch) -> Cost:
        values = batch.tokens * self.hidden
        tables = 1.0 / self.ranks + len(self.side_rows)
        return Cost(weight_bytes=values * tables * self.weight_bytes, activation_bytes=values * self.activation_bytes)

    @property
    def live(self) -> Live:
        return Live(self.hidden * self.activation_bytes)
