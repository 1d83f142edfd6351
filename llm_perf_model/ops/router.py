"""How a router spreads tokens over the ranks that hold experts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import cast, final

import numpy as np

from ..numeric import ceil, maximum, minimum
from ..types import Num

FEWEST_TOKENS = 1e-9
"""What stands for none."""


@cache
def largest_of(count: float) -> float:
    r"""Expected largest of p normal numbers, :math:`z_p = \Phi^{-1}\left(\frac{p - 3/8}{p + 1/4}\right)` [1]_.

    .. [1] G. Blom, "Statistical Estimates and Transformed Beta-Variables", Wiley, 1958.
    """
    from statistics import NormalDist

    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


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
        return cast("float", ceil(self.experts / self.ranks))

    def imbalance(self, tokens: Num) -> Num:
        r"""Visits of the busiest rank over the mean.

        .. math:: 1 + z_p \sqrt{\frac{p\,(E - k)}{T k\,(E - 1)}}

        for T tokens whose router picks k of E experts at random. A rank's visits have the mean :math:`T k / p` and the
        variance :math:`T \frac{k}{p} (1 - \frac{1}{p}) \frac{E - k}{E - 1}` of draws without replacement. The largest
        of p independent numbers lies :math:`z_p` deviations above their mean; the visits of all ranks add up, so that
        two are correlated by :math:`-1 / (p - 1)`, which widens that by :math:`\sqrt{p / (p - 1)}`. No rank gets more
        than a visit of every token to each of its experts.
        """
        p, k, n = self.ranks, self.experts_per_token, self.experts
        if p == 1.0:
            return 1.0
        if self.given:
            return self.given
        deviation = np.sqrt(p * (n - k) / (k * max(n - 1.0, 1.0)) / maximum(tokens, FEWEST_TOKENS))
        return minimum(1.0 + largest_of(p) * deviation, min(k, self.kept) * p / k)

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
