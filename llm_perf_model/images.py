"""Images of a prompt on a case: the pass of their encoder, and what it must find room for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .case import AnyModel, Case
from .errors import InfeasibleError, RequestError
from .generate import Phase, vision
from .rates import Machine
from .specs.model import ModelSpec
from .specs.request import Request
from .types import Num


def patches_of(model: AnyModel, request: Request) -> float:
    r"""Patches of an image, :math:`\lceil H / p \rceil \lceil W / p \rceil` up to whole tokens, and a class token.

    Raises:
        InfeasibleError: the model has no encoder of images.
        RequestError: the prompt has no room for the tokens of its images.
    """
    spec = model.vision if isinstance(model, ModelSpec) else None
    if spec is None:
        raise InfeasibleError(f"images: {model.name} has no encoder of images; leave images out")
    if isinstance(model, ModelSpec) and model.crossed_layers:
        raise InfeasibleError(f"images: {model.name} attends to them in layers of their own, which is not modelled")
    height, width = (-(-pixels // spec.patch) for pixels in request.image_size)
    tokens = -(-height * width // spec.merged)
    excess = request.images * tokens - request.input_len
    if np.any(excess > 0.0):
        needed = float(np.max(np.broadcast_to(request.images * tokens, np.shape(excess))))
        raise RequestError(
            f"images: are {tokens} tokens each, which are part of the prompt; give input_len of at least {needed:.0f}, "
            "or fewer or smaller images"
        )
    return float(tokens * spec.merged + spec.class_token)


def seen(phase: Phase, case: Case, machine: Machine, request: Request, batch_size: Num) -> Phase:
    """The prefill behind a pass over the patches of its images, in which they see only each other."""
    if not np.any(request.images):
        return phase
    return replace(phase, encoder=vision(case.graph, machine, batch_size * request.images, case.allocation.patches))
