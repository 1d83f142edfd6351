"""Weights of an imported model, counted from its operators, and the widths that a checkpoint gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ..errors import SpecError
from ..graph.stack import build, parameters, weights_bytes
from ..ops.node import Graph
from ..specs.base import Assumption
from ..specs.catalog import load
from ..specs.engine import EngineSpec
from ..specs.model import ModelSpec
from ..specs.precision import PrecisionSpec

_NOTHING = 1e-30
"""Bytes per weight of what is left out of a count: a width has to be above 0."""


def _graph(model: ModelSpec, products: float, others: float) -> Graph:
    """The operators of one device, with widths for weights of products and for the others."""
    widths = {"weight_bytes": products, "other_weight_bytes": others}
    precision = load(PrecisionSpec, "w16a16").model_copy(update=widths)
    return build(model, load(EngineSpec, "ideal"), precision, 1)


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
    return model.model_copy(update={"parameters": float(round(parameters(_graph(model, 1.0, 1.0))))})


def as_stored(
    base: PrecisionSpec, model: ModelSpec, product_bytes: float, other_bytes: float, name: str, origin: str
) -> PrecisionSpec:
    """A precision whose widths are averages over a checkpoint, so that all weights take the bytes that its files do.

    Args:
        base: the precision that computes as the checkpoint does.
        model: what the checkpoint holds.
        product_bytes: bytes of the weights of the layers' products.
        other_bytes: bytes of embeddings, norms and output head.
        name: name of the new precision.
        origin: where the bytes come from.
    """
    products = weights_bytes(_graph(model, 1.0, _NOTHING))
    others = weights_bytes(_graph(model, _NOTHING, 1.0))
    widths = {"weight_bytes": product_bytes / products, "other_weight_bytes": other_bytes / others}
    reason = f"as {base.name}, which computes as this checkpoint is stored"
    return base.model_copy(
        update={
            **widths,
            "name": name,
            "title": f"{base.title}; widths as stored",
            "aliases": (),
            "notes": (f"{product_bytes + other_bytes:.0f} bytes of weights in all.",),
            "sources": (),
            "fits": (),
            "assumed": (Assumption(fields=tuple(widths), reason=origin), Assumption(fields=("*",), reason=reason)),
        }
    )
