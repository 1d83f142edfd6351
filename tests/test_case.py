from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.allocation import allocation
from llm_perf_model.case import Case, make_case
from llm_perf_model.graph.stack import build
from llm_perf_model.placement import NODE_RANKS
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.kernels import KernelRates, KernelSpec
from llm_perf_model.specs.layout import LayoutSpec
from llm_perf_model.specs.link import LinkSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.power import PowerSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .strategies import cases


def case_of(model: str, gpu: str, tp: int, link: str | None = None, precision: str = "w16a16") -> Case:
    return make_case(
        load(ModelSpec, model),
        load(GpuSpec, gpu),
        load(EngineSpec, "ideal"),
        load(PrecisionSpec, precision),
        LayoutSpec(tp=tp),
        None if link is None else load(LinkSpec, link),
    )


@given(cases())
def test_a_case_holds_the_graph_of_its_specs(case: Case) -> None:
    layout = case.layout
    assert case.graph == build(case.model, case.engine, case.precision, layout.tp, layout.layer_split)
    assert (case.link is None) == (case.collectives is None) == (layout.tp == layout.layer_split == 1)
    assert layout.ranks == layout.tp * layout.dp * layout.layer_split
    assert layout.working_ranks == layout.tp * layout.dp
    assert case.kernels == load(KernelSpec, case.gpu.generation)
    assert case.power == load(PowerSpec, case.gpu.generation)
    parts = (case.model, case.gpu, case.engine, case.precision, layout, case.graph, case.collectives)
    assert case.allocation == allocation(*parts)


@pytest.mark.parametrize(
    ("gpu", "tp", "link", "bundles"),
    [
        ("a100-sxm-40gb", 2, "nvlink-3", 12),
        ("a100-sxm-40gb", 8, "nvlink-3", 12),
        ("rtx-4090", 2, "pcie-4-x16-host", 1),
        ("rtx-a6000", 2, "nvlink-3-ga102", 4),
        ("rtx-a6000", 4, "pcie-4-x16", 1),
        ("rtx-a6000", 8, "pcie-4-x16", 1),
    ],
)
def test_the_fabric_where_it_reaches_else_the_bus(gpu: str, tp: int, link: str, bundles: int) -> None:
    case = case_of("opt-125m" if tp < 8 else "llama-2-7b", gpu, tp)
    assert case.link is not None
    assert case.link.name == link
    assert case.machine.exchange.bytes_per_s == load(LinkSpec, link).bytes_per_s * bundles
    assert case.collectives == load(CollectiveSpec, case.link.kind)


def test_cards_without_peer_access_go_through_the_host() -> None:
    case = case_of("llama-2-7b", "rtx-4090", 2)
    assert case.link is not None
    assert not case.link.peer_access


def test_a_named_link_replaces_the_devices_own() -> None:
    case = case_of("llama-2-7b", "a100-sxm-40gb", 2, link="pcie-4-x16")
    assert case.link == load(LinkSpec, "pcie-4-x16")
    assert case.machine.exchange.bytes_per_s == 31.5e9
    assert case_of("llama-2-7b", "a100-sxm-40gb", 1, link="pcie-4-x16").link is None
    slow = lpm.estimate("llama-2-7b", tp=2, link="pcie-4-x16", engine="ideal")
    assert slow.prefill_s > lpm.estimate("llama-2-7b", tp=2, engine="ideal").prefill_s


@pytest.mark.parametrize("gpu", ["a100-pcie-40gb", "rtx-4090", "rtx-a6000"])
def test_more_ranks_than_a_node_need_a_named_network(gpu: str) -> None:
    with pytest.raises(
        lpm.InfeasibleError, match=rf"16 devices are more than one node of {gpu} holds \({NODE_RANKS}\).*--link"
    ):
        case_of("llama-2-70b", gpu, 16)
    case = case_of("llama-2-70b", gpu, 16, link="infiniband-hdr-200g")
    assert case.link is not None
    assert case.link.kind == "network"


@pytest.mark.parametrize("gpu", lpm.gpus())
def test_every_device_reaches_a_second_one_over_an_existing_link(gpu: str) -> None:
    spec = load(GpuSpec, gpu)
    precision = next(p for p in lpm.precisions() if set(load(PrecisionSpec, p).gemm_peaks) & set(spec.peak_flops_per_s))
    case = case_of("llama-2-7b", gpu, 2, precision=precision)
    assert case.link is not None
    assert 0.0 < case.machine.exchange.bytes_per_s < float("inf")
    load(LinkSpec, spec.host_link)


@pytest.mark.parametrize(
    ("gpu", "precision", "needs", "nearest"),
    [
        ("v100-sxm-16gb", "bf16", "tensor_bf16 or vector_bf16", "w16a16"),
        ("v100-sxm-16gb", "tf32", "tensor_tf32", "fp32"),
        ("rtx-2080ti", "tf32", "tensor_tf32", "fp32"),
        ("ryzen-9-5950x", "w16a16", "tensor_fp16 or vector_fp16", "fp32"),
    ],
)
def test_a_precision_without_a_unit_names_those_that_exist(gpu: str, precision: str, needs: str, nearest: str) -> None:
    with pytest.raises(lpm.InfeasibleError) as raised:
        case_of("opt-125m", gpu, 1, precision=precision)
    message = str(raised.value)
    assert f"{gpu} cannot run precision {precision}: it needs {needs}" in message
    assert message.endswith(f"did you mean precision {nearest}?")
    for unit in load(GpuSpec, gpu).peak_flops_per_s:
        assert unit in message


@pytest.mark.parametrize(
    ("model", "tp", "possible"),
    [
        ("falcon-7b", 2, "1, 71"),
        ("gpt2-xl", 2, "1, 5, 25"),
        ("opt-125m", 8, "1, 2, 3, 4, 6, 12"),
        ("llama-2-70b", 3, "1, 2, 4, 8, 16, 32, 64"),
    ],
)
def test_a_split_that_does_not_divide_lists_those_that_do(model: str, tp: int, possible: str) -> None:
    with pytest.raises(lpm.InfeasibleError, match=rf"tp = {tp} does not divide {model}: .*; possible: {possible}$"):
        case_of(model, "a100-sxm-40gb", tp)


def test_an_engine_with_kernels_of_its_own_runs_them() -> None:
    hopper = load(KernelSpec, "hopper")
    own = KernelRates(**{field: getattr(hopper, field) for field in KernelRates.model_fields})
    engine = load(EngineSpec, "generic-fused")
    layout, precision = LayoutSpec(), load(PrecisionSpec, "w16a16")
    model, gpu = load(ModelSpec, "opt-125m"), load(GpuSpec, "a100-sxm-40gb")
    plain, owned = (
        make_case(model, gpu, e, precision, layout) for e in (engine, engine.model_copy(update={"kernels": own}))
    )
    assert plain.machine.kernel_start_s == load(KernelSpec, "ampere").kernel_start_s
    assert owned.machine.kernel_start_s == hopper.kernel_start_s
    assert owned.machine.blocks["gemm"].wave_s == hopper.gemm.wave_s
    assert owned.kernels == plain.kernels == load(KernelSpec, "ampere")


def test_a_generation_without_kernels_is_named_with_those_that_exist() -> None:
    gpu = load(GpuSpec, "a100-sxm-40gb").model_copy(update={"generation": "hoper"})
    model, precision = load(ModelSpec, "opt-125m"), load(PrecisionSpec, "w16a16")
    with pytest.raises(lpm.SpecError, match=r"generation 'hoper' is not known; did you mean hopper\?.*turing"):
        make_case(model, gpu, load(EngineSpec, "ideal"), precision, LayoutSpec())


def test_a_shared_expert_is_split_evenly_too() -> None:
    """33 columns are no whole number a rank: refused, as an expert's would be."""
    model = load(ModelSpec, "mixtral-8x7b")
    odd = model.layers[0].ffn.model_copy(update={"shared_intermediate": 33})
    shared = model.model_copy(update={"layers": (model.layers[0].model_copy(update={"ffn": odd}),)})
    gpu, precision = load(GpuSpec, "a100-sxm-40gb"), load(PrecisionSpec, "w16a16")
    make_case(shared, gpu, load(EngineSpec, "ideal"), precision, LayoutSpec(tp=1))
    with pytest.raises(lpm.InfeasibleError, match="tp = 2 does not divide"):
        make_case(shared, gpu, load(EngineSpec, "ideal"), precision, LayoutSpec(tp=2))


@given(st.sampled_from(lpm.models()), st.sampled_from((2, 3, 4, 5, 6, 7, 8)))
def test_a_split_runs_exactly_if_heads_widths_and_key_heads_divide(name: str, tp: int) -> None:
    blocks = [block for group in load(ModelSpec, name).groups for block in group.blocks]
    shared = [count for block in blocks for count in block.shared.values()]
    copied = [count for block in blocks for count in getattr(block, "copied", {}).values()]
    divides = all(n % tp == 0 for n in shared) and all(n % tp == 0 or tp % n == 0 for n in copied)
    if divides:
        assert case_of(name, "a100-sxm-40gb", tp).layout.tp == tp
    else:
        with pytest.raises(lpm.InfeasibleError, match="does not divide"):
            case_of(name, "a100-sxm-40gb", tp)


@pytest.mark.parametrize("name", lpm.gpus())
def test_the_generation_of_every_device_has_kernels_and_power(name: str) -> None:
    gpu = load(GpuSpec, name)
    for spec in (load(KernelSpec, gpu.generation), load(PowerSpec, gpu.generation)):
        assert gpu.generation in (spec.name, *spec.aliases)


def split_of(model: str, stages: int, tp: int = 1, gpu: str = "rtx-a6000", link: str | None = None) -> Case:
    return make_case(
        load(ModelSpec, model),
        load(GpuSpec, gpu),
        load(EngineSpec, "ideal"),
        load(PrecisionSpec, "w16a16"),
        LayoutSpec(tp=tp, layer_split=stages),
        None if link is None else load(LinkSpec, link),
    )


def test_layers_are_split_over_the_link_that_joins_the_stages() -> None:
    assert split_of("opt-125m", 1).link is None
    pair, eight = split_of("opt-125m", 2), split_of("opt-125m", 8)
    assert pair.link is not None
    assert eight.link is not None
    assert (pair.link.name, eight.link.name) == ("nvlink-3-ga102", "pcie-4-x16")


def test_layers_may_be_split_unevenly_and_up_to_one_a_stage() -> None:
    """12 layers: any number of stages up to 12, whether or not it divides them."""
    for stages in range(1, 9):
        assert split_of("opt-125m", stages).layout.layer_split == stages
    assert split_of("opt-125m", 12, link="pcie-4-x16").layout.layer_split == 12
    with pytest.raises(lpm.InfeasibleError, match="layer_split = 13 exceeds the 12 layers of opt-125m"):
        split_of("opt-125m", 13, link="pcie-4-x16")


def test_stages_and_ranks_exclude_each_other() -> None:
    with pytest.raises(lpm.InfeasibleError, match="tp and layer_split exclude each other"):
        split_of("opt-125m", 2, tp=2)


def test_more_stages_than_a_node_need_a_named_network() -> None:
    with pytest.raises(lpm.InfeasibleError, match=r"9 devices are more than one node .* --link"):
        split_of("opt-125m", 9)
