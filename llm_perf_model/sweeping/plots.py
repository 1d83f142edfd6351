"""Pictures of a sweep: a metric along an axis, two metrics with their front, cost by device."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np

from ..errors import InfeasibleError, RequestError
from ..specs.request import Request
from ..types import Array, Column, MaskArray
from .cells import Cells
from .metrics import label, metric, shown, unit_of, words

if TYPE_CHECKING:
    from ..pictures.canvas import Picture

COST: Final = "usd_per_million_output_tokens"
MOST_PARTS: Final = 100
_TITLE = ("model", "gpu", "engine", "precision")
_LETTERS = 84
_FEW = 8


class Grid(Protocol):
    """What pictures read of a sweep."""

    @property
    def fixed(self) -> Mapping[str, Any]: ...
    @property
    def done(self) -> MaskArray: ...
    @property
    def dims(self) -> tuple[str, ...]: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def runs(self) -> MaskArray: ...
    def __getitem__(self, name: str) -> Column: ...
    def labels(self, axis: str) -> Column: ...
    def within(self, chosen: MaskArray) -> Self: ...
    def best_cell(self, objective: str, constraints: Iterable[str]) -> Cells: ...
    def pareto(self, x: str, y: str) -> Cells: ...


def lines(s: Grid, y: str, x: str | None, by: str | None, where: Mapping[str, Any]) -> Picture:
    """A metric along an axis, with a line for each value of another."""
    from ..pictures.curves import Curve, curves

    values, mask = _number(s, y) / unit_of(y), _where(s, where)
    x, by = _axes(s, mask, x, by)
    places = _several(s, mask)
    along = s.labels(x)[places[x]]
    numbers = np.array(along, dtype=np.float64) / unit_of(x) if _are_numbers(along) else None
    order = np.arange(len(along)) if numbers is None else np.argsort(numbers, kind="stable")
    at = numbers[order] if numbers is not None else order.astype(np.float64)
    drawn = []
    for line in _few(by, places[by]) if by else [0]:
        index = [line if name == by else places[x][order] if name == x else places[name][0] for name in s.dims]
        found, runs = values[tuple(index)], s.runs[tuple(index)]
        drawn.append(Curve(_shown(by, s.labels(by)[line]) if by else "", at, np.atleast_1d(found), np.atleast_1d(runs)))
    names = None if numbers is not None else [_shown(x, value) for value in along]
    return curves(_title(s, mask, {x, by}), (words(x), words(y)), drawn, words(by) if by else "", names)


def front(s: Grid, x: str, y: str, by: str | None, where: Mapping[str, Any]) -> Picture:
    """Configurations that run as points of two metrics, with the front that none of them beats."""
    from ..pictures.front import Cloud, Front
    from ..pictures.front import front as drawn

    mask = _where(s, where)
    within = s.within(mask)
    if not np.any(within.runs):
        raise InfeasibleError("plot_pareto: no configuration fits and stays within the positions of its model")
    first, second = _number(s, x) / unit_of(x), _number(s, y) / unit_of(y)
    varied = list(_several(s, mask, least=2))
    by = _axis("by", by, s.dims) if by else _telling(s, varied)
    clouds = []
    for name, part in _parts(s, by, mask):
        chosen = within.runs & part
        if np.any(chosen):
            clouds.append(Cloud(_shown(by, name) if by else "", first[chosen], second[chosen]))
    best = within.pareto(x, y)
    called = [name for name in varied if len(set(best[name].tolist())) > 1]
    same = _called(best, [name for name in varied if name not in called])[0]
    kinds = [_shown(by, value) for value in best[by]] if by else [""] * len(best)
    points = best[x] / unit_of(x), best[y] / unit_of(y)
    edge = Front(f"not beaten in both\n{same}".strip(), *points, kinds, _called(best, [n for n in called if n != by]))
    title = _title(s, mask, set(varied))
    return drawn(title, (words(x), words(y)), clouds, words(by) if by else "", edge)


def cost(s: Grid, constraints: str | Iterable[str], by: str, where: Mapping[str, Any]) -> Picture:
    """The lowest cost of an output token for each value of an axis, with what reaches it."""
    from ..pictures.bars import Bar, bars

    mask = _where(s, where)
    limits = constraints.split(",") if isinstance(constraints, str) else list(constraints)
    limits = [text.strip() for text in limits if text.strip()]
    prices, by = _number(s, COST), _axis("by", by, s.dims)
    varied = list(_several(s, mask, least=2))
    found, left_out = [], {}
    for value, part in _parts(s, by, mask):
        within, name = s.within(mask & part), _shown(by, value)
        try:
            best = within.best_cell(COST, limits)
        except InfeasibleError as error:
            left_out[name] = _reason(within.done, prices, error)
            continue
        beside = f"${best[COST][0]:.3g}   {_called(best, [each for each in varied if each != by])[0]}".rstrip()
        found.append(Bar(name, float(best[COST][0]) / unit_of(COST), beside))
    if not found:
        name, reason = next(iter(left_out.items()))
        raise InfeasibleError(f"plot_cost: nothing to show; {name}: {reason}")
    title = _title(s, mask, {by, *varied}, f"with {' and '.join(limits)}" if limits else "")
    return bars(title, f"lowest {words(COST)}", found, left_out)


def _reason(done: MaskArray, prices: Array, error: InfeasibleError) -> str:
    """Why a device has no cost."""
    if not np.any(done):
        return "cannot run any configuration"
    return "no listed price" if np.all(np.isnan(prices[done])) else str(error)


def _axes(s: Grid, mask: MaskArray, x: str | None, by: str | None) -> tuple[str, str | None]:
    """The axis along which lines go, and that of which each has a value.

    Raises:
        RequestError: there is no such axis, or more than these two have several values.
    """
    if not s.dims:
        raise RequestError("plot: the sweep has one configuration; give a field several values")
    several = {name: len(places) for name, places in _several(s, mask, least=2).items()}
    if x is None:
        rest = [name for name in several if name != by] or [name for name in s.dims if name != by] or list(s.dims)
        x = max(rest, key=lambda name: (_are_numbers(s.labels(name)), several.get(name, 1)))
    x = _axis("x", x, s.dims)
    if by is None:
        by = next((name for name in several if name != x), None)
    elif _axis("by", by, s.dims) == x:
        raise RequestError(f"plot: x and by are both {x}; give two axes, of {', '.join(s.dims)}")
    others = {name: s.labels(name) for name in several if name not in {x, by}}
    if others:
        fixed = ", ".join(f'"{name}": {values[0]!r}' for name, values in _plain(others).items())
        raise RequestError(
            f"plot: {' and '.join(others)} {'has' if len(others) == 1 else 'have'} several values beside {x} and {by}; "
            f"choose one of each, as where={{{fixed}}}"
        )
    return x, by


def _telling(s: Grid, varied: Sequence[str]) -> str | None:
    """The axis whose values points are told apart by: names before numbers, and of numbers few."""
    names = [name for name in varied if not _are_numbers(s.labels(name))]
    return next(iter([*names, *(name for name in varied if len(s.labels(name)) <= _FEW)]), None)


def _plain(labels: Mapping[str, Column]) -> dict[str, list[Any]]:
    return {name: values.tolist() for name, values in labels.items()}


def _axis(argument: str, name: str, dims: Sequence[str]) -> str:
    """An axis of the sweep."""
    if name not in dims:
        near = difflib.get_close_matches(str(name), dims, n=1)
        hint = f"did you mean {near[0]}?" if near else f"axes: {', '.join(dims) or 'none'}"
        raise RequestError(f"{argument}: the sweep has no axis {name}; {hint}")
    return name


def _where(s: Grid, where: Mapping[str, Any]) -> MaskArray:
    """The cells whose coordinates are those chosen: one value of an axis, or several in a list.

    Raises:
        RequestError: an axis does not exist, or does not have a value.
    """
    mask = np.ones(s.shape, np.bool_)
    for name, value in where.items():
        labels = _plain({name: s.labels(_axis("where", name, s.dims))})[name]
        wanted = list(value) if isinstance(value, list | tuple | range | np.ndarray) else [value]
        for one in wanted:
            if one not in labels:
                names = [str(each) for each in labels]
                near = [each for each in names if str(one) in each] or difflib.get_close_matches(str(one), names, n=1)
                known = ", ".join(_shown(name, each) for each in labels[:8]) + (", ..." if len(labels) > 8 else "")
                hint = f"did you mean {near[0]}?" if near else f"values: {known}"
                raise RequestError(f"where: {name} has no value {one}; {hint}")
        shape = [1] * len(s.dims)
        shape[s.dims.index(name)] = -1
        mask = mask & np.array([each in wanted for each in labels]).reshape(shape)
    return mask


def _several(s: Grid, mask: MaskArray, least: int = 1) -> dict[str, Column]:
    """Axis -> its places that were chosen, where there are so many."""
    found = {}
    for number, name in enumerate(s.dims):
        others = tuple(other for other in range(len(s.dims)) if other != number)
        places = np.flatnonzero(np.any(mask, axis=others))
        if len(places) >= least:
            found[name] = places
    return found


def _parts(s: Grid, by: str | None, mask: MaskArray) -> Iterator[tuple[Any, MaskArray]]:
    """Chosen values of an axis, each with its cells; all cells where there is no axis."""
    if by is None:
        yield "", np.ones(s.shape, np.bool_)
        return
    number = s.dims.index(by)
    for index in _few(by, _several(s, mask)[by]):
        part = np.zeros(s.shape, np.bool_)
        part[(slice(None),) * number + (index,)] = True
        yield s.labels(by)[index], part


def _few(by: str, places: Column) -> Column:
    if len(places) > MOST_PARTS:
        raise RequestError(
            f"by: {by} has {len(places)} values, of which {MOST_PARTS} can be told apart; choose some, as "
            f'where={{"{by}": [...]}}'
        )
    return places


def _number(s: Grid, name: str) -> Array:
    """The array of a metric that is a number."""
    values = s[name]
    if metric(name).kind != "number":
        raise RequestError(f"{name}: is no number; name another metric")
    return values


def _are_numbers(values: Column) -> bool:
    return values.dtype.kind in "if"


def _shown(name: str | None, value: Any) -> str:
    number = value.item() if isinstance(value, np.generic) else value
    return shown(name or "", number)


def _called(cells: Cells, names: Sequence[str]) -> list[str]:
    """Each cell by some of its coordinates."""
    columns = [[f"{label(name)} {_shown(name, value)}" if _are_numbers(cells[name]) else _shown(name, value)
                for value in cells[name]] for name in names]  # fmt: skip
    return [", ".join(row) for row in zip(*columns, strict=True)] if columns else [""] * len(cells)


def _title(s: Grid, mask: MaskArray, shown_axes: set[str | None], more: str = "") -> str:
    """What all configurations of a picture share: first the model and what runs it."""
    fixed = {name: str(_name(value)) for name, value in s.fixed.items() if value is not None}
    for name in _TITLE:
        default = Request.model_fields[name].default
        if name not in fixed and name not in s.dims and isinstance(default, str):
            fixed[name] = default
    for name, places in _several(s, mask).items():
        if name not in shown_axes:
            one = len(places) == 1
            fixed[name] = _shown(name, s.labels(name)[places[0]]) if one else f"{len(places)} {label(name)}"
    head = ", ".join(fixed.pop(name) for name in _TITLE if name in fixed)
    rest = ", ".join([*(f"{label(name)} {value}" for name, value in fixed.items()), *([more] if more else [])])
    return "\n".join([head, *textwrap.wrap(rest, _LETTERS)])


def _name(value: Any) -> Any:
    return getattr(value, "name", value)
