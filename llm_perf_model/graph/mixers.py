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
            return attention(parts, spec)
        case LatentAttention():
            return latent_attention(parts, spec)
        case CompressedAttention():
            return compressed_attention(parts, spec)
        case SelectiveState():
            return selective_state(parts, spec)
        case HeadState():
            return head_state(parts, spec)
        case DeltaState():
            return delta_state(parts, spec)
        case DecayState():
            return decay_state(parts, spec)
        case ShortConvolution():
            return short_convolution(parts, spec)
        case never:
            assert_never(never)
