"""How a router spreads tokens over the ranks that hold experts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from ..numeric import maximum, minimum
from ..types import Num

FEWEST_TOKENS = 1e-9
"""What stands for none."""


@final
@dataclass(frozen=True, slots=True)
class Router:
    """Each token visits `experts_per_token` of `experts`, which `ranks` share evenly.

    `given` is the imbalance where it is known, 0 where it is that of an even router.
    """

    experts: float
    experts_per_token: float
    ranks: float = 1.0
    given: float = 0.0

    @property
    def kept(self) -> float:
        """Experts of the fullest rank."""
        return float(math.ceil(self.experts / self.ranks))

    def imbalance(self, tokens: Num) -> Num:
        r"""Visits of the busiest rank over the mean.

        .. math:: 1 + \sqrt{\frac{2 \ln p\,(p - 1)\,(E - k)}{T k\,(E - 1)}}

        for T tokens whose router picks k of E experts at random: a rank's visits have the mean :math:`T k / p` and the
        variance :math:`T \frac{k}{p} (1 - \frac{1}{p}) \frac{E - k}{E - 1}` of draws without replacement, and the
        largest of p such numbers lies :math:`\sqrt{2 \ln p}` deviations above their mean [1]_. No rank gets more than
        a visit of every token to each of its experts.

        .. [1] M. Raab, A. Steger, "Balls into Bins: A Simple and Tight Analysis", RANDOM 1998.
        """
        p, k, n = self.ranks, self.experts_per_token, self.experts
        if p == 1.0:
            return 1.0
        if self.given:
            return self.given
        spread = 2.0 * math.log(p) * (p - 1.0) * (n - k) / (k * max(n - 1.0, 1.0))
        most = min(k, self.kept) * p / k
        return minimum(1.0 + np.sqrt(spread / maximum(tokens, FEWEST_TOKENS)), most)

    def holders(self, groups: float) -> float:
        r"""Expected number of `groups` of equal shares of the experts that a token visits.

        .. math:: g \left(1 - \binom{E - E/g}{k} / \binom{E}{k}\right)
        """
        if groups == 1.0:
            return 1.0
        others, missed = self.experts - self.experts / groups, 1.0
        for pick in range(int(self.experts_per_token)):
            missed *= max(others - pick, 0.0) / (self.experts - pick)
        return groups * (1.0 - missed)
