"""Results of vLLM's `bench latency` and `bench throughput` with `--output-json` [1]_.

Neither file states a version, a model, a batch or lengths: the user does. Fields as in the releases 0.9 to 0.15.

.. [1] https://docs.vllm.ai/en/stable/api/vllm/benchmarks/latency/ and .../throughput/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from .result import Result
from .tool import over_requests, tools

_LATENCY: Final = frozenset({"avg_latency", "latencies", "percentiles"})
_THROUGHPUT: Final = frozenset({"elapsed_time", "num_requests", "total_num_tokens", "requests_per_second"})
_MS: Final = 1e3
"""Milliseconds in a second."""


def recognises_latency(data: Mapping[str, Any]) -> bool:
    """Whether a file is one of `bench latency`."""
    return data.keys() >= _LATENCY


def latency(where: str, data: Mapping[str, Any]) -> Iterator[Result]:
    """The time of a batch, from its prompts to its last tokens."""
    tool = tools()["latency"]
    stated = tool.stated(where, data)
    stated.needed("avg_latency")
    yield from over_requests(
        tool.run(where), stated, "total_ms", ("percentiles.50", "avg_latency", "percentiles.99"), _MS
    )


def recognises_throughput(data: Mapping[str, Any]) -> bool:
    """Whether a file is one of `bench throughput`."""
    return data.keys() >= _THROUGHPUT


def throughput(where: str, data: Mapping[str, Any]) -> Iterator[Result]:
    """Tokens per second, those of prompts counted too."""
    tool = tools()["throughput"]
    stated = tool.stated(where, data)
    run = tool.run(where, extra={"request_rate": "inf", "requests": stated.needed_count("num_requests")})
    yield run.measured("throughput_total_tok_s", stated.needed("tokens_per_second"), "(in+out) tok/s")
