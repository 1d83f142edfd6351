"""The sound that an encoder reads -> the nodes before its layers."""

from __future__ import annotations

from collections.abc import Iterator

from ..ops.convolution import Convolution
from ..ops.dense import Embedding
from ..ops.node import Node
from ..specs.model import AudioInput
from .parts import Parts


def frames(parts: Parts, spec: AudioInput) -> Iterator[Node]:
    """Frames to tokens: two convolutions, whole on every rank, each with an activation, and a row of positions [1]_.

    A sample of them is one token: `stride` frames go in, and as many places come out of the first convolution.

    .. [1] A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", arXiv:2212.04356.
    """
    hidden, heard, p = float(parts.model.hidden), float(spec.stride), parts.precision
    for name, channels, places in (("conv1", float(spec.mel_bins), heard), ("conv2", hidden, 1.0)):
        op = Convolution(
            in_channels=channels,
            out_channels=hidden,
            window=float(spec.window),
            positions=places,
            in_values=heard * channels,
            groups=1.0,
            weight_bytes=p.wide_bytes,
            activation_bytes=p.activation_bytes,
            extra=hidden,  # biases
        )
        yield Node(name, "convolution", op, place="first")
        yield Node(f"{name}_activation", "convolution", parts.pass_over(places * hidden, passes=2.0), place="first")
    rows = Embedding(0.0, (float(spec.position_rows),), hidden, 1.0, p.wide_bytes, p.activation_bytes)
    yield Node("positions", "embedding", rows, place="first")
