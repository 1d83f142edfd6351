"""Techniques of a request on a case: what they change in its operators, its rates and its memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .allocation import Allocation, Buffer
from .case import Case
from .errors import InfeasibleError, RequestError
from .numeric import minimum
from .rates import HostLink
from .specs.catalog import load
from .specs.collective import CollectiveSpec
from .specs.gpu import GpuSpec
from .specs.link import LinkSpec
from .specs.request import Request
from .types import Num

STREAMED_LAYERS = 2.0
"""Layers whose share on the host is on the device too: the one that runs, and the next one on its way."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """The techniques of a request, for its case and for others like it."""

    request: Request

    def __call__(self, case: Case) -> Case:
        """The case with what the techniques change."""
        r = self.request
        chunk = np.inf if r.prefill_chunk is None else r.prefill_chunk
        a = replace(case.allocation, prefix_len=r.prefix_len, chunk_tokens=chunk)
        machine = case.machine
        if np.any(r.offload_weights) or np.any(r.offload_kv):
            to = None if r.offload_to is None else _spec(LinkSpec, r.offload_to)
            link = HostLink(r.offload_weights, r.offload_kv, host_bytes_per_s(case.gpu, to))
            a, machine = _offloaded(a, link, float(case.model.layer_count)), replace(machine, host_link=link)
        return replace(case, allocation=a, machine=machine, equip=self)


def equipped(case: Case, request: Request) -> Case:
    """The case with the techniques of a request.

    Raises:
        RequestError: fields of techniques do not agree.
        InfeasibleError: the model or the engine cannot use one.
    """
    _check(case, request)
    return Equipment(request)(case)


def host_bytes_per_s(gpu: GpuSpec, drive: LinkSpec | None = None) -> float:
    """Rate at which large pieces come from host memory, or from a drive behind it."""
    link = load(LinkSpec, gpu.host_link)
    reached = link.host_bytes_per_s * (load(CollectiveSpec, link.kind).copy_efficiency or 1.0)
    return reached if drive is None else min(reached, drive.bytes_per_s)


def _offloaded(a: Allocation, link: HostLink, layers: float) -> Allocation:
    r"""What stays on the device of a share f on the host, :math:`\min(1, 1 - f + 2 f / L)` of L layers."""
    weights, cache = (
        minimum(1.0, 1.0 - share + share * STREAMED_LAYERS / layers) for share in (link.weights, link.cache)
    )
    return replace(
        a,
        weights_bytes=a.weights_bytes * weights,
        kv_token_bytes=a.kv_token_bytes * cache,
        source_token_bytes=a.source_token_bytes * cache,
        rolling=tuple(each._replace(token_bytes=each.token_bytes * cache) for each in a.rolling),
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


def _check(case: Case, r: Request) -> None:
    cached = r.techniques - {"offload_weights", "offload_to"}
    if cached and (not case.model.causal or case.allocation.encodes):
        what = "has an encoder that reads prompts whole" if case.model.causal else "makes one pass and keeps no cache"
        raise InfeasibleError(f"{min(cached)}: {case.model.name} {what}; leave it out")
    if np.any(r.prefix_len >= r.input_len):
        excess = np.argmax(np.ravel(r.prefix_len - r.input_len))
        prefix, prompt = (float(np.ravel(each)[excess]) for each in np.broadcast_arrays(r.prefix_len, r.input_len))
        raise RequestError(
            f"prefix_len: is {prefix:.0f} of the {prompt:.0f} tokens of a prompt; at least one must be left, "
            f"so give at most {prompt - 1.0:.0f}"
        )
    if np.any(r.offload_kv) and case.engine.concatenates(case.allocation.cache):
        raise InfeasibleError(
            f"offload_kv: {case.engine.name} copies its cache on the device as it grows; leave it out"
        )


def _spec(kind: type[LinkSpec], value: LinkSpec | str) -> LinkSpec:
    return load(kind, value) if isinstance(value, str) else value
