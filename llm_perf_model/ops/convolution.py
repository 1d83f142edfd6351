"""Convolutions, as products of patches with filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..numeric import ceil, minimum
from .base import AbstractOp, Cost, Kind, Live, Product
from .batch import Batch


@final
@dataclass(frozen=True, slots=True)
class Convolution(AbstractOp):
    r"""Filters over patches, an implicit product [1]_ for each of g groups of channels.

    .. math:: F = 2 T n\,\frac{c_{in}}{g} k\,c_{out},\quad
       Q = \frac{c_{in}}{g} k\,c_{out} b_w + T (\min(v_{in}, n k c_{in}) + n\,c_{out}) b_a

    with T samples, n positions of the output, k values of a filter's window and :math:`v_{in}` values of the input.
    `extra` counts weights beside the filters: biases, and scales and shifts of a norm.

    Filters of 3 x 3 that move by one may take Winograd's form [2]_, for m x m positions at once and groups of
    products for each of :math:`(m + 2)^2` transformed values.

    .. [1] S. Chetlur et al., "cuDNN: Efficient Primitives for Deep Learning", arXiv:1410.0759.
    .. [2] A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308.
    """

    kind: ClassVar[Kind] = "convolution"

    in_channels: float
    out_channels: float
    window: float
    positions: float
    in_values: float
    groups: float
    weight_bytes: float
    activation_bytes: float
    extra: float = 0.0
    position_rows: float = 1.0
    """Rows of the map of positions."""
    winograd: bool = False
    """Whether the filters are 3 x 3 and move by one."""

    @property
    def filters(self) -> float:
        """Weights of the filters."""
        return self.in_channels / self.groups * self.window * self.out_channels

    @property
    def parameters(self) -> float:
        return self.filters + self.extra

    @property
    def stored_weight_bytes(self) -> float:
        return self.parameters * self.weight_bytes

    def product(self, batch: Batch) -> Product:
        """The matrix products that the convolution is: one a group."""
        depth = self.in_channels / self.groups * self.window
        return Product(batch.tokens * self.positions, self.out_channels / self.groups, depth, self.groups)

    def winograd_product(self, batch: Batch, side: float) -> Product:
        """The products of transformed values for `side` x `side` positions at once."""
        tiles = ceil(self.position_rows / side) * ceil(self.positions / self.position_rows / side)
        values = (side + 2.0) ** 2
        groups = self.groups
        return Product(batch.tokens * tiles, self.out_channels / groups, self.in_channels / groups, groups * values)

    def cost(self, batch: Batch) -> Cost:
        inputs = minimum(self.in_values, self.positions * self.window * self.in_channels)  # long strides skip some
        outputs = self.positions * self.out_channels
        return Cost(
            flops=2.0 * batch.tokens * self.positions * self.filters,
            weight_bytes=self.stored_weight_bytes,
            activation_bytes=batch.tokens * (inputs + outputs) * self.activation_bytes,
        )

    @property
    def live(self) -> Live:
        return Live((self.in_values + self.positions * self.out_channels) * self.activation_bytes)
