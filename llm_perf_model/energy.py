"""Energy of an estimate."""

from __future__ import annotations

from .rates import Machine
from .types import Num


def tdp_energy_j(machine: Machine, ranks: float, time_s: Num) -> Num:
    """`ranks` devices at their thermal design power for the whole time: E = n P_tdp t, an upper bound."""
    return ranks * machine.tdp_w * time_s
