"""Validation of files of records, with the error on rows that were left out of the fit."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..errors import RequestError
from ..report.document import Report
from ..report.progress import tracked
from ..specs.catalog import data_folder, load, parse
from ..specs.engine import EngineSpec
from .compare import Validation, validate_records
from .crossing import cross_validation as crossed
from .records import files, read
from .tables import report


def validate(
    records: str | Iterable[str] | None = None, cross_validate: str | None = None, engine: str | None = None
) -> Report:
    """Estimates against recorded measurements.

    Args:
        records: files or folders of records (the project's own if not given).
        cross_validate: "model", "device", "source", "precision" or "batch" of whole runs, "shape", "device" or
            "source" of timed operators: refit each fitted file without each of its groups in turn, and report the
            error on the group that was left out.
        engine: name or path of an engine to estimate every record with, in place of the one that it names.

    Returns:
        A report: tables by source, metric, engine, device and batch; `records` holds one row a record.

    Raises:
        RequestError: a path does not exist, `cross_validate` is not known, or SciPy is missing for it.
    """
    validation = held_against(records, engine)
    return report(validation, crossed(validation, cross_validate) if cross_validate else ())


def held_against(records: str | Iterable[str] | None = None, engine: str | None = None) -> Validation:
    """Every row of the records scored, or listed with a reason; `engine` replaces the one that a row names."""
    if engine is not None:
        load(EngineSpec, engine)
    if records is None:
        records = [str(data_folder("records"))]
    paths = [records] if isinstance(records, str) else list(records)
    rows = [row for path in files(paths) for row in read(path)]
    return validate_records(tracked(rows, "records"), engine)


def calibrate(
    records: str | Iterable[str],
    engine: str | EngineSpec = "generic-fused",
    name: str = "calibrated",
    title: str | None = None,
    recorded: str | None = None,
) -> EngineSpec:
    """The engine `engine` with the coefficients that files of records can fix.

    Args:
        records: files or folders of records, of whole runs or of timed operators.
        engine: catalogue name, path or spec that gives every choice, and the prior of every coefficient.
        name: name of the new engine, which `estimate` takes as `engine=`.
        title: its title.
        recorded: the engine's name in the records, where they hold several.

    Raises:
        RequestError: the records fix nothing, hold several engines or kinds, or SciPy is missing.
    """
    _, text = calibrated(records, engine, name, title, recorded)
    return parse(EngineSpec, text.encode(), name)


def calibrated(
    records: str | Iterable[str],
    engine: str | EngineSpec,
    name: str,
    title: str | None,
    recorded: str | None,
) -> tuple[Report, str]:
    """The report of a calibration, and the text of the engine file."""
    from . import calibration_report
    from .calibrate import calibrate as fit

    if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) is None:
        raise RequestError(f"name: is {name!r}; must be lower-case letters, digits, dots and dashes, as 'our-server'")
    base = load(EngineSpec, engine) if isinstance(engine, str) else engine
    paths = [records] if isinstance(records, str) else list(records)
    sources = [path.name for path in files(paths)]
    called = title or f"{name} (from {base.name})"
    found = fit(held_against(paths), base, name, called, sources, recorded)
    text = calibration_report.text_of(found)
    parse(EngineSpec, text.encode(), name)
    return calibration_report.report(found), text
