"""Timed operators of the machine at hand: grids, operands, calls, records that other commands read, and floors."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_perf_model.errors import RequestError
from llm_perf_model.measuring.device import Processor
from llm_perf_model.measuring.exchanges import _answers
from llm_perf_model.measuring.facts import Facts, facts_of, rotated_bytes
from llm_perf_model.measuring.floors import held_to_floor
from llm_perf_model.measuring.grids import DTYPES, FAMILIES, GRID, Grid, Operator, operators, whole_numbers
from llm_perf_model.measuring.method import Method, Timing
from llm_perf_model.measuring.operator_run import OPERATOR_COLUMNS, Task, words
from llm_perf_model.measuring.operator_tables import report
from llm_perf_model.measuring.outcomes import Failure
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.validation.kernel_fit import family_of_row
from llm_perf_model.validation.operators import timed, work
from llm_perf_model.validation.records import Record, read
from llm_perf_model.validation.stacks import stacked
from llm_perf_model.validation.unmappable import UnmappableError

from .rows import operator, read_all, write
from .running import Run, runner

CPU = "ryzen-9-5950x"
QUICK = Method(warmup=1, repeats_least=2, repeats_most=3, budget_s=0.05)
SMALL = {
    "m": "1,4", "n": 64, "k": 32, "batch": 1, "length": 8, "heads": 4, "kv_heads": 2, "head_dim": 16, "channels": 4,
    "image": 6, "window": "1,3", "bytes": 4096,
}  # fmt: skip
FLAGS = [text for name, value in SMALL.items() for text in (f"--{name}", str(value))]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80)


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of a few pages, so that operands are quickly made."""
    from llm_perf_model.measuring import operator_run

    monkeypatch.setattr(operator_run, "facts_of", lambda _: Facts(1, 1e9, 2**16, None))


# Grids.


def test_a_grid_holds_all_combinations_once() -> None:
    grid = Grid.of({"m": "1:64:x8", "n": [16, 32], "k": 8})
    found = list(operators(("gemm",), ("fp32", "int8"), grid))
    assert len(found) == len(set(map(str, found))) == 3 * 2 * 1 * 2
    assert {each.sizes["m"] for each in found} == {1, 8, 64}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_types_that_only_products_know_are_asked_of_no_other(family: str, dtype: str) -> None:
    found = list(operators((family,), (dtype,), Grid.of({})))
    known = {"tf32": {"gemm", "convolution"}, "int8": {"gemm"}}.get(dtype, set(FAMILIES))
    assert bool(found) is (family in known)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=5, unique=True))
def test_counts_are_read_as_text_and_as_numbers(counts: list[int]) -> None:
    assert whole_numbers("m", ",".join(map(str, counts))) == whole_numbers("m", counts) == tuple(counts)


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ("0", "m: is '0'; give whole numbers from 1 on, as 1,8 or 1:4096:x4"),
        (1.5, "m: is 1.5; give whole numbers from 1 on, as 1,8 or 1:4096:x4"),
        (True, "m: is True; give whole numbers from 1 on, as 1,8 or 1:4096:x4"),
        ([], "m: is []; give whole numbers from 1 on, as 1,8 or 1:4096:x4"),
        ("many", "m: 'many' is no number; give numbers, or a range as lo:hi:step"),
        ("8:1", "m: is '8:1', an empty range; the upper end comes second"),
    ],
)
def test_counts_that_are_none(given_: Any, told: str) -> None:
    with pytest.raises(RequestError) as caught:
        whole_numbers("m", given_)
    assert str(caught.value) == told


def test_copies_are_of_so_many_bytes_in_every_type() -> None:
    grid = Grid.of({"bytes": 4096})
    for dtype in ("fp32", "bf16"):
        copy = next(operators(("copy",), (dtype,), grid))
        assert copy.sizes["n"] * DTYPES[dtype] == 4096


def test_words_of_a_flag() -> None:
    assert words("ops", "gemm, norm,gemm", ("gemm", "norm")) == ("gemm", "norm")
    assert words("ops", None, ("gemm", "norm"), ("norm",)) == ("norm",)
    with pytest.raises(RequestError, match=r"ops: is 'gem'; known: gemm, norm; did you mean gemm\?"):
        words("ops", "gem", ("gemm", "norm"))


# Facts.


class Plain(Processor):
    """The processor, without torch."""

    def __init__(self) -> None:
        self.target = "cpu"


def _processor(folder: Path, cores: int, threads: int) -> None:
    """The files of a processor whose cores have so many threads, a second-level cache each and one third level."""
    for number in range(cores * threads):
        core = number % cores
        sides = ",".join(str(core + cores * thread) for thread in range(threads))
        caches = {"index0": ("1", "32K", sides), "index2": ("2", "1M", sides), "index3": ("3", "8192K", "0-99")}
        topology = folder / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(sides + "\n")
        for index, (level, size, shared) in caches.items():
            place = folder / f"cpu{number}" / "cache" / index
            place.mkdir(parents=True)
            for name, text in {"level": level, "size": size, "shared_cpu_list": shared}.items():
                (place / name).write_text(text + "\n")


def test_facts_of_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of a core count once; a shared cache counts once; the clock is the highest that is told."""
    monkeypatch.setattr("llm_perf_model.measuring.facts.usable_cores", lambda: 64)
    _processor(tmp_path, cores=2, threads=2)
    told = tmp_path / "cpuinfo"
    told.write_text("model name\t: some\ncpu MHz\t\t: 2600.5\n")
    assert facts_of(Plain(), tmp_path, told) == Facts(2, 2600.5e6, 8 * 2**20, None)
    clock = tmp_path / "cpu0" / "cpufreq"
    clock.mkdir()
    (clock / "cpuinfo_max_freq").write_text("3400000\n")
    assert facts_of(Plain(), tmp_path, told).boost_hz == 3.4e9


def test_facts_that_nobody_tells_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_perf_model.measuring.facts.usable_cores", lambda: 3)
    assert facts_of(Plain(), tmp_path, tmp_path / "none") == Facts(3, None, None, None)


def test_a_cache_larger_than_a_part_of_memory_is_that_of_a_host() -> None:
    device = Plain()
    assert rotated_bytes(device, Facts(1, None, 2**20, None)) == min(2**20, device.total_bytes // 8)
    assert rotated_bytes(device, Facts(1, None, 2**60, None)) == device.total_bytes // 8


# Records of operators.


def _row(**changes: Any) -> dict[str, Any]:
    row = {
        "source": "a test", "engine": "torch", "device": CPU, "n_devices": 1, "op": "gemm", "dtype": "fp32", "m": 64,
        "n": 64, "k": 64, "batch": "", "metric": "time_ms", "value": 1.0, "unit": "ms", "outcome": "ok",
    }  # fmt: skip
    return row | changes


def _report(path: Path, *rows: dict[str, Any], gpu: str | None = CPU) -> Any:
    return report(str(write(path / "ops.csv", rows, OPERATOR_COLUMNS)), gpu)


@pytest.mark.parametrize(
    ("name", "columns", "flops", "moved_bytes"),
    [
        ("gemm", {"m": 2, "n": 3, "k": 5}, 60, 4 * (2 * 5 + 3 * 5 + 2 * 3)),
        ("elementwise/copy", {"m": 1, "n": 10}, 50, 80),
        ("elementwise/triad", {"m": 1, "n": 10}, 50, 120),
        ("elementwise/add", {"m": 2, "n": 10}, 100, 240),
        ("elementwise/rms_norm", {"m": 2, "n": 10}, 100, 160),
    ],
)
def test_work_of_an_operator(name: str, columns: dict[str, int], flops: float, moved_bytes: float) -> None:
    cost = work(operator(operator=name, w_dtype="fp32", **columns))
    assert (cost.flops, cost.hbm_bytes) == (flops, moved_bytes)


def test_work_of_a_convolution_of_a_grid() -> None:
    """Filters keep the size of the image: 4 images of 6 x 6, 3 x 3 x 4 multiplications for each of 4 channels."""
    (each,) = operators(("convolution",), ("fp32",), Grid.of({**SMALL, "window": 3, "batch": 4}))
    record = operator(operator=each.name, shape=each.shape, w_dtype="fp32")
    assert work(record).flops == 2 * 4 * 36 * 9 * 4 * 4


def test_a_record_names_its_device_by_a_path(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(load(GpuSpec, CPU).model_copy(update={"name": "mine"}).model_dump_json(exclude_none=True))
    row = timed(operator(w_dtype="fp32", device=str(file)))
    assert row.gpu == str(file)
    assert np.all(stacked([row])[0].time_s() > 0.0)


def test_processes_of_a_processor_have_no_link() -> None:
    exchange = operator(operator="all_reduce", w_dtype="fp32", device=CPU, bytes=4096, n_devices=2)
    with pytest.raises(UnmappableError, match="processes of one processor exchange through its memory"):
        timed(replace(exchange, n_devices=2))


def test_a_call_of_the_host_is_no_operator() -> None:
    with pytest.raises(UnmappableError, match="host time of a call is a figure of an engine"):
        timed(operator(operator="dispatch", w_dtype="fp32", device=CPU, m=1, n=1))


def test_cold_operands_come_from_memory() -> None:
    """However large the cache is: as slow as with none."""
    record = operator(operator="elementwise/copy", w_dtype="fp32", device=CPU, m=1, n=10**5)
    (cold,) = stacked([timed(replace(record, extra={"cache": "cold"}))])
    (warm,) = stacked([timed(record)])
    assert np.all(cold.time_s() > 2.0 * warm.time_s())
    assert len(stacked([*cold.rows, *warm.rows])) == 2


def _rows_of_a_faster_processor(path: Path, factor: float) -> Path:
    """Products and convolutions of a device that computes so many times as fast as its coefficients say."""
    grid = Grid.of({**SMALL, "m": "64,512,1024", "n": "256,1024", "k": 512, "channels": "64,128", "image": "14,28"})
    rows = []
    for each in operators(("gemm", "convolution"), ("fp32",), grid):
        sizes = {name: float(size) for name, size in each.sizes.items()}
        row = timed(operator(operator=each.name, shape=each.shape, w_dtype="fp32", device=CPU, **sizes))
        (stack,) = stacked([row])
        kernels = load(KernelSpec, "zen3")
        faster = {
            unit: getattr(kernels, unit).model_copy(
                update={"compute_efficiency": factor * getattr(kernels, unit).compute_efficiency}
            )
            for unit in ("vector_gemm", "vector_convolution")
        }
        seconds = np.max(stack.time_s(kernels.model_copy(update=faster)))
        columns = {"op": each.name, "shape": each.shape, "k": "", "m": "", "n": "", **each.sizes}
        rows.append(_row(**columns, value=1e3 * float(seconds)))
    return write(path / "ops.csv", rows, OPERATOR_COLUMNS)


def test_operators_of_a_processor_fix_its_coefficients(run: Run, tmp_path: Path) -> None:
    """Also where its generation has no kernel of Winograd's form to fit."""
    pytest.importorskip("scipy")
    path, engine = _rows_of_a_faster_processor(tmp_path, 1.5), tmp_path / "mine.json"
    ran = run("calibrate", "--records", str(path), "--engine", "pytorch-cpu", "--output", str(engine))
    assert (ran.code, ran.err) == (0, "")
    found, before = load(EngineSpec, str(engine)).kernels, load(KernelSpec, "zen3")
    assert found is not None
    assert found.vector_gemm.compute_efficiency == pytest.approx(1.5 * before.vector_gemm.compute_efficiency, rel=0.05)
    assert found.vector_convolution.compute_efficiency == pytest.approx(
        1.5 * before.vector_convolution.compute_efficiency, rel=0.05
    )


def test_products_of_16_bits_on_cores_are_those_of_vector_units(tmp_path: Path) -> None:
    cpu = load(GpuSpec, CPU)
    peaks = {**cpu.peak_flops_per_s, "vector_bf16": 5e12}
    per_clock = {**cpu.flops_per_clock_per_sm, "vector_bf16": 5e12 / (cpu.sms * cpu.boost_hz)}
    wide = cpu.model_copy(update={"name": "mine", "peak_flops_per_s": peaks, "flops_per_clock_per_sm": per_clock})
    file = tmp_path / "mine.json"
    file.write_text(wide.model_dump_json(exclude_none=True))
    on_cores, on_card = (timed(operator(w_dtype="bf16", device=device)) for device in (str(file), "a100-sxm-40gb"))
    assert (family_of_row(on_cores), family_of_row(on_card)) == ("vector_gemm", "gemm")


# Floors.


def _held(**changes: Any) -> Any:
    (found,) = held_to_floor([operator(**{"w_dtype": "fp32", "device": "whatever", **changes})], CPU)
    return found


def test_the_floor_of_a_product_is_the_longer_of_arithmetic_and_memory() -> None:
    gpu = load(GpuSpec, CPU)
    deep = _held(m=4096, n=4096, k=4096)
    assert deep.floor_s == pytest.approx(2 * 4096**3 / gpu.peak_flops_per_s["vector_fp32"], rel=1e-12)
    flat = _held(m=1, n=4096, k=4096)
    assert flat.floor_s == pytest.approx(4 * (4096**2 + 2 * 4096) / gpu.hbm_bytes_per_s, rel=1e-12)


def test_warm_operands_owe_memory_nothing() -> None:
    warm = _held(m=1, n=4096, k=4096, extra={"cache": "warm"})
    gpu = load(GpuSpec, CPU)
    assert warm.floor_s == pytest.approx(2 * 4096**2 / gpu.peak_flops_per_s["vector_fp32"], rel=1e-12)


def test_a_convolution_in_another_form_owes_memory_alone() -> None:
    sizes = {**SMALL, "channels": 256, "image": 56}
    one, three = operators(("convolution",), ("fp32",), Grid.of(sizes))
    cold = [_held(operator="convolution", shape=each.shape) for each in (one, three)]
    gpu = load(GpuSpec, CPU)
    assert cold[1].floor_s == pytest.approx(float(work(cold[1].record).hbm_bytes) / gpu.hbm_bytes_per_s, rel=1e-12)
    assert cold[0].floor_s >= float(work(cold[0].record).flops) / gpu.peak_flops_per_s["vector_fp32"] * (1 - 1e-12)


@given(st.floats(0.5, 2.0))
def test_what_is_faster_than_the_floor_is_told(share: float) -> None:
    floor_s = _held(m=64, n=64, k=64).floor_s
    held = _held(m=64, n=64, k=64, value=share * floor_s)
    assert held.too_fast is (1.0 / share > 1.05)
    assert held.floor_ratio == pytest.approx(1.0 / share)


def test_exchanges_and_calls_have_no_floor() -> None:
    rows = [operator(operator="dispatch", w_dtype="fp32", m=1, n=1), operator(operator="nosuch", w_dtype="fp32")]
    assert held_to_floor(rows, CPU) == ()


def test_a_report_lists_what_is_too_fast_and_what_failed(tmp_path: Path) -> None:
    quick = _row(m=4096, n=4096, k=4096, value=1e-3)
    failed = _row(op="elementwise/add", k="", value="", outcome="oom", note="it needs 9 GiB")
    found = _report(tmp_path, _row(), quick, failed)
    text = found.text(80)
    assert found.title == "2 operators timed, 1 without a time"
    assert "1 of 2 operators are faster than ryzen-9-5950x allows" in text
    assert ("gemm", "fp32", "m=4096 n=4096 k=4096", "1.00 us", "54.8 ms") in found.tables[1].rows
    assert ("add", "fp32", "m=64 n=64", "oom", "it needs 9 GiB") in found.tables[2].rows
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80
    assert (found.data["too_fast"], found.data["failed"], len(found.records)) == (1, 1, 2)
    assert found.records[0]["flops_per_s"] == pytest.approx(2 * 64**3 / 1e-3)


def test_a_report_without_a_device_file_says_how_to_get_one(tmp_path: Path) -> None:
    found = _report(tmp_path, _row(), gpu=None)
    assert "not held against a device file: the catalogue has none of this name" in found.notes[0]
    assert found.tables[0].rows[0][-1] == "-"


# Answers of other processes.


def test_ranks_that_fall_silent_leave_failures() -> None:
    line = json.dumps({"median_s": 1.0, "lower_quartile_s": 0.9, "upper_quartile_s": 1.1, "repeats": 5})
    first: Any = SimpleNamespace(stdout=[line + "\n"])
    told = list(_answers(first, 3))
    assert told == [Timing(1.0, 0.9, 1.1, 5)] + 2 * [
        Failure("runtime_error", "the processes ended before the exchange")
    ]


def test_a_rank_tells_why_it_failed() -> None:
    first: Any = SimpleNamespace(stdout=[json.dumps({"outcome": "oom", "reason": "out of memory"})])
    assert list(_answers(first, 2)) == 2 * [Failure("oom", "out of memory")]


# With torch: operands.


@given(
    st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple), min_size=1, max_size=3),
    st.integers(0, 2**14),
)
def test_operands_come_back_when_the_cache_has_forgotten_them(shapes: Any, cache_bytes: int) -> None:
    torch = pytest.importorskip("torch")
    from llm_perf_model.measuring.buffers import MOST_SETS, Buffers

    buffers = Buffers(torch.device("cpu"), torch.float32, cache_bytes)
    sets = buffers.sets(shapes)
    places = [tensor.data_ptr() for each in sets for tensor in each]
    assert len(places) == len(set(places))
    assert [tuple(tensor.shape) for tensor in sets[0]] == list(shapes)
    padded = 4 * sum(-(-tensor.numel() // 128) * 128 for tensor in sets[0])
    if cache_bytes:
        assert len(sets) == MOST_SETS or (len(sets) + 1) * padded > 2 * cache_bytes
    else:
        assert len(sets) == 1


def test_another_operator_goes_on_where_the_last_one_stopped(torch: Any) -> None:
    from llm_perf_model.measuring.buffers import Buffers

    buffers = Buffers(torch.device("cpu"), torch.bfloat16, 2**14)
    first = buffers.sets([(5000,)])
    (second,) = buffers.sets([(128,)])[0]
    assert len(first) == 3
    assert second.data_ptr() == first[0][0].data_ptr() + 3 * 5120 * 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_operands_are_no_zeros(torch: Any, dtype: str) -> None:
    from llm_perf_model.measuring.buffers import Buffers

    values = Buffers(torch.device("cpu"), getattr(torch, dtype), 0).sets([(1000,)])[0][0].float()
    assert float((values != 0.0).float().mean()) > 0.9
    assert abs(float(values.mean())) < 0.1 * float(values.abs().max())
    assert len(values.unique()) >= 16


# With torch: calls.


EVERY = list(operators(tuple(FAMILIES), ("fp32", "bf16"), Grid.of({**SMALL, "ranks": 1})))


@pytest.mark.parametrize("each", EVERY, ids=lambda each: f"{each.name}-{each.dtype}-{each.sizes}-{each.shape}")
@pytest.mark.usefixtures("torch")
def test_every_operator_of_the_grid_runs(each: Operator) -> None:
    from llm_perf_model.measuring.operators import Bench, Timed

    found = Bench(Processor(), QUICK, 2**14).time(each)
    assert isinstance(found, Timed), found
    assert 0.0 < found.timing.lower_quartile_s <= found.timing.median_s <= found.timing.upper_quartile_s < 1.0
    assert not found.recorded


@pytest.mark.usefixtures("torch")
def test_a_product_of_8_bits_runs() -> None:
    from llm_perf_model.measuring.operators import Bench, Timed

    found = Bench(Processor(), QUICK, 2**14).time(Operator("gemm", "int8", {"m": 32, "n": 32, "k": 32}))
    assert isinstance(found, Timed), found


@pytest.mark.usefixtures("torch")
def test_a_time_is_that_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that shows a microsecond a call shows so many calls at once that it can be read."""
    from llm_perf_model.measuring import operators as calls

    made: list[Any] = []

    class Counting(Processor):
        def timed(self, call: Callable[[], object]) -> float:
            before = len(made)
            call()
            return 1e-6 * (len(made) - before)

    def run(x: Any) -> Any:
        made.append(x)
        return x

    monkeypatch.setattr(calls, "kernel_of", lambda _: calls.Kernel(((4,),), run))
    found = calls.Bench(Counting(), QUICK, 2**14).time(Operator("any", "fp32", {}))
    assert isinstance(found, calls.Timed)
    assert found.calls in {200, 201}
    assert found.timing.median_s == found.timing.upper_quartile_s == pytest.approx(1e-6)
    assert len({x.data_ptr() for x in made[-200:]}) > 1, "operands change from call to call"


def _result(torch: Any, each: Operator) -> tuple[Any, Any]:
    from llm_perf_model.measuring.operators import kernel_of

    kernel = kernel_of(each)
    operands = [torch.randn(shape, dtype=torch.float32) for shape in kernel.shapes]
    copies = [tensor.clone() for tensor in operands]
    return kernel.run(*operands), copies


def test_calls_compute_what_their_names_say(torch: Any) -> None:
    y, (x, w, _) = _result(torch, Operator("gemm", "fp32", {"m": 3, "n": 5, "k": 7}))
    assert torch.allclose(y, x @ w.T, atol=1e-5)
    y, (x, z, _) = _result(torch, Operator("elementwise/triad", "fp32", {"m": 2, "n": 9}))
    assert torch.allclose(y, x + 3 * z)
    y, (x, _) = _result(torch, Operator("elementwise/copy", "fp32", {"m": 2, "n": 9}))
    assert torch.equal(y, x)
    sizes = {"batch": 2, "q_len": 1, "kv_len": 6, "heads": 4, "kv_heads": 2, "head_dim": 8}
    y, (q, k, v) = _result(torch, Operator("generation_attention", "fp32", sizes))
    keys, values = (each.repeat_interleave(2, dim=1) for each in (k, v))
    assert torch.allclose(y, torch.softmax(q @ keys.mT / 8**0.5, -1) @ values, atol=1e-5)
    y, (q, k, v) = _result(torch, Operator("context_attention", "fp32", {**sizes, "q_len": 6, "kv_heads": 4}))
    assert torch.allclose(y[:, :, 0], v[:, :, 0], atol=1e-5), "the first token sees itself alone"


@pytest.mark.usefixtures("torch")
def test_an_operator_that_cannot_run_is_an_outcome() -> None:
    from llm_perf_model.measuring.operators import Bench

    found = Bench(Processor(), QUICK, 0).time(Operator("gemm", "fp32", {"m": 2**24, "n": 2**24, "k": 1}))
    assert isinstance(found, Failure)
    assert found.outcome == "oom"


class Card(Processor):
    """A card that runs on the processor: what it does in a call is recorded and replayed."""

    @property
    def accelerates(self) -> bool:
        return True


class Module:
    """What torch keeps for such cards."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.captured, self.replays = fails, False, 0

    def Stream(self) -> Any:  # noqa: N802
        return SimpleNamespace(wait_stream=lambda _: None)

    current_stream = Stream

    @contextmanager
    def stream(self, _: Any) -> Iterator[None]:
        yield

    @contextmanager
    def graph(self, _: Any) -> Iterator[None]:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.captured = True
        yield

    def CUDAGraph(self) -> Any:  # noqa: N802
        def replay() -> None:
            self.replays += 1

        return SimpleNamespace(replay=replay)


@pytest.mark.parametrize("fails", [False, True])
def test_a_card_replays_a_graph_of_calls(torch: Any, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """Or runs them one by one where it cannot be recorded."""
    from llm_perf_model.measuring.operators import Bench, Timed

    module = Module(fails)
    monkeypatch.setattr(torch, "get_device_module", lambda _: module)
    found = Bench(Card(), QUICK, 2**14).time(Operator("elementwise/add", "fp32", {"m": 1, "n": 64}))
    assert isinstance(found, Timed)
    assert (found.recorded, module.captured, module.replays > 0) == (not fails, not fails, not fails)


def test_dispatch_is_never_replayed(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_perf_model.measuring.operators import Bench, Timed

    waits: list[None] = []
    card = Card()
    monkeypatch.setattr(card, "synchronize", lambda: waits.append(None))
    monkeypatch.setattr(torch, "get_device_module", lambda _: Module())
    found = Bench(card, QUICK, 2**14).time(Operator("dispatch", "fp32", {"m": 1, "n": 1}))
    assert isinstance(found, Timed) and not found.recorded
    assert len(waits) >= found.timing.repeats, "the queue is empty before each reading of the clock"


def test_results_keep_memory_of_their_own(torch: Any) -> None:
    """As many as the cache holds twice: none is written where the last one was."""
    from llm_perf_model.measuring.operators import Bench

    bench = Bench(Processor(), QUICK, 2**14)
    assert bench._kept(torch.zeros(256), 10**6).maxlen == 2 * 2**14 // 1024
    assert bench._kept(torch.zeros(256), 3).maxlen == 3
    assert Bench(Processor(), QUICK, 2**14, warm=True)._kept(torch.zeros(256), 1).maxlen == 1


# With torch: exchanges.


@pytest.mark.usefixtures("torch")
def test_two_processes_exchange() -> None:
    from llm_perf_model.measuring.exchanges import exchange_times

    sizes = (4096, 2**25)
    asked = [Operator("all_reduce", "fp32", {"bytes": each}, ranks=2) for each in sizes]
    small, large = exchange_times(asked, Processor(), QUICK)
    assert isinstance(small, Timing) and isinstance(large, Timing), (small, large)
    assert small.lower_quartile_s < large.upper_quartile_s


# With torch: the command.


def _measure(path: Path, *more: str, ops: str = "gemm,norm,copy,launch,dispatch") -> tuple[str, ...]:
    return ("measure_ops", "--ops", ops, "--dtypes", "fp32", "--budget_s", "0.01", "--output", str(path), *FLAGS, *more)


@pytest.mark.usefixtures("small_cache")
def test_records_that_other_commands_read(torch: Any, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    ran = run(*_measure(path, "--gpu", CPU))
    assert (ran.code, ran.err) == (0, "")
    records = read_all(path)
    assert all(isinstance(record, Record) for record in records)
    assert len(records) == 2 + 4 + 2 + 1 + 1
    assert {record.device for record in records} == {CPU}
    extra = records[0].extra
    assert {"cache", "repeats", "lower_quartile_s", "environment"} <= extra.keys()
    assert extra["environment"]["torch"] == torch.__version__
    checked = run("validate", "--records", str(path), "--format", "json")
    assert checked.code == 0
    assert "9 scored, 1 without an estimate, 0 unreadable" in run("validate", "--records", str(path)).out


@pytest.mark.usefixtures("torch", "small_cache")
def test_a_run_goes_on_where_it_was(run: Run, tmp_path: Path) -> None:
    """A torn last line is measured again, others are not."""
    path = tmp_path / "ops.csv"
    assert run(*_measure(path)).code == 0
    whole = path.read_text()
    path.write_text(whole[:-20])
    assert run(*_measure(path)).code == 0
    again = path.read_text()
    kept = whole[: whole[:-20].rfind("\n") + 1]
    assert again.startswith(kept) and again != whole
    assert again.count("\n") == whole.count("\n")
    assert run(*_measure(path)).code == 0
    assert path.read_text() == again


@pytest.mark.usefixtures("torch", "small_cache")
def test_warm_and_cold_operands_are_two_records(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    assert run(*_measure(path, ops="copy")).code == run(*_measure(path, "--warm", ops="copy")).code == 0
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    caches = [json.loads(row["extra"])["cache"] for row in rows]
    assert caches[2:] == ["warm", "warm"]
    assert len({row["how"] for row in rows}) == 2


@pytest.mark.usefixtures("torch", "small_cache")
def test_a_complete_file_is_held_against_another_device(run: Run, tmp_path: Path) -> None:
    """Without measuring again."""
    path = tmp_path / "ops.csv"
    assert "not held against a device file" in run(*_measure(path, ops="copy")).out
    whole = path.read_text()
    assert "of 2 operators are faster than ryzen-9-5950x allows" in run(*_measure(path, "--gpu", CPU, ops="copy")).out
    assert path.read_text() == whole


@pytest.mark.usefixtures("torch", "small_cache")
def test_an_interrupted_run_keeps_what_it_has(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from llm_perf_model.measuring import operators as calls

    time, seen = calls.Bench.time, []

    def interrupted(bench: Any, each: Operator) -> Any:
        seen.append(each)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return time(bench, each)

    monkeypatch.setattr(calls.Bench, "time", interrupted)
    path = tmp_path / "ops.csv"
    ran = run(*_measure(path, ops="norm"))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"error: interrupted: {path} is whole, and the same command goes on\n"
    assert len(list(read(path))) == 2


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--ops", "gem"), "ops: is 'gem'; known: gemm, attention"),
        (("--dtypes", "fp23"), "did you mean fp32?"),
        (("--dtypes", "tf32"), "dtypes: the processor has no tf32; give fp32, bf16, fp16 or int8"),
        (("--m", "0"), "m: is 0; give whole numbers from 1 on"),
        (("--budget_s", "0"), "budget_s: is 0; must be a number above 0"),
        (("--budget_s", "soon"), "budget_s: is 'soon'; must be a number above 0"),
        (("--warm", "perhaps"), "warm: is 'perhaps'; give it alone, or leave it out"),
        (("--gpu", "nosuch"), "unknown GPU 'nosuch'"),
        (("--device", "nosuch"), "device: 'nosuch' is none"),
        (("--output", "/nosuch/ops.csv"), "output /nosuch/ops.csv: cannot be written: No such file or directory"),
        (("--ranks", "4096"), "ranks: 4096 need as many cores, and this machine has"),
        (("--format", "xml"), "format: is 'xml'; must be text, json, csv or markdown"),
    ],
)
@pytest.mark.usefixtures("torch")
def test_what_cannot_be_measured(run: Run, tmp_path: Path, flags: tuple[str, ...], told: str) -> None:
    output = () if "--output" in flags else ("--output", str(tmp_path / "ops.csv"))
    ran = run("measure_ops", "--device", "cpu", *output, *flags)
    assert (ran.code, ran.out) == (1, "")
    assert told in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "ops.csv").exists()


@pytest.mark.usefixtures("torch")
def test_a_file_of_something_else_is_left_alone(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    path.write_text("a,b\n1,2\n")
    ran = run(*_measure(path))
    assert ran.code == 1
    assert "is no file of measured records; give a new file" in ran.err
    assert path.read_text() == "a,b\n1,2\n"


@pytest.mark.usefixtures("torch")
def test_unknown_sizes_are_refused(tmp_path: Path) -> None:
    from llm_perf_model.measuring.operator_run import measure_ops

    with pytest.raises(RequestError, match=f"depth: is no size; known: {', '.join(GRID)}"):
        measure_ops(str(tmp_path / "ops.csv"), depth=3)


@pytest.mark.usefixtures("torch")
def test_exchanges_of_more_ranks_than_cores_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_perf_model.measuring import operator_run

    monkeypatch.setattr(operator_run, "usable_cores", lambda: 1)
    task = Task.of("all_reduce,launch", "fp32", "cpu", None, False, 1.0, {})
    assert [each.name for each in task.operators] == ["elementwise/launch"]
    assert task.notes == ("ranks: 2 need as many cores, and this machine has 1: all_reduce is left out",)


def test_without_torch_the_command_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    ran = run("measure_ops", "--output", str(tmp_path / "ops.csv"))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: measuring needs the package torch: pip install 'llm-perf-model[measure]'\n"
