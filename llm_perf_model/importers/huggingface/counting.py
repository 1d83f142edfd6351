"""What weights are counted with."""

from __future__ import annotations

from functools import cache

from ...specs.catalog import load
from ...specs.engine import EngineSpec
from ...specs.precision import PrecisionSpec


@cache
def plain() -> tuple[EngineSpec, PrecisionSpec]:
    """An engine and a precision to build operators with, which do not change how many weights they have."""
    return load(EngineSpec, "generic-fused"), load(PrecisionSpec, "w16a16")
