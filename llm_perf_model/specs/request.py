"""What a user asks for, checked field by field before anything is computed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args

import numpy as np
from pydantic import BaseModel, PlainValidator, ValidationError, WithJsonSchema, model_validator

from ..errors import RequestError
from .base import FileSpec
from .engine import EngineSpec
from .gpu import GpuSpec
from .hardware import Hardware
from .link import LinkSpec
from .model import ModelSpec
from .named import named as _named
from .network import NetworkSpec
from .precision import CACHE_FORMATS, CacheFormat, PrecisionSpec
from .price import PriceSpec, TariffSpec
from .quantities import Amount, Fraction, Overhead, Share, Single, Watts, Whole, shortened
from .sharing import Sharing
from .techniques import TOKENS, Techniques
from .workload import WorkloadSpec

M = TypeVar("M", bound=BaseModel)

LEVELS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Levels of intervals: how often a measurement lies inside."""

DEFAULT_LEVEL: Final = 0.8

LONGEST_SHAPE: Final = 3


def _shape(value: object) -> tuple[int, ...]:
    """Whole numbers, as a list or as text: `3,224,224` or `3x224x224`."""
    if isinstance(value, str) and re.fullmatch(r"\d+(\s*[x,]\s*\d+)*", value.strip()):
        value = [int(item) for item in re.split(r"[x,]", value)]
    whole = isinstance(value, list | tuple) and all(type(item) is int and item >= 1 for item in value)
    shape: tuple[int, ...] = tuple(value) if whole else ()  # type: ignore[arg-type]
    if not 1 <= len(shape) <= LONGEST_SHAPE:
        raise ValueError(f"is {shortened(value)}; must be one to three whole numbers, as 3,224,224")
    return shape


EnergyConvention = Literal["power", "tdp"]
"""Energy by what the work draws, or as design power x time."""

CONVENTIONS: Final[tuple[EnergyConvention, ...]] = get_args(EnergyConvention)


def _convention(value: object) -> object:
    """One of the conventions."""
    if value in CONVENTIONS:
        return value
    raise ValueError(f"is {shortened(value)}; must be {' or '.join(CONVENTIONS)}")


def _cache_format(value: object) -> object:
    """One of the formats of cached keys and values."""
    if value in CACHE_FORMATS:
        return value
    raise ValueError(f"is {shortened(value)}; must be one of {', '.join(CACHE_FORMATS)}")


def _words(known: tuple[str, ...]) -> WithJsonSchema:
    return WithJsonSchema({"enum": list(known)})


def _level(value: object) -> float:
    """One of the levels."""
    if isinstance(value, int | float) and not isinstance(value, bool) and float(value) in LEVELS:
        return float(value)
    raise ValueError(f"is {shortened(value)}; must be one of {', '.join(map(str, LEVELS))}")


class Request(Techniques, Sharing, Hardware):
    """One estimate's request. Names may be catalogue names, aliases, paths or specs.

    `batch_size`, `input_len`, `output_len`, the efficiencies, numbers of the device and of techniques take arrays that
    broadcast together.
    """

    model: Annotated[ModelSpec | NetworkSpec | str, _named(ModelSpec, NetworkSpec)]
    gpu: Annotated[GpuSpec | str, _named(GpuSpec)] = "a100-sxm-40gb"
    engine: Annotated[EngineSpec | str, _named(EngineSpec)] = "fastertransformer"
    precision: Annotated[PrecisionSpec | str, _named(PrecisionSpec)] = "w16a16"
    kv_dtype: Annotated[CacheFormat, PlainValidator(_cache_format), _words(CACHE_FORMATS)] = "auto"
    """What keys and values are stored in; auto: what the precision states."""
    link: Annotated[LinkSpec | str, _named(LinkSpec)] | None = None
    tp: Single = 1
    pp: Single = 1
    dp: Single = 1
    ep: Single = 1
    layer_split: Single = 1
    batch_size: Whole = 1.0
    input_len: Whole = 512.0
    output_len: Whole = 32.0
    num_beams: Single = 1
    input_shape: Annotated[tuple[int, ...], PlainValidator(_shape)] | None = None
    """Shape of a sample of a network; None: that of its file."""
    flops_efficiency: Fraction | None = None
    hbm_memory_efficiency: Fraction | None = None
    pool_fraction: Share | None = None
    """Share of the device, or of what is free beside weights, that the engine takes; None: the engine's own."""
    power_limit_w: Watts | None = None
    """Power limit of each device; None: its thermal design power."""
    energy_convention: Annotated[EnergyConvention, PlainValidator(_convention), _words(CONVENTIONS)] = "power"
    price: Annotated[PriceSpec | str, _named(PriceSpec)] | None = None
    """Price list; None: the lowest listed price of the device."""
    usd_per_gpu_hour: Amount | None = None
    """Price in place of a listed one."""
    tariff: Annotated[TariffSpec | str, _named(TariffSpec)] | None = None
    """Electricity that is paid beside the hourly price; None: it is part of it."""
    usd_per_kwh: Amount | None = None
    pue: Overhead | None = None
    utilisation: Share = 1.0
    interval_level: Annotated[float, PlainValidator(_level), WithJsonSchema({"enum": list(LEVELS)})] = DEFAULT_LEVEL

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> Self:
        """The request of these fields.

        Raises:
            RequestError: one line per field that is wrong.
        """
        return checked(cls, fields)

    @model_validator(mode="after")
    def _prices_count(self) -> Self:
        if self.price is not None and self.usd_per_gpu_hour is not None:
            raise ValueError("price and usd_per_gpu_hour exclude each other: give one of them")
        if self.pue is not None and self.tariff is None and self.usd_per_kwh is None:
            raise ValueError("pue has no effect without a price of electricity: give tariff or usd_per_kwh too")
        return self

    @model_validator(mode="after")
    def _axes_broadcast(self) -> Self:
        shapes = {axis: value.shape for axis, value in self.__dict__.items() if isinstance(value, np.ndarray)}
        try:
            np.broadcast_shapes(*shapes.values())
        except ValueError:
            text = ", ".join(f"{axis} {shape}" for axis, shape in shapes.items())
            raise ValueError(f"the shapes of the arrays do not broadcast together: {text}") from None
        return self

    def plain(self) -> dict[str, Any]:
        """Its fields as text, numbers and lists: specs by their names."""
        fields = {field: _plain(getattr(self, field)) for field in _own_first(type(self))}
        counts = (*WorkloadSpec.model_fields, *TOKENS)
        return fields | {field: _whole(fields[field]) for field in counts if fields[field] is not None}

    @property
    def workload(self) -> WorkloadSpec:
        """Sequences and their lengths."""
        return WorkloadSpec(batch_size=self.batch_size, input_len=self.input_len, output_len=self.output_len)


def _own_first(kind: type[Request]) -> list[str]:
    """Fields of a request, those of techniques last."""
    return sorted(kind.model_fields, key=lambda field: field in Techniques.model_fields)


def _plain(value: Any) -> Any:
    if isinstance(value, FileSpec):
        return value.name
    if isinstance(value, np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _whole(value: Any) -> Any:
    return [_whole(item) for item in value] if isinstance(value, list) else int(value)


def checked(kind: type[M], fields: Mapping[str, object]) -> M:
    """The model of these fields.

    Raises:
        RequestError: one line per field that is wrong.
    """
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        raise RequestError("; ".join(_problem_lines(error, kind))) from None


def _problem_lines(error: ValidationError, kind: type[BaseModel]) -> list[str]:
    lines: dict[str, str] = {}
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else "request"
        lines.setdefault(field, f"{field}: {_message(problem, field, kind)}")
    return list(lines.values())


def _message(problem: Any, field: str, kind: type[BaseModel]) -> str:
    match problem["type"]:
        case "missing":
            return "is missing; give a name, an alias or a path to a JSON file"
        case "extra_forbidden":
            near = difflib.get_close_matches(field, kind.model_fields, n=1)
            return "is not a known field" + (f"; did you mean {near[0]}?" if near else "")
        case "value_error":
            return str(problem["msg"]).removeprefix("Value error, ")
        case _:
            return str(problem["msg"])
