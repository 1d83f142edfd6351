"""Techniques: prompts in chunks and behind a prefix, drafts, shares on the host, a prefill on devices of its own."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.case import Case, Draft
from llm_perf_model.generate import decode, prefill
from llm_perf_model.graph.guesses import verifying
from llm_perf_model.ops.batch import UNLIMITED, Batch
from llm_perf_model.ops.node import running
from llm_perf_model.rates import HostLink
from llm_perf_model.roofline import Run, Totals, totals
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.model import Prediction
from llm_perf_model.speculation import Guessed
from llm_perf_model.techniques import host_bytes_per_s

from .strategies import Lengths, cases, powers, wholes

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


# Drafts


SPECULATIVE: dict[str, Any] = {**LLAMA, "draft": "llama-3.2-1b", "input_len": 1000, "output_len": 200}


def guessed(case: Case, draft: Case, w: Lengths, acceptance: float) -> Guessed:
    return Guessed(case.graph, case.machine, Draft(draft.graph, draft.machine), *w, acceptance)


@given(st.floats(0.01, 1.0), wholes(1, 16))
def test_expected_tokens_are_a_sum_of_chances(acceptance: float, guesses: float) -> None:
    tokens = Guessed((), None, None, 1.0, 1.0, 1.0, acceptance).tokens_per_step(guesses)  # type: ignore[arg-type]
    assert tokens == pytest.approx(sum(acceptance**i for i in range(int(guesses) + 1)), rel=1e-9)
    assert 1.0 <= tokens <= guesses + 1.0


def test_the_worked_number_of_the_page() -> None:
    speculation = lpm.estimate(**SPECULATIVE, acceptance=0.7, draft_tokens=4).speculation
    assert speculation is not None
    assert speculation.tokens_per_step == pytest.approx(2.7731)
    assert speculation.steps == pytest.approx(199 / 2.7731)


@given(cases(), cases(), wholes(1, 6), wholes(1, 200), wholes(1, 12), wholes(1, 6))
def test_steps_with_guesses_that_are_all_right_sum_to_their_passes(
    case: Case, draft: Case, seqs: float, prompt: float, steps: float, guesses: float
) -> None:
    """Each adds the guesses and one token: then no expectation is between."""
    phase = guessed(case, draft, Lengths(seqs, prompt, steps * (guesses + 1.0)), 1.0).phase(guesses)
    graph, pasts = verifying(running(case.graph, "always")), prompt + np.arange(steps) * (guesses + 1.0)
    verified = [Batch.uniform(seqs, guesses + 1.0, past) for past in pasts.tolist()]
    made = [Batch.uniform(seqs, 1.0, past + j) for past in pasts.tolist() for j in range(int(guesses))]
    parts = [totals(graph, case.machine, [Run.single(batch)]) for batch in verified]
    parts += [totals(running(draft.graph, "always"), draft.machine, [Run.single(batch)]) for batch in made]
    windows = {node.op.attention_window for node in (*case.graph, *draft.graph)} - {UNLIMITED}
    for name in ("flops", "hbm_bytes", "comm_bytes", "time_s"):
        rel = 1e-9 if name != "time_s" and not windows else 0.05
        assert getattr(phase.totals, name) == pytest.approx(sum(getattr(part, name) for part in parts), rel=rel), name


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.9])
def test_the_number_of_guesses_is_the_fastest_one(acceptance: float) -> None:
    best = lpm.estimate(**SPECULATIVE, acceptance=acceptance)
    times = [lpm.estimate(**SPECULATIVE, acceptance=acceptance, draft_tokens=n).tpot_s for n in range(1, 17)]
    assert best.speculation is not None
    assert best.speculation.draft_tokens == 1 + int(np.argmin(times))
    assert best.tpot_s == min(times)


def test_more_acceptance_is_never_slower_and_takes_more_guesses() -> None:
    e = lpm.estimate(**SPECULATIVE, acceptance=[0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    assert e.speculation is not None
    assert np.all(np.diff(e.tpot_s) < 0.0)
    assert np.all(np.diff(e.speculation.draft_tokens) >= 0.0)
    assert np.all(np.diff(e.expected_tokens_per_step) > 0.0)


def test_an_array_of_drafts_holds_what_scalars_give() -> None:
    chances, lengths = [0.4, 0.8], [[2], [50]]
    whole = lpm.estimate(**{**SPECULATIVE, "output_len": lengths}, acceptance=chances)
    for i, (length,) in enumerate(lengths):
        for j, chance in enumerate(chances):
            one = lpm.estimate(**{**SPECULATIVE, "output_len": length}, acceptance=chance)
            for name in ("tpot_s", "decode_steps", "energy_j", "throughput_tokens_per_s", "max_batch_size"):
                assert np.broadcast_to(getattr(whole, name), (2, 2))[i, j] == pytest.approx(getattr(one, name), 1e-12)
            assert np.broadcast_to(whole.memory.peak_bytes, (2, 2))[i, j] == one.memory.peak_bytes


def test_a_model_does_not_gain_from_guessing_for_itself() -> None:
    asked = {**SPECULATIVE, "engine": "ideal", "draft": LLAMA["model"], "acceptance": 1.0}
    for guesses in (1, 4, 16):
        speculation = lpm.estimate(**asked, draft_tokens=guesses).speculation
        assert speculation is not None
        assert speculation.speedup <= 1.0


def test_a_draft_keeps_weights_and_a_cache_beside_the_model() -> None:
    plain, alone, both = (
        lpm.estimate(**{**SPECULATIVE, **change}).memory
        for change in (
            {"draft": None},
            {"draft": None, "model": "llama-3.2-1b"},
            {"acceptance": 0.7, "draft_tokens": 4},
        )
    )
    assert both.weights_bytes == plain.weights_bytes + alone.weights_bytes
    tokens = 76 * 16  # 1,200 and the four guesses of the last step
    assert both.kv_cache_bytes == tokens * (131_072 + 32_768)


def test_a_narrower_draft_is_faster() -> None:
    wide, narrow = (
        lpm.estimate(**SPECULATIVE, acceptance=0.7, draft_tokens=4, draft_precision=name) for name in (None, "w8a16")
    )
    assert narrow.tpot_s < wide.tpot_s
    assert narrow.memory.weights_bytes < wide.memory.weights_bytes


def with_modules(depth: int) -> lpm.ModelSpec:
    model = load(lpm.ModelSpec, "llama-3.1-8b")
    layer = model.layers[0].model_copy(update={"count": 1})
    return model.model_copy(update={"prediction": Prediction(depth=depth, layers=(layer,))})


@pytest.mark.parametrize("depth", [1, 2])
def test_a_models_own_modules_guess_from_its_last_layer(depth: int) -> None:
    """A module is a layer of 218.1 M weights, two norms, a final norm and a product that joins two vectors of 4,096."""
    asked = {**SPECULATIVE, "model": with_modules(depth), "draft": "mtp", "draft_tokens": 2, "acceptance": 0.8}
    plain, e = lpm.estimate(**{**LLAMA, "model": with_modules(depth), "input_len": 1000}), lpm.estimate(**asked)
    module = 218_112_000 + 3 * 4096 + 2 * 4096 * 4096
    assert e.memory.weights_bytes - plain.memory.weights_bytes == pytest.approx(2.0 * depth * module, rel=1e-3)
    roles = {(line["phase"], line["role"]): line for line in e.breakdown("roles").records}
    passes = e.decode_steps * 2
    read_bytes = 2.0 * (module + 128_256 * 4096)
    assert roles["decode", "draft"]["hbm_bytes"] == pytest.approx(passes * read_bytes, rel=0.02)
    assert ("prefill", "draft") in roles


# Shares on the host


OFFLOADED: dict[str, Any] = {**LLAMA, "model": "llama-2-70b", "gpu": "a100-sxm-80gb", "input_len": 300}


@pytest.mark.parametrize(
    ("gpu", "drive", "bytes_per_s"),
    [
        ("a100-sxm-80gb", None, 24.8e9),
        ("rtx-4090", None, 24.8e9),
        ("gh200-96gb", None, 375e9),
        ("a100-sxm-80gb", "nvme-gen4", 7e9),
    ],
)
def test_rates_from_the_host_are_those_that_were_measured(gpu: str, drive: str | None, bytes_per_s: float) -> None:
    """Also where messages between cards stop in host memory, which a copy to it does not."""
    to = None if drive is None else load(lpm.LinkSpec, drive)
    assert host_bytes_per_s(load(lpm.GpuSpec, gpu), to) == pytest.approx(bytes_per_s, rel=0.001)


def test_a_step_takes_the_longer_of_device_and_host_link() -> None:
    """69 G weights of 2 bytes over 24.79 GB/s take 5.56 s, less the token table, of which a step reads rows."""
    plain = lpm.estimate(**OFFLOADED)
    shares = np.array([1e-4, 0.005, 0.5, 1.0])
    e = lpm.estimate(**OFFLOADED, offload_weights=shares)
    read_bytes = 2.0 * (68.977e9 - 32_000 * 8192)
    assert e.decode_step_s == pytest.approx(np.maximum(plain.decode_step_s, shares * read_bytes / 24.79e9), rel=2e-3)
    assert e.decode_step_s[0] == plain.decode_step_s
    assert e.decode.bound.tolist() == ["memory", "memory", "communication", "communication"]


@given(cases(), wholes(1, 6), wholes(1, 200), wholes(1, 30), st.floats(0.0, 1.0), st.floats(0.01, 1.0), powers(7, 11))
def test_steps_of_a_streamed_cache_sum_to_their_passes(
    case: Case, seqs: float, prompt: float, steps: float, weights: float, cache: float, rate: float
) -> None:
    machine = replace(case.machine, host_link=HostLink(weights, cache, rate))
    whole = decode(case.graph, machine, seqs, prompt, steps).totals
    parts = [decode(case.graph, machine, seqs, prompt + i, 1.0).totals for i in range(int(steps))]
    assert whole.streamed_bytes == pytest.approx(sum(part.streamed_bytes for part in parts), rel=1e-9)
    assert whole.time_s == pytest.approx(sum(part.time_s for part in parts), rel=0.02)
    plain = decode(case.graph, case.machine, seqs, prompt, steps).totals.time_s
    assert max(plain, whole.streamed_bytes / rate) * (1 - 1e-9) <= whole.time_s
    assert whole.time_s <= plain + whole.streamed_bytes / rate * (1 + 1e-9)


def test_a_cache_on_the_host_comes_with_each_step_and_goes_once() -> None:
    """Llama-2-70B keeps 327,680 bytes a token: step i finds 300 + i tokens and adds one."""
    e = lpm.estimate(**OFFLOADED, output_len=11, offload_kv=1.0)
    assert e.prefill.totals.streamed_bytes == pytest.approx(300 * 327_680)
    assert e.decode.totals.streamed_bytes == pytest.approx(327_680 * sum(300 + i + 1 for i in range(10)))


@pytest.mark.parametrize("field", ["offload_weights", "offload_kv"])
@pytest.mark.parametrize("engine", ["vllm", "deepspeed-inference", "fastertransformer"])
def test_more_on_the_host_takes_less_of_the_device_and_more_time(field: str, engine: str) -> None:
    e = lpm.estimate(**{**OFFLOADED, "engine": engine, "model": "opt-13b", "precision": "w16a16"}, **{
        field: np.linspace(0.0, 1.0, 9)
    })  # fmt: skip
    assert np.all(np.diff(e.memory.peak_bytes) <= 0.0)
    assert e.memory.peak_bytes[-1] < e.memory.peak_bytes[0]
    assert np.all(np.diff(e.total_s) >= -1e-12)
    assert np.all(np.diff(e.max_batch_size) >= 0.0)


def test_two_layers_of_a_share_on_the_host_are_on_the_device_too() -> None:
    whole, gone = (lpm.estimate(**OFFLOADED, offload_weights=share).memory.weights_bytes for share in (0.0, 1.0))
    assert gone == pytest.approx(whole * 2 / 80)


def test_weights_on_the_host_let_a_model_fit_that_does_not() -> None:
    plain, offloaded = (lpm.estimate(**OFFLOADED, offload_weights=share) for share in (0.0, 0.6))
    assert not plain.fits
    assert offloaded.fits
    with pytest.raises(lpm.OutOfMemoryError, match="what fits"):
        lpm.estimate(**OFFLOADED, offload_weights=[0.01, 0.6]).require_feasible()


# A prefill on devices of its own


APART: dict[str, Any] = {
    **LLAMA, "input_len": 2048, "output_len": 65, "disaggregated": True, "transfer_link": "ethernet-100g"
}  # fmt: skip


def test_the_cache_of_the_prompts_moves() -> None:
    """2,048 tokens of 131,072 bytes over 74.85 % of 12.5 GB/s."""
    e = lpm.estimate(**APART, batch_size=3)
    assert e.handover is not None
    assert e.handover.transfer.comm_bytes == 3 * 2048 * 131_072
    assert e.transfer_s == pytest.approx(3 * 2048 * 131_072 / (0.7485 * 12.5e9), rel=1e-3)


@given(st.integers(1, 64), st.sampled_from(["ethernet-100g", "infiniband-ndr-400g", "nvlink-4"]))
def test_the_second_token_waits_for_the_last_layers_cache_at_least(batch: int, link: str) -> None:
    e = lpm.estimate(**{**APART, "transfer_link": link}, batch_size=batch)
    plain = lpm.estimate(**LLAMA, input_len=2048, output_len=65, batch_size=batch)
    sent, waited = e.transfer_s, e.exposed_transfer_s
    assert min(sent, e.prefill_s) / 32 <= waited * (1 + 1e-9) <= sent * (1 + 1e-9)
    assert waited >= sent - e.prefill_s
    assert (e.ttft_s, e.decode_s) == (plain.ttft_s, plain.decode_s)
    assert e.total_s == pytest.approx(plain.total_s + waited)
    assert e.total_s == pytest.approx(e.ttft_s + 64 * e.tpot_s)
    assert e.throughput_tokens_per_s == pytest.approx(65 * batch / max(e.prefill_s, sent, e.decode_s))


def test_layers_send_their_cache_one_by_one() -> None:
    """As a loop over layers: each sends when it is done and the one before has left."""
    e = lpm.estimate(**APART, batch_size=4)
    done = sent = 0.0
    for _ in range(32):
        done += e.prefill_s / 32
        sent = max(done, sent) + e.transfer_s / 32
    assert e.exposed_transfer_s == pytest.approx(sent - e.prefill_s)


def test_both_sides_have_memory_energy_and_cost_of_their_own() -> None:
    plain = lpm.estimate(**LLAMA, input_len=2048, output_len=65)
    same = lpm.estimate(**APART)
    other = lpm.estimate(**{**APART, "prefill_gpu": "a100-sxm-80gb", "prefill_tp": 2})
    assert same.energy_j == pytest.approx(plain.energy_j)
    assert same.cost is not None and plain.cost is not None and other.cost is not None
    assert same.cost.usd == pytest.approx(plain.cost.usd)
    assert same.cost.usd_per_hour == 2 * plain.cost.usd_per_hour
    assert other.cost.decode_usd == plain.cost.decode_usd
    assert other.prefill_memory.weights_bytes == pytest.approx(plain.memory.weights_bytes / 2, rel=0.01)
    assert same.memory.activation_bytes < plain.memory.activation_bytes
    assert same.prefill_memory.activation_bytes == plain.memory.activation_bytes
    assert other.prefill.machine.peak_flops_per_s < plain.prefill.machine.peak_flops_per_s


def test_a_prefill_side_without_room_is_told() -> None:
    asked = {**APART, "model": "llama-3.1-70b", "tp": 4, "prefill_tp": 1}
    e = lpm.estimate(**asked)
    assert not e.fits
    assert e.max_batch_size == 0
    with pytest.raises(lpm.OutOfMemoryError, match=r"needs 13. GiB on each h100-sxm-80gb"):
        e.require_feasible()


# All of them


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"acceptance": 0.5}, "request: acceptance has no effect without draft: give draft = the name of a smaller"),
        ({"draft_tokens": 3}, "request: draft_tokens has no effect without draft"),
        ({"draft": "llama-3.2-1b"}, "request: draft needs acceptance: give how often the model accepts a guess"),
        ({"draft": "llama-3.2-1b", "acceptance": 1.2}, "acceptance: is 1.2; must be a number above 0 and at most 1"),
        (
            {"draft": "opt-125m", "acceptance": 0.5},
            "draft: opt-125m has 50272 words and llama-3.1-8b 128256: name a draft with the same vocabulary",
        ),
        ({"draft": "bert-base", "acceptance": 0.5}, "draft: bert-base is no decoder that generates text; name one"),
        ({"draft": "llama-3.2-1", "acceptance": 0.5}, "unknown model 'llama-3.2-1'"),
        ({"draft": "mtp", "acceptance": 0.5}, "draft: llama-3.1-8b has no modules of its own that predict several"),
        ({"draft": "llama-3.2-1b", "acceptance": 0.5, "num_beams": 2}, "draft: is not answered with num_beams = 2"),
        ({"draft": "llama-3.2-1b", "acceptance": 0.5, "pp": 2}, "draft: is answered with pp = 1 alone, not with 2"),
        ({"offload_weights": 1.5}, "offload_weights: is 1.5; must be a number from 0 to 1"),
        ({"offload_to": "nvme-gen4"}, "request: offload_to has no effect without offload_weights or offload_kv"),
        ({"engine": "hf-transformers", "offload_kv": 0.5}, "offload_kv: hf-transformers copies its cache as it grows"),
        ({"tp": 2, "link": "nvme-gen4"}, "link: nvme-gen4 is a drive, which joins no devices; name another link"),
        ({"prefill_tp": 2}, "request: prefill_tp has no effect without disaggregated: give disaggregated = True"),
        ({"disaggregated": "maybe"}, "disaggregated: is 'maybe'; must be "),
        (
            {"disaggregated": True, "transfer_link": "nvme-gen4"},
            "transfer_link: nvme-gen4 is a drive, which joins no devices; name another link",
        ),
        ({"disaggregated": True, "offload_kv": 1}, "offload_kv: is not answered with disaggregated; leave one of them"),
        ({"model": "t5-3b", "offload_kv": 0.5}, "offload_kv: t5-3b has an encoder that reads prompts whole"),
    ],
)
def test_techniques_that_do_not_agree_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(lpm.LlmPerfModelError) as caught:
        lpm.estimate(**{**LLAMA, **asked})
    assert str(caught.value).startswith(message), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"prefix_len": 100}, "a prefix of 100 tokens is cached before; sequences share its whole blocks"),
        ({"prefill_chunk": 100}, "in passes of at most 100 tokens"),
        ({"draft": "llama-3.2-1b", "acceptance": 0.5, "draft_tokens": 2}, "a step makes 1.75 tokens"),
        ({"offload_weights": 0.25, "offload_kv": 1}, "25 % of weights and 100 % of the cache on the host"),
        ({"disaggregated": True, "transfer_link": "ethernet-100g"}, "over ethernet-100g, layer by layer"),
    ],
)
def test_a_summary_says_what_was_assumed(asked: dict[str, Any], words: str) -> None:
    e = lpm.estimate(**LLAMA, **asked)
    assert words in " ".join(str(e).split())
    answer = e.to_dict("ops")
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    assert "techniques" in answer
    for phase in ("prefill", "decode"):
        rows = [row["time_s"] for row in answer["breakdown"] if row["phase"] == phase]
        assert sum(rows) == pytest.approx(getattr(e, phase).time_s)


def test_techniques_work_together() -> None:
    e = lpm.estimate(
        **{**APART, "transfer_link": "infiniband-ndr-400g"},
        prefix_len=64,
        prefill_chunk=512,
        draft="llama-3.2-1b",
        acceptance=0.8,
        offload_weights=0.1,
    )
    assert e.fits
    assert "techniques" in e.to_dict("roles")
    assert e.expected_tokens_per_step > 1.0


def test_a_plain_request_knows_no_technique() -> None:
    plain = lpm.estimate(**LLAMA)
    assert plain.request.techniques == frozenset()
    assert plain.case.equip is None
    given_none = lpm.estimate(**LLAMA, prefix_len=0)
    assert [getattr(given_none.prefill.totals, each.name) for each in fields(Totals)] == [
        getattr(plain.prefill.totals, each.name) for each in fields(Totals)
    ]
    assert given_none.memory.peak_bytes == plain.memory.peak_bytes
