"""The libraries that measure, loaded when they are used (extra `measure`)."""

from __future__ import annotations

from typing import Any

from ..errors import RequestError


def tensors() -> Any:
    """The package torch.

    Raises:
        RequestError: it is missing.
    """
    try:
        import torch
    except ImportError:
        raise missing("torch") from None
    return torch


def missing(package: str) -> RequestError:
    """One line for a package that is not installed."""
    return RequestError(f"measuring needs the package {package}: pip install 'llm-perf-model[measure]'")
