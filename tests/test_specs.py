"""Specs: immutable, closed, strict, with an origin for every number and self-checks across fields."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from llm_perf_model.errors import RequestError, SpecError
from llm_perf_model.specs.attention import GroupedQueryAttention
from llm_perf_model.specs.base import FileSpec
from llm_perf_model.specs.catalog import FOLDERS, folder_of, load, parse
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.engine import Cache, EngineSpec
from llm_perf_model.specs.ffn import MoeFfn
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.specs.layout import LayoutSpec
from llm_perf_model.specs.link import LinkSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.network import NetworkSpec
from llm_perf_model.specs.power import PowerSpec
from llm_perf_model.specs.precision import PrecisionSpec
from llm_perf_model.specs.price import PriceSpec, TariffSpec
from llm_perf_model.specs.request import Request
from llm_perf_model.specs.workload import WorkloadSpec

Data = dict[str, Any]

EVERYTHING = [{"fields": ["*"], "reason": "made up for a test of the loader"}]

MODEL: Data = {
    "name": "tiny",
    "title": "Two layers",
    "hidden": 64,
    "vocab": 100,
    "max_positions": 128,
    "position": "learned",
    "norm": "layernorm",
    "tied_embeddings": True,
    "layers": [
        {
            "count": 2,
            "attention": {"kind": "gqa", "heads": 4, "kv_heads": 4, "head_dim": 16},
            "ffn": {"kind": "plain", "intermediate": 256, "activation": "gelu"},
        }
    ],
    "parameters": 114e3,
    "assumed": EVERYTHING,
}
NETWORK: Data = {
    "name": "tiny",
    "title": "Three layers",
    "input": [3, 8, 8],
    "layers": [
        {"kind": "conv", "channels": 4, "kernel": 3, "padding": 1},
        {"kind": "residual", "body": [{"kind": "conv", "channels": 4, "kernel": 1}]},
        {"kind": "global_pool"},
    ],
    "parameters": 124,
    "multiply_adds": 7936,
    "assumed": EVERYTHING,
}
GPU: Data = {
    "name": "card",
    "title": "A card",
    "vendor": "nvidia",
    "generation": "ampere",
    "form": "pcie",
    "launch_year": 2020,
    "sms": 100,
    "boost_hz": 1.0e9,
    "flops_per_clock_per_sm": {"vector_fp32": 128, "tensor_fp16": 1000},
    "peak_flops_per_s": {"vector_fp32": 12.8e12, "tensor_fp16": 100e12},
    "memory_kind": "HBM2",
    "memory_bus_bits": 4096,
    "memory_bits_per_s_per_pin": 2.0e9,
    "hbm_bytes": 17179869184,
    "hbm_bytes_per_s": 1.024e12,
    "l2_bytes": 4194304,
    "tdp_w": 250,
    "scale_up": {"link": "nvlink-3", "links": 4, "ranks": 2},
    "host_link": "pcie-4-x16",
    "assumed": EVERYTHING,
}
ENGINE: Data = {
    "name": "engine",
    "title": "An engine",
    "kind": "fused",
    "gemm_compute_efficiency": 0.7,
    "gemm_memory_efficiency": 0.8,
    "attention_compute_efficiency": 0.5,
    "attention_memory_efficiency": 0.6,
    "elementwise_memory_efficiency": 0.8,
    "link_efficiency": 0.75,
    "kernel_start_s": 3e-6,
    "dispatch_s": 0.0,
    "step_s": 0.0,
    "context_bytes": 1e9,
    "logits_held": ["activations"],
    "workspace": {"activation_vectors": 16.0, "score_rows": 2.0, "max_tokens": 1024, "spare_bytes": 1e6},
    "attention": "fused",
    "logits": "last",
    "assumed": EVERYTHING,
}
PRECISION: Data = {
    "name": "half",
    "title": "Half",
    "weight_bytes": 2.0,
    "activation_bytes": 2.0,
    "kv_bytes": 2.0,
    "gemm_peaks": ["tensor_fp16"],
    "assumed": EVERYTHING,
}
LINK: Data = {
    "name": "wire",
    "title": "A wire",
    "kind": "bus",
    "launch_year": 2017,
    "bytes_per_s": 25e9,
    "assumed": EVERYTHING,
}
GEMM: Data = {
    "compute_efficiency": 0.8,
    "memory_efficiency": 0.75,
    "load_bytes_per_cycle": 45.0,
    "wave_s": 1e-6,
    "split_s": 3e-6,
}
KERNELS: Data = {
    "name": "generation",
    "title": "A generation",
    "gemm": GEMM,
    "vector_gemm": {**GEMM},
    "schemes": {"int8": {"compute_efficiency": 0.7, "splits": False}},
    "convolution": {"compute_efficiency": 0.7, "columns": 64, "channel_bytes": 64, "splits": True},
    "vector_convolution": {"compute_efficiency": 0.8, "columns": 32, "splits": False, "winograd_efficiency": 0.7},
    "recurrent": {"step_s": 1e-5, "depth_cycles": 40.0, "memory_efficiency": 0.8},
    "experts": {
        "tiles": [{"rows": 16, "columns": 64, "tokens": 32}, {"rows": 128, "columns": 128}],
        "load_ratio": 0.8,
        "memory_efficiency": 0.9,
        "start_s": 1e-5,
    },
    "attention": {
        "query_rows": 128,
        "key_rows": 32,
        "compute_efficiency": 0.7,
        "exposed_exponentials": 0.0,
        "memory_efficiency": 0.8,
        "load_bytes_per_cycle": 32.0,
        "wave_s": 1e-6,
    },
    "elementwise": {
        "memory_efficiency": 0.8,
        "cache_bytes_per_cycle": 20.0,
        "row_values_per_cycle": 4.0,
        "gathered_values_per_cycle": 0.5,
    },
    "kernel_start_s": 2e-6,
    "assumed": EVERYTHING,
}
COLLECTIVE: Data = {
    "name": "rope",
    "title": "A rope",
    "start_cycles": 9000.0,
    "hop_cycles": 900.0,
    "chunk_cycles": 0.0,
    "link_efficiency": 0.75,
    "one_kernel": {
        "start_cycles": 6000.0,
        "rank_cycles": 100.0,
        "barrier_cycles": 1500.0,
        "link_efficiency": 0.5,
        "max_bytes": 8e6,
    },
    "assumed": EVERYTHING,
}
POWER: Data = {
    "name": "generation",
    "title": "A generation",
    "idle_fraction": 0.2,
    "flops_fraction": 0.6,
    "bytes_fraction": 0.7,
    "link_fraction": 0.0,
    "assumed": EVERYTHING,
}
PRICE: Data = {
    "name": "provider",
    "title": "A provider",
    "offers": {
        "a100-sxm-40gb": {"usd_per_hour": 1.5, "date": "2025-01-31"},
        "rtx-4090": {"usd_per_hour": 0.5, "date": "2025-01"},
    },
    "assumed": EVERYTHING,
}
TARIFF: Data = {
    "name": "region",
    "title": "A region",
    "usd_per_kwh": 0.1,
    "pue": 1.2,
    "date": "2024-12",
    "assumed": EVERYTHING,
}
DOCUMENTS: dict[type[FileSpec], Data] = {
    ModelSpec: MODEL,
    NetworkSpec: NETWORK,
    GpuSpec: GPU,
    EngineSpec: ENGINE,
    PrecisionSpec: PRECISION,
    LinkSpec: LINK,
    KernelSpec: KERNELS,
    CollectiveSpec: COLLECTIVE,
    PowerSpec: POWER,
    PriceSpec: PRICE,
    TariffSpec: TARIFF,
}
KINDS = pytest.mark.parametrize("kind", list(DOCUMENTS), ids=lambda kind: kind.__name__)
WHERE = "some/file.json"


def _read(kind: type[FileSpec], data: Data) -> FileSpec:
    return parse(kind, json.dumps(data).encode(), WHERE)


def _with(kind: type[FileSpec], path: str, value: object) -> Data:
    """The document of a kind with the entry at a dotted path replaced (list positions as numbers)."""
    data = copy.deepcopy(DOCUMENTS[kind])
    *parents, last = path.split(".")
    at: Any = data
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    at[int(last) if isinstance(at, list) else last] = value
    return data


def _problems(kind: type[FileSpec], data: Data) -> list[str]:
    """Lines of the message, without the headline, which must name the file and count them."""
    with pytest.raises(SpecError) as caught:
        _read(kind, data)
    headline, *lines = str(caught.value).splitlines()
    assert headline.startswith(f"{WHERE}: ")
    assert headline.split(": ")[1].startswith("1 problem in" if len(lines) == 1 else f"{len(lines)} problems in")
    assert all(line.startswith("  ") for line in lines)
    return [line.strip() for line in lines]


@KINDS
def test_document_is_accepted(kind: type[FileSpec]) -> None:
    assert _read(kind, DOCUMENTS[kind]).name == DOCUMENTS[kind]["name"]


@KINDS
def test_specs_are_frozen(kind: type[FileSpec]) -> None:
    spec = _read(kind, DOCUMENTS[kind])
    for field in type(spec).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(spec, field, getattr(spec, field))


@KINDS
def test_equal_documents_are_equal_specs(kind: type[FileSpec]) -> None:
    assert _read(kind, DOCUMENTS[kind]) == _read(kind, DOCUMENTS[kind])


@KINDS
def test_a_spec_survives_the_way_to_json_and_back(kind: type[FileSpec]) -> None:
    spec = _read(kind, DOCUMENTS[kind])
    assert parse(kind, spec.model_dump_json().encode(), WHERE) == spec


@KINDS
def test_each_required_field_is_required(kind: type[FileSpec]) -> None:
    for field, info in kind.model_fields.items():
        if info.is_required():
            data = {key: value for key, value in DOCUMENTS[kind].items() if key != field}
            assert [line.split(":")[0] for line in _problems(kind, data)] == [field]


@pytest.mark.parametrize(
    ("kind", "key", "near"),
    [
        (ModelSpec, "vocabs", "vocab"),
        (ModelSpec, "max_position", "max_positions"),
        (GpuSpec, "tdp", "tdp_w"),
        (GpuSpec, "hbm_byte", "hbm_bytes"),
        (EngineSpec, "gemm_compute_eficiency", "gemm_compute_efficiency"),
        (PrecisionSpec, "weights_bytes", "weight_bytes"),
        (LinkSpec, "byte_per_s", "bytes_per_s"),
        (KernelSpec, "experts_", "experts"),
        (CollectiveSpec, "hops_cycles", "hop_cycles"),
        (EngineSpec, "contexts_bytes", "context_bytes"),
        (GpuSpec, "usable_byte", "usable_bytes"),
        (PowerSpec, "flop_fraction", "flops_fraction"),
        (PriceSpec, "offer", "offers"),
        (TariffSpec, "usd_per_kw", "usd_per_kwh"),
    ],
)
def test_unknown_key_is_refused_and_the_near_field_named(kind: type[FileSpec], key: str, near: str) -> None:
    (line,) = _problems(kind, _with(kind, key, 1))
    assert line.startswith(f"{key}: ")
    assert f"did you mean {near}?" in line


@KINDS
def test_unknown_key_far_from_all_fields_gets_no_hint(kind: type[FileSpec]) -> None:
    (line,) = _problems(kind, _with(kind, "zzzzqqqq", 1))
    assert "did you mean" not in line


@pytest.mark.parametrize(
    ("kind", "path", "near"),
    [
        (ModelSpec, "layers.0.attention.head_dims", "head_dim"),
        (ModelSpec, "layers.0.ffn.intermediat", "intermediate"),
        (ModelSpec, "layers.0.counts", "count"),
        (GpuSpec, "scale_up.rank", "ranks"),
        (KernelSpec, "gemm.waves_s", "wave_s"),
        (KernelSpec, "schemes.int8.split", "splits"),
        (CollectiveSpec, "one_kernel.barrier_cycle", "barrier_cycles"),
        (PriceSpec, "offers.rtx-4090.dates", "date"),
    ],
)
def test_unknown_key_inside_a_part_names_the_near_field_of_that_part(
    kind: type[FileSpec], path: str, near: str
) -> None:
    (line,) = _problems(kind, _with(kind, path, 1))
    assert f"did you mean {near}?" in line


STRICT = [
    (NetworkSpec, "input", [3, 8, 8, 8]),
    (NetworkSpec, "input", []),
    (NetworkSpec, "input.0", 0),
    (NetworkSpec, "input.0", 3.0),
    (NetworkSpec, "layers", []),
    (NetworkSpec, "layers.0.kind", "convolution"),
    (NetworkSpec, "parameters", 0),
    (ModelSpec, "hidden", "64"),
    (ModelSpec, "hidden", 64.0),
    (ModelSpec, "hidden", 64.5),
    (ModelSpec, "hidden", True),
    (ModelSpec, "hidden", None),
    (ModelSpec, "hidden", 0),
    (ModelSpec, "hidden", -64),
    (ModelSpec, "tied_embeddings", "true"),
    (ModelSpec, "tied_embeddings", 1),
    (ModelSpec, "position", "sinusoidal"),
    (ModelSpec, "layers", []),
    (ModelSpec, "layers.0.norms", 9),
    (ModelSpec, "layers.0.ffn.kind", "mixture"),
    (ModelSpec, "layers.0.attention.logit_cap", 0.0),
    (ModelSpec, "name", "Tiny"),
    (ModelSpec, "name", "tiny_model"),
    (ModelSpec, "name", ""),
    (GpuSpec, "tdp_w", "250"),
    (GpuSpec, "tdp_w", 0),
    (GpuSpec, "tdp_w", -1.0),
    (GpuSpec, "launch_year", 1999),
    (GpuSpec, "launch_year", 2020.5),
    (GpuSpec, "vendor", "acme"),
    (GpuSpec, "scale_up.ranks", 1),
    (GpuSpec, "l2_bytes", -1),
    (EngineSpec, "link_efficiency", 0.0),
    (EngineSpec, "link_efficiency", 1.01),
    (EngineSpec, "link_efficiency", -0.5),
    (EngineSpec, "link_efficiency", "0.5"),
    (EngineSpec, "kernel_start_s", -1e-9),
    (EngineSpec, "fused", ["everything"]),
    (PrecisionSpec, "gemm_peaks", []),
    (PrecisionSpec, "gemm_peaks", ["tensor_fp17"]),
    (PrecisionSpec, "weight_bytes", 0.0),
    (LinkSpec, "bytes_per_s", 0.0),
    (LinkSpec, "peer_access", "no"),
    (PrecisionSpec, "scheme", "int3"),
    (PrecisionSpec, "narrowing_pass", 1),
    (PrecisionSpec, "input_bytes", 0.0),
    (EngineSpec, "compute_ratio", 0.0),
    (EngineSpec, "attention_padded", "yes"),
    (KernelSpec, "gemm.compute_efficiency", 1.01),
    (KernelSpec, "gemm.load_bytes_per_cycle", 0.0),
    (KernelSpec, "gemm.wave_s", -1e-9),
    (KernelSpec, "attention.query_rows", 64.0),
    (KernelSpec, "attention.exposed_exponentials", -0.1),
    (KernelSpec, "schemes.int8.compute_efficiency", 0.0),
    (KernelSpec, "experts.load_ratio", 0.0),
    (CollectiveSpec, "hop_cycles", -1.0),
    (CollectiveSpec, "one_kernel.max_bytes", 0.0),
    (CollectiveSpec, "buffer_bytes", -1.0),
    (ModelSpec, "wide_logits", 1),
    (GpuSpec, "usable_bytes", 0),
    (EngineSpec, "context_bytes", -1.0),
    (EngineSpec, "graph_bytes", "1e9"),
    (EngineSpec, "overallocation", 0.99),
    (EngineSpec, "cache", "in_place"),
    (EngineSpec, "block_tokens", 0),
    (EngineSpec, "block_tokens", 16.0),
    (EngineSpec, "pool_fraction", 0.0),
    (EngineSpec, "pool_fraction", 1.01),
    (EngineSpec, "pool_of", "everything"),
    (EngineSpec, "pass_tokens", 0),
    (EngineSpec, "pass_sequences", 2.5),
    (EngineSpec, "logits_held.0", "float16"),
    (EngineSpec, "workspace.max_tokens", 0),
    (EngineSpec, "workspace.spare_bytes", -1.0),
    (PowerSpec, "idle_fraction", 0.0),
    (PowerSpec, "idle_fraction", 1.01),
    (PowerSpec, "flops_fraction", -0.1),
    (PowerSpec, "link_fraction", "0.1"),
    (PriceSpec, "offers", {}),
    (PriceSpec, "offers.rtx-4090.usd_per_hour", 0.0),
    (PriceSpec, "offers.rtx-4090.usd_per_hour", "0.5"),
    (PriceSpec, "offers.rtx-4090.date", "31.1.2025"),
    (PriceSpec, "offers.rtx-4090.date", "2025"),
    (TariffSpec, "usd_per_kwh", 0.0),
    (TariffSpec, "pue", 0.99),
    (TariffSpec, "date", "January 2025"),
]


@pytest.mark.parametrize(("kind", "path", "value"), STRICT, ids=lambda value: getattr(value, "__name__", repr(value)))
def test_value_of_the_wrong_type_or_range_is_refused_by_its_path(
    kind: type[FileSpec], path: str, value: object
) -> None:
    lines = _problems(kind, _with(kind, path, value))
    assert len(lines) == 1
    assert lines[0].startswith(path.removesuffix(".kind"))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (ModelSpec, "parameters"),
        (NetworkSpec, "multiply_adds"),
        (GpuSpec, "tdp_w"),
        (EngineSpec, "step_s"),
        (CollectiveSpec, "hop_cycles"),
        (KernelSpec, "attention.wave_s"),
        (EngineSpec, "context_bytes"),
        (PowerSpec, "idle_fraction"),
        (PriceSpec, "offers.rtx-4090.usd_per_hour"),
        (TariffSpec, "pue"),
    ],
)
def test_numbers_are_finite(kind: type[FileSpec], path: str, number: float) -> None:
    (line,) = _problems(kind, _with(kind, path, number))
    assert line.startswith(f"{path}: ")


def test_a_number_too_large_for_a_float_is_refused() -> None:
    text = json.dumps(LINK).replace("25000000000.0", "1e999").encode()
    with pytest.raises(SpecError, match="bytes_per_s"):
        parse(LinkSpec, text, WHERE)


def test_one_efficiency_is_a_fair_value() -> None:
    assert _read(EngineSpec, _with(EngineSpec, "link_efficiency", 1.0))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (GpuSpec, "a100-sxm-40gb"),
        (GpuSpec, "mi300x-oam-192gb"),
        (ModelSpec, "test-13b"),
        (NetworkSpec, "resnet18"),
        (EngineSpec, "fastertransformer"),
        (PrecisionSpec, "w16a16"),
        (LinkSpec, "nvlink-3"),
        (PrecisionSpec, "w4a16"),
        (KernelSpec, "ampere"),
        (CollectiveSpec, "fabric"),
        (EngineSpec, "vllm"),
        (EngineSpec, "deepspeed-inference"),
        (PowerSpec, "ampere"),
    ],
)
def test_a_number_without_an_origin_is_refused_by_its_path(kind: type[FileSpec], name: str) -> None:
    original = json.loads((folder_of(kind) / f"{name}.json").read_text(encoding="utf-8"))
    entries = [(word, entry) for word in ("sources", "assumed", "fits") for entry in original.get(word, [])]
    fields = [field for _, entry in entries for field in entry["fields"]]
    assert "*" not in fields
    for field in fields:
        if fields.count(field) > 1 or not _numeric(_at(original, field)):
            continue
        data = copy.deepcopy(original)
        for word in ("sources", "assumed", "fits"):
            kept = [e | {"fields": [f for f in e["fields"] if f != field]} for e in data.get(word, [])]
            data[word] = [e for e in kept if e["fields"]]
        lines = _problems(kind, data)
        assert lines
        for line in lines:
            assert line.split(":")[0].split(".")[: field.count(".") + 1] == field.split(".")
            assert "no entry of sources, fits or assumed names this number" in line


def _at(data: Data, field: str) -> Any:
    at: Any = data
    for part in field.split("."):
        at = at.get(part) if isinstance(at, dict) else None
    return at


def _numeric(value: object) -> bool:
    if isinstance(value, dict):
        return any(_numeric(item) for item in value.values())
    if isinstance(value, list):
        return any(_numeric(item) for item in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_numbers_below_a_list_are_named_by_their_path() -> None:
    data = {key: value for key, value in MODEL.items() if key != "assumed"}
    data["assumed"] = [{"fields": ["hidden", "vocab", "max_positions", "parameters"], "reason": "made up for a test"}]
    named = {line.split(":")[0] for line in _problems(ModelSpec, data)}
    assert named >= {"layers.count", "layers.attention.heads", "layers.attention.head_dim", "layers.ffn.intermediate"}
    assert all(name.startswith("layers.") for name in named)


def test_the_origin_of_a_whole_covers_its_parts() -> None:
    data = copy.deepcopy(MODEL)
    data["assumed"] = [
        {"fields": ["hidden", "vocab", "max_positions", "parameters", "layers"], "reason": "made up for a test"}
    ]
    assert _read(ModelSpec, data)


@pytest.mark.parametrize(
    "fields",
    [["hiden"], ["hiden", "*"], ["*", "layers.attention.headz"]],
    ids=["a name", "beside the star", "a part of a field"],
)
def test_an_origin_that_names_no_field_is_refused(fields: list[str]) -> None:
    wrong = next(field for field in fields if field != "*")
    data = copy.deepcopy(MODEL)
    data["assumed"] = [*EVERYTHING, {"fields": fields, "reason": "made up for a test"}]
    if "*" not in fields:
        known = ["hidden", "vocab", "max_positions", "parameters", "layers"]
        data["assumed"] = [{"fields": known + fields, "reason": "made up for a test"}]
    assert any(line.startswith(f"{wrong}: ") for line in _problems(ModelSpec, data))


@pytest.mark.parametrize("url", ["", "whitepaper", "ftp://a.b/c", "www.nvidia.com", "notes/whitepaper.txt", "https://"])
def test_a_source_needs_an_address(url: str) -> None:
    data = _with(LinkSpec, "sources", [{"fields": ["*"], "title": "A paper", "url": url}])
    (line,) = _problems(LinkSpec, data)
    assert line.startswith("sources.0.url: ")


@pytest.mark.parametrize("url", ["https://a.b/c", "http://a.b", "arxiv:2205.14135", "doi:10.1/2", "records/a.csv"])
def test_addresses_of_a_source(url: str) -> None:
    assert _read(LinkSpec, _with(LinkSpec, "sources", [{"fields": ["*"], "title": "A paper", "url": url}]))


@pytest.mark.parametrize("reason", ["", "guess"])
def test_an_assumption_needs_a_reason_of_some_length(reason: str) -> None:
    (line,) = _problems(LinkSpec, _with(LinkSpec, "assumed", [{"fields": ["*"], "reason": reason}]))
    assert line.startswith("assumed.0.reason: ")


def test_an_origin_names_at_least_one_field() -> None:
    (line,) = _problems(LinkSpec, _with(LinkSpec, "assumed.0.fields", []))
    assert line.startswith("assumed.0.fields: ")


FIT = {"fields": ["link_efficiency"], "records": ["a.csv"], "rows": 3, "date": "2025-01-31", "error": "8 % median"}


@pytest.mark.parametrize(
    ("key", "value"), [("records", []), ("rows", 0), ("date", "31.1.2025"), ("date", "2025-1-3"), ("error", "")]
)
def test_a_fit_says_records_rows_date_and_error(key: str, value: object) -> None:
    assert _read(EngineSpec, _with(EngineSpec, "fits", [FIT]))
    (line,) = _problems(EngineSpec, _with(EngineSpec, "fits", [FIT | {key: value}]))
    assert line.startswith(f"fits.0.{key}")


@pytest.mark.parametrize("name", ["a100-sxm-80gb", "h100-sxm-80gb", "rtx-4090", "mi300x-oam-192gb"])
@pytest.mark.parametrize("peak", ["tensor_fp16", "tensor_bf16"])
def test_a_sparse_peak_entered_as_dense_is_refused(name: str, peak: str) -> None:
    data = json.loads(load(GpuSpec, name).model_dump_json(exclude_none=True))
    data["peak_flops_per_s"][peak] *= 2.0
    (line,) = _problems(GpuSpec, data)
    assert line.startswith(f"peak_flops_per_s.{peak}: ")
    assert "sparse" in line
    assert "2.00" in line


@pytest.mark.parametrize("factor", [0.5, 0.97, 1.03, 1.5, 10.0])
def test_a_peak_that_is_not_units_times_clock_is_refused(factor: float) -> None:
    (line,) = _problems(GpuSpec, _with(GpuSpec, "peak_flops_per_s.tensor_fp16", 100e12 * factor))
    assert line.startswith("peak_flops_per_s.tensor_fp16: ")
    assert "sparse" not in line
    assert f"{factor:.2f}" in line


@pytest.mark.parametrize("factor", [0.985, 1.0, 1.015])
def test_rounding_of_a_datasheet_is_tolerated(factor: float) -> None:
    assert _read(GpuSpec, _with(GpuSpec, "peak_flops_per_s.tensor_fp16", 100e12 * factor))


@pytest.mark.parametrize("table", ["peak_flops_per_s", "flops_per_clock_per_sm"])
def test_both_tables_of_peaks_name_the_same_units(table: str) -> None:
    other = {"peak_flops_per_s": "flops_per_clock_per_sm", "flops_per_clock_per_sm": "peak_flops_per_s"}[table]
    (line,) = _problems(GpuSpec, _with(GpuSpec, table, GPU[table] | {"tensor_int8": 2000}))
    assert line == f"{table}.tensor_int8: has no counterpart in {other}"


@pytest.mark.parametrize("factor", [0.5, 0.95, 1.05, 2.0])
def test_bandwidth_that_is_not_bus_times_rate_is_refused(factor: float) -> None:
    (line,) = _problems(GpuSpec, _with(GpuSpec, "hbm_bytes_per_s", 1.024e12 * factor))
    assert line.startswith("hbm_bytes_per_s: ")
    assert "memory_bus_bits" in line


@pytest.mark.parametrize("missing", ["memory_bus_bits", "memory_bits_per_s_per_pin"])
def test_bandwidth_is_not_held_against_a_bus_that_is_not_stated(missing: str) -> None:
    data = {key: value for key, value in GPU.items() if key != missing} | {"hbm_bytes_per_s": 5e11}
    assert _read(GpuSpec, data)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cache": "paged"}, "block_tokens"),
        ({"cache": "concatenated"}, "concat_values_per_clock_per_sm"),
        ({"cache": "concatenated_by_layer"}, "concat_values_per_clock_per_sm"),
        ({"concatenated_positions": ["alibi"]}, "concat_values_per_clock_per_sm"),
        ({"fast_head_dims": [64]}, "slow_attention_memory_efficiency"),
        ({"staged_positions": ["learned"]}, "staged_bytes_per_s"),
    ],
)
def test_what_a_choice_of_an_engine_needs_is_asked_for(changes: Data, field: str) -> None:
    (line,) = _problems(EngineSpec, ENGINE | changes)
    assert line.startswith(f"{field}: is missing, but ")
    given = 16 if field == "block_tokens" else 0.5
    assert _read(EngineSpec, ENGINE | changes | {field: given})


@pytest.mark.parametrize("share", [0.5, 0.899, 1.001, 2.0])
def test_nearly_all_of_a_device_is_usable(share: float) -> None:
    (line,) = _problems(GpuSpec, GPU | {"usable_bytes": share * GPU["hbm_bytes"]})
    assert line.startswith("usable_bytes: is ")
    assert "between 90 % and all are usable" in line


@pytest.mark.parametrize("share", [0.901, 0.96, 1.0])
def test_the_capacity_is_what_is_usable(share: float) -> None:
    spec = _read(GpuSpec, GPU | {"usable_bytes": share * GPU["hbm_bytes"]})
    assert isinstance(spec, GpuSpec)
    assert spec.capacity_bytes == share * 17179869184
    unknown = _read(GpuSpec, GPU)
    assert isinstance(unknown, GpuSpec)
    assert unknown.capacity_bytes == 17179869184


@pytest.mark.parametrize(("position", "cache"), [("alibi", "concatenated"), ("rotary", "contiguous")])
def test_the_cache_of_an_engine_may_depend_on_the_positions(position: str, cache: str) -> None:
    changes = {"concatenated_positions": ["alibi"], "concat_values_per_clock_per_sm": 0.4}
    spec = _read(EngineSpec, ENGINE | changes)
    assert isinstance(spec, EngineSpec)
    assert spec.cache_of(position) == cache
    assert spec.concatenates(spec.cache_of(position)) == (position == "alibi")


@pytest.mark.parametrize("cache", get_args(Cache))
def test_a_cache_is_copied_as_it_grows_where_it_is_concatenated(cache: Cache) -> None:
    assert EngineSpec.concatenates(cache) == cache.startswith("concatenated")


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 3), (12, 8), (1, 2)])
def test_kv_heads_divide_heads(heads: int, kv_heads: int) -> None:
    data = _with(ModelSpec, "layers.0.attention", {"heads": heads, "kv_heads": kv_heads, "head_dim": 16})
    (line,) = _problems(ModelSpec, data)
    assert line.startswith("layers.0.attention: ")
    assert f"kv_heads = {kv_heads}" in line


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 3), (12, 8), (1, 2)])
def test_attention_itself_refuses_kv_heads_that_do_not_divide(heads: int, kv_heads: int) -> None:
    with pytest.raises(ValidationError, match=f"heads is {heads}, which kv_heads = {kv_heads} does not divide"):
        GroupedQueryAttention(heads=heads, kv_heads=kv_heads, head_dim=16)


EXPERTS: Data = {"kind": "moe", "experts": 8, "experts_per_token": 2, "intermediate": 256, "activation": "silu"}


def test_a_mixture_of_experts_is_a_feed_forward() -> None:
    spec = _read(ModelSpec, _with(ModelSpec, "layers.0.ffn", EXPERTS))
    assert isinstance(spec, ModelSpec)
    assert spec.layers[0].ffn == MoeFfn(experts=8, experts_per_token=2, intermediate=256, activation="silu")
    assert _read(ModelSpec, _with(ModelSpec, "layers.0.ffn", EXPERTS | {"experts_per_token": 8}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"experts_per_token": 9}, "experts_per_token is 9, more than the 8 experts"),
        ({"experts": 0}, "greater than or equal to 1"),
        ({"shared_intermediate": 0}, "greater than or equal to 1"),
        ({"biases": True}, "Extra inputs are not permitted"),
    ],
)
def test_a_mixture_of_experts_that_none_can_be(change: Data, words: str) -> None:
    (line,) = _problems(ModelSpec, _with(ModelSpec, "layers.0.ffn", EXPERTS | change))
    assert line.startswith("layers.0.ffn.moe")
    assert words in line


def test_other_weights_and_inputs_are_as_wide_as_the_precision_unless_told() -> None:
    plain = PrecisionSpec.model_validate_json(json.dumps(PRECISION))
    assert (plain.wide_bytes, plain.read_bytes, plain.scheme) == (2.0, 2.0, "plain")
    told = PrecisionSpec.model_validate_json(
        json.dumps(PRECISION | {"weight_bytes": 1.0, "other_weight_bytes": 4.0, "input_bytes": 0.5})
    )
    assert (told.wide_bytes, told.read_bytes) == (4.0, 0.5)


@pytest.mark.parametrize(
    "tiles",
    [
        [{"rows": 16, "columns": 64, "tokens": 32}],
        [{"rows": 16, "columns": 64}, {"rows": 128, "columns": 128}],
        [{"rows": 128, "columns": 128}, {"rows": 16, "columns": 64, "tokens_per_expert": 1.0}],
    ],
)
def test_every_pass_finds_a_tile_and_every_tile_a_pass(tiles: list[Data]) -> None:
    (line,) = _problems(KernelSpec, _with(KernelSpec, "experts.tiles", tiles))
    assert line == (
        "experts.tiles: the last tile, and no other, has no bound: a pass takes the first whose bounds it keeps"
    )


def test_learned_positions_need_rows() -> None:
    data = {key: value for key, value in MODEL.items() if key != "max_positions"}
    (line,) = _problems(ModelSpec, data)
    assert line == "position_rows: learned positions need position_rows or max_positions"
    assert _read(ModelSpec, data | {"position": "rotary"})
    assert _read(ModelSpec, data | {"position_rows": 130})


@pytest.mark.parametrize(
    ("changes", "rows"),
    [({}, 128), ({"position_rows": 130}, 130), ({"position": "rotary"}, 0), ({"position": "none"}, 0)],
)
def test_rows_of_the_position_table(changes: Data, rows: int) -> None:
    spec = _read(ModelSpec, MODEL | changes)
    assert isinstance(spec, ModelSpec)
    assert spec.learned_rows == rows


def test_all_problems_of_fields_are_reported_at_once() -> None:
    data = _with(ModelSpec, "layers.0.attention.kv_heads", 3)
    data |= {"hidden": "64", "vocab": -1, "vocabs": 3, "position": "absolute"}
    del data["norm"]
    named = {line.split(":")[0] for line in _problems(ModelSpec, data)}
    assert named == {"layers.0.attention", "hidden", "vocab", "vocabs", "position", "norm"}


def test_all_problems_across_fields_are_reported_at_once() -> None:
    data = _with(GpuSpec, "peak_flops_per_s", {"vector_fp32": 25.6e12, "tensor_fp16": 90e12})
    data |= {"hbm_bytes_per_s": 2e12, "assumed": [{"fields": ["sms", "speed"], "reason": "made up for a test"}]}
    named = {line.split(":")[0] for line in _problems(GpuSpec, data)}
    assert named >= {
        "peak_flops_per_s.vector_fp32",
        "peak_flops_per_s.tensor_fp16",
        "hbm_bytes_per_s",
        "speed",
        "tdp_w",
    }


@pytest.mark.parametrize("text", [b"", b"{", b'{"name": "x",}', b"\xff\xfe", b"nul"])
@KINDS
def test_broken_json_is_one_problem_that_names_the_file(kind: type[FileSpec], text: bytes) -> None:
    with pytest.raises(SpecError, match=f"^{WHERE}: is no {FOLDERS[kind][0]} file: .*JSON"):
        parse(kind, text, WHERE)


@pytest.mark.parametrize("text", [b"[]", b"[1, 2]", b"3", b'"name"', b"null", b"true"])
@KINDS
def test_json_that_is_no_object_is_refused(kind: type[FileSpec], text: bytes) -> None:
    with pytest.raises(SpecError, match=f"^{WHERE}: is no .* file: it holds no object$"):
        parse(kind, text, WHERE)


@pytest.mark.parametrize("data", [{"foo": 1}, {"name": "x", "version": "1.0"}])
def test_a_file_of_something_else_is_refused_in_one_line(data: Data) -> None:
    with pytest.raises(SpecError) as caught:
        parse(ModelSpec, json.dumps(data).encode(), WHERE)
    needed = "title, hidden, vocab, position, norm, tied_embeddings, layers, parameters"
    assert str(caught.value).endswith(f": is no model file: it lacks {'' if 'name' in data else 'name, '}{needed}")


@pytest.mark.parametrize("part", [{"tp": 0}, {"tp": 1.5}, {"tp": "2"}, {"dp": -1}, {"tq": 2}])
def test_layout_is_whole_and_positive(part: Data) -> None:
    with pytest.raises(ValidationError):
        LayoutSpec(**part)


def test_layout_counts_ranks() -> None:
    assert LayoutSpec(tp=4, dp=2).ranks == 8


WRONG_COUNTS = [0, -4, 1.5, "abc", "2", True, None, float("nan"), float("inf"), [], [1, 0], [1.5], {"a": 1}, 10**400]


@pytest.mark.parametrize("field", ["batch_size", "input_len", "output_len"])
@pytest.mark.parametrize("value", WRONG_COUNTS, ids=lambda value: repr(value)[:12])
def test_a_workload_is_of_whole_positive_numbers(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match="must be a whole number of at least 1"):
        WorkloadSpec.model_validate({field: value})
    with pytest.raises(RequestError, match=f"^{field}: is .*; must be a whole number of at least 1$"):
        Request.of({"model": "test-13b", field: value})


@pytest.mark.parametrize("field", ["flops_efficiency", "hbm_memory_efficiency"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "x", "0.5", True, [], [0.5, 2.0], float("nan")], ids=repr)
def test_an_efficiency_is_a_fraction(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"^{field}: is .*; must be a number above 0 and at most 1$"):
        Request.of({"model": "test-13b", field: value})


@pytest.mark.parametrize(
    ("field", "wanted", "wrong"),
    [
        ("pool_fraction", "a number above 0 and at most 1", [0, -0.1, 1.01]),
        ("utilisation", "a number above 0 and at most 1", [0, -0.1, 1.01]),
        ("power_limit_w", "a number of watts above 0", [0, -1.0]),
        ("usd_per_gpu_hour", "a number of at least 0", [-0.01]),
        ("usd_per_kwh", "a number of at least 0", [-0.01]),
        ("pue", "a number of at least 1", [0.99, 0, -1]),
        ("energy_convention", "power or tdp", [1, 0.5]),
    ],
)
def test_a_number_of_memory_energy_or_cost_is_a_single_one_in_its_range(
    field: str, wanted: str, wrong: list[object]
) -> None:
    for value in [*wrong, "1", True, [], [0.5, 0.6], {"a": 1}, float("nan"), float("inf")]:
        with pytest.raises(RequestError) as caught:
            Request.of({"model": "test-13b", field: value})
        assert str(caught.value).startswith(f"{field}: is ")
        assert str(caught.value).endswith(f"; must be {wanted}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pool_fraction", 1),
        ("utilisation", 1e-3),
        ("power_limit_w", 250),
        ("usd_per_gpu_hour", 0),
        ("usd_per_kwh", 0),
        ("pue", 1),
        ("energy_convention", "tdp"),
    ],
)
def test_a_number_of_memory_energy_or_cost_is_kept(field: str, value: object) -> None:
    electricity = {"usd_per_kwh": 0.1} if field == "pue" else {}
    request = Request.of({"model": "test-13b", field: value, **electricity})
    assert getattr(request, field) == value
    assert isinstance(getattr(request, field), str if isinstance(value, str) else float)
    assert Request.of(request.plain()) == request


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"price": "aws", "usd_per_gpu_hour": 1}, "price and usd_per_gpu_hour exclude each other: give one of them"),
        ({"pue": 1.2}, "pue has no effect without a price of electricity: give tariff or usd_per_kwh too"),
    ],
)
def test_prices_that_do_not_count_together_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        Request.of({"model": "test-13b", **fields})


@pytest.mark.parametrize("field", ["tp", "pp", "dp", "ep", "num_beams"])
@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, "2", True, None, [1, 2]], ids=repr)
def test_a_structural_number_is_a_single_whole_one(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=f"^{field}: is .*; must be a whole number of at least 1$"):
        Request.of({"model": "test-13b", field: value})


def test_numbers_of_a_workload_become_float64() -> None:
    workload = WorkloadSpec(batch_size=2, input_len=np.array([1, 2], dtype=np.int32), output_len=[3, 4])
    assert isinstance(workload.batch_size, float)
    for value in (workload.input_len, workload.output_len):
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.float64


def test_a_request_reports_every_wrong_field_once_in_one_line() -> None:
    with pytest.raises(RequestError) as caught:
        Request.of({"tp": 0, "batch_size": -1, "flops_efficiency": 2, "batchsize": 3})
    message = str(caught.value)
    assert "\n" not in message
    assert [part.split(":")[0] for part in message.split("; ") if ": " in part] == [
        "model", "tp", "batch_size", "flops_efficiency", "batchsize"
    ]  # fmt: skip
    assert "did you mean batch_size?" in message


@pytest.mark.parametrize("field", ["model", "gpu", "engine", "precision", "link", "price", "tariff"])
@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {"name": "x"}, (1,)], ids=repr)
def test_a_name_is_text_or_a_spec(field: str, value: object) -> None:
    with pytest.raises(RequestError) as caught:
        Request.of({"model": "test-13b", field: value})
    assert str(caught.value) == f"{field}: is {value!r}; must be a name, a path to a JSON file or a spec"


@pytest.mark.parametrize("field", ["model", "gpu", "engine", "precision", "link", "price", "tariff"])
def test_a_flag_without_a_value_is_called_that(field: str) -> None:
    with pytest.raises(RequestError, match=f"^{field}: is given without a value; "):
        Request.of({"model": "test-13b", field: True})


def test_a_spec_of_another_kind_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^gpu: is .*must be a name"):
        Request.of({"model": "test-13b", "gpu": load(LinkSpec, "nvlink-3")})


def test_a_request_holds_specs_as_they_are() -> None:
    spec = load(GpuSpec, "rtx-4090")
    assert Request.of({"model": "test-13b", "gpu": spec}).gpu is spec
    assert Request.of({"model": "test-13b", "gpu": spec}).plain()["gpu"] == "rtx-4090"


def test_a_plain_request_is_json() -> None:
    request = Request.of({"model": "test-13b", "batch_size": np.array([1.0, 2.0]), "input_len": 128, "tp": 2})
    plain = json.loads(json.dumps(request.plain()))
    assert (plain["batch_size"], plain["input_len"], plain["tp"], plain["link"]) == ([1, 2], 128, 2, None)


def test_a_request_is_frozen_and_its_own_dictionary_builds_it_again() -> None:
    request = Request.of({"model": "test-13b", "tp": 2, "input_len": 100})
    with pytest.raises(ValidationError, match="frozen"):
        request.tp = 4  # type: ignore[misc]
    assert Request.of(request.plain()) == request


@pytest.mark.parametrize("make", [lambda p: p, Path], ids=["text", "path"])
def test_files_of_a_name_and_of_a_path_are_the_same_spec(make: Callable[[str], object]) -> None:
    path = folder_of(LinkSpec) / "nvlink-3.json"
    assert load(LinkSpec, str(make(str(path)))) == load(LinkSpec, "nvlink-3")
