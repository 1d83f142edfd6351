"""What a record asks for: its request, the figure it is held against, and the reason where there is none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm_perf_model as lpm
from llm_perf_model.specs.catalog import data_folder, load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.validation.compare import score
from llm_perf_model.validation.mapping import (
    ENERGY_METRICS,
    MEMORY_METRICS,
    TIME_METRICS,
    UnmappableError,
    engine_for,
    map_record,
    request_of,
)

from .rows import record

Read = Callable[[lpm.Estimate], Any]

FIGURES: dict[str, tuple[str, Read]] = {
    "prefill_ms": ("prefill", lambda e: e.prefill_s),
    "runtime_ms": ("prefill", lambda e: e.prefill_s),
    "ttft_ms": ("prefill", lambda e: e.prefill_s),
    "ttft_ms_as_recorded": ("prefill", lambda e: e.prefill_s),
    "us_per_token": ("prefill", lambda e: e.prefill_s / (6 * 512)),
    "throughput_as_printed": ("prefill", lambda e: e.prefill_s / (6 * 512)),
    "prefill_tok_s": ("prefill", lambda e: 6 * 512 / e.prefill_s),
    "decode_ms_per_token": ("decode", lambda e: e.decode_s / 31),
    "tpot_ms": ("decode", lambda e: e.decode_s / 31),
    "decode_tok_s": ("decode", lambda e: 6 * 31 / e.decode_s),
    "total_ms": ("whole", lambda e: e.prefill_s + e.decode_s),
    "end_latency_ms": ("whole", lambda e: e.prefill_s + e.decode_s),
    "throughput_tok_s": ("whole", lambda e: 6 * 32 / e.total_s),
    "throughput_tok_s_per_gpu": ("whole", lambda e: 6 * 32 / e.total_s / 6),
    "throughput_total_tok_s": ("whole", lambda e: 6 * (512 + 32) / e.total_s),
    "msec_per_token_over_batch": ("whole", lambda e: e.total_s / (6 * 32)),
    "memory_gib": ("", lambda e: e.memory.peak_bytes),
    "memory_gb": ("", lambda e: e.memory.peak_bytes),
    "memory_mb": ("", lambda e: e.memory.peak_bytes),
    "gpu_memory_mb": ("", lambda e: e.memory.peak_bytes),
    "peak_memory_forward_gb": ("", lambda e: e.memory.peak_bytes),
    "avg_power_w": ("", lambda e: e.energy_j / e.total_s),
    "energy_j_per_request": ("", lambda e: e.energy_j / 6),
    "energy_j_per_token": ("", lambda e: e.energy_j / (6 * 32)),
}


def test_every_metric_word_is_tested() -> None:
    assert set(FIGURES) == {*TIME_METRICS, *MEMORY_METRICS, *ENERGY_METRICS, "throughput_total_tok_s"}


@pytest.mark.parametrize("metric", FIGURES)
def test_a_metric_word_names_its_figure(metric: str) -> None:
    """Six devices of two ranks a replica: three replicas of two sequences, 512 tokens in and 32 out."""
    words = {"tok_s": "tokens/s", "energy": "J", "memory": "B", "power": "W"}
    unit = next((unit for word, unit in words.items() if word in metric), "s")
    mapped = map_record(record(metric=metric, unit=unit, n_devices=6, tp=2))
    phase, figure = FIGURES[metric]
    assert mapped.phase == phase
    assert mapped.is_time == bool(phase)
    e = lpm.estimate(**mapped.request)
    assert (e.case.layout.tp, e.case.layout.dp) == (2, 3)
    assert mapped.read(e) == pytest.approx(figure(e), rel=1e-12)


def test_energy_by_design_power_is_that_of_every_device_over_the_whole_time() -> None:
    row = record(source="16 x 1024", metric="energy_j_per_request", unit="J", n_devices=6, tp=2)
    mapped = map_record(row)
    e = lpm.estimate(**mapped.request)
    assert mapped.request["energy_convention"] == "tdp"
    assert mapped.read(e) == pytest.approx(6 * 400.0 * e.total_s / 6, rel=1e-12)


def test_the_request_of_a_run_asks_for_what_is_mapped_whatever_came_of_it() -> None:
    asked = request_of(record(engine="FT", outcome="oom", value=None, metric="nobody_knows"))
    mapped = map_record(record(engine="FT"))
    assert (asked.request, asked.engine, asked.fallback) == (mapped.request, mapped.engine, mapped.fallback)
    replaced = request_of(record(engine="FT"), "vllm")
    assert (replaced.request["engine"], replaced.engine, replaced.fallback) == ("vllm", "vllm", False)


def test_the_request_is_that_of_the_row() -> None:
    mapped = map_record(record(engine="FT", device="NVIDIA A100-SXM4-40GB", model="TEST_13B"))
    assert mapped.request == {
        "model": "test-13b", "gpu": "a100-sxm-40gb", "engine": "fastertransformer", "precision": "w16a16",
        "batch_size": 2, "input_len": 512, "output_len": 32, "tp": 1, "dp": 1,
    }  # fmt: skip
    assert (mapped.engine, mapped.fallback) == ("fastertransformer", False)


@pytest.mark.parametrize(("model", "input_len"), [("resnet50", None), ("bert-base", 128)])
def test_a_latency_and_a_throughput_of_one_run_are_the_same_estimate(model: str, input_len: int | None) -> None:
    """A batch of 8 in 20 ms is 400 samples a second: errors are inverse to each other."""
    row = {"model": model, "input_len": input_len, "output_len": 0, "batch": 8, "engine": "generic-fused"}
    latency = score(timed := record(metric="latency_ms", value=0.02, **row), map_record(timed))
    rate = score(counted := record(metric="throughput", unit="samples/s", value=400.0, **row), map_record(counted))
    each = score(per := record(metric="time_ms_per_sample", value=0.0025, **row), map_record(per))
    assert {latency.mapped.phase, rate.mapped.phase, each.mapped.phase} == {"prefill"}
    assert (1.0 + latency.error) * (1.0 + rate.error) == pytest.approx(1.0, rel=1e-12)
    assert each.error == pytest.approx(latency.error, rel=1e-12)


def test_a_throughput_counts_samples() -> None:
    row = record(model="resnet50", metric="throughput", unit="tokens/s", output_len=0)
    wanted = "metric 'throughput' is in samples/s, but the unit of the row stands for tokens/s"
    with pytest.raises(UnmappableError, match=f"^{re.escape(wanted)}$"):
        map_record(row)


# Conventions of the sources.


def test_an_output_that_counts_decode_steps_has_one_token_more() -> None:
    counted = map_record(record(source="FasterTransformer 13B (Transformer Inference Arithmetic)", output_len=10))
    told = map_record(record(extra={"decode_steps": 10}, output_len=10))
    plain = map_record(record(output_len=10))
    assert [m.request["output_len"] for m in (counted, told, plain)] == [11, 11, 10]
    assert lpm.estimate(**counted.request).decode_steps == 10


@pytest.mark.parametrize("output_len", [0, None, 1])
def test_a_forward_pass_is_a_generation_of_one_token(output_len: int | None) -> None:
    assert map_record(record(output_len=output_len)).request["output_len"] == 1


def test_totals_of_eet_are_the_decode_alone() -> None:
    row = record(source="EET GPT-3 benchmark", engine="EET", model="gpt3-xl-1.3b", metric="total_ms", output_len=512)
    mapped = map_record(row)
    e = lpm.estimate(**mapped.request)
    assert mapped.phase == "decode"
    assert e.decode_steps == 512
    assert mapped.read(e) == e.decode_s
    assert map_record(record(source="EET charts", metric="total_ms")).phase == "whole"


# Devices.


def test_an_eager_engine_holds_layers_on_its_devices_and_others_split_each_layer() -> None:
    eager, fused = (
        map_record(record(engine=engine, n_devices=4, tp=tp))
        for engine, tp in (("HF", None), ("FasterTransformer", None))
    )
    assert (eager.request["layer_split"], "tp" in eager.request) == (4, False)
    assert (fused.request["tp"], fused.request["dp"], "layer_split" in fused.request) == (4, 1, False)
    staged = map_record(record(engine="vLLM", n_devices=16, tp=4, pp=2))
    assert [staged.request[word] for word in ("tp", "pp", "dp")] == [4, 2, 2]
    assert map_record(record(engine="llama.cpp", n_devices=2, tp=1, pp=2)).request["layer_split"] == 2


@pytest.mark.parametrize("tp", [None, 1])
def test_eight_devices_of_a_forward_pass_are_stages(tp: int | None) -> None:
    mapped = map_record(record(engine="PyTorch/HF forward pass (engine not stated)", n_devices=8, tp=tp))
    assert mapped.request["layer_split"] == 8


def test_ranks_of_an_eager_engine_count_where_they_are_told() -> None:
    assert map_record(record(engine="HF", n_devices=4, tp=4)).request["tp"] == 4


@pytest.mark.parametrize("engine", ["HF", "llama.cpp"])
def test_an_engine_of_one_host_thread_holds_layers_on_its_devices(engine: str) -> None:
    assert load(EngineSpec, engine).kind in {"eager", "local"}
    assert map_record(record(engine=engine, n_devices=3, tp=None)).request["layer_split"] == 3


@pytest.mark.parametrize(
    ("input_len", "chunk", "asked"),
    [(512, 128, (128, 35)), (500, 128, (128, 35)), (100, 128, (100, 32)), (128, 128, (128, 32))],
)
def test_each_further_chunk_of_a_prompt_is_one_more_pass(input_len: int, chunk: int, asked: tuple[int, int]) -> None:
    """A pass over all weights, as a decode step is: four chunks of 128 are a prefill of 128 and three more steps."""
    request = map_record(record(input_len=input_len, extra={"n_batch_flag": chunk})).request
    assert (request["input_len"], request["output_len"]) == asked


# Engines.


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("PyTorch 2.4 eager", "generic-eager"),
        ("Hugging Face TGI-like", "generic-eager"),
        ("HF accelerate", "generic-eager"),
        ("some engine of 2031", "generic-fused"),
        ("", "generic-fused"),
    ],
)
def test_an_unknown_engine_falls_back_to_a_stand_in_and_says_so(name: str, engine: str) -> None:
    assert engine_for(name) == (engine, True)
    assert load(EngineSpec, engine).patterns
    assert map_record(record(engine=name)).fallback


@pytest.mark.parametrize("name", lpm.engines())
def test_a_known_engine_is_no_stand_in(name: str) -> None:
    spec = load(EngineSpec, name)
    for called in (name, *spec.aliases):
        assert engine_for(called) == (name, False)


# Reasons.


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"outcome": "estimate"}, "another tool's estimate"),
        ({"outcome": "oom", "value": None}, "ran out of memory"),
        ({"outcome": "runtime_error", "value": None}, "known failure of the tool: it stopped with an error"),
        ({"model": "resnet1"}, "unknown model 'resnet1'"),
        ({"model": ""}, "the source names no model"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"device": ""}, "the source names no device"),
        ({"w_dtype": "int3"}, "precision 'int3' is not modelled"),
        ({"w_dtype": "fp16 (int4 weights)"}, "is not modelled"),
        ({"w_dtype": "unheard-of"}, "precision 'unheard-of' is not modelled"),
        ({"w_dtype": ""}, "the source states no precision"),
        ({"batch": None}, "the source states no batch"),
        ({"input_len": None}, "the source states no input length"),
        ({"pp": 2, "n_devices": 3, "tp": 1, "engine": "vLLM"}, "tp = 1 x pp = 2 does not divide 3 devices"),
        ({"n_devices": 3, "tp": 2}, "tp = 2 does not divide 3 devices"),
        ({"metric": "f1_score"}, "accuracy"),
        ({"metric": "train_step_ms"}, "training is not modelled"),
        ({"metric": "time_ms_per_epoch"}, "metric 'time_ms_per_epoch' is not covered"),
    ],
)
def test_a_row_without_an_estimate_has_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnmappableError, match=re.escape(reason)):
        map_record(record(**changes))


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [
        ("fp16", "w16a16"),
        ("bf16", "bf16"),
        ("fp32", "fp32"),
        ("tf32", "tf32"),
        ("bf16 (fp32 accumulation)", "bf16"),
        ("int4", "w4a16"),
        ("int4 (AWQ g128)", "w4a16"),
        ("int8", "w8a8"),
    ],
)
def test_precisions(dtype: str, precision: str) -> None:
    assert map_record(record(w_dtype=dtype)).request["precision"] == precision


@pytest.mark.parametrize("value", [None, 0.0, -1.0])
def test_a_value_that_no_error_can_refer_to(value: float | None) -> None:
    row = record(value=value)
    with pytest.raises(UnmappableError, match="not a positive number"):
        score(row, map_record(row))


def test_a_unit_that_is_not_of_the_metric_is_told() -> None:
    with pytest.raises(UnmappableError, match="metric 'tpot_ms' is in s, but the unit of the row stands for tokens/s"):
        map_record(record(metric="tpot_ms", unit="tokens/s"))


@pytest.mark.parametrize(
    ("metric", "unit"), [*((m, "B") for m in sorted(MEMORY_METRICS)), ("avg_power_w", "W"), ("energy_j_per_token", "J")]
)
def test_memory_energy_and_power_have_units_of_their_own(metric: str, unit: str) -> None:
    assert not map_record(record(metric=metric, unit=unit)).is_time
    for wrong in {"B", "W", "J", "s"} - {unit}:
        with pytest.raises(UnmappableError, match=f"metric '{metric}' is in {unit}, but"):
            map_record(record(metric=metric, unit=wrong))


def test_a_decode_step_needs_an_output_length() -> None:
    with pytest.raises(UnmappableError, match="the source states no output length, so there is no decode step"):
        map_record(record(metric="decode_ms_per_token", output_len=None))


def test_an_engine_replaces_the_one_of_the_row() -> None:
    mapped = map_record(record(engine="nobody's"), "vllm")
    assert (mapped.engine, mapped.request["engine"], mapped.fallback) == ("vllm", "vllm", False)


def test_a_path_stands_where_a_name_of_the_catalogue_could(tmp_path: Path) -> None:
    """Of a machine or a model without a file in the catalogue; the request names the file, not what is in it."""
    gpu, model = tmp_path / "mine.json", tmp_path / "small.json"
    for path, kind, source in ((gpu, "gpu_configs", "a100-sxm-80gb"), (model, "model_configs", "opt-125m")):
        data = json.loads((data_folder(kind) / f"{source}.json").read_bytes())
        path.write_text(json.dumps({**data, "name": path.stem, "aliases": []}))
    row = record(device=str(gpu), model=str(model))
    mapped = map_record(row)
    assert (mapped.request["gpu"], mapped.request["model"]) == (str(gpu), str(model))
    assert score(row, mapped).error == pytest.approx(
        score(row, map_record(record(device="a100-sxm-80gb", model="opt-125m"))).error
    )
    with pytest.raises(UnmappableError, match=r"^unknown device '/no/such/file.json'$"):
        map_record(record(device="/no/such/file.json"))
