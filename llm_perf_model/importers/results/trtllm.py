"""Reports of `trtllm-bench`, written with `--report_json` [1]_.

Read are those of TensorRT-LLM 0.20, 0.21 and 1.0 to 1.3, as `engine.version` says. Times of first tokens and between
tokens are there with `--streaming` only. The report states how many requests were in flight on average, waiting ones
included, and not how many were asked for.

.. [1] https://github.com/NVIDIA/TensorRT-LLM, tensorrt_llm/bench/dataclasses/reporting.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..stated import Stated
from .result import Result
from .tool import first_text, format_of, known, length, over_requests, text, tools

_MARKS: Final = ("engine", "world_info", "request_info", "performance")
_TIMES: Final = {
    "ttft_ms": ("streaming_metrics.ttft_percentiles", "streaming_metrics.avg_ttft_ms"),
    "tpot_ms": ("streaming_metrics.tpot_percentiles", "streaming_metrics.avg_tpot_ms"),
    "end_latency_ms": ("performance.request_latency_percentiles_ms", "performance.avg_request_latency_ms"),
}
"""Metric -> the place of its percentiles, and its mean."""

_ALONE: Final = 1.05
"""Requests in flight on average, up to which they ran one after the other."""


def recognises(data: Mapping[str, Any]) -> bool:
    """Whether a file is one of these."""
    return all(isinstance(data.get(mark), Mapping) for mark in _MARKS)


def results(where: str, data: Mapping[str, Any]) -> Iterator[Result]:
    """Throughput of generated tokens, and times of requests."""
    tool = tools()["trtllm"]
    stated = tool.stated(where, data)
    tool.check(where, stated.fields.get("engine.version"))
    in_flight = known(stated, "request_info.avg_num_concurrent_requests")
    load = {
        "concurrency": 1 if in_flight is not None and in_flight <= _ALONE else None,
        "mean_concurrency": in_flight,
        "requests": stated.count("request_info.num_requests"),
        "max_batch_size": stated.count("world_info.max_batch_size"),
        "speculative": stated.fields.get("decoding_stats.mode"),
    }
    run = tool.run(
        where,
        engine_version=text(stated, "engine.version"),
        device=text(stated, "machine.name"),
        n_devices=stated.count("world_info.world_size"),
        tp=stated.count("world_info.tp_size"),
        pp=stated.count("world_info.pp_size"),
        model=first_text(stated, "engine.model", "engine.model_path"),
        w_dtype=format_of(first_text(stated, "engine.quantization", "engine.dtype")),
        kv_dtype=format_of(text(stated, "engine.kv_cache_dtype")),
        batch=_batch(stated, in_flight),
        input_len=length(stated, "request_info.avg_input_length"),
        output_len=length(stated, "request_info.avg_output_length"),
        extra={key: item for key, item in load.items() if item is not None},
    )
    yield run.measured("throughput_tok_s", stated.needed("performance.system_output_throughput_tok_s"), "tok/s")
    for metric, (place, mean) in _TIMES.items():
        yield from over_requests(run, stated, metric, (f"{place}.p50", mean, f"{place}.p99"))


def _batch(stated: Stated, in_flight: float | None) -> int | None:
    """Requests in flight of one replica, where the engine may run so many at once: none of them waited."""
    limit = stated.count("world_info.max_batch_size")
    if in_flight is None or limit is None or in_flight > limit:
        return None
    return max(round(in_flight), 1)
