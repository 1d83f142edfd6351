"""Number formats that can be measured, and what they are called elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any, Final

from ..errors import RequestError
from .device import Device
from .packages import tensors


@dataclass(frozen=True, slots=True)
class Precision:
    """How weights and activations are kept while a model is timed."""

    word: str
    """What records call it."""
    values: str
    """What torch calls the type of activations."""
    estimated: str
    """The precision of an estimate."""
    products: str = "highest"
    """How exact products of 32-bit numbers are, as torch calls it."""
    narrow: bool = False
    """Whether dense layers keep their weights in 8 bits."""

    @property
    def dtype(self) -> Any:
        """The type as a `torch.dtype`."""
        return getattr(tensors(), self.values)

    @contextmanager
    def products_of(self) -> Iterator[None]:
        """Products of 32-bit numbers as exact as this precision wants them, as long as it lasts."""
        torch = tensors()
        products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        torch.set_float32_matmul_precision(self.products)
        torch.backends.cudnn.allow_tf32 = self.products == "high"
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(products)
            torch.backends.cudnn.allow_tf32 = convolutions

    def check(self, device: Device) -> None:
        """Refuse what a device does not compute in, before anything is built.

        Raises:
            RequestError: it does not, or a package for it is missing.
        """
        if self.products == "high" and not device.accelerates:
            raise RequestError(f"precision: the processor has no {self.word}; give fp32, bf16 or fp16")
        if self.narrow and find_spec("bitsandbytes") is None:
            raise RequestError(f"precision {self.word}: needs the package bitsandbytes: pip install bitsandbytes")


PRECISIONS: Final[Mapping[str, Precision]] = {
    each.word: each
    for each in (
        Precision("fp32", "float32", "fp32"),
        Precision("tf32", "float32", "tf32", products="high"),
        Precision("bf16", "bfloat16", "bf16"),
        Precision("fp16", "float16", "w16a16"),
        Precision("int8", "float16", "llm-int8", narrow=True),
    )
}


def precision_of(word: str) -> Precision:
    """The precision of a word.

    Raises:
        RequestError: there is none.
    """
    if word not in PRECISIONS:
        near = get_close_matches(word, PRECISIONS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RequestError(f"precision: '{word}' cannot be measured; give {', '.join(PRECISIONS)}{hint}")
    return PRECISIONS[word]
