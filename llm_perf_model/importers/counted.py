"""Weights of an imported model, counted from its operators, and the widths that a checkpoint gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from pydantic import ValidationError

from ..errors import SpecError
from ..graph.stack import build, parameters, weights_bytes
from ..ops.node import Graph
from ..specs.base import Assumption
from ..specs.catalog import load
from ..specs.engine import EngineSpec
from ..specs.model import ModelSpec
from ..specs.precision import PrecisionSpec, Products

Part = Literal["products", "attention", "experts", "table", "others"]
"""Products of feed-forwards, of attention, of experts; the token table; norms, routers and output head."""

PARTS: Final[tuple[Part, ...]] = get_args(Part)

_WITH_WAYS: Final[tuple[Part, ...]] = ("attention", "experts")
"""Parts whose products a precision may run in a way of their own."""

_NOTHING = 1e-30
"""Bytes per weight of what is left out of a count: a width has to be above 0."""


class Held(NamedTuple):
    """Weights of one part in a checkpoint: the bytes that they take, and what computes as they are stored."""

    stored_bytes: float
    like: PrecisionSpec


def counted(fields: Mapping[str, Any], where: str) -> ModelSpec:
    """The model of these fields, with `parameters` as its operators have them.

    Raises:
        SpecError: the fields are no model; in one line that names the first of them.
    """
    try:
        model = ModelSpec(**{**fields, "parameters": 1.0})
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        said = problem["msg"].removeprefix("Value error, ").splitlines()[0]
        raise SpecError(f"{where}: {f'{field}: ' if field else ''}{said}") from None
    every: dict[Part, float] = dict.fromkeys(PARTS, 1.0)
    return model.model_copy(update={"parameters": float(round(parameters(_graph(model, every))))})


def weights_of(model: ModelSpec, part: Part) -> float:
    """Weights of a part of a model."""
    widths: dict[Part, float] = {each: 1.0 if each == part else _NOTHING for each in PARTS}
    return weights_bytes(_graph(model, widths))


def as_stored(model: ModelSpec, held: Mapping[Part, Held], name: str, title: str, origin: str) -> PrecisionSpec:
    """A precision whose widths are averages over a checkpoint, so that all weights take the bytes that its files do.

    Args:
        model: what the checkpoint holds.
        held: its weights by part; all of them have to be there.
        name: name of the new precision.
        title: its title.
        origin: where the bytes come from.
    """
    width: dict[Part, float | None] = {part: _width(model, part, held[part].stored_bytes) for part in PARTS}
    first: Part = next(part for part in ("products", "experts", "attention", "others") if width[part] is not None)
    base, others = held[first].like, width["others"]
    if width["table"] is None:  # one table for both ends: it is counted with the head
        others = _width(model, "others", held["others"].stored_bytes + held["table"].stored_bytes)
    own: dict[str, Products | None] = {part: _products(held[part].like, width[part]) for part in _WITH_WAYS}
    fields: dict[str, Any] = {
        "weight_bytes": width[first],
        "other_weight_bytes": others,
        "embedding_weight_bytes": width["table"],
        **own,
    }
    total = sum(part.stored_bytes for part in held.values())
    given = tuple(field for field, value in fields.items() if value is not None)
    reason = f"as {base.name}, which computes as these weights are stored"
    return base.model_copy(
        update={
            **fields,
            "name": name,
            "title": title,
            "aliases": (),
            "notes": (f"{total:.0f} bytes of weights in all.",),
            "sources": (),
            "fits": (),
            "assumed": (Assumption(fields=given, reason=origin), Assumption(fields=("*",), reason=reason)),
        }
    )


def _graph(model: ModelSpec, widths: Mapping[Part, float]) -> Graph:
    """The operators of one device, with a width for the weights of each part."""
    plain = load(PrecisionSpec, "w16a16")
    fields = {
        "weight_bytes": widths["products"],
        "other_weight_bytes": widths["others"],
        "embedding_weight_bytes": widths["table"],
        "attention": _products(plain, widths["attention"]),
        "experts": _products(plain, widths["experts"]),
    }
    return build(model, load(EngineSpec, "ideal"), plain.model_copy(update=fields), 1)


def _products(like: PrecisionSpec, width: float | None) -> Products | None:
    """Products that run as a precision has them, with weights of a width; None where there are none."""
    if width is None:
        return None
    fields = {field: getattr(like, field) for field in Products.model_fields}
    return Products(**{**fields, "weight_bytes": width})


def _width(model: ModelSpec, part: Part, stored_bytes: float) -> float | None:
    """Bytes per weight of a part; None where the model has no such part, or the checkpoint no bytes of it."""
    weights = weights_of(model, part)
    return stored_bytes / weights if weights >= 1.0 and stored_bytes > 0.0 else None
