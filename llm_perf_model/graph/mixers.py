"""What mixes the tokens of a sequence -> nodes."""

from __future__ import annotations

from collections.abc import Iterator

from ..ops.node import Node
from ..specs.attention import GroupedQueryAttention
from ..specs.mixer import Mixer
from .attention import attention
from .parts import Parts


def mixer(parts: Parts, spec: Mixer) -> Iterator[Node]:
    """The products and passes of what mixes tokens."""
    match spec:
        case GroupedQueryAttention():
            yield from attention(parts, spec)
        case _:
            raise NotImplementedError(spec.kind)
