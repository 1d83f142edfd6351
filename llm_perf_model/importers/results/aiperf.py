"""Results of AIPerf and GenAI-Perf, `profile_export_aiperf.json` and `profile_export_genai_perf.json` [1]_ [2]_.

AIPerf writes the layout of GenAI-Perf. Its files state a `schema_version`, of which 1 is read; files of GenAI-Perf and
of the first releases of AIPerf state none. `inter_token_latency` of both leaves the first token out.

.. [1] https://github.com/ai-dynamo/aiperf, src/aiperf/common/models/export_models.py
.. [2] https://github.com/triton-inference-server/perf_analyzer, genai-perf/genai_perf/export_data/json_exporter.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..stated import Stated
from .result import Result
from .tool import known, length, over_requests, rate, text, tools

_TIMES: Final = {
    "ttft_ms": "time_to_first_token",
    "tpot_ms": "inter_token_latency",
    "end_latency_ms": "request_latency",
}
_TO_MS: Final = {"ms": 1.0, "s": 1e3, "sec": 1e3, "us": 1e-3, "ns": 1e-6}
"""Unit of a time in the file -> milliseconds."""

_OWN: Final = frozenset({"schema_version", "aiperf_version"})
"""Fields that only the newer tool writes."""


def recognises(data: Mapping[str, Any]) -> bool:
    """Whether a file is one of these."""
    latency = data.get("request_latency")
    return "input_config" in data and isinstance(latency, Mapping) and "unit" in latency


def results(where: str, data: Mapping[str, Any]) -> Iterator[Result]:
    """Throughput of generated tokens, and times of requests."""
    own = bool(_OWN & data.keys())
    tool = tools()["aiperf" if own else "genai_perf"]
    stated = tool.stated(where, data)
    if own:
        tool.check(where, stated.fields.get("schema_version"), ", layout")
    at_once, per_s = _load(stated)
    load = {
        "request_rate": per_s,
        "concurrency": at_once,
        "requests": known(stated, "request_count.avg"),
        "failed": known(stated, "error_request_count.avg"),
    }
    run = tool.run(
        where,
        device=_device(stated),
        model=_model(stated),
        batch=at_once if per_s is None else None,
        input_len=length(stated, "input_sequence_length.avg"),
        output_len=length(stated, "output_sequence_length.avg"),
        extra={key: item for key, item in load.items() if item is not None},
    )
    if "output_token_throughput.avg" in stated.fields:
        yield run.measured("throughput_tok_s", stated.needed("output_token_throughput.avg"), "tok/s")
    for metric, field in _TIMES.items():
        keys = (f"{field}.p50", f"{field}.avg", f"{field}.p99")
        yield from over_requests(run, stated, metric, keys, _to_ms(stated, field))


def _to_ms(stated: Stated, field: str) -> float:
    unit = stated.fields.get(f"{field}.unit", "ms")
    if not isinstance(unit, str) or unit not in _TO_MS:
        raise stated.refuse(f"{field}.unit is {unit!r}; must be {', '.join(_TO_MS)}")
    return _TO_MS[unit]


def _load(stated: Stated) -> tuple[int | None, float | str | None]:
    """Requests at a time and per second, from where the versions of the tools write them."""
    settings = [stated]
    phases = stated.fields.get("input_config.phases")
    if isinstance(phases, list):
        settings = [Stated.of(stated.where, stated.tool, {"input_config": phase}) for phase in phases]
    places = ("input_config", "input_config.loadgen", "input_config.perf_analyzer.stimulus", "input_config.runtime")
    for found in reversed(settings):
        at_once = next(filter(None, (found.count(f"{place}.concurrency") for place in places)), None)
        keys = (f"{place}.{key}" for place in places for key in ("request_rate", "rate"))
        per_s = next((told for told in (rate(found.fields.get(key)) for key in keys) if told), None)
        if at_once or per_s:
            return at_once, per_s
    return None, None


def _model(stated: Stated) -> str | None:
    """The one model of the run; None where several took turns."""
    for key in ("model", "model_names", "endpoint.model_names", "models.items"):
        named = stated.fields.get(f"input_config.{key}")
        if isinstance(named, str):
            return named
        if isinstance(named, list) and len(named) == 1:
            only = named[0]
            return str(only.get("name")) if isinstance(only, Mapping) else str(only)
    return None


def _device(stated: Stated) -> str | None:
    """The device that telemetry saw, if all were of one kind."""
    names = {
        text(stated, key)
        for key in stated.fields
        if key.startswith("telemetry_data.endpoints.") and key.endswith(".gpu_name")
    }
    return names.pop() if len(names) == 1 else None
