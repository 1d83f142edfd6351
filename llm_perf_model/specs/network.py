"""A network of explicit layers, as a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from .base import Count, FileSpec, Positive
from .layer import Layer, shape_after


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

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        try:
            shape_after(self.layers, self.input)
        except ValueError as error:
            yield "layers", str(error)
