"""What engines do beyond one pass over a prompt and one token a step, as fields of a request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Self

from pydantic import Field, model_validator

from .gpu import GpuSpec
from .images import Images
from .link import LinkSpec
from .model import ModelSpec
from .named import named
from .precision import PrecisionSpec
from .quantities import Flag, Fraction, Natural, Part, Single, Whole

TOKENS: Final = ("prefix_len", "prefill_chunk", "draft_tokens")
"""Fields that count tokens."""

OWN_MODULES: Final = "mtp"
"""The draft that a model's own modules for predicting several tokens are."""

_NEEDED: Final = {
    "acceptance": "draft",
    "draft_tokens": "draft",
    "draft_precision": "draft",
    "prefill_gpu": "disaggregated",
    "prefill_tp": "disaggregated",
    "transfer_link": "disaggregated",
}
"""Field -> the one without which it has no effect."""

_HOW: Final = {
    "draft": f"the name of a smaller model, or {OWN_MODULES}",
    "disaggregated": "True",
}


def _field(text: str) -> Any:
    return Field(description=text)


class Techniques(Images):
    """Techniques of a request; with their defaults none is used."""

    prefix_len: Annotated[Natural, _field("prompt tokens that are cached before the prefill")] = 0.0
    prefill_chunk: Annotated[
        Whole | None, _field("most tokens of a sequence that a pass of the prefill takes (default: all)")
    ] = None
    draft: Annotated[
        Annotated[ModelSpec | str, named(ModelSpec)] | None,
        _field("model that guesses tokens ahead on the same devices, or mtp for the model's own modules"),
    ] = None
    draft_precision: Annotated[
        Annotated[PrecisionSpec | str, named(PrecisionSpec)] | None,
        _field("precision of the draft (default: the model's)"),
    ] = None
    acceptance: Annotated[Fraction | None, _field("how often the model accepts a guess of the draft")] = None
    draft_tokens: Annotated[
        Whole | None, _field("tokens that the draft guesses in a step (default: the fastest number up to 16)")
    ] = None
    offload_weights: Annotated[Part, _field("share of the weights that is kept in host memory")] = 0.0
    offload_kv: Annotated[Part, _field("share of the key-value cache that is kept in host memory")] = 0.0
    offload_to: Annotated[
        Annotated[LinkSpec | str, named(LinkSpec)] | None,
        _field("drive that holds them in place of host memory, as nvme-gen4 (`list links`)"),
    ] = None
    disaggregated: Annotated[Flag, _field("prefill on devices of its own, which send the cache")] = False
    prefill_gpu: Annotated[
        Annotated[GpuSpec | str, named(GpuSpec)] | None, _field("device of the prefill (default: gpu)")
    ] = None
    prefill_tp: Annotated[Single | None, _field("tensor-parallel ranks of the prefill (default: tp)")] = None
    transfer_link: Annotated[
        Annotated[LinkSpec | str, named(LinkSpec)] | None,
        _field("link over which the cache moves, one of each device (default: the device's network)"),
    ] = None

    @property
    def techniques(self) -> frozenset[str]:
        """Fields of techniques that were given."""
        return frozenset(self.model_fields_set & Techniques.model_fields.keys())

    @model_validator(mode="after")
    def _techniques_agree(self) -> Self:
        if self.techniques:
            for problem in self._disagreements():
                raise ValueError(problem)
        return self

    def _disagreements(self) -> Iterator[str]:
        """Fields that have no effect, or miss another."""
        for field in sorted(self.techniques & _NEEDED.keys()):
            needed = _NEEDED[field]
            if getattr(self, field) is not None and not getattr(self, needed):
                yield f"{field} has no effect without {needed}: give {needed} = {_HOW[needed]}"
        if self.draft is not None and self.acceptance is None:
            yield "draft needs acceptance: give how often the model accepts a guess, as acceptance = 0.7"
        if self.offload_to is not None and not self.techniques & {"offload_weights", "offload_kv"}:
            yield "offload_to has no effect without offload_weights or offload_kv: give the share of one"
