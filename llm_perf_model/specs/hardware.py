"""Numbers of a device in place of its datasheet's, as fields of a request."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ..types import Num
from .quantities import Rate


class Given(NamedTuple):
    """The numbers that a request gives; None: those of the datasheet. Fields broadcast."""

    hbm_bytes_per_s: Num | None
    flops_per_s: Num | None
    link_bytes_per_s: Num | None


class Hardware(BaseModel):
    """What a request says of its device beyond its name; with their defaults it is that of the datasheet."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    hbm_bytes_per_s: Annotated[
        Rate | None, Field(description="bandwidth of the device's memory, in place of its own")
    ] = None
    flops_per_s: Annotated[
        Rate | None,
        Field(description="peak of the unit that runs the products, in place of its own; other units scale with it"),
    ] = None
    link_bytes_per_s: Annotated[
        Rate | None,
        Field(description="rate of a device to the others of its node, in one direction, in place of its link's"),
    ] = None

    @property
    def hardware(self) -> Given | None:
        """The numbers, if any is given."""
        given = Given(self.hbm_bytes_per_s, self.flops_per_s, self.link_bytes_per_s)
        return None if all(number is None for number in given) else given
