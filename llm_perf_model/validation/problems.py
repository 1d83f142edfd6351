"""What a calibration fits: an engine to runs of models, or kernels to timed operators."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from ..errors import RequestError
from ..specs.catalog import load
from ..specs.engine import EngineSpec
from ..specs.kernels import KernelRates, KernelSpec
from .compare import Score, score
from .fit import value_at, with_values
from .kernel_fit import FIELDS_OF_FAMILY, family_of_row, measured_s, shape_group, times_s
from .operators import Timed
from .posterior import Prior
from .stacks import stacked

FACTOR_OF_TIMES: Final = 1.5
"""Deviation of the logarithm of a time before any record: a factor of 4.5 either way."""

FACTOR_OF_RATES: Final = 0.25
"""Deviation of the logarithm of an efficiency or a ratio before any record: a quarter either way."""

FIRST_TIMES_S: Final[Mapping[str, float]] = {
    "step_s": 5e-4,
    "sequence_s": 2e-5,
    "request_s": 2e-3,
    "layer_s": 1e-4,
    "dispatch_s": 5e-6,
}
"""Host times to start from where the base engine has none."""

FOLDS: Final = 5
"""Groups of rows that are left out in turn, at most."""

CONTRADICTION: Final = 1.3
"""Factor between two values of one run above which they contradict each other."""


class Problem(Protocol):
    """Rows, coefficients that they may fix, and the error of each row under some of them."""

    base: EngineSpec
    size: int

    def priors(self) -> dict[str, Prior]:
        """The coefficients and what is known of them before the records."""

    def engine(self, values: Mapping[str, float]) -> EngineSpec:
        """The base engine with these values."""

    def errors(self, rows: Sequence[int], values: Mapping[str, float]) -> Any:
        """log(estimate / measurement) of some rows."""

    def groups(self) -> tuple[str, list[str]]:
        """What is left out in turn, and the group of each row."""

    def contradictions(self) -> tuple[str, ...]:
        """A line for each pair of rows that cannot both be right."""


class Runs:
    """Runs of models: the engine's host times, ratios of its kernels and of its link."""

    def __init__(self, base: EngineSpec, scores: Sequence[Score]) -> None:
        self.base, self.scores, self.size = base, scores, len(scores)

    def priors(self) -> dict[str, Prior]:
        """Host times, where the base engine or its kind has such, and ratios of kernels."""
        base, eager = self.base, self.base.kind == "eager"
        waits = ["region_s"] if base.region_s else []  # of the cores that share a product
        times = ["step_s", "sequence_s", "request_s", *(["layer_s", "dispatch_s"] if eager else []), *waits]
        priors = {field: Prior(value_at(base, field) or FIRST_TIMES_S[field], FACTOR_OF_TIMES) for field in times}
        priors |= {
            field: Prior(value_at(base, field) or 1.0, FACTOR_OF_RATES) for field in ("memory_ratio", "compute_ratio")
        }
        if any(int(item.mapped.request.get("tp", 1)) > 1 for item in self.scores):
            priors["link_efficiency"] = Prior(base.link_efficiency or 0.75, FACTOR_OF_RATES)
        return priors

    def engine(self, values: Mapping[str, float]) -> EngineSpec:
        """The base engine with these values."""
        return with_values(self.base, tuple(values), tuple(values.values()))

    def errors(self, rows: Sequence[int], values: Mapping[str, float]) -> Any:
        """log(estimate / measurement) of some rows."""
        engine = self.engine(values)
        chosen = [self.scores[row] for row in rows]
        return np.array([np.log(score(s.record, s.mapped, engine).estimated / s.measured) for s in chosen])

    def groups(self) -> tuple[str, list[str]]:
        """Models if there are several, else batches, else single rows."""
        for word in ("model", "batch"):
            found = [str(getattr(s.record, word)) for s in self.scores]
            if len(set(found)) > 1:
                return word, _folds(found)
        return "row", _folds([str(row) for row in range(self.size)])

    def contradictions(self) -> tuple[str, ...]:
        """Runs that are recorded more than once with values far apart."""
        same: dict[tuple[Any, ...], list[Score]] = {}
        for item in self.scores:
            same.setdefault((*sorted(item.mapped.request.items()), item.record.metric), []).append(item)
        lines = []
        for items in same.values():
            low, high = min(items, key=lambda s: s.measured), max(items, key=lambda s: s.measured)
            if high.measured > CONTRADICTION * low.measured:
                lines.append(
                    f"{low.record.file}:{low.record.line} and {high.record.file}:{high.record.line} contradict each "
                    f"other: {low.measured:.4g} and {high.measured:.4g} for the same run"
                )
        return tuple(lines)


class Operators:
    """Timed operators: the coefficients of kernels, in place of those of the generation."""

    def __init__(self, base: EngineSpec, rows: Sequence[Timed]) -> None:
        generations = sorted({stack.generation for stack in stacked(rows)})
        if len(generations) > 1:
            listed = ", ".join(generations)
            raise RequestError(f"records: hold several GPU generations ({listed}); calibrate one at a time")
        self.base, self.rows, self.size = base, rows, len(rows)
        self.kernels = load(KernelSpec, generations[0])

    def priors(self) -> dict[str, Prior]:
        """The generation's coefficients of the families that the rows time."""
        families = dict.fromkeys(map(family_of_row, self.rows))
        values = {field: value_at(self.kernels, field) for family in families for field in FIELDS_OF_FAMILY[family]}
        return {
            f"kernels.{field}": Prior(value, FACTOR_OF_TIMES if field.endswith("_s") else FACTOR_OF_RATES)
            for field, value in values.items()
            if value  # no kernel of that form exists, or it costs nothing
        }

    def engine(self, values: Mapping[str, float]) -> EngineSpec:
        """The base engine with kernels of its own."""
        kernels = self._kernels(values)
        rates = KernelRates(**{field: getattr(kernels, field) for field in KernelRates.model_fields})
        return self.base.model_copy(update={"kernels": rates})

    def errors(self, rows: Sequence[int], values: Mapping[str, float]) -> Any:
        """log(estimate / measurement) of some rows, in the order of their stacks."""
        stacks = stacked(self.rows[row] for row in rows)
        return np.log(times_s(self._kernels(values), stacks) / measured_s(stacks))

    def groups(self) -> tuple[str, list[str]]:
        """Groups of shapes."""
        return "shape", [shape_group(row) for row in self.rows]

    def contradictions(self) -> tuple[str, ...]:
        """None: operators are timed many times over, and differ."""
        return ()

    def _kernels(self, values: Mapping[str, float]) -> KernelSpec:
        fields = [field.removeprefix("kernels.") for field in values]
        return with_values(self.kernels, fields, tuple(values.values()))


def _folds(groups: Sequence[str]) -> list[str]:
    """The groups joined to a few, always in the same way."""
    distinct = sorted(set(groups), key=lambda group: zlib.crc32(group.encode()))
    fold = {group: str(index % FOLDS) for index, group in enumerate(distinct)}
    return [fold[group] for group in groups]
