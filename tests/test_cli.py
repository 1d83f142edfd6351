"""The command line: answers on stdout, one clear line on stderr, and the exit code that says which."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llm_perf_model as lpm
from llm_perf_model.cli import COMMANDS, infer, memory
from llm_perf_model.estimate import MEMORY_PARTS
from llm_perf_model.listing import KINDS
from llm_perf_model.specs.catalog import folder_of, load, names
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.price import PriceSpec, TariffSpec
from llm_perf_model.specs.request import Request

from .running import Ran, Run, runner

ROOT = Path(__file__).resolve().parents[1]
INFER = ("infer", "--model", "test-13b")
MEMORY = ("memory", "--model", "test-13b")
NAMED_FLAGS = ("model", "gpu", "engine", "precision", "link", "price", "tariff")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80)


def _process(*arguments: str) -> Ran:
    command = [sys.executable, "-W", "error", "-m", "llm_perf_model", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def _assert_refused(ran: Ran, *parts: str, code: int = 1, lines: int = 1) -> None:
    """Nothing on stdout, an error of so many lines with these parts in it."""
    assert ran.code == code
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert ran.err.endswith("\n")
    assert len(ran.err.splitlines()) == lines, ran.err
    assert "Traceback" not in ran.err
    for part in parts:
        assert part in ran.err


# Answers.


def test_infer_in_words(run: Run) -> None:
    code, out, err = run(*INFER, "--tp", "2")
    assert (code, err) == (0, "")
    for part in ("test-13b on 2 x NVIDIA A100 40GB SXM4", "prefill", "decode step", "KV cache", "fits"):
        assert part in out


TOP_KEYS = [
    "request", "prefill_s", "decode_step_s", "decode_s", "total_s", "time_per_sample_s", "ttft_s", "tpot_s",
    "throughput_tokens_per_s", "prefill", "decode", "memory", "fits", "max_batch_size", "energy_j",
    "energy_per_token_j", "energy_per_request_j", "power_w", "cost", "interval", "provenance",
]  # fmt: skip
PHASE_KEYS = {"flops", "hbm_bytes", "comm_bytes", "bound", "flops_utilisation", "bandwidth_utilisation"}
MEMORY_KEYS = {*MEMORY_PARTS, "moment"}


def test_json_is_alone_on_stdout_and_has_every_key_of_the_interface(run: Run) -> None:
    code, out, err = run(*INFER, "--format", "json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert set(TOP_KEYS) <= answer.keys()
    assert "breakdown" not in answer
    assert answer["prefill"].keys() == answer["decode"].keys() == PHASE_KEYS
    assert answer["memory"].keys() == MEMORY_KEYS
    assert answer["prefill"]["bound"] in {"compute", "memory", "communication", "host"}
    assert 0 < answer["interval"]["level"] < 1
    for metric in ("prefill_s", "decode_step_s", "total_s"):
        assert answer["interval"][metric].keys() >= {"low", "high", "basis"}
    assert {"files", "coefficients"} <= answer["provenance"].keys()


def test_json_echoes_the_request_with_every_flag_that_changes_the_answer(run: Run) -> None:
    request = json.loads(run(*INFER, "--tp", "2", "--batch_size", "4", "--format", "json").out)["request"]
    flags = set(inspect.signature(infer).parameters) - {"breakdown", "format", "output", "picture"}
    assert request.keys() == flags
    assert (request["model"], request["tp"], request["batch_size"], request["input_len"]) == ("test-13b", 2, 4, 512)


def test_json_is_the_answer_of_the_library(run: Run) -> None:
    answer = json.loads(run(*INFER, "--tp", "2", "--input_len", "100", "--output_len", "7", "--format", "json").out)
    expected = lpm.estimate(model="test-13b", tp=2, input_len=100, output_len=7).to_dict()
    assert answer == json.loads(json.dumps(expected))


def test_json_obeys_its_definitions(run: Run) -> None:
    answer = json.loads(run(*INFER, "--output_len", "11", "--format", "json").out)
    assert answer["ttft_s"] == answer["prefill_s"]
    assert answer["total_s"] == pytest.approx(answer["ttft_s"] + answer["tpot_s"] * 10)
    held = answer["memory"]
    parts = ("weights_bytes", "kv_cache_bytes", "activation_bytes", "reserve_bytes")
    assert held["peak_bytes"] == pytest.approx(sum(held[part] for part in parts))
    assert answer["fits"] is (held["peak_bytes"] <= held["limit_bytes"] <= held["capacity_bytes"])
    assert answer["throughput_tokens_per_s"] == pytest.approx(11 / answer["total_s"])


def test_one_output_token_leaves_the_decode_empty(run: Run) -> None:
    answer = json.loads(run(*INFER, "--output_len", "1", "--format", "json").out)
    assert answer["decode_s"] == answer["tpot_s"] == answer["decode"]["flops"] == 0.0
    assert answer["total_s"] == answer["ttft_s"]


def test_csv_is_one_row_of_the_same_numbers(run: Run) -> None:
    answer = json.loads(run(*INFER, "--format", "json").out)
    (row,) = csv.DictReader(io.StringIO(run(*INFER, "--format", "csv").out))
    assert float(row["total_s"]) == answer["total_s"]
    assert float(row["memory.peak_bytes"]) == answer["memory"]["peak_bytes"]
    assert row["request.model"] == "test-13b"
    assert row["decode.bound"] == answer["decode"]["bound"]


def test_markdown_has_the_tables(run: Run) -> None:
    code, out, err = run(*INFER, "--format", "markdown", "--breakdown", "roles")
    assert (code, err) == (0, "")
    assert out.startswith("**test-13b on ")
    assert "| :-- |" in out


@pytest.mark.parametrize("detail", ["ops", "roles"])
def test_breakdown_adds_up_in_every_format(run: Run, detail: str) -> None:
    answer = json.loads(run(*INFER, "--breakdown", detail, "--format", "json").out)
    rows = list(csv.DictReader(io.StringIO(run(*INFER, "--breakdown", detail, "--format", "csv").out)))
    assert len(rows) == len(answer["breakdown"])
    for phase in ("prefill", "decode"):
        parts = [row for row in answer["breakdown"] if row["phase"] == phase]
        assert sum(row["time_s"] for row in parts) == pytest.approx(answer[f"{phase}_s"])
        assert sum(row["share"] for row in parts) == pytest.approx(1.0)
        for key in ("flops", "hbm_bytes", "comm_bytes"):
            assert sum(row[key] for row in parts) == pytest.approx(answer[phase][key])
        assert sum(float(row["time_s"]) for row in rows if row["phase"] == phase) == pytest.approx(answer[f"{phase}_s"])
    text = run(*INFER, "--breakdown", detail).out
    assert all(row["name"] in text for row in rows)


def test_dashes_and_underscores_of_flags_are_the_same(run: Run) -> None:
    flags = {"batch_size": "2", "input_len": "100", "flops_efficiency": "0.5", "hbm_memory_efficiency": "0.6"}
    flat = [[f"--{flag.replace('_', mark)}", value] for mark in "_-" for flag, value in flags.items()]
    under = [word for pair in flat[:4] for word in pair]
    dashed = [word for pair in flat[4:] for word in pair]
    joined = [f"{flag}={value}" for flag, value in zip(dashed[::2], dashed[1::2], strict=True)]
    answers = {run(*INFER, *given, "--format", "json").out for given in (under, dashed, joined)}
    assert len(answers) == 1


def test_a_model_may_be_given_by_position(run: Run) -> None:
    assert run("infer", "test-13b", "--format", "json").out == run(*INFER, "--format", "json").out


def test_defaults_of_the_flags_are_those_of_a_request() -> None:
    for name, parameter in inspect.signature(infer).parameters.items():
        if name in Request.model_fields and name not in {"model", "precision", "input_len", "output_len"}:
            assert parameter.default == Request.model_fields[name].default
    for command in (infer, memory):
        assert "(default: 32; an encoder: 1)" in str(command.__doc__)
        assert "input_len: prompt tokens of a sequence (default: 512)" in str(command.__doc__)
    assert Request.model_fields["output_len"].default == 32
    assert Request.model_fields["input_len"].default == 512


@pytest.mark.parametrize("shape", ["3,160,160", "3x160x160", "[3,160,160]", "(3, 160, 160)"])
def test_a_network_takes_the_shape_of_a_sample(run: Run, shape: str) -> None:
    for command in ("infer", "memory"):
        code, out, err = run(command, "--model", "resnet18", "--input_shape", shape, "--batch_size", "4")
        assert (code, err) == (0, "")
        assert "batch 4, samples of 3 x 160 x 160" in out
    answer = json.loads(run("infer", "resnet18", "--input_shape", shape, "--format", "json").out)
    assert answer["request"]["input_shape"] == [3, 160, 160]
    assert answer["total_s"] == lpm.estimate("resnet18", input_shape=(3, 160, 160)).total_s


def test_flags_that_a_network_does_not_take(run: Run) -> None:
    _assert_refused(run("infer", "resnet18", "--input_len", "512"), "resnet18 takes samples, not tokens")
    _assert_refused(run("infer", "resnet18", "--output_len", "2"), "resnet18 generates nothing")
    _assert_refused(run("infer", "resnet18", "--tp", "2"), "only tp = 1 and layer_split = 1")
    _assert_refused(run("infer", "resnet18", "--input_shape", "64"), "must be one to three whole numbers")
    _assert_refused(run("infer", "test-13b", "--input_shape", "3,4,4"), "test-13b takes tokens")
    _assert_refused(run("infer", "resnet17"), "unknown network 'resnet17'", "resnet18")


def test_any_spelling_of_names(run: Run) -> None:
    spelled = run("infer", "--model", "TEST_13B", "--gpu", "A100 SXM4 40GB", "--engine", "FT", "--precision", "FP16")
    assert spelled.code == 0
    assert "test-13b on NVIDIA A100 40GB SXM4, fastertransformer, w16a16" in spelled.out


def test_a_path_stands_for_a_name(run: Run) -> None:
    path = str(folder_of(GpuSpec) / "rtx-4090.json")
    by_path = json.loads(
        run(*INFER, "--gpu", path, "--precision", "w16a16", "--model", "opt-1.3b", "--format", "json").out
    )
    by_name = json.loads(run("infer", "opt-1.3b", "--gpu", "rtx-4090", "--format", "json").out)
    assert by_path["total_s"] == by_name["total_s"]


def test_a_number_may_be_written_with_an_exponent(run: Run) -> None:
    assert json.loads(run(*INFER, "--input_len", "1e2", "--format", "json").out)["request"]["input_len"] == 100


# Memory.


def test_memory_in_words(run: Run) -> None:
    code, out, err = run(*MEMORY, "--engine", "vllm", "--tp", "2", "--batch_size", "4")
    assert (code, err) == (0, "")
    for part in (
        "test-13b on 2 x NVIDIA A100 40GB SXM4 (tp 2), vllm, w16a16", "batch 4, 512 tokens in, 32 out", "weights",
        "KV cache", "communication buffers", "captured graphs", "context and libraries", "of which the engine takes",
        "logits of the prefill", "last decode step", "largest batch of these lengths", "longest prompt of this batch",
        "fewest tensor-parallel ranks", "blocks of 16 tokens", "sequences of this length at a time",
    ):  # fmt: skip
        assert part in out
    assert out.endswith("\nfits\n")


def test_memory_in_json_is_the_answer_of_the_library(run: Run) -> None:
    flags = {"engine": "vllm", "tp": 2, "batch_size": 4, "input_len": 100, "output_len": 7, "pool_fraction": 0.5}
    code, out, err = run(*MEMORY, *(f"--{flag}={value}" for flag, value in flags.items()), "--format", "json")
    answer = json.loads(out)
    assert (code, err) == (0, "")
    assert list(answer) == ["request", "memory", "moments", "pool", "fits", "frontier", "what_fits"]
    assert answer == json.loads(json.dumps(lpm.memory("test-13b", **flags).to_dict()))
    assert answer["memory"].keys() == MEMORY_KEYS
    assert {flag: answer["request"][flag] for flag in flags} == flags
    assert answer["memory"]["limit_bytes"] == 0.5 * answer["memory"]["capacity_bytes"]


def test_memory_echoes_every_flag(run: Run) -> None:
    request = json.loads(run(*MEMORY, "--format", "json").out)["request"]
    flags = inspect.signature(memory).parameters.keys() - {"format", "output"}
    assert flags <= request.keys()
    for name in flags - {"model", "precision", "input_len", "output_len"}:
        assert inspect.signature(memory).parameters[name].default == Request.model_fields[name].default


def test_memory_agrees_with_infer(run: Run) -> None:
    flags = ("--engine", "hf-eager", "--batch_size", "4", "--format", "json")
    alone, beside = (json.loads(run(*command, *flags).out) for command in (MEMORY, INFER))
    for key in ("request", "memory", "fits"):
        assert alone[key] == beside[key]
    assert alone["frontier"]["max_batch_size"] == beside["max_batch_size"]


def test_memory_in_csv_is_one_row_of_the_same_numbers(run: Run) -> None:
    answer = json.loads(run(*MEMORY, "--engine", "vllm", "--format", "json").out)
    (row,) = csv.DictReader(io.StringIO(run(*MEMORY, "--engine", "vllm", "--format", "csv").out))
    assert float(row["memory.peak_bytes"]) == answer["memory"]["peak_bytes"]
    assert float(row["moments.logits"]) == answer["moments"]["logits"]
    assert float(row["pool.concurrency"]) == answer["pool"]["concurrency"]
    assert float(row["frontier.max_input_len"]) == answer["frontier"]["max_input_len"]
    assert (row["request.model"], row["what_fits.gpu"]) == ("test-13b", answer["what_fits"]["gpu"])


def test_memory_in_markdown_has_the_tables(run: Run) -> None:
    code, out, err = run(*MEMORY, "--engine", "vllm", "--format", "markdown")
    assert (code, err) == (0, "")
    assert out.startswith("**test-13b on ")
    assert out.count("| :-- | --: |") == 4
    for heading in ("memory per device", "moment", "frontier", "pool"):
        assert f"| {heading} |" in out


@pytest.mark.parametrize("form", ["text", "json", "csv", "markdown"])
def test_memory_of_what_does_not_fit_is_an_answer(run: Run, form: str) -> None:
    code, out, err = run(*MEMORY, "--batch_size", "400", "--format", form)
    assert (code, err) == (0, "")
    if form == "json":
        answer = json.loads(out)
        assert answer["fits"] is False
        assert (answer["what_fits"]["batch_size"], answer["what_fits"]["tp"]) == (30, 8)
    elif form == "csv":
        (row,) = csv.DictReader(io.StringIO(out))
        assert (row["fits"], row["frontier.max_batch_size"]) == ("False", "30.0")
    else:
        assert "what fits: a batch of 30, prompts of 14, tp 8" in " ".join(out.split())


def test_memory_of_several_points(run: Run) -> None:
    answer = json.loads(run(*MEMORY, "--batch_size", "[1,400]", "--format", "json").out)
    assert answer["fits"] == [True, False]
    assert len(answer["frontier"]["max_input_len"]) == len(answer["memory"]["peak_bytes"]) == 2
    assert "fits at 50% of the points; at the worst: " in run(*MEMORY, "--batch_size", "[1,400]").out


def test_memory_to_a_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    printed = run(*MEMORY, "--format", "json").out
    assert run(*MEMORY, "--format", "json", "--output", str(path)) == (0, f"written: {path}\n", "")
    assert path.read_text(encoding="utf-8") == printed


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--tp", "3"), ("tp = 3 does not divide test-13b", "possible: 1, 2, 4, 5, 8")),
        (("--layer_split", "41"), ("layer_split = 41 exceeds the 40 layers",)),
        (("--tp", "2", "--layer_split", "2"), ("tp and layer_split exclude each other",)),
        (("--batch_size", "0"), ("batch_size: is 0; must be a whole number of at least 1",)),
        (("--input_len", "1.5"), ("input_len: is 1.5; must be a whole number of at least 1",)),
        (("--output_len", "x"), ("output_len: is 'x'; must be a whole number of at least 1",)),
        (("--pool_fraction", "0"), ("pool_fraction: is 0; must be a number above 0 and at most 1",)),
        (("--pool_fraction", "1.1"), ("pool_fraction: is 1.1; must be a number above 0 and at most 1",)),
        (("--pool_fraction", "[0.5,1]"), ("pool_fraction: is [0.5, 1]; must be a number above 0 and at most 1",)),
        (("--pool_fraction",), ("pool_fraction: is True",)),
        (("--gpu", "a100-sxm-41gb"), ("unknown GPU 'a100-sxm-41gb'", "a100-sxm-40gb")),
        (("--engine", "vlm"), ("unknown engine 'vlm'", "vllm")),
        (("--batch_size", "[1,2]", "--input_len", "[1,2,3]"), ("batch_size", "input_len", "broadcast")),
    ],
)
def test_memory_refuses(run: Run, flags: tuple[str, ...], parts: tuple[str, ...]) -> None:
    _assert_refused(run(*MEMORY, *flags), *parts)


def test_memory_needs_a_model(run: Run) -> None:
    _assert_refused(run("memory"), "model: is missing")


# Out of memory.


@pytest.mark.parametrize("flags", [("--format", "json"), ("--format=json",)])
def test_what_does_not_fit_is_told_as_json(run: Run, flags: tuple[str, ...]) -> None:
    code, out, err = run(*INFER, "--batch_size", "400", *flags)
    told = json.loads(out)
    assert code == 1
    assert err == f"error: {told.pop('error')}\n"
    with pytest.raises(lpm.OutOfMemoryError) as caught:
        lpm.estimate("test-13b", batch_size=400).require_feasible()
    assert told == caught.value.detail
    assert (told["model"], told["batch_size"], told["fits"]) == ("test-13b", 400, False)
    assert told["peak_bytes"] - told["limit_bytes"] == pytest.approx(told["shortfall_bytes"])
    assert told["what_fits"]["batch_size"] == 30


@pytest.mark.parametrize("form", ["text", "csv", "markdown"])
def test_what_does_not_fit_leaves_the_other_forms_empty(run: Run, form: str) -> None:
    _assert_refused(run(*INFER, "--batch_size", "400", "--format", form), "what fits: ")


def test_another_refusal_is_no_json(run: Run) -> None:
    _assert_refused(run(*INFER, "--tp", "3", "--format", "json"), "does not divide")
    _assert_refused(run(*INFER, "--input_len", "3000", "--format", "json"), "2048 positions")


@pytest.mark.parametrize("change", ["batch_size", "tp", "precision", "gpu"])
def test_what_is_said_to_fit_does(run: Run, change: str) -> None:
    flags = ("--batch_size", "60")
    found = json.loads(run(*INFER, *flags, "--format", "json").out)["what_fits"][change]
    assert found
    assert run(*INFER, *flags).code == 1
    assert run(*INFER, *flags, f"--{change}", str(found)).code == 0


def test_process_tells_what_does_not_fit_as_json() -> None:
    code, out, err = _process(*INFER, "--batch_size", "400", "--format", "json")
    assert code == 1
    assert err == f"error: {json.loads(out)['error']}\n"


# Power and price.


def _answer(run: Run, *flags: str) -> dict[str, Any]:
    ran = run(*INFER, *flags, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_a_power_limit_bounds_the_power_and_takes_time(run: Run) -> None:
    free, bound = _answer(run), _answer(run, "--power_limit_w", "200")
    assert bound["request"]["power_limit_w"] == 200.0
    assert bound["power_w"] <= 200.0 * (1.0 + 1e-9) < free["power_w"]
    assert bound["total_s"] > free["total_s"]
    assert _answer(run, "--power_limit_w", "400")["total_s"] == free["total_s"]


def test_energy_by_design_power(run: Run) -> None:
    answer = _answer(run, "--energy_convention", "tdp", "--tp", "2")
    assert answer["energy_j"] == pytest.approx(2 * 400.0 * answer["total_s"])
    assert answer["power_w"] == pytest.approx(800.0)


def test_a_price_given(run: Run) -> None:
    answer = _answer(run, "--usd_per_gpu_hour", "3.6", "--tp", "2", "--batch_size", "4")
    cost, total_s = answer["cost"], answer["total_s"]
    assert cost["usd_per_hour"] == 7.2
    assert cost["usd"] == pytest.approx(2 * total_s * 1e-3)
    assert cost["usd_per_request"] == pytest.approx(cost["usd"] / 4)
    assert cost["usd_per_million_input_tokens"] == pytest.approx(2 * answer["prefill_s"] * 1e-3 / (4 * 512) * 1e6)
    assert cost["price"] == {
        "usd_per_gpu_hour": 3.6, "usd_per_kwh": 0.0, "pue": 1.0, "utilisation": 1.0, "origin": "given"
    }  # fmt: skip


@pytest.mark.parametrize("flags", [("--price", "aws"), ("--price", "aws", "--utilisation", "0.5")])
def test_a_listed_price(run: Run, flags: tuple[str, ...]) -> None:
    cost, offer = _answer(run, *flags)["cost"], load(PriceSpec, "aws").offers["a100-sxm-40gb"]
    utilisation = float(flags[3]) if len(flags) > 2 else 1.0
    assert cost["price"]["usd_per_gpu_hour"] == offer.usd_per_hour
    assert cost["price"]["origin"] == f"{load(PriceSpec, 'aws').title}, {offer.date}"
    assert cost["usd_per_hour"] == pytest.approx(offer.usd_per_hour / utilisation)


def test_the_lowest_listed_price_is_the_default(run: Run) -> None:
    lists = [load(PriceSpec, name).offers for name in names(PriceSpec)]
    lowest = min(offers["a100-sxm-40gb"].usd_per_hour for offers in lists if "a100-sxm-40gb" in offers)
    assert _answer(run)["cost"]["price"]["usd_per_gpu_hour"] == lowest
    ran = run(*INFER, "--price", "crusoe")
    _assert_refused(ran, "price crusoe has no offer of a100-sxm-40gb; lists that have one: aws, lambda")


def test_electricity_beside_the_price(run: Run) -> None:
    tariff = load(TariffSpec, "us-commercial")
    answer = _answer(run, "--usd_per_gpu_hour", "0", "--tariff", "us-commercial")
    assert answer["cost"]["usd"] == pytest.approx(answer["energy_j"] / 3.6e6 * tariff.pue * tariff.usd_per_kwh)
    given = ("--usd_per_gpu_hour", "0", "--tariff", "us-commercial", "--usd_per_kwh", "0.5", "--pue", "2")
    assert _answer(run, *given)["cost"]["usd"] == pytest.approx(answer["energy_j"] / 3.6e6)


def test_prices_in_words(run: Run) -> None:
    out = run(*INFER, "--usd_per_gpu_hour", "3.6").out
    for part in ("energy per output token", "mean power of all devices", "a million output tokens", "$3.6"):
        assert part in out
    assert "(design power x time)" in run(*INFER, "--energy_convention", "tdp").out


AT_LEAST_0 = "must be a number of at least 0"
SHARE = "must be a number above 0 and at most 1"


@pytest.mark.parametrize(
    ("flag", "value", "part"),
    [
        *(("usd_per_gpu_hour", value, AT_LEAST_0) for value in ("-1", "x", "[1,2]", "inf")),
        *(("usd_per_kwh", value, AT_LEAST_0) for value in ("-1", "x", "[1,2]", "inf")),
        *(("pue", value, "must be a number of at least 1") for value in ("0.9", "-1", "x", "nan")),
        *(("utilisation", value, SHARE) for value in ("0", "-1", "1.1", "x", "[1]")),
        *(("pool_fraction", value, SHARE) for value in ("0", "-1", "1.1", "x", "[1]")),
        *(("power_limit_w", value, "must be a number of watts above 0") for value in ("0", "-5", "x", "nan", "[1,2]")),
        *(("energy_convention", value, "must be power or tdp") for value in ("tpd", "POWER", "3", "")),
    ],
)
def test_a_power_or_a_price_that_is_none(run: Run, flag: str, value: str, part: str) -> None:
    _assert_refused(run(*INFER, f"--{flag}", value), f"{flag}: is ", part)


@pytest.mark.parametrize("value", ["10", "73", "401"])
def test_a_power_limit_that_the_device_cannot_hold(run: Run, value: str) -> None:
    ran = run(*INFER, "--power_limit_w", value)
    _assert_refused(ran, f"power_limit_w = {value}: must be above 73.6 W", "at most 400 W")


# Lists and entries.


def test_there_is_a_list_of_powers_prices_and_tariffs(run: Run) -> None:
    assert {"powers", "prices", "tariffs"} <= KINDS.keys()
    assert "records" in run("list", "powers").out
    assert "$ per hour" in run("list", "prices").out
    assert "$ per kWh" in run("list", "tariffs").out


def test_a_name_of_several_kinds_follows_the_word_of_its_list(run: Run) -> None:
    assert run("show", "ampere").out == run("show", "kernels/ampere").out != run("show", "powers/ampere").out
    _assert_refused(run("show", "powers/amper"), "unknown", "ampere")
    _assert_refused(run("show", "prices/ampere"), "unknown price 'ampere'")
    _assert_refused(run("show", "powerz/ampere"), "powerz/ampere")


@pytest.mark.parametrize("word", list(KINDS))
def test_list(run: Run, word: str) -> None:
    kind = KINDS[word][0]
    code, out, err = run("list", word)
    assert (code, err) == (0, "")
    assert out.startswith(f"{len(names(kind))} {word}\n")
    assert all(name in out for name in names(kind))
    assert [row["name"] for row in json.loads(run("list", word, "--format", "json").out)[word]] == list(names(kind))
    assert [row["name"] for row in csv.DictReader(io.StringIO(run("list", word, "--format", "csv").out))] == list(
        names(kind)
    )
    assert run("list", word, "--format", "markdown").out.count("\n| ") >= len(names(kind))


def test_list_without_a_kind_is_of_models(run: Run) -> None:
    assert run("list").out == run("list", "models").out


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("test-13b", "hidden"),
        ("resnet18", "multiply_adds"),
        ("a5000", "tdp_w"),
        ("fastertransformer", "memory_ratio"),
        ("ideal", "gemm_compute_efficiency"),
        ("w16a16", "kv_bytes"),
        ("nvlink-3", "bytes_per_s"),
        (str(folder_of(GpuSpec) / "rtx-4090.json"), "peak_flops_per_s.tensor_fp16"),
        ("powers/ampere", "idle_fraction"),
        ("kernels/ampere", "attention.query_rows"),
        ("powers/hopper", "like"),
        ("lambda", "offers.a100-sxm-40gb.usd_per_hour"),
        ("prices/aws", "offers.t4-pcie-16gb.date"),
        ("us-commercial", "usd_per_kwh"),
        ("tariffs/eu-non-household", "pue"),
        ("fabric", "buffer_bytes"),
        ("deepspeed-inference", "workspace.max_tokens"),
    ],
)
def test_show(run: Run, name: str, field: str) -> None:
    code, out, err = run("show", name)
    assert (code, err) == (0, "")
    assert field in out
    assert "where the numbers come from" in out
    assert json.loads(run("show", name, "--format", "json").out)["title"]
    assert run("show", "--name", name).out == out


# Help.


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda given: "".join(given) or "all")
def test_help(run: Run, command: list[str]) -> None:
    code, out, err = run(*command, "--help")
    assert code == 0
    text = out + err
    assert "Traceback" not in text
    wanted = inspect.signature(COMMANDS[command[0]]).parameters if command else COMMANDS
    assert [name for name in wanted if name not in text and name.upper() not in text] == []


@pytest.mark.parametrize("command", list(COMMANDS))
def test_short_help(run: Run, command: str) -> None:
    code, out, err = run(command, "-h")
    assert code == 0
    assert not any(line.lower().startswith("error") for line in err.splitlines())
    assert "format" in out + err


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_flag_is_described(command: str) -> None:
    doc = inspect.getdoc(COMMANDS[command]) or ""
    described = [line.strip().split(":")[0] for line in doc.split("Args:")[1].splitlines() if ": " in line]
    assert described == list(inspect.signature(COMMANDS[command]).parameters)


def test_no_command_shows_the_commands(run: Run) -> None:
    code, out, err = run()
    assert code in {0, 2}
    assert all(command in out + err for command in COMMANDS)


# Refusals.


@pytest.mark.parametrize(
    ("flag", "wrong", "near"),
    [
        ("model", "test-13c", "test-13b"),
        ("gpu", "a100-sxm-41gb", "a100-sxm-40gb"),
        ("engine", "fastertransfomer", "fastertransformer"),
        ("precision", "w16a17", "w16a16"),
        ("link", "nvlink-33", "nvlink-3"),
        ("price", "awss", "aws"),
        ("tariff", "us-comercial", "us-commercial"),
    ],
)
def test_unknown_name_gets_a_near_one(run: Run, flag: str, wrong: str, near: str) -> None:
    word = "GPU" if flag == "gpu" else flag
    _assert_refused(run(*INFER, f"--{flag}", wrong), f"unknown {word} '{wrong}'", "did you mean", near, f"list {flag}s")


@pytest.mark.parametrize("flag", NAMED_FLAGS)
@pytest.mark.parametrize("value", ["70", "1.5", "qqqqzzzz", "", "[1,2]", "{'a':1}", "(1,)"])
def test_a_name_that_is_none(run: Run, flag: str, value: str) -> None:
    ran = run(*INFER, f"--{flag}", value)
    _assert_refused(ran)
    assert flag in ran.err.lower()
    assert ("must be a name" if value[:1] in {"[", "{", "("} else "unknown") in ran.err


WHOLE = "must be a whole number of at least 1"


@pytest.mark.parametrize("flag", ["batch_size", "input_len", "output_len", "tp", "pp", "dp", "ep", "num_beams"])
@pytest.mark.parametrize("value", ["0", "-4", "1.5", "abc", "nan", "1e400", "[]", "{}", "True", "", "[1,0]"])
def test_a_count_that_is_none(run: Run, flag: str, value: str) -> None:
    _assert_refused(run(*INFER, f"--{flag}", value), f"{flag}: is ", WHOLE)


@pytest.mark.parametrize("flag", ["batch_size", "input_len", "output_len", "dp"])
def test_a_count_too_large_for_a_float(run: Run, flag: str) -> None:
    ran = run(*INFER, f"--{flag}", "9" * 400)
    _assert_refused(ran, flag)
    assert len(ran.err) < 300


@pytest.mark.parametrize("flag", ["tp", "pp", "dp", "ep", "num_beams"])
@pytest.mark.parametrize("value", ["[1,2]", "1,2", "(1,2)"])
def test_a_list_where_one_number_is_wanted(run: Run, flag: str, value: str) -> None:
    _assert_refused(run(*INFER, f"--{flag}", value), f"{flag}: is ", WHOLE)


@pytest.mark.parametrize("flag", ["flops_efficiency", "hbm_memory_efficiency"])
@pytest.mark.parametrize("value", ["1.5", "0", "-1", "x", "nan", "[0.5,2]", "True"])
def test_an_efficiency_that_is_none(run: Run, flag: str, value: str) -> None:
    _assert_refused(run(*INFER, f"--{flag}", value), f"{flag}: is ", "must be a number above 0 and at most 1")


def test_several_wrong_fields_are_told_together(run: Run) -> None:
    ran = run(*INFER, "--tp", "0", "--batch_size", "-1", "--flops_efficiency", "2")
    _assert_refused(ran, "tp: ", "batch_size: ", "flops_efficiency: ")


@pytest.mark.parametrize("tp", ["3", "6", "7", "80"])
def test_tp_that_does_not_divide_the_heads(run: Run, tp: str) -> None:
    _assert_refused(
        run(*INFER, "--tp", tp), f"tp = {tp} does not divide test-13b", "40 heads", "possible: 1, 2, 4, 5, 8"
    )


def test_tp_beyond_a_node_asks_for_the_network(run: Run) -> None:
    given = ("infer", "llama-2-7b", "--gpu", "a100-pcie-40gb", "--tp", "16")
    _assert_refused(run(*given), "16 devices are more than one node of a100-pcie-40gb", "--link")
    assert run(*given, "--link", "infiniband-hdr-200g").code == 0


def test_layouts_are_flags(run: Run) -> None:
    staged = run(*INFER, "--pp", "2", "--micro_batches", "1")
    assert (staged.code, "(pp 2)" in staged.out) == (0, True)
    apart = run("infer", "mixtral-8x7b", "--gpu", "h100", "--attention_dp", "8", "--ep", "8", "--batch_size", "8")
    assert (apart.code, "8 x NVIDIA H100" in apart.out) == (0, True)
    assert run("memory", "llama-2-70b", "--gpu", "h100", "--tp", "2", "--sequence_parallel", "--nodes", "2").code == 0
    _assert_refused(run(*INFER, "--ep", "2"), "ep = 2 does not divide the 1 ranks of a stage", "possible: 1")


def test_length_past_the_positions_of_the_model(run: Run) -> None:
    assert run(*INFER, "--input_len", "2016", "--output_len", "32").code == 0
    _assert_refused(run(*INFER, "--input_len", "2017", "--output_len", "32"), "2049 tokens", "2048 positions")


def test_more_memory_than_the_card_has(run: Run) -> None:
    ran = run(*INFER, "--batch_size", "400")
    _assert_refused(ran, "GiB too much", "a100-sxm-40gb", "39.4 GiB", "what fits: a batch of 30, ", "tp 8")
    assert run(*INFER, "--batch_size", "30").code == 0
    assert run(*INFER, "--batch_size", "31").code == 1


def test_not_even_one_sequence_fits(run: Run) -> None:
    ran = run("infer", "llama-3.1-405b")
    _assert_refused(ran, "llama-3.1-405b needs 757 GiB on each a100-sxm-40gb", "GiB too much", "what fits: tp 32")
    assert "a batch of" not in ran.err


def test_a_batch_beyond_all_bounds_is_refused_in_finite_words(run: Run) -> None:
    ran = run(*INFER, "--batch_size", "1e300")
    _assert_refused(ran, "batch_size" if "too much" not in ran.err else "too much")
    assert "inf " not in ran.err


def test_precision_that_the_card_lacks(run: Run) -> None:
    ran = run("infer", "opt-1.3b", "--gpu", "v100-sxm-32gb", "--precision", "bf16")
    _assert_refused(ran, "v100-sxm-32gb cannot run precision bf16", "tensor_bf16", "tensor_fp16")


def test_lists_that_do_not_broadcast(run: Run) -> None:
    _assert_refused(run(*INFER, "--batch_size", "[1,2]", "--input_len", "[1,2,3]"), "batch_size", "input_len")


def test_missing_model(run: Run) -> None:
    _assert_refused(run("infer"), "model: is missing")


def test_missing_name_of_show(run: Run) -> None:
    ran = run("show")
    _assert_refused(ran, "name", code=ran.code if ran.code in {1, 2} else 1)


@pytest.mark.parametrize("flag", NAMED_FLAGS)
def test_a_name_flag_without_a_value(run: Run, flag: str) -> None:
    _assert_refused(run(*INFER, f"--{flag}"), f"{flag}: is given without a value")


@pytest.mark.parametrize(
    "flag",
    [
        "tp", "batch_size", "flops_efficiency", "pool_fraction", "power_limit_w", "energy_convention",
        "usd_per_gpu_hour", "usd_per_kwh", "pue", "utilisation", "breakdown", "format", "output", "picture",
    ],
)  # fmt: skip
def test_another_flag_without_a_value(run: Run, flag: str) -> None:
    _assert_refused(run(*INFER, f"--{flag}"), f"{flag}: ")


@pytest.mark.parametrize("command", [INFER, MEMORY, ("list", "gpus"), ("show", "t4")])
@pytest.mark.parametrize("value", ["xml", "JSON", "3", "", "jsn"])
def test_unknown_format(run: Run, command: tuple[str, ...], value: str) -> None:
    _assert_refused(run(*command, "--format", value), "format: is ", "text, json, csv or markdown")


def test_unknown_breakdown(run: Run) -> None:
    _assert_refused(run(*INFER, "--breakdown", "op"), "breakdown: is 'op'", "ops or roles", "did you mean ops?")


@pytest.mark.parametrize(("word", "near"), [("modles", "models"), ("gpu", "gpus"), ("zzz", "")])
def test_unknown_kind_of_list(run: Run, word: str, near: str) -> None:
    _assert_refused(
        run("list", word),
        "kind: is ",
        ", ".join(list(KINDS)[:-1]) + f" or {list(KINDS)[-1]}",
        near and f"did you mean {near}?",
    )


def test_show_of_an_unknown_name(run: Run) -> None:
    _assert_refused(run("show", "a100-sxm-41gb"), "a100-sxm-40gb")
    _assert_refused(run("show", "qqqqzzzz"), "nothing in the catalogue is called 'qqqqzzzz'")


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ((*INFER, "--batchsize", "3"), "--batch_size"),
        ((*INFER, "--flop_efficiency=0.5"), "--flops_efficiency"),
        ((*INFER, "--modle", "x"), "--model"),
        ((*INFER, "--no-breakdown"), "--breakdown"),
        (("list", "gpus", "--formt", "json"), "--format"),
        (("show", "--nme", "t4"), "--name"),
        ((*MEMORY, "--batchsize", "3"), "--batch_size"),
        ((*MEMORY, "--pool_fractoin", "0.5"), "--pool_fraction"),
        (("infre", "--model", "test-13b"), "infer"),
        (("memry", "--model", "test-13b"), "memory"),
        (("lst",), "list"),
        (("shwo", "t4"), "show"),
    ],
)
def test_mistyped_flag_or_command_names_the_near_one(run: Run, given: tuple[str, ...], near: str) -> None:
    _assert_refused(run(*given), f"did you mean {near}?", code=2)


@pytest.mark.parametrize(
    "given",
    [
        (*INFER, "--zzz", "3"),
        ("zzz",),
        ("",),
        ("-x",),
        ("--version-of-what",),
        (*INFER, "-z", "3"),
        (*INFER, "-", "nosuch"),
        (*MEMORY, "--dp", "2"),
        (*MEMORY, "--zzz", "2"),
    ],
)
def test_unknown_flag_or_command_runs_nothing(run: Run, given: tuple[str, ...]) -> None:
    _assert_refused(run(*given), "unknown", code=2)


# Files.


def _file(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> str:
    data = json.loads((folder_of(GpuSpec) / "a100-sxm-40gb.json").read_text(encoding="utf-8"))
    change(data)
    path = tmp_path / "card.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return str(path)


def test_broken_json(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text("{", encoding="utf-8")
    _assert_refused(run(*INFER, "--gpu", str(path)), f"{path}: is no GPU file", "JSON")


def test_missing_field(run: Run, tmp_path: Path) -> None:
    ran = run(*INFER, "--gpu", _file(tmp_path, lambda data: data.pop("tdp_w")))
    _assert_refused(ran, "1 problem in this GPU file", "tdp_w: ", lines=2)


def test_unknown_field(run: Run, tmp_path: Path) -> None:
    ran = run(*INFER, "--gpu", _file(tmp_path, lambda data: data.update(hbm_gb=40)))
    _assert_refused(ran, "1 problem in this GPU file", "hbm_gb: ", lines=2)


def test_sparse_peak(run: Run, tmp_path: Path) -> None:
    path = _file(tmp_path, lambda data: data["peak_flops_per_s"].update(tensor_fp16=624e12))
    _assert_refused(run(*INFER, "--gpu", path), "peak_flops_per_s.tensor_fp16: ", "sparse", lines=2)


def test_several_problems_of_a_file_have_a_line_each(run: Run, tmp_path: Path) -> None:
    path = _file(tmp_path, lambda data: data.update(tdp_w="400", sms=0, colour="green"))
    _assert_refused(run(*INFER, "--gpu", path), "3 problems", "tdp_w: ", "sms: ", "colour: ", lines=4)


def test_a_file_with_an_unknown_link(run: Run, tmp_path: Path) -> None:
    path = _file(tmp_path, lambda data: data["scale_up"].update(link="nvlink-33"))
    assert run(*INFER, "--gpu", path).code == 0
    _assert_refused(run(*INFER, "--gpu", path, "--tp", "2"), "unknown link 'nvlink-33'", "nvlink-3")


@pytest.mark.parametrize("flag", NAMED_FLAGS)
def test_missing_file_and_folder(run: Run, flag: str, tmp_path: Path) -> None:
    _assert_refused(run(*INFER, f"--{flag}", str(tmp_path / "none.json")), "none.json", "no such")
    reason = "cannot be read: Is a directory" if flag in {"price", "tariff"} else "holds no config.json"
    _assert_refused(run(*INFER, f"--{flag}", str(tmp_path)), reason)


def test_a_path_below_the_home_of_nobody(run: Run) -> None:
    _assert_refused(run(*INFER, "--gpu", "~nobody-is-called-so/card.json"), "nobody-is-called-so")
    _assert_refused(run(*INFER, "--output", "~nobody-is-called-so/out.txt"), "nobody-is-called-so")


# Output files.


def test_output_writes_the_file_and_says_so(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    printed = run(*INFER, "--format", "json").out
    code, out, err = run(*INFER, "--format", "json", "--output", str(path))
    assert (code, out, err) == (0, f"written: {path}\n", "")
    assert path.read_text(encoding="utf-8") == printed


def test_output_replaces_an_older_file_and_leaves_nothing_else(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "answer.txt"
    path.write_text("old" * 10_000, encoding="utf-8")
    assert run("list", "links", "--output", str(path)).code == 0
    assert path.read_text(encoding="utf-8").startswith("30 links") or "old" not in path.read_text(encoding="utf-8")
    assert [entry.name for entry in tmp_path.iterdir()] == ["answer.txt"]


def test_output_has_the_permissions_of_any_new_file(run: Run, tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.touch()
    assert run(*INFER, "--output", str(tmp_path / "answer.txt")).code == 0
    assert (tmp_path / "answer.txt").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("place", ["none/answer.txt", "folder", "file/answer.txt", "a" * 300])
def test_output_that_cannot_be_written(run: Run, tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    _assert_refused(run(*INFER, "--output", str(tmp_path / place)), "output ", "cannot be written")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_refused_request_leaves_no_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "answer.txt"
    _assert_refused(run(*INFER, "--tp", "3", "--output", str(path)))
    _assert_refused(run(*INFER, "--format", "xml", "--output", str(path)))
    assert run(*INFER, "--batch_size", "400", "--format", "json", "--output", str(path)).code == 1
    assert list(tmp_path.iterdir()) == []


# In a process of its own.


def test_process_answers_in_json() -> None:
    code, out, err = _process(*INFER, "--tp", "2", "--format", "json")
    assert (code, err) == (0, "")
    assert json.loads(out)["request"]["tp"] == 2


@pytest.mark.parametrize(
    ("given", "code"), [((*INFER, "--tp", "3"), 1), ((*INFER, "--batchsize", "3"), 2), (("infre",), 2), (("infer",), 1)]
)
def test_process_exits_with_the_code(given: tuple[str, ...], code: int) -> None:
    _assert_refused(_process(*given), code=code)


def test_process_shows_help() -> None:
    code, out, err = _process("infer", "--help")
    assert code == 0
    assert "--batch_size" in out + err


def test_process_survives_a_reader_that_leaves() -> None:
    command = f'"{sys.executable}" -W error -m llm_perf_model list models | head -1'
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ)
    assert (done.stdout, done.stderr) == (f"{len(names(ModelSpec))} models\n", "")


def test_a_first_letter_stands_for_the_only_flag_that_it_starts(run: Run) -> None:
    assert run("infer", "test-13b", "-g=a100-sxm-80gb") == run(*INFER, "--gpu", "a100-sxm-80gb")
    assert run(*INFER, "-k", "fp8").code == 0  # one flag starts with k: --kv_dtype
    assert run(*MEMORY, "-k", "fp8") == run(*MEMORY, "--kv_dtype", "fp8")
    _assert_refused(run(*INFER, "-t", "1"), "unknown flag '-t' of infer", code=2)  # --tp or --tariff
    _assert_refused(run(*INFER, "-e", "ideal"), "unknown flag '-e' of infer", code=2)  # --engine or --ep
