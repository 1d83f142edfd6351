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


def like(other: Command, without: tuple[str, ...] = ()) -> Callable[[Command], Command]:
    """Makes flags of those of another command, in place of the `**` parameter that a command ends with.

    All but the first are given by name. Signature and docstring list them.
    """

    def extended(command: Command) -> Command:
        own = [each for each in inspect.signature(command).parameters.values() if each.kind is not each.VAR_KEYWORD]
        taken = {each.name for each in own} | set(without)
        more = [each for each in inspect.signature(other).parameters.values() if each.name not in taken]
        flags = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own[1:], *more)]
        helps = {name: line for line, name in re.findall(r"^( {8}(\w+): .*)$", other.__doc__ or "", flags=re.MULTILINE)}
        lines = "\n".join(helps[each.name] for each in more)
        command.__doc__ = re.sub(r"^ *\*\*.*$", lambda _: lines, command.__doc__ or "", flags=re.MULTILINE)
        vars(command)["__signature__"] = inspect.Signature([own[0], *flags])
        return command

    return extended
