"""The cases that may serve a load: devices, precisions and layouts of a replica."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from ..case import Case, make_case
from ..errors import InfeasibleError, RequestError
from ..placement import divides, node_ranks
from ..specs.base import FileSpec
from ..specs.catalog import is_path, load, names
from ..specs.engine import EngineSpec
from ..specs.ffn import MoeFfn
from ..specs.gpu import GpuSpec
from ..specs.layout import LayoutSpec
from ..specs.model import ModelSpec
from ..specs.network import NetworkSpec
from ..specs.plan import PlanRequest
from ..specs.precision import PrecisionSpec
from .load import Load

S = TypeVar("S", bound=FileSpec)

PLAIN = "w16a16"
"""The precision of a plan that names none."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """What cannot serve the load, and why."""

    gpu: str
    precision: str
    layout: str
    """In words; empty where it is about all of them."""
    reason: str
    missed_ratio: float | None = None
    """How far it is from the objectives of latency, as a ratio; None: that is not why."""

    def to_dict(self) -> dict[str, Any]:
        """The same as data."""
        names_of = {"gpu": self.gpu, "precision": self.precision, "layout": self.layout}
        return names_of | {"reason": self.reason, "missed_ratio": self.missed_ratio}


def model_of(request: PlanRequest, asked: Load) -> ModelSpec:
    """The model of a request.

    Raises:
        RequestError: it generates no text, or only with an encoder.
        InfeasibleError: it has too few positions for the load.
    """
    model = spec(ModelSpec, request.model)
    if not model.causal or model.encoder_layer_count:
        raise RequestError(f"model: {model.name} is no decoder of text; plans are of those")
    if asked.longest_tokens > (model.max_positions or float("inf")):
        longest = f"{asked.longest_tokens:.0f} tokens"
        raise InfeasibleError(f"prompt and output are {longest}, but {model.name} has {model.max_positions} positions")
    return model


def spec(kind: type[S], value: S | str) -> S:
    """The spec that a name or a path stands for."""
    if not isinstance(value, str):
        return value
    if kind is ModelSpec and value in names(NetworkSpec):
        raise RequestError(f"model: {value} is a network of layers; a plan is of models that generate text")
    if not is_path(value):
        return load(kind, value)
    from ..importers.foreign import find

    return find(kind, value)


def precisions_of(request: PlanRequest) -> tuple[PrecisionSpec, ...]:
    """The precisions to choose from."""
    return tuple(spec(PrecisionSpec, value) for value in request.precisions or (PLAIN,))


def layouts(model: ModelSpec, gpu: GpuSpec, most: int) -> Iterator[LayoutSpec]:
    """Layouts of a replica of at most so many devices.

    Powers of two of tensor-parallel ranks inside a node, experts whole or sliced, and stages of the largest of them.
    """
    powers = [2**i for i in range(most.bit_length()) if 2**i <= most]
    inside = [tp for tp in powers if tp <= node_ranks(gpu) and divides(model, tp)] or [1]
    sparse = any(isinstance(group.ffn, MoeFfn) for group in model.groups)
    for tp in inside:
        yield LayoutSpec(tp=tp)
        if sparse and tp > 1:
            yield LayoutSpec(tp=tp, ep=tp)
    for pp in powers[1:]:
        if inside[-1] * pp <= most and pp <= model.layer_count:
            yield LayoutSpec(tp=inside[-1], pp=pp)


def cases(request: PlanRequest, model: ModelSpec, gpus: tuple[GpuSpec, ...], refused: list[Rejected]) -> Iterator[Case]:
    """Every case that can be built; what cannot is added to `refused`."""
    engine = spec(EngineSpec, request.engine)
    for gpu in gpus:
        for precision in precisions_of(request):
            for layout in layouts(model, gpu, request.max_replica_devices):
                try:
                    yield make_case(model, gpu, engine, precision, layout)
                except InfeasibleError as error:
                    refused.append(Rejected(gpu.name, precision.name, words(layout), str(error)))
                    if layout.ranks == 1:
                        break


def words(layout: LayoutSpec) -> str:
    """A layout as its flags."""
    given = {name: getattr(layout, name) for name in ("tp", "pp", "ep")}
    return " ".join(f"{name} {count}" for name, count in given.items() if count > 1 or name == "tp")
