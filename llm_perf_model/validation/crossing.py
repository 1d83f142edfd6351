"""Errors on rows that were left out of the fit, for engines and for kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..errors import RequestError
from ..report.progress import tracked
from ..specs.catalog import load, names
from ..specs.collective import CollectiveSpec
from ..specs.engine import EngineSpec
from ..specs.gpu import GpuSpec
from ..specs.kernels import KernelSpec
from .compare import Errors, Score, Validation, score
from .engine_fit import Row, leave_one_out, refit
from .fit import free_fields, value_at
from .kernel_fit import (
    FIELDS_OF_FAMILY,
    belongs,
    family_of,
    left_out_errors,
    measured_s,
    shape_group,
    times_s,
)
from .operators import Timed
from .stacks import stacked

RUN_GROUPS: Final[dict[str, Callable[[Score], str]]] = {
    "model": lambda s: s.record.model,
    "device": lambda s: str(s.mapped.request["gpu"]),
    "source": lambda s: s.record.source,
    "precision": lambda s: s.record.w_dtype,
    "batch": lambda s: str(s.record.batch),
}
OPERATOR_GROUPS: Final[dict[str, Callable[[Timed], str]]] = {
    "shape": shape_group,
    "device": lambda row: row.gpu,
    "source": lambda row: row.record.source,
}
ANY_ENGINE: Final = "generic-fused"
"""Stands in for engines of kinds without a generic file."""

GROUPS: Final = tuple(dict.fromkeys([*RUN_GROUPS, *OPERATOR_GROUPS]))
"""What may be left out: of whole runs, of timed operators, or of both."""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """The error of a file on the rows that fixed its coefficients, and on rows that were left out."""

    name: str
    free: tuple[str, ...]
    fitted: Errors
    left_out: Errors | None
    by: str
    rows: tuple[tuple[str, float], ...] = ()
    """Group and error of each row that was left out."""


def cross_validation(validation: Validation, by: str) -> tuple[CrossValidation, ...]:
    """Fitted and left-out errors of every file whose coefficients the records have fixed."""
    if by not in GROUPS:
        raise RequestError(f"cross_validate: is {by!r}; must be {', '.join(GROUPS)}")
    return (*_engines(validation, by), *_rates(validation, by))


def _engines(validation: Validation, by: str) -> Iterator[CrossValidation]:
    if by not in RUN_GROUPS:
        return
    engines = [load(EngineSpec, name) for name in names(EngineSpec)]
    fitted = [(engine, fitted_rows(validation, engine)) for engine in engines if engine.fits]
    for engine, scores in tracked([pair for pair in fitted if pair[1]], "leave one out"):
        rows = left_out(validation, engine, scores, by)
        inside = Errors.of(engine.name, [item.error for item in scores])
        outside = Errors.of(engine.name, [error for error, _ in rows]) if rows else None
        own = rows if engine.name != f"generic-{engine.kind}" else []  # a generic engine's rows are those of others
        pairs = tuple((RUN_GROUPS[by](item), error) for error, item in own)
        yield CrossValidation(engine.name, free_fields(engine), inside, outside, by, pairs)


def left_out(validation: Validation, engine: EngineSpec, scores: Sequence[Score], by: str) -> list[Row]:
    """Errors of an engine's rows, each group under coefficients that know nothing of it.

    A source that holds all rows of an engine leaves it without records: its rows are then those of an
    unknown engine of its kind, under the generic file fitted to the other sources.
    """
    group = RUN_GROUPS[by]
    if by != "source" or len({group(s) for s in scores}) > 1:
        return leave_one_out(engine, scores, group)
    return stand_in_rows(validation, engine, scores)


def stand_in_rows(validation: Validation, engine: EngineSpec, scores: Sequence[Score]) -> list[Row]:
    """Errors of rows of one source under the generic engine of the kind, fitted to the other sources alone.

    None where the generic engine itself takes its values from that engine.
    """
    name = f"generic-{engine.kind}"
    generic = load(EngineSpec, name if name in names(EngineSpec) else ANY_ENGINE)
    if any(engine.name in guess.reason for guess in generic.assumed) or engine.name == generic.name:
        return []
    left = {s.record.source for s in scores}
    others = [s for s in kind_rows(validation, engine.kind) if s.record.source not in left]
    if generic.fits and len(others) > len(free_fields(generic)):
        generic = refit(generic, others)
    return [(score(s.record, s.mapped, generic).error, s) for s in scores]


def kind_rows(validation: Validation, kind: str) -> list[Score]:
    """The rows that fix the coefficients of any engine of a kind."""
    engines = [load(EngineSpec, name) for name in names(EngineSpec)]
    return [row for engine in engines if engine.kind == kind for row in fitted_rows(validation, engine)]


def fitted_rows(validation: Validation, engine: EngineSpec) -> list[Score]:
    """The scored rows that fix an engine's coefficients: each run and phase once.

    Totals are left out where the phases of the same runs are recorded: they hold nothing new. A generic engine
    is fitted to the rows of all engines of its kind.
    """
    if engine.name == f"generic-{engine.kind}":
        others = [load(EngineSpec, name) for name in names(EngineSpec) if name != engine.name]
        return [row for other in others if other.kind == engine.kind for row in fitted_rows(validation, other)]
    chosen: dict[tuple[tuple[object, ...], str], Score] = {}
    for item in validation.scores:
        if _fixes(item, engine):
            asked = item.mapped.baseline or item.mapped
            run = (item.record.engine, *sorted(asked.request.items()))
            chosen.setdefault((run, item.mapped.phase), item)
    phased = {run for run, phase in chosen if phase != "whole"}
    return [item for (run, phase), item in chosen.items() if phase != "whole" or run not in phased]


def _fixes(item: Score, engine: EngineSpec) -> bool:
    """Whether a row fixes an engine's coefficients: its own times, and ratios over it where its file names them."""
    mapped = item.mapped
    if mapped.baseline is None:
        return mapped.engine == engine.name and mapped.is_time and not mapped.fallback
    named = any(item.record.file in source for fit in engine.fits for source in fit.records)
    return named and mapped.baseline.engine == engine.name and not mapped.baseline.fallback


def _rates(validation: Validation, by: str) -> Iterator[CrossValidation]:
    rows = [item.row for item in validation.operators if item.row.fitted]
    if by not in OPERATOR_GROUPS or not rows:
        return
    for spec in tracked(list(_fitted_rates()), "leave one out"):
        own = [row for stack in stacked(rows) if belongs(stack, spec) for row in stack.rows]
        if not own:
            continue
        stacks = stacked(own)
        inside = (times_s(spec, stacks) / measured_s(stacks) - 1.0).tolist()
        pairs = operator_rows(spec, own, by)
        outside = Errors.of(spec.name, [error for error, _ in pairs]) if pairs else None
        groups = tuple((OPERATOR_GROUPS[by](row), error) for error, row in pairs)
        yield CrossValidation(spec.name, free_fields(spec), Errors.of(spec.name, inside), outside, by, groups)


def _fitted_rates() -> Iterator[KernelSpec | CollectiveSpec]:
    yield from (spec for spec in (load(KernelSpec, name) for name in names(KernelSpec)) if spec.fits)
    yield from (spec for spec in (load(CollectiveSpec, name) for name in names(CollectiveSpec)) if spec.fits)


def operator_rows(spec: Any, rows: Sequence[Timed], by: str) -> list[tuple[float, Timed]]:
    """Errors of timed operators, each group under coefficients that know nothing of it.

    A device that is alone in its generation, or that alone has products of experts there, takes the coefficients of
    the generation nearest in time.
    """
    errors = left_out_errors(spec, free_fields(spec), rows, OPERATOR_GROUPS[by])
    if by != "device" or not isinstance(spec, KernelSpec):
        return errors
    scored = {id(row) for _, row in errors}
    rest = [row for row in rows if id(row) not in scored]
    experts = [row for row in rest if row.family == "experts"]
    others = [row for row in rest if row.family != "experts"] if len(rest) == len(rows) else []
    if experts:
        errors += _errors(_with_experts_of(spec, _neighbour(spec, experts, "experts")), experts)
    return [*errors, *_errors(_neighbour(spec, others), others)] if others else errors


def _errors(spec: KernelSpec, rows: Sequence[Timed]) -> list[tuple[float, Timed]]:
    stacks = stacked(rows)
    errors = (times_s(spec, stacks) / measured_s(stacks) - 1.0).tolist()
    return list(zip(errors, [row for stack in stacks for row in stack.rows], strict=True))


def _with_experts_of(spec: KernelSpec, other: KernelSpec) -> KernelSpec:
    """A generation with the coefficients of another in its products of experts, which are relative to its own products.

    Tiles are facts of a library, and stay.
    """
    unfitted = {"memory_efficiency": None, "widened_values_per_cycle": None}
    schemes = {name: scheme.model_copy(update=unfitted) for name, scheme in spec.experts.schemes.items()}
    taken = {field.rsplit(".", 1)[-1]: value_at(other, field) for field in FIELDS_OF_FAMILY["experts"]}
    return spec.model_copy(update={"experts": spec.experts.model_copy(update={**taken, "schemes": schemes})})


def _neighbour(spec: KernelSpec, rows: Iterable[Timed], family: str | None = None) -> KernelSpec:
    """The fitted generation of the same kind of device nearest in launch year, the older of two.

    With `family`, one whose coefficients of that family are fitted.
    """
    years: dict[str, int] = {}
    kind, own = min((gpu.kind, gpu.launch_year) for gpu in (load(GpuSpec, row.gpu) for row in rows))
    for gpu in (load(GpuSpec, name) for name in names(GpuSpec)):
        if gpu.kind == kind:
            years[gpu.generation] = min(gpu.launch_year, years.get(gpu.generation, gpu.launch_year))
    others = [load(KernelSpec, name) for name in names(KernelSpec) if name != spec.name and name in years]
    fitted = [other for other in others if other.fits and family in {None, *map(family_of, free_fields(other))}]
    return min(fitted, key=lambda other: (abs(years[other.name] - own), years[other.name]))
