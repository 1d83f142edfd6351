"""What a record asks of the model: a request, and the field of its answer to compare with."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ..errors import SpecError, UnknownNameError
from ..estimate import Estimate
from ..specs.base import FileSpec
from ..specs.catalog import is_path, load, names
from ..specs.engine import EngineSpec
from ..specs.gpu import GpuSpec
from ..specs.model import ModelSpec
from ..specs.network import NetworkSpec
from ..specs.precision import PrecisionSpec
from ..split import split_allocated_bytes
from .conventions import convention
from .ratios import RATIO, unstated
from .records import Record
from .unmappable import UnmappableError

Reader = Callable[[Estimate], Any]

TIME_METRICS: Final[Mapping[str, tuple[str, Reader]]] = {
    "prefill_ms": ("prefill", lambda e: e.prefill_s),
    "runtime_ms": ("prefill", lambda e: e.prefill_s),
    "ttft_ms": ("prefill", lambda e: e.ttft_s),
    "ttft_ms_as_recorded": ("prefill", lambda e: e.ttft_s),
    "us_per_token": ("prefill", lambda e: e.prefill_s / (_sequences(e) * e.workload.input_len)),
    "throughput_as_printed": ("prefill", lambda e: e.prefill_s / (_sequences(e) * e.workload.input_len)),
    "prefill_tok_s": ("prefill", lambda e: _sequences(e) * e.workload.input_len / e.prefill_s),
    "decode_ms_per_token": ("decode", lambda e: e.decode_step_s),
    "tpot_ms": ("decode", lambda e: e.tpot_s),
    "decode_tok_s": ("decode", lambda e: _sequences(e) / e.decode_step_s),
    "total_ms": ("whole", lambda e: e.total_s),
    "end_latency_ms": ("whole", lambda e: e.total_s),
    "throughput_tok_s": ("whole", lambda e: e.throughput_tokens_per_s),
    "throughput_tok_s_per_gpu": ("whole", lambda e: e.throughput_tokens_per_s / e.case.layout.ranks),
    "msec_per_token_over_batch": ("whole", lambda e: 1.0 / e.throughput_tokens_per_s),
}
"""Metric word -> the phase that it times, and the time or rate of an estimate that it names."""

RUN_METRICS: Final[Mapping[str, Reader]] = {
    "latency_ms": lambda e: e.total_s,
    "time_ms_per_sample": lambda e: e.total_s / _sequences(e),
    "throughput": lambda e: _sequences(e) / e.total_s,
}
"""Metric word -> the time or rate of a run as a whole, which may be a single pass."""

MEMORY_METRICS: Final = frozenset({"memory_gib", "memory_gb", "memory_mb", "gpu_memory_mb", "peak_memory_forward_gb"})
"""Metric words of the memory in use on a device."""

ENERGY_METRICS: Final[Mapping[str, Reader]] = {
    "avg_power_w": lambda e: e.power_w,
    "energy_j_per_request": lambda e: e.energy_j / _sequences(e),
    "energy_j_per_token": lambda e: e.energy_j / (_sequences(e) * _counted_tokens(e)),
}
"""Metric word -> the energy or the power of an estimate that it names."""

_UNSCORED: Final = {
    "f1_score": "accuracy is not a figure of speed or memory",
    "train_step_ms": "training is not modelled",
}

_UNCOUNTED: Final[Mapping[object, str]] = {
    "elsewhere": "memory of another device than the one that computes",
    "incomplete": "a difference that lacks context and weights",
}
"""What a convention says of a figure of memory -> why it is compared with nothing."""

_FAILED: Final = {"oom": "ran out of memory", "runtime_error": "known failure of the tool: it stopped with an error"}

_PRECISIONS: Final = (
    (r"^int4", "w4a16"),
    (r"^int8", "w8a8"),
    (r"\bint\d|\bw\d|weights", None),
    (r"(^|[ (])bf16", "bf16"),
    (r"(^|[ (])fp16", "w16a16"),
    (r"(^|[ (])tf32", "tf32"),
    (r"(^|[ (])fp32", "fp32"),
)
"""Pattern in a recorded dtype -> precision, None where none is modelled; the first that matches counts."""


class Asked(NamedTuple):
    """A run as a request, the engine that stands for the recorded one, and whether it only stands in."""

    request: Mapping[str, Any]
    engine: str
    fallback: bool


@dataclass(frozen=True, slots=True)
class Mapped:
    """A request for a record, the reader of its answer, and what had to be taken for granted."""

    request: Mapping[str, Any]
    read: Reader
    engine: str
    fallback: bool
    phase: str
    """prefill, decode or whole; empty for memory, energy and ratios."""
    baseline: Asked | None = None
    """The same run under the engine that a ratio compares with; None: nothing is divided."""

    @property
    def is_time(self) -> bool:
        """Whether a time or a rate is compared."""
        return bool(self.phase)


def map_record(record: Record, engine: str | None = None) -> Mapped:
    """The request of a record, to the engine that it names or to `engine`.

    Raises:
        UnmappableError: with the reason.
    """
    if record.outcome == "estimate":
        raise UnmappableError("another tool's estimate, not a measurement")
    unscored = _UNSCORED.get(record.metric) or convention(record).get("unscored")
    if unscored is not None:
        raise UnmappableError(str(unscored))
    if record.metric == RATIO:
        return _map_ratio(record, engine)
    mapped = request_of(record, engine)
    if record.outcome != "ok":
        raise UnmappableError(_FAILED[record.outcome])
    phase, read = _reader(record)
    _check_unit(record)
    if phase == "decode" and mapped.request["output_len"] == 1:
        raise UnmappableError("the source states no output length, so there is no decode step")
    return Mapped(mapped.request, read, mapped.engine, mapped.fallback, phase)


def _map_ratio(record: Record, engine: str | None = None) -> Mapped:
    """The request of a ratio's engine and that of its baseline, which differ in the engine only.

    Raises:
        UnmappableError: with everything that the source leaves open.
    """
    missing = unstated(record)
    if missing:
        raise UnmappableError(f"a ratio of two engines, whose source does not state {', '.join(missing)}")
    mapped, named = request_of(record, engine), record.extra["baseline"]
    runs_as, fallback = engine_for(str(convention(record).get("baseline_runs_as", named)))
    _check_unit(record)
    baseline = Asked({**mapped.request, "engine": runs_as}, runs_as, fallback)
    return Mapped(mapped.request, lambda e: e.total_s, mapped.engine, mapped.fallback, "", baseline)


def request_of(record: Record, engine: str | None = None) -> Asked:
    """What a record's run asks of the model, whatever was measured of it and whether it ran.

    Raises:
        UnmappableError: with the reason.
    """
    rules = convention(record)
    named, gpu = str(rules.get("model_of_method", record.model)), str(rules.get("device_of_method", record.device))
    model, device = _resolve("model", named, ModelSpec, NetworkSpec), _resolve("device", gpu, GpuSpec)
    runs_as, fallback = (engine, False) if engine else engine_for(str(rules.get("runs_as", record.engine)))
    request: dict[str, Any] = {
        "model": named if is_path(named) else model.name,
        "gpu": gpu if is_path(gpu) else device.name,
        "engine": runs_as,
        "precision": _precision(record),
    }
    request |= _samples(record) if isinstance(model, NetworkSpec) else _workload(record)
    request |= _layout(record, load(EngineSpec, runs_as))
    if record.metric in ENERGY_METRICS and "energy" in rules:
        request["energy_convention"] = rules["energy"]
    return Asked(request, runs_as, fallback)


def _check_unit(record: Record) -> None:
    """Refuse a value whose unit is not that of its metric."""
    metric = record.metric
    if metric == "throughput":
        wanted = "samples/s"
    elif metric in ENERGY_METRICS:
        wanted = "W" if metric == "avg_power_w" else "J"
    elif metric in MEMORY_METRICS:
        wanted = "B"
    elif metric == RATIO:
        wanted = "1"
    else:
        wanted = "tokens/s" if "tok_s" in metric else "s"
    if record.unit != wanted:
        stands_for = record.unit or "none"
        raise UnmappableError(f"metric '{metric}' is in {wanted}, but the unit of the row stands for {stands_for}")


def engine_for(name: str) -> tuple[str, bool]:
    """The engine that a record's name stands for, and whether it is only a stand-in of its kind."""
    try:
        return load(EngineSpec, name).name, False
    except UnknownNameError:
        words = name.lower()
        stand_ins = [load(EngineSpec, engine) for engine in names(EngineSpec)]
        for spec in sorted(stand_ins, key=lambda spec: "" in spec.patterns):
            if any(pattern in words for pattern in spec.patterns):
                return spec.name, True
        raise UnmappableError(f"no engine is called '{name}', and none stands in for it") from None


def _resolve(word: str, name: str, *kinds: type[FileSpec]) -> FileSpec:
    """The spec that a word of a record names, of the first kind that knows it."""
    if not name:
        raise UnmappableError(f"the source names no {word}")
    for kind in kinds:
        try:
            return load(kind, name)
        except SpecError:  # no such name, or a file of another kind
            continue
    raise UnmappableError(f"unknown {word} '{name}'")


def _precision(record: Record) -> str:
    dtype = record.w_dtype
    stated = convention(record).get("precision")
    if stated is not None:
        return str(stated)
    if not dtype:
        raise UnmappableError("the source states no precision")
    found = next((name for pattern, name in _PRECISIONS if re.search(pattern, dtype)), None)
    try:
        return found or load(PrecisionSpec, dtype).name
    except UnknownNameError:
        raise UnmappableError(f"precision '{dtype}' is not modelled") from None


def _samples(record: Record) -> dict[str, Any]:
    """Samples of a network."""
    if record.batch is None:
        raise UnmappableError("the source states no batch")
    return {"batch_size": record.batch, "output_len": 1}


def _workload(record: Record) -> dict[str, Any]:
    rules = convention(record)
    running = record.extra.get(rules.get("batch_of", ""))
    stated = record.batch or rules.get("batch_of_method")
    batch = stated if running is None else max(round(running), 1)
    if batch is None:
        raise UnmappableError("the source states no batch")
    input_len = record.input_len or rules.get("input_len_of_method")
    if input_len is None:
        raise UnmappableError("the source states no input length")
    rest = rules["sequence_len_of_method"] - input_len if "sequence_len_of_method" in rules else 1
    output_len = max(record.output_len or rules.get("output_len_of_method", rest), 1)
    if rules.get("output_len") == "decode_steps" or "decode_steps" in record.extra:
        output_len = (record.output_len or 0) + 1
    elif "output_len" in rules:
        output_len = rules["output_len"]
    if rules.get("input_len") == "half":
        input_len = max(input_len // 2, 1)
    chunk = record.extra.get("n_batch_flag")
    if isinstance(chunk, int):  # each further chunk of the prompt is a pass over all weights, as a decode step is
        output_len += math.ceil(input_len / chunk) - 1
        input_len = min(input_len, chunk)
    beams = record.extra.get("num_beams")
    searched = {"num_beams": beams} if isinstance(beams, int) else {}
    return {"batch_size": batch, "input_len": input_len, "output_len": output_len, **searched}


def _layout(record: Record, engine: EngineSpec) -> dict[str, int]:
    """Devices of an eager engine without tensor parallelism hold consecutive layers and take turns; others are ranks.

    Stages of other engines work side by side.
    """
    tp, pp = record.tp, record.pp or 1
    devices = record.n_devices or (tp or 1) * pp
    if devices > 1 and (tp is None or tp == 1) and engine.kind in {"eager", "local"}:
        return {"layer_split": devices}
    ranks = tp or devices // pp
    if devices % (ranks * pp):
        stages = f" x pp = {pp}" if pp > 1 else ""
        raise UnmappableError(f"tp = {ranks}{stages} does not divide {devices} devices")
    return {"tp": ranks, "dp": devices // (ranks * pp)} | ({"pp": pp} if pp > 1 else {})


def _reader(record: Record) -> tuple[str, Reader]:
    if record.metric == "total_ms" and convention(record).get("total") == "decode":
        return "decode", lambda e: e.decode_s
    if record.metric == "throughput_total_tok_s":
        counted = (record.input_len or 0) + (record.output_len or 0)
        return "whole", lambda e: _sequences(e) * counted / e.total_s
    if record.metric in RUN_METRICS:
        return "whole" if (record.output_len or 0) > 1 else "prefill", RUN_METRICS[record.metric]
    if record.metric in TIME_METRICS:
        return TIME_METRICS[record.metric]
    if record.metric in ENERGY_METRICS:
        return "", ENERGY_METRICS[record.metric]
    if record.metric in MEMORY_METRICS:
        return "", _memory_reader(record)
    raise UnmappableError(f"metric '{record.metric}' is not covered")


def _memory_reader(record: Record) -> Reader:
    counted = convention(record).get("memory")
    if counted in _UNCOUNTED:
        raise UnmappableError(_UNCOUNTED[counted])
    return _allocated if counted == "allocated" else lambda e: e.memory.peak_bytes


def _allocated(e: Estimate) -> Any:
    """What the framework counts; of all devices of a layer split together."""
    if e.case.layout.layer_split > 1:
        return split_allocated_bytes(e.case, e.workload.batch_size, e.workload.input_len)
    return e.memory.allocated_bytes


def _sequences(e: Estimate) -> Any:
    return e.case.layout.dp * e.workload.batch_size


def _counted_tokens(e: Estimate) -> Any:
    """Output tokens of a generation; prompt tokens of a single pass."""
    single = e.workload.output_len == 1.0
    return e.workload.input_len if single else e.workload.output_len
