"""Layers of a network: what each is, and the shape that it makes of the shape that it is given."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from .base import Count, Spec

Shape = tuple[int, ...]
"""Channels, height and width; steps and features; or features alone."""

Pointwise = Literal[
    "relu", "relu6", "leaky_relu", "hard_swish", "hard_sigmoid", "silu", "gelu", "sigmoid", "tanh", "elu", "softplus",
    "mish",
]  # fmt: skip


def _form(value: object) -> str:
    if not isinstance(value, tuple | list):
        return "number"
    return "edges" if len(value) == 4 else "pair"


Edge = Annotated[int, Field(ge=0)]
Sides = Annotated[Annotated[Count, Tag("number")] | Annotated[tuple[Count, Count], Tag("pair")], Discriminator(_form)]
"""Of height and width: one number for both, or a pair."""
Edges = Annotated[
    Annotated[Edge, Tag("number")]
    | Annotated[tuple[Edge, Edge], Tag("pair")]
    | Annotated[tuple[Edge, Edge, Edge, Edge], Tag("edges")],
    Discriminator(_form),
]
"""Of height and width: one number for both, or a pair; or of the top, the left, the bottom and the right edge."""


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """Values of height and width."""
    return value if isinstance(value, tuple) else (value, value)


def edges(value: int | tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Values before and after the height, and before and after the width."""
    if isinstance(value, tuple) and len(value) == 4:
        top, left, bottom, right = value
        return (top, bottom), (left, right)
    height, width = value if isinstance(value, tuple) else (value, value)
    return (height, height), (width, width)


def _spatial(shape: Shape, kind: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{kind} takes channels, height and width, but its input is {text_of(shape)}")
    return shape[0], shape[1], shape[2]


def _steps(shape: Shape, kind: str) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"{kind} takes steps and features, but its input is {text_of(shape)}")
    return shape[0], shape[1]


def _slid(size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int = 1) -> int:
    """Positions of a window that slides over `size` values."""
    reach = dilation * (kernel - 1) + 1
    if size + sum(padding) < reach:
        before, after = padding
        padded = before if before == after else f"{before} and {after}"
        raise ValueError(f"a window of {reach} does not fit into {size} values padded by {padded}")
    return (size + sum(padding) - reach) // stride + 1


def text_of(shape: Shape) -> str:
    """`3 x 224 x 224`."""
    return " x ".join(map(str, shape))


class Conv(Spec):
    """Filters over patches, with the norm and the activation that follow them."""

    kind: Literal["conv"]
    channels: Count
    kernel: Sides
    stride: Sides = 1
    padding: Edges = 0
    dilation: Sides = 1
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
        sides = zip(size, pair(self.kernel), pair(self.stride), edges(self.padding), pair(self.dilation), strict=True)
        return (self.channels, *(_slid(*side) for side in sides))


class Pool(Spec):
    """The largest or the mean value of a window."""

    kind: Literal["max_pool", "average_pool"]
    kernel: Sides
    stride: Sides
    padding: Edges = 0

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        channels, *size = _spatial(given, self.kind)
        sides = zip(size, pair(self.kernel), pair(self.stride), edges(self.padding), strict=True)
        return (channels, *(_slid(*side) for side in sides))


class GlobalPool(Spec):
    """The mean of each channel; of a sequence, of each feature."""

    kind: Literal["global_pool"]

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return _steps(given, self.kind)[1:] if len(given) == 2 else _spatial(given, self.kind)[:1]


class Flatten(Spec):
    """All values in one row."""

    kind: Literal["flatten"]

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return (prod(given),)


class Rows(Spec):
    """Each channel as a step of a sequence, or each place, whose features are the channels."""

    kind: Literal["rows", "places"]

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        rows = (given[0], prod(given[1:]))
        return rows if self.kind == "rows" else rows[::-1]


class PatchEmbedding(Spec):
    """Patches of an image as steps of a sequence: a filter a feature, and what is learned for each place."""

    kind: Literal["patch_embedding"]
    features: Count
    patch: Sides
    bias: bool = True
    class_token: bool = False
    """Whether a step that belongs to no patch goes before the others."""
    positions: bool = False
    """Whether each step has features of its own that are added."""

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        _, *size = _spatial(given, self.kind)
        sides = list(zip(size, pair(self.patch), strict=True))
        if any(values % patch for values, patch in sides):
            patch = text_of(pair(self.patch))
            raise ValueError(f"{text_of(tuple(size))} values do not split into patches of {patch}")
        return (prod(values // patch for values, patch in sides) + self.class_token, self.features)


class OneStep(Spec):
    """The first or the last step of a sequence, alone."""

    kind: Literal["first", "last"]

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return _steps(given, self.kind)[1:]


class Dense(Spec):
    """A product of features with a matrix; of a sequence, of each step."""

    kind: Literal["linear"]
    features: Count
    bias: bool = True
    activation: Pointwise | None = None

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        if len(given) > 2:
            raise ValueError(f"linear takes rows of features, but its input is {text_of(given)}: flatten it first")
        return (*given[:-1], self.features)


class LayerNorm(Spec):
    """Features of each step, or channels of each place, brought to mean 0 and variance 1, scaled and shifted."""

    kind: Literal["layer_norm"]
    bias: bool = True

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return given


class Softmax(Spec):
    """Features of each step, or channels of each place, as shares of 1."""

    kind: Literal["softmax"]

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return given


class Separate(Spec):
    """A batch norm, an activation or both that follow no product."""

    kind: Literal["pointwise"]
    norm: bool = False
    """Whether there is a batch norm."""
    activation: Pointwise | None = None

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        if not self.norm and self.activation is None:
            raise ValueError("pointwise needs a norm or an activation")
        return given


class JoinSteps(Spec):
    """Each `steps` of them as one, with their features side by side: those of a square of places, or of a run."""

    kind: Literal["join_steps"]
    steps: Count

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        steps, features = _steps(given, self.kind)
        if steps % self.steps:
            raise ValueError(f"{steps} steps do not join by {self.steps}")
        return (steps // self.steps, features * self.steps)


class Attention(Spec):
    """Self-attention of all steps to all steps, or of those of a window, with the products before and after it."""

    kind: Literal["attention"]
    heads: Count
    bias: bool = True
    window: Count | None = None
    """Side of the squares of steps that see each other; None: every step sees all."""
    relative_positions: Literal["table", "network"] | None = None
    """What a score gains by the places of its two steps in their window: a number of a table for each head, or what a
    small network makes of their distance, with a scale for each head."""

    @model_validator(mode="after")
    def _places_in_a_window(self) -> Self:
        if self.relative_positions and self.window is None:
            raise ValueError("relative_positions are those of a window: give its side")
        return self

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        steps, features = _steps(given, self.kind)
        if features % self.heads:
            raise ValueError(f"{features} features do not split into {self.heads} heads")
        if self.window is not None and steps % self.window**2:
            raise ValueError(f"{steps} steps do not split into windows of {self.window} x {self.window}")
        return given


class Recurrent(Spec):
    """Stacked recurrent layers, whose gates see the input and the output of the step before.

    Long short-term memories, gated recurrent units, or cells of one gate.
    """

    kind: Literal["lstm", "gru", "rnn"]
    hidden: Count
    layers: Count = 1
    bias: bool = True
    bidirectional: bool = False

    @property
    def directions(self) -> int:
        """Ways in which the steps are read, each with weights and an output of its own."""
        return 1 + self.bidirectional

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        return (_steps(given, self.kind)[0], self.directions * self.hidden)


class SqueezeExcite(Spec):
    """Channels scaled by two dense layers over their means."""

    kind: Literal["squeeze_excite"]
    channels: Count
    activation: Pointwise = "relu"
    """Of the first dense layer."""
    gate: Pointwise = "hard_sigmoid"
    """Of the second."""

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


class Parallel(Spec):
    """Branches that take the same input: their outputs side by side, or their product.

    Channels are put side by side; of sequences and rows, features. A factor of a map may have one value a channel.
    """

    kind: Literal["parallel"]
    join: Literal["concat", "multiply"]
    branches: Annotated[tuple[tuple[Layer, ...], ...], Field(min_length=2)]
    activation: Pointwise | None = None

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        made = [shape_after(branch, given) for branch in self.branches]
        whole = max(made, key=len)
        axis = 0 if len(whole) == 3 else len(whole) - 1
        if self.join == "multiply":
            suits = all(one in (whole, (whole[0],)) for one in made)
        else:
            suits = len({(len(one), *one[:axis], *one[axis + 1 :]) for one in made}) == 1
        if not suits:
            raise ValueError(f"the branches make {' and '.join(map(text_of, made))}, which do not {self.join}")
        width = whole[axis] if self.join == "multiply" else sum(one[axis] for one in made)
        return (*whole[:axis], width, *whole[axis + 1 :])


class Repeat(Spec):
    """A body that runs several times in a row, each time with weights of its own."""

    kind: Literal["repeat"]
    count: Count
    body: Annotated[tuple[Layer, ...], Field(min_length=1)]

    def shape(self, given: Shape) -> Shape:
        """Shape of the output."""
        made = shape_after(self.body, given)
        if made != given:
            raise ValueError(f"what is repeated must keep its shape, but it makes {text_of(made)} of {text_of(given)}")
        return made


Layer: TypeAlias = Annotated[
    Conv | Pool | GlobalPool | SqueezeExcite | Flatten | Rows | PatchEmbedding | OneStep | JoinSteps | Dense | LayerNorm
    | Softmax | Separate | Attention | Recurrent | Residual | Parallel | Repeat,
    Field(discriminator="kind"),
]  # fmt: skip
Residual.model_rebuild()
Parallel.model_rebuild()
Repeat.model_rebuild()


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
