"""Sweeps computed elsewhere: the same numbers, whatever happens to the workers; and folders that are completed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_perf_model as lpm
from llm_perf_model.sweeping import question
from llm_perf_model.sweeping.executors import Workers, each_result
from llm_perf_model.sweeping.question import question_of
from tests.running import Run, runner

GRID: dict[str, Any] = {
    "model": ["test-13b", "llama-3.1-8b"], "gpu": ["a100-sxm-80gb", "h100-sxm-80gb"], "engine": "vllm",
    "tp": [1, 2, 3], "batch_size": "1:64:x2", "input_len": [128, 1024], "prefix_len": [0, 200], "output_len": 64,
}  # fmt: skip
"""A sweep of 24 cases, some of which cannot run, and some of whose cells cannot."""

MANY = ["--model", "llama-3.1-8b", "--engine", "vllm", "--batch_size", "1:2000", "--input_len", "1:2000"]
"""4 million configurations, 31 jobs, of one case."""


def assert_same(one: lpm.Sweep, other: lpm.Sweep) -> None:
    """The same to the last bit."""
    assert one.dims == other.dims
    assert one.skipped == other.skipped
    np.testing.assert_array_equal(one.done, other.done)
    for name, values in one.metrics.items():
        np.testing.assert_array_equal(values.view(np.uint8), other.metrics[name].view(np.uint8))


# Executors.


class Backwards(Executor):
    """Computes at once, and hands out its results last job first."""

    def __init__(self) -> None:
        self.open = True

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(call(*given, **named))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.open = not (wait or cancel_futures)


@pytest.mark.parametrize(
    "executor",
    ["serial", "processes:2", Backwards(), ThreadPoolExecutor(2)],
    ids=["serial", "processes", "backwards", "threads"],
)
def test_every_executor_computes_the_same(executor: Any) -> None:
    assert_same(lpm.sweep(**GRID, executor=executor), lpm.sweep(**GRID))


def test_an_executor_that_is_given_stays_open() -> None:
    executor = Backwards()
    lpm.sweep("test-13b", tp=[1, 2], executor=executor)
    assert executor.open


def test_a_search_finds_the_same_as_the_sweep() -> None:
    found = lpm.sweep(**GRID)
    limits = ["tpot_s <= 0.03", "ttft_s <= 0.5"]
    for executor in (None, Backwards()):
        assert (
            lpm.search(**GRID, best="usd_per_million_output_tokens", constraints=limits, executor=executor).row(0)
            == found.best("usd_per_million_output_tokens", limits)
        )  # fmt: skip
        front = lpm.search(**GRID, pareto=["throughput_tokens_per_s", "tpot_s"], executor=executor)
        assert front.rows() == found.pareto("throughput_tokens_per_s", "tpot_s").rows()


def test_ties_have_one_answer_however_the_axes_are_ordered() -> None:
    """All of these fit, so that all are equally good: the first one counted over all axes is the answer."""
    for fields in ({"batch_size": [1, 2], "tp": [1, 2]}, {"tp": [2, 1], "batch_size": [2, 1]}):
        found = lpm.sweep("test-13b", **fields)
        assert np.all(found["fits"])
        for executor in (None, Backwards()):
            searched = lpm.search("test-13b", **fields, best="fits", executor=executor)
            assert searched.row(0) == found.best("fits") == found.cells().row(0)


def test_a_search_says_what_comes_nearest() -> None:
    with pytest.raises(lpm.InfeasibleError) as of_sweep:
        lpm.sweep(**GRID).best("tpot_s", "ttft_s <= 1e-9")
    with pytest.raises(lpm.InfeasibleError) as of_search:
        lpm.search(**GRID, best="tpot_s", constraints="ttft_s <= 1e-9")
    assert str(of_search.value) == str(of_sweep.value)
    assert str(of_search.value).startswith("no configuration meets ttft_s <= 1e-9: the lowest is 0.0")


@pytest.mark.parametrize("given", [{}, {"best": "tpot_s", "pareto": ["tpot_s", "ttft_s"]}, {"pareto": ["tpot_s"]}])
def test_a_search_is_for_one_thing(given: dict[str, Any]) -> None:
    with pytest.raises(lpm.RequestError, match=r"^search: give one metric as best, or two as pareto$"):
        lpm.search("test-13b", **given)


# Jobs.


@pytest.mark.parametrize("cells", [1, 7, 100, 10**6])
def test_jobs_hold_every_cell_once(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "JOB_CELLS", (cells, cells))
    asked = question_of(GRID, None, None)
    seen = np.zeros(asked.shape, np.int64)
    for number, job in enumerate(asked.jobs()):
        assert job.number == number
        for block in job.blocks:
            seen[block] += 1
        assert job.cells == sum(seen[block].size for block in job.blocks)
    assert np.all(seen == 1)


def test_pieces_of_a_case_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lpm.sweep(**GRID)
    monkeypatch.setattr(question, "JOB_CELLS", (5, 5))
    pieces = lpm.sweep(**GRID)
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(values, pieces.metrics[name])
    assert sum(each.cells for each in pieces.skipped) == sum(each.cells for each in whole.skipped)
    best = ("usd_per_million_output_tokens", "tpot_s <= 0.03")
    assert lpm.search(**GRID, best=best[0], constraints=best[1]).row(0) == whole.best(*best)


# Workers that end.


class Dying(Backwards):
    """An executor whose workers end at some jobs."""

    def __init__(self, deaths: int) -> None:
        super().__init__()
        self.deaths = deaths

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        self.deaths -= 1
        if self.deaths < 0:
            return super().submit(call, *given, **named)
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("a process ended"))
        return future


def test_jobs_of_workers_that_end_are_computed_once_more() -> None:
    assert sorted(each_result(iter(range(9)), str, Workers(Dying(2), 2))) == [(n, str(n)) for n in range(9)]


def test_a_job_that_ends_its_workers_again_and_again_is_given_up() -> None:
    with pytest.raises(lpm.RequestError, match=r"^executor: 3 workers ended on the same configurations"):
        list(each_result(iter(range(1)), str, Workers(Dying(99), 2)))


class Cancelling(Backwards):
    """A cluster whose scheduler ends."""

    def submit(self, _call: Callable[..., Any], /, *_given: Any, **_named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_a_cluster_that_ends_is_told_in_one_line() -> None:
    with pytest.raises(lpm.RequestError, match=r"^executor: gave up its jobs, as a cluster does whose scheduler ends"):
        lpm.sweep("test-13b", tp=[1, 2], executor=Cancelling())


def test_an_executor_that_is_shut_down_is_refused() -> None:
    closed = ThreadPoolExecutor(1)
    closed.shutdown()
    with pytest.raises(lpm.RequestError, match=r"^executor: takes no jobs: cannot schedule new futures after shutdown"):
        lpm.sweep("test-13b", tp=[1, 2], executor=closed)


def _children(pid: int) -> list[int]:
    """Worker processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and "spawn_main" in (path / "cmdline").read_text():
                found.append(int(path.name))
    return found


COMMAND = """
import signal, sys
from llm_perf_model.cli import main
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background begin without one
    sys.exit(main(sys.argv[1:]))
"""


def _started(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, "sweep", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _until(true: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
    return found


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def _columns(folder: Path) -> dict[str, Any]:
    return lpm.read_sweep(str(folder)).cells().columns


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep that nothing disturbed."""
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("whole") / "sweep"
    assert _started(*MANY, "--output", str(folder)).wait() == 0
    return folder


def _assert_same_folder(folder: Path, other: Path) -> None:
    columns, expected = _columns(folder), _columns(other)
    assert columns.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(columns[name], values)


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_a_killed_process_loses_nothing_and_doubles_nothing(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    running = _started(*MANY, "--executor", "processes:2", "--output", str(folder))
    _until(lambda: _parts(folder))
    os.kill(_until(lambda: _children(running.pid))[0], signal.SIGKILL)
    out, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (0, "")
    assert out.split()[:7] == ["written:", str(folder), "(4,000,000", "configurations", "in", "31", "parts)"]
    _assert_same_folder(folder, written)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_goes_on_where_it_was(stop: signal.Signals, written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    running = _started(*MANY, "--output", str(folder))
    _until(lambda: len(_parts(folder)) > 2)
    running.send_signal(stop)
    _, err = running.communicate(timeout=60)
    if stop is signal.SIGINT:
        assert running.returncode == 130
        assert err == f"error: interrupted: the parts that {folder} holds are whole; the same command goes on\n"
    before = {path: path.stat().st_mtime_ns for path in _parts(folder)}
    assert 2 < len(before) < 31
    assert lpm.read_sweep(str(folder)).missing == tuple(range(len(before), 31))
    assert _started(*MANY, "--output", str(folder), "--executor", "processes:2").wait() == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    _assert_same_folder(folder, written)


# Folders.


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 120, "sweep")


def test_a_folder_holds_the_cells_of_the_sweep(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    fields = {**GRID, "power_limit_w": [None, 300.0], "metrics": ["tpot_s", "decode_bound"]}
    found, folder = lpm.sweep(**fields), lpm.write_sweep(str(tmp_path / "f"), **fields)
    assert (folder.size, folder.missing, folder.skipped) == (found.size, (), found.skipped)
    rows = folder.cells().rows()
    assert sorted(map(str, rows)) == sorted(map(str, found.cells().rows()))
    assert folder.best("tpot_s", "fits") == lpm.search(**fields, best="tpot_s", constraints="fits").row(0)
    assert folder.pareto("tpot_s", "tpot_s")["tpot_s"].tolist() == [found.best("tpot_s")["tpot_s"]]
    assert str(folder) == f"{tmp_path / 'f'}: 672 configurations, {folder.parts} of {folder.parts} parts are written"


def test_other_tools_read_a_folder_as_one_table(tmp_path: Path) -> None:
    pandas, parquet = pytest.importorskip("pandas"), pytest.importorskip("pyarrow.parquet")
    fields = {**GRID, "power_limit_w": [None, 300.0]}
    folder = lpm.write_sweep(str(tmp_path / "f"), **fields)
    table = parquet.read_table(tmp_path / "f")
    assert table.num_rows == np.count_nonzero(lpm.sweep(**fields).done)
    frame = pandas.read_parquet(tmp_path / "f")
    assert sorted(frame["tpot_s"]) == sorted(folder.to_pandas()["tpot_s"])


def test_a_folder_of_another_sweep_is_refused_with_what_differs(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    place = str(tmp_path / "f")
    lpm.write_sweep(place, "test-13b", batch_size=[1, 2], gpu="a100-sxm-80gb")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "f").iterdir()}
    with pytest.raises(lpm.RequestError, match=r"holds another sweep \(batch_size, gpu differ\); give a new folder"):
        lpm.write_sweep(place, "test-13b", batch_size=[1, 3], gpu="h100-sxm-80gb")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "f").iterdir()} == before


def test_what_is_no_folder_of_a_sweep_is_refused(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("x")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "_sweep.json").write_text('{"fields": ')
    for place, words in (
        ("file", "is a file; give a folder, or a name that ends in .csv, .json or .parquet"),
        ("full", "holds other files; give a new folder"),
        ("broken", "its _sweep.json cannot be read; give a new folder"),
        ("nosuch/deep", "cannot be written: No such file or directory"),
    ):
        ran = run("test-13b", "--tp", "1,2", "--output", str(tmp_path / place))
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"error: output {tmp_path / place}") and words in ran.err
    with pytest.raises(lpm.RequestError, match=r"holds no sweep \(no _sweep.json that can be read\)"):
        lpm.read_sweep(str(tmp_path / "full"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--gpu", "a100-sxm-80gb,h100-sxm-81gb"), "unknown GPU 'h100-sxm-81gb': did you mean h100-sxm-80gb"),
        (("--batch_size", "1,-2"), "batch_size: "),
        (("--metrics", "tpot"), "tpot is not a known metric; did you mean tpot_s?"),
    ],
)
def test_nothing_is_written_where_a_value_is_wrong(
    given: tuple[str, ...], words: str, tmp_path: Path, run: Run
) -> None:
    pytest.importorskip("pyarrow")
    ran = run("test-13b", *given, "--output", str(tmp_path / "f"))
    assert (ran.code, ran.out) == (1, "")
    assert words in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_changed_between_two_runs_is_another_sweep(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    spec = json.loads((Path(lpm.__file__).parents[1] / "gpu_configs" / "a100-sxm-40gb.json").read_text())
    own = tmp_path / "own.json"
    own.write_text(json.dumps(spec))
    lpm.write_sweep(str(tmp_path / "f"), "test-13b", gpu=str(own), batch_size=[1, 2])
    own.write_text(json.dumps({**spec, "title": "changed"}))
    with pytest.raises(lpm.RequestError, match=r"holds another sweep \(gpu differ\)"):
        lpm.write_sweep(str(tmp_path / "f"), "test-13b", gpu=str(own), batch_size=[1, 2])


# Words and addresses.


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        ("threads", "executor: is 'threads'; give serial, processes, processes:4 or the address of a Dask scheduler"),
        ("processes:0", "executor: is 'processes:0'; give at least one process"),
        ("localhost:8786", "executor: is 'localhost:8786'; give serial, processes"),
    ],
)
def test_an_executor_that_does_not_exist(executor: str, words: str, run: Run) -> None:
    ran = run("test-13b", "--tp", "1,2", "--executor", executor)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: {words}") and ran.err.count("\n") == 1


def test_a_cluster_needs_its_package(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    ran = run("test-13b", "--tp", "1,2", "--executor", "tcp://127.0.0.1:1")
    assert ran.err == "error: a cluster needs the package distributed: pip install 'llm-perf-model[dask]'\n"


def test_a_cluster_that_does_not_answer(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("llm_perf_model.sweeping.executors.ANSWER_S", 1)
    ran = run("test-13b", "--tp", "1,2", "--executor", "tcp://127.0.0.1:1", "--output", str(tmp_path / "f"))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "error: executor: no cluster answers at tcp://127.0.0.1:1 within 1 s\n"
    assert list(tmp_path.iterdir()) == []


# A cluster.


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """A Dask scheduler and two workers, in processes of their own."""
    pytest.importorskip("distributed")
    folder = str(Path(lpm.__file__).parents[1])
    place = {**os.environ, "PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])}

    def begun(kind: str, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-m", f"distributed.cli.dask_{kind}", *words]
        return subprocess.Popen(command, stderr=subprocess.PIPE, env=place, cwd=tmp_path, text=True)

    processes = [begun("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-jupyter")]
    try:
        address = _address(processes[0])
        for _ in range(2):
            words = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path))
            processes.append(begun("worker", address, *words))
        yield address, processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _address(scheduler: subprocess.Popen[str]) -> str:
    assert scheduler.stderr is not None
    for line in scheduler.stderr:
        if match := re.search(r"Scheduler at:\s+(tcp://\S+)", line):
            return match[1]
    raise AssertionError("the scheduler did not start")


def test_a_cluster_computes_the_same_and_a_killed_worker_loses_nothing(
    cluster: Any, written: Path, tmp_path: Path
) -> None:
    address, (_, first, _) = cluster
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    assert_same(lpm.sweep(**GRID, executor=address), lpm.sweep(**GRID))
    folder = tmp_path / "sweep"
    running = _started(*MANY, "--executor", address, "--output", str(folder))
    _until(lambda: len(_parts(folder)) > 2)
    os.kill(first.pid, signal.SIGKILL)
    out, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (0, "")
    assert out.split()[:7] == ["written:", str(folder), "(4,000,000", "configurations", "in", "31", "parts)"]
    _assert_same_folder(folder, written)


def test_workers_that_do_not_see_the_folder_send_their_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    whole = lpm.write_sweep(str(tmp_path / "one"), **GRID)
    monkeypatch.setattr("llm_perf_model.sweeping.folder.Place.seen", False)
    sent = lpm.write_sweep(str(tmp_path / "two"), **GRID)
    assert sent.cells().rows() == whole.cells().rows()


def test_workers_of_another_version_are_refused() -> None:

    class Elsewhere(Backwards):
        def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
            return super().submit(call, given[0]._replace(version="0.0.9"), **named)

    with pytest.raises(lpm.RequestError, match=r"^executor: its workers have version .*, and here is 0\.0\.9"):
        lpm.sweep("test-13b", tp=[1, 2], executor=Elsewhere())
