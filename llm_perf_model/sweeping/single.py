"""One configuration, and those that differ from it in numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..api import answer, case_of
from ..case import Case
from ..errors import RequestError
from ..estimate import Estimate
from ..specs.model import ModelSpec
from ..specs.request import Request
from ..types import Array


class Single(NamedTuple):
    """A configuration with its estimate, and the case that others share with it."""

    request: Request
    case: Case
    estimate: Estimate

    @classmethod
    def of(cls, fields: Mapping[str, Any], asked: str) -> Single:
        """The configuration of the fields of a request; `asked` is the name of the question.

        Raises:
            RequestError: a field is wrong, or holds several values.
            SpecError: a name is unknown or a file is not valid.
            InfeasibleError: the request is well-formed but cannot run.
        """
        request = Request.of(fields)
        for field in type(request).model_fields:
            value = getattr(request, field)
            if isinstance(value, np.ndarray):
                raise RequestError(f"{field}: holds {value.size} values; {asked} is about one configuration: give one")
        case = case_of(request)
        return cls(request, case, answer(request, case))

    def at(self, columns: Mapping[str, Array]) -> Estimate:
        """The estimate of many points: the columns hold a number for each, other fields stay as they are."""
        return answer(self.request.model_copy(update=dict(columns)), self.case)

    @property
    def rates(self) -> dict[str, float]:
        """How fast the device is, by field; the link is one of them where there is one."""
        given, inside = self.request, self.case.joints.inside
        rates = {
            "hbm_bytes_per_s": given.hbm_bytes_per_s or self.case.gpu.hbm_bytes_per_s,
            "flops_per_s": given.flops_per_s or self.case.machine.peak_flops_per_s,
        }
        if inside is not None:
            rates["link_bytes_per_s"] = given.link_bytes_per_s or inside.bytes_per_s
        return {field: float(rate) for field, rate in rates.items()}

    @property
    def counts(self) -> dict[str, float]:
        """Sequences and their lengths, by field, as far as the model has them."""
        model, w = self.case.model, self.estimate.workload
        counts = {"batch_size": w.batch_size}
        if isinstance(model, ModelSpec):
            counts["input_len"] = w.input_len
        if model.causal:
            counts["output_len"] = w.output_len
        return {field: float(count) for field, count in counts.items()}

    @property
    def least(self) -> dict[str, float]:
        """The least that these may be."""
        layout = self.case.layout
        shared = layout.attention_dp * (layout.micro_batches or 1)
        prompt = max(float(self.request.prefix_len) + 1.0, self._image_tokens)
        return {"batch_size": float(shared), "input_len": prompt, "output_len": 1.0}

    @property
    def _image_tokens(self) -> float:
        """Tokens of the images of a prompt."""
        model, patches = self.case.model, self.estimate.case.allocation.patches
        if not self.request.images or not isinstance(model, ModelSpec) or model.vision is None:
            return 0.0
        return float(self.request.images * (patches - model.vision.class_token) / model.vision.merged)

    @property
    def decodes(self) -> bool:
        """Whether there are steps after the prefill."""
        return self.case.model.causal and float(self.estimate.workload.output_len) > 1.0

    def remarks(self) -> tuple[str, ...]:
        """Whether the configuration itself can run, in a line for people where it cannot."""
        if not np.all(self.estimate.fits):
            return ("it does NOT fit the memory: times are those of a device that has room for it",)
        if np.any(self.estimate.extrapolated):
            return (f"it exceeds the positions of {self.case.model.name}",)
        return ()
