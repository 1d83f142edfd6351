"""Feed-forward blocks of a model."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Count, Spec

Activation = Literal["relu", "gelu", "gelu_tanh", "silu", "relu2"]


class PlainFfn(Spec):
    """y = act(x W1) W2."""

    kind: Literal["plain"] = "plain"
    intermediate: Count
    activation: Activation
    bias: bool = False


class GatedFfn(Spec):
    """y = (act(x W1) * x W3) W2."""

    kind: Literal["gated"] = "gated"
    intermediate: Count
    activation: Activation
    bias: bool = False


class MoeFfn(Spec):
    """A router sends each token to `experts_per_token` of `experts` gated feed-forwards.

    A shared expert of width `shared_intermediate` sees every token.
    """

    kind: Literal["moe"] = "moe"
    experts: Count
    experts_per_token: Count
    intermediate: Count
    """Width of one expert."""
    activation: Activation
    shared_intermediate: Count | None = None

    @model_validator(mode="after")
    def _enough_experts(self) -> Self:
        if self.experts_per_token > self.experts:
            raise ValueError(f"experts_per_token is {self.experts_per_token}, more than the {self.experts} experts")
        return self


Ffn = Annotated[PlainFfn | GatedFfn | MoeFfn, Field(discriminator="kind")]
