"""A file of results as its parts: objects of JSON, rows of CSV, or the lines of a summary."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any, Final

from ...errors import SpecError
from ..paths import at_home

_NUMBER: Final = r"-?\d+(\.\d+)?(e[+-]\d+)?"
"""A number as tools print it. A commit of digits and an e has no sign behind it."""


def parts(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSON file or of its lines, the rows of a CSV file, or a summary's lines by what they say.

    Raises:
        SpecError: the file cannot be read, is cut off, or holds none of these.
    """
    file = at_home(path)
    text = _text(file).strip()
    if not text:
        raise SpecError(f"{path}: is empty")
    if text[0] in "{[":
        found = _json(str(path), text)
    elif "," in text.splitlines()[0]:
        found = [_numbers(row) for row in csv.DictReader(text.splitlines())]
    else:
        found = [_numbers(dict(_line(line) for line in text.splitlines() if ":" in line))]
    if not found or not all(isinstance(part, dict) for part in found):
        raise SpecError(f"{path}: holds no results: must be objects of JSON, rows of CSV, or lines of a summary")
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SpecError(f"{file}: cannot be read: {reason}") from None


def _json(where: str, text: str) -> list[Any]:
    """One value, or the values of the lines; a list stands for its items."""
    try:
        value = json.loads(text)
        return value if isinstance(value, list) else [value]
    except ValueError as error:
        broken = error
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        values = [json.loads(line) for line in lines]
    except ValueError:
        values = []
    if values:
        return values
    assert isinstance(broken, json.JSONDecodeError)
    place = f"line {broken.lineno} column {broken.colno}"
    raise SpecError(f"{where}: is no JSON from {place} on ({broken.msg}); is the file complete?")


def _line(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return " ".join(key.split()), value.strip()


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """Texts that are numbers, as numbers."""
    return {str(key): _number(value) if isinstance(value, str) else value for key, value in row.items()}


def _number(text: str) -> int | float | str:
    if re.fullmatch(_NUMBER, text) is None:
        return text
    return int(text) if text.lstrip("-").isdigit() else float(text)
