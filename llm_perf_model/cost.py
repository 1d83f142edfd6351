"""What an estimate costs in money."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final, TypeVar

import numpy as np

from .errors import InfeasibleError
from .specs.catalog import load, names
from .specs.price import PriceSpec, TariffSpec
from .specs.request import Request
from .types import Num

S = TypeVar("S", PriceSpec, TariffSpec)

SECONDS_PER_HOUR: Final = 3600.0
JOULES_PER_KWH: Final = 3.6e6
MILLION: Final = 1e6


@dataclass(frozen=True, slots=True)
class Price:
    """What an hour of a device and a kilowatt-hour cost, and where that is said."""

    usd_per_gpu_hour: float
    usd_per_kwh: float
    """0 where electricity is part of the hourly price."""
    pue: float
    utilisation: float
    """Share of the paid hours in which the devices do this work."""
    origin: str


@dataclass(frozen=True, slots=True)
class Cost:
    r"""US dollars of a batch on all devices. Fields broadcast.

    .. math:: C = \frac{n\,t}{3600}\,\frac{c_{hour}}{u} + \frac{E}{3.6\cdot10^6}\,\mathrm{PUE}\,c_{kWh}

    for the prefill and for the decode; an input token costs its share of the prefill, an output token its
    share of the decode.
    """

    price: Price
    usd_per_hour: float
    prefill_usd: Num
    decode_usd: Num
    requests: Num
    input_tokens: Num
    output_tokens: Num

    @property
    def usd(self) -> Num:
        """Of the whole batch."""
        return self.prefill_usd + self.decode_usd

    @property
    def usd_per_request(self) -> Num:
        """Of one sequence, from prompt to last token."""
        return self.usd / self.requests

    @property
    def usd_per_million_input_tokens(self) -> Num:
        """Of the prefill, by the tokens of the prompts."""
        return self.prefill_usd / self.input_tokens * MILLION

    @property
    def usd_per_million_output_tokens(self) -> Num:
        """Of the decode, by the generated tokens."""
        return self.decode_usd / self.output_tokens * MILLION

    def to_dict(self) -> dict[str, Any]:
        """The answer in US dollars, with the price and its origin."""
        names = (
            "usd_per_hour",
            "usd",
            "usd_per_request",
            "usd_per_million_input_tokens",
            "usd_per_million_output_tokens",
        )
        numbers = {name: np.asarray(getattr(self, name)).tolist() for name in names}
        return numbers | {"price": asdict(self.price)}


def usd(price: Price, devices: float, time_s: Num, energy_j: Num) -> Num:
    """Dollars of a phase on so many devices. Shape: broadcast."""
    hours = devices * time_s / SECONDS_PER_HOUR
    energy_kwh = energy_j / JOULES_PER_KWH
    return hours * price.usd_per_gpu_hour / price.utilisation + energy_kwh * price.pue * price.usd_per_kwh


def cheapest(lists: tuple[PriceSpec, ...], gpu: str) -> tuple[float, str] | None:
    """The lowest listed price of a device and who asks it, None where no list has the device."""
    asked = [(spec.offers[gpu], spec) for spec in lists if gpu in spec.offers]
    if not asked:
        return None
    offer, spec = min(asked, key=lambda pair: (pair[0].usd_per_hour, pair[1].name))
    return offer.usd_per_hour, f"{spec.title}, {offer.date}"


def listed_usd_per_hour(gpu: str) -> float | None:
    """The lowest listed price of a device, None where no list has it."""
    found = cheapest(_lists(), gpu)
    return None if found is None else found[0]


def price_of(request: Request, gpu: str) -> Price | None:
    """The price that a request gives, else a listed one, the lowest if it names no list; None where there is none.

    Raises:
        SpecError: a name is unknown.
        InfeasibleError: the list that the request names has no such device.
    """
    tariff = None if request.tariff is None else _spec(TariffSpec, request.tariff)
    if request.usd_per_gpu_hour is not None:
        hourly, origin = request.usd_per_gpu_hour, "given"
    else:
        named = None if request.price is None else _spec(PriceSpec, request.price)
        found = cheapest((named,) if named else _lists(), gpu)
        if found is None and named:
            having = ", ".join(spec.name for spec in _lists() if gpu in spec.offers) or "none"
            raise InfeasibleError(f"price {named.name} has no offer of {gpu}; lists that have one: {having}")
        if found is None:
            return None
        hourly, origin = found
    kwh = request.usd_per_kwh if request.usd_per_kwh is not None else tariff.usd_per_kwh if tariff else 0.0
    pue = request.pue if request.pue is not None else tariff.pue if tariff else 1.0
    return Price(hourly, kwh, pue, request.utilisation, origin)


@cache
def _lists() -> tuple[PriceSpec, ...]:
    return tuple(load(PriceSpec, name) for name in names(PriceSpec))


def _spec(kind: type[S], value: S | str) -> S:
    return load(kind, value) if isinstance(value, str) else value
