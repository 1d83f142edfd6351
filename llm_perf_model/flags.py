"""Fields of a spec as flags of a command."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from .report.document import Report

Command = Callable[..., Report]


def taking(*kinds: type[BaseModel]) -> Callable[[Command], Command]:
    """Makes flags of the fields of specs, in place of the `**` parameter that a command ends with.

    Signature and docstring list them instead, so that help, and what looks for unknown flags, find them.
    """

    def extended(command: Command) -> Command:
        signature, fields = inspect.signature(command), [each for kind in kinds for each in kind.model_fields.items()]
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        flags = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default) for name, field in fields
        ]
        lines = "\n".join(f"        {name}: {field.description}" for name, field in fields)
        command.__doc__ = re.sub(r"^ *\*\*.*$", lines, command.__doc__ or "", flags=re.MULTILINE)
        vars(command)["__signature__"] = signature.replace(parameters=[*own, *flags])
        return command

    return extended


def given_to(values: dict[str, Any], rest: str) -> dict[str, Any]:
    """What a command was called with: its parameters, and those of its `**` parameter, of the name `rest`."""
    return {flag: value for flag, value in (values | values[rest]).items() if flag != rest and value is not None}
