"""A precision: how weights, activations and cache are stored, and which unit multiplies them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import FileSpec, Positive
from .gpu import Peak

Scheme = Literal["plain", "int8_weights", "int4_weights", "int8", "fp8", "fp8_block"]
"""How a product meets its operands: as they are; weights widened on the way in (8 or 4 bits); both narrow."""


class PrecisionSpec(FileSpec):
    """Storage per value, and the peaks that may run the products, best first.

    A device that has none of `gemm_peaks` cannot run the precision. `weight_bytes` counts scales and
    zero points too; weights outside the layers' products may be wider.
    """

    weight_bytes: Positive
    other_weight_bytes: Positive | None = None
    """Bytes per weight of embeddings, norms and output head; None: as the layers' products."""
    activation_bytes: Positive
    kv_bytes: Positive
    gemm_peaks: Annotated[tuple[Peak, ...], Field(min_length=1)]
    wide_gemm_peaks: tuple[Peak, ...] = ()
    """Peaks that may run attention and the output head; empty: `gemm_peaks`."""
    convolution_peaks: tuple[Peak, ...] = ()
    """Peaks that may run convolutions; empty: `gemm_peaks`."""
    convolution_weight_bytes: Positive | None = None
    """Bytes per weight of a convolution; None: as other products."""
    convolution_scheme: Scheme = "plain"
    map_activation_bytes: Positive | None = None
    """Bytes per value of activations that have height and width; None: `activation_bytes`."""
    sample_bytes: Positive | None = None
    """Bytes per value of samples as they arrive; None: as the network keeps them."""
    scheme: Scheme = "plain"
    input_bytes: Positive | None = None
    """Bytes per value that a product reads of its inputs; None: `activation_bytes`."""
    kept_weight_bytes: Positive | None = None
    """Bytes per weight of a wider copy that is kept beside the one that products read."""
    narrowing_pass: bool = False
    """Whether inputs are narrowed by a pass of their own before each product."""

    @property
    def read_bytes(self) -> float:
        """Bytes per value that a product reads of its inputs."""
        return self.activation_bytes if self.input_bytes is None else self.input_bytes

    @property
    def map_bytes(self) -> float:
        """Bytes per value of activations that have height and width."""
        return self.activation_bytes if self.map_activation_bytes is None else self.map_activation_bytes

    @property
    def filter_bytes(self) -> float:
        """Bytes per weight of a convolution."""
        return self.weight_bytes if self.convolution_weight_bytes is None else self.convolution_weight_bytes

    @property
    def wide_bytes(self) -> float:
        """Bytes per weight outside the layers' products."""
        return self.weight_bytes if self.other_weight_bytes is None else self.other_weight_bytes
