"""Techniques of a request on a case: what they change in its operators, its rates and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from .allocation import Allocation, Buffer, OwnCache
from .case import Case, Draft, alike
from .errors import InfeasibleError, RequestError
from .graph.guesses import as_draft, own_modules
from .graph.stack import kv_bytes_per_token
from .images import patches_of
from .liveness import largest_live
from .numeric import minimum
from .ops.node import running
from .rates import HostLink
from .specs.base import FileSpec
from .specs.catalog import load
from .specs.collective import CollectiveSpec
from .specs.gpu import GpuSpec
from .specs.link import LinkSpec
from .specs.model import ModelSpec
from .specs.precision import PrecisionSpec
from .specs.request import Request
from .specs.techniques import OWN_MODULES
from .types import Num

S = TypeVar("S", bound=FileSpec)

STREAMED_LAYERS = 2.0
"""Layers whose share on the host is on the device too: the one that runs, and the next one on its way."""

VOCABULARY_RATIO = 1.01
"""Sizes of vocabularies that may be the same one, with rows added to fill up ranks."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """The techniques of a request, for its case and for others like it."""

    request: Request
    draft_tokens: Num | None = None
    """Guesses of a step, as far as they are known."""
    prefills: bool = False
    """Whether the case is that of a prefill on devices of its own."""

    def __call__(self, case: Case) -> Case:
        """The case with what the techniques change; devices that only decode make passes of one token."""
        r = self.request
        chunk = np.inf if r.prefill_chunk is None else r.prefill_chunk
        chunk = 1.0 if r.disaggregated and not self.prefills else chunk
        case = replace(case, allocation=replace(case.allocation, prefix_len=r.prefix_len, chunk_tokens=chunk))
        if np.any(r.images):
            case = self._seeing(case)
        if r.draft is not None:
            case = self._drafting(case)
        if np.any(r.offload_weights) or np.any(r.offload_kv):
            case = self._offloading(case)
        return replace(case, equip=self)

    def at(self, index: tuple[Any, ...], shape: tuple[int, ...]) -> Equipment:
        """The techniques at one point of arrays of that shape."""

        def number(value: Num) -> float:
            return float(np.broadcast_to(value, shape)[index])

        fields = {name: getattr(self.request, name) for name in self.request.techniques}
        numbers = {name: number(value) for name, value in fields.items() if isinstance(value, np.ndarray)}
        guesses = None if self.draft_tokens is None else number(self.draft_tokens)
        return replace(self, request=self.request.model_copy(update=numbers), draft_tokens=guesses)

    def _seeing(self, case: Case) -> Case:
        """With images in each prompt, and what their encoder finds room for."""
        patches, alive = patches_of(case.model, self.request), largest_live(running(case.graph, "vision"))
        allocation = replace(case.allocation, images=self.request.images, patches=patches, vision_live=alive)
        return replace(case, allocation=allocation)

    def _drafting(self, case: Case) -> Case:
        """With a draft, which keeps weights and a cache beside the model's and schedules no steps of its own."""
        made = self._own_modules(case) if self.request.draft == OWN_MODULES else self._model(case)
        machine = replace(made.machine, step_s=0.0, sequence_s=0.0)
        guesses = self.draft_tokens if self.draft_tokens is not None else self.request.draft_tokens
        both = replace(
            beside(case.allocation, made.allocation), step_tokens=1.0 + (0.0 if guesses is None else guesses)
        )
        return replace(case, allocation=both, draft=Draft(as_draft(made.graph), machine))

    def _model(self, case: Case) -> Case:
        r = self.request
        model = r.draft if isinstance(r.draft, ModelSpec) else load(ModelSpec, str(r.draft))
        precision = case.precision if r.draft_precision is None else _spec(PrecisionSpec, r.draft_precision)
        assert isinstance(case.model, ModelSpec), "networks are refused before"
        for problem in _mismatches(model, case.model):
            raise InfeasibleError(f"draft: {model.name} {problem}")
        return alike(case, model=model, precision=precision)

    def _own_modules(self, case: Case) -> Case:
        assert isinstance(case.model, ModelSpec), "networks are refused before"
        modules = case.model.prediction
        if modules is None:
            raise InfeasibleError(
                f"draft: {case.model.name} has no modules of its own that predict several tokens; name a smaller model"
            )
        depth, kept = float(modules.depth), tuple(node for node in case.graph if node.runs == "prediction")
        graph = own_modules(case.graph, depth)
        layers = sum(group.count for group in modules.layers) / case.model.layer_count
        machine = replace(case.machine, layers_host_s=layers * case.machine.layers_host_s, request_s=0.0)
        allocation = replace(
            case.allocation,
            weights_bytes=sum(node.weights_bytes for node in kept),
            kv_token_bytes=kv_bytes_per_token(tuple(replace(node, runs="always") for node in kept)),
            cache_tensors=layers * depth * case.allocation.cache_tensors,
            live=largest_live(graph),
            own=OwnCache(),
        )
        return replace(case, graph=graph, machine=machine, allocation=allocation)

    def _offloading(self, case: Case) -> Case:
        r = self.request
        to = None if r.offload_to is None else _spec(LinkSpec, r.offload_to)
        link = HostLink(r.offload_weights, r.offload_kv, host_bytes_per_s(case.gpu, to))
        on_device = _offloaded(case.allocation, link, float(case.model.layer_count))
        return replace(case, allocation=on_device, machine=replace(case.machine, host_link=link))


def equipped(case: Case, request: Request) -> Case:
    """The case with the techniques of a request.

    Raises:
        RequestError: fields of techniques do not agree.
        InfeasibleError: the model or the engine cannot use one.
    """
    for problem in _impossible(case, request):
        raise InfeasibleError(problem)
    if np.any(request.prefix_len >= request.input_len):
        raise RequestError(_long_prefix(request.prefix_len, request.input_len))
    return Equipment(request)(case)


def prefilling(case: Case, request: Request) -> tuple[Case, LinkSpec]:
    """The case of a prefill on devices of its own, and the link to those of `case`."""
    gpu = case.gpu if request.prefill_gpu is None else _spec(GpuSpec, request.prefill_gpu)
    layout = case.layout if request.prefill_tp is None else case.layout.model_copy(update={"tp": request.prefill_tp})
    named = request.transfer_link if request.transfer_link is not None else gpu.network
    if named is None:
        raise InfeasibleError(f"disaggregated: {gpu.name} has no usual network; name the link with transfer_link")
    link = _spec(LinkSpec, named)
    if link.storage:
        raise InfeasibleError(f"transfer_link: {link.name} is a drive, which joins no devices; name another link")
    return Equipment(request, prefills=True)(alike(case, gpu=gpu, layout=layout)), link


def host_bytes_per_s(gpu: GpuSpec, drive: LinkSpec | None = None) -> float:
    """Rate at which large pieces come from host memory, or from a drive behind it."""
    link = load(LinkSpec, gpu.host_link)
    reached = link.host_bytes_per_s * (load(CollectiveSpec, link.kind).copy_efficiency or 1.0)
    return reached if drive is None else min(reached, drive.bytes_per_s)


def beside(one: Allocation, other: Allocation) -> Allocation:
    """The memory of a model with what another keeps on the same devices; their passes take turns."""
    return replace(
        one,
        weights_bytes=one.weights_bytes + other.weights_bytes,
        kv_token_bytes=one.kv_token_bytes + other.kv_token_bytes,
        cache_tensors=one.cache_tensors + other.cache_tensors,
        own=OwnCache(one.own.state_bytes + other.own.state_bytes, (*one.own.rolling, *other.own.rolling)),
        live=(*one.live, *other.live),
    )


def _offloaded(a: Allocation, link: HostLink, layers: float) -> Allocation:
    r"""What stays on the device of a share f on the host, :math:`\min(1, 1 - f + 2 f / L)` of L layers."""
    weights, cache = (
        minimum(1.0, 1.0 - share + share * STREAMED_LAYERS / layers)
        for share in (link.weights_fraction, link.cache_fraction)
    )
    rolling = tuple(each._replace(token_bytes=each.token_bytes * cache) for each in a.own.rolling)
    return replace(
        a,
        weights_bytes=a.weights_bytes * weights,
        kv_token_bytes=a.kv_token_bytes * cache,
        source_token_bytes=a.source_token_bytes * cache,
        own=a.own._replace(rolling=rolling),
        buffer=None if a.buffer is None else _smaller(a.buffer, cache),
    )


def _smaller(buffer: Buffer, cache: Num) -> Buffer:
    """A workspace that holds a share of the cache."""
    gone = buffer.cache_bytes * (1.0 - cache)
    return buffer._replace(
        token_bytes=buffer.token_bytes - gone,
        held_bytes=buffer.held_bytes - gone,
        cache_bytes=buffer.cache_bytes - gone,
    )


def _impossible(case: Case, r: Request) -> Iterator[str]:
    """What the model, the engine or the layout cannot do."""
    cached = r.techniques - {"offload_weights", "offload_to"}
    if cached and (not case.model.causal or case.allocation.encodes):
        what = "has an encoder that reads prompts whole" if case.model.causal else "makes one pass and keeps no cache"
        yield f"{min(cached)}: {case.model.name} {what}; leave it out"
    unstaged = {"draft": r.draft is not None, "offload_kv": r.offload_kv, "offload_weights": r.offload_weights}
    if case.layout.pp > 1:
        for field in (field for field, used in unstaged.items() if np.any(used)):
            yield f"{field}: is answered with pp = 1 alone, not with {case.layout.pp} stages; use tp"
    if np.any(r.offload_kv) and case.engine.concatenates(case.allocation.cache):
        yield f"offload_kv: {case.engine.name} copies its cache as it grows, on the device; leave it out"
    if np.any(r.offload_kv) and r.disaggregated:
        yield "offload_kv: is not answered with disaggregated; leave one of them out"
    if r.draft is not None and r.num_beams > 1:
        yield f"draft: is not answered with num_beams = {r.num_beams}; leave one of them out"
    if r.draft is not None and case.allocation.token_by_token:
        yield f"draft: {case.engine.name} reads tokens one by one, so it cannot verify several in a pass; leave it out"


def _mismatches(draft: ModelSpec, model: ModelSpec) -> Iterator[str]:
    """Why a model cannot guess the tokens of another."""
    if not draft.causal or draft.encoder is not None or draft.head != "lm":
        yield "is no decoder that generates text; name one"
    small, large = sorted((draft.vocab, model.vocab))
    if large > VOCABULARY_RATIO * small:
        yield f"has {draft.vocab} words and {model.name} {model.vocab}: name a draft with the same vocabulary"


def _long_prefix(prefix_len: Num, input_len: Num) -> str:
    excess = np.argmax(np.ravel(prefix_len - input_len))
    prefix, prompt = (float(np.ravel(each)[excess]) for each in np.broadcast_arrays(prefix_len, input_len))
    return (
        f"prefix_len: is {prefix:.0f} of the {prompt:.0f} tokens of a prompt; at least one must be left, "
        f"so give at most {prompt - 1.0:.0f}"
    )


def _spec(kind: type[S], value: S | str) -> S:
    return load(kind, value) if isinstance(value, str) else value
