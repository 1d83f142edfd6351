"""How sources count, where that differs: which rules match a record, in which order they count, what ships."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import llm_perf_model as lpm
from llm_perf_model.specs.catalog import data_folder, load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec
from llm_perf_model.specs.request import CONVENTIONS
from llm_perf_model.split import split_allocated_bytes
from llm_perf_model.validation import conventions
from llm_perf_model.validation.conventions import MATCHED, convention
from llm_perf_model.validation.mapping import MEMORY_METRICS, UnmappableError, map_record

from .rows import operator, record

Rule = dict[str, Any]
Set = Callable[..., None]

SHIPPED: list[Rule] = json.loads((data_folder("records") / "conventions.json").read_bytes())
SAID = {
    "output_len", "total", "input_len", "input_len_of_method", "output_len_of_method", "kv_len", "mask", "runs_as",
    "values", "rotation", "model_of_method", "device_of_method", "batch_of_method", "sequence_len_of_method",
    "baseline_runs_as", "unstated", "launch_s", "least_s", "unfitted", "layout", "precision", "memory", "energy",
    "batch_of", "model_is", "models_in_order", "unscored", "moved",
}  # fmt: skip
"""What a rule may say."""


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Set]:
    """Puts other rules in the place of those that ship."""

    def put(*given: Rule) -> None:
        monkeypatch.setattr(conventions, "_rules", lambda: given)
        conventions._merged.cache_clear()

    yield put
    conventions._merged.cache_clear()


# Matching.


def test_a_rule_says_what_it_says_without_its_patterns_and_its_reason(rules: Set) -> None:
    rules({"source": "test", "engine": "ideal", "why": "it is so", "input_len": "half", "launch_s": 3e-6})
    assert convention(record()) == {"input_len": "half", "launch_s": 3e-6}
    assert convention(record(source="another")) == {}


@pytest.mark.parametrize(
    ("key", "pattern", "changes"),
    [
        ("source", "a te", {}),
        ("engine", "^custom .*graph", {"engine": "custom all-reduce, graph"}),
        ("operator", "^gemm$", {}),
        ("device", "A100|H100", {"device": "H100 SXM"}),
        ("dtype", "^int8_wo$", {"w_dtype": "int8_wo"}),
        ("extra", "cuda_o4", {"extra": {"experiment": "ort_cuda_o4"}}),
        ("model", "^net$", {"model": "net"}),
        ("metric", "^time_", {}),
        ("note", "table 2", {"note": "table 2, left"}),
    ],
)
def test_each_key_of_a_rule_searches_its_field(rules: Set, key: str, pattern: str, changes: dict[str, Any]) -> None:
    rules({key: pattern, "mask": "none"})
    assert convention(operator(**changes)) == {"mask": "none"}
    assert convention(record(source="?", engine="?", device="?", w_dtype="?")) == {}
    assert set(MATCHED) == {
        "source", "engine", "operator", "device", "dtype", "extra", "model", "metric", "note",
    }  # fmt: skip


def test_every_pattern_of_a_rule_must_match(rules: Set) -> None:
    rules({"source": "test", "device": "H100", "mask": "none"})
    assert convention(record(device="A100")) == {}
    assert convention(record(device="H100")) == {"mask": "none"}


def test_a_rule_without_a_pattern_matches_everything(rules: Set) -> None:
    rules({"mask": "none"})
    assert convention(record(source="anything")) == {"mask": "none"}


def test_a_later_rule_overrides_an_earlier_one_word_by_word(rules: Set) -> None:
    wide, narrow = {"source": "test", "launch_s": 1.0, "mask": "none"}, {"engine": "ideal", "launch_s": 2.0}
    rules(wide, narrow)
    assert convention(record()) == {"launch_s": 2.0, "mask": "none"}
    rules(narrow, wide)
    assert convention(record()) == {"launch_s": 1.0, "mask": "none"}


# What rules do to the request of a run.


@pytest.mark.parametrize(
    ("rule", "changes", "request_"),
    [
        ({"precision": "llm-int8"}, {"w_dtype": ""}, {"precision": "llm-int8"}),
        ({"runs_as": "vllm"}, {"engine": "whatever"}, {"engine": "vllm"}),
        ({"input_len": "half"}, {"input_len": 100}, {"input_len": 50}),
        ({"input_len": "half"}, {"input_len": 1}, {"input_len": 1}),
        ({"input_len_of_method": 4, "output_len_of_method": 200}, {"input_len": None, "output_len": None},
         {"input_len": 4, "output_len": 200}),
        ({"batch_of": "avg_bs"}, {"batch": 7, "extra": {"avg_bs": 3.6}}, {"batch_size": 4}),
        ({"batch_of": "avg_bs"}, {"batch": None, "extra": {"avg_bs": 3.4}}, {"batch_size": 3}),
        ({"batch_of": "avg_bs"}, {"batch": 7, "extra": {"avg_bs": 0.2}}, {"batch_size": 1}),
        ({"batch_of": "avg_bs"}, {"batch": 7}, {"batch_size": 7}),
        ({"energy": "tdp"}, {"metric": "energy_j_per_token", "unit": "J"}, {"energy_convention": "tdp"}),
        ({"energy": "tdp"}, {"metric": "avg_power_w", "unit": "W"}, {"energy_convention": "tdp"}),
        ({"input_len_of_method": 4, "output_len_of_method": 200}, {}, {"input_len": 512, "output_len": 32}),
        ({"output_len": "decode_steps"}, {"output_len": 10}, {"output_len": 11}),
    ],
)  # fmt: skip
def test_a_run_is_asked_for_as_its_source_counts(
    rules: Set, rule: Rule, changes: dict[str, Any], request_: dict[str, Any]
) -> None:
    rules({"source": "test", **rule})
    asked = map_record(record(**changes)).request
    assert {key: asked[key] for key in request_} == request_


def test_a_total_may_be_that_of_the_decode(rules: Set) -> None:
    rules({"total": "decode"})
    mapped = map_record(record(metric="total_ms"))
    e = lpm.estimate(**mapped.request)
    assert (mapped.phase, mapped.read(e)) == ("decode", e.decode_s)


def test_a_convention_of_energy_asks_nothing_of_a_time(rules: Set) -> None:
    rules({"energy": "tdp"})
    assert "energy_convention" not in map_record(record(metric="total_ms")).request


@pytest.mark.parametrize("metric", sorted(MEMORY_METRICS))
def test_memory_is_that_of_the_device_or_of_the_framework_or_of_another_device(rules: Set, metric: str) -> None:
    row = record(metric=metric, unit="B", engine="hf-transformers")
    rules()
    whole = map_record(row)
    e = lpm.estimate(**whole.request)
    assert (whole.phase, whole.read(e)) == ("", e.memory.peak_bytes)
    rules({"memory": "allocated"})
    own = map_record(row).read(e)
    assert own == e.memory.allocated_bytes
    assert own < e.memory.peak_bytes
    rules({"memory": "elsewhere"})
    with pytest.raises(UnmappableError, match="memory of another device than the one that computes"):
        map_record(row)


def test_what_a_framework_allocates_on_the_stages_of_a_layer_split_is_added_up(rules: Set) -> None:
    rules({"memory": "allocated"})
    mapped = map_record(record(metric="memory_gib", unit="B", engine="pytorch-forward", n_devices=8, output_len=None))
    e = lpm.estimate(**mapped.request)
    assert e.case.layout.layer_split == 8
    assert mapped.read(e) == split_allocated_bytes(e.case, 2.0, 512.0)
    assert mapped.read(e) > 2.0 * e.memory.peak_bytes


# The rules that ship.


@pytest.mark.parametrize("rule", SHIPPED, ids=lambda rule: f"{rule.get('source')} {rule.get('operator', '')}")
def test_a_rule_that_ships_can_be_read(rule: Rule) -> None:
    """Known words, patterns that compile, a reason, names of the catalogue and times of microseconds."""
    assert set(rule) <= {*MATCHED, *SAID, "why"}
    assert set(rule) & SAID
    assert rule["source"]
    assert len(rule["why"]) > 12
    for key in MATCHED:
        re.compile(rule.get(key, ""))
    if "runs_as" in rule:
        assert load(EngineSpec, rule["runs_as"]).name == rule["runs_as"]
    if "baseline_runs_as" in rule:
        assert load(EngineSpec, rule["baseline_runs_as"]).name == rule["baseline_runs_as"]
    if "model_of_method" in rule:
        assert load(ModelSpec, rule["model_of_method"]).name == rule["model_of_method"]
    if "device_of_method" in rule:
        assert load(GpuSpec, rule["device_of_method"]).name == rule["device_of_method"]
    if "precision" in rule:
        assert load(PrecisionSpec, rule["precision"]).name == rule["precision"]
    assert rule.get("memory", "allocated") in {"allocated", "elsewhere", "incomplete"}
    assert rule.get("energy", "power") in CONVENTIONS
    for length in ("input_len_of_method", "output_len_of_method", "sequence_len_of_method", "batch_of_method"):
        assert rule.get(length, 1) >= 1
    for added in ("launch_s", "least_s"):
        assert 0.0 <= rule.get(added, 0.0) < 1e-4


def test_rules_that_ship_tell_the_charts_of_a_source_from_its_tables() -> None:
    assert convention(record(source="EET GPT-3 benchmark"))["total"] == "decode"
    assert convention(record(source="EET charts")) == {}
    assert convention(record(source="FasterTransformer 13B"))["output_len"] == "decode_steps"


def test_an_output_length_of_another_table_of_the_source_counts() -> None:
    """The values of this metric stand in the tables of totals, at 1024 output tokens."""
    mapped = map_record(record(source="Argonne", metric="end_latency_ms", input_len=1024, output_len=1))
    assert (mapped.request["input_len"], mapped.request["output_len"]) == (1024, 1024)
    first = map_record(record(source="Argonne", metric="ttft_ms_as_recorded", input_len=1024, output_len=1))
    assert (first.request["output_len"], first.phase) == (1, "prefill")


def test_rules_that_ship_tell_tasks_and_backends_of_a_source() -> None:
    lengths = {task: convention(record(source="ML.ENERGY", extra={"task": task})) for task in ("chat", "code")}
    assert {task: rule["input_len_of_method"] for task, rule in lengths.items()} == {"chat": 120, "code": 150}
    assert {rule["runs_as"] for rule in lengths.values()} == {"vllm-0.5-server"}
    assert convention(record(source="Model optimisations", engine="ONNX Runtime CPU"))["memory"] == "elsewhere"
    assert "memory" not in convention(record(source="Model optimisations", engine="PyTorch CUDA FP16"))
    assert convention(record(source="16 x 1024 forward passes"))["energy"] == "tdp"
