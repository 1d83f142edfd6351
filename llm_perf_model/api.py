"""Names in, results out."""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np

from .capacity import Capacity
from .case import AnyModel, Case, make_case, with_hardware
from .cost import price_of
from .errors import InfeasibleError, SpecError, UnknownNameError
from .estimate import Estimate
from .generate import Phase, decode, prefill
from .handover import Handover, handover
from .images import seen
from .rates import Machine, with_efficiencies, with_power_limit
from .roofline import Pipeline
from .sizing import shortfall
from .specs.base import FileSpec
from .specs.catalog import is_path, load, names
from .specs.collective import CollectiveSpec
from .specs.engine import EngineSpec
from .specs.gpu import GpuSpec
from .specs.kernels import KernelSpec
from .specs.layer import Shape
from .specs.layout import LayoutSpec
from .specs.link import LinkSpec
from .specs.model import ModelSpec
from .specs.network import NetworkSpec
from .specs.power import PowerSpec
from .specs.precision import CacheFormat, PrecisionSpec
from .specs.price import PriceSpec, TariffSpec
from .specs.request import Request
from .specs.workload import WorkloadSpec
from .speculation import Guessed, Speculation
from .summary import summary
from .techniques import Equipment, equipped, prefilling
from .types import Num

S = TypeVar("S", bound=FileSpec)


def estimate(model: str | AnyModel, **options: Any) -> Estimate:
    """Time, memory, energy and cost of generating text, or of a pass over samples.

    Args:
        model: catalogue name, alias, path to a JSON file, a `ModelSpec` or a `NetworkSpec`.
        **options: the other fields of `Request`: `gpu`, `engine`, `precision`, `link` (names or
            specs), `kv_dtype`, `tp`, `dp` (whole numbers), `batch_size`, `input_len`, `output_len`,
            `flops_efficiency`, `hbm_memory_efficiency` (numbers, or arrays that broadcast together).

    Returns:
        The estimate; its numbers are floats, or arrays of the broadcast shape of the arguments. Points that
        exceed the memory or the model's positions are marked by `fits` and `extrapolated`;
        `require_feasible()` raises for them.

    Raises:
        RequestError: a field is wrong.
        SpecError: a name is unknown or a file is not valid.
        InfeasibleError: the request is well-formed but cannot run.
    """
    return answer(Request.of({"model": model, **options}))


def memory(model: str | AnyModel, **options: Any) -> Capacity:
    """What fits: peak memory by part, largest batch, longest prompt.

    Takes the arguments of `estimate` and raises as it does.
    """
    return Capacity(estimate(model, **options))


def answer(request: Request, case: Case | None = None) -> Estimate:
    """The estimate of a checked request, of its own case or of one that is like it."""
    request = _as_stored(request)
    plain = _case(request) if case is None else case
    if request.hardware is not None:
        plain = with_hardware(plain, request.hardware)
    case = equipped(plain, request) if request.techniques else plain
    machine = _reached(case.machine, request)
    if request.price is not None or request.tariff is not None:
        price_of(request, case.gpu.name)  # names are wrong now, not when the cost is read
    workload = _workload(request, case.model)
    _check_shares(case.layout, workload.batch_size)
    moved = _handover(case, request, workload) if request.disaggregated else None
    guessed = _speculation(case, machine, request, workload) if case.draft is not None else None
    if guessed is not None:
        case = Equipment(request, draft_tokens=guessed.draft_tokens)(plain)
    return Estimate(
        case=case,
        machine=machine,
        request=request,
        workload=workload,
        prefill=_prefill(case if moved is None else moved.case, request, workload),
        decode=_decode(case, machine, request, workload) if guessed is None else guessed.decode,
        describe=summary,
        explain=shortfall,
        speculation=guessed,
        handover=moved,
    )


def case_of(request: Request) -> Case:
    """The case of a request without its techniques, for `answer` of requests that differ in numbers alone."""
    return _case(_as_stored(request))


def _reached(machine: Machine, request: Request) -> Machine:
    """The machine with the efficiencies and the power limit of a request."""
    machine = with_efficiencies(machine, request.flops_efficiency, request.hbm_memory_efficiency)
    return with_power_limit(machine, request.power_limit_w)


def _shared(case: Case, workload: WorkloadSpec) -> tuple[Num, Pipeline]:
    """Sequences of a pass, and the stages that they go through."""
    layout = case.layout
    fullest = layout.fullest_share(case.model.layer_count)
    pipeline = Pipeline(float(layout.pp), layout.parts(workload.batch_size), fullest)
    return layout.pass_sequences(workload.batch_size), pipeline


def _prefill(case: Case, request: Request, workload: WorkloadSpec) -> Phase:
    """The pass over the prompts, with that of a draft."""
    seqs, pipeline = _shared(case, workload)
    copies, by_token = request.num_beams if case.engine.beams == "copied" else 1, case.allocation.token_by_token
    rest = (copies, by_token, request.prefix_len, request.prefill_chunk)
    machine = _reached(case.machine, request)
    phase = prefill(case.graph, machine, seqs, workload.input_len, *rest, pipeline)
    phase = seen(phase, case, machine, request, seqs)
    if case.draft is None:
        return phase
    draft = case.draft
    return replace(phase, draft=prefill(draft.graph, _reached(draft.machine, request), seqs, workload.input_len, *rest))


def _decode(case: Case, machine: Machine, request: Request, workload: WorkloadSpec) -> Phase:
    seqs, pipeline = _shared(case, workload)
    seqs, steps = seqs * request.num_beams, workload.output_len - 1.0
    return decode(case.graph, machine, seqs, workload.input_len, steps, pipeline)


def _speculation(case: Case, machine: Machine, request: Request, workload: WorkloadSpec) -> Speculation:
    """The decode of a case whose draft guesses ahead."""
    assert case.draft is not None and request.acceptance is not None, "a request with a draft has both"
    draft = case.draft._replace(machine=_reached(case.draft.machine, request))
    seqs, _ = _shared(case, workload)
    lengths = (seqs, workload.input_len, workload.output_len - 1.0)
    return Guessed(case.graph, machine, draft, *lengths, request.acceptance).speculation(request.draft_tokens)


def _handover(case: Case, request: Request, workload: WorkloadSpec) -> Handover:
    """The devices of the prefill, and what they send."""
    return handover(*prefilling(case, request), case, workload.batch_size, workload.input_len)


def _workload(request: Request, model: AnyModel) -> WorkloadSpec:
    """The request's sequences; an encoder passes over them once, and a network over samples."""
    workload = request.workload
    if model.causal:
        return workload
    if "output_len" in request.model_fields_set and np.any(workload.output_len != 1.0):
        raise InfeasibleError(f"{model.name} generates nothing: leave output_len out or give 1")
    if isinstance(model, ModelSpec):
        return workload.model_copy(update={"output_len": 1.0})
    if "input_len" in request.model_fields_set:
        raise InfeasibleError(f"{model.name} takes samples, not tokens: leave input_len out, or give input_shape")
    return workload.model_copy(update={"input_len": 1.0, "output_len": 1.0})


def models() -> tuple[str, ...]:
    """Catalogue names of the models."""
    return names(ModelSpec)


def networks() -> tuple[str, ...]:
    """Catalogue names of the networks of explicit layers."""
    return names(NetworkSpec)


def gpus() -> tuple[str, ...]:
    """Catalogue names of the devices."""
    return names(GpuSpec)


def engines() -> tuple[str, ...]:
    """Catalogue names of the engines."""
    return names(EngineSpec)


def precisions() -> tuple[str, ...]:
    """Catalogue names of the precisions."""
    return names(PrecisionSpec)


def kernels() -> tuple[str, ...]:
    """Catalogue names of the GPU generations with kernel coefficients."""
    return names(KernelSpec)


def collectives() -> tuple[str, ...]:
    """Catalogue names of the kinds of link with coefficients of exchanges."""
    return names(CollectiveSpec)


def links() -> tuple[str, ...]:
    """Catalogue names of the links."""
    return names(LinkSpec)


def powers() -> tuple[str, ...]:
    """Catalogue names of the GPU generations with coefficients of power."""
    return names(PowerSpec)


def prices() -> tuple[str, ...]:
    """Catalogue names of the price lists."""
    return names(PriceSpec)


def tariffs() -> tuple[str, ...]:
    """Catalogue names of the electricity tariffs."""
    return names(TariffSpec)


SHARES = attrgetter(*LayoutSpec.model_fields)


@lru_cache(maxsize=256)
def _layout(*shares: Any) -> LayoutSpec:
    return LayoutSpec(**dict(zip(LayoutSpec.model_fields, shares, strict=True)))


def _check_shares(layout: LayoutSpec, batch_size: Num) -> None:
    """Refuse batches with too few sequences for all that share them."""
    least = layout.attention_dp * (layout.micro_batches or 1)
    if least > 1 and (fewest := float(np.min(batch_size))) < least:
        words = " x ".join(
            f"{word} = {count}"
            for word, count in (("attention_dp", layout.attention_dp), ("micro_batches", layout.micro_batches or 1))
            if count > 1
        )
        raise InfeasibleError(f"batch_size = {fewest:.0f} is less than {words}: give at least {least}")


def _as_stored(request: Request) -> Request:
    """The request with the precision of its checkpoint, where the model is one and no precision is named."""
    model = request.model
    if "precision" in request.model_fields_set or not isinstance(model, str) or not is_path(model):
        return request
    from .importers.foreign import states_precision

    return request.model_copy(update={"precision": model}) if states_precision(model) else request


def _case(request: Request) -> Case:
    """The case of a request, from a cache where every part of it is a catalogue name."""
    engine = request.engine
    if request.pool_fraction is not None:
        engine = _spec(EngineSpec, engine).model_copy(update={"pool_fraction": request.pool_fraction})
    parts = (request.model, request.gpu, engine, request.precision, request.link, request.network)
    rest = (
        request.oversubscription,
        _layout(*SHARES(request)),
        request.num_beams,
        request.input_shape,
        request.kv_dtype,
    )
    if all(part is None or (isinstance(part, str) and not is_path(part)) for part in parts):
        return _named_case(*parts, *rest)
    return _make(*parts, *rest)


def _make(
    model: str | AnyModel,
    gpu: str | GpuSpec,
    engine: str | EngineSpec,
    precision: str | PrecisionSpec,
    link: str | LinkSpec | None,
    network: str | LinkSpec | None,
    oversubscription: float,
    layout: LayoutSpec,
    beams: int,
    input_shape: Shape | None,
    kv_dtype: CacheFormat = "auto",
) -> Case:
    return make_case(
        _model_of(model, input_shape),
        _spec(GpuSpec, gpu),
        _spec(EngineSpec, engine),
        _spec(PrecisionSpec, precision).with_cache(kv_dtype),
        layout,
        _link(link),
        beams,
        input_shape,
        _link(network),
        oversubscription,
    )


def _link(value: str | LinkSpec | None) -> LinkSpec | None:
    return None if value is None else _spec(LinkSpec, value)


def _model_of(value: str | AnyModel, input_shape: Shape | None) -> AnyModel:
    """The model or the network that a name, an alias or a path stands for."""
    if not isinstance(value, str):
        return value
    if not is_path(value):
        return _named_model(value)
    return _imported(value, input_shape) or _known_model(value)


def _known_model(value: str) -> AnyModel:
    """The model or the network of a name, an alias, or a file of this package."""
    if value in names(NetworkSpec):
        return load(NetworkSpec, value)
    try:
        return load(ModelSpec, value)
    except UnknownNameError as failure:
        try:
            return load(NetworkSpec, value)
        except UnknownNameError as other:
            near = difflib.get_close_matches(value, [*names(ModelSpec), *names(NetworkSpec)], n=1)
            raise (other if near and near[0] in names(NetworkSpec) else failure) from None
    except SpecError as failure:
        if not is_path(value):
            raise
        return _network_at(value, failure)


def _imported(path: str, input_shape: Shape | None) -> AnyModel | None:
    """What a file of another tool holds; None for a file of this package."""
    if path.endswith(".onnx"):
        from .importers.onnx import import_onnx

        return import_onnx(path, input_shape=input_shape)
    from .importers.foreign import foreign

    return foreign(ModelSpec, path)


def _network_at(path: str, failure: SpecError) -> NetworkSpec:
    """The network in a file that is no model; the shorter report where it is neither."""
    try:
        return load(NetworkSpec, path)
    except SpecError as other:
        raise min(failure, other, key=lambda error: str(error).count("\n")) from None


_named_model = lru_cache(maxsize=256)(_known_model)
_named_case = lru_cache(maxsize=256)(_make)


def _spec(kind: type[S], value: S | str) -> S:
    """The spec that a name, a path or a file of another tool stands for."""
    if not isinstance(value, str):
        return value
    if not is_path(value):
        return load(kind, value)
    from .importers.foreign import find

    return find(kind, value)
