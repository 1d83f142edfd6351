"""Techniques: prompts in chunks and behind a cached prefix."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.case import Case
from llm_perf_model.generate import prefill
from llm_perf_model.ops.batch import Batch
from llm_perf_model.roofline import Run, Totals, totals

from .strategies import cases, wholes

GPU = {"gpu": "h100-sxm-80gb", "engine": "vllm", "precision": "bf16"}
LLAMA: dict[str, Any] = {"model": "llama-3.1-8b", **GPU}
WORK = ("flops", "hbm_bytes", "comm_bytes", "comm_s", "start_s", "overhead_s")


def in_a_loop(case: Case, seqs: float, input_len: float, prefix: float, chunk: float) -> list[Totals]:
    """Every chunk by itself."""
    starts = np.arange(prefix, input_len, chunk)
    batches = [Batch.uniform(seqs, min(chunk, input_len - past), past) for past in starts.tolist()]
    return [totals(case.graph, case.machine, [Run.single(batch)]) for batch in batches]


@given(cases(), wholes(1, 6), wholes(1, 300), wholes(0, 200), wholes(1, 400))
def test_chunks_sum_to_their_passes(case: Case, seqs: float, rest: float, prefix: float, chunk: float) -> None:
    """Time too, up to the places where what binds an operator changes on the way."""
    whole = prefill(case.graph, case.machine, seqs, prefix + rest, prefix_len=prefix, chunk_tokens=chunk).totals
    parts = in_a_loop(case, seqs, prefix + rest, prefix, chunk)
    for name in WORK:
        once = case.machine.request_s if name == "overhead_s" else 0.0
        assert getattr(whole, name) == pytest.approx(once + sum(getattr(part, name) for part in parts), rel=1e-9), name
    assert whole.time_s == pytest.approx(case.machine.request_s + sum(part.time_s for part in parts), rel=0.02)


@given(cases(), wholes(1, 6), wholes(1, 300), st.sampled_from([None, 300.0, 1e6]))
def test_one_chunk_without_a_prefix_is_the_plain_prefill(
    case: Case, seqs: float, prompt: float, chunk: float | None
) -> None:
    plain = prefill(case.graph, case.machine, seqs, prompt).totals
    assert prefill(case.graph, case.machine, seqs, prompt, prefix_len=0.0, chunk_tokens=chunk).totals == plain


@given(cases(), wholes(1, 6), wholes(2, 300), st.data())
def test_a_prefix_and_what_follows_do_the_work_of_the_whole(
    case: Case, seqs: float, prompt: float, data: st.DataObject
) -> None:
    """No pair is computed twice where attention skips masked ones."""
    prefix = data.draw(wholes(1, int(prompt) - 1))
    before = Batch.uniform(seqs, prefix, 0.0)
    after = Batch.uniform(seqs, prompt - prefix, prefix)
    whole = Batch.uniform(seqs, prompt, 0.0)
    assert before.causal_pairs() + after.causal_pairs() == whole.causal_pairs()
    rest = prefill(case.graph, case.machine, seqs, prompt, prefix_len=prefix)
    assert rest.flops <= prefill(case.graph, case.machine, seqs, prompt).flops


def test_the_number_of_runs_does_not_grow_with_the_prompt() -> None:
    case = lpm.estimate("gemma-2-9b", **GPU).case
    counts = {
        len(prefill(case.graph, case.machine, 1.0, prompt, chunk_tokens=512.0).runs) for prompt in (1e4, 1e5, 1e6)
    }
    assert max(counts) <= 5


def test_an_array_of_chunks_and_prefixes_holds_what_scalars_give() -> None:
    chunks, prefixes = [100, 512, 2048], [[0], [37], [1000]]
    whole = lpm.estimate(**LLAMA, input_len=1500, prefix_len=prefixes, prefill_chunk=chunks)
    assert np.shape(whole.ttft_s) == (3, 3)
    for i, (prefix,) in enumerate(prefixes):
        for j, chunk in enumerate(chunks):
            one = lpm.estimate(**LLAMA, input_len=1500, prefix_len=prefix, prefill_chunk=chunk)
            for name in ("ttft_s", "energy_j", "total_s"):
                assert np.broadcast_to(getattr(whole, name), (3, 3))[i, j] == getattr(one, name), name
            assert np.broadcast_to(whole.memory.peak_bytes, (3, 3))[i, j] == one.memory.peak_bytes


@given(st.integers(1, 4095))
def test_a_longer_prefix_never_delays_the_first_token(prefix: int) -> None:
    times = lpm.estimate(**LLAMA, input_len=4096, prefix_len=[prefix - 1, prefix]).ttft_s
    assert times[1] <= times[0] * (1.0 + 1e-12)


def test_sequences_share_the_whole_blocks_of_a_prefix() -> None:
    """4 sequences of 1,000 + 24 tokens with a prefix of 500: 31 blocks of 16 once, 33 a sequence."""
    shared = lpm.estimate(**LLAMA, batch_size=4, input_len=1000, output_len=24, prefix_len=500)
    token_bytes = 131_072.0  # 32 layers, 8 key heads of 128 values, keys and values, 2 bytes
    assert shared.memory.kv_cache_bytes == (31 + 4 * 33) * 16 * token_bytes


@pytest.mark.parametrize("engine", ["hf-eager", "vllm"])
def test_activations_are_those_of_a_chunk(engine: str) -> None:
    asked = {**LLAMA, "engine": engine, "input_len": 8192}
    whole, chunked, short = (
        lpm.estimate(**asked, prefill_chunk=chunk).memory.moment_bytes[0] for chunk in (None, 512, 256)
    )
    assert short < chunked < whole


@pytest.mark.parametrize(
    ("given_fields", "message"),
    [
        ({"prefix_len": 512}, "prefix_len: is 512 of the 512 tokens of a prompt; at least one must be left, so give"),
        ({"prefix_len": [0, 700], "input_len": 600}, "prefix_len: is 700 of the 600 tokens of a prompt"),
        ({"prefix_len": -1}, "prefix_len: is -1; must be a whole number of at least 0"),
        ({"prefill_chunk": 0}, "prefill_chunk: is 0; must be a whole number of at least 1"),
        ({"model": "bert-base", "prefix_len": 3}, "prefix_len: bert-base makes one pass and keeps no cache"),
        ({"model": "t5-3b", "prefill_chunk": 64}, "prefill_chunk: t5-3b has an encoder that reads prompts whole"),
        ({"model": "resnet18", "prefill_chunk": 64}, "prefill_chunk: resnet18 makes one pass and keeps no cache"),
    ],
)
def test_what_does_not_agree_is_refused(given_fields: dict[str, Any], message: str) -> None:
    with pytest.raises(lpm.LlmPerfModelError) as caught:
        lpm.estimate(**{**LLAMA, **given_fields})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_plain_request_knows_no_technique() -> None:
    plain = lpm.estimate(**LLAMA)
    assert plain.request.techniques == frozenset()
    assert plain.case.equip is None
    given_none = lpm.estimate(**LLAMA, prefix_len=0)
    assert [getattr(given_none.prefill.totals, each.name) for each in fields(Totals)] == [
        getattr(plain.prefill.totals, each.name) for each in fields(Totals)
    ]
    assert given_none.memory.peak_bytes == plain.memory.peak_bytes
