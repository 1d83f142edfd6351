"""The answer to what fits: parts, moments, pool and frontier, as data and for people."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.capacity import PARTS
from llm_perf_model.case import Case
from llm_perf_model.estimate import MEMORY_PARTS
from llm_perf_model.peak import MOMENTS
from llm_perf_model.units import binary_bytes, percent

from .strategies import cases, wholes

KEYS = ["request", "memory", "moments", "pool", "fits", "frontier", "what_fits"]
WORKLOADS = ("batch_size", "input_len", "output_len")


def rows_of(capacity: lpm.Capacity, heading: str) -> dict[str, tuple[str, ...]]:
    """The rows of a table by their first cell; empty where there is no such table."""
    found = [table for table in capacity.report().tables if table.columns[0] == heading]
    assert len(found) <= 1
    return {row[0]: row[1:] for table in found for row in table.rows}


# As data.


def asked(case: Case, **workload: Any) -> dict[str, Any]:
    layout = {"tp": case.layout.tp, "dp": case.layout.dp, "layer_split": case.layout.layer_split}
    specs = {"model": case.model, "gpu": case.gpu, "engine": case.engine, "precision": case.precision}
    return specs | layout | workload


@settings(max_examples=10)
@given(cases(), st.tuples(wholes(1, 64), wholes(1, 500), wholes(1, 500)))
def test_it_is_the_memory_of_the_estimate(case: Case, lengths: tuple[float, float, float]) -> None:
    given_ = asked(case, **dict(zip(WORKLOADS, lengths, strict=True)))
    capacity, e = lpm.memory(**given_), lpm.estimate(**given_)
    data = capacity.to_dict()
    assert list(data) == KEYS
    assert data["memory"] == e.memory_dict()
    assert list(data["memory"]) == [*MEMORY_PARTS, "moment"]
    assert data["moments"] == dict(zip(MOMENTS, map(float, e.memory.moment_bytes), strict=True))
    assert capacity.fits == e.fits == data["fits"]
    assert capacity.max_batch_size == e.max_batch_size == data["frontier"]["max_batch_size"]
    assert data["frontier"]["max_batch_size"] == data["what_fits"]["batch_size"]
    assert data["frontier"]["max_input_len"] == data["what_fits"]["input_len"]
    assert max(data["moments"].values()) == pytest.approx(data["memory"]["peak_bytes"], rel=1e-12)
    assert json.loads(json.dumps(data, allow_nan=False)) == data


@settings(max_examples=10)
@given(cases(), st.lists(st.tuples(wholes(1, 64), wholes(1, 500), wholes(1, 500)), min_size=1, max_size=3))
def test_arrays_hold_what_scalars_give(case: Case, rows: list[tuple[float, float, float]]) -> None:
    many = lpm.memory(**asked(case, **dict(zip(WORKLOADS, map(list, zip(*rows, strict=True)), strict=True))))
    for index, row in enumerate(rows):
        one = lpm.memory(**asked(case, **dict(zip(WORKLOADS, row, strict=True))))
        for name in ("max_batch_size", "max_input_len", "max_context", "fits"):
            assert np.broadcast_to(getattr(many, name), len(rows))[index] == getattr(one, name), name
    json.dumps(many.to_dict(), allow_nan=False)


def test_the_pool_as_data() -> None:
    capacity = lpm.memory("llama-2-7b", engine="vllm")
    pool = capacity.to_dict()["pool"]
    assert list(pool) == ["pool_bytes", "tokens", "blocks", "concurrency", "block_tokens"]
    assert pool["block_tokens"] == 16
    assert pool["tokens"] == pytest.approx(pool["pool_bytes"] / 524_288)
    assert pool["blocks"] == pool["tokens"] // 16
    assert pool["concurrency"] == pool["blocks"] // 34
    none = lpm.memory("opt-1.3b", engine="pytorch-forward", output_len=1).to_dict()["pool"]
    assert none["tokens"] is none["blocks"] is none["concurrency"] is none["block_tokens"] is None
    assert none["pool_bytes"] > 0.0


@pytest.mark.parametrize(("batch_size", "context"), [(1, 4096), (64, None), (5000, 0)])
def test_a_context_is_the_longest_prompt_and_its_output(batch_size: int, context: int | None) -> None:
    capacity = lpm.memory("llama-2-7b", batch_size=batch_size, output_len=100)
    found = float(capacity.max_context)
    assert found == context or (context is None and 0.0 < found < 4096.0)
    assert found in {0.0, float(capacity.max_input_len) + 100.0}


def test_devices_are_the_fewest_of_either_layout() -> None:
    eager = lpm.memory("opt-66b", engine="hf-eager").to_dict()["what_fits"]
    assert eager["devices"] == min(eager["tp"], eager["layer_split"]) > 1
    shared = lpm.memory("opt-66b", engine="vllm").to_dict()["what_fits"]
    assert shared["layer_split"] is None
    assert shared["devices"] == shared["tp"]
    assert lpm.memory("megatron-530b", gpu="rtx-4090").to_dict()["what_fits"]["devices"] is None


def test_a_pool_fraction_leaves_the_rest_to_others() -> None:
    whole, half = (lpm.memory("llama-2-7b", engine="vllm", pool_fraction=f) for f in (1.0, 0.5))
    assert half.memory.limit_bytes == 0.5 * half.memory.capacity_bytes == 0.5 * whole.memory.limit_bytes
    assert half.memory.peak_bytes == whole.memory.peak_bytes
    lost = whole.memory.pool.pool_bytes - half.memory.pool.pool_bytes
    assert lost == pytest.approx(0.5 * half.memory.capacity_bytes)


def test_errors_are_those_of_an_estimate() -> None:
    with pytest.raises(lpm.RequestError, match="batch_size"):
        lpm.memory("llama-2-7b", batch_size=0)
    with pytest.raises(lpm.UnknownNameError):
        lpm.memory("nosuch-model")
    with pytest.raises(lpm.InfeasibleError, match="does not divide"):
        lpm.memory("llama-2-7b", tp=3)


# For people.


def test_the_parts_of_a_peak_have_a_row_each() -> None:
    capacity = lpm.memory("llama-2-7b", engine="vllm", tp=2)
    m, rows = capacity.memory, rows_of(capacity, "memory per device")
    present = [word for word, field in PARTS.items() if getattr(m, field) > 0.0]
    assert list(rows) == [*present, "peak", "capacity", "of which the engine takes"]
    assert "workspace" not in rows
    for word, field in (PARTS | {"peak": "peak_bytes", "capacity": "capacity_bytes"}).items():
        value = getattr(m, field)
        if value > 0.0:
            assert rows[word] == (binary_bytes(value), percent(value / m.capacity_bytes))
    assert rows["of which the engine takes"] == (binary_bytes(m.limit_bytes), "90 %")
    assert sum(getattr(m, field) for field in PARTS.values()) == pytest.approx(m.peak_bytes)


@pytest.mark.parametrize(
    ("part", "given_"),
    [
        ("workspace", {"model": "bloom-24l-2048h", "engine": "deepspeed-inference"}),
        ("fragments", {"model": "llama-2-7b", "engine": "hf-transformers", "batch_size": 8}),
        ("communication buffers", {"model": "llama-2-7b", "tp": 2}),
        ("captured graphs", {"model": "llama-2-7b", "engine": "vllm"}),
        ("logits", {"model": "llama-2-7b", "engine": "pytorch-forward", "output_len": 1}),
        ("live activations", {"model": "llama-2-7b"}),
        ("KV cache", {"model": "llama-2-7b"}),
        ("context and libraries", {"model": "llama-2-7b"}),
    ],
)
def test_a_part_is_told_where_there_is_one(part: str, given_: dict[str, Any]) -> None:
    assert part in rows_of(lpm.memory(**given_), "memory per device")
    ideal = rows_of(lpm.memory("opt-1.3b", engine="ideal", output_len=1), "memory per device")
    assert next(iter(ideal)) == "weights"
    assert (part in ideal) == (part in {"live activations", "KV cache"})


def test_moments_without_a_decode_and_the_one_that_is_the_peak() -> None:
    generation = rows_of(lpm.memory("llama-2-7b", engine="hf-eager", batch_size=8, output_len=300), "moment")
    assert list(generation) == ["prefill", "logits of the prefill", "last decode step"]
    assert [word for word, cells in generation.items() if cells[1] == "peak"] == ["last decode step"]
    single = rows_of(lpm.memory("opt-1.3b", engine="pytorch-forward", output_len=1), "moment")
    assert list(single) == ["prefill", "logits of the prefill"]
    assert single["logits of the prefill"][1] == "peak"


def test_the_frontier_in_words() -> None:
    rows = rows_of(lpm.memory("opt-66b", gpu="a100-sxm-80gb", engine="hf-eager"), "frontier")
    assert rows["largest batch of these lengths"] == ("none fits",)
    assert rows["longest prompt of this batch"] == ("none fits",)
    assert rows["fewest tensor-parallel ranks"] == ("2",)
    assert rows["fewest stages of a layer split"] == ("2",)
    many = lpm.memory("llama-2-7b", batch_size=[1, 5000])
    rows = rows_of(many, "frontier")
    assert rows["largest batch of these lengths"] == (f"{float(many.max_batch_size):.0f}",)
    assert rows["longest prompt of this batch"] == ("none fits .. 4064",)
    assert "fewest stages of a layer split" not in rows


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ("vllm", ["room for the cache", "tokens", "blocks of 16 tokens", "sequences of this length at a time"]),
        ("fastertransformer", ["room for the cache", "tokens", "sequences of this length at a time"]),
        ("hf-eager", []),
        ("hf-dynamic-cache", []),
        ("pytorch-forward", []),
    ],
)
def test_a_pool_is_told_where_a_cache_lies_in_one(engine: str, words: list[str]) -> None:
    output_len = 1 if engine == "pytorch-forward" else 32
    assert list(rows_of(lpm.memory("llama-2-7b", engine=engine, output_len=output_len), "pool")) == words


def test_a_pool_that_weights_leave_no_room_for_is_empty() -> None:
    rows = rows_of(lpm.memory("llama-2-70b", engine="vllm"), "pool")
    assert rows["room for the cache"] == ("0 B",)
    assert rows["sequences of this length at a time"] == rows["blocks of 16 tokens"] == ("0",)


def test_the_verdict() -> None:
    assert lpm.memory("llama-2-7b").report().notes == ("fits",)
    short = lpm.memory("llama-2-7b", batch_size=500)
    with pytest.raises(lpm.OutOfMemoryError) as caught:
        short.estimate.require_feasible()
    assert short.report().notes == (str(caught.value),)
    many = lpm.memory("llama-2-7b", batch_size=[1, 2, 3, 500])
    assert many.report().notes == (f"fits at 75% of the points; at the worst: {caught.value}",)
    assert many.point.batch_size == 500.0


def test_every_form_holds_the_same_answer() -> None:
    capacity = lpm.memory("llama-2-7b", engine="vllm", batch_size=8)
    report = capacity.report()
    assert str(capacity) == report.text()
    assert capacity._repr_html_() == report.html()
    assert report.data == capacity.to_dict()
    assert "llama-2-7b on NVIDIA A100 40GB SXM4, vllm, w16a16" in str(capacity)
    assert "batch 8, 512 tokens in, 32 out" in str(capacity)
    (row,) = csv.DictReader(io.StringIO(report.csv()))
    assert float(row["memory.peak_bytes"]) == capacity.memory.peak_bytes
    assert float(row["frontier.max_batch_size"]) == capacity.max_batch_size
    assert row["what_fits.gpu"] == capacity.what_fits.gpu


def test_an_encoder_keeps_no_cache_and_makes_one_pass() -> None:
    capacity = lpm.memory("bert-base", batch_size=8, input_len=128)
    data = capacity.to_dict()
    assert data["memory"]["kv_cache_bytes"] == 0.0
    assert rows_of(capacity, "pool") == {}
    assert "last decode step" not in rows_of(capacity, "moment")
