"""The data files: all load, name themselves, cite their sources and hold plausible numbers."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from llm_perf_model.graph.stack import build, parameters
from llm_perf_model.specs.attention import GroupedQueryAttention
from llm_perf_model.specs.base import CoefficientSpec, FileSpec
from llm_perf_model.specs.catalog import FOLDERS, folder_of, load, names
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.ffn import MoeFfn
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.specs.link import LinkSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.power import PowerSpec
from llm_perf_model.specs.precision import PrecisionSpec, Scheme
from llm_perf_model.specs.price import PriceSpec, TariffSpec
from llm_perf_model.validation.fit import bounds_of, value_at

from .strategies import PRECISIONS

FILES = [(kind, path) for kind in FOLDERS for path in sorted(folder_of(kind).glob("*.json"))]
EVERY_FILE = pytest.mark.parametrize(
    ("kind", "path"), FILES, ids=[f"{path.parent.name}/{path.stem}" for _, path in FILES]
)
EVERY_GPU = pytest.mark.parametrize("name", names(GpuSpec))
EVERY_LINK = pytest.mark.parametrize("name", names(LinkSpec))
EVERY_MODEL = pytest.mark.parametrize("name", names(ModelSpec))

_GPUS = """
a100-sxm-40gb a100-sxm-80gb a100-pcie-40gb a100-pcie-80gb rtx-a5000 rtx-a6000 rtx-2080ti rtx-3080ti rtx-3090
rtx-4090 rtx-5090 v100-sxm-16gb v100-sxm-32gb v100-pcie-16gb v100-pcie-32gb t4-pcie-16gb p100-sxm-16gb
p100-pcie-16gb l4-pcie-24gb l40s-pcie-48gb a10-pcie-24gb a10g-24gb a30-pcie-24gb a40-pcie-48gb rtx-6000-ada
rtx-pro-6000-blackwell h100-sxm-80gb h100-pcie-80gb h100-nvl-94gb h200-sxm-141gb gh200-96gb gh200-144gb
b200-sxm-180gb b300-sxm-288gb gb200-186gb mi210-pcie-64gb mi250x-oam-128gb mi300x-oam-192gb mi325x-oam-256gb
mi355x-oam-288gb gaudi-2-oam-96gb gaudi-3-oam-128gb tpu-v5e tpu-v5p tpu-v6e ryzen-9-5950x
"""

_MODELS = """
test-13b gpt3-125m gpt3-350m gpt3-760m gpt3-1.3b gpt3-2.7b gpt3-6.7b gpt3-13b opt-1.3b opt-6.7b aicrossim-clm-60m
aicrossim-clm-200m aicrossim-clm-400m aicrossim-clm-600m aicrossim-clm-1.1b bloom-24l-2048h gpt-neo-125m llama-2-7b
llama-2-13b llama-2-70b llama-3-8b llama-3-70b llama-3.1-8b llama-3.1-70b llama-3.1-405b mistral-7b-v0.1
qwen2.5-0.5b qwen2.5-1.5b qwen2.5-3b qwen2.5-7b qwen2.5-14b qwen2.5-32b qwen2.5-72b qwen3-0.6b qwen3-1.7b qwen3-4b
qwen3-8b qwen3-14b qwen3-32b gpt-j-6b falcon-7b falcon-40b falcon-180b mpt-7b mpt-30b gemma-2-2b gemma-2-9b
gemma-2-27b
"""

MACHINE_PATH = re.compile(r"(?<![\w./-])/(work|root|tmp|home)\b")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


@EVERY_FILE
def test_file_loads_under_its_own_name(kind: type[FileSpec], path: Path) -> None:
    spec = load(kind, str(path))
    assert spec.name == path.stem
    assert load(kind, path.stem) == spec


@EVERY_FILE
def test_file_has_a_title_and_says_no_key_twice(kind: type[FileSpec], path: Path) -> None:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        assert len(keys) == len(set(keys)), keys
        return dict(pairs)

    data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    assert data["title"].strip()
    assert load(kind, path.stem).title == data["title"]


@EVERY_FILE
def test_file_cites_public_addresses(kind: type[FileSpec], path: Path) -> None:
    for source in load(kind, path.stem).sources:
        assert re.match(r"https?://[\w-]+(\.[\w-]+)+|arxiv:\d{4}\.\d{4,5}|doi:10\.\d+/|records/\S+\.csv$", source.url)
        assert " " not in source.url
        assert len(source.title) > 8


@EVERY_FILE
def test_file_names_no_path_of_a_machine(kind: type[FileSpec], path: Path) -> None:
    assert kind in FOLDERS
    found = [text for text in _texts(json.loads(path.read_text(encoding="utf-8"))) if MACHINE_PATH.search(text)]
    assert found == []


@EVERY_FILE
def test_file_ends_with_one_newline(kind: type[FileSpec], path: Path) -> None:
    assert kind in FOLDERS
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n")
    assert "\t" not in text
    assert "\r" not in text


@EVERY_FILE
def test_aliases_of_a_file_say_something_new(kind: type[FileSpec], path: Path) -> None:
    spec = load(kind, path.stem)
    assert len({alias.lower() for alias in spec.aliases}) == len(spec.aliases)
    assert spec.name not in spec.aliases
    assert all(alias.strip() == alias and alias for alias in spec.aliases)


# Devices.


@pytest.mark.parametrize("name", _GPUS.split())
def test_asked_for_device_is_there(name: str) -> None:
    assert name in names(GpuSpec)


@EVERY_GPU
def test_links_of_a_device_exist(name: str) -> None:
    gpu = load(GpuSpec, name)
    assert gpu.host_link in names(LinkSpec)
    assert gpu.scale_up is None or gpu.scale_up.link in names(LinkSpec)


@EVERY_GPU
def test_host_link_is_no_network(name: str) -> None:
    assert load(LinkSpec, load(GpuSpec, name).host_link).kind != "network"


ORDERED = [
    ("tensor_fp4", "tensor_fp8"),
    ("tensor_fp4", "tensor_fp6"),
    ("tensor_fp6", "tensor_fp8"),
    ("tensor_fp8", "tensor_fp16"),
    ("tensor_fp8", "tensor_bf16"),
    ("tensor_fp8_acc16", "tensor_fp8"),
    ("tensor_fp16_acc16", "tensor_fp16"),
    ("tensor_fp8_acc16", "tensor_fp16_acc16"),
    ("tensor_fp16", "tensor_tf32"),
    ("tensor_bf16", "tensor_tf32"),
    ("tensor_tf32", "vector_fp32"),
    ("tensor_fp16", "vector_fp16"),
    ("tensor_fp16", "vector_fp32"),
    ("tensor_bf16", "vector_bf16"),
    ("tensor_int4", "tensor_int8"),
    ("vector_fp32", "vector_fp64"),
    ("tensor_fp64", "vector_fp64"),
]


@EVERY_GPU
def test_fewer_bits_are_not_slower(name: str) -> None:
    peaks = load(GpuSpec, name).peak_flops_per_s
    for narrow, wide in ORDERED:
        if narrow in peaks and wide in peaks:
            assert peaks[narrow] >= peaks[wide], (narrow, wide)


@EVERY_GPU
def test_numbers_of_a_device_are_plausible(name: str) -> None:
    gpu = load(GpuSpec, name)
    assert 20e9 <= gpu.hbm_bytes_per_s <= 1e13
    assert 35.0 <= gpu.tdp_w <= 2700.0
    assert 4 * 2**30 <= gpu.hbm_bytes <= 512 * 2**30
    assert 0.3e9 <= gpu.boost_hz <= 6e9
    assert gpu.base_hz is None or gpu.base_hz <= gpu.boost_hz
    assert gpu.l2_bytes <= 1 * 2**30
    assert all(1e11 <= peak <= 2e16 for peak in gpu.peak_flops_per_s.values())


@EVERY_GPU
def test_nearly_all_of_the_memory_of_a_device_is_usable(name: str) -> None:
    """Driver and error correction keep a tenth at most, and something of every card whose figure is known."""
    gpu = load(GpuSpec, name)
    assert 0.9 * gpu.hbm_bytes <= gpu.capacity_bytes <= gpu.hbm_bytes
    if gpu.usable_bytes is not None:
        assert gpu.capacity_bytes == gpu.usable_bytes < gpu.hbm_bytes
        assert gpu.usable_bytes == int(gpu.usable_bytes)


def test_what_is_usable_is_known_of_nearly_every_device() -> None:
    unknown = {name for name in names(GpuSpec) if load(GpuSpec, name).usable_bytes is None}
    assert len(unknown) <= 4
    assert not unknown & {"a100-sxm-40gb", "a100-sxm-80gb", "h100-sxm-80gb", "rtx-4090", "rtx-3080ti"}


@EVERY_GPU
def test_balance_of_a_device_is_plausible(name: str) -> None:
    """FLOP per byte of the best 16-bit unit: a slip of a thousand shows here."""
    gpu = load(GpuSpec, name)
    best = max(gpu.peak_flops_per_s.get(peak, 0.0) for peak in ("tensor_bf16", "tensor_fp16", "vector_fp32"))
    assert 5.0 <= best / gpu.hbm_bytes_per_s <= 700.0


@EVERY_GPU
def test_capacity_is_that_of_the_name(name: str) -> None:
    stated = re.search(r"-(\d+)gb$", name)
    if stated:
        capacity = load(GpuSpec, name).hbm_bytes
        assert 0.99 * int(stated[1]) * 1e9 <= capacity <= int(stated[1]) * 2.0**30


# Links.


@EVERY_LINK
def test_numbers_of_a_link_are_plausible(name: str) -> None:
    link = load(LinkSpec, name)
    assert 1e9 <= link.bytes_per_s <= 2e12
    assert 2010 <= link.launch_year <= 2035


@EVERY_LINK
def test_exchanges_over_the_kind_of_a_link_have_coefficients(name: str) -> None:
    """And every file of them is of a kind that some link has."""
    assert load(LinkSpec, name).kind in names(CollectiveSpec)
    assert set(names(CollectiveSpec)) == {load(LinkSpec, link).kind for link in names(LinkSpec)}


@pytest.mark.parametrize("name", names(CollectiveSpec))
def test_numbers_of_exchanges_are_plausible(name: str) -> None:
    """At 1.5 GHz an exchange starts within 50 us, and a step within 10 us on a fabric and 100 us elsewhere."""
    reached = load(CollectiveSpec, name)
    hz = 1.5e9
    assert reached.start_cycles / hz <= 50e-6
    assert reached.hop_cycles / hz <= (10e-6 if name == "fabric" else 100e-6)
    assert reached.chunk_cycles / hz <= 20e-6
    assert 0.3 <= reached.link_efficiency <= 1.0
    assert reached.buffer_bytes is None or 2**20 <= reached.buffer_bytes <= 4 * 2**30
    if reached.one_kernel is not None:
        one = reached.one_kernel
        assert one.start_cycles < reached.start_cycles
        assert one.rank_cycles < one.barrier_cycles < one.start_cycles
        assert 1e5 <= one.max_bytes <= 1e9


def test_a_fabric_is_quicker_than_a_bus() -> None:
    fabric, bus = (load(CollectiveSpec, name) for name in ("fabric", "bus"))
    assert fabric.start_cycles < bus.start_cycles
    assert fabric.hop_cycles < bus.hop_cycles
    assert (fabric.one_kernel is None, bus.one_kernel is None) == (False, True)


def test_every_link_but_networks_is_that_of_a_device() -> None:
    used = {load(GpuSpec, name).host_link for name in names(GpuSpec)}
    used |= {fabric.link for name in names(GpuSpec) if (fabric := load(GpuSpec, name).scale_up)}
    fabrics = {name for name in names(LinkSpec) if load(LinkSpec, name).kind == "fabric"}
    assert fabrics - used <= {"nvlink-c2c"}  # joins a card to its host processor, not to another card


# Models.


@pytest.mark.parametrize("name", _MODELS.split())
def test_asked_for_model_is_there(name: str) -> None:
    assert name in names(ModelSpec)


@EVERY_MODEL
def test_weights_of_a_model_sum_to_its_parameters(name: str) -> None:
    model = load(ModelSpec, name)
    graph = build(model, load(EngineSpec, "ideal"), load(PrecisionSpec, "w16a16"), 1)
    assert parameters(graph) == pytest.approx(model.parameters, rel=0.01)


@EVERY_MODEL
def test_shape_of_a_model_is_plausible(name: str) -> None:
    model = load(ModelSpec, name)
    assert 128 <= model.hidden <= 32768
    assert 1000 <= model.vocab <= 300_000
    assert model.max_positions is None or 128 <= model.max_positions <= 20_000_000
    for group in model.layers:
        if isinstance(group.attention, GroupedQueryAttention):
            assert 16 <= group.attention.head_dim <= 512
        if isinstance(group.ffn, MoeFfn):
            assert 0.5 <= group.ffn.intermediate * group.ffn.experts_per_token / model.hidden <= 16.0
        elif group.ffn is not None:
            assert 0.1 <= group.ffn.intermediate / model.hidden <= 64.0


@EVERY_MODEL
def test_a_model_with_experts_says_how_many_weights_a_token_passes(name: str) -> None:
    """Or has none; and what it says is less than all."""
    model = load(ModelSpec, name)
    sparse = any(isinstance(group.ffn, MoeFfn) for group in model.groups)
    assert model.active_parameters is None or (sparse and model.active_parameters < model.parameters)


# Precisions and engines.


@pytest.mark.parametrize("name", names(PrecisionSpec))
def test_a_precision_runs_on_some_device(name: str) -> None:
    peaks = set(load(PrecisionSpec, name).gemm_peaks)
    assert any(peaks & load(GpuSpec, gpu).peak_flops_per_s.keys() for gpu in names(GpuSpec))


@pytest.mark.parametrize("name", names(PrecisionSpec))
def test_a_precision_stores_between_half_a_byte_and_eight(name: str) -> None:
    p = load(PrecisionSpec, name)
    for stored in (p.weight_bytes, p.activation_bytes, p.kv_bytes, p.read_bytes, p.wide_bytes):
        assert 0.3 <= stored <= 8.0
    assert p.weight_bytes <= p.wide_bytes and p.table_bytes <= p.wide_bytes
    assert p.read_bytes <= p.activation_bytes


@pytest.mark.parametrize("name", names(PrecisionSpec))
def test_a_scheme_is_that_of_the_widths(name: str) -> None:
    """Plain products have equal operands; weights alone are narrow, or inputs too, of a tensor unit as narrow."""
    p = load(PrecisionSpec, name)
    narrow_weights, narrow_inputs = p.weight_bytes < p.activation_bytes, p.read_bytes < p.activation_bytes
    assert narrow_weights == (p.scheme != "plain")
    assert narrow_inputs == (p.scheme in {"int8", "fp8", "fp8_block", "fp4"}) == bool(p.wide_gemm_peaks)
    assert not p.narrowing_pass or narrow_inputs
    bits = {"int8_weights": 8, "int4_weights": 4, "int8": 8, "fp8": 8, "fp8_weights": 8, "fp4_weights": 4, "fp4": 4}
    if p.scheme != "plain" and p.offered_to != ("local",) and not name.startswith("w4a8"):
        assert p.weight_bytes == pytest.approx(bits[p.scheme.removesuffix("_block")] / 8.0, rel=0.16)
    for peak in p.gemm_peaks if narrow_inputs else ():
        assert p.scheme.removesuffix("_block") in peak


def test_every_scheme_has_a_precision() -> None:
    assert {load(PrecisionSpec, name).scheme for name in names(PrecisionSpec)} == set(get_args(Scheme))


def test_precisions_of_the_strategies_are_those_of_every_scheme() -> None:
    assert {load(PrecisionSpec, name).scheme for name in PRECISIONS} == set(get_args(Scheme))


@pytest.mark.parametrize("name", names(EngineSpec))
def test_overheads_of_an_engine_are_plausible(name: str) -> None:
    engine = load(EngineSpec, name)
    assert engine.kernel_start_s is None or engine.kernel_start_s <= 50e-6
    assert engine.collective_start_s <= 50e-6
    assert engine.dispatch_s <= 500e-6
    assert engine.layer_s + engine.half_layer_s <= 10e-3
    assert engine.step_s <= 0.1
    assert engine.sequence_s <= 10e-3
    assert engine.request_s <= 1.0


@pytest.mark.parametrize("name", names(EngineSpec))
def test_memory_of_an_engine_is_plausible(name: str) -> None:
    """Contexts of hundreds of MiB, graphs of no more than GiB; an engine that takes a pool takes most of a device."""
    engine = load(EngineSpec, name)
    assert engine.kind == "ideal" or 0.3 * 2**30 <= engine.context_bytes <= 8 * 2**30
    assert engine.graph_bytes is None or 64 * 2**20 <= engine.graph_bytes <= 8 * 2**30
    assert engine.overallocation is None or 1.0 < engine.overallocation < 4.0
    assert engine.pool_fraction is None or 0.5 <= engine.pool_fraction <= 1.0
    assert (engine.pool_fraction is None) == (engine.cache != "paged")
    assert engine.pool_of == "device" or engine.pool_fraction is not None
    assert (engine.block_tokens is None) == (engine.cache != "paged")
    assert engine.block_tokens is None or engine.block_tokens & (engine.block_tokens - 1) == 0
    assert engine.pass_tokens is None or 256 <= engine.pass_tokens <= 65536
    assert engine.pass_sequences is None or 1 <= engine.pass_sequences <= (engine.pass_tokens or 0)
    assert len(engine.logits_held) <= 2


@pytest.mark.parametrize("name", names(EngineSpec))
def test_how_a_cache_is_kept_is_that_of_the_kind_of_engine(name: str) -> None:
    """Servers keep blocks; only frameworks, and LightSeq by its source, concatenate or keep nothing beyond a pass."""
    engine = load(EngineSpec, name)
    assert (engine.cache == "paged") == (engine.kind == "serving")
    assert engine.kind == "eager" or engine.cache in {"contiguous", "paged"} or name == "lightseq"
    assert engine.concatenated_positions <= {"alibi"}
    concatenates = engine.concatenates(engine.cache) or bool(engine.concatenated_positions)
    assert concatenates <= (engine.concat_values_per_clock_per_sm is not None)


@pytest.mark.parametrize("name", [name for name in names(EngineSpec) if load(EngineSpec, name).workspace])
def test_a_workspace_is_plausible(name: str) -> None:
    workspace = load(EngineSpec, name).workspace
    assert workspace is not None
    assert 1 <= workspace.activation_vectors <= 64
    assert workspace.score_rows <= 8
    assert 256 <= workspace.max_tokens <= 65536
    assert workspace.spare_bytes <= 2**30


@pytest.mark.parametrize("name", names(EngineSpec))
def test_a_slow_path_is_slower_than_the_fast_one(name: str) -> None:
    engine = load(EngineSpec, name)
    if engine.slow_attention_memory_efficiency is not None:
        generation = load(KernelSpec, "ampere").attention.memory_efficiency
        assert engine.slow_attention_memory_efficiency < (engine.attention_memory_efficiency or generation)


@pytest.mark.parametrize("name", names(EngineSpec))
def test_kernels_of_an_engine_are_within_a_factor_of_the_generations(name: str) -> None:
    engine = load(EngineSpec, name)
    for ratio in (engine.compute_ratio, engine.memory_ratio):
        assert ratio is None or 0.02 < ratio < 2.0
    assert not (engine.flat and engine.compute_ratio)


COEFFICIENTS = [(kind, name) for kind in FOLDERS if issubclass(kind, CoefficientSpec) for name in names(kind)]


@pytest.mark.parametrize(("kind", "name"), COEFFICIENTS)
def test_every_record_file_of_a_fit_exists(kind: type[CoefficientSpec], name: str) -> None:
    for fit in load(kind, name).fits:
        for record in fit.records:
            assert not record.startswith("records/") or (folder_of(EngineSpec).parent / record).is_file()


@pytest.mark.parametrize(("kind", "name"), COEFFICIENTS)
def test_a_fitted_coefficient_lies_inside_the_bounds(kind: type[CoefficientSpec], name: str) -> None:
    """Of each file that ships: at a bound, a fit has told nothing but the bound."""
    spec = load(kind, name)
    for field in {field for fit in spec.fits for field in fit.fields}:
        low, high = bounds_of(field)
        assert 1.001 * low < value_at(spec, field) < high / 1.001, field


@pytest.mark.parametrize("name", names(KernelSpec))
def test_kernels_of_a_generation_are_plausible(name: str) -> None:
    """A kernel starts in microseconds; a wave of blocks adds no more; widening weights costs no more than half."""
    kernels = load(KernelSpec, name)
    assert 1e-6 <= kernels.kernel_start_s <= 20e-6
    for gemm in (kernels.gemm, kernels.vector_gemm):
        assert (0.2 if kernels.last_level_cache else 0.3) <= gemm.compute_efficiency <= 1.0  # peaks of one core's clock
        assert 0.5 <= gemm.memory_efficiency <= 1.0
        assert gemm.wave_s <= 20e-6
        assert gemm.split_s <= 20e-6
    for scheme, changed in kernels.schemes.items():
        assert 0.5 * kernels.gemm.compute_efficiency <= changed.compute_efficiency <= 1.0, scheme
        assert (changed.depth_cycles is None) or changed.depth_cycles <= 50.0
    assert kernels.attention.query_rows in (64, 128, 256, 512)
    assert kernels.attention.key_rows in (16, 32, 64, 128, 256, 512)
    assert 0.3 <= kernels.attention.compute_efficiency <= 1.0
    assert 0.3 <= kernels.attention.memory_efficiency <= 1.0
    assert 0.2 <= kernels.experts.load_ratio <= 2.0
    assert 0.3 <= kernels.experts.memory_efficiency <= 1.0
    assert kernels.elementwise.gathered_values_per_cycle <= 64.0


@pytest.mark.parametrize("kind", [KernelSpec, PowerSpec])
def test_kernels_and_power_are_named_as_the_generations_of_devices(kind: type[CoefficientSpec]) -> None:
    """One file each, and none without a device."""
    assert set(names(kind)) == {load(GpuSpec, name).generation for name in names(GpuSpec)}
    assert all(load(kind, name).aliases == () for name in names(kind))


@pytest.mark.parametrize("name", names(PowerSpec))
def test_power_of_a_generation_is_plausible(name: str) -> None:
    """A device idles well below its design power and can reach it; its links take a small part."""
    power = load(PowerSpec, name)
    assert 0.03 <= power.idle_fraction <= 0.5
    assert 0.1 <= power.flops_fraction <= 2.0
    assert 0.1 <= power.bytes_fraction <= 2.0
    assert power.link_fraction <= 0.3
    assert power.idle_fraction + max(power.flops_fraction, power.bytes_fraction) > 0.9


# Prices.

EARLIEST, LATEST = datetime.date(2023, 1, 1), datetime.date(2035, 12, 31)


def _day(date: str) -> datetime.date:
    """A date, or the first day of a month."""
    return datetime.date.fromisoformat(date if len(date) > 7 else f"{date}-01")


@pytest.mark.parametrize("name", names(PriceSpec))
def test_offers_of_a_provider_are_plausible(name: str) -> None:
    """Known devices, cents to tens of dollars an hour, dates that exist."""
    spec = load(PriceSpec, name)
    assert list(spec.offers) == sorted(spec.offers)
    for gpu, offer in spec.offers.items():
        assert gpu in names(GpuSpec)
        assert 0.02 <= offer.usd_per_hour <= 30.0, gpu
        assert EARLIEST <= _day(offer.date) <= LATEST, gpu


@pytest.mark.parametrize("name", names(PriceSpec))
def test_every_offer_of_a_provider_has_a_source(name: str) -> None:
    """A price is never a guess."""
    spec = load(PriceSpec, name)
    cited = {field.removeprefix("offers.").removesuffix(".usd_per_hour") for s in spec.sources for field in s.fields}
    assert cited >= set(spec.offers) or "offers" in cited
    assert spec.assumed == spec.fits == ()


def test_asked_for_devices_have_a_price() -> None:
    offered = {gpu for name in names(PriceSpec) for gpu in load(PriceSpec, name).offers}
    assert offered >= {"a100-sxm-40gb", "a100-sxm-80gb", "h100-sxm-80gb", "h200-sxm-141gb", "b200-sxm-180gb"}
    assert offered >= {"l4-pcie-24gb", "l40s-pcie-48gb", "rtx-4090", "rtx-a6000", "mi300x-oam-192gb"}


def test_providers_agree_on_a_device_within_a_factor_of_ten() -> None:
    asked: dict[str, list[float]] = {}
    for name in names(PriceSpec):
        for gpu, offer in load(PriceSpec, name).offers.items():
            asked.setdefault(gpu, []).append(offer.usd_per_hour)
    assert {gpu for gpu, prices in asked.items() if max(prices) > 10.0 * min(prices)} == set()


@pytest.mark.parametrize("name", names(TariffSpec))
def test_a_tariff_is_plausible(name: str) -> None:
    tariff = load(TariffSpec, name)
    assert 0.02 <= tariff.usd_per_kwh <= 0.6
    assert 1.0 <= tariff.pue <= 2.5
    assert EARLIEST <= _day(tariff.date) <= LATEST


def test_every_folder_of_data_travels_with_the_package() -> None:
    project = tomllib.loads((folder_of(EngineSpec).parent / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    folders = {folder for _, folder in FOLDERS.values()} | {"records"}
    assert included == {folder: f"llm_perf_model/data/{folder}" for folder in folders}


def test_the_ideal_engine_loses_nothing() -> None:
    ideal = load(EngineSpec, "ideal")
    assert ideal.flat
    losses = {field: getattr(ideal, field) for field in EngineSpec.model_fields if field.endswith("_efficiency")}
    assert losses.pop("slow_attention_memory_efficiency") is None
    assert ideal.compute_ratio is ideal.memory_ratio is None
    assert ideal.fast_head_dims is None
    assert set(losses.values()) == {1.0}
    times = {field for field in EngineSpec.model_fields if field.endswith("_s")} - {"staged_bytes_per_s"}
    assert {getattr(ideal, field) for field in times} == {0.0, None}
    assert (ideal.context_bytes, ideal.graph_bytes, ideal.overallocation) == (0.0, None, None)
    assert (ideal.pool_fraction, ideal.pass_tokens, ideal.pass_sequences, ideal.workspace) == (None, None, None, None)
    assert (ideal.attention_split, ideal.synchronous, ideal.cache) == (True, False, "contiguous")
    assert (ideal.logits_held, ideal.concatenated_positions) == (("activations",), frozenset())
    assert (ideal.passes, ideal.staged_positions, ideal.kernels) == ({}, frozenset(), None)
    assert (ideal.compute_ratio, ideal.memory_ratio, ideal.attention_padded) == (None, None, False)


def test_every_default_of_a_request_is_in_the_catalogue() -> None:
    from llm_perf_model.specs.request import Request

    fields = Request.model_fields
    assert load(GpuSpec, fields["gpu"].default)
    assert load(EngineSpec, fields["engine"].default)
    assert load(PrecisionSpec, fields["precision"].default)
