"""Energy of a phase, and how much longer it takes under a power limit."""

from __future__ import annotations

from .numeric import maximum, minimum
from .rates import Power
from .types import Num


def dynamic_j(p: Power, flops: Num, hbm_bytes: Num, comm_bytes: Num) -> Num:
    r"""Joules of one device beyond idling: :math:`e_F F + e_Q Q + e_L L`. Shape: broadcast."""
    return p.flop_j * flops + p.byte_j * hbm_bytes + p.link_byte_j * comm_bytes


def energy_j(p: Power, time_s: Num, work_j: Num) -> Num:
    r"""Joules of one device, :math:`\min(P_{idle}\,t + E_{dyn}, P_{limit}\,t)`. Shape: broadcast."""
    return minimum(p.idle_w * time_s + work_j, p.limit_w * time_s)


def delay_s(p: Power, time_s: Num, work_j: Num) -> Num:
    r"""Seconds by which a limit below the thermal design power prolongs a phase. Shape: broadcast.

    Rates are measured with the device at its design power :math:`P`, so a phase that draws
    :math:`P_0 = \min(P_{idle} + E_{dyn} / t, P)` slows down only where the limit is lower: what it draws
    beyond idling spreads over more time, :math:`t' = t\,(P_0 - P_{idle}) / (P_{limit} - P_{idle})`.
    """
    beyond_j = minimum(work_j, (p.design_w - p.idle_w) * time_s)
    return maximum(beyond_j / (p.limit_w - p.idle_w) - time_s, 0.0)
