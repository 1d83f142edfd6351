"""A model on devices with an engine, a precision and a layout: what can run, as a graph and a machine."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from .allocation import Allocation, allocation
from .casts import with_casts
from .errors import InfeasibleError, SpecError, UnknownNameError
from .graph.stack import build
from .layers import build_network
from .machine import Connection, convolution_peak, gemm_peak, machine
from .ops.node import Graph
from .rates import Machine, counted_at
from .specs.attention import CrossAttention
from .specs.catalog import load, names
from .specs.collective import CollectiveSpec
from .specs.engine import EngineSpec
from .specs.ffn import Ffn, GatedFfn, MoeFfn, PlainFfn
from .specs.gpu import GpuSpec
from .specs.kernels import KernelSpec
from .specs.layer import Shape, shape_after, text_of
from .specs.layout import LayoutSpec
from .specs.link import LinkSpec
from .specs.mixer import Mixer
from .specs.model import LayerGroup, ModelSpec
from .specs.network import NetworkSpec
from .specs.power import PowerSpec
from .specs.precision import PrecisionSpec

AnyModel = ModelSpec | NetworkSpec
"""What an estimate is of: a transformer, or a network of explicit layers."""

S = TypeVar("S", KernelSpec, PowerSpec)

MOST_RANKS = 1024
"""Ranks that are tried for one that divides a model."""

NODE_RANKS = 8
"""Cards that share one host."""


@dataclass(frozen=True, slots=True)
class Case:
    """The structural choices of a request: everything that is not a number of the workload."""

    model: AnyModel
    gpu: GpuSpec
    engine: EngineSpec
    precision: PrecisionSpec
    layout: LayoutSpec
    given_link: LinkSpec | None
    """The link that was named, None for the device's fastest."""
    joined: Connection | None
    """What joins tensor-parallel ranks, None with one rank."""
    kernels: KernelSpec
    power: PowerSpec
    beams: int
    """Beams of a search; 1: none."""
    graph: Graph
    machine: Machine
    allocation: Allocation
    equip: Callable[[Case], Case] | None = None
    """Adds the techniques of a request, to a case that is like it too; None: there are none."""

    @property
    def link(self) -> LinkSpec | None:
        """The link between tensor-parallel ranks, None with one rank."""
        return self.joined.link if self.joined else None

    @property
    def collectives(self) -> CollectiveSpec | None:
        """What exchanges reach on that kind of link, None with one rank."""
        return self.joined.reached if self.joined else None


def make_case(
    model: AnyModel,
    gpu: GpuSpec,
    engine: EngineSpec,
    precision: PrecisionSpec,
    layout: LayoutSpec,
    link: LinkSpec | None = None,
    beams: int = 1,
    input_shape: Shape | None = None,
) -> Case:
    """The case, built once and evaluated for any workload.

    Raises:
        InfeasibleError: the layout does not divide the model, no link joins so many ranks, the device has
            no unit for the precision, or the model has nothing to search in.
    """
    _check(model, layout, beams)
    joined = connection(gpu, max(layout.tp, layout.layer_split), link)
    kernels, power = _of_generation(KernelSpec, gpu), _of_generation(PowerSpec, gpu)
    graph = _graph(model, engine, precision, layout, beams, input_shape)
    reached = _machine(model, gpu, engine, precision, joined, kernels, power, beams, graph)
    collectives = joined.reached if joined else None
    return Case(
        model=model,
        gpu=gpu,
        engine=engine,
        precision=precision,
        layout=layout,
        given_link=link,
        joined=joined,
        kernels=kernels,
        power=power,
        beams=beams,
        graph=graph,
        machine=reached,
        allocation=allocation(model, gpu, engine, precision, layout, graph, collectives, beams),
    )


def with_coefficients(case: Case, engine: EngineSpec) -> Case:
    """The case under an engine that differs in coefficients of time alone: another machine, the same graph."""
    c = case
    reached = _machine(c.model, c.gpu, engine, c.precision, c.joined, c.kernels, c.power, c.beams, c.graph)
    return replace(case, engine=engine, machine=reached)


def _machine(
    model: AnyModel,
    gpu: GpuSpec,
    engine: EngineSpec,
    precision: PrecisionSpec,
    joined: Connection | None,
    kernels: KernelSpec,
    power: PowerSpec,
    beams: int,
    graph: Graph,
) -> Machine:
    """What the device reaches, with the time that the host takes for a search.

    FLOPs of a network with convolutions are held against the peak of their unit.
    """
    peak = gemm_peak(gpu, precision)
    if peak is None:
        units = ", ".join(sorted(gpu.peak_flops_per_s))
        wanted = " or ".join(precision.gemm_peaks)
        raise InfeasibleError(
            f"{gpu.name} cannot run precision {precision.name}: it needs {wanted}, the device has {units}"
            + _nearest(precision, gpu)
        )
    layers, encoder_layers = _timed_layers(model)
    m = machine(gpu, engine, engine.kernels or kernels, precision, peak, layers, joined, power, encoder_layers)
    if any(node.op.kind == "convolution" for node in graph):
        m = counted_at(m, gpu.peak_flops_per_s[convolution_peak(gpu, precision, peak)])
    beam_s = engine.beam_s or 0.0 if beams > 1 else 0.0
    return replace(m, sequence_s=m.sequence_s + beam_s)


def _nearest(precision: PrecisionSpec, gpu: GpuSpec) -> str:
    """A hint at the precision that a device can run and whose widths are nearest, the plainest of several."""

    def distance(other: PrecisionSpec) -> tuple[float, int]:
        widths = ("weight_bytes", "activation_bytes")
        apart = sum(abs(getattr(other, width) - getattr(precision, width)) for width in widths)
        return apart, len(other.model_fields_set)

    known = [load(PrecisionSpec, name) for name in names(PrecisionSpec)]
    runnable = [other for other in known if gemm_peak(gpu, other) is not None]
    return f"; did you mean precision {min(runnable, key=distance).name}?" if runnable else ""


def _timed_layers(model: AnyModel) -> tuple[int, int]:
    """Layers that engines time, those of transformers: of the one stack or the decoder, and of an encoder before it."""
    return (model.layer_count, model.encoder_layer_count) if isinstance(model, ModelSpec) else (0, 0)


def _of_generation(kind: type[S], gpu: GpuSpec) -> S:
    """The coefficients of the device's generation."""
    try:
        return load(kind, gpu.generation)
    except UnknownNameError:
        near = difflib.get_close_matches(gpu.generation, names(kind), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(names(kind))
        raise SpecError(f"{gpu.name}: generation '{gpu.generation}' is not known; {hint}known: {known}") from None


def _graph(
    model: AnyModel, engine: EngineSpec, precision: PrecisionSpec, layout: LayoutSpec, beams: int, shape: Shape | None
) -> Graph:
    """The nodes of a transformer, or of a network for inputs of a shape."""
    if isinstance(model, ModelSpec):
        if shape is not None:
            raise InfeasibleError(f"input_shape: {model.name} takes tokens: give input_len")
        return _with_casts(build(model, engine, precision, layout.tp, layout.layer_split, beams), engine, precision)
    try:
        shape_after(model.layers, shape or model.input)
    except ValueError as error:
        raise InfeasibleError(
            f"input_shape {text_of(shape or model.input)} does not suit {model.name}: {error}"
        ) from None
    return _with_casts(build_network(model, engine, precision, shape or model.input), engine, precision)


def _with_casts(graph: Graph, engine: EngineSpec, precision: PrecisionSpec) -> Graph:
    """The graph, with casts of weights where the engine makes them anew in each pass."""
    if engine.casts_weights and precision.kept_weight_bytes is not None:
        return with_casts(graph, precision.kept_weight_bytes)
    return graph


def _check(model: AnyModel, layout: LayoutSpec, beams: int) -> None:
    """Refuse layouts and searches that the model cannot run."""
    layers = model.layer_count
    if isinstance(model, ModelSpec):
        _check_divides(model, layout.tp)
    elif layout.tp > 1 or layout.layer_split > 1:
        raise InfeasibleError(
            f"{model.name} is a network of layers: only tp = 1 and layer_split = 1 are answered; use dp"
        )
    if isinstance(model, ModelSpec) and model.encoder is not None and layout.layer_split > 1:
        raise InfeasibleError(
            f"layer_split = {layout.layer_split}: {model.name} has an encoder and a decoder, which are not split by "
            "layers; use tp or dp"
        )
    if layout.tp > 1 and layout.layer_split > 1:
        raise InfeasibleError("tp and layer_split exclude each other: give one of them")
    if layout.layer_split > layers:
        raise InfeasibleError(f"layer_split = {layout.layer_split} exceeds the {layers} layers of {model.name}")
    if beams > 1 and model.head != "lm":
        raise InfeasibleError(f"num_beams = {beams}: {model.name} generates no text to search in")


def _check_divides(model: ModelSpec, tp: int) -> None:
    for group in model.groups:
        if not _divides(group, tp):
            most = max(count for each in model.groups for block in each.blocks for count in block.shared.values())
            possible = [n for n in range(1, min(most, MOST_RANKS) + 1) if all(_divides(g, n) for g in model.groups)]
            sizes = {word: count for block in group.blocks for word, count in (block.shared | _copied(block)).items()}
            text = ", ".join(f"{word} {n}" if "width" in word else f"{n} {word}" for word, n in sizes.items())
            raise InfeasibleError(
                f"tp = {tp} does not divide {model.name}: {text}; possible: {', '.join(map(str, possible))}"
            )


def _copied(block: Mixer | CrossAttention | Ffn) -> dict[str, int]:
    return {} if isinstance(block, PlainFfn | GatedFfn | MoeFfn) else block.copied


def _divides(group: LayerGroup, tp: int) -> bool:
    """What ranks share splits evenly; what they may copy splits evenly or is copied evenly."""
    shared = all(count % tp == 0 for block in group.blocks for count in block.shared.values())
    return shared and all(n % tp == 0 or tp % n == 0 for block in group.blocks for n in _copied(block).values())


def _joined(link: LinkSpec, bundles: int) -> Connection:
    return Connection(link, bundles, load(CollectiveSpec, link.kind))


def connection(gpu: GpuSpec, tp: int, link: LinkSpec | None) -> Connection | None:
    """The fastest link that joins `tp` cards: the fabric where it reaches, else the host bus."""
    if tp == 1:
        return None
    fabric = gpu.scale_up
    if link is not None and link.storage:
        raise InfeasibleError(f"link = {link.name}: a drive joins no devices; name a fabric, a bus or a network")
    if link is not None:
        return _joined(link, fabric.links if fabric is not None and fabric.link == link.name else 1)
    if fabric is not None and tp <= fabric.ranks:
        return _joined(load(LinkSpec, fabric.link), fabric.links)
    if tp <= NODE_RANKS:
        return _joined(load(LinkSpec, gpu.host_link), 1)
    reach = max(NODE_RANKS, fabric.ranks if fabric else 0)
    raise InfeasibleError(
        f"{tp} devices are more than one node of {gpu.name} holds ({reach}); name the network with --link"
    )
