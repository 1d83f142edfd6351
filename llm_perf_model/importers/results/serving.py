"""Results of vLLM's `bench serve` with `--save-result` or `--append-result` [1]_.

The file states no version. Its fields are those of the releases 0.9 to 0.15 and later, which add some and drop none of
those read here. It names the kind of endpoint, which tells the engine only where the endpoint is its own.

.. [1] https://docs.vllm.ai/en/stable/api/vllm/benchmarks/serve/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...errors import UnknownNameError
from ...specs.catalog import load
from ...specs.engine import EngineSpec
from ..stated import Stated
from .result import Result
from .tool import known, over_requests, rate, text, tools

_MARKS: Final = frozenset({"model_id", "num_prompts", "request_rate", "total_input_tokens", "request_throughput"})
_TIMES: Final = {"ttft": "ttft_ms", "tpot": "tpot_ms", "e2el": "end_latency_ms"}
"""Time in keys of the file -> metric."""


def recognises(data: Mapping[str, Any]) -> bool:
    """Whether a file is one of these."""
    return data.keys() >= _MARKS


def results(where: str, data: Mapping[str, Any]) -> Iterator[Result]:
    """Throughput of generated tokens, and the times that the run was asked for."""
    tool = tools()["serving"]
    stated = tool.stated(where, data)
    requests = known(stated, "completed")
    if requests is None:
        raise stated.refuse("no request was completed, so nothing was measured")
    at_once, per_s = stated.count("max_concurrency"), rate(stated.fields.get("request_rate"))
    load = {
        "request_rate": per_s,
        "concurrency": at_once,
        "requests": int(requests),
        "failed": max(stated.needed_count("num_prompts") - int(requests), 0) or None,
        "speculative": known(stated, "spec_decode_acceptance_length"),
    }
    run = tool.run(
        where,
        engine=_engine(stated),
        model=text(stated, "model_id"),
        batch=at_once if per_s == "inf" else None,
        input_len=max(round(stated.needed("total_input_tokens") / requests), 1),
        output_len=max(round(stated.needed("total_output_tokens") / requests), 1),
        extra={key: item for key, item in load.items() if item is not None},
    )
    yield run.measured("throughput_tok_s", stated.needed("output_throughput"), "tok/s")
    for word, metric in _TIMES.items():
        yield from over_requests(run, stated, metric, (f"median_{word}_ms", f"mean_{word}_ms", f"p99_{word}_ms"))


def _engine(stated: Stated) -> str | None:
    """The engine whose own endpoint was called."""
    endpoint = text(stated, "backend") or text(stated, "endpoint_type")
    try:
        return None if endpoint is None else load(EngineSpec, endpoint).name
    except UnknownNameError:
        return None
