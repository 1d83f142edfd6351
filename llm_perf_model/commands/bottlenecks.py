"""What limits a configuration: what faster hardware would save, and where one part of the work passes another."""

from __future__ import annotations

from typing import Any

from ..flags import like
from ..report.document import Report
from .base import finish
from .estimates import infer


@like(infer, without=("breakdown", "interval_level"))
def sensitivity(model: str | None = None, format: str = "text", output: str | None = None, **fields: Any) -> Report:
    """How times depend on bandwidth, FLOP/s, the link, batch and lengths, and which rate to raise first.

    Args:
        model: name, alias or path of a model (`list models` shows all)
        format: text, json, csv or markdown
        output: file to write instead of standard output
        **fields: those of infer
    """
    from ..sweeping.sensitivity import sensitivity as found

    return finish(found(**_given(model, fields)).report(), format, output)


@like(infer, without=("breakdown", "interval_level"))
def crossovers(model: str | None = None, format: str = "text", output: str | None = None, **fields: Any) -> Report:
    """From which batch or length on decode is compute-bound, attention passes the FFN, cache passes weights.

    Args:
        model: name, alias or path of a model (`list models` shows all)
        format: text, json, csv or markdown
        output: file to write instead of standard output
        **fields: those of infer
    """
    from ..sweeping.crossovers import crossovers as found

    return finish(found(**_given(model, fields)).report(), format, output)


def _given(model: str | None, fields: dict[str, Any]) -> dict[str, Any]:
    """What flags were given."""
    return {flag: value for flag, value in {"model": model, **fields}.items() if value is not None}
