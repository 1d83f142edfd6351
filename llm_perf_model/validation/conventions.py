"""How sources count and measure, where that differs from the definitions of the project."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from ..specs.catalog import data_folder
from .records import Record

MATCHED: Final = {
    "source": "source",
    "engine": "engine",
    "operator": "operator",
    "device": "device",
    "dtype": "w_dtype",
    "extra": "extra_text",
    "model": "model",
    "metric": "metric",
    "note": "note",
}
"""Key of a rule that is a regular expression -> the field of a record that it searches."""


def convention(record: Record) -> Mapping[str, Any]:
    """Everything that the rules which match a record say; a later rule overrides an earlier one."""
    return _merged(*(getattr(record, field) for field in MATCHED.values()))


@cache
def _merged(*values: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for rule in _rules():
        patterns = zip(MATCHED, values, strict=True)
        if all(re.search(rule[key], value) for key, value in patterns if key in rule):
            found |= {key: value for key, value in rule.items() if key not in MATCHED and key != "why"}
    return found


@cache
def _rules() -> tuple[Mapping[str, Any], ...]:
    return tuple(json.loads((data_folder("records") / "conventions.json").read_bytes()))
