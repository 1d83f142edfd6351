"""Precisions: bytes of block formats, the unit that runs each on a card, widths of parts, names of checkpoints."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.errors import InfeasibleError, RequestError, SpecError
from llm_perf_model.graph.stack import build, weights_bytes
from llm_perf_model.listing import listing
from llm_perf_model.machine import gemm_peak
from llm_perf_model.specs.catalog import load, names
from llm_perf_model.specs.checkpoint import Checkpoint, cache_format_of, narrowed_of, precision_of
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import CACHE_BYTES, CACHE_FORMATS, PrecisionSpec, Products, Way

LLAMA_70B = "llama-3.1-70b"


def spec(name: str) -> PrecisionSpec:
    return load(PrecisionSpec, name)


def estimate(**fields: Any) -> lpm.Estimate:
    plain = {"model": "llama-3.1-8b", "gpu": "h100-sxm-80gb", "engine": "generic-fused", "input_len": 128}
    return lpm.estimate(**(plain | {"output_len": 16} | fields))


# Block formats.


@pytest.mark.parametrize(
    ("name", "weights", "stored_bytes"),
    [
        ("w4a16", 128, 64 + 2 + 0.5),  # AWQ: a 16-bit scale and a 4-bit zero point a group
        ("w4a16-g64", 64, 32 + 2 + 0.5),
        ("w4a16-g32", 32, 16 + 2 + 0.5),
        ("w8a16-g128", 128, 128 + 2),
        ("w4a8", 128, 64 + 1 + 0.5),  # QServe: an 8-bit scale and a 4-bit zero point
        ("fp8-block", 128 * 128, 128 * 128 + 4),
        ("mxfp4", 32, 16 + 1),  # OCP MX: 32 values and an 8-bit scale
        ("nvfp4", 16, 8 + 1),  # 16 values and an 8-bit scale
        ("q8-0", 32, 34),  # ggml-common.h: sizes of blocks
        ("q6-k", 256, 210),
        ("q4-0", 32, 18),
    ],
)
def test_a_weight_takes_its_share_of_a_published_block(name: str, weights: int, stored_bytes: float) -> None:
    assert spec(name).weight_bytes == stored_bytes / weights


@pytest.mark.parametrize(
    ("name", "base", "down", "values", "output"),
    [
        ("q5-k-m", 176, (176 + 210) / 2, (176 + 210) / 2, 176),
        ("q4-k-m", 144, (144 + 210) / 2, (144 + 210) / 2, 144),
        ("q3-k-m", 110, (176 + 15 * 144) / 16, 144, 144),
        ("q2-k", 84, 110, 144, 110),
    ],
)
def test_a_mix_of_blocks_is_the_mean_of_its_tensors(
    name: str, base: float, down: float, values: float, output: float
) -> None:
    """Of a gated feed-forward's three matrices, and of attention with 8 query heads a key head: 8 + 8 + 1 + 1 parts."""
    p = spec(name)
    assert p.attention is not None
    assert p.weight_bytes * 256 == pytest.approx((2 * base + down) / 3, rel=1e-12)
    assert p.attention.weight_bytes * 256 == pytest.approx((9 * base + 8 * output + values) / 18, rel=1e-12)
    assert p.table_bytes * 256 == base
    assert p.wide_bytes * 256 == 210


@pytest.mark.parametrize(
    ("name", "file_bytes", "within"),
    [
        ("q8_0", 74.98e9, 0.001),  # files of huggingface.co/bartowski/Meta-Llama-3.1-70B-Instruct-GGUF
        ("q6_k", 57.89e9, 0.001),
        ("q5_k_m", 49.95e9, 0.001),
        ("q4_k_m", 42.52e9, 0.002),
        ("q4_0", 40.12e9, 0.005),  # made with an importance matrix: a tenth of the down products is Q4_1
        ("q3_k_m", 34.27e9, 0.004),
        ("awq", 39.8e9, 0.002),  # hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4
        ("fp8", 72.7e9, 0.002),  # RedHatAI/Meta-Llama-3.1-70B-Instruct-FP8
    ],
)
def test_sizes_of_a_model_of_70_billion_are_those_of_its_files(name: str, file_bytes: float, within: float) -> None:
    stored = weights_bytes(build(load(ModelSpec, LLAMA_70B), load(EngineSpec, "ideal"), spec(name), 1))
    assert stored == pytest.approx(file_bytes, rel=within)


def test_every_file_says_how_many_bytes_a_weight_takes_at_most() -> None:
    """Storage never exceeds that of the activations by the scales of a block."""
    for name in names(PrecisionSpec):
        p = spec(name)
        for products in (p, *p.own_products.values()):
            assert 2.5 / 8 <= products.weight_bytes <= 4.0
            assert products.input_bytes is None or products.input_bytes <= p.activation_bytes


# Units of cards.


@pytest.mark.parametrize(
    ("gpu", "precision", "unit", "scheme"),
    [
        ("a100-sxm-80gb", "fp8", "tensor_fp16", "fp8_weights"),
        ("a100-sxm-80gb", "fp8-block", "tensor_fp16", "fp8_weights"),
        ("a100-sxm-80gb", "mxfp4", "tensor_fp16", "fp4_weights"),
        ("a100-sxm-80gb", "w8a8", "tensor_int8", "int8"),
        ("a100-sxm-80gb", "w4a8-fp8", "tensor_fp16", "int4_weights"),
        ("l40s-pcie-48gb", "fp8", "tensor_fp8", "fp8"),
        ("rtx-4090", "fp8-acc16", "tensor_fp8_acc16", "fp8"),
        ("h100-sxm-80gb", "fp8", "tensor_fp8", "fp8"),
        ("h100-sxm-80gb", "fp8-acc16", "tensor_fp8", "fp8"),
        ("h100-sxm-80gb", "nvfp4", "tensor_fp16", "fp4_weights"),
        ("b200-sxm-180gb", "fp8", "tensor_fp8", "fp8"),
        ("b200-sxm-180gb", "nvfp4", "tensor_fp4", "fp4"),
        ("b200-sxm-180gb", "nvfp4-w4a16", "tensor_fp16", "fp4_weights"),
        ("b200-sxm-180gb", "mxfp4", "tensor_fp4", "fp4"),
        ("mi355x-oam-288gb", "mxfp4", "tensor_fp4", "fp4"),
        ("mi300x-oam-192gb", "mxfp4", "tensor_fp16", "fp4_weights"),
        ("t4-pcie-16gb", "fp8", "tensor_fp16", "fp8_weights"),
        ("ryzen-9-5950x", "q4_k_m", "vector_fp32", "int4_weights"),
    ],
)
def test_the_unit_and_the_scheme_that_run_a_precision(gpu: str, precision: str, unit: str, scheme: str) -> None:
    device = load(GpuSpec, gpu)
    running = spec(precision).on(device.peak_flops_per_s)
    assert running is not None
    assert (gemm_peak(device, running), running.scheme) == (unit, scheme)


def test_widened_weights_are_stored_narrow_and_read_their_inputs_at_16_bits() -> None:
    """An A100 runs fp8 as weights of 8 bits: no pass narrows its inputs, and no product reads them at 8 bits."""
    narrow, wide = estimate(precision="fp8"), estimate(precision="fp8", gpu="a100-sxm-80gb")
    assert wide.memory.weights_bytes == narrow.memory.weights_bytes
    assert any("_narrowing" in node.name for node in narrow.case.graph)
    assert not any("_narrowing" in node.name for node in wide.case.graph)
    only = estimate(precision="fp8-w8a16", gpu="a100-sxm-80gb")
    assert wide.case.graph == only.case.graph
    assert (wide.ttft_s, wide.tpot_s) == (only.ttft_s, only.tpot_s)


def test_a_summary_says_that_weights_are_widened() -> None:
    said = "a100-sxm-80gb has no unit as narrow as fp8: weights are widened on the way in, products run on tensor_fp16"
    assert said in " ".join(str(estimate(precision="fp8", gpu="a100-sxm-80gb")).split())
    assert "widened" not in str(estimate(precision="fp8"))


@pytest.mark.parametrize(
    ("gpu", "precision", "needs"),
    [
        ("p100-sxm-16gb", "fp8", "it needs tensor_fp8 or tensor_fp16 or tensor_bf16, the device has"),
        ("v100-sxm-32gb", "w8a8", "it needs tensor_int8, the device has"),
        ("gtx-1080ti", "mxfp4-experts", "it needs tensor_bf16 or tensor_fp16 and tensor_fp4 or tensor_fp16"),
    ],
)
def test_a_card_without_any_unit_refuses_in_one_line(gpu: str, precision: str, needs: str) -> None:
    with pytest.raises(InfeasibleError) as raised:
        estimate(precision=precision, gpu=gpu)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{gpu} cannot run precision {precision}: {needs}")
    hint = line.rsplit("did you mean precision ", 1)[1].rstrip("?")
    assert spec(hint).on(load(GpuSpec, gpu).peak_flops_per_s) is not None


@given(st.sampled_from(names(PrecisionSpec)), st.sampled_from(names(GpuSpec)))
def test_a_device_runs_a_precision_on_a_unit_that_it_has(precision: str, gpu: str) -> None:
    """The first way of which it has a unit, with the same storage; running it again changes nothing."""
    p, peaks = spec(precision), load(GpuSpec, gpu).peak_flops_per_s
    running = p.on(peaks)
    if running is None:
        assert any(set(own.peaks).isdisjoint(peaks) for own in (p, *p.own_products.values()))
        return
    assert running.on(peaks) == running
    assert not set(running.gemm_peaks).isdisjoint(peaks)
    assert (running.weight_bytes, running.kv_bytes, running.activation_bytes) == (
        p.weight_bytes, p.kv_bytes, p.activation_bytes,
    )  # fmt: skip
    if not set(p.gemm_peaks).isdisjoint(peaks):
        assert running.scheme == p.scheme


# Laws.

CHAINS = (
    ("w16a16", "w8a16-g128", "fp8-w8a16", "w4a16-g32", "w4a16-g64", "w4a16", "w4a16-column"),
    ("w16a16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k"),
)
"""Precisions with 16-bit inputs, narrower and narrower: with wide token tables, and with narrow ones."""
PAIRS = tuple(pair for chain in CHAINS for pair in pairwise(chain))


@pytest.mark.parametrize(("wide", "narrow"), PAIRS)
@pytest.mark.parametrize("model", ["llama-3.1-8b", "gpt2-xl", "mixtral-8x7b"])
def test_narrower_weights_need_less_memory(model: str, wide: str, narrow: str) -> None:
    sizes = [
        weights_bytes(build(load(ModelSpec, model), load(EngineSpec, "ideal"), spec(p), 2)) for p in (wide, narrow)
    ]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("gpu", ["a100-sxm-80gb", "h100-sxm-80gb", "b200-sxm-180gb"])
def test_steps_that_memory_binds_get_faster_with_narrower_weights(gpu: str, chain: tuple[str, ...]) -> None:
    steps_s = [float(estimate(precision=name, gpu=gpu).tpot_s) for name in chain]
    assert all(narrow < wide for wide, narrow in pairwise(steps_s))


def test_a_narrower_unit_prefills_faster() -> None:
    """Long prompts on a B200: 16, 8 and 4 bits."""
    long = {"gpu": "b200-sxm-180gb", "input_len": 8192, "model": LLAMA_70B, "engine": "ideal", "output_len": 2}
    half, eight, four = (estimate(precision=name, **long).ttft_s for name in ("bf16", "fp8", "nvfp4"))
    assert four < eight < half
    assert half / four > 2.0


# Parts with a width of their own.

GPT_OSS = ModelSpec.model_validate_json(
    """{"name": "gpt-oss-like", "title": "32 experts of which a token visits 4", "parameters": 20914757184,
    "hidden": 2880, "vocab": 201088, "max_positions": 131072, "tied_embeddings": false, "position": "rotary",
    "norm": "rmsnorm", "layers": [{"count": 24,
      "attention": {"kind": "gqa", "heads": 64, "kv_heads": 8, "head_dim": 64, "qkv_bias": true, "out_bias": true},
      "ffn": {"kind": "moe", "experts": 32, "experts_per_token": 4, "intermediate": 2880, "activation": "silu",
        "bias": true, "router_bias": true}}],
    "sources": [{"fields": ["*"], "title": "OpenAI, gpt-oss model card, table 1", "url": "arxiv:2508.10925"}]}"""
)


def test_narrow_experts_have_the_size_of_the_published_checkpoint() -> None:
    """12.8 GiB, says table 1 of the model card: experts at 4.25 bits, the rest at 16."""
    stored = weights_bytes(build(GPT_OSS, load(EngineSpec, "ideal"), spec("mxfp4-experts"), 1))
    assert stored == pytest.approx(12.8 * 2**30, rel=0.005)


def test_experts_of_their_own_width_leave_all_else_as_it_is() -> None:
    plain, narrow = (
        {node.name: node for node in build(GPT_OSS, load(EngineSpec, "ideal"), spec(name), 1)}
        for name in ("bf16", "mxfp4-experts")
    )
    changed = {name for name in narrow if plain.get(name) != narrow[name]}
    products = {"experts_gate_up", "experts_down"}
    assert changed == products | {f"{name}_narrowing" for name in products}


def test_attention_of_its_own_width_runs_at_a_rate_of_its_own() -> None:
    case = estimate(precision="nvfp4-ffn", gpu="b200-sxm-180gb").case
    nodes = {node.name: node for node in case.graph}
    assert [nodes[name].kind for name in ("qkv", "attention_out", "ffn_down", "lm_head")] == [
        "attention_gemm", "attention_gemm", "gemm", "wide_gemm",
    ]  # fmt: skip
    assert nodes["qkv"].op.weight_bytes == 2.0  # type: ignore[attr-defined]
    assert nodes["ffn_down"].op.weight_bytes == 0.5625  # type: ignore[attr-defined]
    assert "qkv_narrowing" not in nodes and "ffn_down_narrowing" in nodes
    plain = estimate(precision="bf16", gpu="b200-sxm-180gb").case.machine
    assert case.machine.blocks["attention_gemm"] == plain.blocks["gemm"]
    assert case.machine.rates["attention_gemm"] == plain.rates["gemm"]
    assert case.machine.peak_flops_per_s == 9e15


@given(st.sampled_from([name for name in names(PrecisionSpec) if spec(name).own_products]))
def test_flops_are_held_against_the_fastest_unit_in_use(name: str) -> None:
    asked = {"gpu": "b200-sxm-180gb", "engine": "ideal", "model": "mixtral-8x7b", "batch_size": np.array([1, 64])}
    e = estimate(precision=name, input_len=4096, **asked)
    assert np.all(np.asarray(e.prefill.flops_utilisation) <= 1.0 + 1e-12)
    assert np.all(np.asarray(e.decode.flops_utilisation) <= 1.0 + 1e-12)


def test_products_of_a_part_fall_back_alone() -> None:
    """On an H100 experts are widened; attention stays as it was."""
    running = spec("mxfp4-experts").on(load(GpuSpec, "h100-sxm-80gb").peak_flops_per_s)
    assert running is not None and running.experts is not None
    assert (running.scheme, running.experts.scheme, running.experts.input_bytes) == ("plain", "fp4_weights", None)


def test_a_fallback_keeps_everything_but_the_way() -> None:
    ways = {"gemm_peaks": ("tensor_fp8",), "scheme": "fp8", "input_bytes": 1.0, "narrowing_pass": True}
    products = Products(weight_bytes=1.0, fallbacks=(Way(gemm_peaks=("tensor_fp16",)),), **ways)  # type: ignore[arg-type]
    assert products.way(["tensor_fp8", "tensor_fp16"]) is products
    plain = products.way(["tensor_fp16"])
    assert plain is not None
    assert (plain.gemm_peaks, plain.scheme, plain.input_bytes, plain.narrowing_pass) == (
        ("tensor_fp16",), "plain", None, False,
    )  # fmt: skip
    assert (plain.weight_bytes, plain.fallbacks) == (1.0, products.fallbacks)
    assert products.way(["vector_fp32"]) is None


# The cache.


@pytest.mark.parametrize("stored", CACHE_FORMATS)
def test_a_cache_is_stored_as_asked_whatever_the_precision(stored: str) -> None:
    """Llama 3.1 8B keeps 2 x 8 x 128 values in each of 32 layers for a token."""
    for precision in ("bf16", "w4a16", "fp8-kv"):
        per_token = estimate(precision=precision, kv_dtype=stored, engine="vllm").case.allocation.kv_token_bytes
        kept = spec(precision).kv_bytes if stored == "auto" else CACHE_BYTES[stored]  # type: ignore[index]
        assert per_token == 2 * 8 * 128 * 32 * kept


def test_a_narrow_cache_is_smaller_and_read_faster() -> None:
    wide, narrow = (estimate(kv_dtype=stored, input_len=8192, batch_size=16) for stored in ("auto", "fp8"))
    assert narrow.memory.kv_cache_bytes == wide.memory.kv_cache_bytes / 2
    assert narrow.tpot_s < wide.tpot_s
    assert estimate(precision="int8-kv").tpot_s == estimate(kv_dtype="int8").tpot_s
    assert "w16a16 with a cache in fp8" in " ".join(str(narrow).split())
    assert "cache in" not in str(wide)


def test_an_unknown_cache_format_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(RequestError) as raised:
        estimate(kv_dtype="fp7")
    assert str(raised.value) == "kv_dtype: is 'fp7'; must be one of auto, fp32, fp16, bf16, fp8, int8, fp4"


# What is offered.


@pytest.mark.parametrize(("engine", "local"), [("vllm", False), ("generic-eager", False), ("llama.cpp", True)])
def test_blocks_of_a_local_format_are_offered_to_local_engines_alone(engine: str, local: bool) -> None:
    asked = {"model": LLAMA_70B, "engine": engine, "input_len": 64, "output_len": 16}
    for gpu in ("a100-sxm-80gb", "rtx-3090", "a40-pcie-48gb", "h100-sxm-80gb"):
        offered = lpm.memory(gpu=gpu, **asked).to_dict()["what_fits"]["precision"]
        assert offered is None or local or spec(offered).offered_to is None


# Names.


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("q4_k_m", "q4-k-m"), ("Q5_K_M", "q5-k-m"), ("gptq", "w4a16"), ("awq", "w4a16"), ("int4", "w4a16"),
        ("w4a16-g128", "w4a16"), ("nvfp4-w4a4", "nvfp4"), ("fp4", "nvfp4"), ("fp8_block", "fp8-block"),
        ("kv-int8", "int8-kv"), ("mxfp4_moe", "mxfp4-experts"), ("qserve", "w4a8"),
    ],
)  # fmt: skip
def test_a_scheme_answers_to_its_names(alias: str, name: str) -> None:
    assert spec(alias).name == name


INT4 = "compressed-tensors"
CHECKPOINTS = {
    Checkpoint("gptq", 4, 128): "w4a16",
    Checkpoint("gptq", 4, 32): "w4a16-g32",
    Checkpoint("gptq", 4, -1): "w4a16-column",
    Checkpoint("gptq", 8, 128): "w8a16-g128",
    Checkpoint("awq", 4, 64): "w4a16-g64",
    Checkpoint("fp8"): "fp8",
    Checkpoint("fp8", blocks=True): "fp8-block",
    Checkpoint("fbgemm_fp8"): "fp8",
    Checkpoint("FP8"): "fp8",
    Checkpoint("modelopt", 8, form="FP8", input_bits=8): "fp8",
    Checkpoint("FP8_PB_WO"): "fp8-w8a16",
    Checkpoint("NVFP4", 4, 16): "nvfp4",
    Checkpoint("NVFP4", 4, 16, narrowed="ffn"): "nvfp4-ffn",
    Checkpoint("modelopt", 4, 16, "nvfp4", narrowed="experts"): "nvfp4-experts",
    Checkpoint("mxfp4", narrowed="ffn"): "mxfp4-experts",
    Checkpoint("W4A8_AWQ", 4, 128): "w4a8-fp8",
    Checkpoint("W4A16_AWQ", 4, 128): "w4a16",
    Checkpoint("INT8_SQ", 8): "w8a8",
    Checkpoint(INT4, 4, 32, "pack-quantized", narrowed="experts"): "w4a16-g32-experts",
    Checkpoint(INT4, 4, 128, "pack-quantized", narrowed="experts"): "w4a16-g128-experts",
    Checkpoint(INT4, 8, None, "pack-quantized", 16): "w8a16",
    Checkpoint(INT4, 8, None, "int-quantized", 8): "w8a8",
    Checkpoint(INT4, 8, None, "float-quantized", 8): "fp8",
    Checkpoint(INT4, 8, None, "float-quantized", 16): "fp8-w8a16",
    Checkpoint(INT4, 8, None, "float-quantized", 8, True): "fp8-block",
    Checkpoint(INT4, 4, 16, "nvfp4-pack-quantized", 4): "nvfp4",
    Checkpoint(INT4, 4, 16, "nvfp4-pack-quantized", 16): "nvfp4-w4a16",
    Checkpoint(INT4, 4, 32, "mxfp4-pack-quantized", 16): "mxfp4-w4a16",
    Checkpoint("bitsandbytes", 4, form="nf4"): "nf4",
    Checkpoint("bitsandbytes", 8): "llm-int8",
    Checkpoint("gguf", form="Q4_K_M"): "q4-k-m",
}


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda checkpoint: " ".join(map(str, checkpoint)))
def test_a_checkpoint_names_its_precision(checkpoint: Checkpoint) -> None:
    assert precision_of(checkpoint) == CHECKPOINTS[checkpoint]
    assert spec(CHECKPOINTS[checkpoint]).name == CHECKPOINTS[checkpoint]


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        (Checkpoint("gptq", 3, 128), "gptq - w3 a- whole match no precision; give --precision"),
        (Checkpoint("gptq", 4, 48), "w4a16-g48 is not in the catalogue; near: w4a16, w4a16-column"),
        (Checkpoint("spqr"), "spqr - w- a- whole match no precision"),
        (Checkpoint("gguf", form="IQ1_S"), "iq1-s is not in the catalogue; near: none; give --precision"),
    ],
)
def test_a_checkpoint_without_a_precision_is_refused_in_one_line(checkpoint: Checkpoint, says: str) -> None:
    with pytest.raises(SpecError) as raised:
        precision_of(checkpoint)
    (line,) = str(raised.value).splitlines()
    assert says in line


@pytest.mark.parametrize(
    ("excluded", "layers", "narrowed"),
    [
        (["lm_head"], 80, "all"),
        ([f"model.layers.{i}.mlp.gate" for i in range(94)], 94, "all"),  # routers
        ([f"model.layers.{i}.post_attention_layernorm" for i in range(32)], 32, "all"),  # norms
        (["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"], 24, "ffn"),
        ([f"model.layers.{i}.self_attn.q_a_proj" for i in range(61)], 61, "ffn"),
        ([f"backbone.layers.{i}.mixer.q_proj" for i in (5, 12)], 52, "all"),  # two of many layers
        (["re:.*self_attn.*", "re:.*shared_experts.*", r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"], 61, "experts"),
    ],
)
def test_excluded_modules_say_what_is_narrow(excluded: list[str], layers: int, narrowed: str) -> None:
    assert narrowed_of(excluded, layers) == narrowed


def test_words_of_a_checkpoint_for_its_cache() -> None:
    words = (None, "FP8", "INT8", "NVFP4", "none")
    assert [cache_format_of(word) for word in words] == ["auto", "fp8", "int8", "fp4", "auto"]
    with pytest.raises(SpecError, match="a cache stored as 'mystery' is not known; known: fp8, int8, nvfp4"):
        cache_format_of("mystery")


# The page.

PAGE = (Path(__file__).parents[1] / "docs" / "precision.md").read_text(encoding="utf-8")


def test_the_page_lists_every_precision_as_the_command_does() -> None:
    data = listing("precisions").tables[0].rows
    rows = [f"| `{row[0]}` | {' | '.join(row[1:5])} |" for row in data]
    listed = PAGE.split("## Bytes of a weight")[0]
    assert re.findall(r"^\| `.+ \|$", listed, re.MULTILINE) == rows


def test_the_page_says_which_unit_runs_what() -> None:
    cards = ("v100-sxm-32gb", "a100-sxm-80gb", "h100-sxm-80gb", "b200-sxm-180gb")
    way = r" \| (\w+, \w+|-)"
    rows = re.findall(rf"^\| `(\S+)`{4 * way} \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 9
    for name, *ways in rows:
        for card, told in zip(cards, ways, strict=True):
            device = load(GpuSpec, card)
            running = spec(name).on(device.peak_flops_per_s)
            unit = None if running is None else gemm_peak(device, running)
            assert told == ("-" if running is None else f"{str(unit).removeprefix('tensor_')}, {running.scheme}")
