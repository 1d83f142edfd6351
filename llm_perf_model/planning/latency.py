"""Latencies of replicas at a rate of requests, and the highest rate that keeps objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..types import Array
from .load import Load
from .queueing import Occupancy, Wait, later, line, occupancy
from .service import Service

HALVINGS = 40
"""Halvings of an interval that is looked in."""
FULLEST = 0.99
"""The largest utilisation of a plan: beyond it waits are longer than any load stays the same."""
QUIET = 1e-6
"""Utilisation at which a replica has one request at a time."""


class State(NamedTuple):
    """Replicas at a rate of requests. The leading axis is that of cases."""

    occupancy: Occupancy
    place: Wait
    """For a place in the batch."""
    turn: Wait
    """For the prompts before."""
    own_s: Array
    """From its turn to the first token, by the lengths of the load, and the step under way."""


@dataclass(frozen=True)
class Latency:
    """Latencies of the replicas of cases under a load."""

    service: Service
    load: Load
    percentile: float
    waits_later: bool = False
    """Whether a request waits for its place after its first token, which other replicas make."""

    def state(self, arrivals_per_s: Array) -> State:
        """The replicas at these rates."""
        s, load = self.service, self.load
        found = occupancy(arrivals_per_s, s.completions_per_s, s.largest)
        n = found.mean
        turn = line(arrivals_per_s, _at(s.prompt_s, n), load.arrival_variation, load.input_variation)
        slots = s.capacity_per_s * (1.0 - found.utilisation)
        place = Wait(found.waiting, (load.arrival_variation + self.variation) / 2.0 / slots)
        under_way_s = (1.0 - found.idle) * _at(s.step_s, n)
        own_s = s.alone_s + s.chunks * _at(s.beside_s, n)[:, np.newaxis] + under_way_s[:, np.newaxis]
        return State(found, place, turn, own_s)

    @property
    def variation(self) -> Array:
        """Variance of the work of a request over the square of its mean, prompts and outputs by their shares."""
        load, s = self.load, self.service
        prompt = np.clip(_at(s.prompt_s, s.largest.astype(np.float64)) * s.capacity_per_s, 0.0, 1.0)
        rest = 1.0 - prompt
        squares = prompt**2 * load.input_variation + rest**2 * load.output_variation
        return np.asarray(np.maximum(squares + 2.0 * prompt * rest * load.joint_variation, 0.0))

    def exceeding(self, state: State, time_s: Array) -> Array:
        """Share of the requests whose first token takes longer."""
        place, turn = (Wait(*(part[:, np.newaxis] for part in wait)) for wait in (state.place, state.turn))
        beyond = later(place, turn, time_s[:, np.newaxis] - state.own_s)
        return np.asarray(beyond @ self.load.prompt_fraction)

    def ttft_s(self, state: State) -> Array:
        """Seconds to the first token at the percentile."""
        low, high = np.zeros_like(state.occupancy.idle), np.full_like(state.occupancy.idle, 1.0)
        beyond = 1.0 - self.percentile
        while np.any(late := self.exceeding(state, high) > beyond):
            high = np.where(late, 2.0 * high, high)
        for _ in range(HALVINGS):
            middle = (low + high) / 2.0
            late = self.exceeding(state, middle) > beyond
            low, high = np.where(late, middle, low), np.where(late, high, middle)
        return high

    def tpot_s(self, state: State) -> Array:
        """Seconds per output token after the first, at the percentile of the batch that a sequence finds.

        A wait for a place after the first token, at the same percentile, is spread over the others.
        """
        n = state.occupancy.seen(self.percentile)
        found_s = np.take_along_axis(self.service.token_s, np.maximum(n - 1, 0)[:, np.newaxis], axis=1)[:, 0]
        if not self.waits_later:
            return np.asarray(found_s)
        place_s = state.place.mean_s * np.log(np.maximum(state.place.chance / (1.0 - self.percentile), 1.0))
        return np.asarray(found_s + place_s / self.load.decode_steps)

    def most(self, ttft_s: float | None, tpot_s: float | None) -> Array:
        """The highest rates of requests that keep both; 0 where none does."""
        capacity = self.service.capacity_per_s

        def kept(share: Array) -> Array:
            state = self.state(share * capacity)
            ok = np.ones_like(capacity, dtype=bool)
            if tpot_s is not None:
                ok &= self.tpot_s(state) <= tpot_s
            if ttft_s is not None:
                ok &= self.exceeding(state, np.full_like(capacity, ttft_s)) <= 1.0 - self.percentile
            return ok

        possible = kept(np.full_like(capacity, QUIET))
        low, high = np.full_like(capacity, QUIET), np.full_like(capacity, FULLEST)
        low = np.where(kept(high), high, low)
        for _ in range(HALVINGS):
            middle = (low + high) / 2.0
            ok = kept(middle)
            low, high = np.where(ok, middle, low), np.where(ok, high, middle)
        return np.asarray(np.where(possible, low * capacity, 0.0))

    def request_j(self, state: State) -> Array:
        """Joules of one device beyond idling for a request, at the mean batch of a busy replica."""
        found = state.occupancy
        busy = np.maximum(found.mean / np.maximum(1.0 - found.idle, QUIET), 1.0)
        return _at(self.service.request_j, np.minimum(busy, self.service.largest))


def _at(values: Array, numbers: Array) -> Array:
    """Values of each case at a number of sequences, between whole ones on a line."""
    low = np.minimum(np.floor(numbers).astype(np.int64), values.shape[1] - 2)[:, np.newaxis]
    first, second = (np.take_along_axis(values, low + step, axis=1)[:, 0] for step in (0, 1))
    return np.asarray(first + (numbers - low[:, 0]) * (second - first))
