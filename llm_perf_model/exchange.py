"""Seconds of exchanges between ranks."""

from __future__ import annotations

from typing import cast

import numpy as np

from .numeric import minimum
from .ops.base import Cost, Kind
from .rates import Exchange, Machine, OneKernel
from .types import Num

EXCHANGES = frozenset({"all_reduce", "collective", "transfer", "staged"})
"""Kinds of operators that are exchanges."""


def exchange_s(kind: Kind, cost: Cost, m: Machine) -> Num:
    """Seconds of one exchange, starts included; 0 for other operators."""
    match kind:
        case "all_reduce" if m.one_kernel is not None:
            small = _payload_bytes(cost) <= m.one_kernel.max_bytes
            return cast("Num", small * one_kernel(cost, m.one_kernel) + (1.0 - small) * ring(cost, m.exchange))
        case "all_reduce" | "collective":
            return ring(cost, m.exchange)
        case "transfer":
            return m.exchange.start_s + cost.comm_steps * m.exchange.hop_s + cost.comm_bytes / m.exchange.bytes_per_s
        case "staged":
            return m.exchange.start_s + cost.comm_steps * m.exchange.hop_s + cost.comm_bytes / m.staged_bytes_per_s
        case _:
            return 0.0


def ring(cost: Cost, e: Exchange) -> Num:
    r"""A ring that cuts its bytes into pieces: :math:`t_0 + \sigma t_{hop} + y + 2\sqrt{c\,y}`, :math:`y = Q / B`.

    n pieces cost c each and overlap all but 1/n of the transfer, so :math:`n c + y/n` is least at
    :math:`2\sqrt{c\,y}`.
    """
    sent_s = cost.comm_bytes / e.bytes_per_s
    return cast("Num", e.start_s + cost.comm_steps * e.hop_s + sent_s + 2.0 * np.sqrt(e.chunk_s * sent_s))


def one_kernel(cost: Cost, o: OneKernel) -> Num:
    r"""An all-reduce in one kernel, in one shot or in two, whichever is faster.

    .. math:: t = t_0 + (p-1) t_{rank} + \min\left( \frac{(p-1) S}{B},
       (p-1) t_{barrier} + \frac{2 (p-1)}{p} \frac{S}{B} \right)
    """
    others = cost.comm_steps / 2.0
    once_s = others * _payload_bytes(cost) / o.bytes_per_s
    twice_s = others * o.barrier_s + cost.comm_bytes / o.bytes_per_s
    return o.start_s + others * o.rank_s + minimum(once_s, twice_s)


def _payload_bytes(cost: Cost) -> Num:
    """Bytes of the tensor that a ring reduces: it sends 2 (p-1) / p of them in 2 (p-1) steps."""
    return cost.comm_bytes * (cost.comm_steps + 2.0) / (2.0 * cost.comm_steps)
