"""Intervals on estimates: their laws, the records that they rest on, and how they are shown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_perf_model as lpm
from llm_perf_model import intervals
from llm_perf_model.errors import RequestError
from llm_perf_model.estimate import INTERVALS
from llm_perf_model.specs.base import Fit
from llm_perf_model.specs.catalog import data_folder, load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.kernels import KernelRates, KernelSpec
from llm_perf_model.specs.request import DEFAULT_LEVEL, LEVELS
from llm_perf_model.units import interval_of_seconds

from .running import Run, runner

ROOT = Path(__file__).resolve().parents[1]
PHASES = ("prefill", "decode", "whole", "network")
KEYS = ("engine", "gpu", "kind", "phase")
TABLE: Mapping[str, Any] = json.loads((data_folder("records") / "intervals.json").read_bytes())
ENTRIES: list[Mapping[str, Any]] = TABLE["entries"]
FITTED = load(KernelSpec, "hopper"), "h100-sxm-80gb"
UNFITTED = load(KernelSpec, "cdna3"), "mi300x-oam-192gb"
"""A GPU generation with records and one without, and a GPU of each."""

every_metric = pytest.mark.parametrize("metric", INTERVALS)
every_entry = pytest.mark.parametrize(
    "entry", ENTRIES, ids=lambda entry: entry["basis"].split(":")[0].replace(" ", "-")
)


def width(e: lpm.Estimate, metric: str) -> float:
    """Half of the logarithm of high over low."""
    low, high, _ = e.bounds(metric)
    return 0.5 * math.log(float(np.max(high)) / float(np.max(low)))


# Laws.


@every_metric
@pytest.mark.parametrize("engine", ["vllm", "eet", "pytorch-forward", "sglang", "generic-eager"])
def test_bounds_hold_the_estimate_in_their_middle(engine: str, metric: str) -> None:
    e = lpm.estimate("llama-3.1-8b", engine=engine, gpu="a100-sxm-80gb", batch_size=4)
    low, high, basis = e.bounds(metric)
    value = float(getattr(e, metric))
    assert 0.0 < float(low) < value < float(high)
    assert float(low) * float(high) == pytest.approx(value**2)
    assert basis


@every_metric
@pytest.mark.parametrize("gpu", ["a100-sxm-40gb", "rtx-3090", "mi300x-oam-192gb"])
def test_a_higher_level_is_wider(gpu: str, metric: str) -> None:
    widths = [width(lpm.estimate("llama-3.1-8b", engine="vllm", gpu=gpu, interval_level=at), metric) for at in LEVELS]
    assert widths == sorted(set(widths))


@every_metric
def test_a_sweep_has_the_bounds_of_its_cells(metric: str) -> None:
    batches, lengths = np.array([[1.0], [8.0], [64.0]]), np.array([128.0, 2048.0])
    sweep = lpm.estimate("llama-3.1-8b", engine="vllm", batch_size=batches, input_len=lengths)
    low, high, basis = sweep.bounds(metric)
    assert np.shape(low) == np.shape(high) == np.shape(getattr(sweep, metric))
    assert np.broadcast_shapes(np.shape(low), (3, 2)) == (3, 2)
    for (row, column), part in np.ndenumerate(np.broadcast_to(low, (3, 2))):
        cell = lpm.estimate(
            "llama-3.1-8b", engine="vllm", batch_size=float(batches[row, 0]), input_len=float(lengths[column])
        ).bounds(metric)
        assert float(part) == pytest.approx(float(cell.low), rel=1e-12)
        assert float(np.broadcast_to(high, (3, 2))[row, column]) == pytest.approx(float(cell.high), rel=1e-12)
        assert basis == cell.basis


def test_time_to_first_token_is_the_prefill_and_time_per_token_the_step() -> None:
    e = lpm.estimate("llama-3.1-8b", engine="vllm")
    assert e.bounds("ttft_s") == e.bounds("prefill_s")
    assert e.bounds("tpot_s") == e.bounds("decode_step_s")


def test_throughput_is_as_wide_as_the_time_that_it_divides() -> None:
    e = lpm.estimate("llama-3.1-8b", engine="vllm", batch_size=8, output_len=100)
    assert width(e, "throughput_tokens_per_s") == pytest.approx(width(e, "total_s"))
    assert float(e.bounds("throughput_tokens_per_s").high) == pytest.approx(8 * 100 / float(e.bounds("total_s").low))


def test_a_metric_without_an_interval_is_refused() -> None:
    with pytest.raises(KeyError):
        lpm.estimate("test-13b").bounds("energy_j")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"engine": "ideal"}, "flat rates"),
        ({"flops_efficiency": 0.5}, "efficiencies were given"),
        ({"hbm_memory_efficiency": 0.5}, "efficiencies were given"),
    ],
)
def test_no_interval_has_a_reason(options: Mapping[str, Any], reason: str) -> None:
    e = lpm.estimate("test-13b", **options)
    for metric in INTERVALS:
        low, high, basis = e.bounds(metric)
        assert (low, high) == (None, None)
        assert reason in basis
    assert e.to_dict()["interval"]["total_s"]["low"] is None
    assert "[" not in str(e)
    assert reason in " ".join(str(e).split())


# The nearest basis.


def entry(half: float, **holds: str) -> dict[str, Any]:
    basis = " ".join(holds.values()) or "all"
    return {**holds, "basis": basis, "half_widths": {str(level): half * level for level in LEVELS}}


MADE = {
    "entries": [
        entry(0.1, engine="vllm", gpu="a100-sxm-40gb", phase="decode"),
        entry(0.2, engine="vllm", gpu="a100-sxm-40gb"),
        entry(0.3, engine="vllm", phase="decode"),
        entry(0.4, engine="vllm"),
        entry(0.5, kind="serving", phase="decode"),
        entry(0.6, kind="serving"),
        entry(0.7, phase="decode"),
        entry(0.8),
    ],
    "generations": {"half_widths": {str(level): level for level in LEVELS}},
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table of its own in place of the project's."""
    intervals._entry.cache_clear()
    monkeypatch.setattr(intervals, "_table", lambda: MADE)
    yield
    intervals._entry.cache_clear()


def own(levels: tuple[float, ...], name: str = "vllm", **fields: Any) -> EngineSpec:
    """An engine with half widths of its own for some levels."""
    origin = Fit(
        fields=("step_s",), records=("mine.csv",), rows=7, date="2026-01-31", error="none",
        half_widths={str(level): 0.01 * level for level in levels},
    )  # fmt: skip
    return load(EngineSpec, "vllm").model_copy(update={"name": name, "fits": (origin,), **fields})


@pytest.mark.parametrize(
    ("engine", "gpu", "metric", "basis"),
    [
        ("vllm", "a100-sxm-40gb", "decode_step_s", "vllm a100-sxm-40gb decode"),
        ("vllm", "a100-sxm-40gb", "tpot_s", "vllm a100-sxm-40gb decode"),
        ("vllm", "a100-sxm-40gb", "prefill_s", "vllm a100-sxm-40gb"),
        ("vllm", "a100-sxm-40gb", "total_s", "vllm a100-sxm-40gb"),
        ("vllm", "a100-sxm-80gb", "decode_step_s", "vllm decode"),
        ("vllm", "h100-sxm-80gb", "total_s", "vllm"),
        ("sglang", "a100-sxm-40gb", "decode_step_s", "serving decode"),
        ("sglang", "a100-sxm-40gb", "total_s", "serving"),
        ("eet", "a100-sxm-40gb", "decode_step_s", "decode"),
        ("eet", "a100-sxm-40gb", "throughput_tokens_per_s", "all"),
    ],
)
@pytest.mark.usefixtures("made")
def test_the_first_entry_that_holds_counts(engine: str, gpu: str, metric: str, basis: str) -> None:
    bounds = lpm.estimate("llama-3.2-1b", engine=engine, gpu=gpu).bounds(metric)
    assert bounds.basis == basis
    (found,) = [item for item in MADE["entries"] if item["basis"] == basis]
    ratio = math.log(float(bounds.high) / float(bounds.low))
    assert ratio == pytest.approx(2.0 * found["half_widths"][str(DEFAULT_LEVEL)])


@pytest.mark.usefixtures("made")
def test_the_engine_files_own_records_are_nearest() -> None:
    e = lpm.estimate("llama-3.2-1b", engine=own(LEVELS), gpu="a100-sxm-40gb")
    assert width(e, "decode_step_s") == pytest.approx(0.01 * DEFAULT_LEVEL)
    assert e.bounds("decode_step_s").basis.startswith("7 records of this engine file")


@pytest.mark.usefixtures("made")
def test_a_level_that_its_own_records_do_not_reach_comes_from_the_next() -> None:
    e = lpm.estimate("llama-3.2-1b", engine=own((0.5, 0.6), name="mine"), gpu="a100-sxm-40gb")
    assert e.bounds("total_s").basis == "serving"


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_generation_without_records_is_wider(engine: str) -> None:
    known, unknown = (lpm.estimate("llama-3.2-1b", engine=engine, gpu=gpu) for _, gpu in (FITTED, UNFITTED))
    assert width(unknown, "total_s") == pytest.approx(math.hypot(width(known, "total_s"), DEFAULT_LEVEL))
    assert unknown.bounds("total_s").basis.startswith(known.bounds("total_s").basis)
    assert "GPU generation cdna3" in unknown.bounds("total_s").basis


@pytest.mark.usefixtures("made")
def test_kernels_of_its_own_are_records_of_the_generation() -> None:
    rates = KernelRates(**{field: getattr(UNFITTED[0], field) for field in KernelRates.model_fields})
    e = lpm.estimate("llama-3.2-1b", engine=own(LEVELS, kernels=rates), gpu=UNFITTED[1])
    assert width(e, "total_s") == pytest.approx(0.01 * DEFAULT_LEVEL)


def test_the_generations_of_these_tests_have_records_and_have_none() -> None:
    assert FITTED[0].fits
    assert not UNFITTED[0].fits


def test_every_engine_on_every_gpu_has_a_basis() -> None:
    for name in lpm.engines():
        engine = load(EngineSpec, name)
        for gpu in (load(GpuSpec, gpu) for gpu in lpm.gpus()):
            kernels = load(KernelSpec, gpu.generation)
            for phase in PHASES:
                found = intervals.interval(engine, gpu, kernels, phase, DEFAULT_LEVEL)
                assert 0.0 < found.half_width < math.log(100.0)
                assert found.basis


# The table.


@every_entry
def test_an_entry_has_a_width_for_each_level(entry: Mapping[str, Any]) -> None:
    widths = list(entry["half_widths"].values())
    assert list(entry["half_widths"]) == [str(level) for level in LEVELS]
    assert widths == sorted(widths)
    assert 0.0 < widths[0] < widths[-1]
    assert re.fullmatch(r".+: \d+ left-out records of \d+ models?", entry["basis"])


@every_entry
def test_an_entry_holds_for_something_that_exists(entry: Mapping[str, Any]) -> None:
    assert entry.keys() - {"basis", "half_widths"} <= set(KEYS)
    assert entry.get("engine", "ideal") in lpm.engines()
    assert entry.get("gpu", "h100-sxm-80gb") in lpm.gpus()
    assert entry.get("phase", "whole") in PHASES
    assert entry.get("kind", "fused") in {load(EngineSpec, name).kind for name in lpm.engines()}


def test_entries_are_listed_nearest_first() -> None:
    def distance(item: Mapping[str, Any]) -> tuple[bool, ...]:
        return ("engine" not in item or "gpu" not in item, "engine" not in item, "kind" not in item)

    order = [distance(item) for item in ENTRIES]
    assert order == sorted(order)
    seen: set[tuple[Any, ...]] = set()
    for item in ENTRIES:
        holds = tuple(item.get(key) for key in KEYS)
        assert holds not in seen
        assert (*holds[:3], None) not in seen, "an entry for all phases hides one of a phase"
        seen.add(holds)
    assert seen >= {(None,) * 4}, "an entry holds for all"


def test_the_width_between_generations_has_every_level() -> None:
    widths = list(TABLE["generations"]["half_widths"].values())
    assert list(TABLE["generations"]["half_widths"]) == [str(level) for level in LEVELS]
    assert widths == sorted(widths)
    assert re.fullmatch(r"\d+ timed operators under another generation's coefficients", TABLE["generations"]["basis"])


@pytest.mark.parametrize("line", TABLE["coverage"], ids=lambda line: line["basis"].replace(" ", "-"))
def test_left_out_models_are_covered_as_often_as_the_level_says(line: Mapping[str, Any]) -> None:
    print(line)
    assert line["level"] == DEFAULT_LEVEL
    assert line["rows"] >= 100
    assert line["median_half_width"] > 0.0
    assert 0.75 <= line["covered"] <= 0.85


# What a person sees.


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ((0.0621, 0.0578, 0.0669), "62.1 ms  [57.8, 66.9]"),
        ((0.9996, 0.5, 2.0), "1.00 s  [0.50, 2.00]"),
        ((1.5e-3, 0.9e-3, 2.5e-3), "1.50 ms  [0.90, 2.50]"),
        ((4.2e-4, 4.2e-5, 4.2e-3), "420 us  [42.0, 4200]"),
        ((123.0, 99.96, 150.0), "123 s  [100, 150]"),
    ],
)
def test_bounds_are_printed_in_the_unit_of_the_value(seconds: tuple[float, float, float], text: str) -> None:
    assert interval_of_seconds(*seconds) == text


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80, "infer", "--model", "llama-3.2-1b")


@pytest.mark.parametrize("engine", ["vllm", "torchscript", "sglang", "ideal"])
@pytest.mark.parametrize("gpu", ["a100-sxm-80gb", "mi300x-oam-192gb"])
@pytest.mark.parametrize("more", [(), ("--interval_level", "0.95"), ("--breakdown", "roles"), ("--tp", "2")])
def test_no_line_is_wider_than_the_terminal(run: Run, engine: str, gpu: str, more: tuple[str, ...]) -> None:
    code, out, err = run("--engine", engine, "--gpu", gpu, *more)
    assert (code, err) == (0, "")
    for line in out.splitlines():
        assert len(line) <= 80, line


def test_text_shows_value_bounds_level_and_basis(run: Run) -> None:
    code, out, err = run("--engine", "vllm")
    assert (code, err) == (0, "")
    e = lpm.estimate("llama-3.2-1b", engine="vllm", output_len=32)
    for metric, row in {"prefill_s": "prefill", "decode_step_s": "decode step", "total_s": "total"}.items():
        (line,) = [line for line in out.splitlines() if line.startswith(f"{row} ")]
        values = (getattr(e, metric), *e.bounds(metric)[:2])
        assert interval_of_seconds(*map(float, values)) in line
        assert re.search(r" \d[\d.]* (s|ms|us)  \[\d[\d.]*, \d[\d.]*\]", line)
        assert e.bounds(metric).basis in " ".join(out.split())
    assert "80 % interval of total" in out


def test_without_a_decode_step_there_is_no_bracket(run: Run) -> None:
    code, out, err = run("--engine", "vllm", "--output_len", "1")
    assert (code, err) == (0, "")
    (line,) = [line for line in out.splitlines() if line.startswith("decode step ")]
    assert "[" not in line


@pytest.mark.parametrize("level", LEVELS)
def test_json_has_level_low_high_and_basis_of_each_metric(run: Run, level: float) -> None:
    code, out, err = run("--engine", "vllm", "--interval_level", str(level), "--format", "json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    parts = answer["interval"]
    assert parts.keys() == {"level", *INTERVALS}
    assert parts["level"] == answer["request"]["interval_level"] == level
    for metric in INTERVALS:
        assert parts[metric].keys() == {"low", "high", "basis"}
        assert parts[metric]["low"] < answer[metric] < parts[metric]["high"]


def test_json_of_a_sweep_holds_lists() -> None:
    e = lpm.estimate("llama-3.2-1b", engine="vllm", batch_size=np.array([1.0, 2.0]))
    parts = json.loads(json.dumps(e.to_dict()))["interval"]
    assert [len(parts["total_s"][end]) for end in ("low", "high")] == [2, 2]


@pytest.mark.parametrize("level", ["0.85", "1", "0", "-0.5", "x", "nan", "[0.5]", "True"])
def test_a_level_that_is_none_is_one_line(run: Run, level: str) -> None:
    code, out, err = run("--interval_level", level)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("error: interval_level: is ")
    assert err.rstrip().endswith("must be one of 0.5, 0.6, 0.7, 0.8, 0.9, 0.95")


def test_a_level_without_a_value_is_one_line(run: Run) -> None:
    code, out, err = run("--interval_level")
    assert (code, out, len(err.splitlines())) == (1, "", 1)


def test_python_refuses_a_wrong_level() -> None:
    with pytest.raises(RequestError, match=r"interval_level: is 0\.85"):
        lpm.estimate("test-13b", interval_level=0.85)


# The page.


def coverage_table() -> list[str]:
    lines = ["| basis | rows | inside | median half width | as a factor |", "|---|--:|--:|--:|--:|"]
    for row in TABLE["coverage"]:
        half = row["median_half_width"]
        lines.append(f"| {row['basis']} | {row['rows']} | {row['covered']:.1%} | {half:.3f} | {math.exp(half):.2f} |")
    return lines


def engine_table() -> list[str]:
    lines = ["| engine | GPU | left-out records | half width | as a factor |", "|---|---|---|--:|--:|"]
    for item in ENTRIES:
        if "gpu" in item and "phase" not in item:
            half, records = item["half_widths"][str(DEFAULT_LEVEL)], item["basis"].split(": ")[1]
            counted = records.replace(" left-out records", "")
            lines.append(f"| `{item['engine']}` | {item['gpu']} | {counted} | {half:.3f} | {math.exp(half):.2f} |")
    return lines


def generations_line() -> str:
    half = TABLE["generations"]["half_widths"][str(DEFAULT_LEVEL)]
    rows = TABLE["generations"]["basis"].split()[0]
    return f"Between generations: {half:.3f}, a factor of {math.exp(half):.2f}, from {rows} timed operators."


def test_the_page_shows_the_figures_of_the_file() -> None:
    page = (ROOT / "docs" / "intervals.md").read_text(encoding="utf-8")
    for table in (coverage_table(), engine_table(), [generations_line()]):
        assert "\n\n" + "\n".join(table) + "\n\n" in page


def test_the_page_names_every_level() -> None:
    page = " ".join((ROOT / "docs" / "intervals.md").read_text(encoding="utf-8").split())
    assert f"`--interval_level` takes {', '.join(map(str, LEVELS[:-1]))} or {LEVELS[-1]}." in page


def test_an_engine_with_one_model_has_no_entry_of_its_own() -> None:
    """The page names it: a close fit of one model says nothing of another."""
    origin, _ = load(EngineSpec, "hf-transformers").fits
    assert "layer_s" in origin.fields
    assert float(re.findall(r"median ([\d.]+) ?%", origin.error)[0]) < 5.0
    own = [item for item in ENTRIES if item.get("engine") == "hf-transformers"]
    assert own
    assert all("gpu" not in item for item in own)
    assert "`hf-transformers` is the example" in (ROOT / "docs" / "intervals.md").read_text(encoding="utf-8")
