"""What is read of a graph so far: layers, the shape of a sample after them, and the axes of the tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

from ..specs.layer import (
    Conv,
    Dense,
    Flatten,
    Layer,
    Parallel,
    PatchEmbedding,
    Pointwise,
    Residual,
    Rows,
    Separate,
    Shape,
    pair,
    text_of,
)
from .axes import Axes, plain, regrouped, renamed, sizes_of
from .program import Op

_LETTERS = {1: "f", 2: "tf", 3: "chw"}
"""Axes of a sample by how many its shape has."""


@dataclass(slots=True)
class Reading:
    """A walk along a path of operators."""

    shape: Shape
    axes: Axes
    samples: int
    """Batch of the file."""
    layers: list[Layer] = field(default_factory=list)
    directions: int = 1
    """Ways of a recurrent layer that are still an axis of their own."""
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Zeros that an operator has put around the map, which the next window takes over."""
    weights: int = 0
    """Elements of initialisers that the operators so far have read."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Values of each axis of the tensor."""
        found = dict(zip(_LETTERS[len(self.shape)], self.shape, strict=True)) | {"n": self.samples}
        if "f" in found:
            found |= {"d": self.directions, "f": found["f"] // self.directions}
        return found

    @property
    def width(self) -> int:
        """Channels, or features."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    def branch(self) -> Reading:
        """A reading that begins where this one is."""
        return replace(self, layers=[], weights=0)

    def holds(self, *axes: str) -> bool:
        """Whether the tensor has these axes in this order, whatever has one value."""
        return plain(self.axes, self.sizes) == plain(axes, self.sizes)

    def add(self, layer: Layer, axes: Axes) -> None:
        """Go on behind a layer."""
        self.shape, self.axes, self.directions = layer.shape(self.shape), axes, 1
        self.layers.append(layer)

    def check(self, op: Op, made: Shape) -> None:
        """Refuse layers whose shape is not that of the tensor in the file."""
        found = sizes_of(self.axes, self.sizes)
        if found != made and not any(self.padding):
            raise op.refused(f"makes {text_of(made)} in the file, but {text_of(found)} by its layers")

    # Views: no layer, until one needs its input in another form.

    def regroup(self, op: Op) -> None:
        """Another shape for the same values in their order."""
        axes = regrouped(self.axes, self.sizes, op.made)
        if axes is None:
            raise op.refused(f"{text_of(op.given)} to {text_of(op.made)} splits channels, steps or features")
        self.axes = axes

    def settle(self) -> None:
        """A map whose axes are merged becomes a sequence or a row, before branches or the end take it."""
        held = plain(self.axes, self.sizes)
        if len(self.shape) == 3 and len(held) == 1 and len(held[0]) > 1:
            self.flatten()
        elif len(self.shape) == 3 and "hw" in held:
            self.as_steps()

    def flatten(self) -> None:
        """All values of a sample as features."""
        names = "".join(letter for letter in "".join(self.axes) if letter != "n" and self.sizes[letter] > 1)
        merged = renamed(self.axes, self.sizes, {names: "f"}) if names else (*("" for _ in self.axes[1:]), "f")
        self.add(Flatten(kind="flatten"), merged)

    def as_steps(self) -> bool:
        """Whether the tensor is a sequence of rows of features, if need be the channels or the places of a map."""
        if len(self.shape) == 3:
            if self.holds("c", "hw"):
                self.add(Rows(kind="rows"), renamed(self.axes, self.sizes, {"c": "t", "hw": "f"}))
            elif self.holds("hw", "c"):
                self.add(Rows(kind="places"), renamed(self.axes, self.sizes, {"hw": "t", "c": "f"}))
        return len(self.shape) == 2 and self.holds("t", "f")

    def as_map(self) -> bool:
        """Whether the tensor is a map with its channels first."""
        return len(self.shape) == 3 and self.holds("c", "h", "w")

    @property
    def last(self) -> str:
        """What the last axis holds."""
        return "".join(plain(self.axes[-1:], self.sizes))

    # Layers.

    def product(self, op: Op, features: int, bias: bool) -> None:
        """A matrix that the last axis is multiplied with: of a map, a filter of one place."""
        held = plain(self.axes, self.sizes)
        if len(self.shape) > 1 and held == [self.last] != ["f"]:
            self.flatten()
        elif len(self.shape) == 3 and "c" in self.axes[-1] and self.last == "".join(plain("c", self.sizes)):
            if "hw" not in held:
                self.add(Conv(kind="conv", channels=features, kernel=1, bias=bias), self.axes)
                return
            self.as_steps()
        elif len(self.shape) == 3:
            self.as_steps()
        if "f" not in self.axes[-1] or self.last not in {"f", ""}:
            raise op.refused("is a product over an axis that holds neither features nor channels")
        self.add(Dense(kind="linear", features=features, bias=bias), (*self.axes[:-1], "f"))

    def norm(self) -> None:
        """A scale and a shift of each channel or feature."""
        last = self.layers[-1] if self.layers else None
        if isinstance(last, Conv) and not last.norm and last.activation is None:
            self.layers[-1] = last.model_copy(update={"norm": True})
        else:
            self.layers.append(Separate(kind="pointwise", norm=True))

    def activate(self, activation: Pointwise) -> None:
        """An activation: of the layer before, or on its own where that has one or takes none."""
        last = self.layers[-1] if self.layers else None
        if isinstance(last, Conv | Dense | Residual | Parallel | Separate) and last.activation is None:
            self.layers[-1] = last.model_copy(update={"activation": activation})
        else:
            self.layers.append(Separate(kind="pointwise", activation=activation))

    def bias(self, elements: int) -> bool:
        """Whether constants that are added are the bias of the product before."""
        last = self.layers[-1] if self.layers else None
        if not isinstance(last, Conv | Dense) or last.bias or last.activation is not None:
            return False
        width = last.channels if isinstance(last, Conv) else last.features
        if (isinstance(last, Conv) and last.norm) or elements != width:
            return False
        self.layers[-1] = last.model_copy(update={"bias": True})
        return True

    def patches(self) -> PatchEmbedding | None:
        """The patch embedding that ends here, made of a convolution whose windows do not overlap and its places."""
        last = self.layers[-1] if self.layers else None
        if isinstance(last, PatchEmbedding):
            return last
        if not isinstance(last, Conv) or not self.holds("hw", "c") or self.padding != (0, 0, 0, 0):
            return None
        alone = last.groups == 1 and last.dilation == 1 and not last.norm and last.activation is None
        if not alone or pair(last.kernel) != pair(last.stride) or last.padding != 0:
            return None
        found = PatchEmbedding(kind="patch_embedding", features=last.channels, patch=last.kernel, bias=last.bias)
        self.axes = renamed(self.axes, self.sizes, {"hw": "t", "c": "f"})
        self.layers[-1] = found
        self.shape = (prod(self.shape[1:]), self.shape[0])
        return found

    def learned(self, **options: bool) -> None:
        """What patches are given beside their filters: a class token, positions."""
        last = self.layers[-1].model_copy(update=options)
        self.layers[-1] = last
        if "class_token" in options:
            self.shape = (self.shape[0] + 1, self.shape[1])
