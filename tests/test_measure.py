"""Models timed on this machine: configs of families, grids, memory, records, resumption, and the command."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llm_perf_model as lpm
from llm_perf_model import cli
from llm_perf_model.errors import RequestError
from llm_perf_model.measuring import run
from llm_perf_model.measuring.backends import backend_named
from llm_perf_model.measuring.configs import config_of
from llm_perf_model.measuring.language import engine_of, left_out
from llm_perf_model.measuring.method import Method, Timing
from llm_perf_model.measuring.outcomes import Failure
from llm_perf_model.measuring.precisions import PRECISIONS, precision_of
from llm_perf_model.measuring.room import Room, gpu_of
from llm_perf_model.measuring.rows import Setting, key_of, rows_of
from llm_perf_model.measuring.trials import Grid, Prepared, Trial, tasks_of
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.validation.mapping import map_record
from llm_perf_model.validation.records import Record, read

from .fake_device import FakeDevice

BRIEF = Method(warmup=1, repeats_least=2, repeats_most=2, budget_s=1.0)


def spec(name: str) -> ModelSpec:
    return load(ModelSpec, name)


# A model file as the config of a family.


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("llama-3.2-1b", "llama"), ("mistral-7b-v0.1", "mistral"), ("qwen2.5-0.5b", "qwen2"), ("qwen3-0.6b", "qwen3"),
        ("gemma-2b", "gemma"), ("gemma-2-2b", "gemma2"), ("gemma-3-270m", "gemma3_text"), ("gpt2-small", "gpt2"),
        ("gpt2-mqa-24l-2048h", "gpt_bigcode"), ("gpt-neo-125m", "gpt_neo"), ("gpt-neox-20b", "gpt_neox"),
        ("gpt-j-6b", "gptj"), ("opt-125m", "opt"), ("opt-350m", "opt"), ("bloom-560m", "bloom"),
        ("bloom-24l-2048h", "bloom"), ("falcon-7b", "falcon"), ("mixtral-8x7b", "mixtral"), ("bert-base", "bert"),
        ("roberta-base", "roberta"), ("distilbert-base", "distilbert"), ("t5-small", "t5"), ("flan-t5-base", "t5"),
        ("bart-base", "bart"), ("phi-2", "phi"), ("starcoder2-3b", "starcoder2"),
    ],
)  # fmt: skip
def test_a_model_becomes_a_config_of_its_family(name: str, family: str) -> None:
    assert config_of(spec(name))["model_type"] == family


def test_a_config_holds_the_sizes_of_the_model() -> None:
    assert config_of(spec("llama-3.2-1b")) == {
        "model_type": "llama", "hidden_size": 2048, "vocab_size": 128256, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192, "hidden_act": "silu",
        "max_position_embeddings": 131072, "tie_word_embeddings": True, "head_dim": 64, "attention_bias": False,
        "mlp_bias": False,
    }  # fmt: skip


def test_most_of_the_catalogue_can_be_built() -> None:
    """A ratchet: 226 of the first 332 models are read back as they are."""
    assert sum(_builds(spec(name)) for name in names(ModelSpec)) >= 226


def _builds(model: ModelSpec) -> bool:
    try:
        return bool(config_of(model))
    except RequestError:
        return False


@pytest.mark.parametrize("name", ["mamba-130m", "deepseek-v3", "whisper-tiny"])
def test_another_family_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(RequestError, match=f"^{name}: its layers are those of no family .* models of llama, mistral"):
        config_of(spec(name))


def test_a_changed_layer_is_never_built_as_another() -> None:
    llama = spec("llama-3.2-1b")
    group = llama.layers[0]
    attention = group.attention.model_copy(update={"sinks": True})  # type: ignore[union-attr]
    with pytest.raises(RequestError, match="no family"):
        config_of(llama.model_copy(update={"layers": (group.model_copy(update={"attention": attention}),)}))


# Grids.


def test_a_grid_has_each_trial_once() -> None:
    grid = Grid.of({"batch_size": "1:4:x2", "input_len": [8, 16], "output_len": "1,4", "num_beams": 1})
    trials = list(grid.trials(("prefill", "decode", "generate")))
    assert len(trials) == len(set(trials)) == 3 * 2 * 3  # generate of one token is the prefill
    assert trials[:3] == [Trial("prefill", 1, 8, 1), Trial("decode", 1, 8, 2), Trial("generate", 1, 8, 4)]
    assert {trial.output_len for trial in trials if trial.task == "decode"} == {2}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch_size: is 0"),
        ({"batch_size": "8:1"}, "batch_size: is '8:1', an empty range"),
        ({"input_len": "a,b"}, "input_len: 'a' is no number"),
        ({"output_len": 1.5}, "output_len: is 1.5"),
    ],
)
def test_wrong_axes_are_refused(fields: dict[str, Any], message: str) -> None:
    usual = {"batch_size": 1, "input_len": 8, "output_len": 2, "num_beams": 1}
    with pytest.raises(RequestError) as error:
        Grid.of(usual | fields)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_wrong_words_are_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match=r"^precision: 'fp61' cannot be measured; give fp32.*did you mean fp16\?$"):
        precision_of("fp61")
    with pytest.raises(RequestError, match=r"^tasks: 'decod' is none .* did you mean decode\?$"):
        tasks_of("prefill,decod", ("prefill", "decode"), ("prefill",))
    with pytest.raises(RequestError, match=r"^backend onnxruntime: runs no language models"):
        engine_of(backend_named("onnxruntime"), FakeDevice(), "prefill")
    assert left_out(backend_named("torchscript"), "decode") == "keeps no cache"
    assert left_out(backend_named("torchscript"), "forward") is None


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"repeats_most": 0}, "repeats_most: is 0; must be a whole number of at least 1"),
        ({"warmup": -1}, "warmup: is -1; must be a whole number of at least 0"),
        ({"budget_s": "long"}, "budget_s: is 'long'; must be a number above 0"),
        ({"spread": True}, "spread: is True; must be a number above 0"),
    ],
)
def test_wrong_limits_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=f"^{message}$"):
        Method.of(**limits)


# Memory, before anything is allocated.


class SmallDevice(FakeDevice):
    def __init__(self, total_bytes: float, accelerates: bool) -> None:
        super().__init__()
        self._total_bytes, self._accelerates = int(total_bytes), accelerates

    @property
    def total_bytes(self) -> int:
        return self._total_bytes

    @property
    def accelerates(self) -> bool:
        return self._accelerates


def test_weights_that_are_larger_than_the_memory_are_refused() -> None:
    room = Room(spec("llama-3.1-8b"), "ryzen-9-5950x", SmallDevice(16 * 2**30, accelerates=False))
    with pytest.raises(RequestError, match=r"^llama-3.1-8b: its weights in fp32 take 29\.9 GiB, but fake device has"):
        room.has("fp32", "pytorch-cpu", Trial("prefill", 1, 16, 1))


def test_a_processor_skips_what_a_card_tries() -> None:
    large = Trial("prefill", 512, 8192, 1)
    for accelerates, gpu, engine in ((False, "ryzen-9-5950x", "pytorch-cpu"), (True, "a100-sxm-80gb", "hf-eager")):
        room = Room(spec("llama-3.2-1b"), gpu, SmallDevice(2**34, accelerates))
        assert room.has("fp32", engine, Trial("prefill", 1, 16, 1))
        assert room.has("fp32", engine, large) is accelerates
        assert len(room.notes) == (not accelerates)


def test_a_number_format_that_the_device_file_lacks_is_no_reason_to_fill_the_memory() -> None:
    """The file of the processor computes in 32 bits alone; another tells what 16 bits take."""
    room = Room(spec("llama-3.2-1b"), "ryzen-9-5950x", SmallDevice(2**34, accelerates=False))
    assert room.has("bf16", "pytorch-cpu", Trial("prefill", 1, 16, 1))
    assert not room.has("bf16", "pytorch-cpu", Trial("prefill", 4096, 8192, 1))


def test_positions_beyond_the_model_are_skipped() -> None:
    room = Room(spec("gpt2-small"), "a100-sxm-80gb", SmallDevice(2**40, accelerates=True))
    assert not room.has("fp32", "hf-eager", Trial("prefill", 1, 2000, 1))
    assert room.notes == ("skipped: 1 with more tokens than the positions of gpt2-small",)


def test_a_device_without_a_file_is_called_by_its_own_name() -> None:
    assert gpu_of(FakeDevice(), None)[1] == "fake device"
    assert gpu_of(FakeDevice(), "h100-sxm-80gb") == ("h100-sxm-80gb", "h100-sxm-80gb")


# Records.

SETTING = Setting("llama-3.2-1b", "h100-sxm-80gb", "bf16", "eager")


def written(tmp_path: Path, *rows: Any) -> list[Record]:
    path = tmp_path / "rows.csv"
    whole = [{**row, "extra": json.dumps(row["extra"])} for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, whole[0].keys() | whole[-1].keys())
        writer.writeheader()
        writer.writerows(whole)
    records = list(read(path))
    assert all(isinstance(record, Record) for record in records), records
    return records  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("trial", "metrics"),
    [
        (Trial("prefill", 4, 512, 1), ["memory_gib", "energy_j_per_request", "prefill_ms"]),
        (Trial("decode", 4, 512, 2), ["decode_ms_per_token"]),
        (Trial("generate", 4, 512, 64, 3), ["memory_gib", "energy_j_per_request", "total_ms"]),
        (Trial("forward", 4, 512, 1), ["memory_gib", "energy_j_per_request", "prefill_ms"]),
    ],
)
def test_each_record_is_one_that_an_estimate_answers(tmp_path: Path, trial: Trial, metrics: list[str]) -> None:
    timing = Timing(0.5, 0.4, 0.6, 7, energy_j=80.0, peak_allocated_bytes=2**33, peak_reserved_bytes=2**34)
    rows = list(rows_of(SETTING, trial, "hf-dynamic-cache", timing, {"power_limit_w": 700.0}, "torch 2.13.0"))
    assert [row["metric"] for row in rows] == metrics
    for record in written(tmp_path, *rows):
        mapped = map_record(record)
        answer = lpm.estimate(**mapped.request)
        assert float(mapped.read(answer)) > 0.0
        assert (answer.workload.batch_size, answer.workload.input_len) == (4.0, 512.0)
        assert answer.workload.output_len == trial.output_len
        assert answer.request.num_beams == trial.num_beams
        if record.metric == "memory_gib":
            assert mapped.read(answer) == answer.memory.allocated_bytes  # not with what the driver takes
    assert rows[-1]["value"] == 500.0
    if len(rows) > 1:
        assert (rows[0]["value"], rows[1]["value"]) == (8.0, 20.0)


def test_the_key_of_a_record_is_that_of_its_trial() -> None:
    for trial in (Trial("prefill", 4, 512, 1), Trial("generate", 4, 512, 64, 3), Trial("pass", 8)):
        for result in (Timing(0.5, 0.4, 0.6, 7), Failure("oom", "full")):
            row = list(rows_of(SETTING, trial, "e", result, {}, ""))[-1]
            assert key_of(row) == SETTING.key(trial)
            assert key_of(
                {**{k: "" if v is None else str(v) for k, v in row.items()}, "extra": json.dumps(row["extra"])}
            ) == SETTING.key(trial)


@pytest.mark.parametrize(
    ("backend", "w_dtype", "precision"),
    [
        ("autocast", "fp16", "fp16-autocast"),
        ("eager", "fp16", "w16a16"),
        ("autocast", "bf16", "bf16-autocast"),
        ("eager", "int8", "llm-int8"),
        ("eager", "tf32", "tf32"),
    ],
)
def test_records_say_their_precision(tmp_path: Path, backend: str, w_dtype: str, precision: str) -> None:
    setting = SETTING._replace(backend=backend, precision=w_dtype)
    (record,) = written(tmp_path, *rows_of(setting, Trial("decode", 1, 16, 2), "hf-eager", Timing(1, 1, 1, 1), {}, ""))
    assert map_record(record).request["precision"] == precision
    way = run.Way(PRECISIONS[w_dtype], backend_named(backend))
    assert way.estimated == precision


# A run, with a module and a device that only pretend.


class FakeSubject:
    """Fails for want of memory above a batch of 2."""

    made = 0

    def __init__(self, *_: Any) -> None:
        pass

    def engine(self, _trial: Trial) -> str:
        return "hf-dynamic-cache"

    def prepared(self, trial: Trial) -> Prepared:
        if trial.batch_size > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 TiB")
        type(self).made += 1
        return Prepared(lambda: None)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Plain:
        """A precision changes nothing of torch here."""

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    FakeSubject.made = 0
    monkeypatch.setattr(run, "Language", FakeSubject)
    monkeypatch.setattr(run, "device_of", lambda _: FakeDevice([0.25], power_w=100.0, peak_bytes=2**30))
    monkeypatch.setattr(run, "environment", lambda _: {"torch": "9.9", "date": "2026-11-22"})
    monkeypatch.setattr(run.Way, "check", lambda *_: None)
    monkeypatch.setattr(run.Precision, "products_of", lambda _: Plain())
    yield


MEASURE = {"gpu": "h100-sxm-80gb", "precision": "bf16", "batch_size": [1, 2, 4], "input_len": 64, "output_len": 8}


@pytest.mark.usefixtures("pretended")
def test_memory_that_runs_out_is_a_record_and_the_grid_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    found = lpm.measure("llama-3.2-1b", output=str(path), method=BRIEF, **MEASURE)
    records = [record for record in read(path) if isinstance(record, Record)]
    assert len(records) == len(found.records) == 2 * 7 + 3
    assert {record.batch for record in records if record.outcome == "oom"} == {4}
    assert found.made == 9 and "oom, 3 of 17: CUDA out of memory. Tried to allocate 1 TiB" in str(found)
    assert str(found).startswith("llama-3.2-1b on fake device: 9 measured\n")
    assert all(len(line) <= 80 for line in str(found).splitlines())


@pytest.mark.usefixtures("pretended")
def test_tasks_that_a_backend_does_not_run_are_left_out_with_why() -> None:
    found = lpm.measure("llama-3.2-1b", backend="eager,compile", method=BRIEF, **{**MEASURE, "batch_size": [1, 2]})
    assert found.made == 6 + 4
    assert found.notes == ("skipped: 2 of generate, for compile compiles each length of a cache anew",)
    with pytest.raises(RequestError, match=r"^tasks: skipped: 3 of decode, for torchscript keeps no cache; give other"):
        lpm.measure("llama-3.2-1b", backend="torchscript", tasks="decode", **MEASURE)


@pytest.mark.usefixtures("pretended")
def test_a_run_that_breaks_off_goes_on_without_repeating(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    lpm.measure("llama-3.2-1b", output=str(path), method=BRIEF, **{**MEASURE, "batch_size": 1})
    first, made = path.read_bytes(), FakeSubject.made
    path.write_bytes(first + b"llm-perf-model measure,,,half a li")
    again = lpm.measure("llama-3.2-1b", output=str(path), method=BRIEF, **MEASURE)
    assert path.read_bytes().startswith(first)
    assert again.made == 6 and FakeSubject.made == made + 3  # batch 4 never gets as far
    assert "6 measured, 3 of an earlier run" in str(again)
    assert lpm.measure("llama-3.2-1b", output=str(path), method=BRIEF, **MEASURE).made == 0


@pytest.mark.usefixtures("pretended")
def test_an_interruption_is_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.csv"

    def interrupted(_subject: Any, trial: Trial) -> Prepared:
        if trial.batch_size == 2:
            raise KeyboardInterrupt
        return Prepared(lambda: None)

    monkeypatch.setattr(FakeSubject, "prepared", interrupted)
    flags = ["--gpu", "h100-sxm-80gb", "--batch_size", "1,2", "--input_len", "64", "--output", str(path)]
    assert cli.main(["measure", "--model", "llama-3.2-1b", *flags]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "", f"error: interrupted: {path} is whole, and the same command goes on\n"
    )  # fmt: skip
    assert {record.batch for record in read(path) if isinstance(record, Record)} == {1}


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "llama-3.2-1b", "--tasks", "decod"], "tasks: 'decod' is none of this model; give prefill"),
        (["--model", "llama-3.2-1b", "--precision", "fp7"], "precision: 'fp7' cannot be measured; give fp32"),
        (["--model", "llama-3.2-1b", "--backend", "eagre"], "backend: 'eagre' is none; did you mean eager?"),
        (["--model", "llama-3.2-1b", "--batch_size", "0"], "batch_size: is 0"),
        (["--model", "llama-3.2-1b", "--gpu", "h1000"], "unknown"),
        (["--model", "llama-3.2-1b", "--output", "/no/such/place/r.csv"], "output /no/such/place/r.csv: cannot be"),
        (["--model", "llama-3.2-1b", "--output"], "output: needs the name of a file"),
        (["--model", "llama-3.2-1b", "--tasks", "generate", "--output_len", "1"], "tasks: generate makes more than"),
        (["--model", "mamba-130m", "--repeats_most", "0"], "repeats_most: is 0; must be a whole number"),
        ([], "model: is missing; give a name"),
        (["--model", "lama-3.2-1b"], "unknown model 'lama-3.2-1b'"),
    ],
)
def test_bad_input_is_one_line(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["measure", *flags]) == 1
    said = capsys.readouterr()
    assert said.out == "" and message in said.err and said.err.count("\n") == 1, said.err


def test_without_the_package_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["measure", "--model", "llama-3.2-1b"]) == 1
    expected = "error: measuring needs the package torch: pip install 'llm-perf-model[measure]'\n"
    assert capsys.readouterr().err == expected
