"""What mixes the tokens of a sequence: attention, or a state of fixed size that each token updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Tag

from .attention import CompressedAttention, GroupedQueryAttention, LatentAttention
from .base import Block, Count


class SelectiveState(Block):
    """Mamba: each of `inner` channels keeps `state` values that the token itself says how to update."""

    shared_fields: ClassVar = {"channels": "inner"}

    kind: Literal["mamba"] = "mamba"
    inner: Count
    state: Count
    conv_window: Count
    step_rank: Count
    """Values that the step sizes are made of."""
    bias: bool = False
    conv_bias: bool = True
    inner_norms: bool = False
    """Whether step sizes and the two vectors of the state are normalised."""


class HeadState(Block):
    """Mamba-2: heads of `head_dim` channels share a step size and, by group, the two vectors of the state."""

    shared_fields: ClassVar = {"heads": "heads"}
    copied_fields: ClassVar = {"groups": "groups"}

    kind: Literal["mamba2"] = "mamba2"
    heads: Count
    head_dim: Count
    state: Count
    groups: Count
    conv_window: Count
    bias: bool = False
    conv_bias: bool = True
    gated_norm: bool = True
    """Whether results are normalised behind their gate."""


class DeltaState(Block):
    """A gated delta net: a head keeps a matrix of keys by values and corrects it by what it would have recalled.

    `value_heads` share the keys of `key_heads`. Step sizes and decays are one a head, or (`decay_rank`) a decay for
    each key value, made of so many values.
    """

    shared_fields: ClassVar = {"heads of values": "value_heads", "heads of keys": "key_heads"}

    kind: Literal["delta_net"] = "delta_net"
    key_heads: Count
    value_heads: Count
    key_dim: Count
    value_dim: Count
    conv_window: Count
    decay_rank: Count | None = None
    gate_rank: Count | None = None
    """Values that the gate of the results is made of; None: it is made of the layer's input."""


class DecayState(Block):
    """Linear attention: a head keeps the sum of its keys times values, which decays at a fixed rate."""

    shared_fields: ClassVar = {"heads": "heads"}

    kind: Literal["linear"] = "linear"
    heads: Count
    head_dim: Count
    gated: bool = False
    """Whether results pass a gate made of the layer's input."""
    norm: bool = True


class ShortConvolution(Block):
    """A gated convolution over the last `conv_window` tokens of each channel."""

    shared_fields: ClassVar = {"channels": "inner"}

    kind: Literal["short_conv"] = "short_conv"
    inner: Count
    conv_window: Count
    bias: bool = False


def _kind(value: Any) -> str | None:
    """Attention that says nothing else is grouped-query attention."""
    return value.get("kind", "gqa") if isinstance(value, Mapping) else getattr(value, "kind", None)


Mixer = Annotated[
    Annotated[GroupedQueryAttention, Tag("gqa")]
    | Annotated[LatentAttention, Tag("mla")]
    | Annotated[CompressedAttention, Tag("compressed")]
    | Annotated[SelectiveState, Tag("mamba")]
    | Annotated[HeadState, Tag("mamba2")]
    | Annotated[DeltaState, Tag("delta_net")]
    | Annotated[DecayState, Tag("linear")]
    | Annotated[ShortConvolution, Tag("short_conv")],
    Discriminator(_kind),
]
"""What mixes the tokens of a sequence."""

MIXERS = frozenset({"gqa", "mla", "compressed", "mamba", "mamba2", "delta_net", "linear", "short_conv"})
"""Their kinds."""

State = SelectiveState | HeadState | DeltaState | DecayState | ShortConvolution
"""Mixers whose memory of a sequence does not grow with it."""
