"""`calibrate` from Python and from the command line, and what a calibrated file says of itself."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import llm_perf_model as lpm
from llm_perf_model.specs.catalog import load, parse
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.specs.request import LEVELS
from llm_perf_model.validation.calibrate import Calibration
from llm_perf_model.validation.calibrate import calibrate as fit
from llm_perf_model.validation.compare import score
from llm_perf_model.validation.conformal import half_width
from llm_perf_model.validation.fit import value_at, with_values
from llm_perf_model.validation.mapping import TIME_METRICS
from llm_perf_model.validation.operators import _BUILDERS, timed
from llm_perf_model.validation.posterior import LEAST_NOISE, Prior, posterior
from llm_perf_model.validation.records import Record, read
from llm_perf_model.validation.run import calibrate, held_against
from llm_perf_model.validation.stacks import stacked

from .rows import write
from .running import Ran, Run, runner

ROOT = Path(__file__).resolve().parents[1]
MODEL, GPU, ENGINE = "llama-3.1-8b", "a100-sxm-80gb", "our server"
BASE = load(EngineSpec, "generic-fused")
HIDDEN: Mapping[str, float] = {
    "step_s": 2.5e-3, "sequence_s": 3e-5, "request_s": 1.5e-2, "memory_ratio": 0.85, "compute_ratio": 0.75,
}  # fmt: skip
"""Coefficients that made the runs of these tests."""

TRUTH = with_values(BASE, tuple(HIDDEN), tuple(HIDDEN.values()))
READ: Mapping[str, Callable[[lpm.Estimate], Any]] = {
    "decode_ms_per_token": lambda e: e.decode_step_s,
    "prefill_ms": lambda e: e.prefill_s,
    "total_ms": lambda e: e.total_s,
}
APART = (
    ("decode_ms_per_token", 1, 128, 256), ("decode_ms_per_token", 128, 512, 256),
    ("decode_ms_per_token", 32, 2048, 256), ("prefill_ms", 1, 64, 1), ("prefill_ms", 1, 4096, 1),
)  # fmt: skip
"""Metric, batch, input and output length of five runs that tell five coefficients apart."""

ALIKE = tuple(("decode_ms_per_token", 1, length, 128) for length in (128, 129, 130))
"""Runs in which a step and the memory cost time in the same way."""


def runs(kinds: Iterable[tuple[str, int, int, int]], tp: int = 1) -> list[dict[str, Any]]:
    """Rows of runs as the model itself times them under the hidden coefficients."""
    rows = []
    for metric, batch, input_len, output_len in kinds:
        shape = {"batch_size": batch, "input_len": input_len, "output_len": output_len, "tp": tp}
        value = f"{1e3 * float(READ[metric](lpm.estimate(MODEL, gpu=GPU, engine=TRUTH, **shape))):.5g}"
        columns = {"engine": ENGINE, "model": MODEL, "device": GPU, "n_devices": tp, "batch": batch, **shape}
        rows.append({**columns, "metric": metric, "value": value})
    return rows


def called(engine: str, kinds: Iterable[tuple[str, int, int, int]]) -> list[dict[str, Any]]:
    """The same rows as another engine's."""
    return [{**row, "engine": engine} for row in runs(kinds)]


def fitted(path: Path, recorded: str | None = None) -> Calibration:
    return fit(held_against(str(path)), BASE, "mine", "Mine", [path.name], recorded)


def engine_of(c: Calibration) -> EngineSpec:
    return parse(EngineSpec, json.dumps(c.data).encode(), "mine")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 100, "calibrate")


@pytest.fixture
def any_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 100)


def refused(ran: Ran, *parts: str) -> None:
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert len(ran.err.splitlines()) == 1, ran.err
    for part in parts:
        assert part in ran.err


# Runs of models.


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return fitted(write(tmp_path_factory.mktemp("five") / "five.csv", runs(APART)))


def test_five_rows_give_back_the_coefficients_that_made_them(five: Calibration) -> None:
    assert five.found.values.keys() == HIDDEN.keys()
    for field, true in HIDDEN.items():
        distance = abs(np.log(five.found.values[field] / true))
        assert distance <= five.found.deviations[field], field
    assert five.fitted.worst < 0.01 < 0.2 < five.before.median


def test_the_file_of_five_rows_holds_values_deviations_and_widths(five: Calibration) -> None:
    engine = engine_of(five)
    (origin,) = engine.fits
    assert set(origin.fields) == set(origin.deviations) == HIDDEN.keys()
    assert (origin.rows, origin.records) == (5, ("five.csv",))
    for field in HIDDEN:
        assert value_at(engine, field) == pytest.approx(five.found.values[field], rel=1e-3)
    assert set(origin.half_widths) == {str(level) for level in LEVELS if Fraction(str(level)) * 6 <= 5}
    assert list(origin.half_widths.values()) == sorted(origin.half_widths.values())
    assert "on these rows" in origin.error
    assert "left out" in origin.error


def test_what_the_base_gives_is_not_repeated(five: Calibration) -> None:
    assert five.data["like"] == "generic-fused"
    assert five.data.keys() == {"name", "title", "like", "fits", *HIDDEN}
    engine = engine_of(five)
    for field in set(EngineSpec.model_fields) - {*HIDDEN, "name", "title", "aliases", "patterns", "notes", "like"}:
        if field not in {"fits", "assumed", "sources"}:
            assert getattr(engine, field) == getattr(BASE, field), field


def test_a_fit_explains_rows_that_it_has_not_seen(five: Calibration, tmp_path: Path) -> None:
    unseen = (("prefill_ms", 4, 1024, 1), ("decode_ms_per_token", 16, 1024, 64), ("total_ms", 8, 256, 200))
    held = held_against(str(write(tmp_path / "unseen.csv", runs(unseen))))
    assert len(held.scores) == 3
    for item in held.scores:
        own, base = (abs(score(item.record, item.mapped, e).error) for e in (engine_of(five), BASE))
        assert own < 0.02 < base


def test_two_points_give_a_file(run: Run, any_command: Run, tmp_path: Path) -> None:
    two = [("prefill_ms", 1, 2048, 1), ("decode_ms_per_token", 1, 512, 128)]
    records, path = write(tmp_path / "two.csv", runs(two)), tmp_path / "mine.json"
    code, out, err = run("--records", str(records), "--output", str(path), "--name", "mine")
    assert (code, err) == (0, "")
    assert "generic-fused calibrated on 2 rows" in out
    assert "too few rows to leave any out" in out
    assert f"written: {path}" in out
    (origin,) = load(EngineSpec, str(path)).fits
    assert 1 <= len(origin.fields) <= 2
    assert origin.half_widths == {}
    code, out, err = any_command("infer", "--model", MODEL, "--gpu", GPU, "--engine", str(path))
    assert (code, err) == (0, "")
    assert "mine" in out.splitlines()[0]


@pytest.mark.parametrize(
    ("kind", "field"),
    [(("prefill_ms", 8, 1024, 1), "compute_ratio"), (("decode_ms_per_token", 8, 1024, 64), "memory_ratio")],
)
def test_one_row_fixes_one_coefficient_at_most(kind: tuple[str, int, int, int], field: str, tmp_path: Path) -> None:
    c = fitted(write(tmp_path / "one.csv", runs([kind])))
    assert set(c.found.values) == {field}
    assert c.rows == len(c.found.values) == 1
    assert len(c.found.kept) == len(c.priors) - 1
    assert all(c.found.kept.values())


def test_one_row_that_depends_on_all_alike_fixes_none(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "one.csv", runs([("total_ms", 8, 1024, 64)]))
    refused(run("--records", str(path)), "cannot fix a coefficient of generic-fused", *HIDDEN)


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return fitted(write(tmp_path_factory.mktemp("alike") / "alike.csv", runs(ALIKE)))


def test_of_twins_one_stays_at_the_bases_value_and_names_the_other(alike: Calibration) -> None:
    twins = {"step_s", "memory_ratio"}
    (fixed,) = alike.found.values.keys() & twins
    (kept,) = twins - {fixed}
    assert alike.found.kept[kept] == f"cannot be told apart from {fixed}"
    assert kept not in alike.data
    assert value_at(engine_of(alike), kept) == value_at(BASE, kept)


def test_the_deviation_of_a_twin_covers_what_the_other_may_be(alike: Calibration) -> None:
    """One of two coefficients that the rows cannot tell apart is no better known than both together."""
    (fixed,) = alike.found.values.keys() & {"step_s", "memory_ratio"}
    assert abs(np.log(alike.found.values[fixed] / HIDDEN[fixed])) <= 2.0 * alike.found.deviations[fixed]


def test_what_the_rows_do_not_depend_on_stays(alike: Calibration) -> None:
    assert "do not depend on it" in alike.found.kept["compute_ratio"]
    assert engine_of(alike).compute_ratio is BASE.compute_ratio


def test_link_efficiency_is_fitted_only_where_ranks_exchange(five: Calibration, tmp_path: Path) -> None:
    assert "link_efficiency" not in five.priors
    exchanging = [("prefill_ms", 8, 2048, 1)]
    c = fitted(write(tmp_path / "tp.csv", [*runs(exchanging), *runs(exchanging, tp=2)]))
    assert "link_efficiency" in c.priors


# Rows that cannot be right, or cannot be used together.


def test_the_waking_of_cores_is_fitted_where_the_engine_has_it(tmp_path: Path) -> None:
    """Another processor wakes its threads in another time: here a fifth of the base's, with twice its arithmetic."""
    base = load(EngineSpec, "pytorch-cpu")
    truth = with_values(base, ("region_s", "compute_ratio"), (3e-5, 1.6))
    rows: list[dict[str, Any]] = []
    for batch, length in ((1, 16), (1, 128), (4, 16), (4, 128), (16, 64)):
        shape = {"batch_size": batch, "input_len": length}
        e = lpm.estimate("opt-125m", gpu="ryzen-9-5950x", engine=truth, precision="fp32", output_len=2, **shape)
        same = {"engine": "mine", "model": "opt-125m", "device": "ryzen-9-5950x", "w_dtype": "fp32", "batch": batch}
        for metric, seconds in (("prefill_ms", e.prefill_s), ("decode_ms_per_token", e.decode_step_s)):
            rows.append({**same, "input_len": length, "output_len": 2, "metric": metric, "value": 1e3 * float(seconds)})
    found = lpm.calibrate(str(write(tmp_path / "r.csv", rows)), engine="pytorch-cpu", name="mine")
    assert found.region_s == pytest.approx(3e-5, rel=0.25)
    assert found.compute_ratio == pytest.approx(1.6, rel=0.1)
    assert "region_s" not in lpm.calibrate(str(write(tmp_path / "r.csv", runs(APART))), name="other").fits[0].fields


def test_contradicting_rows_are_named_by_file_and_line(run: Run, tmp_path: Path) -> None:
    rows = runs(APART)
    path = write(tmp_path / "odd.csv", [*rows, {**rows[4], "value": 1.5 * float(rows[4]["value"])}])
    code, out, err = run("--records", str(path), "--format", "json")
    assert (code, err) == (0, "")
    (note,) = [note for note in json.loads(out)["notes"] if "contradict" in note]
    assert "odd.csv:6 and odd.csv:7 contradict each other" in note
    low, high = re.findall(r"0\.\d+", note)
    assert float(high) == pytest.approx(1.5 * float(low), rel=1e-3)


def test_contradicting_rows_that_fix_nothing_are_named_too(run: Run, tmp_path: Path) -> None:
    (row,) = runs([("prefill_ms", 1, 2048, 1)])
    path = write(tmp_path / "odd.csv", [row, {**row, "value": 4.0 * float(row["value"])}])
    refused(run("--records", str(path)), "cannot fix a coefficient", "odd.csv:2 and odd.csv:3")


def test_several_engines_are_refused_until_one_is_chosen(run: Run, tmp_path: Path) -> None:
    path = str(write(tmp_path / "two.csv", [*runs(ALIKE[:2]), *called("another", ALIKE[:1])]))
    refused(run("--records", path), f"'{ENGINE}' (2 rows)", "'another' (1 row)", "--recorded")
    refused(run("--records", path, "--recorded", "none"), f"'{ENGINE}' (2 rows)", "'another' (1 row)", "'none'")
    code, out, err = run("--records", path, "--recorded", "another")
    assert (code, err) == (0, "")
    assert "calibrated on 1 row\n" in out


def test_an_engine_may_be_called_a_number(run: Run, tmp_path: Path) -> None:
    path = str(write(tmp_path / "numbers.csv", [*called("5", ALIKE[:1]), *called("6", ALIKE[:1])]))
    assert run("--records", path, "--recorded", "5").code == 0


def test_no_usable_row_lists_the_reasons(run: Run, tmp_path: Path) -> None:
    rows = [
        {"model": "resnet1"},
        {"model": "resnet1"},
        {"outcome": "oom", "value": ""},
        {"value": "x"},
        {"batch": ""},
    ]
    path = write(tmp_path / "none.csv", rows)
    parts = ("2 rows not used: unknown model 'resnet1'", "ran out of memory", "none.csv:5: value is 'x'", "no batch")
    refused(run("--records", str(path)), "no row holds a time that can be used", *parts)


def test_rows_of_memory_are_no_times(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "memory.csv", [{"metric": "memory_gib", "unit": "GiB", "value": "30"}])
    refused(run("--records", str(path)), "no row holds a time that can be used", "memory")


def test_rows_that_are_not_used_are_counted(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "some.csv", [*runs([("prefill_ms", 1, 2048, 1)]), {"model": "resnet1"}])
    code, out, err = run("--records", str(path))
    assert (code, err) == (0, "")
    assert "not used: unknown model 'resnet1'" in out


@pytest.mark.parametrize("change", [{"output_len": ""}, {"value": "0"}, {"value": "-3"}, {"unit": "tok/s"}])
def test_a_row_that_holds_no_such_time_is_not_used(run: Run, tmp_path: Path, change: dict[str, str]) -> None:
    """A step without an output length, a time that is none, a rate where a time belongs."""
    steps = runs([("decode_ms_per_token", 1, 512, 128)])[0]
    path = write(tmp_path / "some.csv", [*runs([("prefill_ms", 1, 2048, 1)]), {**steps, **change}])
    code, out, err = run("--records", str(path))
    assert (code, err) == (0, "")
    assert "calibrated on 1 row\n" in out


# Timed operators.

OPERATOR_COLUMNS = ("source", "engine", "op", "device", "dtype", "m", "n", "k", "metric", "value", "unit", "outcome")
SHAPES = (
    (4096, 4096), (14336, 4096), (4096, 14336), (6144, 4096), (32000, 4096), (1024, 1024), (8192, 1024)
)  # fmt: skip
SLOWER: Mapping[str, float] = {
    "gemm.compute_efficiency": 0.8, "gemm.memory_efficiency": 0.85, "gemm.load_bytes_per_cycle": 0.8,
    "gemm.wave_s": 2.0, "gemm.split_s": 2.0, "kernel_start_s": 1.7,
}  # fmt: skip
"""Factors between the coefficients of the generation and those that made the operators of these tests."""

AMPERE = load(KernelSpec, "ampere")
SLOW = with_values(AMPERE, tuple(SLOWER), [factor * value_at(AMPERE, field) for field, factor in SLOWER.items()])


def operators(path: Path, device: str = GPU, kernels: KernelSpec = SLOW) -> Path:
    """42 products as the model times them under some coefficients."""
    fixed = {"source": "a test", "engine": "kernels", "op": "gemm", "device": device, "dtype": "fp16"}
    rows: list[dict[str, Any]] = [
        {**fixed, "m": m, "n": n, "k": k, "metric": "time_ms", "value": 1, "unit": "ms", "outcome": "ok"}
        for m in (1, 8, 64, 256, 1024, 4096)
        for n, k in SHAPES
    ]
    _write(path, rows)
    for stack in stacked(timed(row) for row in read(path) if isinstance(row, Record)):
        times = np.broadcast_to(stack.time_s(kernels=kernels), len(stack.rows))
        for row, time_s in zip(stack.rows, times.tolist(), strict=True):
            rows[row.record.line - 2]["value"] = f"{1e3 * time_s:.5g}"
    return _write(path, rows)


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, OPERATOR_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


class Kernels(NamedTuple):
    """Timed operators, and what a calibration makes of them."""

    path: Path
    found: Calibration


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    path = operators(tmp_path_factory.mktemp("operators") / "operators.csv")
    return Kernels(path, fitted(path))


def test_operators_give_an_engine_with_kernels_of_its_own(kernels: Kernels) -> None:
    engine = engine_of(kernels.found)
    assert engine.kernels is not None
    assert set(kernels.found.found.values) == {f"kernels.{field}" for field in SLOWER}
    for field in SLOWER:
        distance = abs(np.log(value_at(engine.kernels, field) / value_at(SLOW, field)))
        assert distance <= kernels.found.found.deviations[f"kernels.{field}"], field
    assert engine.kernels.attention == AMPERE.attention


def test_operators_of_the_file_are_near_the_measurements(kernels: Kernels) -> None:
    assert kernels.found.before.median > 0.15
    assert kernels.found.fitted.worst < 0.01
    assert kernels.found.left_out is not None
    assert kernels.found.left_out.median < 0.05
    assert kernels.found.left_out_by == "shape"


def test_an_estimate_runs_on_the_kernels_of_the_file(kernels: Kernels) -> None:
    own, base = (lpm.estimate(MODEL, gpu=GPU, engine=e, input_len=2048) for e in (engine_of(kernels.found), BASE))
    assert float(own.prefill_s) == pytest.approx(float(base.prefill_s) / 0.8, rel=0.05)


def test_errors_of_operators_are_no_errors_of_runs(kernels: Kernels) -> None:
    """Kernels that are known to a percent say nothing of the host: the interval rests on runs."""
    own = lpm.estimate(MODEL, gpu=GPU, engine=engine_of(kernels.found)).bounds("total_s")
    base = lpm.estimate(MODEL, gpu=GPU, engine=BASE).bounds("total_s")
    assert own.high / own.low == pytest.approx(base.high / base.low)
    assert own.basis == base.basis


def test_runs_and_operators_are_not_mixed(run: Run, kernels: Kernels, tmp_path: Path) -> None:
    path = write(tmp_path / "runs.csv", runs([("prefill_ms", 1, 2048, 1)]))
    refused(run("--records", f"{path},{kernels.path}"), "runs of models and timed operators", "one kind at a time")


def test_several_generations_are_refused(run: Run, kernels: Kernels, tmp_path: Path) -> None:
    other = operators(tmp_path / "hopper.csv", "h100-sxm-80gb")
    refused(run("--records", f"{kernels.path},{other}"), "several GPU generations (ampere, hopper)", "one at a time")


# Validation under the new engine.


@pytest.mark.parametrize("kind", ["runs", "operators"])
def test_a_validation_under_the_engine_of_the_file_improves(
    kind: str, any_command: Run, five: Calibration, kernels: Kernels, tmp_path: Path
) -> None:
    records = kernels.path if kind == "operators" else write(tmp_path / "five.csv", runs(APART))
    data = kernels.found.data if kind == "operators" else five.data
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(dict(data)), encoding="utf-8")
    medians = []
    for given in ((), ("--engine", str(path))):
        ran = any_command("validate", "--records", str(records), *given, "--format", "csv")
        assert (ran.code, ran.err) == (0, "")
        errors = [abs(float(row["error"])) for row in csv.DictReader(ran.out.splitlines()) if row["error"]]
        medians.append(np.median(errors))
    assert medians[1] < 0.01 < 0.15 < medians[0]


# The file.


@pytest.fixture(scope="module")
def mine(five: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "mine.json"
    path.write_text(json.dumps(dict(five.data)), encoding="utf-8")
    return path


def test_the_file_is_an_engine_of_infer_and_its_interval_names_its_rows(any_command: Run, mine: Path) -> None:
    code, out, err = any_command("infer", "--model", MODEL, "--gpu", GPU, "--engine", str(mine), "--format", "json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer["request"]["engine"] in {"mine", str(mine)}
    width = load(EngineSpec, str(mine)).fits[0].half_widths["0.8"]
    for metric in ("prefill_s", "decode_step_s", "total_s"):
        part = answer["interval"][metric]
        assert part["basis"].startswith("5 records of this engine file")
        assert np.log(part["high"] / answer[metric]) == pytest.approx(width)


def test_a_level_that_few_rows_cannot_promise_comes_from_other_records(any_command: Run, mine: Path) -> None:
    given = ("--model", MODEL, "--gpu", GPU, "--engine", str(mine), "--interval_level", "0.95", "--format", "json")
    code, out, err = any_command("infer", *given)
    assert (code, err) == (0, "")
    assert "this engine file" not in json.loads(out)["interval"]["total_s"]["basis"]


def test_python_gives_the_engine_that_the_command_writes(run: Run, kernels: Kernels, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    assert run("--records", str(kernels.path), "--name", "mine", "--title", "Mine", "--output", str(path)).code == 0
    assert calibrate(str(kernels.path), name="mine", title="Mine") == load(EngineSpec, str(path))


def test_the_same_records_give_the_same_file(kernels: Kernels, tmp_path: Path) -> None:
    """Whatever the order of sets in a process."""
    texts = []
    for seed in ("1", "2", "3"):
        path = tmp_path / f"{seed}.json"
        command = [sys.executable, "-m", "llm_perf_model", "calibrate", "--records", str(kernels.path)]
        done = subprocess.run(
            [*command, "--engine", own_base(tmp_path), "--output", str(path)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        texts.append(path.read_text(encoding="utf-8"))
    assert len(set(texts)) == 1


def own_base(folder: Path) -> str:
    path = folder / "base.json"
    data = json.loads(BASE.model_dump_json(exclude_none=True)) | {"name": "base", "dispatch_s": 4e-6}
    path.write_text(json.dumps(data | {"fused": sorted(data["fused"])}), encoding="utf-8")
    return str(path)


def test_a_base_from_a_path_gives_a_complete_file(run: Run, kernels: Kernels, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    ran = run("--records", str(kernels.path), "--engine", own_base(tmp_path), "--name", "mine", "--output", str(path))
    assert (ran.code, ran.err) == (0, "")
    (tmp_path / "base.json").unlink()
    data, engine = json.loads(path.read_text(encoding="utf-8")), load(EngineSpec, str(path))
    assert "like" not in data
    assert (engine.name, engine.dispatch_s, engine.fused) == ("mine", 4e-6, BASE.fused)
    assert engine.kernels is not None
    assert any("as in base" in guess.reason for guess in engine.assumed)


def test_a_calibrated_file_is_the_base_of_the_next(run: Run, kernels: Kernels, tmp_path: Path) -> None:
    first, second = tmp_path / "kernels.json", tmp_path / "both.json"
    assert run("--records", str(kernels.path), "--name", "kernels", "--output", str(first)).code == 0
    records = write(tmp_path / "runs.csv", runs([("prefill_ms", 1, 2048, 1)]))
    ran = run("--records", str(records), "--engine", str(first), "--name", "both", "--output", str(second))
    assert (ran.code, ran.err) == (0, "")
    assert load(EngineSpec, str(second)).kernels == load(EngineSpec, str(first)).kernels
    assert load(EngineSpec, str(second)).fits[0].records == ("runs.csv",)


# Formats and refusals.


def test_json_holds_engine_kept_and_deviations(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "one.csv", runs([("prefill_ms", 1, 2048, 1)]))
    code, out, err = run("--records", str(path), "--format", "json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert {"engine", "kept", "deviations", "rows", "notes"} <= answer.keys()
    (field,) = answer["deviations"]
    assert answer["engine"]["fits"][0]["fields"] == [field]
    assert field not in answer["kept"]
    assert parse(EngineSpec, json.dumps(answer["engine"]).encode(), "calibrated").name == "calibrated"


@pytest.mark.parametrize("form", ["text", "csv", "markdown"])
def test_every_format_has_a_line_for_each_coefficient(run: Run, kernels: Kernels, form: str) -> None:
    code, out, err = run("--records", str(kernels.path), "--format", form)
    assert (code, err) == (0, "")
    for field in SLOWER:
        assert sum(field in line for line in out.splitlines()) == 1, field


def test_text_fits_a_narrow_terminal(run: Run, kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for line in run("--records", str(kernels.path)).out.splitlines():
        assert len(line) <= 80, line


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ((), ("records: is missing",)),
        (("--records",), ("records: needs files or folders",)),
        (("--records", "FILE", "--engine", "nosuch"), ("unknown engine 'nosuch'",)),
        (("--records", "FILE", "--engine"), ("engine",)),
        (("--records", "FILE", "--engine", "5"), ("engine", "5")),
        (("--records", "FILE", "--engine", "ideal"), ("ideal",)),
        (("--records", "FILE", "--format", "xml"), ("format: is 'xml'",)),
        (("--records", "FILE", "--recorded", "none"), ("recorded",)),
        (("--records", "FILE", "--name", "Our Server"), ("name",)),
        (("--records", "FILE", "--name"), ("name",)),
        (("--records", "FILE", "--title"), ("title",)),
        (("--records", "FILE", "--output"), ("output: needs the name of a file",)),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, kernels: Kernels, given: tuple[str, ...], parts: tuple[str, ...]) -> None:
    refused(run(*(str(kernels.path) if word == "FILE" else word for word in given)), *parts)


def test_a_title_may_be_a_number(run: Run, kernels: Kernels) -> None:
    answer = json.loads(run("--records", str(kernels.path), "--title", "5", "--format", "json").out)
    assert answer["engine"]["title"] == "5"


def test_a_place_that_cannot_be_written(run: Run, kernels: Kernels, tmp_path: Path) -> None:
    for place in (tmp_path / "none" / "mine.json", tmp_path):
        refused(run("--records", str(kernels.path), "--output", str(place)), "output", "cannot be written")
    assert list(tmp_path.iterdir()) == []


def test_an_error_writes_nothing(run: Run, tmp_path: Path) -> None:
    path, records = tmp_path / "mine.json", write(tmp_path / "none.csv", [{"model": "resnet1"}])
    refused(run("--records", str(records), "--output", str(path)), "no row holds a time")
    assert sorted(tmp_path.iterdir()) == [records]


def test_a_process_without_scipy_names_the_extra(kernels: Kernels, tmp_path: Path) -> None:
    """No traceback, nothing on standard output, nothing written."""
    code = (
        "import sys; sys.modules['scipy'] = sys.modules['scipy.optimize'] = None\n"
        "from llm_perf_model.cli import main\n"
        f"sys.exit(main(['calibrate', '--records', {str(kernels.path)!r}, '--output', 'mine.json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "SciPy" in done.stderr
    assert "llm-perf-model[fit]" in done.stderr
    assert list(tmp_path.iterdir()) == []


# What rows say of coefficients, where the answer is known.


FIELDS = ("memory_ratio", "request_s")
PRIORS = {"memory_ratio": Prior(1.0, 0.25), "request_s": Prior(2e-3, 1.5)}


def products(powers: Any, true: Mapping[str, float], noise: Any) -> Callable[[Mapping[str, float]], Any]:
    """Errors of rows that are products of powers of the coefficients."""

    def errors(values: Mapping[str, float]) -> Any:
        logs = [np.log(values.get(field, PRIORS[field].value) / true[field]) for field in FIELDS]
        return powers @ np.array(logs) + noise

    return errors


def test_deviations_of_products_are_those_of_the_normal_equations() -> None:
    powers = np.array([[-1.0, 0.0], [-1.0, 0.3], [-0.5, 0.5], [0.0, 1.0]])
    true = {"memory_ratio": 0.8, "request_s": 4e-3}
    found = posterior(products(powers, true, 0.0), PRIORS, len(powers))
    prior = np.diag([PRIORS[field].deviation ** -2.0 for field in FIELDS])
    covariance = np.linalg.inv(powers.T @ powers / LEAST_NOISE**2 + prior)
    assert [found.deviations[field] for field in FIELDS] == pytest.approx(np.sqrt(np.diag(covariance)), rel=0.01)
    assert found.values == pytest.approx(true, rel=0.01)
    assert (found.kept, found.noise) == ({}, LEAST_NOISE)


def test_stated_deviations_are_kept_as_often_as_a_normal_law_says() -> None:
    generator, n = np.random.default_rng(5), 12
    distances = []
    for _ in range(150):
        powers = generator.uniform(0.0, 1.0, (n, 2)) * [-1.0, 1.0]
        logs = generator.normal(0.0, [PRIORS[field].deviation for field in FIELDS])
        true = {field: PRIORS[field].value * float(np.exp(log)) for field, log in zip(FIELDS, logs, strict=True)}
        found = posterior(products(powers, true, generator.normal(0.0, 0.05, n)), PRIORS, n)
        distances += [abs(np.log(value / true[f])) / found.deviations[f] for f, value in found.values.items()]
    assert len(distances) > 250
    assert np.mean(np.array(distances) < 1.0) == pytest.approx(0.68, abs=0.1)
    assert np.mean(np.array(distances) < 2.0) > 0.85


def test_no_more_coefficients_are_fitted_than_there_are_rows() -> None:
    """Though one row, free of noise, could narrow two."""
    errors = products(np.array([[-1.0, 1.0]]), {"memory_ratio": 0.8, "request_s": 4e-3}, 0.0)
    found = posterior(errors, PRIORS, 1)
    assert len(found.values) == len(found.kept) == 1


def test_one_outlier_moves_little() -> None:
    powers, noise = np.array([[-1.0, 0.0]] * 9 + [[-1.0, 0.1]]), np.zeros(10)
    noise[4] = 2.0
    found = posterior(products(powers, {"memory_ratio": 0.8, "request_s": 2e-3}, noise), PRIORS, 10)
    assert found.values["memory_ratio"] == pytest.approx(0.8, rel=0.03)


# Half widths.


@pytest.mark.parametrize("level", LEVELS)
def test_the_half_width_is_the_smallest_that_holds_enough_errors(level: float) -> None:
    generator = np.random.default_rng(3)
    part = Fraction(str(level))
    for n in range(1, 120):
        logs = generator.standard_normal(n)
        sizes = np.abs(logs)
        enough = [float(size) for size in sizes if Fraction(int(np.sum(sizes <= size))) >= (n + 1) * part]
        assert half_width(logs, level) == (min(enough) if enough else None), n


@pytest.mark.parametrize(("level", "fewest"), [(0.5, 1), (0.6, 2), (0.7, 3), (0.8, 4), (0.9, 9), (0.95, 19)])
def test_too_few_errors_promise_no_level(level: float, fewest: int) -> None:
    assert half_width(np.arange(1.0, fewest), level) is None
    assert half_width(np.arange(1.0, fewest + 1.0), level) == float(fewest)


def test_no_error_is_no_interval() -> None:
    assert half_width(np.array([]), 0.5) is None


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_exchangeable_errors_are_covered_as_often_as_the_level_says(draw: str, level: float) -> None:
    """Between the level and the level + 1 / (n + 1), whatever the distribution."""
    generator, n, trials = np.random.default_rng(11), 39, 4000
    errors = getattr(generator, draw)((trials, n + 1))
    covered = np.mean([abs(row[-1]) <= half_width(row[:-1], level) for row in errors])
    allowed = 3.0 * np.sqrt(level * (1.0 - level) / trials)
    assert level - allowed <= covered <= level + 1.0 / (n + 1) + allowed


# The page.


def fences(page: Path) -> list[tuple[str, str, str]]:
    """Language and text of each fenced block of a page, and the text before it."""
    parts = re.split(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return list(zip(parts[1::3], parts[2::3], parts[0::3], strict=False))


def same(shown: str, printed: str) -> None:
    """Equal but for spaces and lines; numbers within 5 %, for they are fitted."""
    number = r"(?<![\w.-])[+-]?\d+(?:\.\d+)?(?:e-\d+)?(?![\w-])"
    texts = [re.split(number, re.sub(r"[\s\u2500]+", " ", text)) for text in (shown, printed)]
    assert texts[0] == texts[1]
    figures = [list(map(float, re.findall(number, text))) for text in (shown, printed)]
    assert figures[1] == pytest.approx(figures[0], rel=0.05, abs=0.25 if "%" in shown else 0.0)


def test_the_commands_of_the_page_print_what_it_shows(tmp_path: Path) -> None:
    """Its files and commands from top to bottom, in an empty folder."""
    printed, checked = "", 0
    for language, text, before in fences(ROOT / "docs" / "calibrate.md"):
        if language == "csv":
            name = re.findall(r"([\w-]+\.csv)", before)[-1]
            (tmp_path / name).write_text(text, encoding="utf-8")
        elif language == "bash":
            words = text.split()
            assert words[:3] == ["python", "-m", "llm_perf_model"]
            done = subprocess.run(
                [sys.executable, *words[1:]],
                cwd=tmp_path,
                env={"PYTHONPATH": str(ROOT), "COLUMNS": "80"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, ""), text
            printed = done.stdout
        else:
            assert language == "text"
            same(text, printed)
            checked += 1
    assert checked == 3
    assert {path.name for path in tmp_path.glob("*.json")} == {"our-server.json", "our-kernels.json"}
    for name in ("five_runs.csv", "two_more_runs.csv"):
        assert (tmp_path / name).read_text() == (ROOT / "examples" / "calibrate" / name).read_text()


def test_the_numbers_of_the_page_are_labelled_as_examples() -> None:
    for language, text, _ in fences(ROOT / "docs" / "calibrate.md"):
        if language == "csv":
            assert all("invented" in line for line in text.splitlines()[1:])


def test_the_page_names_metrics_and_operators_that_exist() -> None:
    page = (ROOT / "docs" / "calibrate.md").read_text(encoding="utf-8")
    metrics = page.split("| metric | unit |", 1)[1].split("\n\n", 1)[0]
    named = set(re.findall(r"`(\w+)`", metrics))
    assert named <= set(TIME_METRICS)
    assert set(TIME_METRICS) - named == {
        "runtime_ms", "throughput_as_printed", "msec_per_token_over_batch", "end_latency_ms", "ttft_ms_as_recorded"
    }  # fmt: skip
    table = page.split("| `op` | sizes |", 1)[1].split("\n\n", 1)[0]
    for line in table.splitlines()[2:]:
        for operator in re.findall(r"`([\w/]+)`", line.split("|")[1]):
            assert any(re.fullmatch(pattern, operator) for pattern in _BUILDERS), operator


def test_the_page_says_what_seven_rows_find(tmp_path: Path) -> None:
    """The sentence on what made the numbers, and that seven rows find it where five do not."""
    page = (ROOT / "docs" / "calibrate.md").read_text(encoding="utf-8")
    scales = {"step_s": 1e-3, "sequence_s": 1e-6, "request_s": 1e-3}
    sentence = " ".join(page.split("The numbers of this page were made with", 1)[1].split("moved by", 1)[0].split())
    true = {f: float(v) * scales.get(f, 1.0) for f, v in re.findall(r"`(\w+)` ([\d.]+)", sentence)}
    assert true.keys() == HIDDEN.keys()
    folder = ROOT / "examples" / "calibrate"
    shutil.copy(folder / "five_runs.csv", tmp_path)
    five = fitted(tmp_path / "five_runs.csv")
    seven = fit(
        held_against([str(folder / f"{name}_runs.csv") for name in ("five", "two_more")]), BASE, "x", "X", ["x"]
    )
    assert abs(np.log(five.found.values["memory_ratio"] / true["memory_ratio"])) > 0.15
    for field, value in true.items():
        assert abs(np.log(seven.found.values[field] / value)) <= 2.0 * seven.found.deviations[field], field
