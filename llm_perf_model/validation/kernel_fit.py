"""Coefficients of kernels and of exchanges from timed operators."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..machine import convolution_peak, gemm_peak
from ..specs.catalog import load
from ..specs.collective import CollectiveSpec
from ..specs.gpu import GpuSpec
from ..specs.kernels import KernelSpec
from ..specs.precision import PrecisionSpec
from .fit import Solution, solve, value_at, with_values
from .operators import Timed
from .stacks import Stack, stacked

R = TypeVar("R", KernelSpec, CollectiveSpec)


def times_s(spec: KernelSpec | CollectiveSpec, stacks: Iterable[Stack]) -> Any:
    """Estimated seconds of every row of the stacks under the coefficients of a file."""
    if isinstance(spec, KernelSpec):
        return np.concatenate([stack.time_s(kernels=spec) for stack in stacks])
    return np.concatenate([stack.time_s(reached=spec) for stack in stacks])


def measured_s(stacks: Iterable[Stack]) -> Any:
    """Recorded seconds of every row of the stacks."""
    return np.concatenate([stack.measured_s for stack in stacks])


def fit_rates(spec: R, fields: Sequence[str], stacks: Sequence[Stack]) -> tuple[R, Solution]:
    """The file with `fields` fitted to all rows at once, from its own values on.

    Rows of one source, device, precision and family share a weight that grows with the root of their
    number, so that a large source does not silence a small one.
    """
    measured, weights = measured_s(stacks), _weights(stacks)

    def residuals(values: Any) -> Any:
        return weights * np.log(times_s(with_values(spec, fields, values), stacks) / measured)

    start = [value_at(spec, field) for field in fields]
    solution = solve(residuals, fields, [start], loss="soft_l1")
    return with_values(spec, fields, solution.values), solution


def _weights(stacks: Sequence[Stack]) -> Any:
    rows = [row for stack in stacks for row in stack.rows]
    sets = [_set(row) for row in rows]
    counts = {name: sets.count(name) for name in set(sets)}
    weights = np.array([counts[name] ** -0.25 for name in sets])
    return weights / np.sqrt(np.mean(weights**2))


def _set(row: Timed) -> tuple[str, ...]:
    return (row.record.source, row.gpu, row.precision, row.family)


def left_out_errors(
    spec: R, fields: Sequence[str], rows: Sequence[Timed], group: Callable[[Timed], str]
) -> list[tuple[float, Timed]]:
    """For each group, the errors of its rows under coefficients fitted to the rows of all other groups.

    Rows whose kernels no other group holds are left out of the errors too: nothing would fix their coefficients.
    """
    errors: list[tuple[float, Timed]] = []
    for name in dict.fromkeys(map(group, rows)):
        others = [row for row in rows if group(row) != name]
        known = {_kernels(row) for row in others}
        held = stacked(row for row in rows if group(row) == name and _kernels(row) in known)
        if not held:
            continue
        fitted, _ = fit_rates(spec, fields, stacked(others))
        estimates = times_s(fitted, held) / measured_s(held) - 1.0
        errors += zip(estimates.tolist(), [row for stack in held for row in stack.rows], strict=True)
    return errors


def _kernels(row: Timed) -> tuple[str, ...]:
    """What two rows share whose times the same coefficients fix."""
    scheme = load(PrecisionSpec, row.precision).scheme
    return (row.family, row.engine if row.family == "attention" else "", scheme)


def belongs(stack: Stack, spec: KernelSpec | CollectiveSpec) -> bool:
    """Whether a file describes what a stack timed."""
    exchange = stack.first.family == "collective"
    if isinstance(spec, CollectiveSpec):
        return exchange and stack.link_kind == spec.name
    return not exchange and stack.generation == spec.name


def shape_group(row: Timed) -> str:
    """One of five groups of shapes; batch, rows and lengths are no part of a shape, bytes of an exchange are."""
    lengths = {"m", "batch", "q_len", "kv_len", "steps"}
    sizes = {key: value for key, value in row.record.sizes.items() if key not in lengths}
    shape = re.sub(r'"N": [\d.]+', "", row.record.shape)
    return str(zlib.crc32(f"{shape}{sorted(sizes.items())}".encode()) % 5)


def family_of(field: str) -> str:
    """The family of operators whose times fix a coefficient."""
    head = field.split(".", 1)[0]
    return {"schemes": "gemm", "kernel_start_s": "gemm"}.get(head, head if head in FAMILIES else "collective")


FAMILIES = frozenset(
    {"gemm", "vector_gemm", "convolution", "vector_convolution", "recurrent", "attention", "elementwise", "experts"}
)


def family_of_row(row: Timed) -> str:
    """The family of a row's coefficients: products and convolutions on vector units have their own."""
    if row.family not in {"gemm", "convolution"}:
        return row.family
    gpu, precision = load(GpuSpec, row.gpu), load(PrecisionSpec, row.precision)
    peak = gemm_peak(gpu, precision)
    assert peak is not None, "a timed operator has a unit"
    unit = peak if row.family == "gemm" else convolution_peak(gpu, precision, peak)
    return row.family if unit.startswith("tensor_") else f"vector_{row.family}"


_PRODUCTS = ("compute_efficiency", "memory_efficiency", "load_bytes_per_cycle", "wave_s", "split_s")
FIELDS_OF_FAMILY = {
    "gemm": (*(f"gemm.{field}" for field in _PRODUCTS), "kernel_start_s"),
    "vector_gemm": (*(f"vector_gemm.{field}" for field in _PRODUCTS), "kernel_start_s"),
    "convolution": ("convolution.compute_efficiency",),
    "vector_convolution": tuple(
        f"vector_convolution.{field}" for field in ("compute_efficiency", "winograd_efficiency")
    ),
    "recurrent": tuple(f"recurrent.{field}" for field in ("step_s", "depth_cycles", "memory_efficiency")),
    "attention": tuple(f"attention.{field}" for field in ("compute_efficiency", "memory_efficiency", "wave_s")),
    "elementwise": tuple(
        f"elementwise.{field}" for field in ("memory_efficiency", "cache_bytes_per_cycle", "row_values_per_cycle")
    ),
    "experts": ("experts.load_ratio", "experts.memory_efficiency", "experts.start_s"),
}
"""Family of timed operators -> the coefficients that a calibration fits to them."""
