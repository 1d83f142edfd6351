"""The answer of `plan`: the best replicas for a load, the runners-up, and what was rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from ..report.document import Report, Table
from ..specs.model import ModelSpec
from ..specs.plan import PlanRequest
from ..units import decimal, percent, seconds
from .candidates import Rejected
from .choose import Option, choose, ranked_by
from .load import Load

RUNNERS_UP: Final = 8
"""Devices beside the best that a report shows."""
_WORDS: Final = {"usd_per_hour": "price", "devices": "devices", "power_w": "power", "tpot_s": "TPOT"}


def plan(model: str | ModelSpec, **options: Any) -> Plan:
    """Which devices serve a load within objectives, how many, and in what layout.

    Args:
        model: catalogue name, alias, path to a JSON file, or a `ModelSpec`.
        **options: the other fields of `PlanRequest`: the load (`requests_per_s`, `input_len`, `output_len`, or
            `trace`), the objectives (`ttft_s`, `tpot_s`, `percentile`, `objective`, `max_devices`,
            `max_usd_per_hour`, `max_power_w`) and what to choose from (`gpus`, `precisions`, `engine`,
            `max_replica_devices`, `max_batch_size`, `prefill_chunk`).

    Raises:
        RequestError: a field is wrong, or the trace cannot be read.
        SpecError: a name is unknown or a file is not valid.
        InfeasibleError: no device meets the objectives; the message names the nearest.
    """
    return of_request(PlanRequest.of({"model": model, **options}))


def of_request(request: PlanRequest) -> Plan:
    """The plan of a checked request."""
    return Plan(request, *choose(request))


@dataclass(frozen=True)
class Plan:
    """What serves a load, from best to worst."""

    request: PlanRequest
    load: Load
    options: tuple[Option, ...]
    rejected: tuple[Rejected, ...]

    @property
    def best(self) -> Option:
        """What needs least of the objective."""
        return self.options[0]

    @property
    def runners_up(self) -> tuple[Option, ...]:
        """The best of every other device and precision."""
        found = {(self.best.gpu, self.best.precision): self.best}
        for option in self.options:
            found.setdefault((option.gpu, option.precision), option)
        return tuple(found.values())[1:]

    def lost_by(self, option: Option) -> str:
        """Why an option is not the best, in words."""
        for name in ranked_by(self.request.objective):
            ours, theirs = float(getattr(self.best, name)), float(getattr(option, name))
            if theirs > ours:
                return f"{_WORDS[name]} +{theirs / ours - 1.0:.1%}"
        return "nothing"

    def to_dict(self) -> dict[str, Any]:
        """The answer in SI units: numbers, lists, text and None."""
        return {
            "request": _plain_request(self.request),
            "load": {name: _plain(value) for name, value in asdict(self.load).items()},
            "best": _option(self.best),
            "options": [_option(option) | {"lost_by": self.lost_by(option)} for option in self.options],
            "rejected": [each.to_dict() for each in self.rejected],
        }

    def report(self) -> Report:
        """Tables for people."""
        tables = (self._best(), self._others()) if self.runners_up else (self._best(),)
        load, model = self.load, self.request.model
        title = (
            f"{model if isinstance(model, str) else model.name}: {load.requests_per_s:.4g} requests/s of "
            f"{load.input_tokens:.4g} + {load.output_tokens:.4g} tokens"
        )
        records = tuple(_option(option) for option in self.options)
        return Report(title, tables, self._notes(), self.to_dict(), records)

    def _best(self) -> Table:
        o, quantile = self.best, f"p{100.0 * self.request.percentile:.4g}"
        dollars = "no listed price" if o.usd_per_hour is None else f"{o.usd_per_hour:.2f} USD/h"
        tokens = o.usd_per_million_output_tokens
        rows = [
            ("devices", f"{o.devices} x {o.gpu}"),
            ("precision", o.precision),
            ("layout of a replica", o.layout),
            ("replicas", _replicas(o)),
            ("sequences in a step, mean and most", f"{o.mean_batch_size:.1f}, {o.max_batch_size}"),
            (f"time to first token, {quantile}", _against(o.ttft_s, self.request.ttft_s)),
            (f"time per output token, {quantile}", _against(o.tpot_s, self.request.tpot_s)),
            ("utilisation", percent(o.utilisation)),
            ("headroom of the load", percent(o.headroom_fraction)),
            ("power", decimal(o.power_w, "W")),
            ("price", dollars),
        ]
        if tokens is not None:
            rows.append(("per million output tokens", f"{tokens:.3f} USD"))
        return Table(("plan", ""), tuple(rows))

    def _others(self) -> Table:
        rows = tuple(
            (
                o.gpu if o.precision == self.best.precision else f"{o.gpu} {o.precision}",
                o.layout + (f" {o.prefill_replicas}:{o.replicas}" if o.prefill_replicas else ""),
                str(o.devices),
                "-" if o.usd_per_hour is None else f"{o.usd_per_hour:.2f}",
                seconds(o.ttft_s),
                seconds(o.tpot_s),
                self.lost_by(o),
            )
            for o in self.runners_up[:RUNNERS_UP]
        )
        return Table(("runner-up", "layout", "devices", "USD/h", "TTFT", "TPOT", "lost by"), rows)

    def _notes(self) -> tuple[str, ...]:
        notes = [f"layouts that serve the load: {len(self.options)}, that do not: {len(self.rejected)}"]
        left = len(self.runners_up) - RUNNERS_UP
        if left > 0:
            notes[0] += f"; {left} more devices are in --format json"
        if any(option.prefill_replicas for option in self.runners_up[:RUNNERS_UP]):
            notes.append("layout with a ratio: replicas that prefill to those that decode")
        near = [each for each in self.rejected if each.missed_ratio is not None]
        if near:
            best = min(near, key=lambda each: each.missed_ratio or 0.0)
            notes.append(f"nearest miss: {best.gpu} {best.precision} {best.layout}: {best.reason}")
        return tuple(notes)

    def __str__(self) -> str:
        return self.report().text()

    def _repr_html_(self) -> str:
        return self.report().html()


def _against(value: float, wanted: float | None) -> str:
    return seconds(value) if wanted is None else f"{seconds(value)} of {seconds(wanted)}"


def _replicas(option: Option) -> str:
    if not option.prefill_replicas:
        return str(option.replicas)
    return f"{option.prefill_replicas} prefill : {option.replicas} decode"


def _option(option: Option) -> dict[str, Any]:
    return asdict(option) | {"devices": option.devices, "headroom_fraction": option.headroom_fraction}


def _plain(value: Any) -> Any:
    return value.tolist() if type(value).__module__ == "numpy" else value


def _plain_request(request: PlanRequest) -> dict[str, Any]:
    """Fields of a request as text, numbers and lists: specs by their names."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if isinstance(value, str | int | float | None):
            return value
        if isinstance(named := getattr(value, "name", None), str):
            return named
        return {key: plain(item) for key, item in vars(value).items() if item is not None}

    fields: Mapping[str, Any] = vars(request)
    return {name: plain(value) for name, value in fields.items()}
