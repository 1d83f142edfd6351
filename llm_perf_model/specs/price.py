"""What an hour of a device costs at a provider, and what electricity costs in a region."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import FileSpec, Name, Positive, Spec

Date = Annotated[str, Field(pattern=r"^\d{4}-\d\d(-\d\d)?$")]


class Offer(Spec):
    """The rental of one device for an hour, on demand, and the day at which the source shows it."""

    usd_per_hour: Positive
    date: Date


class PriceSpec(FileSpec):
    """A provider's offers by the catalogue name of the device.

    Electricity is part of the price.
    """

    offers: Annotated[dict[Name, Offer], Field(min_length=1)]


class TariffSpec(FileSpec):
    """Electricity for own hardware, and what the building draws beside it."""

    usd_per_kwh: Positive
    pue: Annotated[float, Field(ge=1)]
    """Power usage effectiveness."""
    date: Date
