"""What the catalogue holds."""

from __future__ import annotations

from ..errors import RequestError
from ..listing import KINDS, listing, show_spec
from ..report.document import Report
from .base import finish, one_of


def list_(kind: str = "models", format: str = "text", output: str | None = None) -> Report:
    """What the catalogue holds.

    Args:
        kind: models, networks, gpus, engines, precisions, kernels, collectives, powers, prices, tariffs or links
        format: text, json, csv or markdown
        output: file to write instead of standard output
    """
    return finish(listing(one_of("kind", kind, tuple(KINDS))), format, output)


def show(name: str | None = None, format: str = "text", output: str | None = None) -> Report:
    """Every field of a model, GPU, engine, precision or link, with its origin.

    Args:
        name: name, alias or path
        format: text, json, csv or markdown
        output: file to write instead of standard output
    """
    if name is None or isinstance(name, bool):
        raise RequestError("name: is missing; give a name, an alias or a path to a JSON file")
    return finish(show_spec(str(name)), format, output)
