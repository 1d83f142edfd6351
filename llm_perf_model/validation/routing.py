"""How tokens fall on the experts of one rank in the records that time experts.

The source draws the load of each expert from a power law, scales the loads to the visits of the tokens, and times the
rank with most of them [1]_. No expert can have more visits than there are tokens; what is cut off there, and what is
lost or won by rounding, goes to other experts: versions of the collector differ in which.

.. [1] github:ai-dynamo/aiconfigurator collector/helper.py.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np

from .unmappable import UnmappableError

DRAWS: Final = 8
"""Routers that are drawn, from one seed: their mean stands for the five that the source draws."""

DENSE: Final = (1.0, 0.8)
"""Ends of the power law where there are more visits than experts; the upper one times the tokens."""

SPARSE: Final = (0.01, 2.0)
"""Ends of the power law where there are not."""

RANK_BY_RANK: Final = "rank by rank"
"""Visits to move go to the ranks in turn, to the least loaded expert of each; else to the least loaded of all."""


class Routed(NamedTuple):
    """What the timed rank has: experts that are visited, and visits."""

    visited: float
    visits: float


@cache
def routed(router: str, tokens: int, experts: int, visits: int, ranks: int, moved: str = "") -> Routed:
    """The expected load of the timed rank under a router that a record names.

    Raises:
        UnmappableError: the router is none of the source's, or ranks do not share the experts evenly.
    """
    power = re.fullmatch(r"power_law_([\d.]+)", router)
    if power is None and router != "balanced":
        raise UnmappableError(f"router '{router}' is not modelled")
    if experts % ranks:
        raise UnmappableError(f"{ranks} ranks do not share {experts} experts evenly")
    if power is None:
        drawn = [_balanced(tokens, experts, visits)[: experts // ranks]]
    else:
        random = np.random.default_rng(0)
        drawn = [_drawn(random, float(power[1]), tokens, experts, visits, ranks, moved) for _ in range(DRAWS)]
    return Routed(float(np.mean([np.sum(loads > 0) for loads in drawn])), float(np.mean(drawn)) * drawn[0].size)


def _balanced(tokens: int, experts: int, visits: int) -> Any:
    """Visits of each expert where those of a token are spread over all experts, and tokens follow one another."""
    stride = math.ceil(experts / visits)
    step = 1.0 if tokens >= stride else stride / tokens
    chosen = (np.arange(tokens)[:, None] * step + np.arange(visits) * stride) % experts
    return np.bincount(chosen.astype(np.int64).ravel(), minlength=experts)


def _drawn(random: Any, alpha: float, tokens: int, experts: int, visits: int, ranks: int, moved: str) -> Any:
    """Visits of the experts of the busiest rank, in one draw."""
    total = tokens * visits
    low, high = (DENSE[0], DENSE[1] * tokens) if total > experts else SPARSE
    shares = _power_law(random.random(experts), alpha, low, high)
    loads = np.rint(shares / shares.sum() * total).astype(np.int64)
    cut = int(np.maximum(loads - tokens, 0).sum())
    loads = np.minimum(loads, tokens).reshape(ranks, -1)
    loads = _added(loads, cut, tokens, moved, whole=True)
    missing = total - int(loads.sum())
    loads = _added(loads, missing, tokens, moved) if missing > 0 else _removed(loads, -missing, tokens, moved)
    return loads[loads.sum(axis=1).argmax()]


def _power_law(uniform: Any, alpha: float, low: float, high: float) -> Any:
    r"""Draws from a density :math:`x^{-\alpha}` between two ends, by the inverse of its distribution."""
    rest = 1.0 - alpha
    if rest == 0.0:
        return low * (high / low) ** uniform
    return ((high**rest - low**rest) * uniform + low**rest) ** (1.0 / rest)


def _added(loads: Any, amount: int, limit: int, moved: str, whole: bool = False) -> Any:
    """Loads with visits added below the limit; `whole` ones fill one expert after the other."""
    if moved == RANK_BY_RANK:
        return _in_turn(loads, amount, limit)
    flat = loads.reshape(-1).copy()
    order = np.argsort(-flat, kind="stable")[::-1]
    room = (limit - flat)[order]
    if not whole:
        room = np.minimum(room, math.ceil(amount / flat.size))
    flat[order] += np.clip(amount - np.concatenate(([0], np.cumsum(room)[:-1])), 0, room)
    return flat.reshape(loads.shape)


def _removed(loads: Any, amount: int, limit: int, moved: str) -> Any:
    """Loads with visits taken away: those left are what adding to the free places leaves free."""
    if moved == RANK_BY_RANK:
        return limit - _in_turn(limit - loads, amount, limit)
    flat = loads.reshape(-1).copy()
    order = np.argsort(-flat, kind="stable")[::-1]
    for index in range(amount):
        least = order[index % flat.size]
        flat[least if flat[least] > 0 else flat.argmax()] -= 1
    return flat.reshape(loads.shape)


def _in_turn(loads: Any, amount: int, limit: int) -> Any:
    """Loads with visits added to each rank in turn, to the least loaded of its experts."""
    loads = loads.copy()
    while amount > 0:
        room = limit * loads.shape[1] - loads.sum(axis=1)
        open_ranks = np.flatnonzero(room)
        shares = np.zeros(loads.shape[0], dtype=np.int64)
        shares[open_ranks] = amount // open_ranks.size
        shares[open_ranks[: amount % open_ranks.size]] += 1
        shares = np.minimum(shares, room)
        for rank in np.flatnonzero(shares):
            loads[rank] = _levelled(loads[rank], int(shares[rank]))
        amount -= int(shares.sum())
    return loads


def _levelled(loads: Any, amount: int) -> Any:
    """Loads of one rank after visits have gone to the least loaded expert, one by one."""
    low, high = int(loads.min()), int(loads.min()) + amount
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if np.maximum(level - loads, 0).sum() <= amount else (low, level - 1)
    raised = np.maximum(loads, low)
    raised[np.flatnonzero(raised == low)[: amount - int((raised - loads).sum())]] += 1
    return raised
