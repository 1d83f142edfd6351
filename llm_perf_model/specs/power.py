"""What a GPU generation draws, as shares of its thermal design power."""

from __future__ import annotations

from .base import CoefficientSpec, Efficiency, NonNegative


class PowerSpec(CoefficientSpec):
    """What a device draws, as shares of its thermal design power.

    The file is named after the generation. A device draws `idle_fraction` whatever it does, `flops_fraction`
    more at its peak FLOP/s, `bytes_fraction` at its peak memory bandwidth and `link_fraction` at the rate of its
    links, and never more than its limit.
    """

    idle_fraction: Efficiency
    flops_fraction: NonNegative
    bytes_fraction: NonNegative
    link_fraction: NonNegative
