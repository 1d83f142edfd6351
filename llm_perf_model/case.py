"""A model on devices with an engine, a precision and a layout: what can run, as a graph and a machine."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

from .allocation import Allocation, allocation
from .casts import with_casts
from .errors import InfeasibleError, SpecError, UnknownNameError
from .graph.parts import Split
from .graph.stack import build_split
from .identity import Same
from .layers import build_network
from .machine import convolution_peak, gemm_peak, machine, with_network
from .ops.node import Graph
from .placement import NO_LINKS, Joints, Links, check_layout, joints
from .rates import Machine, counted_at
from .specs.catalog import load, names
from .specs.collective import CollectiveSpec
from .specs.engine import EngineSpec
from .specs.gpu import GpuSpec
from .specs.hardware import Given
from .specs.kernels import KernelSpec
from .specs.layer import Shape
from .specs.layout import LayoutSpec
from .specs.link import LinkSpec
from .specs.model import ModelSpec
from .specs.network import NetworkSpec
from .specs.power import PowerSpec
from .specs.precision import PrecisionSpec

AnyModel = ModelSpec | NetworkSpec
"""What an estimate is of: a transformer, or a network of explicit layers."""

S = TypeVar("S", KernelSpec, PowerSpec)


class Equip(Protocol):
    """Adds the techniques of a request to a case."""

    def __call__(self, case: Case, /) -> Case:
        """The case with the techniques."""
        ...

    def at(self, index: tuple[Any, ...], shape: tuple[int, ...]) -> Equip:
        """The same at one point of arrays of that shape."""
        ...


class Draft(NamedTuple):
    """What guesses tokens ahead of a model on the same devices."""

    graph: Graph
    machine: Machine


@dataclass(frozen=True, slots=True)
class Case:
    """The structural choices of a request: everything that is not a number of the workload."""

    model: AnyModel
    gpu: GpuSpec
    engine: EngineSpec
    precision: PrecisionSpec
    running: PrecisionSpec
    """The precision as the device runs it: with weights widened on the way in where it lacks a unit as narrow."""
    layout: LayoutSpec
    named: Links
    """The links that were named."""
    joints: Joints
    """What joins the ranks of a replica inside a node, and the nodes."""
    kernels: KernelSpec
    power: PowerSpec
    beams: int
    """Beams of a search; 1: none."""
    graph: Graph
    machine: Machine
    allocation: Allocation
    draft: Draft | None = None
    equip: Equip | None = None
    """Adds the techniques of a request, to a case that is like it too; None: there are none."""

    @property
    def link(self) -> LinkSpec | None:
        """The link between the ranks of a node, None with one rank."""
        return self.joints.inside.link if self.joints.inside else None

    @property
    def collectives(self) -> CollectiveSpec | None:
        """What exchanges reach on that kind of link, or on the network between nodes of one rank."""
        return _reached(self.joints)


def make_case(
    model: AnyModel,
    gpu: GpuSpec,
    engine: EngineSpec,
    precision: PrecisionSpec,
    layout: LayoutSpec,
    link: LinkSpec | None = None,
    beams: int = 1,
    input_shape: Shape | None = None,
    network: LinkSpec | None = None,
    oversubscription: float = 1.0,
) -> Case:
    """The case, built once and evaluated for any workload.

    Raises:
        InfeasibleError: the layout does not divide the model, no link joins so many ranks, the device has
            no unit for the precision, or the model has nothing to search in.
    """
    _check_beams(model, beams)
    check_layout(model, layout)
    running = _running(precision, gpu)
    named = Links(link, network, oversubscription)
    joined = joints(gpu, layout, named)
    kernels, power = _of_generation(KernelSpec, gpu), _of_generation(PowerSpec, gpu)
    split = Split.of(layout, joined.node_ranks)
    graph = _graph(Same(model), Same(engine), Same(running), split, beams, input_shape)
    reached = _machine(model, gpu, engine, running, joined, kernels, power, beams, graph)
    return Case(
        model=model,
        gpu=gpu,
        engine=engine,
        precision=precision,
        running=running,
        layout=layout,
        named=named,
        joints=joined,
        kernels=kernels,
        power=power,
        beams=beams,
        graph=graph,
        machine=reached,
        allocation=allocation(model, gpu, engine, precision, layout, graph, _reached(joined), beams),
    )


def alike(
    case: Case,
    *,
    model: AnyModel | None = None,
    gpu: GpuSpec | None = None,
    precision: PrecisionSpec | None = None,
    layout: LayoutSpec | None = None,
) -> Case:
    """The case with another model, device, precision or layout, without techniques.

    Raises:
        InfeasibleError: it cannot run.
    """
    c = case
    parts = (model or c.model, gpu or c.gpu, c.engine, precision or c.precision, layout or c.layout)
    links = c.named if gpu is None or gpu.name == c.gpu.name else NO_LINKS  # those of one device need not be another's
    return make_case(*parts, links.inside, c.beams, None, *links[1:])


def with_hardware(case: Case, given: Given) -> Case:
    """The case on a device with other numbers than its datasheet's: another machine, the same graph.

    A file of such a device would answer the same: energy keeps its shares of the design power at the new peaks.
    """
    c, gpu, inside = case, case.gpu, case.joints.inside
    if given.hbm_bytes_per_s is not None:
        gpu = gpu.model_copy(update={"hbm_bytes_per_s": given.hbm_bytes_per_s})
    if given.flops_per_s is not None:
        factor = given.flops_per_s / c.machine.peak_flops_per_s
        gpu = gpu.model_copy(
            update={"peak_flops_per_s": {unit: peak * factor for unit, peak in gpu.peak_flops_per_s.items()}}
        )
    joined, named = c.joints, c.named
    if given.link_bytes_per_s is not None and inside is not None:
        rate = inside.link.bytes_per_s * (given.link_bytes_per_s / inside.bytes_per_s)
        inside = inside._replace(link=inside.link.model_copy(update={"bytes_per_s": rate}))
        joined, named = joined._replace(inside=inside), named._replace(inside=inside.link)
    reached = _machine(c.model, gpu, c.engine, c.running, joined, c.kernels, c.power, c.beams, c.graph)
    return replace(case, gpu=gpu, joints=joined, named=named, machine=reached)


def with_coefficients(case: Case, engine: EngineSpec) -> Case:
    """The case under an engine that differs in coefficients of time alone: another machine, the same graph."""
    c = case
    reached = _machine(c.model, c.gpu, engine, c.running, c.joints, c.kernels, c.power, c.beams, c.graph)
    return replace(case, engine=engine, machine=reached)


def _machine(
    model: AnyModel,
    gpu: GpuSpec,
    engine: EngineSpec,
    precision: PrecisionSpec,
    joined: Joints,
    kernels: KernelSpec,
    power: PowerSpec,
    beams: int,
    graph: Graph,
) -> Machine:
    """What the device reaches, with the time that the host takes for a search.

    FLOPs of a network with convolutions are held against the peak of their unit.
    """
    peak = gemm_peak(gpu, precision)
    assert peak is not None, "the precision runs on the device"
    layers, encoder_layers = _timed_layers(model)
    rates, inside = engine.kernels or kernels, joined.inside
    m = machine(gpu, engine, rates, precision, peak, layers, inside, power, encoder_layers)
    m = with_network(m, gpu, engine, joined.network)
    if any(node.op.kind == "convolution" for node in graph):
        m = counted_at(m, gpu.peak_flops_per_s[convolution_peak(gpu, precision, peak)])
    beam_s = engine.beam_s or 0.0 if beams > 1 else 0.0
    return replace(m, sequence_s=m.sequence_s + beam_s)


def _running(precision: PrecisionSpec, gpu: GpuSpec) -> PrecisionSpec:
    """The precision as the device runs it."""
    running = precision.on(gpu.peak_flops_per_s)
    if running is None:
        units = ", ".join(sorted(gpu.peak_flops_per_s))
        wanted = " and ".join(" or ".join(peaks) for peaks in precision.wanted_peaks)
        raise InfeasibleError(
            f"{gpu.name} cannot run precision {precision.name}: it needs {wanted}, the device has {units}"
            + _nearest(precision, gpu)
        )
    return running


def _nearest(precision: PrecisionSpec, gpu: GpuSpec) -> str:
    """A hint at the precision that a device can run and whose widths are nearest, the plainest of several."""

    def distance(other: PrecisionSpec) -> tuple[float, int]:
        widths = ("weight_bytes", "activation_bytes")
        apart = sum(abs(getattr(other, width) - getattr(precision, width)) for width in widths)
        return apart, len(other.model_fields_set)

    known = [load(PrecisionSpec, name) for name in names(PrecisionSpec)]
    runnable = [p for p in known if p.offered_to is None and p.on(gpu.peak_flops_per_s) is not None]
    return f"; did you mean precision {min(runnable, key=distance).name}?" if runnable else ""


def _timed_layers(model: AnyModel) -> tuple[int, int]:
    """Layers that engines time, those of transformers: of the one stack or the decoder, and of an encoder before it."""
    if not isinstance(model, ModelSpec):
        return 0, 0
    return model.layer_count - sum(group.count for group in model.crossed_layers), model.encoder_layer_count


def _of_generation(kind: type[S], gpu: GpuSpec) -> S:
    """The coefficients of the device's generation."""
    try:
        return load(kind, gpu.generation)
    except UnknownNameError:
        near = difflib.get_close_matches(gpu.generation, names(kind), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(names(kind))
        raise SpecError(f"{gpu.name}: generation '{gpu.generation}' is not known; {hint}known: {known}") from None


@lru_cache(maxsize=256)
def _graph(
    kept_model: Same[AnyModel],
    kept_engine: Same[EngineSpec],
    kept_precision: Same[PrecisionSpec],
    split: Split,
    beams: int,
    shape: Shape | None,
) -> Graph:
    """The nodes of a transformer, or of a network for inputs of a shape; devices that run it alike share them."""
    model, engine, precision = kept_model.value, kept_engine.value, kept_precision.value
    if isinstance(model, ModelSpec):
        if shape is not None:
            raise InfeasibleError(f"input_shape: {model.name} takes tokens: give input_len")
        return _with_casts(build_split(model, engine, precision, split, beams), engine, precision)
    return _with_casts(build_network(model, engine, precision, model.samples_of(shape)), engine, precision)


def _with_casts(graph: Graph, engine: EngineSpec, precision: PrecisionSpec) -> Graph:
    """The graph, with casts of weights where the engine makes them anew in each pass."""
    if engine.casts_weights and precision.kept_weight_bytes is not None:
        return with_casts(graph, precision.kept_weight_bytes)
    return graph


def _check_beams(model: AnyModel, beams: int) -> None:
    if beams > 1 and model.head != "lm":
        raise InfeasibleError(f"num_beams = {beams}: {model.name} generates no text to search in")


def _reached(joined: Joints) -> CollectiveSpec | None:
    connection = joined.inside or joined.network
    return None if connection is None else connection.reached
