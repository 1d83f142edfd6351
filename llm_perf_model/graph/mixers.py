"""What mixes the tokens of a sequence -> nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from ..ops.node import Node
from ..specs.attention import CompressedAttention, GroupedQueryAttention, LatentAttention
from ..specs.mixer import DecayState, DeltaState, HeadState, Mixer, SelectiveState, ShortConvolution
from .attention import attention
from .latent import compressed_attention, latent_attention
from .parts import Parts
from .states import decay_state, delta_state, head_state, selective_state, short_convolution


def mixer(parts: Parts, spec: Mixer) -> Iterator[Node]:
    """The products and passes of what mixes tokens."""
    match spec:
        case GroupedQueryAttention():
            nodes = attention(parts, spec)
        case LatentAttention():
            nodes = latent_attention(parts, spec)
        case CompressedAttention():
            nodes = compressed_attention(parts, spec)
        case SelectiveState():
            nodes = selective_state(parts, spec)
        case HeadState():
            nodes = head_state(parts, spec)
        case DeltaState():
            nodes = delta_state(parts, spec)
        case DecayState():
            nodes = decay_state(parts, spec)
        case ShortConvolution():
            nodes = short_convolution(parts, spec)
        case never:
            assert_never(never)
    return nodes
