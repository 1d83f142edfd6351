"""Files of other tools' results as rows of a file of records: which tool wrote one, and what the user adds to it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...errors import RequestError, SpecError, UnknownNameError
from ...specs.base import FileSpec
from ...specs.catalog import load
from ...specs.engine import EngineSpec
from ...specs.gpu import GpuSpec
from ...specs.model import ModelSpec
from ...specs.network import NetworkSpec
from . import aiperf, gguf_bench, guidellm, loadgen, offline, serving
from .file import parts
from .optimum import recognises as holds_passes
from .optimum import results as of_passes
from .result import COUNTS, STATED, Result
from .tool import tools
from .trtllm import recognises as holds_report
from .trtllm import results as of_report


class Reader(NamedTuple):
    """How files of one tool are known, and read."""

    recognises: Callable[[Mapping[str, Any]], bool]
    results: Callable[[str, Mapping[str, Any]], Iterable[Result]]


READERS: Final = (
    Reader(serving.recognises, serving.results),
    Reader(offline.recognises_latency, offline.latency),
    Reader(offline.recognises_throughput, offline.throughput),
    Reader(guidellm.recognises, guidellm.results),
    Reader(aiperf.recognises, aiperf.results),
    Reader(holds_report, of_report),
    Reader(gguf_bench.recognises, gguf_bench.results),
    Reader(holds_passes, of_passes),
    Reader(loadgen.recognises, loadgen.results),
)
"""Every tool that is read."""

_NEEDED: Final = ("device", "engine", "model")
"""What every record has to say."""

_KINDS: Final[Mapping[str, tuple[type[FileSpec], ...]]] = {
    "device": (GpuSpec,),
    "engine": (EngineSpec,),
    "model": (ModelSpec, NetworkSpec),
}
"""Column -> the kinds of files that it names."""


def import_results(path: str | Path, **stated: Any) -> tuple[Result, ...]:
    """Results of another tool, as rows of a file of records.

    Args:
        path: a result file of vLLM `bench`, GuideLLM, AIPerf, GenAI-Perf, `trtllm-bench`, llama-bench,
            optimum-benchmark or MLPerf LoadGen; its content tells which.
        stated: what the file does not say, or says otherwise, by column: `device`, `engine`, `engine_version`, `model`,
            `w_dtype`, `a_dtype`, `kv_dtype`, `n_devices`, `tp`, `pp`, `batch`, `input_len`, `output_len`.

    Returns:
        A row for each value, in the units of the file of records.

    Raises:
        RequestError: nobody says which device, engine or model, or what the user states is no value of its column.
        SpecError: the file is cut off, of no known tool or version, or has a value that is none.
        UnknownNameError: no file of the catalogue is called as the user states.
    """
    told = _checked(stated)
    found = [row for part in parts(path) for row in _reader(path, part).results(str(path), part)]
    if not found:
        raise SpecError(f"{path}: holds no value that a record can have")
    return tuple(_complete(path, replace(row, **told)) for row in found)


def unknown_names(rows: Iterable[Result]) -> dict[str, list[str]]:
    """Names that files give and no file of the catalogue has, by column."""
    names = {column: dict.fromkeys(getattr(row, column) for row in rows) for column in _KINDS}
    return {
        column: missing
        for column, given in names.items()
        if (missing := [name for name in given if not _is_known(column, name)])
    }


def _reader(path: str | Path, part: Mapping[str, Any]) -> Reader:
    found = next((reader for reader in READERS if reader.recognises(part)), None)
    if found is None:
        known = ", ".join(tool.name for tool in tools().values())
        raise SpecError(f"{path}: is of no tool that is known; known are results of {known}")
    return found


def _checked(stated: Mapping[str, Any]) -> dict[str, Any]:
    """What the user states, each value one of its column."""
    told = {column: value for column, value in stated.items() if value is not None}
    for column, value in told.items():
        if column not in STATED:
            near = difflib.get_close_matches(column, STATED, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; must be one of {', '.join(STATED)}"
            raise RequestError(f"{column}: is nothing that a user states of a result{hint}")
        if column in COUNTS and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise RequestError(f"{column}: is {value!r}; must be a whole number of at least 1")
        if column in _KINDS:
            _check_name(column, str(value))
    return {column: value if column in COUNTS else str(value) for column, value in told.items()}


def _check_name(column: str, name: str) -> None:
    """Refuse a name that no file of the catalogue has, with those near it."""
    first, *others = _KINDS[column]
    if not any(_has(kind, name) for kind in others):
        load(first, name)


def _is_known(column: str, name: str) -> bool:
    return any(_has(kind, name) for kind in _KINDS[column])


def _has(kind: type[FileSpec], name: str) -> bool:
    try:
        load(kind, name)
    except UnknownNameError:
        return False
    return True


def _complete(path: str | Path, row: Result) -> Result:
    """A row, if it says what a record has to say."""
    missing = [column for column in _NEEDED if not getattr(row, column)]
    if missing:
        flags = " and ".join(f"--{column}" for column in missing)
        listed = " and ".join(missing)
        raise RequestError(f"{path}: this result of {row.source} does not say which {listed}; give {flags}")
    return row
