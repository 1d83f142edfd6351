"""Sweeps: every cell is the single estimate of its coordinates, whatever the axes, their order and the chunks."""

from __future__ import annotations

import csv
import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.specs.catalog import load
from llm_perf_model.sweeping.axes import ARRAYS, axis_of, numbers_in
from llm_perf_model.sweeping.metrics import DEFAULT_METRICS, METRICS

from .running import Run, runner

SWEEP = importlib.import_module("llm_perf_model.sweeping.evaluate")
ALL = tuple(name for name in METRICS if name != "max_batch_size")

STRUCTURAL: dict[str, list[Any]] = {
    "model": ["test-13b", "llama-3.1-8b", "mixtral-8x7b", "gemma-2-2b", "bert-base-uncased"],
    "gpu": ["a100-sxm-40gb", "h100-sxm-80gb", "rtx-4090"],
    "engine": ["vllm", "fastertransformer", "hf-transformers", "ideal"],
    "precision": ["w16a16", "fp8", "w4a16"],
    "tp": [1, 2, 3, 8],
    "pp": [1, 2],
    "attention_dp": [1, 2],
    "power_limit_w": [200.0, 300.0],
    "usd_per_gpu_hour": [1.0, 2.5],
}
NUMERIC: dict[str, list[Any]] = {
    "batch_size": [1, 2, 7, 64, 300],
    "input_len": [1, 128, 1000, 5000],
    "output_len": [1, 2, 33, 900],
    "prefix_len": [0, 100, 2000],
    "prefill_chunk": [100, 512],
    "flops_efficiency": [0.3, 0.77],
    "hbm_memory_efficiency": [0.5, 1.0],
    "hbm_bytes_per_s": [1e12, 3.35e12, 8e12],
    "flops_per_s": [1e14, 1e15],
    "link_bytes_per_s": [1e10, 9e11],
    "offload_weights": [0.0, 0.4],
}


@st.composite
def sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """Fields with one or several values each, the model among them."""
    names = draw(st.lists(st.sampled_from([*STRUCTURAL, *NUMERIC]), min_size=1, max_size=5, unique=True))
    fields: dict[str, Any] = {}
    for name in dict.fromkeys(["model", *names]):
        values = (STRUCTURAL | NUMERIC)[name]
        fields[name] = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))
    if draw(st.booleans()):
        fields["model"] = fields["model"][0]
    return fields


def assert_cell(found: lpm.Sweep, place: tuple[int, ...], fixed: dict[str, Any]) -> None:
    """The cell at a place holds what its single estimate says, to the last bit; or both refuse."""
    at = {axis.name: axis.labels[index] for axis, index in zip(found.axes, place, strict=True)}
    at = {name: float(value) if isinstance(value, np.floating) else value for name, value in at.items()}
    try:
        alone = lpm.estimate(**fixed, **at)
    except (lpm.InfeasibleError, lpm.RequestError):
        assert not found.done[place], at
        return
    assert found.done[place], at
    for name, values in found.metrics.items():
        np.testing.assert_array_equal(values[place], METRICS[name].read(alone), err_msg=f"{name} at {at}")


def assert_same(one: lpm.Sweep, other: lpm.Sweep) -> None:
    assert one.dims == other.dims
    np.testing.assert_array_equal(one.done, other.done)
    for name in one.metrics:
        np.testing.assert_array_equal(one[name], other[name])


@settings(max_examples=25, deadline=None)
@given(sweeps(), st.randoms(use_true_random=False))
def test_every_cell_is_the_estimate_of_its_coordinates(fields: dict[str, Any], random: Any) -> None:
    found = lpm.sweep(metrics=ALL, **fields)
    fixed = {name: value for name, value in fields.items() if not isinstance(value, list)}
    assert found.shape == tuple(len(value) for value in fields.values() if isinstance(value, list))
    places = list(np.ndindex(found.shape))
    for place in random.sample(places, min(len(places), 8)):
        assert_cell(found, place, fixed)


DRAFT: dict[str, Any] = {
    "model": "llama-3.1-70b", "gpu": "h100-sxm-80gb", "engine": "vllm", "tp": [4, 8], "draft": "llama-3.1-8b",
    "acceptance": [0.3, 0.95], "batch_size": [1, 64], "output_len": [1, 50], "hbm_bytes_per_s": [2e12, 4e12],
}  # fmt: skip
APART: dict[str, Any] = {
    "model": "llama-3.1-8b", "gpu": "h100-sxm-80gb", "engine": "vllm", "disaggregated": True,
    "prefill_gpu": ["h100-sxm-80gb", "a100-sxm-80gb"], "input_len": [100, 5000], "flops_per_s": [1e14, 1e15],
}  # fmt: skip


NETWORK: dict[str, Any] = {
    "model": ["resnet18", "resnext101-32x4d", "vit-b-16"], "gpu": ["a100-sxm-40gb", "rtx-2080ti"],
    "engine": "generic-fused", "batch_size": [1, 32], "flops_per_s": [1e13, 1e14], "hbm_bytes_per_s": [5e11, 2e12],
}  # fmt: skip


@pytest.mark.parametrize("fields", [DRAFT, APART, NETWORK], ids=["draft", "disaggregated", "network"])
def test_cells_of_techniques_and_networks_are_the_estimates_of_their_coordinates(fields: dict[str, Any]) -> None:
    found = lpm.sweep(metrics=ALL, **fields)
    fixed = {name: value for name, value in fields.items() if not isinstance(value, list)}
    for place in np.ndindex(found.shape):
        assert_cell(found, place, fixed)


@settings(max_examples=15, deadline=None)
@given(sweeps())
def test_what_is_skipped_and_what_is_computed_is_all(fields: dict[str, Any]) -> None:
    found = lpm.sweep(**fields)
    assert sum(each.cells for each in found.skipped) + np.count_nonzero(found.done) == found.size
    assert all(each.reason for each in found.skipped)
    assert np.all(np.isnan(found["total_s"]) == ~found.done)
    assert not np.any(found["fits"] & ~found.done)
    assert len(found.cells()) == np.count_nonzero(found.done)


@settings(max_examples=10, deadline=None)
@given(sweeps(), st.randoms(use_true_random=False))
def test_the_order_of_axes_does_not_matter(fields: dict[str, Any], random: Any) -> None:
    names = [name for name in fields if name != "model"]
    random.shuffle(names)
    one, other = lpm.sweep(**fields), lpm.sweep(fields["model"], **{name: fields[name] for name in names})
    order = [other.dims.index(name) for name in one.dims]
    for name in one.metrics:
        np.testing.assert_array_equal(one[name], np.transpose(other[name], order))


@pytest.mark.parametrize("chunk_cells", [1, 7, 64])
@settings(max_examples=4, deadline=None)
@given(fields=sweeps())
def test_chunks_make_no_difference(chunk_cells: int, fields: dict[str, Any]) -> None:
    whole = lpm.sweep(**fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SWEEP, "CHUNK_CELLS", chunk_cells)
        assert_same(lpm.sweep(**fields), whole)


def test_structural_and_numeric_axes_keep_the_order_of_the_call() -> None:
    found = lpm.sweep("test-13b", batch_size=[1, 2, 3], tp=[1, 2], input_len=[64, 128, 256, 512])
    assert (found.dims, found.shape, found.size) == (("batch_size", "tp", "input_len"), (3, 2, 4), 24)
    assert tuple(found.metrics) == DEFAULT_METRICS
    assert found["total_s"][2, 1, 3] == lpm.estimate("test-13b", batch_size=3, tp=2, input_len=512).total_s


def test_a_sweep_of_one_value_of_each_field_is_one_estimate() -> None:
    found = lpm.sweep("test-13b", tp=2)
    assert (found.dims, found.shape) == ((), ())
    assert float(found["total_s"]) == lpm.estimate("test-13b", tp=2).total_s
    assert found.best("total_s")["total_s"] == lpm.estimate("test-13b", tp=2).total_s
    assert "1 configurations" in str(found)


def test_specs_are_values_of_an_axis() -> None:
    gpus = [load(lpm.GpuSpec, "a100-sxm-40gb"), "h100-sxm-80gb"]
    found = lpm.sweep(load(lpm.ModelSpec, "test-13b"), gpu=gpus, batch_size=[1, 2])
    assert_same(found, lpm.sweep("test-13b", gpu=["a100-sxm-40gb", "h100-sxm-80gb"], batch_size=[1, 2]))
    assert found.cells().coordinates["gpu"].tolist() == ["a100-sxm-40gb"] * 2 + ["h100-sxm-80gb"] * 2


# Points, which have one axis.

POINTS = {"batch_size": [1, 200, 3, 7], "input_len": [64, 3000, 12, 900], "output_len": [1, 10, 400, 33]}


def test_points_are_one_axis_of_which_each_is_its_estimate() -> None:
    found = lpm.sweep("test-13b", tp=[1, 2], points=POINTS)
    assert (found.dims, found.shape) == (("tp", "point"), (2, 4))
    for place in np.ndindex(found.shape):
        numbers = {field: column[place[1]] for field, column in POINTS.items()}
        assert found["total_s"][place] == lpm.estimate("test-13b", tp=(1, 2)[place[0]], **numbers).total_s
    assert found.cells().row(1)["batch_size"] == 200


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ({"batch_size": [1, 2], "input_len": [1]}, "points: the columns differ in length (batch_size 2, input_len 1)"),
        ({"tp": [1, 2]}, "points: tp cannot be listed by points; give columns of "),
        ({}, "points: name no field; give columns of "),
        ({"batch_size": 3}, "points: the columns differ in length (batch_size 1)"),
        ({"output_len": [1, 2]}, "points: output_len is given by itself too; leave one of them out"),
    ],
)
def test_points_that_do_not_fit_together(points: dict[str, Any], words: str) -> None:
    with pytest.raises(lpm.RequestError) as raised:
        lpm.sweep("test-13b", points=points, output_len=7)
    assert str(raised.value).startswith(words)


# What cannot run.


def test_a_layout_that_does_not_divide_the_model_is_skipped_with_the_reason() -> None:
    found = lpm.sweep("test-13b", tp=[1, 3], batch_size=[1, 2])
    (skipped,) = found.skipped
    assert (dict(skipped.where), skipped.cells) == ({"tp": 3}, 2)
    with pytest.raises(lpm.InfeasibleError) as raised:
        lpm.estimate("test-13b", tp=3)
    assert skipped.reason == str(raised.value)
    assert f"skipped: 2 of tp 3: {skipped.reason}" in " ".join(str(found).split())


def test_only_the_numbers_that_cannot_run_are_skipped() -> None:
    found = lpm.sweep("llama-3.1-8b", engine="vllm", prefix_len=[0, 600, 2000], input_len="1:3000:100")
    assert np.array_equal(found.done, np.array([0, 600, 2000])[:, None] < np.arange(1, 3001, 100))
    assert all(each.reason.startswith("prefix_len: is ") for each in found.skipped)
    few = lpm.sweep("deepseek-v3", gpu="h200-sxm-141gb", tp=1, attention_dp=8, ep=8, batch_size="1:20")
    assert few.done.tolist() == [size >= 8 for size in range(1, 21)]


def test_a_case_of_which_nothing_can_run_is_refused_in_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[object] = []

    def counted(*given: Any) -> lpm.Estimate:
        tries.append(given)
        return answer(*given)

    answer = SWEEP.answer
    monkeypatch.setattr(SWEEP, "answer", counted)
    found = lpm.sweep("llama-3.1-8b", engine="vllm", prefix_len=[9000, 10000], input_len="1:8000", batch_size="1:10")
    assert not np.any(found.done)
    assert len(tries) < 100


# Ranges.


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1:4", [1, 2, 3, 4]),
        ("16:64:16", [16, 32, 48, 64]),
        ("16:60:16", [16, 32, 48]),
        ("0.1:0.9:0.2", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("1:64:x2", [1, 2, 4, 8, 16, 32, 64]),
        ("1:100:x10", [1, 10, 100]),
        ("1:2:n5", [1, 1.25, 1.5, 1.75, 2]),
        ("5:5", [5]),
    ],
)
def test_ranges_include_an_end_that_a_step_meets(text: str, numbers: list[float]) -> None:
    assert numbers_in("batch_size", text) == numbers


def test_the_third_part_of_a_range_of_rates_is_a_number_of_points() -> None:
    fifty = numbers_in("hbm_bytes_per_s", "1e12:8e12:50")
    assert (len(fifty), fifty[0], fifty[-1]) == (50, 1e12, 8e12)
    assert fifty == numbers_in("hbm_bytes_per_s", "1e12:8e12:n50")


def test_text_lists_values_and_ranges() -> None:
    one = lpm.sweep("test-13b", batch_size="1,2,8:32:x2", tp="1,2")
    assert one.cells().coordinates["batch_size"].tolist()[::2] == [1, 2, 8, 16, 32]
    assert_same(one, lpm.sweep("test-13b", batch_size=np.array([1, 2, 8, 16, 32]), tp=(1, 2)))
    assert_same(lpm.sweep("test-13b", tp=range(1, 3)), lpm.sweep("test-13b", tp="1:2"))


def test_a_shape_is_one_value() -> None:
    assert axis_of("input_shape", "3,224,224") is None
    assert axis_of("input_shape", [3, 224, 224]) is None
    found = lpm.sweep("resnet18", input_shape="3x224x224,3x112x112", batch_size=[1, 2])
    assert found.shape == (2, 2)
    assert found.cells().coordinates["input_shape"].tolist()[::2] == ["3x224x224", "3x112x112"]


def test_every_field_of_numbers_that_takes_arrays_is_evaluated_together() -> None:
    assert {"batch_size", "input_len", "prefix_len", "flops_efficiency", "hbm_bytes_per_s", "acceptance"} <= ARRAYS
    assert not ARRAYS & {"tp", "power_limit_w", "gpu", "input_shape"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"batch_size": []}, "batch_size: is [], which holds no value; give at least one"),
        ({"batch_size": range(5, 1)}, "batch_size: is range(5, 1), which holds no value"),
        ({"batch_size": "4:1"}, "batch_size: is '4:1', an empty range; the upper end comes second"),
        ({"batch_size": "1:4:0"}, "batch_size: is '1:4:0'; a step is above 0"),
        ({"batch_size": "1:4:x1"}, "batch_size: is '1:4:x1'; a factor is above 1"),
        ({"batch_size": "1:4:n2.5"}, "batch_size: is '1:4:n2.5'; give a whole number of points"),
        ({"batch_size": "1:4:2:1"}, "batch_size: is '1:4:2:1'; a range is lo:hi, lo:hi:step, lo:hi:x2 or lo:hi:n50"),
        ({"batch_size": "1:1e12"}, "batch_size: is '1:1e12', 1e+12 values; give at most 1e+07"),
        ({"batch_size": "1,x"}, "batch_size: 'x' is no number"),
        ({"batch_size": [1, None]}, "batch_size: None is no number"),
        ({"batch_size": [1, True]}, "batch_size: True is no number"),
        ({"batch_size": [0, 1]}, "batch_size: is array([0., 1.]); must be a whole number of at least 1"),
        ({"batch_size": [[1, 2]]}, "batch_size: [1, 2] is no number"),
        ({"batch_size": np.ones((2, 2))}, "batch_size: has the shape (2, 2); give the values of an axis in one row"),
        ({"tp": [1, 2.5]}, "tp: is 2.5; must be a whole number of at least 1"),
        ({"batchsize": [1, 2]}, "batchsize: is not a known field; did you mean batch_size?"),
        ({"metrics": ["tpots"]}, "tpots is not a known metric; did you mean tpot_s?"),
        ({"hbm_bytes_per_s": [0.0, 1e12]}, "hbm_bytes_per_s: is array("),
        ({"batch_size": "1:50000", "input_len": "1:50000"}, "sweep: 50000 x 50000 are 2.5e+09 configurations; at most"),
    ],
)
def test_what_is_no_axis_is_refused_in_one_line(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(lpm.RequestError) as raised:
        lpm.sweep("test-13b", **fields)
    assert str(raised.value).startswith(words)
    assert "\n" not in str(raised.value)


def test_a_model_is_needed_and_a_name_known() -> None:
    with pytest.raises(lpm.RequestError, match=r"^model: is missing"):
        lpm.sweep(batch_size=[1, 2])
    with pytest.raises(lpm.UnknownNameError, match="unknown model 'test-13c'"):
        lpm.sweep(["test-13b", "test-13c"])


# Numbers of the device.


@pytest.mark.parametrize("name", ["llama-3.1-8b", "mixtral-8x7b", "resnet50"])
@pytest.mark.parametrize("engine", ["vllm", "ideal", "pytorch-eager"])
def test_numbers_of_the_datasheet_change_nothing(name: str, engine: str) -> None:
    fields: dict[str, Any] = {"gpu": "h100-sxm-80gb", "engine": engine, "tp": 1 if name == "resnet50" else 2}
    plain = lpm.estimate(name, **fields)
    inside = plain.case.joints.inside
    given = {"link_bytes_per_s": inside.bytes_per_s} if inside else {}
    same = lpm.estimate(
        name,
        hbm_bytes_per_s=plain.machine.peak_hbm_bytes_per_s,
        flops_per_s=plain.machine.peak_flops_per_s,
        **given,
        **fields,
    )
    assert (same.total_s, same.energy_j) == (plain.total_s, plain.energy_j)
    known = "an engine with flat rates" if engine == "ideal" else "numbers of the device were given"
    assert same.bounds("total_s").basis.startswith(f"none: {known}")


@pytest.mark.parametrize("engine", ["vllm", "ideal", "hf-transformers"])
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_given_numbers_are_those_of_a_device_file_that_states_them(engine: str, factor: float) -> None:
    gpu = load(lpm.GpuSpec, "a100-sxm-80gb")
    peaks = {unit: factor * peak for unit, peak in gpu.peak_flops_per_s.items()}
    other = gpu.model_copy(update={"hbm_bytes_per_s": factor * gpu.hbm_bytes_per_s, "peak_flops_per_s": peaks})
    fields: dict[str, Any] = {"engine": engine, "batch_size": 16, "input_len": 700}
    filed = lpm.estimate("llama-3.1-8b", gpu=other, **fields)
    given = lpm.estimate(
        "llama-3.1-8b",
        gpu=gpu,
        hbm_bytes_per_s=factor * gpu.hbm_bytes_per_s,
        flops_per_s=factor * gpu.peak_flops_per_s["tensor_fp16"],
        **fields,
    )
    assert given.total_s == pytest.approx(filed.total_s, rel=1e-12)
    assert given.energy_j == pytest.approx(filed.energy_j, rel=1e-12)


@pytest.mark.parametrize("field", ["hbm_bytes_per_s", "flops_per_s", "link_bytes_per_s"])
def test_a_faster_device_is_never_slower(field: str) -> None:
    found = lpm.sweep("llama-3.1-70b", gpu="h100-sxm-80gb", tp=4, batch_size=[1, 64], **{field: "1e10:1e16:x4"})
    assert np.all(np.diff(found["total_s"], axis=1) <= 0.0)
    assert found["total_s"][0, -1] < found["total_s"][0, 0]


# Choosing.

CHOICE: dict[str, Any] = {
    "model": "llama-3.1-8b", "gpu": ["a100-sxm-80gb", "h100-sxm-80gb"], "engine": "vllm", "tp": [1, 2],
    "batch_size": "1:512:x2", "input_len": [512, 4096], "output_len": 256,
}  # fmt: skip


def test_the_best_cell_is_the_best_of_those_that_run_and_meet_the_constraints() -> None:
    found = lpm.sweep(**CHOICE)
    best = found.best("usd_per_million_output_tokens", "tpot_s <= 0.03, ttft_s < 0.5")
    rows = [r for r in found.cells().rows() if r["fits"] and r["tpot_s"] <= 0.03 and r["ttft_s"] < 0.5]
    assert best == min(rows, key=lambda row: row["usd_per_million_output_tokens"])
    fastest = found.best("throughput_tokens_per_s", ["fits", "tpot_s<=0.05"])
    rows = [r for r in found.cells().rows() if r["fits"] and r["tpot_s"] <= 0.05]
    assert fastest == max(rows, key=lambda row: row["throughput_tokens_per_s"])


def test_the_front_is_what_no_cell_beats() -> None:
    found = lpm.sweep(**CHOICE)
    front = found.pareto("throughput_tokens_per_s", "tpot_s")
    runs = [row for row in found.cells().rows() if row["fits"]]

    def beaten(row: dict[str, Any]) -> bool:
        more, less = row["throughput_tokens_per_s"], row["tpot_s"]
        return any(
            r["throughput_tokens_per_s"] >= more and r["tpot_s"] <= less
            and (r["throughput_tokens_per_s"], r["tpot_s"]) != (more, less)
            for r in runs
        )  # fmt: skip

    expected = sorted({r["throughput_tokens_per_s"] for r in runs if not beaten(r)})
    assert front["throughput_tokens_per_s"].tolist() == expected
    assert np.all(np.diff(front["tpot_s"]) > 0.0)


@pytest.mark.parametrize(
    ("objective", "constraints", "kind", "words"),
    [
        ("tpot", (), lpm.RequestError, "tpot is not a known metric; did you mean tpot_s?"),
        ("tpot_s", "ttft <= 1", lpm.RequestError, "ttft is not a known metric; did you mean ttft_s?"),
        ("tpot_s", "ttft_s = 1", lpm.RequestError, "constraint 'ttft_s = 1' is none; give a metric and a limit"),
        ("tpot_s", "ttft_s <= fast", lpm.RequestError, "constraint 'ttft_s <= fast' is none"),
        ("tpot_s", "ttft_s", lpm.RequestError, "constraint 'ttft_s' is none; give a metric and a limit"),
        ("tpot_s", "ttft_s <= 1e-9", lpm.InfeasibleError, "no configuration meets ttft_s <= 1e-9: the lowest is 0.0"),
        ("energy_j", (), lpm.RequestError, "energy_j is not a known metric; did you mean energy_per_token_j?"),
    ],
)
def test_objectives_and_constraints_that_are_none(objective: str, constraints: Any, kind: Any, words: str) -> None:
    found = lpm.sweep(**CHOICE)
    with pytest.raises(kind) as raised:
        found.best(objective, constraints)
    assert str(raised.value).startswith(words)


def test_nothing_that_fits_has_no_best() -> None:
    with pytest.raises(lpm.InfeasibleError, match=r"^no configuration of the sweep fits"):
        lpm.sweep("llama-3.1-405b", batch_size=[1, 2]).best("tpot_s")


def test_an_unknown_price_is_no_number() -> None:
    found = lpm.sweep("test-13b", gpu=["a100-sxm-40gb", "rtx-2080ti"], metrics="usd_per_request,prefill_bound")
    prices = [None if np.isnan(price) else price for price in found["usd_per_request"]]
    assert [row["usd_per_request"] for row in found.cells().rows()] == prices
    assert found["prefill_bound"].tolist() == [
        str(lpm.estimate("test-13b", gpu=gpu).prefill.bound) for gpu in ("a100-sxm-40gb", "rtx-2080ti")
    ]
    with pytest.raises(lpm.RequestError, match=r"^prefill_bound: is a word"):
        found.best("prefill_bound")


# Files and tables.

SMALL: dict[str, Any] = {"model": "test-13b", "tp": [1, 2], "batch_size": [1, 2, 4], "gpu": "a100-sxm-40gb"}


def test_csv_and_json_hold_the_cells(tmp_path: Path) -> None:
    found = lpm.sweep(**SMALL)
    found.to_csv(str(tmp_path / "f.csv"))
    found.to_json(str(tmp_path / "f.json"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "f.csv").read_text(encoding="utf-8"))))
    assert [float(row["total_s"]) for row in rows] == found["total_s"].ravel().tolist()
    assert [(int(row["tp"]), int(row["batch_size"])) for row in rows] == [(t, b) for t in (1, 2) for b in (1, 2, 4)]
    assert json.loads((tmp_path / "f.json").read_text(encoding="utf-8")) == found.cells().rows()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv", "f.json"]


def test_what_is_not_known_is_empty_in_a_file(tmp_path: Path) -> None:
    found = lpm.sweep("test-13b", gpu=["a100-sxm-40gb", "rtx-2080ti"], metrics="usd_per_request")
    found.to_csv(str(tmp_path / "f.csv"))
    lines = (tmp_path / "f.csv").read_text(encoding="utf-8").splitlines()
    known = ["" if np.isnan(price) else repr(float(price)) for price in found["usd_per_request"]]
    assert [line.split(",")[1] for line in lines[1:]] == known


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    found = lpm.sweep(**SMALL)
    with pytest.raises(lpm.RequestError, match="cannot be written: No such file or directory"):
        found.to_csv(str(tmp_path / "nosuch" / "f.csv"))
    with pytest.raises(lpm.RequestError, match="cannot be written"):
        found.to_json(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_to_pandas_has_a_row_for_each_cell() -> None:
    pandas = pytest.importorskip("pandas")
    found = lpm.sweep(**SMALL)
    frame = found.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["tp", "batch_size", *DEFAULT_METRICS]
    assert frame["total_s"].tolist() == found["total_s"].ravel().tolist()


def test_to_xarray_has_all_axes() -> None:
    pytest.importorskip("xarray")
    data = lpm.sweep(**SMALL).to_xarray()
    assert data["total_s"].dims == ("tp", "batch_size")
    assert float(data["total_s"].sel(tp=2, batch_size=4)) == lpm.estimate("test-13b", tp=2, batch_size=4).total_s


def test_parquet_holds_the_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = lpm.sweep(**SMALL)
    found.to_parquet(str(tmp_path / "f.parquet"))
    assert parquet.read_table(tmp_path / "f.parquet").to_pydict()["total_s"] == found["total_s"].ravel().tolist()


@pytest.mark.parametrize(
    ("package", "write"),
    [
        ("pandas", lambda found: found.to_pandas()),
        ("xarray", lambda found: found.to_xarray()),
        ("pyarrow", lambda found: found.to_parquet("f.parquet")),
    ],
)
def test_a_missing_package_is_named_with_its_extra(package: str, write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(lpm.RequestError, match=rf"needs the package {package}: pip install 'llm-perf-model\[sweep\]'"):
        write(lpm.sweep(**SMALL))


def test_a_table_shows_the_first_cells_and_html_too() -> None:
    found = lpm.sweep("test-13b", batch_size="1:30")
    assert "the first 20 of 30 are shown" in str(found)
    assert found._repr_html_().count("<tr>") == 21
    assert str(found.cells()).startswith("30 configurations")


# The command.


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `sweep` of a small model."""
    return runner(capsys, monkeypatch, 120, "sweep")


def test_the_command_answers_as_the_library(run: Run) -> None:
    ran = run(
        "test-13b",
        "--tp",
        "1,2,3",
        "--batch_size",
        "1:4:x2",
        "--gpu",
        "a100-sxm-40gb,h100-sxm-80gb",
        "--format",
        "json",
    )
    found = lpm.sweep("test-13b", tp=[1, 2, 3], batch_size=[1, 2, 4], gpu=["a100-sxm-40gb", "h100-sxm-80gb"])
    answer = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert answer["cells"] == found.cells().rows()
    assert [each["reason"] for each in answer["skipped"]] == [each.reason for each in found.skipped]


def test_the_command_shows_a_table_and_csv(run: Run) -> None:
    ran = run("test-13b", "--batch_size", "1,2")
    assert ran.out.startswith("2 batch_size: 2 configurations")
    assert len(run("test-13b", "--batch_size", "1,2", "--format", "csv").out.splitlines()) == 3
    assert run("test-13b", "--batch_size", "1,2", "--format", "markdown").out.startswith("**2 batch_size")


def test_the_command_finds_the_best_and_the_front(run: Run) -> None:
    given = ("llama-3.1-8b", "--gpu", "h100-sxm-80gb", "--batch_size", "1:256:x2", "--format", "json")
    ran = run(*given, "--best", "throughput_tokens_per_s", "--constraints", "tpot_s <= 0.02, energy_j > 0")
    found = lpm.sweep(
        "llama-3.1-8b", gpu="h100-sxm-80gb", batch_size="1:256:x2", metrics=(*DEFAULT_METRICS, "energy_j")
    )
    best = found.best("throughput_tokens_per_s", "tpot_s <= 0.02")
    assert {key: json.loads(ran.out)["cells"][0][key] for key in best} == best
    front = json.loads(run(*given, "--pareto", "throughput_tokens_per_s,tpot_s").out)["cells"]
    assert front == lpm.sweep("llama-3.1-8b", gpu="h100-sxm-80gb", batch_size="1:256:x2").pareto(
        "throughput_tokens_per_s", "tpot_s"
    ).rows()  # fmt: skip


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_the_command_writes_a_file(run: Run, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"f.{ending}"
    ran = run("test-13b", "--batch_size", "1:3", "--output", str(path))
    assert ran.out.startswith(f"written: {path} (3 configurations)")
    assert "shown" not in ran.out
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("test-13b", "--batch_size", "5:1"), "batch_size: is '5:1', an empty range"),
        (("test-13b", "--tp", "3"), "no configuration can run: tp = 3 does not divide test-13b"),
        (("--tp", "1,2"), "model: is missing"),
        (("test-13b", "--metrics", "tpot"), "tpot is not a known metric; did you mean tpot_s?"),
        (("test-13b", "--best", "tpot_s", "--pareto", "tpot_s,ttft_s"), "best: takes one metric, and no pareto"),
        (("test-13b", "--pareto", "tpot_s"), "pareto: is tpot_s; give two metrics"),
        (("test-13b", "--constraints", "tpot_s<1"), "constraints: have no effect without best"),
        (("test-13b", "--best"), "best: is given without a value"),
        (("test-13b", "--output", "f.txt"), "output: f.txt ends in none of .csv, .json, .parquet"),
        (("test-13b", "--output", "/nosuch/f.csv"), "output /nosuch/f.csv: cannot be written: No such file"),
        (("test-13b", "--format", "xml"), "format: is 'xml'"),
    ],
)
def test_the_command_refuses_in_one_line(run: Run, given: tuple[str, ...], words: str) -> None:
    ran = run(*given)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: {words}")
    assert ran.err.count("\n") == 1


def test_an_unwritable_file_is_refused_before_anything_is_computed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_perf_model.sweeping.queries.sweep", lambda **_: pytest.fail("computed"))
    assert run("test-13b", "--batch_size", "1:3", "--output", "/nosuch/f.csv").code == 1


def test_an_unknown_flag_has_a_near_one(run: Run) -> None:
    ran = run("test-13b", "--batchsize", "1:3")
    assert (ran.code, ran.err) == (2, "error: unknown flag '--batchsize' of sweep; did you mean --batch_size?\n")
