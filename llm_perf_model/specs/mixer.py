"""What mixes the tokens of a sequence: attention, or a state of fixed size that each token updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from .attention import CompressedAttention, GroupedQueryAttention, LatentAttention
from .base import Count, Spec


class SelectiveState(Spec):
    """Mamba: each of `inner` channels keeps `state` values that the token itself says how to update."""

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

    @property
    def shared(self) -> dict[str, int]:
        """What tensor-parallel ranks share evenly."""
        return {"channels": self.inner}

    @property
    def copied(self) -> dict[str, int]:
        """What they share evenly, or keep copies of where there are more ranks."""
        return {}


class HeadState(Spec):
    """Mamba-2: heads of `head_dim` channels share a step size and, by group, the two vectors of the state."""

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

    @property
    def shared(self) -> dict[str, int]:
        """What tensor-parallel ranks share evenly."""
        return {"heads": self.heads}

    @property
    def copied(self) -> dict[str, int]:
        """What they share evenly, or keep copies of where there are more ranks."""
        return {"groups": self.groups}


class DeltaState(Spec):
    """A gated delta net: a head keeps a matrix of keys by values and corrects it by what it would have recalled.

    `value_heads` share the keys of `key_heads`. Step sizes and decays are one a head, or (`decay_rank`) a decay for
    each key value, made of so many values.
    """

    kind: Literal["delta_net"] = "delta_net"
    key_heads: Count
    value_heads: Count
    key_dim: Count
    value_dim: Count
    conv_window: Count
    decay_rank: Count | None = None
    gate_rank: Count | None = None
    """Values that the gate of the results is made of; None: it is made of the layer's input."""

    @property
    def shared(self) -> dict[str, int]:
        """What tensor-parallel ranks share evenly."""
        return {"heads of values": self.value_heads, "heads of keys": self.key_heads}

    @property
    def copied(self) -> dict[str, int]:
        """What they share evenly, or keep copies of where there are more ranks."""
        return {}


class DecayState(Spec):
    """Linear attention: a head keeps the sum of its keys times values, which decays at a fixed rate."""

    kind: Literal["linear"] = "linear"
    heads: Count
    head_dim: Count
    gated: bool = False
    """Whether results pass a gate made of the layer's input."""
    norm: bool = True

    @property
    def shared(self) -> dict[str, int]:
        """What tensor-parallel ranks share evenly."""
        return {"heads": self.heads}

    @property
    def copied(self) -> dict[str, int]:
        """What they share evenly, or keep copies of where there are more ranks."""
        return {}


class ShortConvolution(Spec):
    """A gated convolution over the last `conv_window` tokens of each channel."""

    kind: Literal["short_conv"] = "short_conv"
    inner: Count
    conv_window: Count
    bias: bool = False

    @property
    def shared(self) -> dict[str, int]:
        """What tensor-parallel ranks share evenly."""
        return {"channels": self.inner}

    @property
    def copied(self) -> dict[str, int]:
        """What they share evenly, or keep copies of where there are more ranks."""
        return {}


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
