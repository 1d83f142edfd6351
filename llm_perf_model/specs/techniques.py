"""What engines do beyond one pass over a prompt and one token a step, as fields of a request."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from .images import Images
from .quantities import Natural, Whole

TOKENS: Final = ("prefix_len", "prefill_chunk")
"""Fields that count tokens."""


class Techniques(Images):
    """Techniques of a request; with their defaults none is used."""

    prefix_len: Annotated[Natural, Field(description="prompt tokens that are cached before the prefill")] = 0.0
    prefill_chunk: Annotated[
        Whole | None, Field(description="most tokens of a sequence that a pass of the prefill takes (default: all)")
    ] = None

    @property
    def techniques(self) -> frozenset[str]:
        """Fields of techniques that were given."""
        return frozenset(self.model_fields_set & Techniques.model_fields.keys())
