r"""Queues of replicas in closed form: how many sequences share steps, and how long requests wait.

Sequences in a replica are a birth-death chain: requests arrive at a rate r, and n of them complete at the rate
:math:`\mu_n` of steps that all of them share [1]_. While none waits, the distribution

.. math:: \pi_n = \pi_0 \prod_{i=1}^{n} \frac{r}{\mu_{\min(i, N)}}

holds for any distribution of lengths, as the sequences share the steps equally [2]_. N is the largest batch; beyond
it requests wait in line, with the mean wait scaled by variations of arrivals and of work [3]_.

.. [1] L. Kleinrock, "Queueing Systems", vol. 1, Wiley 1975, eq. 3.11.
.. [2] J. W. Cohen, "The multiple phase service network with generalized processor sharing", Acta Informatica 12
   (1979), https://doi.org/10.1007/BF00264581.
.. [3] J. F. C. Kingman, "The single server queue in heavy traffic", Math. Proc. Camb. Phil. Soc. 57 (1961),
   https://doi.org/10.1017/S0305004100036094; for several servers A. O. Allen, "Probability, Statistics, and Queueing
   Theory", Academic Press 1990.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..types import Array, CountArray

BUSIEST = 1.0 - 1e-9
"""The largest utilisation of a queue that has a stationary distribution in float64."""


class Occupancy(NamedTuple):
    """How many sequences share the steps of replicas; the last axis of `chance` is their number from 0."""

    chance: Array
    """Probability of each number of sequences in steps; at the largest, others may wait."""
    waiting: Array
    """Probability that a request finds no place."""
    utilisation: Array
    """Arrivals over the most completions."""

    @property
    def idle(self) -> Array:
        """Probability that there is no sequence."""
        return self.chance[..., 0]

    @property
    def mean(self) -> Array:
        """Sequences in steps, on average."""
        return np.asarray(self.chance @ np.arange(self.chance.shape[-1]))

    def seen(self, percentile: float) -> CountArray:
        """Sequences in steps as a sequence among them finds, at a percentile: weighed with their number."""
        weight = np.cumsum(self.chance * np.arange(self.chance.shape[-1]), axis=-1)
        return np.asarray(np.argmax(weight >= percentile * weight[..., -1:] * BUSIEST, axis=-1))


def occupancy(arrivals_per_s: Array, completions_per_s: Array, largest: CountArray) -> Occupancy:
    r"""The stationary distribution of the chain.

    `completions_per_s` has the rates of 1, 2, ... sequences along its last axis, `largest` their largest number N.
    With :math:`\rho = r / \mu_N` the states from N on sum to :math:`\pi_N / (1 - \rho)`.
    """
    numbers = np.arange(1, completions_per_s.shape[-1] + 1)
    ratio = arrivals_per_s[..., np.newaxis] / completions_per_s
    logs = np.cumsum(np.log(np.maximum(ratio, 1e-300)), axis=-1)
    logs = np.where(numbers <= largest[..., np.newaxis], logs, -np.inf)
    logs = np.concatenate((np.zeros((*logs.shape[:-1], 1)), logs), axis=-1)
    last = largest[..., np.newaxis]
    rho = np.minimum(np.take_along_axis(ratio, last - 1, axis=-1), BUSIEST)
    held = np.exp(logs - logs.max(axis=-1, keepdims=True))
    tail = np.take_along_axis(held, last, axis=-1) / (1.0 - rho)
    np.put_along_axis(held, last, tail, axis=-1)
    chance = held / held.sum(axis=-1, keepdims=True)
    return Occupancy(chance, np.take_along_axis(chance, last, axis=-1)[..., 0], rho[..., 0])


class Wait(NamedTuple):
    """A wait that is 0 or, with a probability, exponential."""

    chance: Array
    mean_s: Array
    """Of those that wait."""


def later(first: Wait, second: Wait, time_s: Array) -> Array:
    r"""Probability that two independent waits together take longer than a time; 1 before 0.

    With chances a and b and rates :math:`\alpha \ne \beta`

    .. math:: a (1-b) e^{-\alpha t} + b (1-a) e^{-\beta t}
       + a b \frac{\alpha e^{-\beta t} - \beta e^{-\alpha t}}{\alpha - \beta}
    """
    alpha, beta = (1.0 / np.maximum(wait.mean_s, 1e-12) for wait in (first, second))
    beta = np.where(np.abs(alpha - beta) < 1e-6 * alpha, beta * (1.0 + 1e-6), beta)
    t, a, b = np.maximum(time_s, 0.0), first.chance, second.chance
    slow, fast = np.exp(-alpha * t), np.exp(-beta * t)
    both = (alpha * fast - beta * slow) / (alpha - beta)
    found = a * (1.0 - b) * slow + b * (1.0 - a) * fast + a * b * both
    return np.where(time_s < 0.0, 1.0, np.clip(found, 0.0, 1.0))


def line(arrivals_per_s: Array, service_s: Array, arrival_variation: float, service_variation: float) -> Wait:
    r"""The wait for one server, first come, first served.

    The mean of all is :math:`\frac{\rho}{1-\rho} \frac{C_a^2 + C_s^2}{2} S`, which is Pollaczek and Khinchine's where
    arrivals are random.
    """
    rho = np.minimum(arrivals_per_s * service_s, BUSIEST)
    return Wait(rho, service_s * (arrival_variation + service_variation) / 2.0 / (1.0 - rho))
