"""Feed-forwards of which each token visits a few: mixtures of experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..numeric import power
from ..types import Num
from .base import AbstractOp, Cost, Kind, Live, Product
from .batch import Batch
from .router import Router


@final
@dataclass(frozen=True, slots=True)
class ExpertLinear(AbstractOp):
    r"""One product of every expert: a group of y = x W with W of shape (d_in, d_out) each.

    .. math:: F = 2 T k d_{in} d_{out},\quad Q = E_T d_{in} d_{out} b_w + T k (d_{in} b_i + d_{out} b_a),\quad
       E_T = E \left(1 - (1 - k/E)^T\right)

    with T tokens that visit k of E experts each. :math:`E_T` is the expected number of experts that at
    least one token visits under an even router: only their weights are read [1]_. Where `ranks` share the experts,
    a rank has its share of :math:`E_T`, and the busiest one :math:`\beta / p` of the rows.

    .. [1] S. Rajbhandari et al., "DeepSpeed-MoE", arXiv:2201.05596.
    """

    kind: ClassVar[Kind] = "expert_gemm"

    experts: float
    experts_per_token: float
    d_in: float
    d_out: float
    weight_bytes: float
    activation_bytes: float
    input_bytes: float
    bias: bool = False
    ranks: float = 1.0
    """Ranks over which whole experts are spread."""
    imbalance: float = 0.0
    """Rows of the busiest of them over the mean; 0: what an even router leads to."""
    inner: float = 0.0
    """Width of one expert on the rank, by which a library knows shapes that it has tuned; 0: none."""
    visited_share: float = 1.0
    """Experts that are visited, over those that an even router visits."""

    @property
    def router(self) -> Router:
        """How tokens spread over experts and ranks."""
        return Router(self.experts, self.experts_per_token, self.ranks, self.imbalance)

    @property
    def parameters(self) -> float:
        return self.router.kept * (self.d_in + self.bias) * self.d_out

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    def visited(self, batch: Batch) -> Num:
        """Expected number of the rank's experts that at least one token visits."""
        even = self.router.kept * (1.0 - power(1.0 - self.experts_per_token / self.experts, batch.tokens))
        return self.visited_share * even

    def rows(self, batch: Batch) -> Num:
        """Rows of all products of the busiest rank."""
        visits = batch.tokens * self.experts_per_token
        return visits if self.ranks == 1.0 else visits / self.ranks * self.router.imbalance(batch.tokens)

    def product(self, batch: Batch) -> Product:
        """The product of one visited expert, and how many there are."""
        visited = self.visited(batch)
        return Product(self.rows(batch) / visited, self.d_out, self.d_in, groups=visited)

    def cost(self, batch: Batch) -> Cost:
        rows = self.rows(batch)
        return Cost(
            flops=2.0 * rows * self.d_in * self.d_out,
            weight_bytes=self.visited(batch) * (self.d_in + self.bias) * self.d_out * self.weight_bytes,
            activation_bytes=rows * (self.d_in * self.input_bytes + self.d_out * self.activation_bytes),
        )

    @property
    def live(self) -> Live:
        rows = self.experts_per_token / self.ranks * max(self.imbalance, 1.0)
        return Live(rows * (self.d_in + self.d_out) * self.activation_bytes)
