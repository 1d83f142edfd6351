"""Seconds of exchanges between ranks."""

from __future__ import annotations

from typing import cast

import numpy as np

from .numeric import maximum, minimum
from .ops.base import Cost, Kind
from .rates import Exchange, Machine, OneKernel
from .types import Num

EXCHANGES = frozenset({"all_reduce", "collective", "all_to_all", "transfer", "staged"})
"""Kinds of operators that are exchanges."""


def exchange_s(kind: Kind, cost: Cost, m: Machine) -> Num:
    """Seconds of one exchange, starts included; 0 for other operators."""
    if kind not in EXCHANGES:
        return 0.0
    if _steps(cost.network_steps):
        return _network_s(kind, cost, m)
    match kind:
        case "all_reduce" if m.one_kernel is not None:
            small = _payload_bytes(cost) <= m.one_kernel.max_bytes
            return cast("Num", small * one_kernel(cost, m.one_kernel) + (1.0 - small) * ring(cost, m.exchange))
        case "all_reduce" | "collective":
            return ring(cost, m.exchange)
        case "staged":
            return message_s(cost, m.exchange._replace(bytes_per_s=m.staged_bytes_per_s))
        case _:
            return message_s(cost, m.exchange)


def _network_s(kind: Kind, cost: Cost, m: Machine) -> Num:
    """Seconds of an exchange between nodes: of a ring of rings, or of a flat one where that is faster."""
    if kind in {"all_reduce", "collective"}:
        phases = 2.0 if kind == "all_reduce" else 1.0
        return minimum(nested_ring(cost, m), ring(flat(cost, phases), m.network))
    return maximum(message_s(cost, m.exchange), message_s(between_nodes(cost), m.network))  # both links work at once


def ring(cost: Cost, e: Exchange) -> Num:
    r"""A ring that cuts its bytes into pieces: :math:`t_0 + \sigma t_{hop} + y + 2\sqrt{c\,y}`, :math:`y = Q / B`.

    n pieces cost c each and overlap all but 1/n of the transfer, so :math:`n c + y/n` is least at
    :math:`2\sqrt{c\,y}`.
    """
    sent_s = cost.comm_bytes / e.bytes_per_s
    return cast("Num", e.start_s + cost.comm_steps * e.hop_s + sent_s + 2.0 * np.sqrt(e.chunk_s * sent_s))


def nested_ring(cost: Cost, m: Machine) -> Num:
    """A ring inside each node around one between nodes, which starts too."""
    across_s = ring(between_nodes(cost), m.network)
    return ring(cost, m.exchange) + across_s if _steps(cost.comm_steps) else across_s


def flat(cost: Cost, phases: float) -> Cost:
    r"""The same exchange as one ring of all ranks over the network: :math:`\phi \frac{p-1}{p} S` bytes.

    A ring of n nodes sends :math:`\phi \frac{n-1}{n} \frac{S}{a}` of them in :math:`\phi (n-1)` steps, where
    :math:`\phi` is 2 for an all-reduce and 1 for half of it.
    """
    inside, nodes = cost.comm_steps / phases + 1.0, cost.network_steps / phases + 1.0
    ranks, payload_bytes = inside * nodes, cost.network_bytes * inside * nodes / (phases * (nodes - 1.0))
    return Cost(comm_bytes=phases * (ranks - 1.0) / ranks * payload_bytes, comm_steps=phases * (ranks - 1.0))


def between_nodes(cost: Cost) -> Cost:
    """What an exchange sends over the network, as one over a single link."""
    return Cost(comm_bytes=cost.network_bytes, comm_steps=cost.network_steps)


def _steps(steps: Num) -> bool:
    """Whether there are any; an operator's steps are one number."""
    return float(np.max(steps)) > 0.0 if isinstance(steps, np.ndarray) else steps > 0.0


def message_s(cost: Cost, e: Exchange) -> Num:
    """Bytes that are sent at once; nothing starts where there are none."""
    if not _steps(cost.comm_steps):
        return 0.0
    return e.start_s + cost.comm_steps * e.hop_s + cost.comm_bytes / e.bytes_per_s


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
