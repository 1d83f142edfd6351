"""Layers of a network: what each is, and the shape that it makes of the shape that it is given."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from .base import Count, Spec

Shape = tuple[int, ...]
"""Channels, height and width; steps and features; or features alone."""

Pointwise = Literal["relu", "relu6", "hard_swish", "hard_sigmoid", "silu", "gelu", "sigmoid", "tanh"]


def _spatial(shape: Shape, kind: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{kind} takes channels, height and width, but its input is {text_of(shape)}")
    return shape[0], shape[1], shape[2]


def _slid(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """Positions of a window that slides over `size` values."""
    reach = dilation * (kernel - 1) + 1
    if size + 2 * padding < reach:
        raise ValueError(f"a window of {reach} does not fit into {size} values padded by {padding}")
    return (size + 2 * padding - reach) // stride + 1


def text_of(shape: Shape) -> str:
    """`3 x 224 x 224`."""
    return " x ".join(map(str, shape))


class Conv(Spec):
    """Filters over patches, with the norm and the activation that follow them."""

    kind: Literal["conv"]
    channels: Count
    kernel: Count
    stride: Count = 1
    padding: Annotated[int, Field(ge=0)] = 0
    dilation: Count = 1
    groups: Count = 1
    bias: bool = False
    norm: bool = False
    """Whether a batch norm follows."""
    activation: Pointwise | None = None

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        channels, *size = _spatial(given, self.kind)
        if channels % self.groups or self.channels % self.groups:
            raise ValueError(f"{channels} to {self.channels} channels do not split into {self.groups} groups")
        return (self.channels, *(_slid(n, self.kernel, self.stride, self.padding, self.dilation) for n in size))


class Pool(Spec):
    """The largest or the mean value of a window."""

    kind: Literal["max_pool", "average_pool"]
    kernel: Count
    stride: Count
    padding: Annotated[int, Field(ge=0)] = 0

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        channels, *size = _spatial(given, self.kind)
        return (channels, *(_slid(n, self.kernel, self.stride, self.padding) for n in size))


class GlobalPool(Spec):
    """The mean of each channel."""

    kind: Literal["global_pool"]

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return (_spatial(given, self.kind)[0],)


class Flatten(Spec):
    """All values in one row."""

    kind: Literal["flatten"]

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return (prod(given),)


class Rows(Spec):
    """Each channel as a step of a sequence."""

    kind: Literal["rows"]

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return (given[0], prod(given[1:]))


class Dense(Spec):
    """A product with a matrix; of a sequence, of its last step."""

    kind: Literal["linear"]
    features: Count
    bias: bool = True
    activation: Pointwise | None = None

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        if len(given) > 2:
            raise ValueError(f"linear takes one row, but its input is {text_of(given)}: flatten it first")
        return (self.features,)


class Lstm(Spec):
    """Stacked long short-term memories: four gates from the input and from the step before."""

    kind: Literal["lstm"]
    hidden: Count
    layers: Count = 1
    bias: bool = True

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        if len(given) != 2:
            raise ValueError(f"lstm takes steps and features, but its input is {text_of(given)}")
        return (given[0], self.hidden)


class SqueezeExcite(Spec):
    """Channels scaled by two dense layers over their means."""

    kind: Literal["squeeze_excite"]
    channels: Count

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return _spatial(given, self.kind)


class Residual(Spec):
    """The sum of a body and its input, which may pass layers of its own."""

    kind: Literal["residual"]
    body: Annotated[tuple[Layer, ...], Field(min_length=1)]
    shortcut: tuple[Layer, ...] = ()
    activation: Pointwise | None = None

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        made, beside = shape_after(self.body, given), shape_after(self.shortcut, given)
        if made != beside:
            raise ValueError(f"the body makes {text_of(made)} and the shortcut {text_of(beside)}")
        return made


Layer: TypeAlias = Annotated[
    Conv | Pool | GlobalPool | Flatten | Rows | Dense | Lstm | SqueezeExcite | Residual, Field(discriminator="kind")
]
Residual.model_rebuild()


def shape_after(layers: Iterable[Layer], given: Shape) -> Shape:
    """Shape after all layers.

    Raises:
        ValueError: a layer does not take the shape before it; the message names the layer.
    """
    for number, layer in enumerate(layers):
        try:
            given = layer.shape(given)
        except ValueError as error:
            raise ValueError(f"layer {number} ({layer.kind}): {error}") from None
    return given
