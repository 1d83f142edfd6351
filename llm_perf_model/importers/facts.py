"""What files of other tools leave to a name: facts.json, by model type, architecture or version of a device."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def facts(table: str) -> dict[str, Any]:
    """One table of the file."""
    data = json.loads(Path(__file__).with_name("facts.json").read_bytes())
    found: dict[str, Any] = data[table]
    return found
