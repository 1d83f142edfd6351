"""Techniques of a request on a case: what they change in its operators, its rates and its memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .case import Case
from .errors import InfeasibleError, RequestError
from .images import patches_of
from .liveness import largest_live
from .ops.node import running
from .specs.request import Request


@dataclass(frozen=True, slots=True)
class Equipment:
    """The techniques of a request, for its case and for others like it."""

    request: Request

    def __call__(self, case: Case) -> Case:
        """The case with what the techniques change."""
        r = self.request
        allocation = replace(
            case.allocation,
            prefix_len=r.prefix_len,
            chunk_tokens=np.inf if r.prefill_chunk is None else r.prefill_chunk,
            images=r.images,
            patches=patches_of(case.model, r) if np.any(r.images) else 0.0,
            vision_live=largest_live(running(case.graph, "vision")),
        )
        return replace(case, allocation=allocation, equip=self)


def equipped(case: Case, request: Request) -> Case:
    """The case with the techniques of a request.

    Raises:
        RequestError: fields of techniques do not agree.
        InfeasibleError: the model or the engine cannot use one.
    """
    _check(case, request)
    return Equipment(request)(case)


def _check(case: Case, r: Request) -> None:
    if not case.model.causal or case.allocation.encodes:
        what = "has an encoder that reads prompts whole" if case.model.causal else "makes one pass and keeps no cache"
        raise InfeasibleError(f"{min(r.techniques)}: {case.model.name} {what}; leave it out")
    if np.any(r.prefix_len >= r.input_len):
        excess = np.argmax(np.ravel(r.prefix_len - r.input_len))
        prefix, prompt = (float(np.ravel(each)[excess]) for each in np.broadcast_arrays(r.prefix_len, r.input_len))
        raise RequestError(
            f"prefix_len: is {prefix:.0f} of the {prompt:.0f} tokens of a prompt; at least one must be left, "
            f"so give at most {prompt - 1.0:.0f}"
        )
