"""Results of other tools as records: every value from its place, versions and gaps refused, and then a validation."""

from __future__ import annotations

import copy
import csv
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.importers.results.file import parts
from llm_perf_model.importers.results.gguf_bench import results as gguf_results
from llm_perf_model.importers.results.imported import READERS
from llm_perf_model.importers.results.result import COUNTS, STATED, Result
from llm_perf_model.importers.results.serving import results as serving_results
from llm_perf_model.importers.results.table import report_of
from llm_perf_model.importers.results.tool import tools
from llm_perf_model.validation.mapping import UnmappableError, map_record
from llm_perf_model.validation.records import COLUMNS, UNITS, Record, read

from .running import Run, runner

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "results"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
H100 = "NVIDIA H100 80GB HBM3"
ALL: dict[str, Any] = {"device": "h100-sxm-80gb", "engine": "vllm", "model": "llama-3.1-8b"}
Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80, "import_results")


def loaded(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def changed(folder: Path, name: str, change: Change) -> Path:
    """A stored example with a change, as a file of its own."""
    data = loaded(name)
    change(data)
    return saved(folder, json.dumps(data))


def saved(folder: Path, text: str, name: str = "r.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def summary(folder: Path, *pairs: tuple[str, str]) -> Path:
    """The stored summary with other text in some places."""
    text = (FOLDER / "mlperf_log_summary.txt").read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return saved(folder, text, "mlperf_log_summary.txt")


def values(rows: tuple[Result, ...]) -> dict[str, float | None]:
    assert len({row.metric for row in rows}) == len(rows)
    return {row.metric: row.value for row in rows}


# What each tool states.


def test_a_row_has_the_columns_of_a_file_of_records() -> None:
    assert tuple(field.name for field in fields(Result)) == COLUMNS
    assert set(STATED) | set(COUNTS) <= set(COLUMNS)


EXAMPLES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, float]]] = [
    (
        "vllm_serve.json", {"device": "h100"},
        {"source": "vLLM bench serve", "engine": "vllm", "model": LLAMA, "batch": 16, "input_len": 1024,
         "output_len": 256},
        {"throughput_tok_s": 1691.9, "ttft_ms": 118.2, "tpot_ms": 8.87, "end_latency_ms": 2401.5},
    ),
    (
        "vllm_latency.json", {"device": "h100", "model": "llama-3.1-8b", "batch": 8},
        {"source": "vLLM bench latency", "engine": "vLLM", "batch": 8, "input_len": None},
        {"total_ms": 1133.0},
    ),
    (
        "vllm_throughput.json", ALL,
        {"source": "vLLM bench throughput", "batch": None, "extra": {"request_rate": "inf", "requests": 1000}},
        {"throughput_total_tok_s": 15533.98},
    ),
    (
        "guidellm_v2.json", {"device": "h100", "engine": "vllm"},
        {"source": "GuideLLM", "model": LLAMA, "batch": 8, "input_len": 512, "output_len": 128},
        {"throughput_tok_s": 905.0, "ttft_ms": 55.1, "tpot_ms": 8.217, "end_latency_ms": 1106.82},
    ),
    (
        "aiperf.json", {"engine": "vllm"},
        {"source": "AIPerf", "model": LLAMA, "device": H100, "batch": 4, "input_len": 550, "output_len": 128},
        {"throughput_tok_s": 780.8, "ttft_ms": 35.5, "tpot_ms": 4.83, "end_latency_ms": 650.0},
    ),
    (
        "genai_perf.json", {"engine": "vllm", "device": "h100"},
        {"source": "GenAI-Perf", "model": LLAMA, "batch": 1, "input_len": 512, "output_len": 128},
        {"throughput_tok_s": 194.5, "ttft_ms": 26.9, "tpot_ms": 4.94, "end_latency_ms": 655.1},
    ),
    (
        "trtllm_bench.json", {},
        {"source": "trtllm-bench", "engine": "TensorRT-LLM", "engine_version": "1.2.0", "device": H100, "model": LLAMA,
         "n_devices": 2, "tp": 2, "pp": 1, "w_dtype": "fp8", "kv_dtype": "fp8", "batch": 63, "input_len": 1024,
         "output_len": 256},
        {"throughput_tok_s": 7290.0, "ttft_ms": 160.0, "tpot_ms": 7.98, "end_latency_ms": 2210.0},
    ),
    (
        "optimum_benchmark.json", {},
        {"source": "optimum-benchmark", "engine": "transformers", "engine_version": "2.5.1", "n_devices": 1,
         "device": "NVIDIA A100-SXM4-80GB", "model": LLAMA, "w_dtype": "fp16", "batch": 4, "input_len": 256,
         "output_len": 100},
        {"prefill_ms": 46.7, "decode_ms_per_token": 29.9, "total_ms": 3021.0, "memory_mb": 18350.0},
    ),
    (
        "benchmark_report.json", ALL | {"batch": 8},
        {"source": "optimum-benchmark", "batch": 8, "w_dtype": None},
        {"latency_ms": 12.1, "memory_mb": 3300.0},
    ),
    (
        "mlperf_log_summary.txt", ALL,
        {"source": "MLPerf LoadGen", "batch": None},
        {"throughput_tok_s": 3360.07, "ttft_ms": 120.4001, "tpot_ms": 13.9002},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "stated", "facts", "expected"), EXAMPLES, ids=[example[0] for example in EXAMPLES])
def test_values_and_facts_of_a_file(
    name: str, stated: dict[str, Any], facts: dict[str, Any], expected: dict[str, float]
) -> None:
    rows = lpm.import_results(FOLDER / name, **stated)
    assert values(rows) == pytest.approx(expected)
    for row in rows:
        assert {column: getattr(row, column) for column in facts} == facts
        assert (row.source_file_or_url, row.outcome, row.how) == (name, "ok", "result file")
        assert row.unit.lower() in UNITS


def test_every_load_of_a_report_is_a_run() -> None:
    rows = lpm.import_results(FOLDER / "guidellm.json", device="h100", engine="vllm")
    throughputs = [row for row in rows if row.metric == "throughput_tok_s"]
    assert [(row.value, row.batch) for row in throughputs] == [(131.0, 1), (905.0, 8), (511.0, None)]
    assert throughputs[1].extra == {"concurrency": 8, "mean_concurrency": 7.9, "requests": 180, "failed": 2.0}
    assert throughputs[2].extra == {"request_rate": 4.0, "mean_concurrency": 4.6, "requests": 100}


def test_the_time_of_a_report_that_holds_the_first_token_is_not_read() -> None:
    rows = lpm.import_results(FOLDER / "guidellm_v2.json", device="h100", engine="vllm")
    metrics = loaded("guidellm_v2.json")["benchmarks"][0]["metrics"]
    row = next(row for row in rows if row.metric == "tpot_ms")
    assert row.value == metrics["inter_token_latency_ms"]["successful"]["median"]
    assert row.value != metrics["time_per_output_token_ms"]["successful"]["median"]


def test_a_report_of_before_versions_has_the_first_layout(tmp_path: Path) -> None:
    path = changed(tmp_path, "guidellm.json", lambda data: data.pop("metadata"))
    assert len(lpm.import_results(path, device="h100", engine="vllm")) == 12


def test_a_time_says_what_of_its_requests_it_is(tmp_path: Path) -> None:
    row = lpm.import_results(FOLDER / "vllm_serve.json", device="h100")[1]
    assert row.extra == {
        "request_rate": "inf", "concurrency": 16, "requests": 320, "statistic": "median", "mean_ms": 142.6,
        "p99_ms": 402.5,
    }  # fmt: skip
    mean = lpm.import_results(
        changed(tmp_path, "vllm_serve.json", lambda data: data.pop("median_ttft_ms")), device="h100"
    )
    assert (mean[1].value, mean[1].extra["statistic"]) == (142.6, "mean")


def test_a_time_that_was_not_measured_is_absent(tmp_path: Path) -> None:
    def without_tokens(data: dict[str, Any]) -> None:
        data.update(mean_tpot_ms=0.0, median_tpot_ms=0.0, p99_tpot_ms=0.0)
        for key in ("mean_e2el_ms", "median_e2el_ms"):
            del data[key]

    rows = lpm.import_results(changed(tmp_path, "vllm_serve.json", without_tokens), device="h100")
    assert [row.metric for row in rows] == ["throughput_tok_s", "ttft_ms"]


@pytest.mark.parametrize(
    ("load", "batch", "extra"),
    [
        ({"request_rate": "inf", "max_concurrency": 4}, 4, {"request_rate": "inf", "concurrency": 4}),
        ({"request_rate": "inf", "max_concurrency": None}, None, {"request_rate": "inf"}),
        ({"request_rate": 2.5, "max_concurrency": 64}, None, {"request_rate": 2.5, "concurrency": 64}),
    ],
)
def test_a_batch_is_a_number_of_requests_that_is_kept_up(
    tmp_path: Path, load: dict[str, Any], batch: int | None, extra: dict[str, Any]
) -> None:
    path = changed(tmp_path, "vllm_serve.json", lambda data: data.update(load))
    row = lpm.import_results(path, device="h100")[0]
    assert row.batch == batch
    assert row.extra == {**extra, "requests": 320}


def test_failed_requests_are_told(tmp_path: Path) -> None:
    path = changed(tmp_path, "vllm_serve.json", lambda data: data.update(completed=300))
    assert lpm.import_results(path, device="h100")[0].extra["failed"] == 20


def test_an_endpoint_of_many_engines_names_none(tmp_path: Path) -> None:
    path = changed(tmp_path, "vllm_serve.json", lambda data: data.update(backend="openai-chat"))
    with pytest.raises(lpm.RequestError, match=r"does not say which engine; give --engine$"):
        lpm.import_results(path, device="h100")
    assert lpm.import_results(path, device="h100", engine="sglang")[0].engine == "sglang"


def test_a_batch_that_the_engine_cannot_run_at_once_is_not_stated(tmp_path: Path) -> None:
    path = changed(tmp_path, "trtllm_bench.json", lambda data: data["world_info"].update(max_batch_size=32))
    assert {row.batch for row in lpm.import_results(path)} == {None}


def test_requests_one_after_the_other_have_no_load(tmp_path: Path) -> None:
    path = changed(
        tmp_path, "trtllm_bench.json", lambda data: data["request_info"].update(avg_num_concurrent_requests=0.998)
    )
    rows = lpm.import_results(path)
    assert {(row.batch, row.extra["concurrency"]) for row in rows} == {(1, 1)}


def test_a_report_without_streaming_has_no_times_of_tokens(tmp_path: Path) -> None:
    path = changed(tmp_path, "trtllm_bench.json", lambda data: data.pop("streaming_metrics"))
    assert set(values(lpm.import_results(path))) == {"throughput_tok_s", "end_latency_ms"}


@pytest.mark.parametrize(
    ("config", "batch", "model"),
    [
        ({"endpoint": {"model_names": ["m"]}, "loadgen": {"concurrency": 12}}, 12, "m"),
        ({"model": ["m"], "concurrency": 12, "request_rate": None}, 12, "m"),
        ({"model": "m", "request_rate": 3.0}, None, "m"),
        ({"models": {"items": [{"name": "m"}, {"name": "n"}]}, "runtime": {"concurrency": 12}}, 12, None),
    ],
)
def test_settings_of_other_releases(
    tmp_path: Path, config: dict[str, Any], batch: int | None, model: str | None
) -> None:
    path = changed(tmp_path, "genai_perf.json", lambda data: data.update(input_config=config))
    row = lpm.import_results(path, device="h100", engine="vllm", **({} if model else {"model": "llama-3.1-8b"}))[0]
    assert (row.batch, row.model) == (batch, model or "llama-3.1-8b")


def test_times_in_another_unit(tmp_path: Path) -> None:
    path = changed(tmp_path, "genai_perf.json", lambda data: data["time_to_first_token"].update(unit="us"))
    assert values(lpm.import_results(path, device="h100", engine="vllm"))["ttft_ms"] == pytest.approx(0.0269)


# Tests of prompts and of generation.


def test_a_test_is_a_prefill_or_decode_steps_after_what_is_cached() -> None:
    rows = lpm.import_results(FOLDER / "llama_bench.json", model="llama-3.1-8b")
    assert [(row.metric, row.value, row.input_len, row.output_len) for row in rows] == [
        ("prefill_tok_s", 11240.5, 512, None),
        ("decode_tok_s", 148.31, 1, 128),
        ("decode_tok_s", 131.7, 4096, 128),
    ]
    assert {(row.device, row.w_dtype, row.kv_dtype, row.batch) for row in rows} == {
        ("NVIDIA GeForce RTX 4090", "q4_k_m", "fp16", 1)
    }
    assert [row.extra.get("n_batch_flag") for row in rows] == [512, None, None]
    assert [row.extra.get("decode_steps") for row in rows] == [None, True, True]


def test_rows_and_objects_say_the_same() -> None:
    as_rows = [row.cells() for row in lpm.import_results(FOLDER / "llama_bench.csv", model="llama-3.1-8b")]
    as_objects = [row.cells() for row in lpm.import_results(FOLDER / "llama_bench.json", model="llama-3.1-8b")]
    named = [row | {"source_file_or_url": "llama_bench.csv"} for row in as_objects]
    assert as_rows == named


def test_lines_of_objects_are_their_list(tmp_path: Path) -> None:
    tests = loaded("llama_bench.json")
    path = saved(tmp_path, "\n".join(map(json.dumps, tests)), "r.jsonl")
    assert len(lpm.import_results(path, model="llama-3.1-8b")) == len(tests)
    serve = json.dumps(loaded("vllm_serve.json"))
    assert len(lpm.import_results(saved(tmp_path, f"{serve}\n{serve}"), device="h100")) == 8


def test_a_test_of_both_counts_the_tokens_of_both(tmp_path: Path) -> None:
    path = changed(tmp_path, "llama_bench.json", lambda data: data[0].update(n_gen=128))
    row = lpm.import_results(path, model="llama-3.1-8b")[0]
    assert (row.metric, row.unit, row.input_len, row.output_len) == (
        "throughput_total_tok_s", "(in+out) tok/s", 512, 128,
    )  # fmt: skip
    assert row.extra["decode_steps"] is True


@pytest.mark.parametrize(
    ("type_", "w_dtype"),
    [
        ("llama 7B mostly Q4_0", "q4_0"),
        ("qwen2 7B Q4_K - Medium", "q4_k_m"),
        ("llama 13B Q3_K - Large", "q3_k_l"),
        ("llama 8B Q6_K", "q6_k"),
        ("llama 8B IQ4_XS - 4.25 bpw", "iq4_xs"),
        ("gpt-oss 20B MXFP4 MoE", "mxfp4"),
        ("llama 8B F16", "fp16"),
        ("llama 8B BF16", "bf16"),
        ("llama 8B all F32", "fp32"),
        ("llama 8B", None),
    ],
)
def test_the_format_of_weights_is_the_end_of_a_type(type_: str, w_dtype: str | None) -> None:
    (row,) = gguf_results("r.json", loaded("llama_bench.json")[0] | {"model_type": type_})
    assert row.w_dtype == w_dtype


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("models/Qwen2.5-7B-Instruct-Q4_K_M.gguf", "Qwen2.5-7B-Instruct"),
        ("C:\\models\\llama-3.1-8b.Q8_0.gguf", "llama-3.1-8b"),
        ("gemma-2b-f16.gguf", "gemma-2b"),
        ("phi-2.gguf", "phi-2"),
    ],
)
def test_the_model_is_the_file_without_its_format(file: str, model: str) -> None:
    (row,) = gguf_results("r.json", loaded("llama_bench.json")[0] | {"model_filename": file})
    assert row.model == model


@pytest.mark.parametrize(
    ("changes", "device", "count"),
    [
        ({"gpu_info": "NVIDIA A100-SXM4-80GB, NVIDIA A100-SXM4-80GB"}, "NVIDIA A100-SXM4-80GB", 2),
        ({"gpu_info": "NVIDIA A100-SXM4-80GB, NVIDIA L4", "split_mode": "none"}, "NVIDIA A100-SXM4-80GB", 1),
        ({"n_gpu_layers": 0}, "AMD Ryzen 7 7800X3D 8-Core Processor", 1),
        ({"gpu_info": "", "backends": "CPU"}, "AMD Ryzen 7 7800X3D 8-Core Processor", 1),
    ],
)
def test_the_devices_are_those_that_computed(changes: dict[str, Any], device: str, count: int) -> None:
    (row,) = gguf_results("r.json", loaded("llama_bench.json")[0] | changes)
    assert (row.device, row.n_devices) == (device, count)


# Scenarios and parts.


def test_a_stream_of_single_samples(tmp_path: Path) -> None:
    path = summary(
        tmp_path, ("Scenario : Server", "Scenario : SingleStream"), ("Completed tokens per second", "Nothing"),
        ("Completed samples per second", "90th percentile latency (ns)"),
    )  # fmt: skip
    rows = lpm.import_results(path, **ALL)
    assert values(rows) == pytest.approx({"latency_ms": 4120.33011, "ttft_ms": 120.4001, "tpot_ms": 13.9002})
    assert {(row.batch, row.extra["concurrency"], row.extra["result"]) for row in rows} == {(1, 1, "VALID")}


def test_all_samples_at_once_are_a_rate(tmp_path: Path) -> None:
    text = "MLPerf Results Summary\nSUT name : PySUT\nScenario : Offline\nMode     : PerformanceOnly\n"
    path = saved(tmp_path, text + "Samples per second: 1.5e+04\nResult is : INVALID\n", "s.txt")
    (row,) = lpm.import_results(path, device="h100", engine="vllm", model="resnet50", batch=64)
    assert (row.metric, row.value, row.unit, row.batch) == ("throughput", 15000.0, "img/s", 64)
    assert row.extra == {"scenario": "Offline", "request_rate": "inf", "result": "INVALID"}


def test_samples_of_a_query_are_its_batch(tmp_path: Path) -> None:
    path = summary(
        tmp_path, ("Scenario : Server", "Scenario : Multi Stream"), ("samples_per_query : 1", "samples_per_query : 8")
    )
    assert {row.batch for row in lpm.import_results(path, **ALL)} == {8}


def test_memory_of_several_cards_is_a_sum_and_left_out(tmp_path: Path) -> None:
    def two(data: dict[str, Any]) -> None:
        data["config"]["backend"]["device_ids"] = "0,1"
        data["config"]["environment"]["gpu"] *= 2

    rows = lpm.import_results(changed(tmp_path, "optimum_benchmark.json", two))
    assert {row.n_devices for row in rows} == {2}
    assert "memory_mb" not in values(rows)


def test_steps_come_from_the_rate_where_none_was_timed(tmp_path: Path) -> None:
    path = changed(tmp_path, "optimum_benchmark.json", lambda data: data["report"].pop("per_token"))
    assert values(lpm.import_results(path))["decode_tok_s"] == 133.3


@pytest.mark.parametrize(
    ("backend", "engine", "w_dtype"),
    [
        ({"quantization_scheme": "gptq"}, "transformers", "gptq"),
        ({"name": "onnxruntime", "torch_dtype": None, "dtype": "bfloat16"}, "onnxruntime", "bf16"),
        ({"torch_dtype": None}, "transformers", None),
    ],
)
def test_engine_and_format_of_a_backend(
    tmp_path: Path, backend: dict[str, Any], engine: str, w_dtype: str | None
) -> None:
    path = changed(tmp_path, "optimum_benchmark.json", lambda data: data["config"]["backend"].update(backend))
    assert {(row.engine, row.w_dtype) for row in lpm.import_results(path)} == {(engine, w_dtype)}


def test_a_run_on_a_processor(tmp_path: Path) -> None:
    path = changed(tmp_path, "optimum_benchmark.json", lambda data: data["config"]["backend"].update(device="cpu"))
    assert {row.device for row in lpm.import_results(path)} == {"AMD EPYC 7742 64-Core Processor"}


# What the user states.


def test_what_the_user_states_counts() -> None:
    stated = {"engine": "sglang", "model": "llama-2-7b", "w_dtype": "fp8", "tp": 4, "batch": 2, "output_len": 9}
    for row in lpm.import_results(FOLDER / "aiperf.json", **stated):
        assert {column: getattr(row, column) for column in stated} == stated
        assert row.device == H100


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({}, "vllm_throughput.json: this result of vLLM bench throughput does not say which device and engine and "
             "model; give --device and --engine and --model"),
        ({"engine": "vllm", "model": "llama-3.1-8b"}, "does not say which device; give --device"),
        (ALL | {"device": "h10"}, "unknown GPU 'h10': did you mean"),
        (ALL | {"engine": "vlm"}, "unknown engine 'vlm': did you mean vllm"),
        (ALL | {"model": "llama-3.1-8bb"}, "unknown model 'llama-3.1-8bb': did you mean"),
        (ALL | {"tp": 0}, "tp: is 0; must be a whole number of at least 1"),
        (ALL | {"batch": "many"}, "batch: is 'many'; must be a whole number of at least 1"),
        (ALL | {"batch": True}, "batch: is True; must be a whole number of at least 1"),
        (ALL | {"devices": 2}, "devices: is nothing that a user states of a result; did you mean device?"),
        (ALL | {"colour": 2}, "colour: is nothing that a user states of a result; must be one of engine, "),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_refused(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(lpm.LlmPerfModelError, match=re.escape(message)):
        lpm.import_results(FOLDER / "vllm_throughput.json", **stated)


def test_a_network_is_a_model() -> None:
    (row, _) = lpm.import_results(FOLDER / "benchmark_report.json", device="h100", engine="vllm", model="resnet50")
    assert row.model == "resnet50"


# Files that are no results.


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("guidellm.json", lambda d: d["metadata"].update(version=3),
         "is a result of GuideLLM, layout 3, known are 1, 2"),
        ("aiperf.json", lambda d: d.update(schema_version="2.0"), "is a result of AIPerf, layout 2.0, known are 1"),
        ("aiperf.json", lambda d: d.pop("schema_version"),
         "is a result of AIPerf, layout without a version, known are 1"),
        ("trtllm_bench.json", lambda d: d["engine"].update(version="0.12.0"),
         "is a result of trtllm-bench 0.12.0, known are 0.20, 0.21, 1.0, 1.1, 1.2, 1.3"),
        ("trtllm_bench.json", lambda d: d["engine"].update(version="1.20.0"),
         "is a result of trtllm-bench 1.20.0, known"),
        ("trtllm_bench.json", lambda d: d["engine"].pop("version"), "is a result of trtllm-bench without a version"),
        ("optimum_benchmark.json", lambda d: d["config"]["environment"].update(optimum_benchmark_version="0.10.0"),
         "is a result of optimum-benchmark 0.10.0, known are 0.4, 0.5, 0.6"),
    ],
)  # fmt: skip
def test_an_unknown_version_is_refused_by_its_name(tmp_path: Path, name: str, change: Change, message: str) -> None:
    path = changed(tmp_path, name, change)
    with pytest.raises(lpm.SpecError, match=f"^{re.escape(f'{path}: {message}')}"):
        lpm.import_results(path, **ALL)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vllm_serve.json", lambda d: d.pop("output_throughput"),
         "output_throughput is missing from this file of vLLM bench serve"),
        ("vllm_serve.json", lambda d: d.update(output_throughput=-3.0),
         "output_throughput is -3.0; must be a number above 0"),
        ("vllm_serve.json", lambda d: d.update(median_ttft_ms=float("nan")),
         "median_ttft_ms is nan; must be a number above 0"),
        ("vllm_serve.json", lambda d: d.update(mean_tpot_ms="fast"),
         "mean_tpot_ms is 'fast'; must be a number above 0"),
        ("vllm_serve.json", lambda d: d.update(completed=0), "no request was completed, so nothing was measured"),
        ("vllm_serve.json", lambda d: d.update(max_concurrency=2.5), "max_concurrency is 2.5; must be a whole number"),
        ("vllm_latency.json", lambda d: d.update(avg_latency=None),
         "avg_latency is missing from this file of vLLM bench latency"),
        ("guidellm.json", lambda d: d["benchmarks"][0]["metrics"]["request_totals"].update(successful=0),
         "no request of a benchmark was completed, so nothing was measured"),
        ("guidellm.json", lambda d: d["benchmarks"][0]["config"].update(strategy={"type_": "trace"}),
         "config.strategy is 'trace'; must be synchronous, concurrent, throughput, constant or poisson"),
        ("aiperf.json", lambda d: d["request_latency"].update(unit="hours"),
         "request_latency.unit is 'hours'; must be ms, s, sec, us, ns"),
        ("trtllm_bench.json", lambda d: d["performance"].clear(),
         "performance.system_output_throughput_tok_s is missing from this file of trtllm-bench"),
        ("llama_bench.json", lambda d: d[0].update(n_prompt=0),
         "n_prompt and n_gen are both 0, so nothing was measured"),
        ("llama_bench.json", lambda d: d[1].update(avg_ts=None), "avg_ts is missing from this file of llama-bench"),
    ],
)  # fmt: skip
def test_a_value_that_is_none_is_refused_by_its_place(tmp_path: Path, name: str, change: Change, message: str) -> None:
    path = changed(tmp_path, name, change)
    with pytest.raises(lpm.SpecError, match=f"^{re.escape(f'{path}: {message}')}"):
        lpm.import_results(path, **ALL)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (("Mode     : PerformanceOnly", "Mode : AccuracyOnly"),
         "Mode is AccuracyOnly, which measures no performance; must be PerformanceOnly"),
        (("Scenario : Server", "Scenario : Interactive"),
         "Scenario is 'Interactive', known are SingleStream, MultiStream, Server, Offline"),
    ],
)  # fmt: skip
def test_a_summary_of_something_else_is_refused(tmp_path: Path, pair: tuple[str, str], message: str) -> None:
    with pytest.raises(lpm.SpecError, match=re.escape(message)):
        lpm.import_results(summary(tmp_path, pair), **ALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_id": "m", "num_pro', "is no JSON from line 1 column 19 on (Unterminated string starting at); "
                                      "is the file complete?"),
        ("[1, 2]", "holds no results: must be objects of JSON, rows of CSV, or lines of a summary"),
        ("[]", "holds no results: must be objects of JSON"),
        ("", "is empty"),
        ("hello", "is of no tool that is known; known are results of vLLM bench serve, vLLM bench latency"),
        ("a,b\n1,2\n", "is of no tool that is known"),
        ('{"tokens_per_s": 12}', "is of no tool that is known"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = saved(tmp_path, text)
    with pytest.raises(lpm.SpecError, match=f"^{re.escape(f'{path}: {message}')}"):
        lpm.import_results(path, **ALL)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(lpm.SpecError, match=r"nosuch.json: cannot be read: No such file or directory$"):
        lpm.import_results(tmp_path / "nosuch.json")
    path = tmp_path / "b.json"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(lpm.SpecError, match=r"b.json: cannot be read: it is no text$"):
        lpm.import_results(path)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys and numbers that lead to each value inside another; of a list the first one only."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, item in inside:
        yield (*place, key)
        yield from places(item, (*place, key))


@pytest.mark.parametrize("odd", [None, "x", [], [1], {}, -1, 0, True, float("nan"), 1e400], ids=repr)
@pytest.mark.parametrize("name", [path.name for path in sorted(FOLDER.glob("*.*")) if path.suffix != ".md"])
def test_an_odd_value_at_any_place_is_read_around_or_refused(name: str, odd: Any) -> None:
    """Nothing but an error of the library, wherever it stands."""
    part = parts(FOLDER / name)[0]
    (reader,) = (reader for reader in READERS if reader.recognises(part))
    for place in places(part):
        spoilt = copy.deepcopy(part)
        inside = spoilt
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = odd
        if reader.recognises(spoilt):
            with suppress(lpm.LlmPerfModelError):
                assert all(row.value and 0.0 < row.value < float("inf") for row in reader.results(name, spoilt))


@pytest.mark.parametrize("cut", [40, 400, 900])
@pytest.mark.parametrize("name", ["vllm_serve.json", "guidellm.json", "trtllm_bench.json", "llama_bench.json"])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, name: str, cut: int) -> None:
    path = saved(tmp_path, (FOLDER / name).read_text(encoding="utf-8")[:cut])
    with pytest.raises(lpm.SpecError, match="is the file complete"):
        lpm.import_results(path, **ALL)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.*")), ids=lambda path: path.name)
def test_a_file_is_of_one_tool(path: Path) -> None:
    if path.suffix == ".md":
        return
    for part in parts(path):
        assert sum(reader.recognises(part) for reader in READERS) == 1


# Laws.

positive = st.floats(1e-3, 1e6)
lengths = st.integers(1, 100_000)


@given(positive, positive, positive, lengths, lengths, st.integers(1, 2000), st.none() | st.integers(1, 512))
def test_values_come_through_unchanged(
    tok_s: float, ttft: float, tpot: float, in_len: int, out_len: int, requests: int, at_once: int | None
) -> None:
    data = loaded("vllm_serve.json") | {
        "output_throughput": tok_s, "median_ttft_ms": ttft, "median_tpot_ms": tpot, "completed": requests,
        "num_prompts": requests, "total_input_tokens": in_len * requests, "total_output_tokens": out_len * requests,
        "max_concurrency": at_once,
    }  # fmt: skip
    rows = {row.metric: row for row in serving_results("r.json", data)}
    assert [rows[metric].value for metric in ("throughput_tok_s", "ttft_ms", "tpot_ms")] == [tok_s, ttft, tpot]
    assert {(row.input_len, row.output_len, row.batch) for row in rows.values()} == {(in_len, out_len, at_once)}


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.integers()), max_size=5))
def test_no_object_breaks_what_recognises_files(data: dict[str, Any]) -> None:
    for reader in READERS:
        assert reader.recognises(data) in {True, False}


# As records.


def records_of(path: Path) -> list[Record]:
    rows = list(read(path))
    assert all(isinstance(row, Record) for row in rows)
    return [row for row in rows if isinstance(row, Record)]


@pytest.mark.parametrize("name", [example[0] for example in EXAMPLES])
def test_written_rows_are_records_with_the_same_values(tmp_path: Path, name: str) -> None:
    rows = lpm.import_results(FOLDER / name, **ALL, w_dtype="bf16")
    path = saved(tmp_path, report_of(rows).csv(), "records.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        assert tuple(csv.DictReader(stream).fieldnames or ()) == COLUMNS
    for row, record in zip(rows, records_of(path), strict=True):
        _, factor = UNITS[row.unit.lower()]
        assert row.value is not None
        assert record.value == pytest.approx(row.value * factor)
        assert (record.metric, record.batch, record.input_len) == (row.metric, row.batch, row.input_len)
        assert record.extra == dict(row.extra)


def reasons(tmp_path: Path, name: str, **stated: Any) -> dict[str, str]:
    """Why values of a file have no estimate, by metric; empty where they have one."""
    rows = lpm.import_results(FOLDER / name, **stated)
    found = {}
    for record in records_of(saved(tmp_path, report_of(rows).csv(), "records.csv")):
        try:
            map_record(record)
            found[record.metric] = ""
        except UnmappableError as error:
            found[record.metric] = str(error)
    return found


WAITS = "under load it holds the wait for the prompts of other requests"


def test_times_of_tokens_under_load_are_compared_with_nothing(tmp_path: Path) -> None:
    assert reasons(tmp_path, "vllm_serve.json", device="h100", w_dtype="bf16") == {
        "throughput_tok_s": "", "ttft_ms": WAITS, "tpot_ms": WAITS, "end_latency_ms": "",
    }  # fmt: skip
    alone = reasons(tmp_path, "genai_perf.json", device="h100", engine="vllm", w_dtype="bf16")
    assert set(alone.values()) == {""}


def test_a_prompt_behind_cached_tokens_is_compared_with_nothing(tmp_path: Path) -> None:
    path = changed(tmp_path, "llama_bench.json", lambda data: data[0].update(n_depth=512))
    rows = lpm.import_results(path, model="llama-3.1-8b")
    first, *_ = records_of(saved(tmp_path, report_of(rows).csv(), "records.csv"))
    with pytest.raises(UnmappableError, match="the prompt follows tokens that are cached already"):
        map_record(first)


def test_guessed_tokens_are_compared_with_nothing(tmp_path: Path) -> None:
    path = changed(tmp_path, "trtllm_bench.json", lambda data: data.update(decoding_stats={"mode": "EAGLE"}))
    for record in records_of(saved(tmp_path, report_of(lpm.import_results(path)).csv(), "records.csv")):
        with pytest.raises(UnmappableError, match=r"guessed ahead|under load"):
            map_record(record)


def test_decode_steps_begin_at_the_depth(tmp_path: Path) -> None:
    rows = lpm.import_results(FOLDER / "llama_bench.json", model="llama-3.1-8b")
    requests = [map_record(r).request for r in records_of(saved(tmp_path, report_of(rows).csv(), "records.csv"))]
    assert [(r["input_len"], r["output_len"], r["precision"]) for r in requests] == [
        (512, 1, "q4-k-m"), (1, 129, "q4-k-m"), (4096, 129, "q4-k-m"),
    ]  # fmt: skip


def test_a_precision_of_the_catalogue_is_one_of_a_record(tmp_path: Path) -> None:
    assert reasons(tmp_path, "trtllm_bench.json")["throughput_tok_s"] == ""
    unknown = reasons(tmp_path, "trtllm_bench.json", w_dtype="fp7")
    assert unknown["throughput_tok_s"] == "precision 'fp7' is not modelled"


# The command.


def test_the_command_writes_what_validate_reads(run: Run, tmp_path: Path) -> None:
    written = tmp_path / "records.csv"
    path = str(FOLDER / "genai_perf.json")
    ran = run("--path", path, "--device", "h100", "--engine", "vllm", "--w_dtype", "bf16", "--output", str(written))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith(f"written: {written}\n")
    assert lpm.validate(str(written)).data["scored"] == 4


@pytest.mark.parametrize("name", [example[0] for example in EXAMPLES])
def test_tables_fit_a_narrow_terminal(run: Run, name: str) -> None:
    ran = run(str(FOLDER / name), *(f"--{flag}={value}" for flag, value in ALL.items()))
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80


def test_several_files_are_one_table_of_records(run: Run) -> None:
    names = [str(FOLDER / name) for name in ("vllm_serve.json", "aiperf.json")]
    ran = run(",".join(names), "--device", "h100", "--engine", "vllm", "--format", "json")
    sources = {row["source"] for row in json.loads(ran.out)["records"]}
    assert sources == {"vLLM bench serve", "AIPerf"}


def test_notes_say_what_is_missing_for_an_estimate(run: Run, tmp_path: Path) -> None:
    out = run(str(FOLDER / "guidellm.json"), "--device", "h100", "--engine", "vllm").out
    assert "the format of the weights of all records is not stated: --w_dtype adds it" in out
    assert "the batch of 4 of 12 records is not stated: --batch adds it" in out
    path = changed(tmp_path, "trtllm_bench.json", lambda data: data["machine"].update(name="NVIDIA Z900"))
    assert "no device of the catalogue is called 'NVIDIA Z900': --device names it" in run(str(path)).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "path: is missing; give a result file of another tool"),
        (("--path",), "path: needs files or folders, separated by commas"),
        (("nosuch.json",), "nosuch.json: cannot be read: No such file or directory"),
        ((str(FOLDER / "vllm_serve.json"),), "does not say which device; give --device"),
        ((str(FOLDER / "vllm_serve.json"), "--device", "h100", "--tp", "x"), "tp: is 'x'; must be a whole number"),
    ],
)
def test_the_command_refuses_in_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert message in ran.err


# The page.


@pytest.mark.parametrize("key", sorted(tools()))
def test_the_page_has_every_tool(key: str) -> None:
    tool = tools()[key]
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {tool.name} |"))
    assert f"`{tool.writes}" in line or tool.writes in line
    for version in tool.versions[::-1][:1]:
        assert version in line
