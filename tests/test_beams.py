"""Beam search: a decode step computes every beam, and engines keep the caches of beams in three ways."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.case import Case, make_case
from llm_perf_model.peak import memory
from llm_perf_model.specs.catalog import data_folder, load
from llm_perf_model.specs.engine import EngineSpec

from .strategies import cases, wholes

GIVEN: dict[str, Any] = {"gpu": "a100-sxm-80gb", "batch_size": 3, "input_len": 40, "output_len": 20}
BEAMS = st.integers(2, 8)


def estimate(engine: str, beams: int, **options: Any) -> lpm.Estimate:
    return lpm.estimate("llama-2-7b", engine=engine, num_beams=beams, **(GIVEN | options))


def nodes(engine: str, beams: int) -> dict[str, Any]:
    return {node.name: node for node in estimate(engine, beams).case.graph}


def searched(case: Case, beams: int) -> Case:
    return make_case(case.model, case.gpu, case.engine, case.precision, case.layout, None, beams)


@pytest.mark.parametrize("engine", ["hf-transformers", "fastertransformer", "vllm"])
def test_one_beam_is_no_search(engine: str) -> None:
    assert estimate(engine, 1).to_dict() == lpm.estimate("llama-2-7b", engine=engine, **GIVEN).to_dict()
    assert {"beam_scores", "cache_reorder"}.isdisjoint(nodes(engine, 1))


@pytest.mark.parametrize(
    ("engine", "reorders"), [("hf-transformers", True), ("fastertransformer", False), ("vllm", False)]
)
def test_a_search_scores_the_vocabulary_and_may_gather_the_cache(engine: str, reorders: bool) -> None:
    added = set(nodes(engine, 4)) - set(nodes(engine, 1))
    assert added == ({"beam_scores", "cache_reorder"} if reorders else {"beam_scores"})


@pytest.mark.parametrize(
    ("engine", "repeats"), [("hf-transformers", True), ("fastertransformer", False), ("vllm", False)]
)
def test_prompts_are_repeated_only_where_caches_are_copied(engine: str, repeats: bool) -> None:
    several, one, wide = estimate(engine, 4), estimate(engine, 1), estimate(engine, 1, batch_size=12)
    alike = wide if repeats else one
    assert several.prefill.flops == pytest.approx(alike.prefill.flops, rel=0.02)
    assert several.decode.flops == pytest.approx(wide.decode.flops, rel=0.02)


@pytest.mark.parametrize("engine", ["hf-transformers", "fastertransformer", "vllm"])
def test_more_beams_take_no_less_time_energy_and_memory(engine: str) -> None:
    few, many = estimate(engine, 2), estimate(engine, 5)
    for name in ("prefill_s", "decode_step_s", "total_s", "energy_j"):
        assert getattr(many, name) >= getattr(few, name), name
    assert many.memory.peak_bytes > few.memory.peak_bytes
    assert many.max_batch_size <= few.max_batch_size
    assert many.throughput_tokens_per_s <= few.throughput_tokens_per_s


@given(cases(), BEAMS, wholes(1, 16), wholes(1, 60), wholes(2, 60))
def test_memory_of_a_search(case: Case, beams: int, batch: float, input_len: float, output_len: float) -> None:
    """At most that of as many sequences; exactly that of the cache where each beam has one of its own."""
    a = searched(case, beams).allocation
    many, wide = (memory(x, n, input_len, output_len) for x, n in ((a, batch), (case.allocation, beams * batch)))
    if a.beam_cache == "own" and a.cache in {"contiguous", "paged"}:
        assert many.kv_cache_bytes == pytest.approx(wide.kv_cache_bytes, rel=1e-12)
    if a.beam_cache == "shared" and a.cache == "paged":
        assert many.kv_cache_bytes <= batch * (beams + 1) * a.kv_token_bytes * (
            input_len + output_len + 2 * a.block_tokens
        )
    assert memory(a, np.array([batch]), input_len, output_len).peak_bytes[0] == many.peak_bytes


def test_beams_share_the_blocks_of_a_prompt() -> None:
    """40 tokens are 3 blocks of 16, kept once; 20 are 2, kept for each of 4 beams: 11 blocks a sequence."""
    e = estimate("vllm", 4)
    assert e.memory.kv_cache_bytes == 3 * 11 * 16 * e.case.allocation.kv_token_bytes


def test_a_gathered_cache_is_there_three_times() -> None:
    """59 tokens of 12 beams after the last step; the step before left 58, and the search gathered them once more."""
    e = estimate("hf-transformers", 4)
    a = e.case.allocation
    assert e.memory.kv_cache_bytes == pytest.approx(12 * (59 + 2 * 58) * a.kv_token_bytes, rel=0.02)


def test_the_search_of_the_study_runs_out_of_memory_where_it_did() -> None:
    """GPT-Neo with four beams on 12 GB: batch 1, 16 and 32 ran, 64 did not."""
    path = Path(data_folder("records")) / "model_optimisations_rtx3080ti.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    found = {}
    for row in rows:
        if (
            row["model"].endswith("gpt-neo-125M")
            and row["engine"] == "BenchmarkCUDA FP32"
            and row["metric"] == "memory_mb"
        ):
            e = lpm.estimate(
                "gpt-neo-125m",
                gpu="rtx-3080ti",
                engine="hf-eager",
                precision="fp32",
                batch_size=int(row["batch"]),
                input_len=100,
                output_len=100,
                num_beams=4,
            )
            found[int(row["batch"])] = (bool(e.fits), row["outcome"] == "ok")
    assert found == {1: (True, True), 16: (True, True), 32: (True, True), 64: (False, False)}


def test_what_fits_is_asked_for_the_same_search() -> None:
    found = lpm.memory(
        "gpt-neo-125m", gpu="rtx-3080ti", engine="hf-eager", precision="fp32", batch_size=64, num_beams=4
    )
    assert found.what_fits.batch_size == found.max_batch_size
    assert found.max_batch_size < lpm.memory("gpt-neo-125m", gpu="rtx-3080ti", engine="hf-eager").max_batch_size / 4


def test_an_encoder_has_nothing_to_search() -> None:
    with pytest.raises(lpm.InfeasibleError, match=r"^num_beams = 4: bert-base generates no text to search in$"):
        lpm.estimate("bert-base", num_beams=4)


def test_every_engine_says_how_it_keeps_beams() -> None:
    kept = {name: load(EngineSpec, name).beams for name in lpm.engines()}
    assert {kept["hf-transformers"], kept["fastertransformer"], kept["vllm"]} == {"copied", "own", "shared"}
    assert all(load(EngineSpec, name).cache == "paged" for name, how in kept.items() if how == "shared")
