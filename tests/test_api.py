from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.ops.batch import Batch
from llm_perf_model.specs.catalog import FOLDERS, folder_of, load
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.hardware import Hardware
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.specs.power import PowerSpec
from llm_perf_model.specs.sharing import Sharing
from llm_perf_model.specs.techniques import Techniques

from .strategies import engines, models, wholes

TIMES = ("prefill_s", "decode_step_s", "decode_s", "total_s", "ttft_s", "tpot_s")
ANSWERS = (
    *TIMES,
    "time_per_sample_s",
    "throughput_tokens_per_s",
    "fits",
    "extrapolated",
    "max_batch_size",
    "energy_j",
    "energy_per_token_j",
    "energy_per_request_j",
    "power_w",
)
PARTS = ("weights_bytes", "kv_cache_bytes", "activation_bytes", "reserve_bytes")
"""Parts that add up to the peak."""
INSIDE = {
    "activation_bytes": ("live_bytes", "fragment_bytes", "logits_bytes", "workspace_bytes"),
    "reserve_bytes": ("comm_buffer_bytes", "graph_bytes", "context_bytes"),
}
"""Part -> what it is made of."""
MEMORY = (
    *PARTS, *(name for names in INSIDE.values() for name in names), "peak_bytes", "limit_bytes", "capacity_bytes",
    "shortfall_bytes", "moment",
)  # fmt: skip
DOLLARS = ("usd", "usd_per_request", "usd_per_million_input_tokens", "usd_per_million_output_tokens")
PHASE = {"flops", "hbm_bytes", "comm_bytes", "bound", "flops_utilisation", "bandwidth_utilisation"}
KINDS: dict[str, type[Any]] = {
    "model": lpm.ModelSpec,
    "gpu": lpm.GpuSpec,
    "engine": lpm.EngineSpec,
    "precision": lpm.PrecisionSpec,
    "link": lpm.LinkSpec,
}
NAMES = {
    "model": "mistral-7b-v0.1",
    "gpu": "rtx-a6000",
    "engine": "fastertransformer",
    "precision": "bf16",
    "link": "pcie-4-x16",
}

drawn = st.builds(lambda model, engine: {"model": model, "engine": engine}, models(), engines())
catalogued = st.sampled_from(
    (
        {"model": "test-13b", "tp": 2},
        {"model": "mistral-7b-v0.1", "engine": "ideal", "gpu": "h100-sxm-80gb", "dp": 3},
        {"model": "gemma-2-9b", "gpu": "rtx-4090", "precision": "bf16"},
        {"model": "starcoder-15b", "gpu": "a100-pcie-80gb", "tp": 4},
    )
)
requests = st.one_of(drawn, catalogued)


def at(e: lpm.Estimate, name: str, shape: tuple[int, ...], index: tuple[int, ...]) -> Any:
    value = getattr(e.memory, name) if name in MEMORY else getattr(e, name)
    return np.broadcast_to(value, shape)[index]


def assert_same_answers(one: lpm.Estimate, other: lpm.Estimate) -> None:
    for name in (*ANSWERS, *MEMORY):
        assert at(one, name, (), ()) == at(other, name, (), ()), name
    for phase in ("prefill", "decode"):
        assert getattr(one, phase).totals == getattr(other, phase).totals


@given(requests, st.lists(st.tuples(wholes(1, 64), wholes(1, 6000), wholes(1, 3000)), min_size=2, max_size=4))
def test_an_array_holds_what_scalars_give(fields: dict[str, Any], rows: list[tuple[float, float, float]]) -> None:
    workload = ("batch_size", "input_len", "output_len")
    columns = dict(zip(workload, (list(column) for column in zip(*rows, strict=True)), strict=True))
    arrays = lpm.estimate(**fields, **columns)
    for index, row in enumerate(rows):
        scalar = lpm.estimate(**fields, **dict(zip(workload, row, strict=True)))
        for name in (*ANSWERS, *MEMORY):
            assert at(arrays, name, (len(rows),), (index,)) == at(scalar, name, (), ()), name


@given(requests)
def test_a_cell_of_a_mesh_is_the_estimate_of_its_point(fields: dict[str, Any]) -> None:
    axes = {
        "batch_size": [1, 7, 256],
        "input_len": [1, 512, 4096],
        "output_len": [1, 2, 300],
        "flops_efficiency": [0.3, 1.0],
    }
    mesh = dict(zip(axes, np.ix_(*axes.values()), strict=True))
    whole = lpm.estimate(**fields, **mesh)
    shape = tuple(len(values) for values in axes.values())
    assert np.shape(whole.total_s) == shape
    cells = list(itertools.product(*(range(n) for n in shape)))
    for index in cells[::5]:
        point = {name: axes[name][i] for name, i in zip(axes, index, strict=True)}
        scalar = lpm.estimate(**fields, **point)
        for name in (*ANSWERS, *MEMORY):
            assert at(whole, name, shape, index) == at(scalar, name, (), ()), name
        assert np.broadcast_to(whole.decode.bound, shape)[index] == scalar.decode.bound


@given(requests, st.tuples(wholes(1, 64), wholes(1, 3000), wholes(1, 1500)), wholes(1, 500))
@pytest.mark.parametrize("field", [0, 1, 2])
def test_more_to_do_takes_no_less_time(
    field: int, fields: dict[str, Any], numbers: tuple[float, float, float], more: float
) -> None:
    larger = list(numbers)
    larger[field] += more
    workload = ("batch_size", "input_len", "output_len")
    less, greater = (lpm.estimate(**fields, **dict(zip(workload, n, strict=True))) for n in (numbers, larger))
    for name in ("total_s", "prefill_s", "decode_s"):
        assert getattr(greater, name) >= getattr(less, name) * (1.0 - 1e-12), name
    waiting = any(np.any(phase.totals.host_s > 0.0) for phase in (less.prefill, less.decode))
    assert greater.total_s > less.total_s or field == 0 or (field == 1 and waiting)
    assert greater.max_batch_size <= less.max_batch_size


@given(requests, wholes(1, 64), wholes(1, 3000), wholes(1, 1500))
def test_definitions_of_the_times(
    fields: dict[str, Any], batch_size: float, input_len: float, output_len: float
) -> None:
    e = lpm.estimate(**fields, batch_size=batch_size, input_len=input_len, output_len=output_len)
    assert e.total_s == pytest.approx(e.ttft_s + e.tpot_s * (output_len - 1.0), rel=1e-12)
    assert e.total_s == e.prefill_s + e.decode_s
    assert (e.ttft_s, e.tpot_s) == (e.prefill_s, e.decode_step_s)
    tokens = fields.get("dp", 1) * batch_size * output_len
    assert e.throughput_tokens_per_s == pytest.approx(tokens / e.total_s, rel=1e-12)
    assert e.energy_per_token_j == pytest.approx(e.energy_j / tokens, rel=1e-12)
    if output_len == 1.0:
        assert e.decode_s == e.decode_step_s == 0.0


@given(requests, st.integers(2, 9))
def test_replicas_multiply_throughput_and_energy_only(fields: dict[str, Any], dp: int) -> None:
    one, many = (lpm.estimate(**(fields | {"dp": n}), batch_size=4, output_len=20) for n in (1, dp))
    for name in (*TIMES, "fits", "max_batch_size", *MEMORY):
        assert at(one, name, (), ()) == at(many, name, (), ()), name
    for name in ("throughput_tokens_per_s", "energy_j"):
        assert getattr(many, name) == pytest.approx(dp * getattr(one, name), rel=1e-12), name
    assert many.time_per_sample_s == pytest.approx(one.time_per_sample_s / dp, rel=1e-12)
    assert many.energy_per_token_j == pytest.approx(one.energy_per_token_j, rel=1e-12)
    assert many.prefill.totals == one.prefill.totals


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_or_a_path_stands_for_a_name(kind: str, tmp_path: Path) -> None:
    by_name = lpm.estimate(**NAMES, tp=2, batch_size=3)
    spec = load(KINDS[kind], NAMES[kind])
    copy = tmp_path / "elsewhere.json"
    shutil.copy(folder_of(KINDS[kind]) / f"{NAMES[kind]}.json", copy)
    for value in (spec, str(copy)):
        assert_same_answers(lpm.estimate(**(NAMES | {kind: value}), tp=2, batch_size=3), by_name)
    assert lpm.estimate(**(NAMES | {kind: spec}), tp=2).to_dict()["request"][kind] == NAMES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_file_changes_the_answer(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "changed.json"
    data = json.loads((folder_of(KINDS[kind]) / f"{NAMES[kind]}.json").read_bytes())
    change = {
        "model": {"vocab": 64000},
        "gpu": {"tdp_w": 1.0},
        "engine": {"step_s": 1.0},
        "precision": {"kv_bytes": 1.0},
        "link": {"bytes_per_s": 1e9},
    }[kind]
    path.write_text(json.dumps(data | change))
    changed = lpm.estimate(**(NAMES | {kind: str(path)}), tp=2)
    assert changed.energy_j != lpm.estimate(**NAMES, tp=2).energy_j


def test_every_kind_of_files_is_listed_or_chosen_by_the_device() -> None:
    """No request names kernels, power or exchanges: they are those of the generation and of the kind of link."""
    assert set(FOLDERS) == {
        *KINDS.values(), lpm.NetworkSpec, lpm.PriceSpec, lpm.TariffSpec, KernelSpec, PowerSpec, CollectiveSpec
    }  # fmt: skip
    listed = (lpm.models, lpm.networks, lpm.gpus, lpm.engines, lpm.precisions, lpm.links, lpm.prices, lpm.tariffs)
    for names in listed:
        assert names() == tuple(sorted(names()))
        assert names()


@pytest.mark.parametrize("fields", [{}, {"batch_size": [1, 200], "input_len": [[64], [3000]]}], ids=["scalar", "array"])
@pytest.mark.parametrize("output_len", [1, 32])
def test_to_dict_is_json_with_the_documented_keys(fields: dict[str, Any], output_len: int) -> None:
    answer = lpm.estimate("test-13b", tp=2, output_len=output_len, **fields).to_dict()
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert set(answer) == {"request", "prefill", "decode", "memory", "cost", "interval", "provenance", *ANSWERS}
    assert set(answer["prefill"]) == set(answer["decode"]) == PHASE
    assert set(answer["memory"]) == set(MEMORY)
    assert set(answer["request"]) == set(lpm.estimate("test-13b").request.model_fields_set | {
        "gpu", "engine", "precision", "kv_dtype", "link", "tp", "pp", "dp", "ep", "layer_split", "batch_size",
        "input_len", "output_len", "num_beams", "input_shape", "flops_efficiency", "hbm_memory_efficiency",
        "interval_level",
        "pool_fraction", "power_limit_w", "energy_convention", "price", "usd_per_gpu_hour", "tariff", "usd_per_kwh",
        "pue", "utilisation", *Techniques.model_fields, *Sharing.model_fields, *Hardware.model_fields,
    })  # fmt: skip
    assert answer["interval"]["level"] == 0.8
    for metric in ("prefill_s", "decode_step_s", "total_s"):
        assert set(answer["interval"][metric]) >= {"low", "high"}
    assert set(answer["provenance"]["files"]) >= set(KINDS)
    shape = (2, 2) if fields else ()
    assert set(answer["cost"]) == {*DOLLARS, "usd_per_hour", "price"}
    assert set(answer["cost"]["price"]) == {"usd_per_gpu_hour", "usd_per_kwh", "pue", "utilisation", "origin"}
    assert np.broadcast_shapes(*(np.shape(answer["cost"][name]) for name in DOLLARS)) == shape
    assert set(np.ravel(answer["memory"]["moment"])) <= {"prefill", "logits", "decode"}
    assert np.shape(answer["total_s"]) == np.shape(answer["fits"]) == shape
    assert set(np.ravel(answer["prefill"]["bound"])) <= {"compute", "memory", "communication", "host"}


@given(requests, st.tuples(wholes(1, 64), wholes(1, 3000), wholes(1, 1500)))
def test_parts_of_the_memory_add_up(fields: dict[str, Any], numbers: tuple[float, float, float]) -> None:
    e = lpm.estimate(**fields, **dict(zip(("batch_size", "input_len", "output_len"), numbers, strict=True)))
    found = {name: value for name, value in e.to_dict()["memory"].items() if name != "moment"}
    assert found["peak_bytes"] == pytest.approx(sum(found[name] for name in PARTS), rel=1e-12)
    for part, inside in INSIDE.items():
        assert found[part] == pytest.approx(sum(found[name] for name in inside), rel=1e-9), part
    assert all(value >= 0.0 for value in found.values())
    assert e.fits == (found["shortfall_bytes"] == 0.0)


def test_without_a_price_of_the_device_there_is_no_cost() -> None:
    """No list has the device; a price of the user's own is one."""
    unlisted = next(name for name in lpm.gpus() if not any(name in load(lpm.PriceSpec, p).offers for p in lpm.prices()))
    e = lpm.estimate("gpt2-small", gpu=unlisted, precision="fp32")
    assert e.cost is None
    assert e.to_dict()["cost"] is None
    assert lpm.estimate("gpt2-small", gpu=unlisted, precision="fp32", usd_per_gpu_hour=1).cost is not None


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"pool_fraction": 0.5}, {"memory"}),
        ({"power_limit_w": 200}, {"time", "energy", "cost"}),
        ({"energy_convention": "tdp"}, {"energy"}),
        ({"usd_per_gpu_hour": 7}, {"cost"}),
        ({"tariff": "us-industrial"}, {"cost"}),
        ({"usd_per_kwh": 1, "pue": 2}, {"cost"}),
        ({"usd_per_kwh": 0, "pue": 2}, set()),
        ({"utilisation": 0.5}, {"cost"}),
        ({"price": "aws"}, {"cost"}),
        ({"price": "lambda"}, set()),
    ],
    ids=lambda value: " ".join(sorted(value)) or "nothing",
)
def test_a_choice_of_memory_energy_or_cost_changes_its_own_answers(options: dict[str, Any], changed: set[str]) -> None:
    """Electricity is part of a listed price, so energy and overhead cost nothing more; that list asks the least."""

    def answers(e: lpm.Estimate) -> dict[str, Any]:
        assert e.cost is not None
        times = [getattr(e, name) for name in (*TIMES, "throughput_tokens_per_s")]
        memory = [e.max_batch_size, *(getattr(e.memory, name) for name in MEMORY)]
        return {"time": times, "memory": memory, "energy": [e.energy_j, e.power_w], "cost": e.cost.usd}

    given_ = {"model": "llama-2-7b", "engine": "vllm", "gpu": "a100-sxm-40gb", "batch_size": 64}
    plain, other = answers(lpm.estimate(**given_)), answers(lpm.estimate(**given_, **options))
    assert {name for name in plain if plain[name] != other[name]} == changed


@pytest.mark.parametrize("detail", ["ops", "roles"])
def test_to_dict_adds_a_breakdown_when_asked(detail: Any) -> None:
    e = lpm.estimate("gpt2-small", batch_size=[1, 4])
    assert set(e.to_dict(detail)) - set(e.to_dict()) == {"breakdown"}
    json.dumps(e.to_dict(detail), allow_nan=False)


@pytest.mark.parametrize("engine", ["fastertransformer", "ideal"])
def test_the_coefficients_of_an_answer_are_accounted_for(engine: str) -> None:
    """The engine's own, and where it has none those of the kernels of the device's generation."""
    provenance = lpm.estimate("test-13b", engine=engine, tp=2).to_dict()["provenance"]
    named = {field for entry in provenance["coefficients"] for field in entry["fields"]}
    assert {"bytes_per_s", "hop_cycles"} <= named
    assert provenance["files"]["link"] == "link_configs/nvlink-3.json"
    if "*" not in named:
        assert {"memory_ratio", "kernel_start_s", "gemm.wave_s", "attention.memory_efficiency"} <= named


def test_half_the_efficiency_takes_twice_the_time() -> None:
    """Of each product the arithmetic doubles, and all traffic; other operators keep their arithmetic."""
    fields: dict[str, Any] = {"model": "llama-2-7b", "engine": "ideal", "batch_size": 64, "output_len": 3}
    full = lpm.estimate(**fields)
    half = lpm.estimate(**fields, flops_efficiency=0.5)
    slow = lpm.estimate(**fields, hbm_memory_efficiency=0.5)
    for phase in ("prefill", "decode"):
        works = zip(*(getattr(e, phase).works() for e in (full, half, slow)), strict=True)
        for (whole,), (halved,), (slowed,) in works:
            factor = 2.0 if whole.node.op.kind in ("gemm", "attention") else 1.0
            assert halved.timing.compute_s == factor * whole.timing.compute_s
            assert halved.timing.memory_s == whole.timing.memory_s
            assert slowed.timing.memory_s == 2.0 * whole.timing.memory_s
            assert slowed.timing.compute_s == whole.timing.compute_s
    assert half.prefill.totals.compute_s == pytest.approx(2.0 * full.prefill.totals.compute_s, rel=1e-12)
    assert slow.decode_s == pytest.approx(2.0 * full.decode_s, rel=1e-12)


def test_efficiency_one_of_the_ideal_engine_changes_nothing() -> None:
    ideal = lpm.estimate("llama-2-7b", engine="ideal")
    assert_same_answers(lpm.estimate("llama-2-7b", engine="ideal", flops_efficiency=1, hbm_memory_efficiency=1), ideal)


def test_efficiencies_may_be_arrays() -> None:
    values = [0.25, 0.5, 1.0]
    swept = lpm.estimate("test-13b", flops_efficiency=values, hbm_memory_efficiency=[[0.4], [0.9]])
    assert np.shape(swept.total_s) == (2, 3)
    for (i, memory), (j, compute) in itertools.product(enumerate((0.4, 0.9)), enumerate(values)):
        point = lpm.estimate("test-13b", flops_efficiency=compute, hbm_memory_efficiency=memory)
        assert swept.total_s[i, j] == point.total_s
        assert swept.energy_j[i, j] == point.energy_j


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"batch_size": 0}, "batch_size: is 0"),
        ({"output_len": 1.5}, "output_len: is 1.5"),
        ({"flops_efficiency": 1.5}, "flops_efficiency: is 1.5"),
        ({"hbm_memory_efficiency": 0}, "hbm_memory_efficiency: is 0"),
        ({"input_len": [1, -1]}, "input_len: is"),
        ({"tp": [1, 2]}, "tp: is"),
        ({"batchsize": 1}, "did you mean batch_size"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(lpm.RequestError, match=words.replace("[", r"\[")):
        lpm.estimate("test-13b", **fields)


def test_positions_beyond_the_model_are_extrapolated() -> None:
    edge = lpm.estimate("test-13b", engine="ideal", input_len=[2000, 2016, 2017], output_len=32)
    assert np.asarray(edge.extrapolated).tolist() == [False, False, True]
    with pytest.raises(lpm.InfeasibleError, match="2049 tokens"):
        edge.require_feasible()
    assert not lpm.estimate("mpt-7b", input_len=2000, output_len=10).extrapolated


def test_an_encoder_passes_once_over_its_input() -> None:
    e = lpm.estimate("bert-base", input_len=128, batch_size=[1, 8])
    assert np.all(e.decode_s == 0.0)
    assert np.all(e.memory.kv_cache_bytes == 0.0)
    assert np.all(e.total_s == e.prefill_s)
    attention = next(node.op for node in e.case.graph if node.name == "attention")
    pairs = 4.0 * 128 * 128 * 768
    assert attention.cost(Batch.uniform(1.0, 128.0, 0.0)).flops == pairs


def test_an_encoder_generates_nothing() -> None:
    with pytest.raises(lpm.InfeasibleError, match=r"^bert-base generates nothing: leave output_len out or give 1$"):
        lpm.estimate("bert-base", output_len=2)
    assert "sequences/s" in str(lpm.estimate("bert-base", output_len=1))
