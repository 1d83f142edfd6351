"""A graph of operators as a path with forks: what runs one after the other, and what branches and joins again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from .program import Op, Program

_START = -1
"""Place of the input, before the first operator."""


@dataclass(frozen=True, slots=True)
class Step:
    """An operator on the way, and which of its outputs goes on."""

    op: Op
    output: str


@dataclass(frozen=True, slots=True)
class Fork:
    """Paths that begin at the same tensor, and the operator that joins their ends."""

    op: Op
    branches: tuple[Path, ...]


Item: TypeAlias = Step | Fork
Path: TypeAlias = tuple[Item, ...]


def path_of(program: Program) -> Path:
    """The operators between the input and the output of a program.

    Branches end where they join, so each begins at what every way to its end passes last: the immediate dominator [1]_.

    Raises:
        RefusedError: branches cross, or an operator is not on the way to the output.

    .. [1] K. D. Cooper, T. J. Harvey and K. Kennedy, "A Simple, Fast Dominance Algorithm", Rice University
       TR-06-33870, 2001.
    """
    walk = _Walk(program)
    path = walk.path(program.target, _START)
    seen: set[int] = set()
    for op in operators(path):
        if id(op) in seen:
            raise op.refused("its branches do not end in one join before others begin")
        seen.add(id(op))
    for op in program.ops:
        if id(op) not in seen and op.kind not in VIEWS and op.data:
            raise op.refused(f"does not lead to the output {program.target}, which is the one that counts")
    return path


VIEWS = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Split", "Slice", "Gather", "Concat"})
"""Operators that move values and compute nothing."""


def operators(path: Path) -> Iterator[Op]:
    """Every operator of a path, those of its branches before the one that joins them."""
    for item in path:
        if isinstance(item, Fork):
            for branch in item.branches:
                yield from operators(branch)
        yield item.op


class _Walk:
    """From the end of a path back to its start."""

    def __init__(self, program: Program) -> None:
        self.ops = program.ops
        self.maker = {name: place for place, op in enumerate(self.ops) for name in op.outputs if name}
        self.maker[program.source] = _START
        self.dominator = self._dominators()

    def _dominators(self) -> list[int]:
        """Of each operator, the last one that every way to it passes; operators come after those that they read."""
        found: list[int] = []

        def common(one: int, other: int) -> int:
            while one != other:
                if one > other:
                    one = found[one]
                else:
                    other = found[other]
            return one

        for op in self.ops:
            makers = [self._maker(op, name) for name in op.data]
            nearest = makers[0] if makers else _START
            for maker in makers[1:]:
                nearest = common(nearest, maker)
            found.append(nearest)
        return found

    def _maker(self, op: Op, name: str) -> int:
        if name not in self.maker:
            raise op.refused(f"reads {name}, which nothing before it makes")
        return self.maker[name]

    def path(self, end: str, start: int) -> Path:
        """What runs after the operator at `start`, up to the one that makes the tensor `end`."""
        items: list[Item] = []
        place = self.maker[end]
        while place != start:
            op = self.ops[place]
            if len(op.data) > 1:
                start_of_branches = self.dominator[place]
                items.append(Fork(op, tuple(self.path(name, start_of_branches) for name in op.data)))
                place = start_of_branches
                end = self.ops[place].outputs[0] if place != _START else ""
            else:
                items.append(Step(op, end))
                end = op.data[0]
                place = self._maker(op, end)
        return tuple(reversed(items))
