"""Language models as modules with random weights: what they hold, what their passes do, and the command on this
processor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import llm_perf_model as lpm
from llm_perf_model import cli
from llm_perf_model.errors import RequestError
from llm_perf_model.importers.written import text_of
from llm_perf_model.measuring.configs import config_of
from llm_perf_model.specs.attention import GroupedQueryAttention
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.ffn import GatedFfn
from llm_perf_model.specs.model import LayerGroup, ModelSpec
from llm_perf_model.validation.records import Record, read

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from llm_perf_model.measuring.backends import backend_named  # noqa: E402
from llm_perf_model.measuring.device import Processor, device_of  # noqa: E402
from llm_perf_model.measuring.environment import environment  # noqa: E402
from llm_perf_model.measuring.language import Language, built, weights_of  # noqa: E402
from llm_perf_model.measuring.method import Method  # noqa: E402
from llm_perf_model.measuring.precisions import precision_of  # noqa: E402
from llm_perf_model.measuring.trials import Trial  # noqa: E402

BRIEF = Method(warmup=1, repeats_least=1, repeats_most=1, budget_s=0.1)


def families() -> list[str]:
    """A model of each family that can be built, the smallest one."""
    found: dict[str, ModelSpec] = {}
    for name in names(ModelSpec):
        model = load(ModelSpec, name)
        try:
            family = config_of(model)["model_type"]
        except RequestError:
            continue
        if family not in found or model.parameters < found[family].parameters:
            found[family] = model
    return sorted(model.name for model in found.values())


@pytest.mark.parametrize("name", families())
def test_a_module_has_the_weights_of_the_model_file(name: str) -> None:
    """Within the 1 % that model files meet their published counts by, and not one byte is made for it."""
    model = load(ModelSpec, name)
    module = built(model, "meta", torch.bfloat16)
    assert weights_of(module) == pytest.approx(model.parameters, rel=0.01)
    assert {weights.device.type for weights in module.parameters()} == {"meta"}
    assert {weights.dtype for weights in module.parameters()} == {torch.bfloat16}


def tiny(**changes: Any) -> ModelSpec:
    """A decoder of 0.3 million weights."""
    llama = load(ModelSpec, "llama-3.2-1b")
    layer = LayerGroup(
        count=2,
        attention=GroupedQueryAttention(heads=4, kv_heads=2, head_dim=16),
        ffn=GatedFfn(intermediate=128, activation="silu"),
    )
    sizes = {"name": "tiny", "hidden": 64, "vocab": 1000, "layers": (layer,), "max_positions": 512}
    return llama.model_copy(update=sizes | changes)


def language(model: ModelSpec, precision: str = "fp32", backend: str = "eager") -> Language:
    return Language(model, Processor(), precision_of(precision), backend_named(backend))


def test_a_prefill_scores_the_last_token_and_a_forward_pass_all() -> None:
    subject = language(tiny())
    assert subject.prepared(Trial("prefill", 3, 20, 1)).call().shape == (3, 1, 1000)
    assert subject.prepared(Trial("forward", 3, 20, 1)).call().shape == (3, 20, 1000)


@pytest.mark.parametrize("name", ["tiny", "gemma-3-270m"])
def test_each_step_finds_the_cache_of_the_prefill(name: str) -> None:
    small = {"vocab": 1000, "hidden": 64}
    model = tiny() if name == "tiny" else _shrunk(load(ModelSpec, name), small)
    subject = language(model)
    call, restart = subject.prepared(Trial("decode", 2, 40, 2))
    assert restart is not None
    seen = []
    for _ in range(3):
        restart()
        seen.append(call())
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2])
    further = call()  # without a restart, the step sees one token more
    assert not torch.equal(seen[0], further)


def _shrunk(model: ModelSpec, sizes: dict[str, int]) -> ModelSpec:
    groups = []
    for group in model.layers:
        attention = group.attention.model_copy(update={"heads": 2, "kv_heads": 1, "head_dim": 32, **_window(group)})  # type: ignore[union-attr]
        ffn = group.ffn.model_copy(update={"intermediate": 96})  # type: ignore[union-attr]
        groups.append(group.model_copy(update={"attention": attention, "ffn": ffn, "count": 2}))
    return model.model_copy(update={**sizes, "layers": tuple(groups)})


def _window(group: LayerGroup) -> dict[str, int]:
    assert isinstance(group.attention, GroupedQueryAttention)
    return {} if group.attention.window_tokens is None else {"window_tokens": 16}


def test_a_step_computes_what_a_longer_prefill_does() -> None:
    subject = language(tiny())
    ids = torch.randint(0, 1000, (1, 12))
    with torch.inference_mode():
        whole = subject.module(ids).logits[:, -1]
        from llm_perf_model.measuring.language import _Step  # the step alone, on tokens of our own

        cached = subject.module(ids[:, :-1], use_cache=True)
        step = _Step(subject.module, cached, encodes=False)
        assert torch.allclose(step.run(ids[:, -1:])[:, -1], whole, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_generation_makes_all_its_tokens(beams: int) -> None:
    made = language(tiny()).prepared(Trial("generate", 2, 10, 7, beams)).call()
    assert made.shape == (2, 17)


def test_an_encoder_decoder_reads_with_one_and_writes_with_the_other() -> None:
    model = load(ModelSpec, "t5-small")
    assert model.encoder is not None
    few = model.model_copy(
        update={
            "vocab": 500,
            "layers": tuple(group.model_copy(update={"count": 1}) for group in model.layers),
            "encoder": model.encoder.model_copy(
                update={"layers": tuple(group.model_copy(update={"count": 1}) for group in model.encoder.layers)}
            ),
        }
    )
    subject = language(few)
    assert subject.prepared(Trial("prefill", 2, 9, 1)).call().shape == (2, 1, 500)
    step = subject.prepared(Trial("decode", 2, 9, 2))
    assert step.call().shape == (2, 1, 500)
    assert subject.prepared(Trial("generate", 2, 9, 4)).call().shape == (2, 1 + 4)


def test_precisions_keep_what_they_say() -> None:
    assert {each.dtype for each in language(tiny(), "bf16").module.parameters()} == {torch.bfloat16}
    assert {each.dtype for each in language(tiny(), "bf16", "autocast").module.parameters()} == {torch.float32}
    assert language(tiny(), "bf16", "autocast").prepared(Trial("forward", 1, 4, 1)).call().dtype == torch.bfloat16


def test_dense_layers_of_8_bits_are_those_of_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output keeps its width; a layer that only pretends to be narrow shows which ones are replaced."""

    class Narrow(torch.nn.Linear):  # type: ignore[misc, name-defined]
        def __init__(self, d_in: int, d_out: int, bias: bool, has_fp16_weights: bool) -> None:
            super().__init__(d_in, d_out, bias, dtype=torch.float16)
            assert not has_fp16_weights

    def values(weights: Any, requires_grad: bool, has_fp16_weights: bool) -> Any:
        assert not requires_grad and not has_fp16_weights
        return torch.nn.Parameter(weights, requires_grad=False)

    package = SimpleNamespace(Linear8bitLt=Narrow, Int8Params=values)
    monkeypatch.setitem(sys.modules, "bitsandbytes", SimpleNamespace(nn=package))
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", package)
    module = language(tiny(), "int8").module
    assert isinstance(module.lm_head, torch.nn.Linear) and not isinstance(module.lm_head, Narrow)
    dense = [part for part in module.model.modules() if isinstance(part, torch.nn.Linear)]
    assert len(dense) == 2 * 7 and all(isinstance(part, Narrow) for part in dense)
    assert module(torch.zeros(1, 3, dtype=torch.long)).logits.shape == (1, 3, 1000)


def test_without_the_package_of_8_bits_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_perf_model.measuring.precisions.find_spec", lambda _: None)
    with pytest.raises(RequestError, match=r"^precision int8: needs the package bitsandbytes: pip install"):
        precision_of("int8").check(Processor())


def test_a_precision_of_products_lasts_as_long_as_it_is_wanted() -> None:
    before = torch.get_float32_matmul_precision()
    with precision_of("tf32").products_of():
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(RequestError, match=r"^precision: the processor has no tf32; give fp32, bf16 or fp16$"):
        precision_of("tf32").check(Processor())


def test_a_traced_module_computes_the_same() -> None:
    model = tiny()
    subject = language(model)
    traced = Language.__new__(Language)
    traced.__dict__ = {**subject.__dict__, "_backend": backend_named("torchscript")}
    trial = Trial("forward", 2, 8, 1)
    assert torch.allclose(traced.prepared(trial).call(), subject.prepared(trial).call(), atol=1e-4)


@pytest.mark.parametrize("word", ["gpu", "xpu:1", ""])
def test_a_device_that_is_not_there_is_one_line(word: str) -> None:
    with pytest.raises(RequestError, match=r"^device: .*; give .*cpu$"):
        device_of(word)


def test_the_environment_is_written_down() -> None:
    told = environment(Processor())
    assert told["torch"] == torch.__version__ and told["transformers"] == transformers.__version__
    assert {"python", "device", "processor", "cores", "threads", "date"} <= told.keys()


def test_the_command_measures_and_validate_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "tiny.json", tmp_path / "r.csv"
    model.write_text(text_of(tiny()))
    flags = ["--device", "cpu", "--gpu", "ryzen-9-5950x", "--warmup", "1", "--repeats_most", "2", "--output", str(out)]
    grid = ["--batch_size", "1:2:x2", "--input_len", "8", "--output_len", "3", "--tasks", "prefill,decode,generate"]
    assert cli.main(["measure", "--model", str(model), *flags, *grid]) == 0
    said = capsys.readouterr().out
    assert said.startswith("tiny on ") and said.endswith(f"written: {out}\n")
    records = [each for each in read(out) if isinstance(each, Record)]
    assert [each.metric for each in records] == ["prefill_ms", "decode_ms_per_token", "total_ms"] * 2
    assert all(each.value and each.value > 0 for each in records)
    longest = {each.batch: each.value for each in records if each.metric == "total_ms"}
    assert longest.keys() == {1, 2}
    assert {each.model for each in records} == {str(model)}
    assert lpm.validate([str(out)]).data["scored"] == 6  # a path stands where a name of the catalogue could


def test_measured_records_calibrate_an_engine(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    model, out = tmp_path / "tiny.json", str(tmp_path / "r.csv")
    model.write_text(text_of(tiny()))
    grid: dict[str, Any] = {"batch_size": [1, 4], "input_len": [16, 64], "output_len": 4}
    lpm.measure(str(model), device="cpu", gpu="ryzen-9-5950x", output=out, method=BRIEF, **grid)
    engine = str(tmp_path / "here.json")
    assert (
        cli.main(["calibrate", "--records", out, "--engine", "pytorch-cpu", "--name", "here", "--output", engine]) == 0
    )
    (after,) = lpm.validate([out], engine=engine).data["errors"]["source"]
    assert after["n"] == 12 == load(EngineSpec, engine).fits[0].rows  # how well it fits, a busy machine does not tell


def test_the_loop_runs_from_records_to_left_out_errors(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    script = Path(__file__).parents[1] / "examples" / "measure_loop" / "measure_loop.py"
    model = tmp_path / "tiny.json"
    model.write_text(text_of(tiny()))
    flags = ["--device", "cpu", "--gpu", "ryzen-9-5950x", "--decoder", "tiny.json", "--network", "custom-cnn"]
    lengths = ["--input_len", "8,16", "--output_len", "2", "--folder", "found"]
    grid = ["--batch_size", "1,2", "--network_batch_size", "1,2", *lengths]
    done = subprocess.run(
        [sys.executable, str(script), *flags, *grid], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    head, decoder, network = done.stdout.splitlines()
    assert head.split() == ["what", "rows", "before", "fitted", "on", "left", "out", "worst"]
    assert decoder.split()[:2] == ["tiny.json", "12"] and network.split()[:2] == ["custom-cnn", "2"]
    halves = [[*read(tmp_path / "found" / f"tiny.json-{half}.csv")] for half in ("known", "unknown")]
    assert [len(half) for half in halves] == [6, 6]
