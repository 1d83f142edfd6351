"""A precision: how weights, activations and cache are stored, and which unit multiplies them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field

from .base import EngineKind, FileSpec, Positive, Spec
from .gpu import Peak

Scheme = Literal[
    "plain", "int8_weights", "int4_weights", "fp8_weights", "fp4_weights", "int8", "fp8", "fp8_block", "fp4"
]
"""How a product meets its operands: as they are; weights widened on the way in; both narrow."""

CacheFormat = Literal["auto", "fp32", "fp16", "bf16", "fp8", "int8", "fp4"]
"""What keys and values are stored in; auto: what the precision states."""

CACHE_FORMATS: Final[tuple[CacheFormat, ...]] = get_args(CacheFormat)

CACHE_BYTES: Final[dict[CacheFormat, float]] = {
    "fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5625,
}  # fmt: skip
"""Bytes per cached value: 8-bit formats have a scale a tensor, 4-bit floats one byte of scale for 16 values."""


class Way(Spec):
    """A way to run products: the units that may, best first, and how they meet their operands."""

    gemm_peaks: Annotated[tuple[Peak, ...], Field(min_length=1)]
    scheme: Scheme = "plain"
    input_bytes: Positive | None = None
    """Bytes per value that a product reads of its inputs; None: `activation_bytes`."""
    narrowing_pass: bool = False
    """Whether inputs are narrowed by a pass of their own before each product."""


class Products(Way):
    """Products with weights of one width, and the ways to run them, best first.

    `weight_bytes` counts scales and zero points too.
    """

    weight_bytes: Positive
    fallbacks: tuple[Way, ...] = ()
    """Ways to run them on a device that has none of `gemm_peaks`, best first."""

    def way(self, peaks: Collection[Peak]) -> Self | None:
        """The products as a device with such units runs them; None: it cannot."""
        if any(peak in peaks for peak in self.gemm_peaks):
            return self
        way = next((way for way in self.fallbacks if any(peak in peaks for peak in way.gemm_peaks)), None)
        return None if way is None else self.model_copy(update={f: getattr(way, f) for f in Way.model_fields})

    @property
    def peaks(self) -> tuple[Peak, ...]:
        """Every unit that may run them."""
        return tuple(dict.fromkeys(peak for way in (self, *self.fallbacks) for peak in way.gemm_peaks))


class PrecisionSpec(FileSpec, Products):
    """Storage per value, and the ways to run the products of layers.

    A device that has none of their units cannot run the precision. Weights outside the layers' products may be
    wider; those of attention and of experts may have a width and ways of their own.
    """

    attention: Products | None = None
    """Products of attention, and of whatever else mixes tokens; None: as others."""
    experts: Products | None = None
    """Products of routed experts; None: as others."""
    other_weight_bytes: Positive | None = None
    """Bytes per weight of embeddings, norms and output head; None: as the layers' products."""
    embedding_weight_bytes: Positive | None = None
    """Bytes per weight of a token table that is not the output head too; None: as the output head."""
    activation_bytes: Positive
    kv_bytes: Positive
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
    kept_weight_bytes: Positive | None = None
    """Bytes per weight of a wider copy that is kept beside the one that products read."""
    offered_to: tuple[EngineKind, ...] | None = None
    """Kinds of engine to which it is offered where a wider one does not fit; None: all of them."""

    @property
    def own_products(self) -> dict[str, Products]:
        """Products with a width of their own, by the field that describes them."""
        own = {"attention": self.attention, "experts": self.experts}
        return {field: products for field, products in own.items() if products is not None}

    def of(self, own: Products | None) -> PrecisionSpec:
        """The precision of products with a width of their own; itself for None."""
        if own is None:
            return self
        return self.model_copy(update={field: getattr(own, field) for field in Products.model_fields})

    def on(self, peaks: Collection[Peak]) -> PrecisionSpec | None:
        """The precision as a device with such units runs it; None: it cannot."""
        found = self.way(peaks)
        ways = {name: products.way(peaks) for name, products in self.own_products.items()}
        if found is None or None in ways.values():
            return None
        return found.model_copy(update=ways) if ways else found

    @property
    def wanted_peaks(self) -> tuple[tuple[Peak, ...], ...]:
        """The units that may run products: all, those of attention, of experts."""
        return tuple(dict.fromkeys(products.peaks for products in (self, *self.own_products.values())))

    def with_cache(self, stored: CacheFormat) -> PrecisionSpec:
        """The precision with keys and values stored in a format."""
        return self if stored == "auto" else self.model_copy(update={"kv_bytes": CACHE_BYTES[stored]})

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

    @property
    def table_bytes(self) -> float:
        """Bytes per weight of a token table that is not the output head too."""
        return self.wide_bytes if self.embedding_weight_bytes is None else self.embedding_weight_bytes
