"""Coefficients of kernels and exchanges from timed operators: known ones are found, small sets are heard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.validation.fit import bounds_of, value_at, with_values
from llm_perf_model.validation.kernel_fit import (
    FIELDS_OF_FAMILY,
    belongs,
    family_of,
    family_of_row,
    fit_rates,
    left_out_errors,
    measured_s,
    shape_group,
    times_s,
)
from llm_perf_model.validation.operators import Timed, timed
from llm_perf_model.validation.stacks import stacked

from .rows import operator

AMPERE = load(KernelSpec, "ampere")
FABRIC = load(CollectiveSpec, "fabric")
HEADS = {"heads": 32, "kv_heads": 32, "head_dim": 128}
MOE = "topk=2,experts=8,moe_tp=1,moe_ep=1,dist=balanced"

PRODUCTS = [
    {"operator": "gemm", "m": m, "n": n, "k": k}
    for m in (1, 16, 100, 512, 4096)
    for n in (64, 1024, 12288)
    for k in (64, 2048, 16384)
]
ATTENTIONS = [
    *(
        {"operator": "context_attention", "batch": batch, "q_len": n, "kv_len": n, **HEADS}
        for batch in (1, 8)
        for n in (64, 500, 4000)
    ),
    *(
        {"operator": "generation_attention", "batch": batch, "kv_len": n, **HEADS}
        for batch in (1, 16, 200)
        for n in (64, 2000)
    ),
]
NARROW = [change | {"w_dtype": "sq"} for change in PRODUCTS]
EXPERTS = [{"operator": "moe", "shape": MOE, "m": m, "hidden": 4096, "n": n} for m in (1, 64, 8192) for n in (64, 8192)]
REDUCTIONS = [
    {"operator": "all_reduce", "n_devices": ranks, "bytes": 4.0**size} for ranks in (2, 4, 8) for size in range(4, 16)
]


def rows_of(changes: Iterable[dict[str, Any]], **more: Any) -> list[Timed]:
    return [timed(operator(**change, **more)) for change in changes]


def measured_by(spec: Any, rows: Iterable[Timed]) -> list[Timed]:
    """The same operators with the times that the model itself gives for other coefficients."""
    made = []
    for stack in stacked(rows):
        values = np.broadcast_to(times_s(spec, [stack]), len(stack.rows)).tolist()
        pairs = zip(stack.rows, values, strict=True)
        made += [replace(row, record=replace(row.record, value=value)) for row, value in pairs]
    return made


# Known coefficients.


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        (PRODUCTS, FIELDS_OF_FAMILY["gemm"]),
        (ATTENTIONS, FIELDS_OF_FAMILY["attention"]),
        (EXPERTS, FIELDS_OF_FAMILY["experts"]),
        (NARROW, ("schemes.int8.compute_efficiency", "schemes.int8.memory_efficiency")),
    ],
    ids=["products", "attention", "experts", "narrow products"],
)  # fmt: skip
def test_known_coefficients_of_kernels_are_found_again(changes: list[dict[str, Any]], fields: tuple[str, ...]) -> None:
    """Operators timed by the model with 0.6 of each coefficient of the file."""
    known = with_values(AMPERE, fields, [0.6 * value_at(AMPERE, field) for field in fields])
    rows = measured_by(known, rows_of(changes))
    found, solution = fit_rates(AMPERE, fields, stacked(rows))
    for field in fields:
        assert value_at(found, field) == pytest.approx(value_at(known, field), rel=0.02), field
    assert np.abs(solution.residuals).max() < 0.01
    other = set(KernelSpec.model_fields) - {field.split(".")[0] for field in fields}
    assert all(getattr(found, name) == getattr(AMPERE, name) for name in other)


def test_known_coefficients_of_exchanges_are_found_again() -> None:
    fields = ("start_cycles", "hop_cycles", "chunk_cycles", "link_efficiency")
    known = with_values(FABRIC, fields, [0.6 * value_at(FABRIC, field) for field in fields])
    rows = measured_by(known, rows_of(REDUCTIONS))
    found, _ = fit_rates(FABRIC, fields, stacked(rows))
    assert [value_at(found, f) for f in fields] == pytest.approx([value_at(known, f) for f in fields], rel=0.02)
    assert found.one_kernel == FABRIC.one_kernel


# Weights.

PASSES = [{"operator": "softmax", "m": 100_000 + m, "n": 8192} for m in range(400)]
"""Passes over gigabytes, which the memory alone limits."""


@pytest.mark.parametrize("small", [4, 25, 100])
def test_a_large_source_does_not_silence_a_small_one(small: int) -> None:
    """Sources that are 1 % apart: each counts as the root of its rows, not as their number."""
    low, high = 0.6, 0.606
    field = "elementwise.memory_efficiency"
    slow, fast = (with_values(AMPERE, [field], [value]) for value in (low, high))
    rows = measured_by(slow, rows_of(PASSES, source="large"))
    rows += measured_by(fast, rows_of(PASSES[:small], source="small"))
    found, _ = fit_rates(AMPERE, [field], stacked(rows))
    heard = np.log(value_at(found, field) / low) / np.log(high / low)
    assert heard == pytest.approx(small**0.5 / (400**0.5 + small**0.5), abs=0.01)
    assert heard > 1.6 * small / (400.0 + small)


def test_rows_of_one_source_and_family_count_alike() -> None:
    field = "elementwise.memory_efficiency"
    slow, fast = (with_values(AMPERE, [field], [value]) for value in (0.6, 0.606))
    rows = measured_by(slow, rows_of(PASSES[:30])) + measured_by(fast, rows_of(PASSES[:10]))
    found, _ = fit_rates(AMPERE, [field], stacked(rows))
    assert np.log(value_at(found, field) / 0.6) / np.log(1.01) == pytest.approx(0.25, abs=0.01)


# Left-out rows.


def test_left_out_operators_have_no_say() -> None:
    """Whatever the times of a group are, its estimates are those of the other groups' coefficients."""
    fields = ("gemm.memory_efficiency", "kernel_start_s")
    known = with_values(AMPERE, fields, [0.6 * value_at(AMPERE, field) for field in fields])
    rows = measured_by(known, rows_of(PRODUCTS))
    groups = {shape_group(row) for row in rows}
    assert 1 < len(groups) <= 5
    first = shape_group(rows[0])
    odd = [
        replace(r, record=replace(r.record, value=9 * (r.record.value or 0.0))) if shape_group(r) == first else r
        for r in rows
    ]
    clean, bad = (left_out_errors(AMPERE, fields, each, shape_group) for each in (rows, odd))
    assert len(clean) == len(bad) == len(rows)
    assert all(abs(error) < 0.01 for error, _ in clean)
    for error, row in bad:
        if shape_group(row) == first:
            assert error == pytest.approx(1.0 / 9.0 - 1.0, abs=0.01)
    assert any(abs(error) > 0.05 for error, row in bad if shape_group(row) != first)


# Which rows a file describes.


def test_a_stack_belongs_to_its_generation_or_to_its_kind_of_link() -> None:
    (product,) = stacked(rows_of(PRODUCTS[:1]))
    (exchange,) = stacked(rows_of(REDUCTIONS[:1]))
    kinds = [(KernelSpec, names(KernelSpec)), (CollectiveSpec, names(CollectiveSpec))]
    owners = {
        stack.first.family: [name for kind, listed in kinds for name in listed if belongs(stack, load(kind, name))]
        for stack in (product, exchange)
    }
    assert owners == {"gemm": ["ampere"], "collective": ["fabric"]}


def test_a_group_of_shapes_knows_nothing_of_rows_batches_and_lengths() -> None:
    alike = rows_of({"operator": "gemm", "m": m, "n": 1024, "k": 2048} for m in (1, 16, 4096))
    assert len({shape_group(row) for row in alike}) == 1
    steps = rows_of(
        {"operator": "generation_attention", "batch": b, "kv_len": n, **HEADS} for b in (1, 9) for n in (9, 99)
    )
    assert len({shape_group(row) for row in steps}) == 1
    other = rows_of({"operator": "gemm", "m": 1, "n": n, "k": 2048} for n in range(64, 6400, 64))
    assert {shape_group(row) for row in other} == set("01234")
    sizes = rows_of({"operator": "all_reduce", "n_devices": 2, "bytes": 1024.0 * n} for n in range(1, 60))
    assert len({shape_group(row) for row in sizes}) == 5


@pytest.mark.parametrize(
    ("field", "family"),
    [
        ("gemm.wave_s", "gemm"),
        ("vector_gemm.wave_s", "vector_gemm"),
        ("schemes.int8.compute_efficiency", "gemm"),
        ("kernel_start_s", "gemm"),
        ("convolution.compute_efficiency", "convolution"),
        ("vector_convolution.winograd_efficiency", "vector_convolution"),
        ("recurrent.step_s", "recurrent"),
        ("attention.wave_s", "attention"),
        ("elementwise.memory_efficiency", "elementwise"),
        ("experts.schemes.int4_weights.widened_values_per_cycle", "experts"),
        ("link_efficiency", "collective"),
        ("one_kernel.rank_cycles", "collective"),
    ],
)
def test_each_coefficient_has_its_family(field: str, family: str) -> None:
    assert family_of(field) == family


def test_products_of_vector_units_are_a_family_of_their_own() -> None:
    tensor, vector = rows_of([PRODUCTS[0], PRODUCTS[0] | {"w_dtype": "fp32"}])
    assert (family_of_row(tensor), family_of_row(vector)) == ("gemm", "vector_gemm")
    (attention,) = rows_of([ATTENTIONS[0] | {"w_dtype": "fp32"}])
    assert family_of_row(attention) == "attention"


@pytest.mark.parametrize("name", names(KernelSpec))
def test_coefficients_of_every_family_exist_and_have_bounds(name: str) -> None:
    for family, fields in FIELDS_OF_FAMILY.items():
        for field in fields:
            value = value_at(load(KernelSpec, name), field)
            assert value is None or value > 0.0 or (value == 0.0 and field.endswith(("_s", "_cycles")))
            low, high = bounds_of(field)
            assert 0.0 < low < high
            assert family_of(field) in {family, "gemm"}


def test_times_and_measurements_are_in_the_order_of_the_stacks() -> None:
    rows = rows_of([*PRODUCTS[:5], *ATTENTIONS[:4]])
    rows = [replace(row, record=replace(row.record, value=1e-6 * (i + 1))) for i, row in enumerate(rows)]
    stacks = stacked(rows)
    assert measured_s(stacks).tolist() == [row.record.value for stack in stacks for row in stack.rows]
    assert times_s(AMPERE, stacks).tolist() == [
        float(value) for stack in stacks for value in np.broadcast_to(stack.time_s(), len(stack.rows))
    ]
