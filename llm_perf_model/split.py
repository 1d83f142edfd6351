"""Memory of all devices of a layer split together."""

from __future__ import annotations

from .case import Case
from .graph.parts import FLOAT32_BYTES
from .graph.stack import weights_bytes
from .specs.model import ModelSpec
from .types import Num

BOUNDARY_TENSORS = 2.0
"""A stage's input and its output."""


def split_allocated_bytes(case: Case, batch_size: Num, input_len: Num) -> Num:
    r"""What the framework counts as allocated on all stages when the logits of a forward pass are there.

    .. math:: W + T\,(2 n h\,b_a + V (b_a + b_w + b_r))

    with W the weights, T tokens, n stages that hold their input and output of h values each, and the
    logits of V values a token: as computed on the last stage, cast to 32 bits there (:math:`b_w`) where the
    reference implementation does so, and returned to the first stage (:math:`b_r`) unless the head is tied
    to the embedding and lies there anyway. Shape: broadcast.
    """
    model, b = case.model, case.precision.activation_bytes
    assert isinstance(model, ModelSpec), "a layer split is one of a transformer"
    cast_bytes = FLOAT32_BYTES if model.wide_logits else 0.0
    returned_bytes = 0.0 if model.tied_embeddings else cast_bytes or b
    boundary_bytes = BOUNDARY_TENSORS * case.layout.layer_split * model.hidden * b
    logits_bytes = model.vocab * (b + cast_bytes + returned_bytes)
    return weights_bytes(case.graph) + batch_size * input_len * (boundary_bytes + logits_bytes)
