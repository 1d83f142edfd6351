"""What commands share: words, files and formats of their flags."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ..errors import RequestError
from ..report.document import FORMATS, Format, Report
from ..report.export import write_text

if TYPE_CHECKING:
    from ..pictures.file import PictureFile


def word(flag: str, value: Any) -> Any:
    """The text of a flag; a command line turns the name `70` into a number."""
    if value is True:
        raise RequestError(f"{flag}: is given without a value")
    return None if value is None else str(value)


def one_of(flag: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise RequestError(
            f"{flag}: is {value!r}; must be {', '.join(known[:-1])} or {known[-1]}{near(str(value), list(known))}"
        )
    return str(value)


def near(word: str, known: list[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def file_of_flag(flag: str, path: Any) -> str:
    if isinstance(path, bool):
        raise RequestError(f"{flag}: needs the name of a file")
    return str(path)


def picture_file(path: Any) -> PictureFile | None:
    """The file of the flag `picture`, which is known to be writable."""
    if path is None:
        return None
    from ..pictures.file import PictureFile

    return PictureFile.of(file_of_flag("picture", path))


def paths(records: Any, flag: str = "records") -> list[str] | None:
    """The files and folders of a flag."""
    given = [str(path) for path in records] if isinstance(records, list | tuple) else records
    if given is True or not isinstance(given, list | str | None):
        raise RequestError(f"{flag}: needs files or folders, separated by commas")
    return given.split(",") if isinstance(given, str) else given


def finish(report: Report, form: Any, path: Any) -> Report:
    """The report in its format; written to a file, it becomes a line that says so."""
    report = replace(report, format=cast("Format", one_of("format", form, FORMATS)))
    if path is None:
        return report
    write_text(file_of_flag("output", path), str(report))
    return Report(f"written: {path}")
