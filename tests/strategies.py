"""Strategies for batches, operators, models, engines, machines and workloads.

Sizes are whole numbers, so that sums and products of them are exact in float64.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
from typing import Any, NamedTuple, get_args, get_type_hints

from hypothesis import strategies as st

import llm_perf_model.ops
from llm_perf_model.case import Case, make_case
from llm_perf_model.machine import Machine, Rate, TileRate
from llm_perf_model.ops.base import AbstractOp, Kind
from llm_perf_model.ops.batch import UNLIMITED, Batch, Group
from llm_perf_model.specs.attention import GroupedQueryAttention
from llm_perf_model.specs.base import Assumption
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec, Passes
from llm_perf_model.specs.ffn import GatedFfn, PlainFfn
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.layout import LayoutSpec
from llm_perf_model.specs.model import LayerGroup, ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

DRAWN = (Assumption(fields=("*",), reason="drawn at random for a test"),)
TPS = (1, 2, 4, 8)
FUSIONS = ("bias", "residual_norm", "activation", "rotary")
ROLES = ("layernorm", "rmsnorm", "rotary", "layout", "logits", "gelu")


class Lengths(NamedTuple):
    """A workload: `steps` decode steps follow the prompt."""

    batch_size: float
    input_len: float
    steps: float


def wholes(low: int, high: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(float)


def powers(low: float, high: float) -> st.SearchStrategy[float]:
    """Log-uniform numbers from 10**low to 10**high."""
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


def groups() -> st.SearchStrategy[Group]:
    return st.builds(Group, wholes(1, 8), wholes(1, 40), wholes(0, 90))


def batches() -> st.SearchStrategy[Batch]:
    return st.lists(groups(), min_size=1, max_size=4).map(Batch.of)


def windows() -> st.SearchStrategy[float]:
    return st.one_of(st.just(UNLIMITED), wholes(1, 80))


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
    "ranks": st.sampled_from((2.0, 4.0, 8.0)),
    "side_rows": st.lists(wholes(1, 64), max_size=2).map(tuple),
    "weights": wholes(0, 64),
}


def ops(cls: type[AbstractOp]) -> st.SearchStrategy[AbstractOp]:
    """Operators of a class, field by field: a new class needs no entry here unless its fields are odd."""
    hints = get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return st.builds(cls, **{name: _op_field(name, hints[name]) for name in names})


def _op_field(name: str, hint: object) -> st.SearchStrategy[Any]:
    if hint is bool:
        return st.booleans()
    if name in _OP_FIELDS:
        return _OP_FIELDS[name]
    if name.endswith("_bytes"):
        return st.sampled_from((0.5, 1.0, 2.0, 4.0))
    return wholes(1, 96)


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


@st.composite
def layer_groups(draw: st.DrawFn, windowed: bool = True) -> LayerGroup:
    ffn = draw(st.sampled_from((PlainFfn, GatedFfn)))
    return LayerGroup(
        count=draw(st.integers(1, 6)),
        attention=draw(attentions(windowed)),
        ffn=ffn(intermediate=8 * draw(st.integers(1, 80)), activation="gelu", bias=draw(st.booleans())),
        parallel=draw(st.booleans()),
        norms=draw(st.integers(0, 4)),
    )


@st.composite
def models(draw: st.DrawFn, windowed: bool = True, heads: tuple[str, ...] = ("lm",)) -> ModelSpec:
    """Small models that every tp of TPS divides."""
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
        embedding_norm=draw(st.booleans()),
        final_norm=draw(st.booleans()),
        tied_embeddings=draw(st.booleans()),
        head=draw(st.sampled_from(heads)),
        head_bias=draw(st.booleans()),
        layers=tuple(draw(st.lists(layer_groups(windowed), min_size=1, max_size=3))),
        parameters=1.0,
    )


def efficiencies() -> st.SearchStrategy[float]:
    return st.floats(0.05, 1.0)


def maybe(values: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    """A value of the engine's own, or None for the generation's."""
    return st.one_of(st.none(), values)


def passes() -> st.SearchStrategy[dict[Any, Passes]]:
    """Passes of some roles: no fewer tensors and kernels than a plain kernel has."""
    of_a_role = st.builds(Passes, tensors=wholes(3, 20), kernels=wholes(1, 9))
    return st.dictionaries(st.sampled_from(ROLES), of_a_role, max_size=3)


@st.composite
def engines(draw: st.DrawFn, hosted: bool | None = None) -> EngineSpec:
    """Engines of any fusion; `hosted` ones have time on the host per kernel, per layer, per step and per request."""
    hosted = draw(st.booleans()) if hosted is None else hosted
    on_host = st.one_of(st.just(0.0), powers(-6.0, -3.0))
    return EngineSpec(
        name="drawn",
        title="Drawn",
        assumed=DRAWN,
        kind="eager" if hosted else "fused",
        gemm_compute_efficiency=draw(maybe(efficiencies())),
        gemm_memory_efficiency=draw(maybe(efficiencies())),
        attention_compute_efficiency=draw(maybe(efficiencies())),
        attention_memory_efficiency=draw(maybe(efficiencies())),
        elementwise_memory_efficiency=draw(maybe(efficiencies())),
        link_efficiency=draw(efficiencies()),
        kernel_start_s=draw(st.sampled_from((0.0, 3e-6, None))),
        collective_start_s=draw(st.sampled_from((0.0, 4e-6))),
        dispatch_s=draw(powers(-7.0, -4.5)) if hosted else 0.0,
        layer_s=draw(on_host) if hosted else 0.0,
        half_layer_s=draw(on_host) if hosted else 0.0,
        synchronous=hosted and draw(st.booleans()),
        step_s=draw(powers(-6.0, -3.0)) if hosted else 0.0,
        sequence_s=draw(on_host) if hosted else 0.0,
        request_s=draw(on_host) if hosted else 0.0,
        reserve_bytes=draw(wholes(0, 2**30)),
        attention=draw(st.sampled_from(("fused", "fused_masked", "materialised"))),
        attention_split=draw(st.booleans()),
        fast_head_dims=draw(st.sampled_from((None, (16,), (4, 64)))),
        slow_attention_memory_efficiency=draw(st.floats(0.01, 0.05)),
        cache_growth=draw(st.sampled_from(("in_place", "concatenated"))),
        concat_values_per_clock_per_sm=draw(powers(-1.0, 2.0)),
        logits=draw(st.sampled_from(("last", "all"))),
        fused=draw(st.frozensets(st.sampled_from(FUSIONS))),
        passes=draw(passes()),
        staged_bytes_per_s=draw(powers(9.0, 10.0)),
        staged_positions=draw(st.sampled_from((frozenset(), frozenset({"learned"})))),
    )


def rates() -> st.SearchStrategy[Rate]:
    return st.builds(Rate, powers(9.0, 13.0), powers(8.0, 12.0))


@st.composite
def tile_rates(draw: st.DrawFn, sms: float) -> TileRate:
    """A tile of a generation at a fraction of 1e13 FLOP/s."""
    rows, columns = draw(st.sampled_from(((256.0, 128.0), (128.0, 64.0), (64.0, 32.0), (48.0, 160.0))))
    return TileRate(rows, columns, 2.0 * sms * rows * columns / (1e13 * draw(efficiencies())))


@st.composite
def machines(draw: st.DrawFn, hosted: bool | None = None, tiled: bool | None = None) -> Machine:
    """Machines of any balance, so that operators of small models meet every bound."""
    hosted = draw(st.booleans()) if hosted is None else hosted
    tiled = draw(st.booleans()) if tiled is None else tiled
    sms = draw(st.sampled_from((1.0, 16.0, 108.0)))
    on_host = st.one_of(st.just(0.0), powers(-6.0, -3.0))
    return Machine(
        rates={kind: draw(rates()) for kind in get_args(Kind)},
        kernel_start_s=draw(st.sampled_from((0.0, 3e-6))),
        dispatch_s=draw(powers(-7.0, -3.5)) if hosted else 0.0,
        step_s=draw(powers(-6.0, -3.0)) if hosted else 0.0,
        link_bytes_per_s=draw(powers(8.0, 11.0)),
        link_start_s=draw(st.sampled_from((0.0, 6e-6))),
        link_hop_s=draw(st.sampled_from((0.0, 1e-6))),
        peak_flops_per_s=1e13,
        peak_hbm_bytes_per_s=1e12,
        hbm_bytes=1e10,
        reserve_bytes=0.0,
        tdp_w=300.0,
        tiles=tuple(draw(st.lists(tile_rates(sms), min_size=1, max_size=3))) if tiled else (),
        sms=sms,
        attention_blocks=draw(st.sampled_from((0.0, sms))),
        layers_host_s=draw(on_host) if hosted else 0.0,
        synchronous=hosted and draw(st.booleans()),
        sequence_s=draw(on_host) if hosted else 0.0,
        request_s=draw(on_host) if hosted else 0.0,
        staged_bytes_per_s=draw(powers(8.0, 10.0)),
    )


def gpus() -> st.SearchStrategy[GpuSpec]:
    names = ("a100-sxm-40gb", "rtx-4090", "rtx-a6000", "h100-sxm-80gb", "v100-pcie-16gb", "mi300x-oam-192gb")
    return st.sampled_from(names).map(lambda name: load(GpuSpec, name))


def precisions() -> st.SearchStrategy[PrecisionSpec]:
    return st.sampled_from(("w16a16", "fp32")).map(lambda name: load(PrecisionSpec, name))


@st.composite
def cases(draw: st.DrawFn, hosted: bool | None = None) -> Case:
    """Ranks that share each layer, or stages of consecutive layers."""
    model = draw(models())
    layers = sum(group.count for group in model.layers)
    layer_split = draw(st.integers(1, min(layers, 8)))
    tp = draw(st.sampled_from(TPS)) if layer_split == 1 else 1
    layout = LayoutSpec(tp=tp, dp=draw(st.integers(1, 3)), layer_split=layer_split)
    return make_case(model, draw(gpus()), draw(engines(hosted)), draw(precisions()), layout)


def spec_parameters(model: ModelSpec) -> int:
    """The weights of a decoder, counted from its description alone."""
    hidden, vocab = model.hidden, model.vocab
    norm = hidden * (2 if model.norm == "layernorm" and model.norm_bias else 1)
    count = vocab * hidden
    if model.head == "lm":
        count += vocab * (hidden * (not model.tied_embeddings) + model.head_bias)
    if model.head == "pooler":
        count += hidden * hidden + hidden
    if model.position == "learned":
        count += (model.position_rows or model.max_positions or 0) * hidden
    count += (model.token_types or 0) * hidden
    count += norm * (model.embedding_norm + model.final_norm)
    for group in model.layers:
        a, f = group.attention, group.ffn
        fused = (a.heads + 2 * a.kv_heads) * a.head_dim
        inner = f.intermediate * (2 if f.kind == "gated" else 1)
        layer = hidden * fused + a.qkv_bias * fused
        layer += a.heads * a.head_dim * hidden + a.out_bias * hidden
        layer += a.qk_norm * 2 * a.head_dim
        layer += hidden * inner + f.intermediate * hidden + f.bias * (inner + hidden)
        layer += group.norms * norm
        count += group.count * layer
    return count


def explicit_pairs(group: Group, window: float) -> float:
    """Query-key pairs of one sequence, query by query."""
    return math.fsum(min(group.past + i, window) for i in range(1, int(group.new) + 1))
