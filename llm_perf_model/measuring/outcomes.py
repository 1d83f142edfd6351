"""What becomes of a call that is tried: its result, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from ..errors import LlmPerfModelError
from .device import Device

T = TypeVar("T")

_FULL: Final = ("out of memory", "can't allocate memory", "not enough memory", "unable to allocate")
"""Words of an error that say that the memory is full."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that did not end."""

    outcome: Literal["oom", "runtime_error"]
    reason: str


def attempt(call: Callable[[], T], device: Device | None = None) -> T | Failure:
    """The result of a call; a failure where it raises, and memory that it left behind is given back.

    Raises:
        LlmPerfModelError: the request itself is wrong.
    """
    try:
        return call()
    except LlmPerfModelError:
        raise
    except Exception as error:  # whatever a framework raises is an outcome of what is measured
        failure = failure_of(error)
    if device is not None:
        device.release()
    return failure


def failure_of(error: BaseException) -> Failure:
    """An error as the outcome of a measurement."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = (lines or [type(error).__name__])[0]
    full = isinstance(error, MemoryError) or any(words in str(error).lower() for words in _FULL)
    return Failure("oom" if full else "runtime_error", reason[:200])


def reason_of(result: Any) -> str:
    """Why there is no result; empty where there is one."""
    return result.reason if isinstance(result, Failure) else ""
