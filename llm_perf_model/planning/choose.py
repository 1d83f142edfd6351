"""A load and objectives -> the replicas of each case that meet them, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from ..case import Case
from ..cost import listed_usd_per_hour
from ..errors import InfeasibleError
from ..specs.catalog import names
from ..specs.gpu import GpuSpec
from ..specs.link import LinkSpec
from ..specs.plan import PlanRequest
from ..types import Array
from .candidates import Rejected, cases, model_of, spec, words
from .latency import QUIET, Latency
from .load import Load
from .service import Batching, Replica, Service, stacked

SLACK = 1e-9
"""Rounding that does not call for another replica."""


@dataclass(frozen=True, slots=True)
class Option:
    """Replicas of one case that serve the load within the objectives."""

    gpu: str
    precision: str
    layout: str
    replica_devices: int
    replicas: int
    """Those that decode, or do all."""
    prefill_replicas: int
    """Those that only prefill; 0: the others do it."""
    ttft_s: float
    """At the percentile of the request."""
    tpot_s: float
    mean_batch_size: float
    """Sequences in the steps of a replica."""
    max_batch_size: int
    utilisation: float
    """Requests over the most that the replicas complete, of the busier kind."""
    capacity_ratio: float
    """Requests with which the objectives are still met, over those of the load."""
    requests_per_s: float
    power_w: float
    usd_per_hour: float | None
    """None where no price is listed."""
    usd_per_million_output_tokens: float | None

    @property
    def devices(self) -> int:
        """Of all replicas."""
        return self.replica_devices * (self.replicas + self.prefill_replicas)

    @property
    def headroom_fraction(self) -> float:
        """By how much the load may grow."""
        return self.capacity_ratio - 1.0


class Group(NamedTuple):
    """Cases of one kind of replica, and the highest rate of each that keeps the objectives."""

    latency: Latency
    rate: Array

    def replicas(self, load: Load) -> Array:
        """Fewest replicas that serve a load; 0 where none do."""
        count = np.ceil(load.requests_per_s / np.maximum(self.rate, 1e-300) - SLACK)
        return np.where(self.rate > 0.0, np.maximum(count, 1.0), 0.0)


def choose(request: PlanRequest) -> tuple[Load, tuple[Option, ...], tuple[Rejected, ...]]:
    """The load, what serves it from best to worst, and what does not.

    Raises:
        InfeasibleError: nothing does; the message names the nearest.
    """
    load = Load.of(request)
    model = model_of(request, load)
    refused: list[Rejected] = []
    gpus = _gpus(request, refused)
    replicas, shared = _services(request, load, list(cases(request, model, gpus, refused)), refused)
    options: list[Option] = []
    if replicas:
        options = [*_together(request, load, replicas, shared, refused), *_apart(request, load, replicas)]
    kept = [option for option in options if _within(request, option, refused)]
    if not kept:
        raise InfeasibleError(_nothing(request, refused))
    return load, tuple(sorted(kept, key=attrgetter(*ranked_by(request.objective)))), tuple(refused)


def _gpus(request: PlanRequest, refused: list[Rejected]) -> tuple[GpuSpec, ...]:
    """The devices to choose from; those without a price are added to `refused` where it decides.

    Raises:
        InfeasibleError: none has one.
    """
    if request.gpus is None:
        return tuple(spec(GpuSpec, name) for name in names(GpuSpec) if listed_usd_per_hour(name) is not None)
    given = [spec(GpuSpec, value) for value in request.gpus]
    if request.objective != "usd_per_hour":
        return tuple(given)
    refused += [
        Rejected(g.name, "any", "any", "has no listed price") for g in given if listed_usd_per_hour(g.name) is None
    ]
    if len(refused) == len(given):
        raise InfeasibleError("no device of the plan has a listed price: choose another objective, devices or power_w")
    return tuple(gpu for gpu in given if listed_usd_per_hour(gpu.name) is not None)


def _services(
    request: PlanRequest, load: Load, built: Sequence[Case], refused: list[Rejected]
) -> tuple[list[Replica], list[Service]]:
    """What holds the load, and its service."""
    batching = Batching(request.max_batch_size, float(request.prefill_chunk), request.percentile)
    replicas: list[Replica] = []
    services: list[Service] = []
    for case in built:
        replica = Replica(case, load, batching)
        try:
            services.append(replica.shared())
            replicas.append(replica)
        except InfeasibleError as error:
            refused.append(_rejected(case, str(error)))
    return replicas, services


def _rejected(case: Case, reason: str, missed_ratio: float | None = None) -> Rejected:
    return Rejected(case.gpu.name, case.precision.name, words(case.layout), reason, missed_ratio)


def _group(
    request: PlanRequest, load: Load, services: Sequence[Service], first: bool = True, rest: bool = True
) -> Group:
    """Replicas that answer with the first token, with the rest, or with both."""
    latency = Latency(stacked(services), load, request.percentile, waits_later=not first)
    return Group(latency, latency.most(request.ttft_s if first else None, request.tpot_s if rest else None))


def _together(
    request: PlanRequest, load: Load, replicas: list[Replica], services: list[Service], refused: list[Rejected]
) -> list[Option]:
    """Options whose replicas do all."""
    group = _group(request, load, services)
    counts = group.replicas(load)
    quiet = group.latency.state(QUIET * group.latency.service.capacity_per_s)
    least = {"ttft_s": group.latency.ttft_s(quiet), "tpot_s": group.latency.tpot_s(quiet)}
    refused += [
        _missed(request, replicas[i].case, {name: float(at[i]) for name, at in least.items()})
        for i in np.flatnonzero(counts == 0.0)
    ]
    share = load.requests_per_s / np.maximum(counts, 1.0)
    state = group.latency.state(share)
    ttft_s, tpot_s, request_j = group.latency.ttft_s(state), group.latency.tpot_s(state), group.latency.request_j(state)
    return [
        _option(load, replicas[i].case, int(counts[i]), 0, group.rate[i] / share[i], {
            "ttft_s": float(ttft_s[i]), "tpot_s": float(tpot_s[i]),
            "mean_batch_size": float(state.occupancy.mean[i]),
            "max_batch_size": int(group.latency.service.largest[i]),
            "utilisation": float(state.occupancy.utilisation[i]),
        }, float(request_j[i]))
        for i in np.flatnonzero(counts)
    ]  # fmt: skip


def _apart(request: PlanRequest, load: Load, replicas: list[Replica]) -> list[Option]:
    """Options whose prefills have replicas of their own, of the same case."""
    networks = [replica.case.gpu.network for replica in replicas]
    able = [(r, spec(LinkSpec, name)) for r, name in zip(replicas, networks, strict=True) if name is not None]
    if not able:
        return []
    cases_of = [replica.case for replica, _ in able]
    before = _group(request, load, [replica.prefilling() for replica, _ in able], rest=False)
    after = _group(request, load, [replica.decoding(link) for replica, link in able], first=False)
    counts = before.replicas(load), after.replicas(load)
    both = (counts[0] > 0.0) & (counts[1] > 0.0)
    shares = [load.requests_per_s / np.maximum(count, 1.0) for count in counts]
    first, rest = (group.latency.state(share) for group, share in zip((before, after), shares, strict=True))
    ttft_s, tpot_s = before.latency.ttft_s(first), after.latency.tpot_s(rest)
    joules = before.latency.request_j(first) + after.latency.request_j(rest)
    grows = np.minimum(before.rate / shares[0], after.rate / shares[1])
    prompt = before.latency.service.prompt_s[:, 0] * shares[0]
    return [
        _option(load, cases_of[i], int(counts[1][i]), int(counts[0][i]), grows[i], {
            "ttft_s": float(ttft_s[i]), "tpot_s": float(tpot_s[i]),
            "mean_batch_size": float(rest.occupancy.mean[i]),
            "max_batch_size": int(after.latency.service.largest[i]),
            "utilisation": max(float(rest.occupancy.utilisation[i]), float(prompt[i])),
        }, float(joules[i]))
        for i in np.flatnonzero(both)
    ]  # fmt: skip


def _option(
    load: Load, case: Case, replicas: int, prefills: int, grows: float, found: dict[str, Any], request_j: float
) -> Option:
    """The option with its power and price."""
    devices, power = case.layout.replica_ranks * (replicas + prefills), case.machine.power
    power_w = devices * float(power.idle_w) + case.layout.replica_ranks * load.requests_per_s * request_j
    hourly = listed_usd_per_hour(case.gpu.name)
    usd_per_hour = None if hourly is None else hourly * devices
    tokens = load.requests_per_s * load.output_tokens * 3600.0
    return Option(
        gpu=case.gpu.name,
        precision=case.precision.name,
        layout=words(case.layout),
        replica_devices=case.layout.replica_ranks,
        replicas=replicas,
        prefill_replicas=prefills,
        capacity_ratio=float(grows),
        requests_per_s=load.requests_per_s,
        power_w=min(power_w, devices * float(power.limit_w)),
        usd_per_hour=usd_per_hour,
        usd_per_million_output_tokens=None if usd_per_hour is None else usd_per_hour / tokens * 1e6,
        **found,
    )


def _missed(request: PlanRequest, case: Case, least: dict[str, float]) -> Rejected:
    """What a case misses even with one request at a time."""
    wanted = {name: getattr(request, name) for name in least if getattr(request, name) is not None}
    worst = max(wanted, key=lambda name: least[name] / wanted[name])
    reason = f"{worst} {least[worst]:.4g} at least, more than {wanted[worst]:.4g}"
    return _rejected(case, reason, least[worst] / wanted[worst])


def _within(request: PlanRequest, option: Option, refused: list[Rejected]) -> bool:
    """Whether an option stays within the limits of a request."""
    limits = {"devices": request.max_devices, "usd_per_hour": request.max_usd_per_hour, "power_w": request.max_power_w}
    for name, limit in limits.items():
        value = getattr(option, name)
        if limit is not None and value is not None and value > limit:
            reason = f"{name} {value:.4g}, more than max_{name} = {limit:.4g}"
            refused.append(Rejected(option.gpu, option.precision, option.layout, reason, value / limit))
            return False
    return True


def _nothing(request: PlanRequest, refused: Sequence[Rejected]) -> str:
    """Why there is no plan, with what is nearest."""
    near = [each for each in refused if each.missed_ratio is not None]
    if near:
        best = min(near, key=lambda each: each.missed_ratio or 0.0)
        return f"no device meets the objectives; nearest: {best.gpu} {best.precision} {best.layout}: {best.reason}"
    why = f"; {refused[-1].gpu} {refused[-1].layout}: {refused[-1].reason}" if refused else ""
    return f"no device serves {request.model if isinstance(request.model, str) else request.model.name}{why}"


def ranked_by(objective: str) -> tuple[str, ...]:
    """What options are compared by: the objective, then devices, power and the seconds of a token."""
    return (objective, "devices", "power_w", "tpot_s")
