"""Encoder-decoders: an encoder's pass, its keys once, and cross-attention in each step, through the same walk."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.case import make_case
from llm_perf_model.generate import Phase, decode, prefill
from llm_perf_model.graph.stack import build, parameters
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.node import Graph, running
from llm_perf_model.peak import memory
from llm_perf_model.rates import Machine
from llm_perf_model.roofline import Run, totals
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.layout import LayoutSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .running import Run as Command
from .running import runner
from .strategies import TPS, encoder_decoders, engines, gpus, machines, precisions_on, spec_parameters, wholes

HALF = load(PrecisionSpec, "w16a16")
IDEAL = load(EngineSpec, "ideal")
GIVEN: dict[str, Any] = {"gpu": "a100-sxm-40gb", "engine": "hf-eager", "batch_size": 4, "input_len": 96}
COMMAND = (
    "infer", "--model", "t5-base", "--gpu", "rtx-3080ti", "--engine", "hf-eager", "--batch_size", "4",
    "--input_len", "100", "--output_len", "100", "--num_beams", "4",
)  # fmt: skip

PUBLISHED = {
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "flan-t5-base": 247_577_856,
    "flan-t5-large": 783_150_080,
    "bart-base": 139_420_416,
    "bart-large": 406_291_456,
}
"""Parameters of the checkpoints, tied tables once; each model file names its page."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    return runner(capsys, monkeypatch, 80)


def estimate(model: str = "t5-base", **options: Any) -> lpm.Estimate:
    return lpm.estimate(model, **(GIVEN | {"output_len": 40} | options))


# Weights.


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameters_are_those_of_the_checkpoints(name: str, count: int) -> None:
    model = load(ModelSpec, name)
    assert model.parameters == count
    assert parameters(build(model, IDEAL, HALF, 1)) == count


@given(encoder_decoders(), engines())
def test_parameters_are_those_of_the_description(model: ModelSpec, engine: EngineSpec) -> None:
    assert parameters(build(model, engine, HALF, 1)) == spec_parameters(model)


@given(encoder_decoders(), engines(), st.sampled_from(TPS))
def test_names_are_unique_and_say_the_stack(model: ModelSpec, engine: EngineSpec, tp: int) -> None:
    graph = build(model, engine, HALF, tp, beams=2)
    assert len({node.name for node in graph}) == len(graph)
    for node in graph:
        assert node.name.startswith("encoder." if node.runs == "encoder" else "decoder."), node.name
    assert {node.name.rpartition(".")[2] for node in running(graph, "first")} <= {
        "cross_kv", "cross_kv_bias", "cross_kv_layout", "cross_kv_narrowing"
    }  # fmt: skip


@given(encoder_decoders(windowed=False), st.sampled_from(TPS), wholes(1, 8), wholes(1, 60))
def test_work_of_the_ranks_sums_to_the_whole(model: ModelSpec, tp: int, batch: float, source: float) -> None:
    """Where every rank has key heads of its own; biases and tables are split too."""
    kv_heads = [group.attention.kv_heads for group in model.groups]
    kv_heads += [group.cross_attention.kv_heads for group in model.layers if group.cross_attention]
    plain = all(group.ffn.kind != "moe" for group in model.groups)
    shared = min(kv_heads) % tp == 0 and plain
    whole, part = (product_flops(build(model, IDEAL, HALF, ranks), batch, source) for ranks in (1, tp))
    assert tp * part == whole if shared else tp * part >= whole


def product_flops(graph: Graph, batch_size: float, source: float) -> float:
    """FLOPs of products and attention in a first decoder step and its encoder's pass."""
    step, read = Batch.uniform(batch_size, 1.0, 0.0, source), Batch.uniform(batch_size, source, 0.0)
    return float(
        sum(
            node.count * node.cost(read if node.runs == "encoder" else step).flops
            for node in graph
            if node.op.kind in {"gemm", "expert_gemm", "attention"}
        )
    )


# Work, step by step.


def small(**changed: Any) -> dict[str, Any]:
    """A T5 whose heads are wider together than its hidden state."""
    attention = {"heads": 4, "kv_heads": 4, "head_dim": 8}
    layer = {"count": 2, "attention": attention, "ffn": {"kind": "plain", "intermediate": 40, "activation": "relu"}}
    return {
        "name": "small",
        "title": "Small",
        "assumed": [{"fields": ["*"], "reason": "small enough to count by hand"}],
        "hidden": 24,
        "vocab": 64,
        "position": "relative",
        "position_buckets": 32,
        "norm": "rmsnorm",
        "tied_embeddings": True,
        "layers": [layer | {"cross_attention": attention, "norms": 3}],
        "encoder": {"layers": [layer]},
        "parameters": 64 * 24 + 2 * 32 * 4 + 2 * (24 * 32 * 12 + 2 * 2 * 24 * 40) + (2 * 5 + 2) * 24,
    } | changed


def spec(**changed: Any) -> ModelSpec:
    return ModelSpec.model_validate_json(json.dumps(small(**changed)))


HIDDEN, WIDTH, INNER, VOCAB, LAYERS = 24, 4 * 8, 40, 64, 2
ATTENTION, FFN = 4 * HIDDEN * WIDTH, 2 * HIDDEN * INNER
"""Weights of an attention block, of which half make keys and values, and of a feed-forward block."""


class Count(NamedTuple):
    """Multiply-adds twice, and values of weights and of caches that products and attention move."""

    flops: int
    weights: int
    kv_values: int


def of_encoder(batch: int, source: int) -> Count:
    """Keys and values are written and read."""
    flops = kv_values = 0
    for _layer, _token in product(range(LAYERS), range(batch * source)):
        flops += 2 * (ATTENTION + FFN) + 2 * 2 * source * WIDTH
        kv_values += 2 * 2 * WIDTH
    return Count(flops, LAYERS * (ATTENTION + FFN), kv_values)


def of_step(step: int, batch: int, source: int) -> Count:
    """One token of each sequence behind `step` others; the first step makes keys and values of the source."""
    flops, kv_values, weights = batch * 2 * HIDDEN * VOCAB, 0, HIDDEN * VOCAB
    for _layer in range(LAYERS):
        weights += ATTENTION + ATTENTION // 2 + (step == 0) * ATTENTION // 2 + FFN
        for _sequence in range(batch):
            flops += 2 * (ATTENTION + ATTENTION // 2 + FFN) + (step == 0) * source * 2 * ATTENTION // 2
            flops += 2 * 2 * (step + 1 + source) * WIDTH
            kv_values += 2 * (step + 1 + 1 + source) * WIDTH
    return Count(flops, weights, kv_values)


def of_phase(phase: Phase) -> Count:
    """The same of the model, which counts 16-bit values."""
    works = [work for works in phase.works() for work in works if work.node.op.kind in {"gemm", "attention"}]
    sums = (
        float(np.sum([getattr(work.cost, name) for work in works])) for name in ("flops", "weight_bytes", "kv_bytes")
    )
    flops, weight_bytes, kv_bytes = sums
    return Count(int(flops), int(weight_bytes / 2), int(kv_bytes / 2))


def added(counts: Iterable[Count]) -> Count:
    return Count(*(sum(column) for column in zip(Count(0, 0, 0), *counts, strict=True)))


@pytest.mark.parametrize(("batch", "source", "outputs"), [(1, 1, 1), (1, 7, 2), (3, 5, 9), (2, 17, 4)])
def test_work_is_that_of_a_loop_over_layers_steps_and_sequences(batch: int, source: int, outputs: int) -> None:
    graph, m = build(spec(), IDEAL, HALF, 1), estimate(engine="ideal").case.machine
    steps = [of_step(step, batch, source) for step in range(outputs)]
    first = prefill(graph, m, float(batch), float(source))
    assert first.encoder is not None
    assert of_phase(first.encoder) == of_encoder(batch, source)
    assert of_phase(first) == added([of_encoder(batch, source), steps[0]])
    assert of_phase(decode(graph, m, float(batch), float(source), outputs - 1.0)) == added(steps[1:])


@given(encoder_decoders(), engines(), machines(), wholes(1, 12), wholes(1, 120), wholes(0, 40))
def test_a_decode_is_the_sum_of_its_steps(
    model: ModelSpec, engine: EngineSpec, m: Machine, batch: float, source: float, steps: float
) -> None:
    graph = build(model, engine, HALF, 1)
    whole = decode(graph, m, batch, source, steps).totals
    later = running(graph, "always")
    each = [totals(later, m, [Run.single(Batch.uniform(batch, 1.0, 1.0 + i, source))]) for i in range(int(steps))]
    for name in ("flops", "hbm_bytes", "start_s", "overhead_s", "time_s"):
        assert getattr(whole, name) == pytest.approx(sum(getattr(part, name) for part in each), rel=1e-9), name


def test_an_encoder_reads_each_prompt_once_whatever_the_beams() -> None:
    one, four = estimate(), estimate(num_beams=4)
    assert one.prefill.encoder is not None
    assert four.prefill.encoder is not None
    assert four.prefill.encoder.totals == one.prefill.encoder.totals
    assert four.prefill.flops > one.prefill.flops
    assert {node.name for node in four.case.graph} - {node.name for node in one.case.graph} == {
        "decoder.beam_scores", "decoder.cache_reorder", "decoder.cross_reorder"
    }  # fmt: skip


def test_time_of_a_prefill_is_that_of_the_encoder_and_a_step() -> None:
    e = estimate(engine="ideal")
    assert e.prefill.encoder is not None
    graph, m = e.case.graph, e.case.machine
    encoder = totals(running(graph, "encoder"), m, [Run.single(Batch.uniform(4.0, 96.0, 0.0))])
    step = totals(running(graph, "first", "always"), m, [Run.single(Batch.uniform(4.0, 1.0, 0.0, 96.0))])
    assert e.prefill_s == pytest.approx(encoder.time_s + step.time_s, rel=1e-12)
    assert e.prefill.encoder.time_s == pytest.approx(encoder.time_s, rel=1e-12)


def test_layers_of_both_stacks_take_time_of_the_host() -> None:
    """T5 has as many in each; the encoder's pass is no step of its own."""
    slow = load(EngineSpec, "ideal").model_copy(update={"layer_s": 1.0, "step_s": 0.25, "kind": "eager"})
    e = lpm.estimate("t5-base", engine=slow, gpu="a100-sxm-40gb")
    assert e.prefill_s == pytest.approx(12 + 12 + 0.25, rel=1e-2)
    assert e.decode_step_s == pytest.approx(12 + 0.25, rel=1e-2)


# Caches.

TOKEN_BYTES = 2 * 12 * 768 * 2
"""Keys and values of 12 layers of T5 base in 16 bits, of its own tokens or of those of its encoder."""


@pytest.mark.parametrize(
    ("engine", "beams", "tokens"),
    [
        ("fastertransformer", 1, 4 * 41 + 4 * 96),
        ("fastertransformer", 3, 12 * 41 + 12 * 96),
        ("vllm", 1, 4 * 48 + 4 * 96),
        ("vllm", 3, 4 * (16 + 3 * 48) + 4 * 96),
        ("hf-eager", 1, 4 * (39 + 40) + 4 * 96),
        ("hf-eager", 3, 12 * (39 + 39 + 40) + 12 * (96 + 96)),
    ],
)
def test_cache_by_hand(engine: str, beams: int, tokens: float) -> None:
    """4 sequences of 96 tokens read and 40 written behind a start token; vLLM in blocks of 16, prompts shared.

    A cache that grows by concatenation is there before and after, and before it was gathered where there is a search.
    """
    e = estimate(engine=engine, num_beams=beams)
    assert e.memory.kv_cache_bytes == pytest.approx(tokens * TOKEN_BYTES, rel=1e-12)


def test_an_encoders_pass_may_be_the_peak() -> None:
    """A long input and one output: scores of the encoder, in 16 bits with their bias, are alive three times."""
    e = estimate(input_len=2048, output_len=1, batch_size=8)
    assert str(e.memory.moment) == "prefill"
    assert e.memory.activation_bytes >= 8 * 12 * 2048**2 * 2 * 3


@given(encoder_decoders(), engines(), st.data(), wholes(1, 20), wholes(1, 200), wholes(2, 60))
def test_memory_grows_with_sequences_and_both_lengths(
    model: ModelSpec, engine: EngineSpec, data: st.DataObject, batch: float, source: float, outputs: float
) -> None:
    """A workspace, whose tokens are what is left beside the weights, is none of their business."""
    gpu, engine = data.draw(gpus()), engine.model_copy(update={"workspace": None})
    a = make_case(model, gpu, engine, data.draw(precisions_on(gpu)), LayoutSpec()).allocation
    base = memory(a, batch, source, outputs).peak_bytes
    for more in ((batch + 1, source, outputs), (batch, source + 16, outputs), (batch, source, outputs + 16)):
        assert memory(a, *more).peak_bytes >= base * (1.0 - 1e-12)


# Laws.


@pytest.mark.parametrize("engine", ["ideal", "hf-eager", "generic-fused"])
@pytest.mark.parametrize("field", ["batch_size", "input_len", "output_len"])
def test_time_grows_with_sequences_and_both_lengths(engine: str, field: str) -> None:
    times_s = estimate(engine=engine, **{field: np.array([16.0, 64.0, 256.0, 512.0])}).total_s
    assert (np.diff(times_s) > (0.0 if engine == "ideal" else -1e-12)).all()  # the host may be the limit


def test_a_decode_step_reads_the_keys_of_the_encoder() -> None:
    """A step reads 36 kB for each of them, and nothing else depends on how many there are."""
    short, long = (estimate(engine="ideal", input_len=n, output_len=2).decode for n in (100, 300))
    assert long.hbm_bytes - short.hbm_bytes == pytest.approx(4 * 200 * TOKEN_BYTES, rel=1e-9)
    assert long.time_s > short.time_s


@pytest.mark.parametrize("engine", ["hf-eager", "vllm"])
def test_an_array_holds_what_scalars_give(engine: str) -> None:
    lengths = [3, 50, 400]
    array = estimate(engine=engine, input_len=np.array(lengths), num_beams=2)
    for index, length in enumerate(lengths):
        one = estimate(engine=engine, input_len=length, num_beams=2)
        for name in ("prefill_s", "decode_step_s", "total_s", "energy_j", "max_batch_size"):
            assert getattr(array, name)[index] == pytest.approx(getattr(one, name), rel=1e-12), name
        assert array.memory.peak_bytes[index] == pytest.approx(one.memory.peak_bytes, rel=1e-12)


def test_positions_limit_the_longer_of_prompt_and_output() -> None:
    """BART has 1024 positions of the prompt and as many of the output; T5 has no limit."""
    assert not estimate("bart-base", input_len=1024, output_len=1024).extrapolated
    assert estimate("bart-base", input_len=1025, output_len=2).extrapolated
    assert estimate("bart-base", input_len=2, output_len=1025).extrapolated
    assert not estimate(input_len=5000).extrapolated
    with pytest.raises(lpm.InfeasibleError) as caught:
        estimate("bart-base", input_len=1030).require_feasible()
    assert str(caught.value) == "input_len is 1030 tokens, but bart-base has 1024 positions"


def test_throughput_counts_the_output() -> None:
    e = estimate()
    assert e.throughput_tokens_per_s == pytest.approx(4 * 40 / e.total_s, rel=1e-12)
    assert e.bounds("total_s").basis == "none: no engine has records of encoder-decoders yet"


# What cannot be asked.


def test_stacks_are_not_split_by_layers() -> None:
    with pytest.raises(lpm.InfeasibleError) as caught:
        estimate(layer_split=2)
    assert str(caught.value) == (
        "layer_split = 2: t5-base has an encoder and a decoder, which are not split by layers; use tp or dp"
    )


def test_heads_of_cross_attention_are_split_too() -> None:
    odd = small()
    odd["layers"][0]["cross_attention"] = {"heads": 3, "kv_heads": 3, "head_dim": 8}
    model = ModelSpec.model_validate_json(json.dumps(odd))
    with pytest.raises(lpm.InfeasibleError, match="tp = 2 does not divide small: "):
        lpm.estimate(model, tp=2, gpu="a100-sxm-40gb")


LAYER, READ = small()["layers"][0], small()["encoder"]["layers"][0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"encoder": None}, "layers: cross_attention has nothing to attend to without an encoder"),
        ({"layers": [READ]}, "layers: each needs cross_attention, since the model has an encoder"),
        ({"encoder": {"layers": [LAYER]}}, "encoder.layers: cross_attention belongs in the layers of the decoder"),
        ({"causal": False}, "causal: an encoder-decoder generates: leave causal out"),
        ({"head": "none"}, "head: an encoder-decoder generates: leave head out"),
        ({"position": "none"}, "position_buckets: goes with relative positions: give both or none"),
        ({"position_buckets": None}, "position_buckets: goes with relative positions: give both or none"),
        (
            {"layers": [LAYER, LAYER | {"attention": LAYER["attention"] | {"heads": 8}}]},
            "layers: the layers of a stack share the bias of relative positions, so all need as many heads",
        ),
        (
            {"layers": [LAYER | {"parallel": True}]},
            "layers.0: parallel layers have no place for cross_attention: leave one of them out",
        ),
        (
            {"layers": [LAYER | {"cross_attention": {"heads": 4, "kv_heads": 3, "head_dim": 8}}]},
            "layers.0.cross_attention: heads is 4, which kv_heads = 3 does not divide",
        ),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(small(**changed)), encoding="utf-8")
    with pytest.raises(lpm.SpecError) as caught:
        lpm.estimate(str(path), gpu="a100-sxm-40gb")
    assert str(caught.value) == f"{path}: 1 problem in this model file\n  {message}"


# What people read.


def test_the_report_of_a_search_fits_80_columns(run: Command) -> None:
    code, text, _ = run(*COMMAND)
    assert code == 0
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "batch 4, 100 tokens in, 100 out" in text


def test_a_breakdown_tells_the_stacks_apart(run: Command) -> None:
    _, text, _ = run(*COMMAND, "--breakdown", "ops")
    before, _, after = text.partition("decode: 99 steps together")
    assert max(len(line) for line in text.splitlines()) <= 80
    for name in ("encoder.attention", "decoder.cross_kv ", "decoder.cross_attention "):
        assert name in before
    assert "decoder.cross_attention " in after
    assert "encoder." not in after
    assert "cross_kv" not in after


def test_json_of_an_encoder_decoder_has_the_keys_of_every_other(run: Command) -> None:
    _, text, _ = run(*COMMAND, "--format", "json")
    answer = json.loads(text)
    assert answer.keys() == estimate("llama-2-7b", gpu="a100-sxm-80gb", num_beams=4).to_dict().keys()
    assert answer["total_s"] == pytest.approx(answer["prefill_s"] + answer["decode_s"], rel=1e-12)


def test_a_list_of_models_tells_layers_of_both_stacks(run: Command) -> None:
    _, text, _ = run("list", "models")
    (row,) = (line for line in text.splitlines() if line.startswith("t5-base "))
    assert "12 + 12" in row
