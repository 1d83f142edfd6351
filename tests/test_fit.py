"""Fits of coefficients: known ones are found again, left-out rows have no say, the shipped ones are reproduced."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.errors import RequestError
from llm_perf_model.specs.base import Fit
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.validation import engine_fit
from llm_perf_model.validation.compare import Errors, Score, Validation, score
from llm_perf_model.validation.crossing import RUN_GROUPS, cross_validation, fitted_rows
from llm_perf_model.validation.engine_fit import leave_one_out, refit
from llm_perf_model.validation.fit import (
    BOUNDS,
    MEMORY_FIELDS,
    STARTS,
    bounds_of,
    free_fields,
    solve,
    value_at,
    with_values,
)

FITTED = [
    name
    for name in lpm.engines()
    if any(origin.startswith("records/") for fit in load(EngineSpec, name).fits for origin in fit.records)
]
SLOWER = dict.fromkeys(("hf-gptq", "onnxruntime-gpu", "pytorch-eager"), 1.4) | dict.fromkeys(
    ("tensorrt", "torch-tensorrt-jit"), 1.1
)
"""Factor of a coefficient that a smaller one would hide, or take out of its bounds: the device takes longer than a
faster host."""
every_fit = pytest.mark.parametrize("name", FITTED)
MANY_ROWS = 20


def measured_by(engine: EngineSpec, scores: Sequence[Score]) -> list[Score]:
    """The same runs with the values that the model itself gives for an engine."""
    values = [score(s.record, s.mapped, engine).estimated for s in scores]
    return [replace(s, record=replace(s.record, value=value)) for s, value in zip(scores, values, strict=True)]


def poisoned(scores: Sequence[Score], group: Callable[[Score], str], name: str) -> list[Score]:
    """The rows of one group with a thousand times their value."""
    return [replace(s, record=replace(s.record, value=1e3 * s.measured)) if group(s) == name else s for s in scores]


def coefficients(engine: EngineSpec) -> list[float]:
    return [getattr(engine, field) for field in free_fields(engine)]


def fits_of_times(engine: EngineSpec) -> list[Fit]:
    return [entry for entry in engine.fits if not set(entry.fields) & set(MEMORY_FIELDS)]


@pytest.mark.parametrize("name", lpm.engines())
def test_records_of_times_and_of_memory_fix_other_coefficients(name: str) -> None:
    engine = load(EngineSpec, name)
    of_times = [field for entry in fits_of_times(engine) for field in entry.fields]
    of_memory = [field for entry in engine.fits if entry not in fits_of_times(engine) for field in entry.fields]
    assert free_fields(engine) == tuple(of_times)
    assert set(of_memory) <= set(MEMORY_FIELDS)
    assert len(set(of_times)) == len(of_times)


def test_some_engines_have_their_memory_from_records() -> None:
    fitted = {
        name for name in lpm.engines() if load(EngineSpec, name).fits != tuple(fits_of_times(load(EngineSpec, name)))
    }
    assert fitted == {"hf-transformers", "optimum-onnxruntime"}


def test_there_are_fitted_engines() -> None:
    assert {"eet", "fastertransformer", "hf-transformers", "deepspeed-inference", "pytorch-forward"} <= set(FITTED)


@every_fit
def test_known_coefficients_are_found_again(held: Validation, name: str) -> None:
    """Some records made by the model with other coefficients than the file's."""
    engine = load(EngineSpec, name)
    known = with_values(engine, free_fields(engine), [SLOWER.get(name, 0.6) * value for value in coefficients(engine)])
    rows = fitted_rows(held, engine)
    found = refit(engine, measured_by(known, rows))
    assert coefficients(found) == pytest.approx(coefficients(known), rel=0.01)


@every_fit
def test_a_shipped_coefficient_is_what_a_fit_of_the_shipped_records_gives(held: Validation, name: str) -> None:
    """So `python scripts/refit.py` leaves the files as they are; the values in the file have no say."""
    engine = load(EngineSpec, name)
    elsewhere = with_values(engine, free_fields(engine), [0.5 * value for value in coefficients(engine)])
    fitted = refit(elsewhere, fitted_rows(held, engine))
    for field in free_fields(engine):
        assert getattr(engine, field) == float(f"{getattr(fitted, field):.4g}"), field


@every_fit
def test_the_stated_error_is_that_on_the_rows(held: Validation, name: str) -> None:
    engine = load(EngineSpec, name)
    e = Errors.of(name, [score(s.record, s.mapped, engine).error for s in fitted_rows(held, engine)])
    figures = f"median {e.median:.1%}, mean {e.mean:.1%}, worst {e.worst:.1%} on these rows"
    assert {entry.error for entry in fits_of_times(engine)} == {figures}


@every_fit
def test_free_coefficients_are_few_beside_the_rows(held: Validation, name: str) -> None:
    engine = load(EngineSpec, name)
    free, rows = len(free_fields(engine)), len(fitted_rows(held, engine))
    assert rows > free
    assert free < rows / 5 if rows > MANY_ROWS else free <= 3
    assert {entry.rows for entry in fits_of_times(engine)} == {rows}


@every_fit
def test_a_fitted_coefficient_lies_inside_the_bounds(name: str) -> None:
    engine = load(EngineSpec, name)
    for field in free_fields(engine):
        low, high = bounds_of(field)
        assert 1.001 * low < getattr(engine, field) < high / 1.001, field


@every_fit
def test_a_run_counts_once_and_only_of_the_engine_itself(held: Validation, name: str) -> None:
    engine = load(EngineSpec, name)
    rows = fitted_rows(held, engine)
    runs = [
        (r.engine, r.model, r.device, r.n_devices, r.tp, r.w_dtype, r.batch, r.input_len, r.output_len, s.mapped.phase)
        for s in rows
        for r in (s.record,)
    ]
    asked = [s.mapped.baseline or s.mapped for s in rows]
    assert len(runs) == len(set(runs))
    assert {run.engine for run in asked} == {name}
    assert not any(run.fallback for run in asked)
    assert all(s.mapped.is_time or s.mapped.baseline for s in rows)
    assert all(s.record.outcome == "ok" for s in rows)


def test_ratios_fix_the_baseline_only_where_its_file_names_them(held: Validation) -> None:
    """The file of eager transformers knows nothing of the chart of encoders that compares with them."""
    baselines = {s.mapped.baseline.engine for s in held.scores if s.mapped.baseline}
    assert baselines == {"fairseq", "fastertransformer-3.1", "lightseq", "hf-eager"}
    for name in baselines:
        ratios = [s for s in fitted_rows(held, load(EngineSpec, name)) if s.mapped.baseline]
        assert bool(ratios) == (name != "hf-eager"), name
    assert not any(s.mapped.baseline for s in fitted_rows(held, load(EngineSpec, "eet")))


# Left-out rows.


@pytest.mark.parametrize(("name", "by"), [("eet", "batch"), ("eet", "model"), ("pytorch-forward", "device")])
def test_left_out_rows_have_no_say(held: Validation, monkeypatch: pytest.MonkeyPatch, name: str, by: str) -> None:
    """The coefficients fitted without a group stay the same whatever the values of that group are."""
    engine, group = load(EngineSpec, name), RUN_GROUPS[by]
    scores = fitted_rows(held, engine)
    first = group(scores[0])
    fits: list[list[float]] = []

    def recorded(spec: EngineSpec, rows: Sequence[Score]) -> EngineSpec:
        if any(group(row) == first for row in rows):
            return spec  # only the fit without the poisoned group is of interest
        fits.append(coefficients(refit(spec, rows)))
        return with_values(spec, free_fields(spec), fits[-1])

    monkeypatch.setattr(engine_fit, "refit", recorded)
    clean = leave_one_out(engine, scores, group)
    (honest,) = fits
    fits.clear()
    bad = leave_one_out(engine, poisoned(scores, group, first), group)
    assert fits == [honest]
    for (error, row), (wrong, other) in zip(clean, bad, strict=True):
        assert row.mapped is other.mapped
        if group(row) == first:
            assert wrong + 1.0 == pytest.approx((error + 1.0) / 1e3, rel=1e-12)


def test_each_row_is_left_out_once(held: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_fit, "refit", lambda spec, _: spec)
    engine = load(EngineSpec, "eet")
    scores = fitted_rows(held, engine)
    rows = leave_one_out(engine, scores, RUN_GROUPS["batch"])
    assert sorted(id(s) for _, s in rows) == sorted(id(s) for s in scores)


def test_one_group_leaves_nothing_to_fit(held: Validation) -> None:
    engine = load(EngineSpec, "fastertransformer")
    assert leave_one_out(engine, fitted_rows(held, engine), RUN_GROUPS["model"]) == []


def left_out_errors(held: Validation, name: str) -> list[float]:
    engine = load(EngineSpec, name)
    return [abs(error) for error, _ in leave_one_out(engine, fitted_rows(held, engine), RUN_GROUPS["model"])]


def test_eet_without_a_model(held: Validation) -> None:
    """records/eet_gpt3_a100.csv: the median over fourteen rows, each under a fit without its model."""
    errors = left_out_errors(held, "eet")
    assert len(errors) == 14
    assert float(np.median(errors)) <= 0.10


def test_forward_passes_without_a_model(held: Validation) -> None:
    """records/forward_16x1024_a5000_a6000.csv: the mean over 24 rows, each under a fit without its model."""
    errors = left_out_errors(held, "pytorch-forward")
    assert len(errors) == 24
    assert float(np.mean(errors)) <= 0.08


# Coefficients by their names.

AMPERE = load(KernelSpec, "ampere")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kernel_start_s", 2e-6),
        ("gemm.wave_s", 3e-6),
        ("attention.compute_efficiency", 0.25),
        ("schemes.int8.memory_efficiency", 0.5),
        ("experts.load_ratio", 0.125),
    ],
)
def test_a_value_is_put_where_it_is_read_and_nowhere_else(field: str, value: float) -> None:
    changed = with_values(AMPERE, [field], [value])
    assert value_at(changed, field) == value != value_at(AMPERE, field)
    assert with_values(changed, [field], [value_at(AMPERE, field)]) == AMPERE
    head = field.split(".", maxsplit=1)[0]
    other = [name for name in KernelSpec.model_fields if name != head]
    assert all(getattr(changed, name) == getattr(AMPERE, name) for name in other)


def test_several_values_of_one_part_are_put_together() -> None:
    fields = ("gemm.wave_s", "gemm.split_s", "schemes.int8.compute_efficiency", "schemes.int8.memory_efficiency")
    changed = with_values(AMPERE, fields, (1.0, 2.0, 0.3, 0.4))
    assert (changed.gemm.wave_s, changed.gemm.split_s) == (1.0, 2.0)
    int8 = AMPERE.schemes["int8"].model_copy(update={"compute_efficiency": 0.3, "memory_efficiency": 0.4})
    assert changed.schemes == {**AMPERE.schemes, "int8": int8}
    with pytest.raises(ValueError, match="zip"):
        with_values(AMPERE, fields, (1.0, 2.0))


@pytest.mark.parametrize(
    ("field", "ending"),
    [
        ("link_efficiency", "_efficiency"),
        ("kernel_start_s", "start_s"),
        ("half_layer_s", "half_layer_s"),
        ("layer_s", "layer_s"),
        ("hop_cycles", "_cycles"),
        ("schemes.fp8_block.depth_cycles", "depth_cycles"),
        ("gemm.load_bytes_per_cycle", "load_bytes_per_cycle"),
        ("elementwise.cache_bytes_per_cycle", "_bytes_per_cycle"),
        ("elementwise.row_values_per_cycle", "_values_per_cycle"),
        ("experts.load_ratio", "_ratio"),
        ("staged_bytes_per_s", "bytes_per_s"),
        ("memory_ratio", "_ratio"),
        ("concat_values_per_clock_per_sm", "_per_clock_per_sm"),
    ],
)
def test_the_longest_ending_that_fits_sets_the_bounds(field: str, ending: str) -> None:
    assert bounds_of(field) == BOUNDS[ending]
    low, high = bounds_of(field)
    assert 0.0 < low < high


def test_a_coefficient_without_bounds_cannot_be_fitted() -> None:
    with pytest.raises(RequestError, match="reserve_bytes cannot be fitted: no bounds are known for it"):
        bounds_of("reserve_bytes")


# Least squares.

POINTS = np.array([1.0, 2.0, 4.0, 8.0, 16.0])


@given(st.floats(2e-6, 2e-2), st.floats(2e-6, 5e-3))
def test_known_values_are_recovered_from_any_place(step_s: float, sequence_s: float) -> None:
    """A line, seen as logarithms: what a step adds, and what each sequence does."""
    known = np.log(step_s + sequence_s * POINTS)
    fields = ("step_s", "sequence_s")
    bounds = np.array([bounds_of(field) for field in fields])
    assume(bool(np.all(bounds[:, 0] * 1.1 < (step_s, sequence_s))))
    solution = solve(lambda values: np.log(values[0] + values[1] * POINTS) - known, fields)
    assert solution.values == pytest.approx((step_s, sequence_s), rel=1e-3)
    assert np.abs(solution.residuals).max() < 1e-5
    assert np.shape(solution.jacobian) == (5, 2)


def test_a_solution_stays_inside_the_bounds() -> None:
    low, high = bounds_of("step_s")
    for target, bound in ((1e-9, low), (1e9, high)):
        (value,) = solve(lambda values, t=target: np.log(values / t), ("step_s",)).values  # type: ignore[misc]
        assert value == pytest.approx(bound, rel=1e-3)


def test_a_start_is_taken_where_there_is_one() -> None:
    """Two valleys: the nearer one is found from a start, the deeper one from several places."""
    low, high = np.log(bounds_of("step_s"))
    shallow, deep = low + 0.9 * (high - low), low + 0.25 * (high - low)

    def residuals(values: Any) -> Any:
        x = (np.log(values[0]) - low) / (high - low)
        return np.array([min(abs(x - 0.9) + 0.01, abs(x - 0.25))])

    (found,) = solve(residuals, ("step_s",), starts=[[np.exp(shallow - 0.01)]]).values
    assert np.log(found) == pytest.approx(shallow, abs=0.3)
    (found,) = solve(residuals, ("step_s",)).values
    assert np.log(found) == pytest.approx(deep, abs=0.3)
    assert 0.25 in STARTS


def test_a_row_far_off_has_less_say_than_its_square() -> None:
    """One row in five at twenty times its value moves the square fit far, the soft one little."""
    measured = np.log(np.array([1e-3, 1e-3, 1e-3, 1e-3, 2e-2]))

    def residuals(values: Any) -> Any:
        return np.log(values[0]) - measured

    square, soft = (solve(residuals, ("step_s",), loss=loss).values[0] for loss in ("linear", "soft_l1"))
    assert square == pytest.approx(1e-3 * 20**0.2, rel=1e-3)
    assert soft < 1.1e-3


# What can go wrong.


def test_without_scipy_a_line_says_what_to_install(held: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    engine = load(EngineSpec, "eet")
    with pytest.raises(RequestError) as caught:
        refit(engine, fitted_rows(held, engine))
    assert str(caught.value) == "a fit needs SciPy: pip install 'llm-perf-model[fit]'"


def test_an_unknown_group_is_told(held: Validation) -> None:
    with pytest.raises(RequestError, match="cross_validate: is 'colour'; must be model, device, source, precision"):
        cross_validation(held, "colour")
