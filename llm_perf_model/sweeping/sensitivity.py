"""How much faster a request becomes with faster hardware, and what binds it then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

from ..case import AnyModel
from ..estimate import Estimate
from ..report.document import Report, Table
from ..summary import title
from ..units import percent, seconds
from .metrics import label, shown
from .single import Single

STEP: Final = 0.05
"""Difference of the logarithm of a rate to each side: what tile suits best changes within less."""

SPAN: Final = 2.0**0.5
"""Factor of a count to each side: kernels take whole tiles, so that a step of one token says little."""

FASTEST: Final = 2.0**40
"""Factor of a rate from which its time is nothing."""

LADDER: Final = tuple(2.0 ** (step / 8.0) for step in range(1, 81))
"""Factors of a rate, up to 1024, at which another term may bind."""

REFINED: Final = 32
"""Factors between two of the ladder that are tried in each further one of `ROUNDS`."""

ROUNDS: Final = 3
WORTH: Final = 0.1
"""Part of a time that twice a rate is to save to be worth it."""

NOTHING: Final = 0.0005
"""Part below which tables say 0."""

ALL: Final = "all"
"""All rates together."""

_WORDS: Final = {"ttft_s": "TTFT", "tpot_s": "TPOT", "total_s": "total"}
_NAMES: Final = {"hbm_bytes_per_s": "memory bandwidth", "flops_per_s": "FLOP/s", "link_bytes_per_s": "link rate"}


class Change(NamedTuple):
    """The factor of a rate from which another term takes most of a phase's time."""

    factor: float
    bound: str


class Upgrade(NamedTuple):
    """What a faster rate, or all of them, does: seconds by metric, and what binds next by phase."""

    doubled_s: Mapping[str, float]
    limit_s: Mapping[str, float]
    """With a rate so high that it takes no time."""
    next_bounds: Mapping[str, Change | None]
    """None: the same term binds at up to 1024 times the rate."""


@dataclass(frozen=True)
class Sensitivity:
    r"""How times depend on rates and counts, as elasticities :math:`d \ln t / d \ln x`."""

    estimate: Estimate
    rates: Mapping[str, float]
    elasticities: Mapping[str, Mapping[str, float]]
    """Field -> metric -> percent by which the time changes where the field grows by one percent."""
    upgrades: Mapping[str, Upgrade]
    """Field of a rate, or all -> what faster ones do."""
    notes: tuple[str, ...] = ()

    @property
    def times_s(self) -> dict[str, float]:
        """The times themselves, by metric."""
        return {metric: float(getattr(self.estimate, metric)) for metric in next(iter(self.elasticities.values()))}

    @cached_property
    def rest(self) -> dict[str, float]:
        r"""Minus the share of each time that no rate shortens.

        It is :math:`-1 - \sum_r e_r` over the rates: twice as fast in every respect takes half the time (Euler's
        theorem for functions of degree -1).
        """
        rates = [self.elasticities[field] for field in self.rates]
        return {metric: -1.0 - sum(each[metric] for each in rates) for metric in self.times_s}

    @property
    def bounds(self) -> dict[str, str]:
        """What takes most of the time of each phase."""
        return {phase: str(getattr(self.estimate, phase).bound) for phase in self.upgrades[ALL].next_bounds}

    def gain(self, field: str, metric: str) -> float:
        """The part of a time that a rate twice as high saves."""
        return 1.0 - self.upgrades[field].doubled_s[metric] / self.times_s[metric]

    def left(self, metric: str) -> float:
        """The part of a time that stays whatever the rates."""
        return self.upgrades[ALL].limit_s[metric] / self.times_s[metric]

    def best(self, metric: str) -> str:
        """The rate that saves most of a time when it doubles."""
        return max(self.rates, key=lambda field: self.gain(field, metric))

    def first(self, metric: str) -> str | None:
        """The rate to raise first.

        None where even the best saves less than `WORTH` of the time when it doubles.
        """
        best = self.best(metric)
        return best if self.gain(best, metric) >= WORTH else None

    def to_dict(self) -> dict[str, Any]:
        """The answer in SI units: numbers, lists, text and None."""
        upgrades = {field: up._asdict() | {"next_bounds": _plain(up)} for field, up in self.upgrades.items()}
        return {
            "request": self.estimate.request.plain(),
            "times_s": self.times_s,
            "bounds": self.bounds,
            "rates": {**self.rates},
            "elasticities": {field: {**each} for field, each in self.elasticities.items()},
            "rest": self.rest,
            "upgrades": upgrades,
            "first": {metric: self.first(metric) for metric in self.times_s},
        }

    def report(self) -> Report:
        """Tables for people."""
        tables = (self._elasticities(), self._gains(), self._bounds())
        records = [{"field": field, **each} for field, each in [*self.elasticities.items(), ("rest", self.rest)]]
        return Report(title(self.estimate), tables, (*self._advice(), *self.notes), self.to_dict(), records)

    def __str__(self) -> str:
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()

    def _elasticities(self) -> Table:
        rows = [("time", "", *(seconds(time_s) for time_s in self.times_s.values()))]
        for field, each in self.elasticities.items():
            now = self.rates.get(field) or int(getattr(self.estimate.workload, field))
            rows.append((label(field), shown(field, now), *(_signed(value) for value in each.values())))
        rows.insert(1 + len(self.rates), ("rest", "", *(_signed(value) for value in self.rest.values())))
        return Table(("d ln time / d ln", "now", *self._words()), tuple(rows))

    def _gains(self) -> Table:
        rows = []
        for field, up in self.upgrades.items():
            pairs = ((up.doubled_s[metric] / now, up.limit_s[metric] / now) for metric, now in self.times_s.items())
            rows.append((label(field), *(_saved(ratio) for pair in pairs for ratio in pair)))
        heads = [head for word in self._words() for head in (f"{word} x2", "at most")]
        return Table(("faster", *heads), tuple(rows))

    def _bounds(self) -> Table:
        rows = [("now", *self.bounds.values())]
        for field in (*self.rates, ALL):
            changes = self.upgrades[field].next_bounds.values()
            cells = ("the same" if each is None else f"{each.bound} from x{each.factor:.3g}" for each in changes)
            rows.append((label(field), *cells))
        causal = self.estimate.case.model.causal
        return Table(
            ("what binds", *(self.bounds if causal else ["forward pass"])), tuple(rows), "", 1 + len(self.bounds)
        )

    def _words(self) -> tuple[str, ...]:
        return tuple(_WORDS[metric] for metric in self.times_s)

    def _advice(self) -> Iterator[str]:
        """What to buy first, a line for each time."""
        for metric, word in zip(self.times_s, self._words(), strict=True):
            gain, name = self.gain(self.best(metric), metric), _NAMES[self.best(metric)]
            text = "no rate helps"
            if gain >= WORTH:
                text = f"buy {name} first: twice as much saves {percent(gain)}"
            elif gain >= NOTHING:
                text = f"no rate helps much: twice the {name} saves {percent(gain)}"
            yield f"{word}: {text}; {percent(self.left(metric))} of the time stays at any rates"


def sensitivity(model: str | AnyModel | None = None, **fields: Any) -> Sensitivity:
    """How times depend on the rates of a device, on the batch and on lengths.

    Args:
        model: as `estimate` takes it.
        **fields: the other fields of `Request`, each with one value.

    Returns:
        Elasticities, what a faster rate saves, and from which factor on another term binds.

    Raises:
        RequestError: a field is wrong, or holds several values.
        SpecError: a name is unknown or a file is not valid.
        InfeasibleError: the request is well-formed but cannot run.
    """
    single = Single.of(fields if model is None else {"model": model, **fields}, "sensitivity")
    points = _Points(single)
    elasticities = {field: points.elasticity(field) for field in points.now}
    upgrades = {field: points.upgrade(field) for field in (*single.rates, ALL)}
    return Sensitivity(single.estimate, single.rates, elasticities, upgrades, single.remarks())


class _Points:
    """What a configuration is compared with: points that differ in a field, or in all rates, by a factor."""

    def __init__(self, single: Single) -> None:
        self.single, self.now = single, single.rates | single.counts
        self.phases = ("prefill", "decode") if single.decodes else ("prefill",)
        self.metrics = ("ttft_s", "tpot_s", "total_s") if single.decodes else ("total_s",)
        self.fields = {field: (field,) for field in self.now} | {ALL: tuple(single.rates)}
        self.ends = {field: self._ends(field) for field in self.now}
        keys = [(field, end) for field, pair in self.ends.items() for end in pair]
        keys += [(field, factor) for field in (*single.rates, ALL) for factor in (*LADDER, FASTEST)]
        self.place = {key: number for number, key in enumerate(keys)}
        self.found = self._at(keys)
        self.times = {metric: np.broadcast_to(getattr(self.found, metric), len(keys)) for metric in self.metrics}

    def elasticity(self, field: str) -> dict[str, float]:
        """Difference of the logarithms of times over that of a field."""
        low, high = self.ends[field]
        ratios = {metric: times[self.place[field, high]] / times[self.place[field, low]]
                  for metric, times in self.times.items()}  # fmt: skip
        return {metric: float(np.log(ratio) / np.log(high / low)) for metric, ratio in ratios.items()}

    def upgrade(self, field: str) -> Upgrade:
        """What a faster rate does."""
        doubled_s, limit_s = (
            {metric: float(times[self.place[field, factor]]) for metric, times in self.times.items()}
            for factor in (2.0, FASTEST)
        )
        return Upgrade(doubled_s, limit_s, {phase: self._change(field, phase) for phase in self.phases})

    def _ends(self, field: str) -> tuple[float, float]:
        """The factors of a field between which a difference is taken."""
        if field in self.single.rates:
            return float(np.exp(-STEP)), float(np.exp(STEP))
        now, least = self.now[field], self.single.least[field]
        if field == "output_len" and self.single.decodes:
            least = 2.0  # below there is no step
        return max(float(np.floor(now / SPAN)), least) / now, float(np.ceil(now * SPAN)) / now

    def _at(self, keys: Sequence[tuple[str, float]]) -> Estimate:
        """The estimate of points."""
        columns = {field: np.full(len(keys), value) for field, value in self.now.items()}
        for place, (name, factor) in enumerate(keys):
            for field in self.fields[name]:
                columns[field][place] *= factor
        return self.single.at({field: c if field in self.single.rates else np.rint(c) for field, c in columns.items()})

    def _change(self, field: str, phase: str) -> Change | None:
        """Where another term binds in a phase: on the ladder, then between two of its factors."""
        now, low, change = str(getattr(self.single.estimate, phase).bound), 1.0, None
        factors, places = np.array(LADDER), [self.place[field, factor] for factor in LADDER]
        bounds = getattr(self.found, phase).bound[places]
        for _ in range(ROUNDS):
            other = np.flatnonzero(bounds != now)
            if not other.size:
                return None
            at = int(other[0])
            low, change = float(factors[at - 1]) if at else low, Change(float(factors[at]), str(bounds[at]))
            factors = np.geomspace(low, change.factor, REFINED + 1)[1:]
            bounds = getattr(self._at([(field, factor) for factor in factors.tolist()]), phase).bound
        return change


def _plain(up: Upgrade) -> dict[str, Any]:
    return {phase: None if each is None else each._asdict() for phase, each in up.next_bounds.items()}


def _signed(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0"


def _saved(ratio: float) -> str:
    return f"-{percent(1.0 - ratio)}" if 1.0 - ratio >= NOTHING else "0"
