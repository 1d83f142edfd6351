"""Names that a user gives: text, or the spec itself."""

from __future__ import annotations

from pydantic import PlainValidator

from .base import FileSpec
from .quantities import shortened


def named(*kinds: type[FileSpec]) -> PlainValidator:
    """Accepts a spec of the kinds, or text; a command line turns the name `70` into a number."""

    def check(value: object) -> object:
        if isinstance(value, (*kinds, str)):
            return value
        if value is True:
            raise ValueError("is given without a value; give a name, an alias or a path to a JSON file")
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        raise ValueError(f"is {shortened(value)}; must be a name, a path to a JSON file or a spec")

    return PlainValidator(check)
