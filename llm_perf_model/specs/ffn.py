"""Feed-forward blocks of a model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from .base import Block, Count

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "relu2"]


class PlainFfn(Block):
    """y = act(x W1) W2."""

    shared_fields: ClassVar = {"feed-forward width": "intermediate"}

    kind: Literal["plain"] = "plain"
    intermediate: Count
    activation: Activation
    bias: bool = False


class GatedFfn(Block):
    """y = (act(x W1) * x W3) W2."""

    shared_fields: ClassVar = {"feed-forward width": "intermediate"}

    kind: Literal["gated"] = "gated"
    intermediate: Count
    activation: Activation
    bias: bool = False


class MoeFfn(Block):
    """A router sends each token to `experts_per_token` of `experts` feed-forwards.

    Shared experts of total width `shared_intermediate` see every token.
    """

    shared_fields: ClassVar = {"feed-forward width": "intermediate", "width of shared experts": "shared_intermediate"}

    kind: Literal["moe"] = "moe"
    experts: Count
    experts_per_token: Count
    intermediate: Count
    """Width of one expert."""
    activation: Activation
    gated: bool = True
    """Whether an expert is a gated feed-forward or a plain one."""
    bias: bool = False
    """Whether experts have biases."""
    router_bias: bool = False
    latent: Count | None = None
    """Values to which tokens are narrowed before routed experts and from which they are widened after them; None: they
    are not."""
    shared_intermediate: Count | None = None
    shared_gate: bool = False
    """Whether a sigmoid of a product of the input scales what shared experts add."""

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token is {self.experts_per_token}, more than the {self.experts} experts")
        return self


Ffn = Annotated[PlainFfn | GatedFfn | MoeFfn, Field(discriminator="kind")]
