"""Models of rows whose own column names a family only: told by another column, or by the order of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from .conventions import convention
from .records import Problem, Record


def named(rows: Iterable[Record | Problem]) -> list[Record | Problem]:
    """The rows, each with the model that the conventions of its source name."""
    found = list(rows)
    tables: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(found):
        if isinstance(row, Problem):
            continue
        rules = convention(row)
        if "model_is" in rules:
            found[place] = replace(row, model=str(rules["model_is"]))
        elif "models_in_order" in rules:
            tables.setdefault(_table(row), []).append(place)
    for places in tables.values():
        table = [row for row in (found[place] for place in places) if isinstance(row, Record)]
        for place, row in zip(places, _by_order(table), strict=True):
            found[place] = row
    return found


def _table(row: Record) -> tuple[str, ...]:
    """What rows of one column of one table have in common."""
    return row.file, row.source, row.engine, row.device, row.model, row.w_dtype, row.metric, row.note


def _by_order(table: Sequence[Record]) -> list[Record]:
    """A column of a table whose blocks follow each other in the order of the models.

    Within a block the input length and then the batch grow; unless there are as many blocks as models, the rows keep
    the name of the family.
    """
    models = convention(table[0])["models_in_order"]
    block, blocks = 0, [0]
    for before, row in pairwise(table):
        block += _size(row) <= _size(before)
        blocks.append(block)
    if block + 1 != len(models):
        return list(table)
    return [replace(row, model=models[block]) for row, block in zip(table, blocks, strict=True)]


def _size(row: Record) -> tuple[int, int]:
    return row.input_len or 0, row.batch or 0
