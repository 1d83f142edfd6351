"""What every builder of nodes needs: model, engine, precision, ranks, and the nodes of plain kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..ops.base import Kind
from ..ops.dense import Linear
from ..ops.elementwise import Elementwise
from ..ops.latent import LatentProducts
from ..ops.moe import ExpertLinear
from ..ops.node import Node, Role
from ..specs.attention import CrossAttention, GroupedQueryAttention
from ..specs.engine import EngineSpec, Fusion, Passes, PassName
from ..specs.model import ModelSpec
from ..specs.precision import PrecisionSpec

FLOAT32_BYTES = 4.0

NORM_TOUCHES = 3.0
"""A norm reads each value twice and writes it once."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A model on one of `tp` ranks of `stages` stages, and how an engine and a precision run its kernels."""

    model: ModelSpec
    engine: EngineSpec
    precision: PrecisionSpec
    tp: float
    stages: float
    searches: bool
    """Whether sequences are beams of a search."""
    borrows: bool = False
    """Whether the token table is another stack's."""

    def fuses(self, fusion: Fusion) -> bool:
        return fusion in self.engine.fused

    def linear(self, d_in: float, d_out: float, bias: bool) -> Linear:
        p = self.precision
        return Linear(d_in, d_out, p.weight_bytes, p.activation_bytes, bias, input_bytes=p.read_bytes)

    def wide(self, op: Linear) -> Linear:
        """The same product with weights that a narrow precision leaves wide."""
        return replace(op, weight_bytes=self.precision.wide_bytes, input_bytes=0.0)

    def wide_rate(self) -> Kind | None:
        """Rate of products that a narrow precision leaves wide."""
        return None if self.precision.scheme == "plain" else "wide_gemm"

    def product(
        self, name: str, role: Role, op: Linear | ExpertLinear | LatentProducts, visits: float = 1.0
    ) -> Iterator[Node]:
        """A product, after the pass that narrows its inputs where the precision needs one."""
        if self.precision.narrowing_pass:
            tensors = 1.0 + self.precision.read_bytes / self.precision.activation_bytes
            yield Node(f"{name}_narrowing", role, self.pass_over(visits * op.d_in, tensors))
        yield Node(name, role, op)

    def projection(self, name: str, d_in: float, d_out: float, bias: bool) -> Iterator[Node]:
        """A product of attention, and the pass that adds its bias."""
        yield from self.product(name, "attention", self.linear(d_in, d_out, bias))
        if bias and not self.fuses("bias"):
            yield Node(f"{name}_bias", "attention", self.pass_over(d_out, passes=2.0))

    def grouped(self, name: str, op: Linear, groups: float) -> Iterator[Node]:
        """`groups` products of attention side by side."""
        yield from self.product(name, "attention", replace(op, groups=groups), visits=groups)

    def pass_over(self, width: float, passes: float, touches: float = 0.0) -> Elementwise:
        return Elementwise(width, passes, self.precision.activation_bytes, touches=touches)

    def norm(self, width: float, passes: float) -> Elementwise:
        vectors = 2.0 if self.model.norm == "layernorm" and self.model.norm_bias else 1.0
        p = self.precision
        weights = vectors * width
        return Elementwise(
            width, passes, p.activation_bytes, weights=weights, weight_bytes=p.wide_bytes, touches=NORM_TOUCHES
        )

    def norm_node(self, name: str, count: float) -> Node:
        passes = self.passes(self.model.norm, tensors=2.0)
        return Node(name, "norm", self.norm(float(self.model.hidden), passes.tensors), count, passes.kernels)

    def passes(self, name: PassName, tensors: float, kernels: float = 1.0) -> Passes:
        """The engine's passes of a role, or those of one plain kernel."""
        return self.engine.passes.get(name) or Passes(tensors=tensors, kernels=kernels)

    def touches(self, name: PassName, touches: float) -> float:
        """Touches of a kernel with one block a row; passes that the engine lists take many values at a time."""
        return 0.0 if name in self.engine.passes else touches

    def heads(self, spec: GroupedQueryAttention | CrossAttention) -> tuple[float, float]:
        """Query and key heads of a rank, which keeps a copy where there are fewer key heads than ranks."""
        return spec.heads / self.tp, max(spec.kv_heads / self.tp, 1.0)
