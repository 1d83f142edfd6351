"""A load and objectives, checked field by field before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError, model_validator

from .engine import EngineSpec
from .gpu import GpuSpec
from .model import ModelSpec
from .named import named
from .precision import PrecisionSpec
from .quantities import Single, scalar, shortened
from .request import checked

Objective = Literal["usd_per_hour", "devices", "power_w"]
"""What a plan needs least of."""

OBJECTIVES: Final[tuple[Objective, ...]] = get_args(Objective)

_ABOVE_0 = "a number above 0"
Positive = Annotated[float, PlainValidator(scalar(_ABOVE_0, lambda x: x > 0.0))]
Percentile = Annotated[float, PlainValidator(scalar("a number from 0.5 to 0.999", lambda x: 0.5 <= x <= 0.999))]

_LENGTHS = "a number of at least 1, {mean: 512, cv: 0.8} or {values: [128, 1024], weights: [3, 1]}"


class Lengths(BaseModel):
    """Tokens of prompts or of outputs: a mean and a coefficient of variation, or values and their weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    mean: float | None = None
    cv: float = 0.0
    values: tuple[float, ...] | None = None
    weights: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _stands_for_lengths(self) -> Self:
        given = self.values if self.values is not None else (self.mean,)
        weights = self.weights if self.weights is not None else (1.0,) * len(given)
        if (self.mean is None) == (self.values is None) or not given or len(weights) != len(given):
            raise ValueError
        if not all(value is not None and 1.0 <= value <= 1e9 for value in given) or not 0.0 <= self.cv <= 10.0:
            raise ValueError
        if not all(0.0 <= weight < float("inf") for weight in weights) or sum(weights) <= 0.0:
            raise ValueError
        return self


def _lengths(value: object) -> object:
    """Lengths of a number, of a list of values or of a mapping."""
    if isinstance(value, Lengths):
        return value
    fields: object = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        fields = {"mean": value}
    elif isinstance(value, list | tuple):
        fields = {"values": tuple(value)}
    if isinstance(fields, Mapping):
        try:
            return Lengths.model_validate(dict(fields))
        except ValidationError:
            pass
    raise ValueError(f"is {shortened(value)}; must be {_LENGTHS}")


def _several(value: object) -> object:
    """A tuple of names or specs; text lists them with commas."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    items = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not items:
        raise ValueError("is an empty list; leave it out for all")
    return items


def _objective(value: object) -> object:
    """One of the objectives."""
    if value in OBJECTIVES:
        return value
    raise ValueError(f"is {shortened(value)}; must be one of {', '.join(OBJECTIVES)}")


class PlanRequest(BaseModel):
    """A load, what is asked of each request, and which devices may serve it."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    model: Annotated[ModelSpec | str, named(ModelSpec)]
    engine: Annotated[EngineSpec | str, named(EngineSpec)] = "generic-serving"
    requests_per_s: Positive | None = None
    """Of all replicas; None: that of the trace."""
    input_len: Annotated[Lengths, PlainValidator(_lengths)] | None = None
    output_len: Annotated[Lengths, PlainValidator(_lengths)] | None = None
    trace: str | None = None
    """CSV file with the columns `arrival_s`, `input_len` and `output_len`."""
    ttft_s: Positive | None = None
    """Seconds to the first token that `percentile` of the requests stay within; None: any."""
    tpot_s: Positive | None = None
    """The same for the seconds per output token after the first."""
    percentile: Percentile = 0.95
    gpus: Annotated[tuple[Annotated[GpuSpec | str, named(GpuSpec)], ...], BeforeValidator(_several)] | None = None
    """Devices to choose from; None: those with a listed price."""
    precisions: (
        Annotated[tuple[Annotated[PrecisionSpec | str, named(PrecisionSpec)], ...], BeforeValidator(_several)] | None
    ) = None
    """Precisions to choose from; None: w16a16."""
    objective: Annotated[Objective, PlainValidator(_objective)] = "usd_per_hour"
    max_devices: Single | None = None
    """The most devices of a plan; None: any number."""
    max_replica_devices: Single = 16
    """The most devices that hold one copy of the model."""
    max_usd_per_hour: Positive | None = None
    max_power_w: Positive | None = None
    max_batch_size: Single = 256
    """The most sequences that share a step."""
    prefill_chunk: Single = 2048
    """The most prompt tokens of a step."""

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> Self:
        """The request of these fields.

        Raises:
            RequestError: one line per field that is wrong.
        """
        return checked(cls, fields)

    @model_validator(mode="after")
    def _has_a_load(self) -> Self:
        lengths = {"input_len": self.input_len, "output_len": self.output_len}
        if self.trace is not None and any(value is not None for value in lengths.values()):
            raise ValueError("trace and input_len or output_len exclude each other: a trace has lengths of its own")
        missing = [name for name, value in {"requests_per_s": self.requests_per_s, **lengths}.items() if value is None]
        if self.trace is None and missing:
            raise ValueError(f"{missing[0]} is missing; give it, or a trace")
        return self
