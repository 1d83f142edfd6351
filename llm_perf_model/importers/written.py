"""A spec as a file of the catalogue."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from ..specs.base import FileSpec


def data_of(spec: FileSpec) -> dict[str, Any]:
    """The fields that a file needs: those that differ from their defaults, and what kind of block each block is."""
    data: dict[str, Any] = json.loads(json.dumps(_plain(spec)))
    return data


def text_of(spec: FileSpec) -> str:
    """The file, with a line a field."""
    return json.dumps(data_of(spec), indent=2) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        given = {name: getattr(value, name) for name in fields}
        return {name: _plain(item) for name, item in given.items() if name == "kind" or item != fields[name].default}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return sorted(value) if isinstance(value, frozenset) else _whole(value)


def _whole(value: Any) -> Any:
    """A number without a fraction as a whole one, where it is not long."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value
