"""Sensitivities and crossovers: laws of homogeneous times, and single estimates on both sides of each point."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.breakdown import by_role, lines
from llm_perf_model.generate import Phase
from llm_perf_model.sweeping.crossovers import DENSE, MOST, ladder
from llm_perf_model.sweeping.pairs import PAIRS, WORDS, Parts, operators
from llm_perf_model.sweeping.sensitivity import ALL, FASTEST, LADDER, SPAN, STEP, WORTH

from .running import Run, runner

RATES = ("hbm_bytes_per_s", "flops_per_s", "link_bytes_per_s")
TOLERANCE = 0.02
"""Of an elasticity, which is a difference over ten percent."""


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Fields of one configuration."""
    fields: dict[str, Any] = {
        "model": draw(st.sampled_from(["test-13b", "llama-3.1-8b", "mixtral-8x7b", "gemma-2-2b", "bert-base-uncased"])),
        "gpu": draw(st.sampled_from(["a100-sxm-40gb", "h100-sxm-80gb", "rtx-4090"])),
        "engine": draw(st.sampled_from(["vllm", "fastertransformer", "hf-transformers", "ideal"])),
        "tp": draw(st.sampled_from([1, 2, 4])),
        "batch_size": draw(st.integers(1, 300)),
        "input_len": draw(st.integers(1, 6000)),
    }
    if fields["model"] != "bert-base-uncased":
        fields["output_len"] = draw(st.integers(1, 900))
    return fields


MODELS: dict[str, dict[str, Any]] = {
    "dense": {"model": "llama-3.1-8b", "gpu": "h100-sxm-80gb", "engine": "vllm", "input_len": 2048, "output_len": 256},
    "experts": {"model": "mixtral-8x7b", "gpu": "h200-sxm-141gb", "engine": "vllm", "batch_size": 7},
    "latent": {"model": "deepseek-v3", "gpu": "h200-sxm-141gb", "tp": 8, "batch_size": 16, "attention_dp": 1},
    "ranks": {"model": "deepseek-v3", "gpu": "h200-sxm-141gb", "attention_dp": 8, "ep": 8, "batch_size": 16},
    "stages": {"model": "llama-3.1-70b", "gpu": "a100-sxm-80gb", "pp": 4, "tp": 2, "batch_size": 8},
    "states": {"model": "mamba-2.8b"},
    "hybrid": {"model": "jamba-1.5-mini", "gpu": "h200-sxm-141gb"},
    "windows": {"model": "gemma-2-2b", "engine": "vllm"},
    "copies": {"model": "test-13b", "engine": "hf-transformers"},
    "encoder": {"model": "bert-base-uncased"},
    "both": {"model": "flan-t5-base"},
    "heard": {"model": "whisper-large-v3"},
    "network": {"model": "resnet18", "engine": "generic-fused", "batch_size": 8},
    "patches": {"model": "vit-b-16", "engine": "generic-fused"},
    "recurrent": {"model": "custom-lstm", "engine": "generic-fused"},
    "one token": {"model": "llama-3.1-8b", "output_len": 1},
    "draft": {"model": "llama-3.1-70b", "gpu": "h100-sxm-80gb", "engine": "vllm", "tp": 4, "draft": "llama-3.1-8b",
              "acceptance": 0.7, "output_len": 50},
    "apart": {"model": "llama-3.1-8b", "gpu": "h100-sxm-80gb", "engine": "vllm", "disaggregated": True},
    "prefix": {"model": "llama-3.1-8b", "engine": "vllm", "input_len": 600, "prefix_len": 500, "prefill_chunk": 128},
    "offload": {"model": "llama-3.1-8b", "engine": "vllm", "offload_weights": 0.5},
    "images": {"model": "qwen2.5-vl-7b", "engine": "vllm", "images": 2, "input_len": 600},
    "limited": {"model": "llama-3.1-8b", "gpu": "h100-sxm-80gb", "power_limit_w": 300.0},
}  # fmt: skip
every_model = pytest.mark.parametrize("fields", list(MODELS.values()), ids=list(MODELS))


def rates_of(e: lpm.Estimate) -> dict[str, float]:
    """The rates of the device of an estimate, read from its case."""
    inside = e.case.joints.inside
    link = {} if inside is None else {"link_bytes_per_s": inside.bytes_per_s}
    peak = e.case.machine.peak_flops_per_s
    return {"hbm_bytes_per_s": e.case.gpu.hbm_bytes_per_s, "flops_per_s": float(peak), **link}


def seconds_at(fields: dict[str, Any], factor: float, *rates: str) -> dict[str, float]:
    """The times of the single estimate of which rates are so many times as high."""
    now = rates_of(lpm.estimate(**fields))
    e = lpm.estimate(**fields, **{rate: factor * now[rate] for rate in rates})
    return {name: float(getattr(e, name)) for name in ("ttft_s", "tpot_s", "total_s")}


# Elasticities.


@settings(max_examples=40, deadline=None)
@given(configurations())
def test_elasticities_of_rates_and_the_rest_add_up_to_minus_one(fields: dict[str, Any]) -> None:
    found = lpm.sensitivity(**fields)
    for metric in found.times_s:
        rates = [found.elasticities[rate][metric] for rate in found.rates]
        assert all(-1.0 - TOLERANCE <= rate <= 1e-9 for rate in rates)
        assert sum(rates) + found.rest[metric] == pytest.approx(-1.0, abs=1e-12)
        assert -1.0 - 1e-9 <= found.rest[metric] <= TOLERANCE


@settings(max_examples=25, deadline=None)
@given(configurations())
def test_all_rates_together_have_the_elasticity_of_their_sum(fields: dict[str, Any]) -> None:
    """The chain rule, as far as a choice of tiles allows over ten percent."""
    found = lpm.sensitivity(**fields)
    slow, fast = (seconds_at(fields, math.exp(sign * STEP), *found.rates) for sign in (-1.0, 1.0))
    for metric in found.times_s:
        together = math.log(fast[metric] / slow[metric]) / (2.0 * STEP)
        assert together == pytest.approx(-1.0 - found.rest[metric], abs=0.06)


def test_ideal_decode_of_one_sequence_is_all_memory() -> None:
    """Weights over bandwidth: nothing else takes time."""
    found = lpm.sensitivity("llama-3.1-8b", engine="ideal", output_len=100)
    assert found.elasticities["hbm_bytes_per_s"]["tpot_s"] == pytest.approx(-1.0, abs=1e-6)
    assert found.elasticities["flops_per_s"]["tpot_s"] == pytest.approx(0.0, abs=1e-6)
    assert found.rest["tpot_s"] == pytest.approx(0.0, abs=1e-6)
    assert found.first("tpot_s") == "hbm_bytes_per_s"
    assert found.bounds == {"prefill": "compute", "decode": "memory"}
    assert found.upgrades["flops_per_s"].next_bounds["decode"] is None


def test_nothing_ideal_is_left_without_any_rate() -> None:
    found = lpm.sensitivity("llama-3.1-8b", engine="ideal", batch_size=3)
    assert all(found.left(metric) < 1e-9 for metric in found.times_s)


def test_a_link_counts_only_where_there_is_one() -> None:
    alone, two = lpm.sensitivity("test-13b"), lpm.sensitivity("test-13b", tp=2)
    assert tuple(alone.rates) == RATES[:2]
    assert tuple(two.rates) == RATES
    assert all(value < 0.0 for value in two.elasticities["link_bytes_per_s"].values())


@every_model
def test_counts_are_compared_over_a_factor_of_two(fields: dict[str, Any]) -> None:
    found = lpm.sensitivity(**fields)
    least = {
        "batch_size": fields.get("attention_dp", 1),
        "input_len": 256 * fields.get("images", 0) or fields.get("prefix_len", 0) + 1,
    }
    least["output_len"] = 2 if "tpot_s" in found.times_s else 1
    for field in set(found.elasticities) - set(found.rates):
        now = int(getattr(found.estimate.workload, field))
        low, high = max(math.floor(now / SPAN), least[field]), math.ceil(now * SPAN)
        few, many = lpm.estimate(**fields | {field: low}), lpm.estimate(**fields | {field: high})
        for metric, value in found.elasticities[field].items():
            ratio = float(getattr(many, metric)) / float(getattr(few, metric))
            assert value == pytest.approx(math.log(ratio) / math.log(high / low), rel=1e-9, abs=1e-9)


def test_a_pass_over_a_prompt_takes_as_long_whatever_follows() -> None:
    found = lpm.sensitivity("llama-3.1-8b", output_len=100)
    assert found.elasticities["output_len"]["ttft_s"] == 0.0
    assert found.elasticities["output_len"]["total_s"] > 0.5


# What faster hardware saves.


@every_model
def test_gains_are_those_of_single_estimates(fields: dict[str, Any]) -> None:
    found = lpm.sensitivity(**fields)
    for field, up in found.upgrades.items():
        rates = tuple(found.rates) if field == ALL else (field,)
        doubled, limit = seconds_at(fields, 2.0, *rates), seconds_at(fields, FASTEST, *rates)
        for metric, now in found.times_s.items():
            assert up.doubled_s[metric] == pytest.approx(doubled[metric], rel=1e-12)
            assert up.limit_s[metric] == pytest.approx(limit[metric], rel=1e-12)
            assert limit[metric] <= doubled[metric] * (1.0 + 1e-12) <= now * (1.0 + 1e-9)
            assert doubled[metric] >= now / 2.0 * (1.0 - 1e-9)
            assert found.gain(field, metric) == pytest.approx(1.0 - doubled[metric] / now, abs=1e-9)


@every_model
def test_another_term_binds_from_the_factor_on_and_not_before(fields: dict[str, Any]) -> None:
    found = lpm.sensitivity(**fields)
    now = rates_of(found.estimate)
    for field, up in found.upgrades.items():
        rates = tuple(found.rates) if field == ALL else (field,)
        for phase, change in up.next_bounds.items():
            before = found.bounds[phase]
            factor = LADDER[-1] if change is None else change.factor
            there = lpm.estimate(**fields, **{rate: now[rate] * factor for rate in rates})
            assert str(getattr(there, phase).bound) == (before if change is None else change.bound)
            if change is not None:
                assert change.bound != before
                short = lpm.estimate(**fields, **{rate: now[rate] * factor / 1.001 for rate in rates})
                assert str(getattr(short, phase).bound) == before


def test_advice_names_the_rate_of_the_greatest_gain() -> None:
    found = lpm.sensitivity(**MODELS["dense"])
    assert (found.first("ttft_s"), found.first("tpot_s")) == ("flops_per_s", "hbm_bytes_per_s")
    text = " ".join(found.report().text(80).split())
    assert "TTFT: buy FLOP/s first: twice as much saves" in text
    assert "TPOT: buy memory bandwidth first: twice as much saves" in text


def test_advice_says_where_no_rate_helps() -> None:
    """A small model waits for its host."""
    found = lpm.sensitivity("opt-125m", engine="hf-transformers", gpu="h100-sxm-80gb")
    assert found.bounds["decode"] == "host"
    assert found.first("tpot_s") is None
    assert "TPOT: no rate helps; 100 % of the time stays at any rates" in str(found)
    some = lpm.sensitivity("gpt2-medium", engine="vllm", gpu="h100-sxm-80gb")
    assert 0.01 < some.gain("hbm_bytes_per_s", "tpot_s") < WORTH
    assert some.first("tpot_s") is None
    assert "TPOT: no rate helps much: twice the memory bandwidth saves" in str(some)


def test_a_given_rate_is_where_the_comparison_starts() -> None:
    found = lpm.sensitivity("llama-3.1-8b", hbm_bytes_per_s=5e11, flops_per_s=1e14)
    assert dict(found.rates) == {"hbm_bytes_per_s": 5e11, "flops_per_s": 1e14}
    twice = lpm.estimate("llama-3.1-8b", hbm_bytes_per_s=1e12, flops_per_s=1e14)
    assert found.upgrades["hbm_bytes_per_s"].doubled_s["tpot_s"] == pytest.approx(float(twice.tpot_s), rel=1e-12)


def test_a_prefill_on_another_device_keeps_its_own_rates() -> None:
    found = lpm.sensitivity(**MODELS["apart"], prefill_gpu="a100-sxm-80gb")
    assert found.rest["ttft_s"] == -1.0
    assert found.rest["tpot_s"] > -1.0


# Crossovers.


def compute_bound(phase: Phase) -> bool:
    return bool(phase.totals.compute_s > phase.totals.memory_s)


def products_bound(phase: Phase) -> bool:
    """Of the lines of the breakdown: those that are neither attention nor without weights."""
    products = ("qkv", "attention_out", "ffn_gate_up", "ffn_down", "ffn_up", "lm_head")
    chosen = [line for line in lines(phase) if line.name in products]
    return sum(float(line.compute_s) for line in chosen) > sum(float(line.memory_s) for line in chosen)


def cache_moves_more(phase: Phase) -> bool:
    costs = [work.cost for works in phase.works() for work in works]
    return bool(sum(cost.kv_bytes for cost in costs) > sum(cost.weight_bytes for cost in costs))


def attention_passes(phase: Phase) -> bool:
    attention = sum(float(line.time_s) for line in lines(phase) if line.name == "attention")
    (ffn,) = (float(line.time_s) for line in by_role(lines(phase)) if line.role == "ffn")
    return attention > ffn


def exchanges_pass(phase: Phase) -> bool:
    roles = by_role(lines(phase))
    return sum(float(r.comm_s) for r in roles) > sum(float(r.compute_s + r.memory_s) for r in roles)


CHECKS: dict[str, Callable[[Phase], bool]] = {
    "decode_compute_batch": compute_bound,
    "decode_products_batch": products_bound,
    "decode_cache_batch": cache_moves_more,
    "pass_compute_batch": compute_bound,
    "prefill_compute_len": compute_bound,
    "prefill_attention_len": attention_passes,
    "decode_attention_len": attention_passes,
    "prefill_comm_tp": exchanges_pass,
    "decode_comm_tp": exchanges_pass,
}


def test_every_question_has_a_check() -> None:
    assert list(CHECKS) == [each.name for each in PAIRS]
    assert {name for each in PAIRS for name in (each.passing, each.passed)} <= set(Parts._fields) == set(WORDS)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["test-13b", "llama-3.1-8b", "opt-1.3b", "mistral-7b-v0.1"]),
    st.sampled_from(["a100-sxm-40gb", "h100-sxm-80gb", "rtx-4090"]),
    st.sampled_from(["vllm", "fastertransformer", "ideal"]),
    st.integers(1, 64),
    st.integers(1, 4000),
    st.integers(2, 500),
)
def test_a_crossover_holds_at_its_value_and_not_one_below(
    model: str, gpu: str, engine: str, batch_size: int, input_len: int, output_len: int
) -> None:
    fields: dict[str, Any] = {"model": model, "gpu": gpu, "engine": engine, "batch_size": batch_size}
    fields |= {"input_len": input_len, "output_len": output_len}
    phases = {each.name: each.phase for each in PAIRS}
    for point in lpm.crossovers(**fields).points:
        check, phase = CHECKS[point.name], phases[point.name]
        step = 2 if point.field == "tp" else None
        if point.least is None:
            assert not check(getattr(lpm.estimate(**fields | {point.field: point.most}), phase))
            assert point.reason.startswith("never")
            assert (point.fits, point.extrapolated, point.lasts) == (None, None, False)
            continue
        there = lpm.estimate(**fields | {point.field: point.least})
        assert check(getattr(there, phase)), point
        assert (point.fits, point.extrapolated) == (bool(there.fits), bool(there.extrapolated))
        below = point.least - 1 if step is None else point.least // step
        if below >= 1:
            assert not check(getattr(lpm.estimate(**fields | {point.field: below}), phase)), point


@every_model
def test_questions_of_all_kinds_of_models_are_answered(fields: dict[str, Any]) -> None:
    found = lpm.crossovers(**fields)
    names = {point.name for point in found.points}
    model = lpm.estimate(**fields).case.model
    assert ("pass_compute_batch" in names) == (not model.causal)
    assert ("prefill_compute_len" in names) == isinstance(model, lpm.ModelSpec)
    assert ("decode_compute_batch" in names) == (model.causal and fields.get("output_len") != 1)
    for point in found.points:
        assert (point.least is None) == point.reason.startswith("never")
        assert point.least is None or point.least <= point.most
        assert "{" not in point.text
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["crossovers"][0]["name"] in names


@every_model
def test_parts_add_up_to_the_totals(fields: dict[str, Any]) -> None:
    e = lpm.estimate(**fields)
    for phase in (e.prefill, e.decode):
        parts = [each for _, each in operators(phase)]
        for name in ("compute_s", "memory_s", "comm_s"):
            assert sum(float(getattr(each, name)) for each in parts) == pytest.approx(
                float(getattr(phase.totals, name)), rel=1e-9, abs=1e-15
            )
        moved = sum(float(each.cache_bytes + each.weight_bytes) for each in parts)
        assert moved <= float(phase.hbm_bytes) * (1.0 + 1e-9)


def test_attention_over_a_long_cache_never_turns_compute_bound() -> None:
    never = lpm.crossovers(**MODELS["dense"])["decode_compute_batch"]
    assert (never.least, never.most) == (None, MOST)
    assert never.reason.startswith("never up to 1,048,576: there arithmetic is 0.")
    assert never.reason.endswith("of memory traffic, 100 % of which is attention")


def test_a_model_of_states_attends_to_nothing() -> None:
    found = lpm.crossovers("mamba-2.8b")
    assert found["prefill_attention_len"].reason == "never: no operator attends to tokens"


def test_ideal_products_turn_at_the_ridge_of_the_roofline() -> None:
    """2 FLOP and 2 bytes of weights a sequence: FLOP/s over bytes/s, a little above for activations."""
    found = lpm.crossovers("llama-3.1-8b", engine="ideal", gpu="h100-sxm-80gb")["decode_products_batch"]
    rates = rates_of(lpm.estimate("llama-3.1-8b", engine="ideal", gpu="h100-sxm-80gb"))
    ridge = rates["flops_per_s"] / rates["hbm_bytes_per_s"]
    assert found.least is not None
    assert ridge < found.least < 1.6 * ridge
    assert (found.lasts, found.reason) == (True, "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("decode_compute", "decode_compute: is no crossover of mamba-2.8b; did you mean decode_compute_batch?"),
        ("x", "x: is no crossover of mamba-2.8b; known: decode_compute_batch, decode_products_batch, "),
    ],
)
def test_a_crossover_that_is_none_has_a_near_one(name: str, words: str) -> None:
    with pytest.raises(lpm.RequestError) as raised:
        lpm.crossovers("mamba-2.8b")[name]
    assert str(raised.value).startswith(words)


def test_what_does_not_last_says_where_it_ceases() -> None:
    """Products take whole tiles: two rows of tiles may have less arithmetic to wait for than memory takes again."""
    fields: dict[str, Any] = {"model": "mamba-2.8b"}
    point = lpm.crossovers(**fields)["decode_compute_batch"]
    assert not point.lasts
    ceased = int(point.reason.removeprefix("not everywhere beyond: not at ").replace(",", ""))
    assert point.least is not None
    assert ceased > point.least
    assert not compute_bound(lpm.estimate(**fields, batch_size=ceased).decode)
    assert compute_bound(lpm.estimate(**fields, batch_size=ceased - 1).decode)


def test_a_point_beyond_memory_or_positions_says_so() -> None:
    found = lpm.crossovers(**MODELS["dense"])
    assert found["decode_products_batch"].fits is False
    assert lpm.crossovers(**MODELS["encoder"])["prefill_attention_len"].extrapolated is True
    text = found.report().text(80)
    assert "exceeds the memory" in text
    assert "runs" in text


@given(st.integers(1, 5000).map(float))
def test_the_ladder_is_of_whole_numbers_up_to_the_most(least: float) -> None:
    values = ladder(least)
    assert (values[0], values[-1]) == (least, MOST)
    assert np.array_equal(values, np.round(values))
    assert np.all(np.diff(values) > 0.0)
    assert np.all(np.diff(values) <= np.maximum(0.021 * values[:-1], 1.0) + 1.0)
    assert least > DENSE or np.array_equal(values[values <= DENSE], np.arange(least, DENSE + 1.0))


# One configuration that cannot run, and reports.


@pytest.mark.parametrize("asked", [lpm.sensitivity, lpm.crossovers])
@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"batch_size": [1, 2]}, lpm.RequestError, "batch_size: holds 2 values; "),
        ({"hbm_bytes_per_s": np.ones(3)}, lpm.RequestError, "hbm_bytes_per_s: holds 3 values; "),
        ({"batchsize": 1}, lpm.RequestError, "batchsize: is not a known field; did you mean batch_size?"),
        ({"batch_size": 0}, lpm.RequestError, "batch_size: is 0; must be a whole number of at least 1"),
        ({"gpu": "a100-sxm-41gb"}, lpm.UnknownNameError, "unknown gpu 'a100-sxm-41gb': did you mean a100-sxm-40gb"),
        ({"tp": 3}, lpm.InfeasibleError, "tp = 3 does not divide test-13b"),
    ],
)
def test_what_is_no_configuration_is_refused_in_one_line(
    asked: Callable[..., object], fields: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as raised:
        asked("test-13b", **fields)
    assert str(raised.value).lower().startswith(words.lower())
    assert "\n" not in str(raised.value)


def test_a_model_is_needed() -> None:
    for asked in (lpm.sensitivity, lpm.crossovers):
        with pytest.raises(lpm.RequestError, match=r"^model: is missing"):
            asked(batch_size=2)


def test_a_configuration_that_does_not_fit_is_answered_with_a_remark() -> None:
    for found in (lpm.sensitivity("llama-3.1-70b"), lpm.crossovers("llama-3.1-70b")):
        assert "it does NOT fit the memory" in str(found)
    assert "it exceeds the positions of bert-base" in str(lpm.sensitivity("bert-base-uncased", input_len=600))


@every_model
def test_reports_stay_within_a_terminal(fields: dict[str, Any]) -> None:
    for found in (lpm.sensitivity(**fields), lpm.crossovers(**fields)):
        assert max(map(len, found.report().text(80).splitlines())) <= 80
        assert "<table>" in found._repr_html_()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80)


@pytest.mark.parametrize("command", ["sensitivity", "crossovers"])
def test_the_commands_answer_as_the_library(run: Run, command: str) -> None:
    ran = run(command, "llama-3.1-8b", "--tp", "2", "--batch_size", "4", "--format", "json")
    found = getattr(lpm, command)("llama-3.1-8b", tp=2, batch_size=4)
    assert json.loads(ran.out) == json.loads(json.dumps(found.to_dict()))
    rows = list(csv.DictReader(io.StringIO(run(command, "llama-3.1-8b", "--tp", "2", "--format", "csv").out)))
    assert {row["field"] for row in rows} >= {"batch_size", "input_len"}
    assert run(command, "test-13b", "--format", "markdown").out.startswith("**test-13b on ")


@pytest.mark.parametrize("command", ["sensitivity", "crossovers"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("test-13b", "--batch_size", "1,2"), "batch_size: holds 2 values; "),
        (("test-13b", "--batch_size", "1:4"), "batch_size: is '1:4'; must be a whole number of at least 1"),
        (("--tp", "2"), "model: is missing"),
        (("test-13b", "--tp", "3"), "tp = 3 does not divide test-13b"),
        (("test-13b", "--format", "xml"), "format: is 'xml'"),
    ],
)
def test_the_commands_refuse_in_one_line(run: Run, command: str, given: tuple[str, ...], words: str) -> None:
    ran = run(command, *given)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: {words}")
    assert ran.err.count("\n") == 1
