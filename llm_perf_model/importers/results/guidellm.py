"""Reports of GuideLLM, `benchmarks.json` [1]_.

The layouts 1 (of GuideLLM 0.6) and 2 (of 0.7 and 0.8) are read, as `metadata.version` counts them. Reports of 0.4 and
0.5 state no version and have the fields of layout 1. Only requests that succeeded count. The tool's
`time_per_output_token_ms` holds the first token, so `inter_token_latency_ms`, which does not, becomes `tpot_ms`.

.. [1] https://github.com/vllm-project/guidellm, src/guidellm/benchmark/schemas/report.py and metrics.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..stated import Stated
from .result import Result
from .tool import first_text, known, length, over_requests, text, tools

_MODELS: Final = (
    "args.model", "args.backend_kwargs.model", "config.spec.backend.model", "config.backend.model",
)  # fmt: skip
_TIMES: Final = {
    "ttft_ms": ("time_to_first_token_ms", 1.0),
    "tpot_ms": ("inter_token_latency_ms", 1.0),
    "end_latency_ms": ("request_latency", 1e3),
}
"""Metric -> its field, and milliseconds in the unit of the field."""

_STRATEGY: Final = "config.strategy"
_UNVERSIONED: Final = 1
"""Layout that reports without a version have."""


def recognises(data: Mapping[str, Any]) -> bool:
    """Whether a file is one of these."""
    runs = data.get("benchmarks")
    return isinstance(runs, list) and all(isinstance(run, Mapping) and "metrics" in run for run in runs) and bool(runs)


def results(where: str, data: Mapping[str, Any]) -> Iterator[Result]:
    """Throughput and times of each load of the report."""
    tool = tools()["guidellm"]
    head = tool.stated(where, {key: item for key, item in data.items() if key != "benchmarks"})
    runs = [tool.stated(where, benchmark) for benchmark in data["benchmarks"]]
    unversioned = "metadata.version" not in head.fields and all(_kind(run) is not None for run in runs)
    tool.check(where, _UNVERSIONED if unversioned else head.fields.get("metadata.version"), ", layout")
    for run in runs:
        yield from _run(head, run)


def _run(head: Stated, stated: Stated) -> Iterator[Result]:
    requests = known(stated, "metrics.request_totals.successful")
    if requests is None:
        raise stated.refuse("no request of a benchmark was completed, so nothing was measured")
    load = {
        **_load(stated),
        "mean_concurrency": known(stated, _of("request_concurrency", "mean")),
        "requests": int(requests),
        "failed": known(stated, "metrics.request_totals.errored"),
    }
    run = tools()["guidellm"].run(
        stated.where,
        model=first_text(head, *_MODELS) or first_text(stated, *_MODELS),
        batch=load["concurrency"],
        input_len=length(stated, _of("prompt_token_count", "mean")),
        output_len=length(stated, _of("output_token_count", "mean")),
        extra={key: item for key, item in load.items() if item is not None},
    )
    yield run.measured("throughput_tok_s", stated.needed(_of("output_tokens_per_second", "mean")), "tok/s")
    for metric, (field, to_ms) in _TIMES.items():
        keys = (_of(field, "median"), _of(field, "mean"), _of(field, "percentiles.p99"))
        yield from over_requests(run, stated, metric, keys, to_ms)


def _of(field: str, statistic: str) -> str:
    return f"metrics.{field}.successful.{statistic}"


def _kind(stated: Stated) -> str | None:
    return text(stated, f"{_STRATEGY}.type_")


def _load(stated: Stated) -> dict[str, Any]:
    """How requests were sent: a number at a time, at a rate, or all at once."""
    place, kind = _STRATEGY, _kind(stated)
    if kind == "synchronous":
        return {"concurrency": 1}
    if kind == "concurrent":
        return {"concurrency": stated.needed_count(f"{place}.streams")}
    if kind == "throughput":
        return {"request_rate": "inf", "concurrency": stated.count(f"{place}.max_concurrency")}
    if kind in {"constant", "poisson"}:
        return {"request_rate": stated.needed(f"{place}.rate"), "concurrency": None}
    raise stated.refuse(f"{place} is {kind!r}; must be synchronous, concurrent, throughput, constant or poisson")
