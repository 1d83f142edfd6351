"""Why a record has no estimate."""

from __future__ import annotations

from ..errors import LlmPerfModelError


class UnmappableError(LlmPerfModelError):
    """A record asks for something that the model does not cover."""
