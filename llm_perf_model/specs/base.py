"""Base of every spec: immutable, closed, finite, and able to say where each number comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Efficiency = Annotated[float, Field(gt=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]

EngineKind = Literal["ideal", "fused", "eager", "serving", "local"]

ANY_FIELD = "*"
_BOOKKEEPING = frozenset({"sources", "assumed", "fits"})


class Spec(BaseModel):
    """Immutable; unknown keys, NaN, infinities and silent conversions are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Block(Spec):
    """A part of a layer, of which tensor-parallel ranks have a share each."""

    shared_fields: ClassVar[Mapping[str, str]] = {}
    """What ranks share evenly, in words -> the field that counts it."""
    copied_fields: ClassVar[Mapping[str, str]] = {}
    """What they share evenly, or keep copies of where there are more ranks."""

    @property
    def shared(self) -> dict[str, int]:
        """What tensor-parallel ranks share evenly."""
        return _counts(self, self.shared_fields)

    @property
    def copied(self) -> dict[str, int]:
        """What they share evenly, or keep copies of where there are more ranks."""
        return _counts(self, self.copied_fields)


def _counts(block: Block, fields: Mapping[str, str]) -> dict[str, int]:
    return {word: count for word, field in fields.items() if (count := getattr(block, field)) is not None}


class Source(Spec):
    """Where the named fields come from; `*` stands for every field of the file."""

    fields: Annotated[tuple[str, ...], Field(min_length=1)]
    title: str
    url: Annotated[str, Field(pattern=r"^(https?://|arxiv:|doi:|records/).+")]


class Assumption(Spec):
    """Why the named fields hold a value that no source states."""

    fields: Annotated[tuple[str, ...], Field(min_length=1)]
    reason: Annotated[str, Field(min_length=12)]


class Fit(Spec):
    """The records that fixed the named coefficients, when, and the error that remained."""

    fields: Annotated[tuple[str, ...], Field(min_length=1)]
    records: Annotated[tuple[str, ...], Field(min_length=1)]
    rows: Count
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    error: Annotated[str, Field(min_length=4)]
    deviations: dict[str, NonNegative] = Field(default_factory=dict)
    """Standard deviation of the logarithm of each coefficient."""
    half_widths: dict[str, NonNegative] = Field(default_factory=dict)
    """Level -> half width of the interval of log(estimate / measurement) on rows that were left out."""


class FileSpec(Spec):
    """A spec with a file of its own: a name, other names, and an origin for each number."""

    name: Name
    title: str
    aliases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    assumed: tuple[Assumption, ...] = ()
    fits: tuple[Fit, ...] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """Pairs of field and message for each thing wrong across fields."""
        yield from self._unsourced()

    def _unsourced(self) -> Iterator[tuple[str, str]]:
        origins: tuple[Source | Assumption | Fit, ...] = (*self.sources, *self.assumed, *self.fits)
        covered = {field for origin in origins for field in origin.fields} - {ANY_FIELD}
        paths = {path for path, _ in _paths(self)} if covered else set()
        for field in sorted(covered - paths):
            yield field, "an entry of sources, fits or assumed names it, but there is no such field"
        if any(ANY_FIELD in origin.fields for origin in origins):
            return
        for path in sorted({path for path, value in _paths(self) if _is_number(value)}):
            if not any(path == field or path.startswith(f"{field}.") for field in covered):
                yield path, "no entry of sources, fits or assumed names this number"

    @model_validator(mode="after")
    def _self_check(self) -> Self:
        found = list(self.problems())
        if found:
            raise ValueError("\n".join(f"{field}: {message}" for field, message in found))
        return self


def _only_alone(schema: dict[str, Any]) -> None:
    """Fields are required only where no other file gives them."""
    needed = schema["required"]
    schema["required"] = ["name", "title"]
    schema["if"], schema["else"] = {"required": ["like"]}, {"required": needed}


class CoefficientSpec(FileSpec):
    """Fitted or assumed behaviour, which a file without records may take from another file of its kind."""

    model_config = ConfigDict(json_schema_extra=_only_alone)

    like: Name | None = None
    """The file that gives every field that this one leaves out."""


def inherited(data: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """`data` completed by `base`, whose origins become assumptions about the new file."""
    own = {"name", "title", "aliases", "notes", "patterns", "like", *_BOOKKEEPING}
    taken = {field: value for field, value in base.items() if field not in own and field not in data}
    origins = [origin for kind in ("fits", "sources", "assumed") for origin in base.get(kind, ())]
    fields = {field for origin in origins for field in origin["fields"] if field.split(".")[0] in {*taken, ANY_FIELD}}
    guess = {"fields": sorted(fields), "reason": f"no records of its own: as in {base['name']}"}
    return {**taken, **data, "assumed": [*data.get("assumed", ()), *([guess] if fields else [])]}


def _is_number(value: object) -> bool:
    """Whether a value is a number, or a list of them."""
    if isinstance(value, tuple | list):
        return bool(value) and all(_is_number(item) for item in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _paths(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Dotted path and value of everything below `value`; list positions are left out."""
    if isinstance(value, BaseModel):
        inside = {field: getattr(value, field) for field in type(value).model_fields}
        items = [(key, item) for key, item in inside.items() if path or key not in _BOOKKEEPING]
    elif isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _paths(item, path)
        return
    else:
        return
    for key, item in items:
        below = f"{path}.{key}".lstrip(".")
        yield below, item
        yield from _paths(item, below)
