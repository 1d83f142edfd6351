"""Strategies for batches, operators, models, engines, machines and workloads.

Sizes are whole numbers, so that sums and products of them are exact in float64.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
from functools import cache
from typing import Any, NamedTuple, get_args, get_type_hints

from hypothesis import strategies as st

import llm_perf_model.ops
from llm_perf_model.case import Case, make_case
from llm_perf_model.graph.stack import build
from llm_perf_model.machine import gemm_peak
from llm_perf_model.ops.attention import FusedAttention, MaterialisedAttention
from llm_perf_model.ops.base import AbstractOp, Kind
from llm_perf_model.ops.batch import UNLIMITED, Batch, Group
from llm_perf_model.ops.node import Graph
from llm_perf_model.ops.router import Router
from llm_perf_model.rates import (
    SQUARES,
    AttentionRate,
    BlockRate,
    Exchange,
    ExpertRate,
    Machine,
    OneKernel,
    PassRate,
    Power,
    Rate,
    Tile,
)
from llm_perf_model.specs.attention import CrossAttention, GroupedQueryAttention
from llm_perf_model.specs.base import Assumption
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.collective import CollectiveSpec, OneKernelAllReduce
from llm_perf_model.specs.engine import BeamCache, Cache, EngineSpec, LogitsKind, Passes, Workspace
from llm_perf_model.specs.ffn import Ffn, GatedFfn, MoeFfn, PlainFfn
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.kernels import (
    AttentionKernels,
    ConvolutionKernels,
    ElementwiseKernels,
    ExpertKernels,
    ExpertScheme,
    ExpertTile,
    GemmKernels,
    KernelRates,
    RecurrentKernels,
    SchemeKernels,
    TunedExperts,
)
from llm_perf_model.specs.layout import LayoutSpec
from llm_perf_model.specs.model import AudioInput, EncoderStack, LayerGroup, ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec, Scheme

DRAWN = (Assumption(fields=("*",), reason="drawn at random for a test"),)
TPS = (1, 2, 4, 8)
FUSIONS = ("bias", "residual_norm", "activation", "rotary")
ROLES = ("layernorm", "rmsnorm", "rotary", "layout", "logits", "gelu")
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
PRECISIONS = (
    "w16a16", "fp32", "w8a16", "w4a16", "fp8-w8a16", "nvfp4-w4a16", "w8a8", "fp8", "fp8-block", "nvfp4",
)  # fmt: skip
"""A precision of every scheme, and one whose products run on vector units."""
NARROW = tuple(name for name in PRECISIONS if load(PrecisionSpec, name).scheme != "plain")


class Lengths(NamedTuple):
    """A workload: `steps` decode steps follow the prompt."""

    batch_size: float
    input_len: float
    steps: float


@cache
def wholes(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(float)


@cache
def powers(low: float, high: float) -> st.SearchStrategy[float]:
    """Log-uniform numbers from 10**low to 10**high."""
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


@cache
def groups() -> st.SearchStrategy[Group]:
    return st.builds(Group, wholes(1, 8), wholes(1, 40), wholes(0, 90), wholes(1, 60))


@cache
def batches() -> st.SearchStrategy[Batch]:
    return st.lists(groups(), min_size=1, max_size=4).map(Batch.of)


@cache
def windows() -> st.SearchStrategy[float]:
    return st.one_of(st.just(UNLIMITED), wholes(1, 80))


@cache
def lengths(max_steps: int = 40) -> st.SearchStrategy[Lengths]:
    return st.builds(Lengths, wholes(1, 12), wholes(1, 120), wholes(0, max_steps))


def op_types() -> list[type[AbstractOp]]:
    """Every final operator class of the package, sorted by name."""
    package = llm_perf_model.ops
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    found = {cls.__name__: cls for cls in _subclasses(AbstractOp) if _is_final_and_exported(cls)}
    return [found[name] for name in sorted(found)]


def _subclasses(cls: type[Any]) -> list[type[Any]]:
    return [deeper for child in cls.__subclasses__() for deeper in (child, *_subclasses(child))]


def _is_final_and_exported(cls: type[Any]) -> bool:
    """A slotted dataclass leaves its unslotted twin among the subclasses: only the exported one counts."""
    exported = getattr(inspect.getmodule(cls), cls.__name__, None) is cls
    return exported and cls.__module__.startswith("llm_perf_model.") and not inspect.isabstract(cls)


_OP_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "window": windows(),
    "groups": st.sampled_from((1.0, 2.0, 4.0)),
    "ranks": st.sampled_from((2.0, 4.0, 8.0)),
    "side_rows": st.lists(wholes(1, 64), max_size=2).map(tuple),
    "weights": wholes(0, 64),
    "touches": wholes(0, 3),
    "chunk_tokens": st.just(UNLIMITED),
    "entry_tokens": st.sampled_from((1.0, 2.0, 4.0, 128.0)),
    "chosen_tokens": windows(),
    "absorbed_tokens": st.sampled_from((1.0, 8.0, UNLIMITED)),
    "experts": wholes(8, 96),
    "experts_per_token": wholes(1, 8),
    "nodes": st.sampled_from((1.0, 2.0)),
    "slices": st.sampled_from((1.0, 2.0)),
    "router": st.builds(
        Router, wholes(8, 96), wholes(1, 8), st.sampled_from((2.0, 4.0, 8.0)), st.sampled_from((1.0, 1.5))
    ),
}
_OWN_FIELDS: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("SourceAttention", "inner"): st.deferred(
        lambda: st.one_of(
            ops(FusedAttention).map(lambda op: dataclasses.replace(op, all_pairs=True)),  # type: ignore[type-var]
            ops(MaterialisedAttention),
        )
    ),
    ("StateUpdate", "chunk_tokens"): wholes(0, 64),
    ("ChannelConvolution", "window"): wholes(1, 8),
    ("Convolution", "window"): st.sampled_from((1.0, 9.0, 25.0, 49.0)),
}
"""Fields of a class that mean something else elsewhere."""


@cache
def ops(cls: type[AbstractOp]) -> st.SearchStrategy[AbstractOp]:
    """Operators of a class, field by field: a new class needs no entry here unless its fields are odd."""
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return st.builds(cls, **{name: _op_field(cls, name, hints[name]) for name in names})


def _op_field(cls: type[AbstractOp], name: str, hint: object) -> st.SearchStrategy[Any]:
    if hint is bool:
        return st.booleans()
    if (cls.__name__, name) in _OWN_FIELDS:
        return _OWN_FIELDS[cls.__name__, name]
    if name in _OP_FIELDS:
        return _OP_FIELDS[name]
    if name.endswith("_bytes"):
        return st.sampled_from((0.5, 1.0, 2.0, 4.0))
    return wholes(1, 96)


@cache
@st.composite
def attentions(draw: st.DrawFn, windowed: bool = True) -> GroupedQueryAttention:
    heads = draw(st.sampled_from((8, 16, 24)))
    return GroupedQueryAttention(
        heads=heads,
        kv_heads=draw(st.sampled_from((1, 2, 4, 8, heads))),
        head_dim=draw(st.sampled_from((4, 16, 64))),
        qkv_bias=draw(st.booleans()),
        out_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        window_tokens=draw(st.one_of(st.none(), st.integers(1, 140))) if windowed else None,
    )


@cache
def widths() -> st.SearchStrategy[int]:
    """Widths that every tp of TPS divides."""
    return st.integers(1, 80).map(lambda width: 8 * width)


@cache
def ffns() -> st.SearchStrategy[Ffn]:
    dense = [st.builds(kind, intermediate=widths(), activation=st.just("gelu")) for kind in (PlainFfn, GatedFfn)]
    experts = st.builds(
        MoeFfn,
        experts=st.integers(4, 16),
        experts_per_token=st.integers(1, 4),
        intermediate=widths(),
        activation=st.just("gelu"),
        shared_intermediate=st.one_of(st.none(), widths()),
    )
    return st.one_of(*dense, experts)


@cache
@st.composite
def layer_groups(draw: st.DrawFn, windowed: bool = True) -> LayerGroup:
    ffn = draw(ffns())
    return LayerGroup(
        count=draw(st.integers(1, 6)),
        attention=draw(attentions(windowed)),
        ffn=ffn if ffn.kind == "moe" else ffn.model_copy(update={"bias": draw(st.booleans())}),
        parallel=draw(st.booleans()),
        norms=draw(st.integers(0, 4)),
    )


@cache
@st.composite
def models(
    draw: st.DrawFn, windowed: bool = True, heads: tuple[str, ...] = ("lm",), encoders: bool = False
) -> ModelSpec:
    """Small models that every tp of TPS divides; `encoders` may be among them."""
    position = draw(st.sampled_from(("learned", "rotary", "alibi", "none")))
    return ModelSpec(
        name="drawn",
        title="Drawn",
        assumed=DRAWN,
        hidden=draw(st.integers(1, 300)),
        vocab=8 * draw(st.integers(1, 500)),
        max_positions=2048 if position == "learned" else None,
        position=position,
        position_rows=draw(st.one_of(st.none(), st.integers(1, 3000))),
        token_types=draw(st.sampled_from((None, 1, 2))),
        norm=draw(st.sampled_from(("layernorm", "rmsnorm"))),
        norm_bias=draw(st.booleans()),
        causal=draw(st.booleans()) if encoders else True,
        embedding_norm=draw(st.booleans()),
        final_norm=draw(st.booleans()),
        tied_embeddings=draw(st.booleans()),
        head=draw(st.sampled_from(heads)),
        head_bias=draw(st.booleans()),
        wide_logits=draw(st.booleans()),
        layers=tuple(draw(st.lists(layer_groups(windowed), min_size=1, max_size=3))),
        parameters=1.0,
    )


@cache
@st.composite
def encoder_decoders(draw: st.DrawFn, windowed: bool = True) -> ModelSpec:
    """Small models of an encoder and a decoder that every tp of TPS divides, with or without relative positions."""
    decoder = draw(models(windowed))
    relative = draw(st.booleans())
    layers = [group.model_copy(update={"parallel": False}) for group in decoder.layers]
    crossed = [group.model_copy(update={"cross_attention": draw(cross_attentions())}) for group in layers]
    read = draw(st.lists(layer_groups(windowed), min_size=1, max_size=2))
    encoder = EncoderStack(
        layers=tuple(read[:1] if relative else read),
        audio=draw(st.none() | st.builds(AudioInput, mel_bins=st.integers(1, 128), position_rows=st.just(2048))),
        embedding_norm=draw(st.booleans()),
        final_norm=draw(st.booleans()),
        tied_embeddings=draw(st.booleans()),
    )
    changed: dict[str, Any] = {"layers": tuple(crossed[:1] if relative else crossed), "encoder": encoder}
    if relative:
        changed |= {"position": "relative", "position_buckets": draw(st.integers(1, 64))}
    return ModelSpec.model_validate({field: getattr(decoder, field) for field in ModelSpec.model_fields} | changed)


@cache
@st.composite
def cross_attentions(draw: st.DrawFn) -> CrossAttention:
    heads = draw(st.sampled_from((8, 16)))
    return CrossAttention(
        heads=heads,
        kv_heads=draw(st.sampled_from((1, 4, heads))),
        head_dim=draw(st.sampled_from((4, 16, 64))),
        qkv_bias=draw(st.booleans()),
        out_bias=draw(st.booleans()),
    )


@cache
def efficiencies() -> st.SearchStrategy[float]:
    return st.floats(0.05, 1.0)


@cache
def maybe(values: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    """A value of the engine's own, or None for the generation's."""
    return st.one_of(st.none(), values)


@cache
def passes() -> st.SearchStrategy[dict[Any, Passes]]:
    """Passes of some roles: no fewer tensors and kernels than a plain kernel has."""
    of_a_role = st.builds(Passes, tensors=wholes(3, 20), kernels=wholes(1, 9))
    return st.dictionaries(st.sampled_from(ROLES), of_a_role, max_size=3)


@cache
def seconds() -> st.SearchStrategy[float]:
    """Starts and waves of kernels."""
    return st.one_of(st.just(0.0), powers(-7.0, -5.0))


@cache
def kernel_rates() -> st.SearchStrategy[KernelRates]:
    """Kernels of any generation, of which some have coefficients for a scheme and others do not."""
    gemms = st.builds(
        GemmKernels,
        compute_efficiency=efficiencies(),
        memory_efficiency=efficiencies(),
        load_bytes_per_cycle=powers(1.0, 2.3),
        wave_s=seconds(),
        split_s=seconds(),
    )
    schemes = st.builds(
        SchemeKernels,
        compute_efficiency=efficiencies(),
        memory_efficiency=maybe(efficiencies()),
        depth_cycles=maybe(powers(0.0, 1.3)),
        start_s=maybe(seconds()),
        splits=st.booleans(),
    )
    attention = st.builds(
        AttentionKernels,
        query_rows=st.sampled_from((64, 128)),
        key_rows=st.sampled_from((32, 64, 128)),
        compute_efficiency=efficiencies(),
        exposed_exponentials=st.floats(0.0, 1.0),
        memory_efficiency=efficiencies(),
        load_bytes_per_cycle=powers(1.0, 2.3),
        wave_s=seconds(),
    )
    passing = st.builds(
        ElementwiseKernels,
        memory_efficiency=efficiencies(),
        cache_bytes_per_cycle=powers(0.5, 2.0),
        row_values_per_cycle=powers(-1.0, 1.5),
        gathered_values_per_cycle=powers(-1.0, 1.5),
    )
    implicit = st.builds(
        ConvolutionKernels,
        compute_efficiency=efficiencies(),
        columns=st.sampled_from((8, 32, 64)),
        channel_bytes=st.sampled_from((None, 32, 64)),
        splits=st.booleans(),
        winograd_efficiency=st.one_of(st.none(), efficiencies()),
    )
    recurrent = st.builds(
        RecurrentKernels, step_s=seconds(), depth_cycles=st.floats(0.0, 60.0), memory_efficiency=efficiencies()
    )
    few = st.builds(ExpertTile, rows=st.just(16), columns=st.just(64), tokens=st.integers(1, 64))
    tiles = st.builds(lambda first: (first, ExpertTile(rows=128, columns=128)), few)
    narrow = st.builds(
        ExpertScheme,
        tiles=maybe(tiles),
        memory_efficiency=maybe(efficiencies()),
        widened_values_per_cycle=maybe(st.floats(1.0, 60.0)),
    )
    experts = st.builds(
        ExpertKernels,
        tiles=tiles,
        tuned=maybe(st.builds(TunedExperts, shapes=st.just(((8, 512),)), tiles=tiles)),
        load_ratio=st.floats(0.2, 2.0),
        memory_efficiency=efficiencies(),
        schemes=st.dictionaries(st.sampled_from(SCHEMES[1:]), narrow, max_size=2),
        start_s=seconds(),
    )
    return st.builds(
        KernelRates,
        gemm=gemms,
        vector_gemm=gemms,
        convolution=implicit,
        vector_convolution=implicit,
        recurrent=recurrent,
        schemes=st.dictionaries(st.sampled_from(SCHEMES[1:]), schemes, max_size=3),
        experts=experts,
        attention=attention,
        elementwise=passing,
        kernel_start_s=powers(-7.0, -5.0),
    )


@cache
def collectives(one_kernel: bool | None = None) -> st.SearchStrategy[CollectiveSpec]:
    """Exchanges of any kind of link; `one_kernel` or not is left open where it is None."""
    cycles = st.one_of(st.just(0.0), powers(2.0, 4.5))
    joined = st.builds(
        OneKernelAllReduce,
        start_cycles=cycles,
        rank_cycles=cycles,
        barrier_cycles=cycles,
        link_efficiency=efficiencies(),
        max_bytes=st.sampled_from((1024.0, 65536.0, 8388608.0)),
    )
    return st.builds(
        CollectiveSpec,
        name=st.just("drawn"),
        title=st.just("Drawn"),
        assumed=st.just(DRAWN),
        start_cycles=cycles,
        hop_cycles=cycles,
        chunk_cycles=cycles,
        link_efficiency=efficiencies(),
        buffer_bytes=maybe(wholes(0, 2**30)),
        one_kernel=st.one_of(st.none(), joined) if one_kernel is None else joined if one_kernel else st.none(),
    )


@cache
def engines(hosted: bool | None = None, flat: bool | None = None) -> st.SearchStrategy[EngineSpec]:
    """Engines of any fusion; `hosted` ones have time on the host per kernel, per layer, per step and per request.

    `flat` ones have one rate for all products, others the blocks of a generation or of their own.
    """
    if hosted is None:
        return st.one_of(engines(False, flat), engines(True, flat))
    if flat is None:
        return st.one_of(engines(hosted, False), engines(hosted, True))
    none = st.just(0.0)
    on_host = st.one_of(none, powers(-6.0, -3.0)) if hosted else none
    own = maybe(efficiencies())
    return st.builds(
        EngineSpec,
        name=st.just("drawn"),
        title=st.just("Drawn"),
        assumed=st.just(DRAWN),
        kind=st.just("eager" if hosted else "fused"),
        gemm_compute_efficiency=efficiencies() if flat else st.none(),
        gemm_memory_efficiency=own,
        attention_compute_efficiency=own,
        attention_memory_efficiency=own,
        elementwise_memory_efficiency=own,
        compute_ratio=maybe(st.floats(0.3, 1.5)),
        memory_ratio=maybe(st.floats(0.3, 1.5)),
        kernels=st.one_of(st.none(), kernel_rates()),
        link_efficiency=own,
        one_kernel_all_reduce=st.booleans(),
        kernel_start_s=st.sampled_from((0.0, 3e-6, None)),
        collective_start_s=st.sampled_from((0.0, 4e-6)),
        dispatch_s=powers(-7.0, -4.5) if hosted else none,
        layer_s=on_host,
        half_layer_s=on_host,
        synchronous=st.booleans() if hosted else st.just(False),
        step_s=powers(-6.0, -3.0) if hosted else none,
        sequence_s=on_host,
        request_s=on_host,
        context_bytes=wholes(0, 2**30),
        graph_bytes=maybe(wholes(0, 2**30)),
        overallocation=maybe(st.floats(1.0, 2.0)),
        cache=st.sampled_from(get_args(Cache)),
        block_tokens=st.sampled_from((1, 16, 64)),
        pool_fraction=maybe(st.floats(0.1, 1.0)),
        pool_of=st.sampled_from(("device", "free")),
        pass_tokens=st.sampled_from((None, 64, 512)),
        pass_sequences=st.sampled_from((None, 1, 16)),
        logits_held=st.lists(st.sampled_from(get_args(LogitsKind)), max_size=3).map(tuple),
        workspace=maybe(workspaces()),
        concatenated_positions=st.sampled_from((frozenset(), frozenset({"alibi"}))),
        beams=st.sampled_from(get_args(BeamCache)),
        attention=st.sampled_from(("fused", "fused_masked", "materialised")),
        attention_split=st.booleans(),
        attention_padded=st.booleans(),
        fast_head_dims=st.sampled_from((None, (16,), (4, 64))),
        slow_attention_memory_efficiency=st.floats(0.01, 0.05),
        concat_values_per_clock_per_sm=powers(-1.0, 2.0),
        logits=st.sampled_from(("last", "all")),
        fused=st.frozensets(st.sampled_from(FUSIONS)),
        passes=passes(),
        staged_bytes_per_s=powers(9.0, 10.0),
        staged_positions=st.sampled_from((frozenset(), frozenset({"learned"}))),
    )


@cache
def workspaces() -> st.SearchStrategy[Workspace]:
    return st.builds(
        Workspace,
        activation_vectors=wholes(0, 32),
        score_rows=wholes(0, 4),
        max_tokens=st.sampled_from((16, 1024)),
        spare_bytes=wholes(0, 2**20),
    )


@cache
def powers_of_a_device() -> st.SearchStrategy[Power]:
    """A device of 300 W at its design power, which its work may exceed."""
    none = st.just(0.0)
    return st.builds(
        Power,
        idle_w=st.floats(10.0, 120.0),
        flop_j=st.one_of(none, powers(-13.0, -10.0)),
        byte_j=st.one_of(none, powers(-12.0, -9.0)),
        link_byte_j=st.one_of(none, powers(-12.0, -9.0)),
        design_w=st.just(300.0),
        limit_w=st.just(300.0),
    )


@cache
def rates() -> st.SearchStrategy[Rate]:
    return st.builds(Rate, powers(9.0, 13.0), powers(8.0, 12.0))


@cache
def block_rates() -> st.SearchStrategy[BlockRate]:
    """What a multiprocessor reaches, with or without kernels that split the depth."""
    width = st.sampled_from((0.5, 1.0, 2.0, 4.0))
    return st.builds(
        BlockRate,
        flops_per_s=powers(9.0, 12.0),
        load_bytes_per_s=powers(9.0, 12.0),
        depth_s=st.one_of(st.just(0.0), powers(-10.0, -7.0)),
        wave_s=seconds(),
        split_s=seconds(),
        start_s=seconds(),
        splits=st.sampled_from(((1.0,), (1.0, 4.0, 16.0))),
        input_bytes=width,
        weight_bytes=width,
        tiles=st.sampled_from((SQUARES, ((64.0, 48.0),))),
        serial_flops=st.just(0.0),
        region_s=st.just(0.0),
    )


@cache
def expert_rates() -> st.SearchStrategy[ExpertRate]:
    """Products of experts on small tiles for passes of few tokens, with and without shapes that are tuned."""
    tiles = (Tile(16.0, 64.0, tokens=32.0), Tile(64.0, 64.0, tokens_per_expert=4.0), Tile(128.0, 128.0))
    tuned = st.sampled_from(((), ((8.0, 512.0),)))
    widened = st.sampled_from((0.0, 1e-9))
    return st.builds(ExpertRate, block_rates(), st.just(tiles), st.just((Tile(64.0, 256.0),)), tuned, widened)


@cache
def attention_rates() -> st.SearchStrategy[AttentionRate]:
    """What a block of attention reaches; padded kernels do not split."""
    of_a_kernel = st.builds(
        AttentionRate,
        query_rows=st.sampled_from((64.0, 128.0)),
        key_rows=st.sampled_from((32.0, 64.0, 128.0)),
        row_s=powers(-13.0, -10.0),
        exponential_s=st.one_of(st.just(0.0), powers(-12.0, -9.0)),
        load_bytes_per_s=powers(9.0, 12.0),
        wave_s=seconds(),
        splits=st.sampled_from((1.0, 32.0)),
        padded=st.booleans(),
    )
    return of_a_kernel.map(lambda rate: rate._replace(splits=1.0) if rate.padded else rate)


@cache
def pass_rates() -> st.SearchStrategy[PassRate]:
    sizes = st.sampled_from((0.0, 4e3, 4e7))
    return st.builds(
        PassRate, sizes, powers(8.0, 13.0), powers(8.0, 12.0), powers(8.0, 12.0), last_level=st.just(False)
    )


@cache
def machines(hosted: bool | None = None, flat: bool | None = None) -> st.SearchStrategy[Machine]:
    """Machines of any balance, so that operators of small models meet every bound; `flat` ones have no blocks."""
    if hosted is None:
        return st.one_of(machines(False, flat), machines(True, flat))
    if flat is None:
        return st.one_of(machines(hosted, False), machines(hosted, True))
    none = st.just(0.0)
    on_host = st.one_of(none, powers(-6.0, -3.0)) if hosted else none
    ring = st.builds(Exchange, powers(8.0, 11.0), seconds(), seconds(), seconds())
    limits = st.sampled_from((512.0, 1e6))
    joined = st.builds(OneKernel, powers(8.0, 11.0), seconds(), seconds(), seconds(), limits)
    blocks = st.fixed_dictionaries({"gemm": block_rates(), "wide_gemm": block_rates()})
    return st.builds(
        Machine,
        rates=st.fixed_dictionaries({kind: rates() for kind in get_args(Kind)}),
        kernel_start_s=st.sampled_from((0.0, 3e-6)),
        experts=st.none() if flat else expert_rates(),
        dispatch_s=powers(-7.0, -3.5) if hosted else none,
        step_s=powers(-6.0, -3.0) if hosted else none,
        peak_flops_per_s=st.just(1e13),
        peak_hbm_bytes_per_s=st.just(1e12),
        power=powers_of_a_device(),
        exchange=ring,
        one_kernel=st.one_of(st.none(), joined),
        blocks=st.just({}) if flat else blocks,
        attention=st.none() if flat else attention_rates(),
        passes=st.none() if flat else pass_rates(),
        sms=st.sampled_from((1.0, 16.0, 108.0)),
        attention_blocks=st.sampled_from((0.0, 16.0, 108.0)),
        layers_host_s=on_host,
        synchronous=st.booleans() if hosted else st.just(False),
        sequence_s=on_host,
        request_s=on_host,
        staged_bytes_per_s=powers(8.0, 10.0),
    )


@cache
def gpus() -> st.SearchStrategy[GpuSpec]:
    names = ("a100-sxm-40gb", "rtx-4090", "rtx-a6000", "h100-sxm-80gb", "v100-pcie-16gb", "mi300x-oam-192gb")
    return st.sampled_from(names).map(lambda name: load(GpuSpec, name))


@cache
def precisions() -> st.SearchStrategy[PrecisionSpec]:
    """A precision of any scheme."""
    return st.sampled_from(PRECISIONS).map(lambda name: load(PrecisionSpec, name))


def precisions_on(gpu: GpuSpec) -> st.SearchStrategy[PrecisionSpec]:
    """A precision that a device has a unit for."""
    return precisions().filter(lambda precision: gemm_peak(gpu, precision) is not None)


@cache
@st.composite
def graphs(draw: st.DrawFn, windowed: bool = True, encoders: bool = True) -> Graph:
    """Operators of any model, engine and precision: of ranks that share each layer, or of stages."""
    model = draw(models(windowed, ("lm", "pooler", "none") if encoders else ("lm",), encoders))
    stages = draw(st.sampled_from((1, 1, 2, 3)))
    tp = draw(st.sampled_from(TPS)) if stages == 1 else 1
    return build(model, draw(engines()), draw(precisions()), tp, stages)


@cache
@st.composite
def cases(draw: st.DrawFn, hosted: bool | None = None) -> Case:
    """Ranks that share each layer, or stages of consecutive layers."""
    model = draw(models())
    layers = sum(group.count for group in model.layers)
    layer_split = draw(st.integers(1, min(layers, 8)))
    tp = draw(st.sampled_from(TPS)) if layer_split == 1 else 1
    layout = LayoutSpec(tp=tp, dp=draw(st.integers(1, 3)), layer_split=layer_split)
    gpu = draw(gpus())
    return make_case(model, gpu, draw(engines(hosted)), draw(precisions_on(gpu)), layout)


PLAIN_FIELDS = {
    ModelSpec: {"vision", "layer_inputs", "embedding_width", "residual_streams"},
    LayerGroup: {"beside_attention", "stored"},
    GroupedQueryAttention: {"value_dim", "gate", "sinks", "values_are_keys", "borrowed", "indexer"},
    MoeFfn: {"gated", "bias", "router_bias", "latent", "shared_gate"},
}
"""Class of specs -> fields that a model has none of where `spec_parameters` counts it."""


def is_plain(model: ModelSpec) -> bool:
    """Whether attention and feed-forwards of a model are of the kinds that are counted from the description alone."""
    blocks = [block for group in model.groups for block in (group.attention, group.ffn)]
    if not all(isinstance(b, GroupedQueryAttention | PlainFfn | GatedFfn | MoeFfn) for b in blocks):
        return False
    whole = any(getattr(block, "qk_norm", False) == "whole" for block in blocks)
    specs = [model, *model.groups, *blocks]
    return not whole and not any(spec.model_fields_set & PLAIN_FIELDS.get(type(spec), set()) for spec in specs)


def spec_parameters(model: ModelSpec) -> int:
    """The weights of a transformer, counted from its description alone."""
    hidden, vocab = model.hidden, model.vocab
    norm = norm_parameters(model)
    count = vocab * hidden
    if model.head == "lm":
        count += vocab * (hidden * (not model.tied_embeddings) + model.head_bias)
    if model.head == "pooler":
        count += hidden * hidden + hidden
    count += side_parameters(model, model.layers) + norm * (model.embedding_norm + model.final_norm)
    count += sum(group.count * layer_parameters(model, group) for group in model.groups)
    if model.encoder is not None:
        count += encoder_input_parameters(model, model.encoder)
        count += norm * (model.encoder.embedding_norm + model.encoder.final_norm)
    return count


def encoder_input_parameters(model: ModelSpec, encoder: EncoderStack) -> int:
    """The weights of what an encoder reads: tables, or the two convolutions of what it hears."""
    audio, hidden = encoder.audio, model.hidden
    if audio is None:
        return model.vocab * hidden * (not encoder.tied_embeddings) + side_parameters(model, encoder.layers)
    filters = audio.window * hidden * (audio.mel_bins + hidden)
    buckets = (model.position_buckets or 0) * encoder.layers[0].attention.heads
    return filters + 2 * hidden + audio.position_rows * hidden + buckets


def norm_parameters(model: ModelSpec) -> int:
    """The weights of a norm."""
    return model.hidden * (2 if model.norm == "layernorm" and model.norm_bias else 1)


def side_parameters(model: ModelSpec, layers: tuple[LayerGroup, ...]) -> int:
    """The tables beside that of the tokens, of a stack of layers."""
    rows = (model.position_rows or model.max_positions or 0) if model.position == "learned" else 0
    buckets = (model.position_buckets or 0) * layers[0].attention.heads
    return (rows + (model.token_types or 0)) * model.hidden + buckets


def layer_parameters(model: ModelSpec, group: LayerGroup) -> int:
    """The weights of one layer."""
    a, c, hidden = group.attention, group.cross_attention, model.hidden
    fused = (a.heads + 2 * a.kv_heads) * a.head_dim
    layer = hidden * fused + a.qkv_bias * fused
    layer += a.heads * a.head_dim * hidden + a.out_bias * hidden
    layer += a.qk_norm * 2 * a.head_dim
    if c is not None:
        fused = (c.heads + 2 * c.kv_heads) * c.head_dim
        layer += hidden * fused + c.qkv_bias * fused
        layer += c.heads * c.head_dim * hidden + c.out_bias * hidden
    return layer + ffn_parameters(group.ffn, hidden) + group.norms * norm_parameters(model)


def ffn_parameters(ffn: Ffn, hidden: int) -> int:
    """The weights of a feed-forward: of all experts, of the one that is shared, and of the router."""
    if ffn.kind == "moe":
        return 3 * hidden * (ffn.experts * ffn.intermediate + (ffn.shared_intermediate or 0)) + ffn.experts * hidden
    inner = ffn.intermediate * (2 if ffn.kind == "gated" else 1)
    return hidden * (inner + ffn.intermediate) + ffn.bias * (inner + hidden)


def explicit_pairs(group: Group, window: float) -> float:
    """Query-key pairs of one sequence, query by query."""
    return math.fsum(min(group.past + i, window) for i in range(1, int(group.new) + 1))
