"""Files of other tools: what they say comes back as it is, what they leave out says so, and what is refused."""

from __future__ import annotations

import json
import math
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.graph.stack import parameters
from llm_perf_model.importers import safetensors
from llm_perf_model.specs.attention import GroupedQueryAttention, LatentAttention
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.ffn import GatedFfn, MoeFfn, PlainFfn
from llm_perf_model.specs.model import LayerGroup

from . import gguf_files
from .running import Run, runner

Data = dict[str, Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 100)


def saved(path: Path, data: Data) -> str:
    path.write_text(json.dumps(data), encoding="utf-8")
    return str(path)


def refused(path: str | Path, **options: Any) -> str:
    """The one line with which a file is refused."""
    with pytest.raises((lpm.SpecError, lpm.RequestError)) as caught:
        lpm.import_file(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# llm-analysis.

LLAMA: Data = {
    "name": "my_Llama-13b", "num_layers": 40, "n_head": 40, "hidden_dim": 5120, "vocab_size": 32000,
    "max_seq_len": 4096, "ffn_embed_dim": 13824, "mlp_gated_linear_units": True, "model_type": "llama",
}  # fmt: skip
CARD: Data = {
    "name": "a100-sxm-40gb", "mem_per_GPU_in_GB": 40, "hbm_bandwidth_in_GB_per_sec": 1555,
    "intra_node_bandwidth_in_GB_per_sec": 300, "intra_node_min_message_latency": 8e-6, "peak_fp16_TFLOPS": 312,
    "peak_i8_TFLOPS": 624, "peak_i4_TFLOPS": 1248, "inter_node_bandwidth_in_GB_per_sec": 200,
}  # fmt: skip
DTYPE: Data = {"name": "w8a16e16", "weight_bits": 8, "activation_bits": 16, "embedding_bits": 16}


def test_a_model_of_llm_analysis_is_the_one_of_the_catalogue(tmp_path: Path) -> None:
    model, own = lpm.import_file(saved(tmp_path / "m.json", LLAMA)), load(lpm.ModelSpec, "llama-2-13b")
    assert isinstance(model, lpm.ModelSpec)
    assert (model.layers, model.parameters, model.tied_embeddings) == (own.layers, own.parameters, own.tied_embeddings)
    assert (
        lpm.estimate(model=model).total_s == lpm.estimate(model=own.model_copy(update={"wide_logits": False})).total_s
    )


def test_what_a_model_file_leaves_out_is_as_the_tool_has_it(tmp_path: Path) -> None:
    bare = {"name": "x", "num_layers": 2, "n_head": 4, "hidden_dim": 64, "vocab_size": 100}
    model = lpm.import_file(saved(tmp_path / "m.json", bare))
    assert isinstance(model, lpm.ModelSpec)
    (group,) = model.layers
    assert group.ffn == PlainFfn(intermediate=256, activation="gelu")
    assert group.attention == GroupedQueryAttention(heads=4, kv_heads=4, head_dim=16)
    # 2 layers of 4 h^2 and 8 h^2, 4 norms and a last one of 2 h, and one table
    assert model.parameters == 2 * 12 * 64**2 + 5 * 2 * 64 + 100 * 64
    reasons = " ".join(origin.reason for origin in model.assumed)
    assert "as m.json of llm-analysis says" in reasons and "llm-analysis does not say: as it counts weights" in reasons


def test_experts_and_latent_attention_of_llm_analysis(tmp_path: Path) -> None:
    data = LLAMA | {
        "model_type": "deepseek_v3", "q_lora_rank": 256, "kv_lora_rank": 128, "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64, "moe_num_experts": 16, "moe_top_k": 4, "moe_intermediate_size": 512,
        "moe_num_shared_experts": 2, "first_k_dense_replace": 3,
    }  # fmt: skip
    model = lpm.import_file(saved(tmp_path / "m.json", data))
    assert isinstance(model, lpm.ModelSpec)
    dense, routed = model.layers
    assert (dense.count, routed.count) == (3, 37)
    assert dense.ffn == GatedFfn(intermediate=13824, activation="silu")
    assert routed.ffn == MoeFfn(
        experts=16, experts_per_token=4, intermediate=512, activation="silu", shared_intermediate=1024
    )
    assert routed.attention == LatentAttention(
        heads=40, q_rank=256, kv_rank=128, nope_dim=128, rope_dim=64, value_dim=128
    )


def test_a_device_of_llm_analysis_estimates_as_its_namesake(tmp_path: Path) -> None:
    path = saved(tmp_path / "gpu.json", CARD)
    there, own = (lpm.estimate(model="llama-2-13b", gpu=gpu, tp=2) for gpu in (path, "a100-sxm-40gb"))
    assert there.total_s == pytest.approx(own.total_s, rel=1e-3)
    assert there.memory.capacity_bytes == own.memory.capacity_bytes  # its gigabytes of memory are binary


def test_a_device_that_is_not_in_the_catalogue_is_as_the_nearest_one(tmp_path: Path) -> None:
    faster = CARD | {
        "name": "Next",
        "hbm_bandwidth_in_GB_per_sec": 3110,
        "peak_fp16_TFLOPS": 624,
        "peak_i8_TFLOPS": 1248,
    }
    gpu = lpm.import_file(saved(tmp_path / "gpu.json", faster))
    assert isinstance(gpu, lpm.GpuSpec)
    assert (gpu.name, gpu.hbm_bytes, gpu.hbm_bytes_per_s) == ("next", 40 * 2.0**30, 3.11e12)
    assert (gpu.peak_flops_per_s["tensor_fp16"], gpu.peak_flops_per_s["tensor_int8"]) == (624e12, 1248e12)
    silent = [origin for origin in gpu.assumed if "does not say: as in" in origin.reason]
    assert {"sms", "l2_bytes", "tdp_w"} <= {field for origin in silent for field in origin.fields}


def test_a_link_is_read_from_a_device(tmp_path: Path) -> None:
    path = saved(tmp_path / "gpu.json", CARD)
    link = lpm.import_file(path, kind="link")
    assert isinstance(link, lpm.LinkSpec)
    assert (link.bytes_per_s, link.kind) == (300e9, "fabric")
    assert lpm.estimate(model="llama-2-13b", tp=2, link=path).case.link == link


@pytest.mark.parametrize(
    ("data", "widths", "like"),
    [
        (DTYPE, (1.0, 2.0, 2.0), "w8a16"),
        (DTYPE | {"weight_bits": 4}, (0.5, 2.0, 2.0), "w4a16"),
        (DTYPE | {"weight_bits": 16, "linear_weight_bits": 8, "linear_activation_bits": 8}, (1.0, 2.0, 2.0), "w8a8"),
        (DTYPE | {"embedding_bits": 32}, (1.0, 4.0, 2.0), "w8a16"),
    ],
)
def test_data_types_of_llm_analysis(data: Data, widths: tuple[float, ...], like: str, tmp_path: Path) -> None:
    spec, base = lpm.import_file(saved(tmp_path / "d.json", data)), load(lpm.PrecisionSpec, like)
    assert isinstance(spec, lpm.PrecisionSpec)
    assert (spec.weight_bytes, spec.other_weight_bytes, spec.activation_bytes) == widths
    assert (spec.gemm_peaks, spec.scheme, spec.kv_bytes) == (base.gemm_peaks, base.scheme, base.kv_bytes)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (LLAMA | {"n_heads": 4}, "n_heads is no field of llm-analysis; did you mean n_head?"),
        (LLAMA | {"n_head": 48}, "hidden_dim is 5120, which n_head = 48 does not divide"),
        (LLAMA | {"num_key_value_heads": 3}, "n_head is 40, which num_key_value_heads = 3 does not divide"),
        (LLAMA | {"hidden_dim": "wide"}, "hidden_dim is 'wide'; must be a number above 0"),
        (LLAMA | {"num_layers": 2.5}, "num_layers is 2.5; must be a whole number"),
        (LLAMA | {"num_layers": None}, "num_layers is missing from this file of llm-analysis"),
        (LLAMA | {"moe_num_experts": 8}, "moe_top_k is missing from this file of llm-analysis"),
        (LLAMA | {"moe_num_experts": 2, "moe_top_k": 4}, "moe_top_k is 4, more than the 2 of moe_num_experts"),
        (CARD | {"peak_fp16_TFLOPS": -1}, "peak_fp16_TFLOPS is -1; must be a number above 0"),
        (CARD | {"peak_fp8_TFLOPS": 1}, "peak_fp8_TFLOPS is no field of llm-analysis; did you mean peak_fp16_TFLOPS?"),
        (
            DTYPE | {"weight_bits": 3},
            "no precision multiplies 3-bit weights by 16-bit activations; `list precisions` shows those that there are",
        ),
        ({"foo": 1}, "is none of the files that are read: "),
    ],
)
def test_what_is_refused_of_llm_analysis(data: Data, problem: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "f.json", data)
    assert refused(path).startswith(f"{path}: {problem}")


def test_a_file_of_one_kind_does_not_stand_for_another(tmp_path: Path, run: Run) -> None:
    gpu, model = saved(tmp_path / "gpu.json", CARD), saved(tmp_path / "model.json", LLAMA)
    for arguments, problem in (
        (("--model", gpu), f"{gpu}: is a GPU of llm-analysis, where a model is needed"),
        (("--model", model, "--gpu", model), f"{model}: is a model of llm-analysis, where a GPU is needed"),
        (("--model", model, "--precision", gpu), f"{gpu}: is a GPU of llm-analysis, where a precision is needed"),
    ):
        ran = run("infer", *arguments)
        assert (ran.code, ran.out, ran.err) == (1, "", f"error: {problem}\n")


# aiconfigurator.

SYSTEM = """\
data_dir: data/h200_sxm
gpu:
  mem_bw: 4800000000000
  mem_bw_empirical_scaling_factor: 0.8
  mem_empirical_constant_latency: 0.000003
  mem_capacity: 151397597184
  float16_tc_flops: 989000000000000
  int8_tc_flops: 1979000000000000
  fp8_tc_flops: 1979000000000000
  fp4_tc_flops: 0
  power: 700
  sm_version: 90
node:
  num_gpus_per_node: 8
  inter_node_bw: 25000000000
  intra_node_bw: 450000000000
  pcie_bw: 64000000000
  p2p_latency: 0.00001
misc:
  nccl_mem:
    2: 358612992
  other_mem: 3758096384
  nccl_version: '2.27.3'
"""


def system(path: Path, *changes: tuple[str, str]) -> str:
    text = SYSTEM
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_system_of_aiconfigurator_estimates_as_its_namesake(tmp_path: Path) -> None:
    path = system(tmp_path / "h200_sxm.yaml")
    there, own = (lpm.estimate(model="llama-2-13b", gpu=gpu, tp=2) for gpu in (path, "h200-sxm-141gb"))
    assert there.total_s == pytest.approx(own.total_s, rel=1e-3)
    gpu, namesake = lpm.import_file(path), load(lpm.GpuSpec, "h200-sxm-141gb")
    assert isinstance(gpu, lpm.GpuSpec)
    assert (gpu.hbm_bytes, gpu.tdp_w, gpu.generation, gpu.name) == (151397597184, 700, "hopper", "h200-sxm")
    assert (gpu.scale_up, gpu.host_link) == (namesake.scale_up, namesake.host_link)


def test_units_that_a_system_does_not_list_are_not_there(tmp_path: Path) -> None:
    gpu = lpm.import_file(system(tmp_path / "x.yaml", ("  fp8_tc_flops: 1979000000000000\n", "")))
    assert isinstance(gpu, lpm.GpuSpec)
    assert not {"tensor_fp8", "tensor_fp4"} & gpu.peak_flops_per_s.keys()
    assert gpu.peak_flops_per_s["tensor_int8"] == 1979e12


def test_a_rack_that_is_as_fast_between_nodes_is_one_fabric(tmp_path: Path) -> None:
    rack = ("node:\n", "node:\n  num_gpus_per_rack: 72\n")
    path = system(tmp_path / "x.yaml", rack, ("inter_node_bw: 25000000000", "inter_node_bw: 450000000000"))
    gpu, apart = lpm.import_file(path), lpm.import_file(system(tmp_path / "y.yaml", rack))
    assert isinstance(gpu, lpm.GpuSpec) and isinstance(apart, lpm.GpuSpec)
    assert gpu.scale_up is not None and apart.scale_up is not None
    assert (gpu.scale_up.ranks, apart.scale_up.ranks) == (72, 8)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("  mem_capacity: 151397597184\n", ""), "gpu.mem_capacity is missing from this file of aiconfigurator"),
        (("mem_bw: 4800000000000", "mem_bw: fast"), "gpu.mem_bw is 'fast'; must be a number above 0"),
        (("float16_tc_flops: 989000000000000", "power_w: 1"), "gpu.bfloat16_tc_flops is missing"),
        (("sm_version: 90", "sm_version: 35"), "gpu.sm_version is 35, of no generation with coefficients; known: 60,"),
        (("node:\n", "nodes:\n"), "is no system of aiconfigurator, which has gpu and node"),
        (("gpu:\n", "gpu: [\n"), "is no YAML file: line "),
    ],
)
def test_what_is_refused_of_aiconfigurator(change: tuple[str, str], problem: str, tmp_path: Path) -> None:
    path = system(tmp_path / "x.yaml", change)
    assert refused(path).startswith(f"{path}: {problem}")


@pytest.mark.parametrize("file", ["gpu", "system"])
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_device_with_other_rates_is_slower_or_faster_by_them(file: str, factor: float, tmp_path: Path) -> None:
    """All peaks and rates of memory times a factor: a token of one sequence takes as much less, but for its starts."""
    if file == "gpu":
        rates = ("hbm_bandwidth_in_GB_per_sec", "peak_fp16_TFLOPS", "peak_i8_TFLOPS", "peak_i4_TFLOPS")
        path = saved(tmp_path / "x.json", CARD | {rate: CARD[rate] * factor for rate in rates})
        own = saved(tmp_path / "y.json", CARD)
    else:
        bandwidth = ("mem_bw: 4800000000000", f"mem_bw: {4800000000000 * factor:.0f}")
        peaks = [(f"{n}_tc_flops: {v}", f"{n}_tc_flops: {v * factor:.0f}") for n, v in (("float16", 989 * 10**12),)]
        path, own = system(tmp_path / "x.yaml", bandwidth, *peaks), system(tmp_path / "y.yaml")
    changed, before = (lpm.estimate(model="opt-13b", gpu=gpu, engine="ideal") for gpu in (path, own))
    assert changed.decode_step_s == pytest.approx(before.decode_step_s / factor, rel=0.1)


# GGUF.


def small(*groups: LayerGroup, **fields: Any) -> lpm.ModelSpec:
    own = {
        "name": "small", "title": "Small", "hidden": 512, "vocab": 1000, "max_positions": 2048, "position": "rotary",
        "norm": "rmsnorm", "norm_bias": False, "tied_embeddings": False, "parameters": 1.0,
        "assumed": (lpm_assumption(),),
    }  # fmt: skip
    model = lpm.ModelSpec(**{**own, **fields, "layers": groups})
    from llm_perf_model.graph.stack import build

    graph = build(model, load(lpm.EngineSpec, "ideal"), load(lpm.PrecisionSpec, "w16a16"), 1)
    return model.model_copy(update={"parameters": parameters(graph)})


def lpm_assumption() -> Any:
    from llm_perf_model.specs.base import Assumption

    return Assumption(fields=("*",), reason="a model of the tests")


def gqa(**fields: Any) -> GroupedQueryAttention:
    return GroupedQueryAttention(**{"heads": 8, "kv_heads": 2, "head_dim": 64, **fields})


GATED = GatedFfn(intermediate=1024, activation="silu")
GELU = GatedFfn(intermediate=1024, activation="gelu_tanh")
LAYERS: dict[str, tuple[str, lpm.ModelSpec]] = {
    "plain": ("llama", small(LayerGroup(count=2, attention=gqa(), ffn=GATED))),
    "biases": ("qwen2", small(LayerGroup(count=2, attention=gqa(qkv_bias=True), ffn=GATED), tied_embeddings=True)),
    "normed heads": ("qwen3", small(LayerGroup(count=1, attention=gqa(qk_norm=True), ffn=GATED))),
    "normed queries": ("olmo2", small(LayerGroup(count=1, attention=gqa(qk_norm="whole"), ffn=GATED))),
    "learned positions": (
        "gpt2",
        small(
            LayerGroup(
                count=2,
                attention=gqa(kv_heads=8, qkv_bias=True, out_bias=True),
                ffn=PlainFfn(intermediate=2048, activation="gelu_tanh", bias=True),
            ),
            position="learned", norm="layernorm", norm_bias=True, tied_embeddings=True,
        ),
    ),
    "distances": (
        "bloom",
        small(
            LayerGroup(count=1, attention=gqa(kv_heads=8), ffn=PlainFfn(intermediate=2048, activation="gelu_tanh")),
            position="alibi", norm="layernorm", norm_bias=True, embedding_norm=True,
        ),
    ),
    "side by side": (
        "command-r",
        small(LayerGroup(count=2, attention=gqa(), ffn=GATED, parallel=True, norms=1), norm="layernorm"),
    ),
    "windows": (
        "gemma2",
        small(
            LayerGroup(
                count=2, attention=gqa(window_tokens=128), ffn=GELU, norms=4
            ),
            LayerGroup(count=2, attention=gqa(), ffn=GELU, norms=4),
        ),
    ),
    "experts": (
        "qwen2moe",
        small(
            LayerGroup(count=1, attention=gqa(), ffn=GATED),
            LayerGroup(
                count=3,
                attention=gqa(),
                ffn=MoeFfn(
                    experts=8, experts_per_token=2, intermediate=256, activation="silu", shared_intermediate=512,
                    shared_gate=True,
                ),
            ),
        ),
    ),
    "latent": (
        "deepseek2",
        small(
            LayerGroup(
                count=2,
                attention=LatentAttention(heads=8, q_rank=256, kv_rank=128, nope_dim=64, rope_dim=32, value_dim=64),
                ffn=GATED,
            )
        ),
    ),
    "other heads by layer": (
        "llama",
        small(
            LayerGroup(count=1, attention=gqa(kv_heads=8), ffn=GATED),
            LayerGroup(count=1, attention=gqa(kv_heads=4), ffn=GATED),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", LAYERS)
@pytest.mark.parametrize("kind", [gguf_files.Q.F16, gguf_files.Q.Q4_K, gguf_files.Q.Q8_0])
def test_models_come_back_from_gguf_files(form: str, kind: gguf_files.Q, tmp_path: Path) -> None:
    architecture, written = LAYERS[form]
    path = tmp_path / "small.gguf"
    held = gguf_files.write(_interleaved(written), path, architecture, kind)
    back = lpm.import_file(path)
    assert isinstance(back, lpm.ModelSpec)
    same = {"layers", "parameters", "hidden", "vocab", "position", "norm", "norm_bias", "tied_embeddings", "title"}
    assert {field: getattr(back, field) for field in same} == {field: getattr(written, field) for field in same}
    e = lpm.estimate(model=str(path), engine="llama.cpp", gpu="rtx-4090")
    assert e.memory.weights_bytes == pytest.approx(held, rel=1e-9)


def _interleaved(model: lpm.ModelSpec) -> lpm.ModelSpec:
    """Layers with windows and those without take turns."""
    first, last = model.layers[0], model.layers[-1]
    if getattr(first.attention, "window_tokens", None) is None:
        return model
    one = {"count": 1}
    turns = (first.model_copy(update=one), last.model_copy(update=one)) * first.count
    return model.model_copy(update={"layers": turns})


def test_the_precision_of_a_gguf_file_computes_as_its_type(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    gguf_files.write(LAYERS["experts"][1], path, "qwen2moe", gguf_files.Q.Q4_K)
    spec, base = lpm.import_file(path, kind="precision"), load(lpm.PrecisionSpec, "q4_k_m")
    assert isinstance(spec, lpm.PrecisionSpec)
    assert (spec.scheme, spec.gemm_peaks, spec.kv_bytes) == (base.scheme, base.gemm_peaks, base.kv_bytes)
    assert spec.experts is not None and spec.attention is not None
    widths = (spec.weight_bytes, spec.experts.weight_bytes, spec.attention.weight_bytes)
    assert widths == pytest.approx((0.5625, 0.5625, 0.5625), rel=1e-3)


def test_a_precision_that_is_named_is_the_one_that_counts(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    gguf_files.write(LAYERS["plain"][1], path, kind=gguf_files.Q.Q4_K)
    e = lpm.estimate(model=str(path), precision="w16a16", gpu="rtx-4090")
    assert e.memory.weights_bytes == 2.0 * LAYERS["plain"][1].parameters


def test_a_file_is_read_again_after_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    weights = []
    for form in ("plain", "experts"):
        gguf_files.write(LAYERS[form][1], path)
        weights.append(lpm.estimate(model=str(path), gpu="rtx-4090").case.model.parameters)
    assert weights == [LAYERS[form][1].parameters for form in ("plain", "experts")]


def test_layers_that_guess_tokens_are_no_part_of_the_model(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    path, written = tmp_path / "small.gguf", LAYERS["plain"][1]
    count = written.layer_count
    add = GGUFWriter.add_block_count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            GGUFWriter,
            "add_block_count",
            lambda self, n: (add(self, n + 1), self.add_uint32("llama.nextn_predict_layers", 1)),
        )
        gguf_files.write(written, path, extra={f"blk.{count}.nextn.eh_proj.weight": (1024, 512)})
    assert lpm.import_file(path).parameters == written.parameters  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (
            {"blk.1.ssm_in.weight": (512, 64)},
            "layer 1: tensor ssm_in.weight is not known and may change the arithmetic",
        ),
        ({"mm.0.weight": (512, 64)}, "tensor mm.0.weight is not known and may change the arithmetic"),
    ],
)
def test_tensors_that_are_not_known_are_named(extra: dict[str, tuple[int, ...]], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    gguf_files.write(LAYERS["plain"][1], path, extra=extra)
    assert refused(path) == f"{path}: {problem}"


def test_a_window_that_no_layer_is_known_to_have_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    gguf_files.write(LAYERS["windows"][1], path, "newcomer")
    assert refused(path) == f"{path}: attention.sliding_window is 128, and nothing says which layers have it"


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.999])
def test_a_gguf_file_that_is_cut_off(share: float, tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    gguf_files.write(LAYERS["plain"][1], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(int(len(whole) * share), 4)])
    assert refused(path) == f"{path}: is no whole GGUF file: a part of it is missing or broken"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04zip", b"{}"])
def test_a_gguf_file_that_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.write_bytes(content)
    assert refused(path) == f"{path}: is no GGUF file: it starts with {content[:4]!r}, not with b'GGUF'"


# Safetensors.

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def shard(path: Path, tensors: Tensors, spare_bytes: int = 0) -> Path:
    """A safetensors file with tensors of zeros."""
    header: Data = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, (kind, shape) in tensors.items():
        size = math.ceil(math.prod(shape) * safetensors.VALUE_BYTES[kind])
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset + spare_bytes)
    return path


def of_model(model: lpm.ModelSpec, kind: str) -> Tensors:
    """Tensors of a plain model by the names that they have on the Hub, with products of layers of a type."""
    h, tensors = model.hidden, {}
    tensors["model.embed_tokens.weight"] = ("BF16", (model.vocab, h))
    tensors["lm_head.weight"] = ("BF16", (model.vocab, h))
    tensors["model.norm.weight"] = ("BF16", (h,))
    for index, layer in enumerate(gguf_files.layers(model)):
        a, f, start = layer.attention, layer.ffn, f"model.layers.{index}."
        assert isinstance(a, GroupedQueryAttention) and isinstance(f, GatedFfn)
        sizes = {"q": a.heads, "k": a.kv_heads, "v": a.kv_heads}
        tensors |= {f"{start}self_attn.{n}_proj.weight": (kind, (heads * a.head_dim, h)) for n, heads in sizes.items()}
        tensors[f"{start}self_attn.o_proj.weight"] = (kind, (h, a.heads * a.head_dim))
        tensors |= {f"{start}mlp.{n}_proj.weight": (kind, (f.intermediate, h)) for n in ("gate", "up")}
        tensors[f"{start}mlp.down_proj.weight"] = (kind, (h, f.intermediate))
        tensors |= {f"{start}{n}_layernorm.weight": ("BF16", (h,)) for n in ("input", "post_attention")}
    return tensors


@settings(max_examples=20, deadline=None)
@given(kind=st.sampled_from(("BF16", "F16", "F32", "F8_E4M3")), parts=st.integers(1, 4))
def test_weights_take_the_bytes_of_the_files(kind: str, parts: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, model = tmp_path_factory.mktemp("checkpoint"), LAYERS["plain"][1]
    tensors = list(of_model(model, kind).items())
    files = {f"model-{n}.safetensors": dict(tensors[n::parts]) for n in range(parts)}
    for name, own in files.items():
        shard(folder / name, own)
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {tensor: name for name, own in files.items() for tensor in own},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    checkpoint = safetensors.read(folder)
    assert checkpoint == safetensors.read(folder / "model.safetensors.index.json")
    assert checkpoint.values == model.parameters
    assert sum(checkpoint.dtype_bytes.values()) == checkpoint.stored_bytes
    precision = safetensors.precision_as_stored(checkpoint, model)
    e = lpm.estimate(model=model, precision=precision, gpu="h100-sxm-80gb")
    assert e.memory.weights_bytes == pytest.approx(checkpoint.stored_bytes, rel=1e-9)


def test_an_index_alone_says_the_bytes_of_all(tmp_path: Path) -> None:
    model, path = load(lpm.ModelSpec, "llama-3.1-8b"), tmp_path / "model.safetensors.index.json"
    weight_map = {"model.norm.weight": "model-00004-of-00004.safetensors"}
    saved(path, {"metadata": {"total_size": 16060522496}, "weight_map": weight_map})
    checkpoint = safetensors.read(path)
    assert (checkpoint.stored_bytes, checkpoint.tensors) == (16060522496, {})
    precision = safetensors.precision_as_stored(checkpoint, model)
    assert precision.weight_bytes == pytest.approx(2.0, rel=1e-6)
    e = lpm.estimate(model=model, precision=precision, gpu="h100-sxm-80gb")
    assert e.memory.weights_bytes == pytest.approx(16060522496, rel=1e-9)
    four_bits = load(lpm.PrecisionSpec, "w4a16")
    saved(path, {"metadata": {"total_size": 5730000000}, "weight_map": weight_map})
    packed = safetensors.precision_as_stored(safetensors.read(path), model, four_bits)
    e = lpm.estimate(model=model, precision=packed, gpu="h100-sxm-80gb")
    assert e.memory.weights_bytes == pytest.approx(5730000000, rel=1e-9)
    with pytest.raises(lpm.SpecError, match="give its safetensors files too, or name a precision"):
        safetensors.precision_as_stored(safetensors.read(path), model)


def test_packed_weights_need_a_precision(tmp_path: Path) -> None:
    model = LAYERS["plain"][1]
    tensors = of_model(model, "BF16")
    packed = {
        name: ("I32", (shape[0], shape[1] // 8)) if "proj" in name else (kind, shape)
        for name, (kind, shape) in tensors.items()
    }
    checkpoint = safetensors.read(shard(tmp_path / "model.safetensors", packed))
    with pytest.raises(lpm.SpecError, match="weights are packed as I32, and nothing says how they are multiplied"):
        safetensors.precision_as_stored(checkpoint, model)
    precision = safetensors.precision_as_stored(checkpoint, model, load(lpm.PrecisionSpec, "w4a16"))
    assert precision.scheme == "int4_weights"
    e = lpm.estimate(model=model, precision=precision, gpu="h100-sxm-80gb")
    assert e.memory.weights_bytes == pytest.approx(checkpoint.stored_bytes, rel=1e-9)


CONFIG: Data = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 512, "intermediate_size": 1024,
    "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 1000,
    "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_folder_with_a_config_and_weights_is_a_model_as_stored(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "tiny-llama"
    folder.mkdir()
    saved(folder / "config.json", CONFIG)
    assert lpm.estimate(model=str(folder)).case.precision.name == "w16a16"
    path = shard(folder / "model.safetensors", of_model(LAYERS["plain"][1], "F8_E4M3"))
    (folder / "config.json").touch()
    e = lpm.estimate(model=str(folder), gpu="h100-sxm-80gb")
    assert e.case.model.parameters == LAYERS["plain"][1].parameters
    assert e.memory.weights_bytes == pytest.approx(safetensors.read(path).stored_bytes, rel=1e-9)
    assert e.case.precision.scheme == "fp8"
    assert run("infer", "--model", str(folder), "--gpu", "h100-sxm-80gb").out.startswith("tiny-llama on NVIDIA H100")
    named = lpm.estimate(model=str(folder), precision="bf16", gpu="h100-sxm-80gb")
    assert named.memory.weights_bytes == 2.0 * LAYERS["plain"][1].parameters
    ran = run("infer", "--model", "llama-2-7b", "--gpu", str(folder))
    assert ran.err == f"error: {folder}/config.json: is a config of a model, where a GPU is needed\n"


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _cut_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _broken_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 4) + b"{oh!")


def _other_type(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"BF16"', b'"BF17"'))


def _other_shape(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"[1000, 512]", b"[1001, 512]"))


def _no_offsets(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"data_offsets", b"data_ofsetts"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_cut, r"holds \d+ bytes of tensors, and its header lists \d+: it is cut off"),
        (_cut_header, "is no safetensors file, or its header is cut off"),
        (_broken_header, "is no JSON, or a part of it is missing"),
        (_other_type, r"tensor \S+ has the unknown dtype BF17; known: F64, .*"),
        (
            _other_shape,
            r"tensor model.embed_tokens.weight of BF16 \[1001, 512\] takes 1024000 bytes: header and shape disagree",
        ),
        (_no_offsets, r"tensor \S+ has no dtype, shape and data_offsets"),
        (Path.unlink, "cannot be read: No such file or directory"),
    ],
)
def test_what_is_refused_of_safetensors(change: Callable[[Path], None], problem: str, tmp_path: Path) -> None:
    path = shard(tmp_path / "model.safetensors", of_model(LAYERS["plain"][1], "BF16"))
    change(path)
    with pytest.raises(lpm.SpecError) as caught:
        safetensors.read(path)
    assert re.fullmatch(re.escape(f"{path}: ") + problem, str(caught.value))


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (
            {"metadata": {"total_size": 5}},
            "is no index of safetensors files: it has no weight_map of tensors and files",
        ),
        (
            {"weight_map": {"a": "b.safetensors"}},
            "b.safetensors is not beside it, and metadata.total_size is None: give either",
        ),
    ],
)
def test_what_is_refused_of_an_index(index: Data, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    saved(path, index)
    with pytest.raises(lpm.SpecError) as caught:
        safetensors.read(path)
    assert str(caught.value) == f"{path}: {problem}"


# Packages and commands.


@pytest.mark.parametrize(("package", "extra", "name"), [("yaml", "yaml", "x.yaml"), ("gguf", "gguf", "x.gguf")])
def test_packages_are_asked_for_where_they_are_missing(
    package: str, extra: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    if extra == "yaml":
        system(path)
    else:
        gguf_files.write(LAYERS["plain"][1], path)
    monkeypatch.setitem(sys.modules, package, None)
    assert refused(path).endswith(f": pip install 'llm-perf-model[{extra}]'")


@pytest.mark.parametrize("kind", ["model", "gpu", "precision", "link"])
def test_what_is_written_is_read_again(kind: str, tmp_path: Path, run: Run) -> None:
    if kind == "gpu" or kind == "link":
        path = system(tmp_path / "h200_sxm.yaml")
    else:
        path = str(tmp_path / "small.gguf")
        gguf_files.write(LAYERS["experts"][1], Path(path), "qwen2moe", gguf_files.Q.Q4_K)
    written = tmp_path / "written.json"
    ran = run("import_file", path, "--kind", kind, "--output", str(written))
    assert (ran.code, ran.err) == (0, "")
    spec = lpm.import_file(path, kind=kind)
    assert ran.out.startswith(f"{spec.name}: {spec.title}\n")
    assert ran.out.rstrip().endswith(f"written: {written}")
    assert load(type(spec), str(written)) == spec
    assert json.loads(run("import_file", path, "--kind", kind, "--format", "json").out) == json.loads(
        written.read_text()
    )
    assert run("show", str(written)).code == 0


def test_wrong_arguments_of_the_command(tmp_path: Path, run: Run) -> None:
    gpu = saved(tmp_path / "gpu.json", CARD)
    for arguments, problem in (
        ((), "path: is missing; give a file of another tool"),
        ((gpu, "--kind", "engine"), "kind: is 'engine'; must be model, gpu, precision, link"),
        ((gpu, "--kind", "model"), f"{gpu}: is a GPU of llm-analysis, where a model is needed"),
        ((str(tmp_path / "no.gguf"),), f"{tmp_path / 'no.gguf'}: no such file, and no folder with a config.json"),
    ):
        ran = run("import_file", *arguments)
        assert (ran.code, ran.out, ran.err) == (1, "", f"error: {problem}\n")


def test_show_and_memory_take_files_of_other_tools(tmp_path: Path, run: Run) -> None:
    gpu, model = saved(tmp_path / "gpu.json", CARD), saved(tmp_path / "model.json", LLAMA)
    assert run("show", gpu).out.startswith("a100-sxm-40gb: a100-sxm-40gb, of llm-analysis\n")
    assert run("memory", "--model", model, "--gpu", gpu).out.startswith(
        "my-llama-13b on a100-sxm-40gb, of llm-analysis"
    )
    sweep = lpm.estimate(model=model, gpu=gpu, batch_size=[1, 2, 4])
    assert np.all(np.diff(np.asarray(sweep.prefill_s)) > 0.0)


# The page.

PAGE = Path(__file__).resolve().parents[1] / "docs" / "migration.md"


def rows(heading: str) -> list[str]:
    """Cells of our names in the tables behind a heading."""
    parts = re.split(r"\n(?=## |Flags of|Keys of|Files:)", PAGE.read_text(encoding="utf-8"))
    tables = [part for part in parts if part.startswith(heading)]
    assert len(tables) == 2
    lines = [line for part in tables for line in part.splitlines() if line.startswith("| `")]
    return [line.split(" | ")[1] for line in lines]


def paths_of(data: Data, start: str = "") -> set[str]:
    own = {f"{start}{key}" for key in data}
    return own.union(*(paths_of(value, f"{start}{key}.") for key, value in data.items() if isinstance(value, dict)))


def test_every_flag_of_the_page_is_one_of_infer() -> None:
    import inspect

    from llm_perf_model.cli import COMMANDS

    flags = {f"--{name}" for name in inspect.signature(COMMANDS["infer"]).parameters}
    named = {flag for cell in rows("Flags of") for flag in re.findall(r"`([^`]+)`", cell)}
    assert len(named) >= 20
    assert named <= flags


def test_every_key_of_the_page_is_one_of_an_estimate() -> None:
    keys = paths_of(lpm.estimate(model="llama-2-7b").to_dict())
    named = {key for cell in rows("Keys of") for key in re.findall(r"`([^`]+)`", cell)}
    assert len(named) >= 16
    assert named <= keys


def test_every_field_of_the_page_is_one_of_a_file() -> None:
    import inspect

    from llm_perf_model.cli import COMMANDS
    from llm_perf_model.specs import attention, ffn, gpu, kernels

    flags = {f"--{name}" for name in inspect.signature(COMMANDS["infer"]).parameters}
    homes = {**vars(lpm), **vars(attention), **vars(ffn), **vars(gpu), **vars(kernels)}
    for name in {name for cell in rows("Files:") for name in re.findall(r"`([^`]+)`", cell)} - flags:
        kind, _, field = name.partition(".")
        assert kind in homes, name
        assert not field or field in homes[kind].model_fields, name


def test_the_page_names_every_field_that_is_read_of_llm_analysis() -> None:
    from llm_perf_model.importers import llm_analysis

    text = PAGE.read_text(encoding="utf-8")
    read = {*llm_analysis._MODEL_FIELDS, *llm_analysis._DEVICE_FIELDS, *llm_analysis._DTYPE_FIELDS}
    unnamed = {"name", "num_key_value_groups", "first_k_dense_replace", "linear_activation_bits"}
    assert {field for field in read if f"`{field}`" not in text} == unnamed
