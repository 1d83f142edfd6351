"""The command `measure_ops`: operators on grids of sizes -> a file of records, and what they reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby
from typing import Any, Final

from ..errors import RequestError, UnknownNameError
from ..report.document import Report
from ..report.progress import tracked
from ..specs.catalog import is_path, load
from ..specs.gpu import GpuSpec
from ..specs.quantities import shortened
from ..validation.records import Record
from .device import Device, device_of
from .environment import environment
from .exchanges import exchange_times
from .facts import facts_of, rotated_bytes, usable_cores
from .grids import DTYPES, FAMILIES, GRID, Grid, Operator, operators
from .journal import Journal, Row
from .method import Method, Timing
from .operator_tables import report
from .operators import Bench, Timed
from .outcomes import Failure
from .packages import tensors

SIZES: Final = ("m", "n", "k", "batch", "q_len", "kv_len", "heads", "kv_heads", "head_dim", "bytes")

OPERATOR_COLUMNS: Final = (
    "source", "engine", "engine_version", "device", "n_devices", "op", "dtype", "shape", *SIZES, "metric", "value",
    "unit", "outcome", "how", "note", "extra",
)  # fmt: skip
"""Columns of a file of timed operators."""

SOURCE: Final = "llm-perf-model operators"
COLD: Final = "median; operands in turn from twice as much memory as the last cache holds"
WARM: Final = "median; the same operands again and again"
BUDGET_S: Final = 1.0


def measure_ops(
    output: str,
    *,
    ops: str | Iterable[str] | None = None,
    dtypes: str | Iterable[str] | None = None,
    device: str = "auto",
    gpu: str | None = None,
    warm: bool = False,
    budget_s: float = BUDGET_S,
    **sizes: Any,
) -> Report:
    """Times of single operators on the machine at hand, as records.

    `validate` and `calibrate` read the file. A run that was interrupted goes on where it was; records of an earlier run
    are not measured again.

    Args:
        output: CSV file of the records; new ones are added to its end.
        ops: families of `FAMILIES`, all if not given.
        dtypes: types of `DTYPES`; those that the device multiplies if not given.
        device: `auto`, `cpu`, or a kind of card with or without a number.
        gpu: name or path of a device file: what records call the device, and what times are held against.
        warm: whether operands stay in the cache; else they come from memory.
        budget_s: seconds for the repeats of an operator.
        **sizes: values of the sizes of `GRID`, in the forms of axes of a sweep.

    Returns:
        A report: what each operator reached at best, operators faster than the device file allows, and failures.

    Raises:
        RequestError: an argument is wrong, torch is missing, or the file cannot be written.
        UnknownNameError: there is no such device file.
    """
    task = Task.of(ops, dtypes, device, gpu, warm, budget_s, sizes)
    journal = Journal(output, environment(task.device), _key, OPERATOR_COLUMNS)
    for record in task.records(lambda row: journal.done(_key(row))):
        journal.append(row_of(record))
    return report(output, task.gpu, task.notes)


@dataclass(frozen=True, slots=True)
class Task:
    """Operators to be timed, and where."""

    device: Device
    called: str
    """What records call the device."""
    gpu: str | None
    """The device file that times are held against; None: there is none."""
    operators: tuple[Operator, ...]
    warm: bool
    method: Method
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, ops: Any, dtypes: Any, device: str, gpu: str | None, warm: bool, budget_s: float, sizes: Mapping[str, Any]
    ) -> Task:
        """The task of a request, checked before anything runs."""
        unknown = next((name for name in sizes if name not in GRID), None)
        if unknown is not None:
            raise RequestError(f"{unknown}: is no size; known: {', '.join(GRID)}")
        method = Method.of(budget_s=budget_s)
        families, grid = words("ops", ops, tuple(FAMILIES)), Grid.of(sizes)
        found = device_of(device)
        types = types_of(dtypes, found, USUAL)
        file = _file(gpu, found)
        listed, notes = _feasible(operators(families, types, grid), found, stated=sizes.get("ranks") is not None)
        return cls(found, gpu or file or found.name, file, listed, warm, method, notes)

    def records(self, done: Callable[[Row], bool] | None = None) -> Iterator[Record]:
        """A record of each operator that is not done, as they are timed."""
        bench = Bench(self.device, self.method, rotated_bytes(self.device, facts_of(self.device)), self.warm)
        left = [each for each in self.operators if done is None or not done(row_of(self.record(each, NOTHING)))]
        for operator in tracked([each for each in left if each.ranks == 1], "operators"):
            yield self.record(operator, bench.time(operator))
        exchanges = [each for each in left if each.ranks > 1]
        for _, group in groupby(exchanges, lambda each: (each.ranks, each.dtype)):
            same = list(group)
            for operator, timing in zip(same, exchange_times(same, self.device, self.method), strict=True):
                yield self.record(operator, timing)

    def record(self, operator: Operator, result: Timed | Timing | Failure) -> Record:
        """The record of an operator and what became of it."""
        extra: dict[str, Any] = {"warm": self.warm}
        value: float | None = None
        if isinstance(result, Timed):
            extra |= {"calls": result.calls, "graph": result.recorded}
            extra["cache"] = "cold" if result.cold else "warm"
            result = result.timing
        if isinstance(result, Timing):
            value, seen = result.median_s, result
            quartiles = {"lower_quartile_s": seen.lower_quartile_s, "upper_quartile_s": seen.upper_quartile_s}
            extra |= {"repeats": seen.repeats, **quartiles, **self.device.state()}
            extra |= {} if seen.energy_j is None else {"energy_j": seen.energy_j}
        return Record(
            file="", line=0, source=SOURCE, engine="torch", device=self.called, model="", metric="time_ms", value=value,
            unit="s", outcome=result.outcome if isinstance(result, Failure) else "ok", n_devices=operator.ranks,
            w_dtype=operator.dtype, operator=operator.name, shape=operator.shape,
            note=result.reason if isinstance(result, Failure) else "",
            sizes={name: float(size) for name, size in operator.sizes.items()}, extra=extra,
        )  # fmt: skip


NOTHING: Final = Failure("runtime_error", "")
"""In place of what is not measured yet."""


def row_of(record: Record) -> dict[str, Any]:
    """A record as a line of the file."""
    return {
        "source": record.source, "engine": record.engine, "engine_version": tensors().__version__,
        "device": record.device, "n_devices": record.n_devices, "op": record.operator, "dtype": record.w_dtype,
        "shape": record.shape, **{name: f"{size:g}" for name, size in record.sizes.items()}, "metric": record.metric,
        "value": None if record.value is None else f"{1e3 * record.value:.6g}", "unit": "ms",
        "outcome": record.outcome, "how": WARM if record.extra["warm"] else COLD, "note": record.note,
        "extra": dict(record.extra),
    }  # fmt: skip


def _key(row: Row) -> tuple[str, ...]:
    """The operator of a line, whatever became of it and whatever file describes the device."""
    names = ("n_devices", "op", "dtype", "shape", *SIZES, "how")
    return tuple("" if row.get(name) is None else str(row[name]) for name in names)


def words(flag: str, given: Any, known: Sequence[str], usual: Sequence[str] | None = None) -> tuple[str, ...]:
    """The words of a flag, each once; the usual ones where none are given.

    Raises:
        RequestError: a word is none of those known.
    """
    if given is None:
        return tuple(usual or known)
    items = given.split(",") if isinstance(given, str) else list(given)
    found = tuple(dict.fromkeys(str(item).strip() for item in items))
    wrong = next((word for word in found if word not in known), None)
    if wrong is not None or not found:
        near = get_close_matches(wrong or "", known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise RequestError(f"{flag}: is {shortened(wrong or '')}; known: {', '.join(known)}{hint}")
    return found


USUAL: Final = {False: ("fp32", "bf16"), True: ("fp32", "tf32", "bf16", "fp16")}
"""Types that a processor and a card are asked for."""


def types_of(given: Any, device: Device, usual: Mapping[bool, Sequence[str]]) -> tuple[str, ...]:
    """The types of a flag; the usual ones of a processor or of a card where none are given.

    Raises:
        RequestError: a word is no type, or the device has no unit for it.
    """
    types = words("dtypes", given, tuple(DTYPES), usual[device.accelerates])
    if "tf32" in types and not device.accelerates:
        raise RequestError("dtypes: the processor has no tf32; give fp32, bf16, fp16 or int8")
    return types


def _file(gpu: str | None, device: Device) -> str | None:
    """The device file that is named, or the catalogue's of a device that is called so."""
    if gpu is not None:
        found = load(GpuSpec, gpu)
        return gpu if is_path(gpu) else found.name
    try:
        return load(GpuSpec, device.name).name
    except UnknownNameError:
        return None


def _feasible(wanted: Iterable[Operator], device: Device, stated: bool) -> tuple[tuple[Operator, ...], tuple[str, ...]]:
    """Operators without exchanges of more ranks than there are cards, or cores; a note says so.

    Raises:
        RequestError: that many ranks were asked for.
    """
    listed = tuple(wanted)
    most = tensors().accelerator.device_count() if device.accelerates else usable_cores()
    ranks = max((each.ranks for each in listed), default=1)
    if ranks <= most:
        return listed, ()
    text = f"ranks: {ranks} need as many {'cards' if device.accelerates else 'cores'}, and this machine has {most}"
    if stated:
        raise RequestError(text)
    return tuple(each for each in listed if each.ranks <= most), (f"{text}: all_reduce is left out",)
