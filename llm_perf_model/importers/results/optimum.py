"""Results of optimum-benchmark, `benchmark.json` and `benchmark_report.json` [1]_.

`benchmark.json` holds the settings too, with the version: 0.4 to 0.6 are read. `benchmark_report.json` holds times and
memory alone; the user states the rest. The decode of a report is all of its steps; `per_token` is one of them.

.. [1] https://github.com/huggingface/optimum-benchmark, optimum_benchmark/benchmark/report.py and
   scenarios/inference/scenario.py
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..stated import Stated
from .result import Result
from .tool import first_text, format_of, known, over_requests, text, tools

_PARTS: Final = ("forward", "prefill", "decode")
_TIMES: Final = {
    "latency_ms": "forward",
    "prefill_ms": "prefill",
    "decode_ms_per_token": "per_token",
    "total_ms": "generate",
}
"""Metric -> the part of the report that it times."""

_MS: Final = 1e3
"""Milliseconds in a second."""

_MODELLED_BY: Final = "pytorch"
"""Backend that runs a model as its library has it: the library is the engine then."""


def recognises(data: Mapping[str, Any]) -> bool:
    """Whether a file is one of these."""
    report, config = data.get("report", data), data.get("config", {})
    if not isinstance(report, Mapping) or not isinstance(config, Mapping):
        return False
    return any(_is_part(report.get(part)) for part in _PARTS)


def results(where: str, data: Mapping[str, Any]) -> Iterator[Result]:
    """Times of passes, steps and generations, and the memory of the process on its device."""
    tool = tools()["optimum"]
    report, config = tool.stated(where, data.get("report", data)), tool.stated(where, data.get("config", {}))
    if "config" in data:
        tool.check(where, config.fields.get("environment.optimum_benchmark_version"))
    run = _run(where, config)
    for metric, part in _TIMES.items():
        keys = (f"{part}.latency.p50", f"{part}.latency.mean", f"{part}.latency.p99")
        yield from over_requests(run, report, metric, keys, _MS)
    steps_per_s = known(report, "decode.throughput.value")
    if steps_per_s is not None and "per_token.latency.mean" not in report.fields:
        yield run.measured("decode_tok_s", steps_per_s, "tok/s", statistic="mean")
    yield from _memory(run, report)


def _is_part(part: Any) -> bool:
    return isinstance(part, Mapping) and {"latency", "memory"} <= part.keys()


def _run(where: str, config: Stated) -> Result:
    backend, library = text(config, "backend.name"), text(config, "backend.library")
    devices = _devices(config)
    quantised = first_text(config, "backend.quantization_scheme", "backend.quantize")
    return tools()["optimum"].run(
        where,
        engine=library if backend == _MODELLED_BY else backend,
        engine_version=text(config, "backend.version"),
        device=devices[0] if devices else None,
        n_devices=len(devices) or None,
        model=text(config, "backend.model"),
        w_dtype=quantised or format_of(first_text(config, "backend.torch_dtype", "backend.dtype")),
        batch=config.count("scenario.input_shapes.batch_size"),
        input_len=config.count("scenario.input_shapes.sequence_length"),
        output_len=config.count("scenario.generate_kwargs.max_new_tokens"),
        extra=_extra(config),
    )


def _extra(config: Stated) -> dict[str, Any]:
    told = {
        "num_beams": config.fields.get("scenario.generate_kwargs.num_beams"),
        "compiled": config.fields.get("backend.torch_compile") or None,
        "experiment": config.fields.get("name"),
    }
    return {key: item for key, item in told.items() if item is not None}


def _devices(config: Stated) -> list[str]:
    """The devices of the run: the processor, or as many of the cards as the backend was given."""
    if config.fields.get("backend.device") == "cpu":
        processor = text(config, "environment.cpu")
        return [] if processor is None else [processor]
    cards = config.fields.get("environment.gpu")
    used = text(config, "backend.device_ids")
    if not isinstance(cards, list) or not cards:
        return []
    count = len(cards) if used is None else len(used.split(","))
    return [str(cards[0])] * count


def _memory(run: Result, report: Stated) -> Iterator[Result]:
    """The most that the process took on a card; of several cards the tool states the sum, which no estimate has."""
    if (run.n_devices or 1) > 1:
        return
    for part in ("forward", "decode"):
        for field in ("max_process_vram", "max_global_vram"):
            used = known(report, f"{part}.memory.{field}")
            if used is not None:
                yield run.measured("memory_mb", used, "MB", counts=field)
                break
