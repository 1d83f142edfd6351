"""A network of explicit layers, as a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from ..errors import InfeasibleError
from .base import Count, FileSpec, Positive
from .layer import Layer, Shape, shape_after, text_of


class NetworkSpec(FileSpec):
    """Layers in the order in which they run, for inputs of one shape.

    `parameters` and `multiply_adds` (of one sample) are the published counts; what is built from the layers must
    meet them within 1 %.
    """

    input: Annotated[tuple[Count, ...], Field(min_length=1, max_length=3)]
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]
    parameters: Positive
    multiply_adds: Positive | None = None

    @property
    def causal(self) -> bool:
        """Whether text is generated."""
        return False

    @property
    def head(self) -> str:
        """No scores over a vocabulary."""
        return "none"

    @property
    def position(self) -> str:
        """No positions."""
        return "none"

    @property
    def max_positions(self) -> None:
        """No longest sequence."""

    @property
    def source_positions(self) -> None:
        """No longest input."""

    @property
    def layer_count(self) -> int:
        """Layers that the host starts one by one."""
        return len(self.layers)

    def samples_of(self, shape: Shape | None) -> Shape:
        """The shape of samples: `shape`, or that of the file.

        Raises:
            InfeasibleError: a layer does not take what the layers before it make of such samples.
        """
        given = shape or self.input
        try:
            shape_after(self.layers, given)
        except ValueError as error:
            raise InfeasibleError(f"input_shape {text_of(given)} does not suit {self.name}: {error}") from None
        return given

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        try:
            shape_after(self.layers, self.input)
        except ValueError as error:
            yield "layers", str(error)
