"""How calls are timed, what becomes of those that fail, and the file that keeps what was seen; no torch is needed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_perf_model.errors import RequestError
from llm_perf_model.measuring.counters import Counters
from llm_perf_model.measuring.device import Accelerator
from llm_perf_model.measuring.environment import difference
from llm_perf_model.measuring.journal import Journal
from llm_perf_model.measuring.method import ENERGY_LEAST_S, Method, spread_of, timed
from llm_perf_model.measuring.outcomes import Failure, attempt
from llm_perf_model.validation.records import COLUMNS, Record, read

from .fake_device import FakeDevice

HERE = {"torch": "2.13.0", "device": "fake device", "date": "2026-11-22"}


def nothing() -> None:
    """A call that does nothing."""


# The method.


def test_warm_up_is_not_counted() -> None:
    slow_at_first = FakeDevice([9.0, 9.0, 9.0, 1.0])
    timing = timed(nothing, slow_at_first, Method(warmup=3, budget_s=100.0))
    assert (timing.median_s, timing.lower_quartile_s, timing.upper_quartile_s) == (1.0, 1.0, 1.0)
    assert timing.repeats == 5  # equal times: the least number is enough


def test_scattered_times_are_repeated_until_their_median_is_known() -> None:
    scattered = [0.9, 1.1, 1.0] * 30
    timing = timed(nothing, FakeDevice(scattered), Method(warmup=0, repeats_most=90, spread=0.05, budget_s=1e9))
    assert 5 < timing.repeats < 90
    assert spread_of(scattered[: timing.repeats]) <= 0.05 < spread_of(scattered[: timing.repeats - 1])


@pytest.mark.parametrize(("most", "budget_s", "repeats"), [(7, 1e9, 7), (50, 3.5, 4), (50, 0.5, 1)])
def test_repeats_and_time_are_bounded(most: int, budget_s: float, repeats: int) -> None:
    alternating = [0.5, 1.5] * 100 if budget_s > 1e6 else [1.0] * 100
    method = Method(warmup=0, repeats_most=most, spread=1e-9, budget_s=budget_s)
    assert timed(nothing, FakeDevice(alternating), method).repeats == repeats


@given(st.lists(st.floats(1e-6, 1e3), min_size=5, max_size=40), st.floats(1e-3, 1e3))
def test_quartiles_enclose_the_median_and_scale_with_the_unit(times: list[float], factor: float) -> None:
    method = Method(warmup=0, repeats_least=len(times), repeats_most=len(times), budget_s=1e12)
    seen = timed(nothing, FakeDevice(times), method)
    scaled = timed(nothing, FakeDevice([factor * time for time in times]), method)
    assert min(times) <= seen.lower_quartile_s <= seen.median_s <= seen.upper_quartile_s <= max(times)
    assert scaled.median_s == pytest.approx(factor * seen.median_s)
    assert spread_of([factor * time for time in times]) == pytest.approx(spread_of(times), abs=1e-9)


def test_peaks_start_after_the_warm_up_and_what_runs_before_is_not_timed() -> None:
    device, order = FakeDevice(), []
    timing = timed(lambda: order.append("call"), device, Method(warmup=1), before=lambda: order.append("before"))
    assert device.events == ["synchronize", "reset"]
    assert order == ["before", "call"] * (1 + timing.repeats)


def test_energy_is_that_of_one_call_and_absent_where_the_counter_is_too_slow() -> None:
    assert timed(nothing, FakeDevice([2.0], power_w=300.0), Method(warmup=2)).energy_j == pytest.approx(600.0)
    short = FakeDevice([ENERGY_LEAST_S / 1000], power_w=300.0)
    assert timed(nothing, short, Method()).energy_j is None
    assert timed(nothing, FakeDevice([2.0]), Method()).energy_j is None


# What becomes of a call.


def test_errors_are_outcomes() -> None:
    def full() -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.\nsecond line")

    def broken() -> None:
        raise ValueError("shapes do not match")

    device = FakeDevice()
    assert attempt(full, device) == Failure("oom", "CUDA out of memory. Tried to allocate 20.00 GiB.")
    assert attempt(broken, device) == Failure("runtime_error", "shapes do not match")
    assert attempt(lambda: (_ for _ in ()).throw(MemoryError()), device) == Failure("oom", "MemoryError")
    assert device.events == ["release"] * 3
    assert attempt(lambda: 7, device) == 7


def test_an_interruption_is_no_outcome() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(interrupted)


# A card, as its libraries show it.


class FakeModule:
    """What torch keeps for cards of a kind; its events count milliseconds."""

    def __init__(self) -> None:
        self.now_ms, self.calls = 0.0, []

    def Event(self, enable_timing: bool) -> Any:  # noqa: N802
        assert enable_timing
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now_ms)
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def synchronize(self, target: str) -> None:
        self.calls.append(f"synchronize {target}")

    def get_device_properties(self, _target: str) -> Any:
        return SimpleNamespace(name="A card", total_memory=8 * 2**30)

    def max_memory_allocated(self, _target: str) -> int:
        return 123

    def max_memory_reserved(self, _target: str) -> int:
        return 456


class FakeCounters:
    """The management library: millijoules, milliwatts, megahertz."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def nvmlDeviceGetTotalEnergyConsumption(self, _handle: str) -> int:  # noqa: N802
        return 5_000

    def nvmlDeviceGetClockInfo(self, _handle: str, kind: int) -> int:  # noqa: N802
        return {1: 1980, 2: 2619}[kind]

    def nvmlDeviceGetEnforcedPowerLimit(self, _handle: str) -> int:  # noqa: N802
        return 700_000

    def nvmlDeviceGetTemperature(self, _handle: str, _sensor: int) -> int:  # noqa: N802
        raise self.NVMLError("not supported")


def test_a_card_is_timed_by_its_own_events() -> None:
    module = FakeModule()
    card = Accelerator("card:0", module, Counters())

    def work() -> None:
        module.now_ms += 2.5

    assert card.timed(work) == pytest.approx(2.5e-3)
    assert module.calls == ["synchronize card:0"] * 2
    assert (card.name, card.total_bytes) == ("A card", 8 * 2**30)
    assert (card.peak_allocated_bytes, card.peak_reserved_bytes) == (123, 456)


def test_what_a_card_does_not_tell_is_absent() -> None:
    told = Counters(FakeCounters(), "handle")
    assert told.energy_j() == 5.0
    assert told.state() == {"sm_clock_hz": 1.98e9, "memory_clock_hz": 2.619e9, "power_limit_w": 700.0}
    assert told.driver is None  # the fake library has no such function
    assert (Counters().energy_j(), Counters().state(), Counters().driver) == (None, {}, None)


# The file.


def row(batch: int, value: float | None = 1.5, **extra: Any) -> dict[str, Any]:
    return {
        "source": "test", "engine": "hf", "device": "A100", "model": "m", "w_dtype": "fp16", "batch": batch,
        "metric": "prefill_ms", "value": value, "unit": "ms", "outcome": "ok" if value else "oom", "extra": extra,
    }  # fmt: skip


def batch_of(row: Any) -> str:
    return str(row["batch"])


def journal(path: Path, environment: dict[str, Any] | None = None) -> Journal:
    return Journal(str(path), environment or HERE, batch_of)


def test_records_are_those_that_validate_reads(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    journal(path).append(row(1, task="prefill, all"), row(2, None))
    first, second = read(path)
    assert isinstance(first, Record) and isinstance(second, Record)
    assert (first.batch, first.value, first.outcome) == (1, 1.5e-3, "ok")
    assert first.extra == {"task": "prefill, all", "environment": HERE}
    assert (second.value, second.outcome) == (None, "oom")
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_second_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    journal(path).append(row(1))
    again = journal(path, {**HERE, "date": "2026-11-23"})
    assert again.done("1") and not again.done("2")
    again.append(row(1, 9.0), row(2))
    assert [each["batch"] for each in again.rows] == ["1", "2"]
    assert [line.split(",")[13] for line in path.read_text().splitlines()[1:]] == ["1", "2"]


@given(st.integers(0, 10_000))
def test_a_file_cut_anywhere_loses_at_most_its_last_line(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "r.csv"
    for batch in (1, 2, 3):
        journal(path).append(row(batch, text='a "quoted", comma\nand a line'))
    whole = path.read_bytes()
    place = cut % (len(whole) + 1)
    path.write_bytes(whole[:place])
    left = journal(path)
    assert len(left.rows) >= max(whole[:place].count(b"\n") - 1, 0)
    for batch in (1, 2, 3):
        left.append(row(batch, text='a "quoted", comma\nand a line'))
    assert path.read_bytes() == whole


def test_another_environment_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    journal(path).append(row(1))
    with pytest.raises(RequestError, match=r"holds records of torch 2\.13\.0, not 2\.14\.0; give a new file$"):
        journal(path, {**HERE, "torch": "2.14.0"})
    assert difference(HERE, {**HERE, "driver": "1"}) == "driver not there, not 1"


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "no records", ",".join(COLUMNS) + "\nx,y\n", "\xff\xfe\n"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError, match=r"output .*r\.csv: (is no file of measured records|cannot be read)"):
        journal(path)
    assert path.read_bytes() == text.encode("latin-1")


def test_a_full_disk_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.csv"
    kept = journal(path)
    kept.append(row(1))
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RequestError, match=r"output .*: cannot be written: No space left on device$"):
            kept.append(row(2))
    assert path.read_bytes() == before
    kept.append(row(2))
    assert len(path.read_text().splitlines()) == 3


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be written: No such file or directory"):
        journal(tmp_path / "missing" / "r.csv")
    with pytest.raises(RequestError, match="cannot be written: is a directory"):
        journal(tmp_path)


def test_extra_holds_no_number_that_json_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        journal(tmp_path / "r.csv").append(row(1, value=1.0, spread=float("nan")))
    assert json.loads(json.dumps(HERE)) == HERE
