"""Every exception of the library.

* LlmPerfModelError        base: catch this to catch all
  + SpecError              a file or a value is wrong (where, what is, what would be right)
    - UnknownNameError     no such model, GPU, engine, precision or link (with near matches)
  + RequestError           a request is wrong by itself (batch 0, efficiency 1.5)
  + InfeasibleError        a well-formed request cannot run (tp does not divide the heads)
    - OutOfMemoryError     it needs more memory than the device has (by how much, what would fit)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LlmPerfModelError(Exception):
    """Base of all errors of this library."""


class SpecError(LlmPerfModelError, ValueError):
    """A spec file or a value in it is wrong."""


class UnknownNameError(SpecError):
    """No spec of that name."""


class RequestError(LlmPerfModelError, ValueError):
    """A request is wrong by itself."""


class InfeasibleError(LlmPerfModelError):
    """A well-formed request cannot run."""


class OutOfMemoryError(InfeasibleError):
    """The request needs more memory than the device has.

    `detail` says so as data: the peak and the limit in bytes, what is missing, and what would fit.
    """

    def __init__(self, message: str, detail: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.detail: dict[str, Any] = dict(detail or {})
