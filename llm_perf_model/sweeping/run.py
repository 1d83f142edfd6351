"""Sweeps: kept in memory, written as parts, or searched for their best cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..case import AnyModel
from ..errors import RequestError
from .cells import Cells
from .choosing import Choice
from .executors import Where
from .folder import SweepFolder
from .goals import explored, kept, written
from .grid import Sweep
from .question import Question, question_of

MOST_CELLS: Final = 2 * 10**8
"""Cells of a sweep that are kept in memory."""


def sweep(
    model: str | AnyModel | Iterable[str | AnyModel] | None = None,
    *,
    metrics: str | Iterable[str] | None = None,
    points: Mapping[str, Any] | None = None,
    executor: Where = None,
    **fields: Any,
) -> Sweep:
    """Estimates of all combinations of the values that fields of a request take.

    Args:
        model: one or several models, as `estimate` takes them.
        metrics: names of what to keep (`METRICS`); fewer are faster.
        points: columns of numbers, equally long, for configurations that are listed one by one; they are one axis.
        executor: what computes: None or `serial` (this process), `processes` (one for each core), `processes:4`, the
            address of a Dask scheduler as `tcp://host:8786`, or a `concurrent.futures.Executor`.
        **fields: the other fields of `Request`, each with one value, or with a list, range or array of them, or text:
            `1,2,4`, `lo:hi:step`, `lo:hi:x2` (by a factor) or `lo:hi:n50` (50 numbers); more than one are an axis.

    Returns:
        Arrays of the metrics with an axis for each field of several values, in the order in which they were given,
        and the cases that cannot run, with reasons. Each cell equals the estimate of its coordinates.

    Raises:
        RequestError: a field, a range, a metric or the executor is wrong.
        SpecError: a name is unknown or a file is not valid.
    """
    question = _question(model, fields, points, metrics)
    if question.size > MOST_CELLS:
        raise RequestError(
            f"sweep: {' x '.join(map(str, question.shape))} are {question.size:.3g} configurations; at most "
            f"{MOST_CELLS:.0e} are kept in memory; write them to a folder, or ask for the best"
        )
    return kept(question, executor)


def search(
    model: str | AnyModel | Iterable[str | AnyModel] | None = None,
    *,
    best: str | None = None,
    constraints: str | Iterable[str] = (),
    pareto: Iterable[str] | None = None,
    metrics: str | Iterable[str] | None = None,
    points: Mapping[str, Any] | None = None,
    executor: Where = None,
    **fields: Any,
) -> Cells:
    """The best configurations of a sweep of any size; no others are kept.

    Args:
        model: one or several models, as `estimate` takes them.
        best: a metric; the highest throughput, batch size or utilisation is best, the lowest of all others.
        constraints: what it is to meet, as `tpot_s <= 0.03`, one or several, or several in a text with commas.
        pareto: in place of `best` two metrics, for the configurations that no other beats in both.
        metrics: names of what to tell of the answer.
        points: as for `sweep`.
        executor: as for `sweep`.
        **fields: as for `sweep`.

    Raises:
        RequestError: a field, a range, a metric, a constraint or the executor is wrong.
        InfeasibleError: no configuration runs or meets the constraints.
        SpecError: a name is unknown or a file is not valid.
    """
    objectives = list(pareto or ()) if best is None else [best]
    if len(objectives) != (2 if best is None else 1) or (best is not None and pareto is not None):
        raise RequestError("search: give one metric as best, or two as pareto")
    choice = Choice.of(objectives, constraints)
    return explored(_question(model, fields, points, metrics).keeping(choice.needed), choice, executor).cells


def write_sweep(
    folder: str,
    model: str | AnyModel | Iterable[str | AnyModel] | None = None,
    *,
    metrics: str | Iterable[str] | None = None,
    points: Mapping[str, Any] | None = None,
    executor: Where = None,
    **fields: Any,
) -> SweepFolder:
    """A sweep of any size as a folder of Parquet files (extra `sweep`).

    Each file is written whole as soon as its configurations are computed.
    A folder that an interrupted sweep left is completed: what is written is not computed again.

    Args:
        folder: where to write; a new or empty folder, or that of the same sweep.
        model: one or several models, as `estimate` takes them.
        metrics: as for `sweep`.
        points: as for `sweep`.
        executor: as for `sweep`; workers that see the folder write to it themselves.
        **fields: as for `sweep`.

    Raises:
        RequestError: a field, a range, a metric or the executor is wrong, or the folder holds something else.
        SpecError: a name is unknown or a file is not valid.
    """
    return written(_question(model, fields, points, metrics), folder, executor)


def _question(model: Any, fields: Mapping[str, Any], points: Mapping[str, Any] | None, metrics: Any) -> Question:
    return question_of(fields if model is None else {"model": model, **fields}, points, metrics)
