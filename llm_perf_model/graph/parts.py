"""What every builder of nodes needs: model, engine, precision, ranks, and the nodes of plain kernels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from ..ops.base import Kind
from ..ops.dense import Linear
from ..ops.elementwise import Elementwise
from ..ops.latent import LatentProducts
from ..ops.moe import ExpertLinear
from ..ops.node import Node, Role
from ..specs.attention import CrossAttention, GroupedQueryAttention
from ..specs.engine import EngineSpec, Fusion, Passes, PassName
from ..specs.layout import LayoutSpec
from ..specs.model import ModelSpec
from ..specs.precision import PrecisionSpec

FLOAT32_BYTES = 4.0

NORM_TOUCHES = 3.0
"""A norm reads each value twice and writes it once."""


@dataclass(frozen=True, slots=True)
class Split:
    """What one rank has of each part of a model, and whom it exchanges with.

    Ranks are numbered so that those of `tp` lie side by side, then those of `cp`, of attention groups, of stages.
    """

    tp: float = 1.0
    """Ranks that share attention and dense feed-forwards."""
    tp_nodes: float = 1.0
    """Nodes over which they lie."""
    cp: float = 1.0
    """Ranks that share the tokens of each sequence."""
    cp_nodes: float = 1.0
    sharers: float = 1.0
    """Groups of `tp` ranks, each with tokens of its own, whose tokens meet in the experts."""
    ep: float = 1.0
    """Ranks over which experts are spread."""
    expert_tp: float = 1.0
    """Ranks that share each of them."""
    stage_nodes: float = 1.0
    """Nodes over which the ranks of a stage lie."""
    imbalance: float = 0.0
    """Tokens of the busiest expert rank over the mean; 0: what an even router leads to."""
    stages: float = 1.0
    crossings: float = 0.0
    """Boundaries between stages that lie between nodes."""
    shares_norms: bool = False
    """Whether norms and sums are shared by tokens among `tp` ranks."""

    @classmethod
    def of(cls, layout: LayoutSpec, node_ranks: int) -> Self:
        """That of a layout whose replica has so many ranks on each node."""
        own, context, stage = layout.tp, layout.tp * layout.cp, layout.stage_ranks
        inside = [math.gcd(ranks, node_ranks) for ranks in (own, context, stage)]
        nodes = -(-layout.replica_ranks // node_ranks)
        return cls(
            tp=float(own),
            tp_nodes=float(own // inside[0]),
            cp=float(layout.cp),
            cp_nodes=float(layout.cp * inside[0] // inside[1]),
            sharers=float(layout.sharers),
            ep=float(layout.ep),
            expert_tp=float(layout.expert_tp),
            stage_nodes=float(stage // inside[2]),
            imbalance=layout.expert_imbalance or 0.0,
            stages=float(layout.stages),
            crossings=float(min(nodes, layout.stages) - 1 if node_ranks % stage == 0 else layout.stages - 1),
            shares_norms=layout.sequence_parallel,
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """A model on one rank of a split, and how an engine and a precision run its kernels."""

    model: ModelSpec
    engine: EngineSpec
    precision: PrecisionSpec
    split: Split
    searches: bool
    """Whether sequences are beams of a search."""
    borrows: bool = False
    """Whether the token table is another stack's."""
    product_rate: Kind | None = None
    """Rate of the products of layers, where that is not their operator's own."""

    def mixing(self) -> Parts:
        """The builder of what mixes tokens, whose products may have a width of their own."""
        own = self.precision.attention
        return self if own is None else replace(self, precision=self.precision.of(own), product_rate="attention_gemm")

    def routed(self) -> Parts:
        """The builder of experts, whose products may have a width of their own."""
        return replace(self, precision=self.precision.of(self.precision.experts))

    @property
    def tp(self) -> float:
        """Ranks that share attention and dense feed-forwards."""
        return self.split.tp

    @property
    def token_share(self) -> float:
        """Share of the tokens that norms and sums see."""
        return 1.0 / self.split.tp if self.split.shares_norms else 1.0

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
        return None if self.precision.scheme == "plain" and self.product_rate is None else "wide_gemm"

    def product(
        self, name: str, role: Role, op: Linear | ExpertLinear | LatentProducts, visits: float = 1.0
    ) -> Iterator[Node]:
        """A product, after the pass that narrows its inputs where the precision needs one."""
        if self.precision.narrowing_pass:
            tensors = 1.0 + self.precision.read_bytes / self.precision.activation_bytes
            yield Node(f"{name}_narrowing", role, self.pass_over(visits * op.d_in, tensors))
        yield Node(name, role, op, rate=self.product_rate)

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
        op = self.norm(float(self.model.hidden), passes.tensors)
        return Node(name, "norm", op, count, passes.kernels, share=self.token_share)

    def passes(self, name: PassName, tensors: float, kernels: float = 1.0) -> Passes:
        """The engine's passes of a role, or those of one plain kernel."""
        return self.engine.passes.get(name) or Passes(tensors=tensors, kernels=kernels)

    def touches(self, name: PassName, touches: float) -> float:
        """Touches of a kernel with one block a row; passes that the engine lists take many values at a time."""
        return 0.0 if name in self.engine.passes else touches

    def heads(self, spec: GroupedQueryAttention | CrossAttention) -> tuple[float, float]:
        """Query and key heads of a rank, which keeps a copy where there are fewer key heads than ranks."""
        return spec.heads / self.tp, max(spec.kv_heads / self.tp, 1.0)
