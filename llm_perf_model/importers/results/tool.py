"""Tools whose results are read: tools.json names each, what writes the file, its versions and their description."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...errors import SpecError
from ..stated import Stated
from .result import Result

_FORMATS: Final = {
    "float32": "fp32", "f32": "fp32", "float16": "fp16", "f16": "fp16", "half": "fp16", "bfloat16": "bf16",
}  # fmt: skip
"""Number format as tools write it -> as records do."""


class Tool(NamedTuple):
    """A tool that measures, and the versions of its files that are known."""

    name: str
    writes: str
    """Command that writes the file."""
    page: str
    """Where the file is described."""
    versions: tuple[str, ...]
    """Known versions, of which later parts may differ; none: its files state no version."""
    engine: str | None = None
    """The software that ran the model, where it can only be one."""

    def stated(self, where: str, data: Mapping[str, Any]) -> Stated:
        """The fields of a file, or of a part of it."""
        return Stated.of(where, self.name, data)

    def check(self, where: str, version: Any, counts: str = "") -> None:
        """Refuse a version that is not known; `counts` says what the version is of.

        Raises:
            SpecError: it is none of the known ones.
        """
        said = "without a version" if version is None else str(version)
        if not any(f"{said}.".startswith(f"{known}.") for known in self.versions):
            known = ", ".join(self.versions)
            raise SpecError(f"{where}: is a result of {self.name}{counts} {said}, known are {known}")

    def run(self, where: str, **facts: Any) -> Result:
        """What the values of a run have in common."""
        facts["engine"] = facts.get("engine") or self.engine
        return Result(source=self.name, source_file_or_url=Path(where).name, **facts)


@cache
def tools() -> Mapping[str, Tool]:
    """Every tool of the file, by key."""
    data = json.loads(Path(__file__).with_name("tools.json").read_bytes())
    return {key: Tool(**{**fields, "versions": tuple(fields["versions"])}) for key, fields in data.items()}


def known(stated: Stated, key: str) -> float | None:
    """A number above 0; None where it is missing, or 0 because nothing was measured."""
    return None if stated.fields.get(key) == 0 else stated.positive(key)


def length(stated: Stated, key: str) -> int | None:
    """Tokens of a mean length, rounded."""
    mean = known(stated, key)
    return None if mean is None else max(round(mean), 1)


def text(stated: Stated, key: str) -> str | None:
    """A text; None where it is missing or empty."""
    value = stated.fields.get(key)
    return str(value).strip() or None if isinstance(value, str | int | float) else None


def first_text(stated: Stated, *keys: str) -> str | None:
    """The text of the first key that has one."""
    return next((found for found in (text(stated, key) for key in keys) if found is not None), None)


def format_of(dtype: str | None) -> str | None:
    """A number format in the words of records."""
    return None if dtype is None else _FORMATS.get(dtype.lower().rpartition(".")[2], dtype.lower())


def over_requests(
    run: Result, stated: Stated, metric: str, keys: tuple[str, str, str], to_ms: float = 1.0
) -> Iterator[Result]:
    """A time in milliseconds: its median over the requests, or else its mean; nothing where there is neither.

    Args:
        run: what the values of the run have in common.
        stated: the file.
        metric: word of the time.
        keys: of the median, of the mean and of the 99th percentile.
        to_ms: milliseconds in the file's unit.
    """
    median, mean, p99 = (None if time is None else time * to_ms for time in (known(stated, key) for key in keys))
    value = mean if median is None else median
    if value is not None:
        statistic = "mean" if median is None else "median"
        yield run.measured(metric, value, "ms", statistic=statistic, mean_ms=mean, p99_ms=p99)


def rate(value: Any) -> float | str | None:
    """A rate of requests; `inf`: all of them at once."""
    if isinstance(value, str):
        return "inf" if value == "inf" else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return None
    return "inf" if math.isinf(value) else float(value)
