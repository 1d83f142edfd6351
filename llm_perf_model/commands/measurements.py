"""Recorded measurements: how far estimates are from them, and engines fitted to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import RequestError
from ..report.document import FORMATS, Report
from ..report.export import write_text
from .base import file_of_flag, finish, one_of, paths, word


def validate(
    records: Any = None,
    cross_validate: str | bool | None = None,
    per_row: str | None = None,
    engine: str | None = None,
    format: str = "text",
    output: str | None = None,
) -> Report:
    """Estimates against recorded measurements: errors, the term to blame, and what has no estimate.

    Args:
        records: files or folders of records, separated by commas (default: the project's own)
        cross_validate: model, device, source, precision, batch or shape: refit without each, and report its error
        per_row: CSV file to write, one line a record
        engine: name or path of an engine to estimate every record with, in place of the one that it names
        format: text, json, csv or markdown
        output: file to write instead of standard output
    """
    from ..validation.run import validate as run

    group = "model" if cross_validate is True else str(cross_validate) if cross_validate else None
    report = run(paths(records), group, word("engine", engine))
    if per_row is not None:
        write_text(file_of_flag("per_row", per_row), report.csv(), "per_row")
    return finish(report, format, output)


def calibrate(
    records: Any = None,
    engine: str = "generic-fused",
    recorded: str | None = None,
    name: str = "calibrated",
    title: str | None = None,
    output: str | None = None,
    format: str = "text",
) -> Report:
    """An engine file from your own records: two measured runs or fifty thousand timed operators.

    Args:
        records: files or folders of records, separated by commas
        engine: engine to start from; what the records cannot fix stays as it has it
        recorded: the engine's name in the records, where they hold several
        name: name of the new engine
        title: title of the new engine (default: its name and that of the engine to start from)
        output: engine file to write
        format: text, json, csv or markdown
    """
    from ..validation.run import calibrated

    files = paths(records)
    if files is None:
        raise RequestError("records: is missing; give files or folders, separated by commas")
    form = one_of("format", format, FORMATS)
    words = {"engine": engine, "name": name, "title": title, "recorded": recorded}
    report, text = calibrated(files, **{flag: word(flag, value) for flag, value in words.items()})
    if output is not None:
        write_text(file_of_flag("output", output), text)
        report = replace(report, notes=(*report.notes, f"written: {output}"))
    return finish(report, form, None)
