"""Images of a prompt, as fields of a request."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from .quantities import Natural, shortened

DEFAULT_SIZE: Final = (448, 448)


def _size(value: object) -> tuple[int, int]:
    """Height and width in pixels, as two whole numbers or as text: `448x448`."""
    if isinstance(value, str) and re.fullmatch(r"\d+\s*[x,]\s*\d+", value.strip()):
        value = [int(item) for item in re.split(r"[x,]", value)]
    if isinstance(value, list | tuple) and len(value) == len(DEFAULT_SIZE):
        height, width = value
        if type(height) is int and type(width) is int and min(height, width) >= 1:
            return height, width
    raise ValueError(f"is {shortened(value)}; must be height and width in pixels, as 448x448")


class Images(BaseModel):
    """Images of each prompt, whose tokens are among those of the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    images: Annotated[Natural, Field(description="images of each prompt, whose tokens are among input_len")] = 0.0
    image_size: Annotated[
        tuple[int, int], PlainValidator(_size), Field(description="height and width of each image in pixels")
    ] = DEFAULT_SIZE
