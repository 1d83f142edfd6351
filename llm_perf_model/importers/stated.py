"""What a file of another tool states, field by field, and why the rest of a spec holds what it holds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SpecError
from ..specs.base import Assumption


def slug(text: str) -> str:
    """A text as a name of the catalogue."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unnamed"


@dataclass(frozen=True, slots=True)
class Stated:
    """The fields of a file, by dotted key where they are nested; what is null is not there."""

    where: str
    """The file, for messages."""
    tool: str
    """Whose file it is."""
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, where: str, tool: str, data: Mapping[str, Any]) -> Stated:
        """The fields of nested data."""
        fields: dict[str, Any] = {}
        for key, value in data.items():
            if isinstance(value, Mapping):
                inside = cls.of(where, tool, {f"{key}.{below}": item for below, item in value.items()})
                fields |= inside.fields
            elif value is not None:
                fields[str(key)] = value
        return cls(where, tool, fields)

    def refuse(self, problem: str) -> SpecError:
        """The error of a file that is not as it should be."""
        return SpecError(f"{self.where}: {problem}")

    def only(self, known: Collection[str]) -> None:
        """Refuse a field that is not known: it may change what the file means."""
        for key in self.fields:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise self.refuse(f"{key} is no field of {self.tool}{hint}")

    def positive(self, key: str) -> float | None:
        """A number above 0; None where there is none."""
        value = self.fields.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.refuse(f"{key} is {value!r}; must be a number above 0")
        return float(value)

    def count(self, key: str) -> int | None:
        """A whole number of at least 1; None where there is none."""
        value = self.positive(key)
        if value is not None and value != int(value):
            raise self.refuse(f"{key} is {value:g}; must be a whole number")
        return None if value is None else int(value)

    def needed(self, key: str) -> float:
        """A number above 0 that has to be there."""
        value = self.positive(key)
        if value is None:
            raise self.refuse(f"{key} is missing from this file of {self.tool}")
        return value

    def needed_count(self, key: str) -> int:
        """A whole number that has to be there."""
        value = self.count(key)
        if value is None:
            raise self.refuse(f"{key} is missing from this file of {self.tool}")
        return value

    def says(self, *fields: str) -> Assumption:
        """Origin of fields that the file states."""
        return Assumption(fields=fields, reason=f"as {self.where.rsplit('/', 1)[-1]} of {self.tool} says")

    def silent(self, reason: str, *fields: str) -> Assumption:
        """Origin of fields that it does not state."""
        return Assumption(fields=fields, reason=f"{self.tool} does not say: {reason}")
