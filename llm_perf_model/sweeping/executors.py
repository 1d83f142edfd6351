"""Where jobs run: here, in processes of this machine, on a cluster, or in any executor of the standard interface."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Final, Generic, TypeVar

from ..errors import RequestError

J = TypeVar("J")
T = TypeVar("T")

Where = str | Executor | None
"""What computes: None or `serial`, `processes`, `processes:4`, the address of a Dask scheduler, or an executor."""

ADDRESS: Final = re.compile(r"(tcp|tls|ws|wss|ucx|inproc)://\S+")
PROCESSES: Final = re.compile(r"processes(?::(\d+))?")

AHEAD: Final = 2
"""Jobs that wait at each worker, so that none idles while results are taken."""

MOST_TRIES: Final = 3
"""How often a job is given to a worker that ends on it."""

ANSWER_S: Final = 10
"""Seconds in which a cluster is to answer."""


@dataclass
class Attempt(Generic[J]):
    """A job, and how many workers have ended on it."""

    job: J
    ended: int = 0


@dataclass
class Workers:
    """An executor, how many jobs it computes at once, and how to have a new one when its workers are gone."""

    executor: Executor
    count: int
    renewed: Callable[[], Executor] | None = None


def each_result(jobs: Iterator[J], call: Callable[[J], T], workers: Workers | None) -> Iterator[tuple[J, T]]:
    """Jobs with what `call` makes of them, each once, in the order in which they end.

    Args:
        jobs: what to compute; asked for as workers become free.
        call: a function that workers can import.
        workers: who computes; None: this process.

    Raises:
        RequestError: the executor takes no jobs, or a job ends its workers again and again.
    """
    if workers is not None:
        yield from _results(jobs, call, workers)
        return
    for job in jobs:
        yield job, call(job)


def _results(jobs: Iterator[J], call: Callable[[J], T], workers: Workers) -> Iterator[tuple[J, T]]:
    """Keep every worker busy; give the jobs of workers that ended to others."""
    running: dict[Future[T], Attempt[J]] = {}
    lost: deque[Attempt[J]] = deque()
    try:
        while True:
            _submit(jobs, call, workers, running, lost)
            if not running:
                if not lost:
                    return
                _renew(workers)
                continue
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                attempt = running.pop(future)
                if future.cancelled():
                    raise RequestError(
                        "executor: gave up its jobs, as a cluster does whose scheduler ends; start it anew"
                    )
                failure = future.exception()
                if failure is None:
                    yield attempt.job, future.result()
                elif not isinstance(failure, BrokenExecutor):
                    raise _told(failure)
                else:
                    attempt.ended += 1
                    if attempt.ended >= MOST_TRIES:
                        raise RequestError(_gone(failure)) from None
                    lost.append(attempt)
    finally:
        for future in running:
            future.cancel()


def _submit(
    jobs: Iterator[J],
    call: Callable[[J], T],
    workers: Workers,
    running: dict[Future[T], Attempt[J]],
    lost: deque[Attempt[J]],
) -> None:
    """Fill the queues of the workers, lost jobs first; stop where the workers are gone."""
    while len(running) < AHEAD * workers.count:
        attempt = lost.popleft() if lost else next(map(Attempt, jobs), None)
        if attempt is None:
            return
        try:
            running[workers.executor.submit(call, attempt.job)] = attempt
        except BrokenExecutor as error:
            if workers.renewed is None:
                raise RequestError(f"executor: takes no jobs: {error}") from None
            lost.append(attempt)
            return
        except RuntimeError as error:  # it was shut down
            raise RequestError(f"executor: takes no jobs: {error}") from None


def _renew(workers: Workers) -> None:
    if workers.renewed is not None:
        workers.executor.shutdown(wait=False)
        workers.executor = workers.renewed()


def _gone(failure: BaseException) -> str:
    return (
        f"executor: {MOST_TRIES} workers ended on the same configurations ({type(failure).__name__}); they may lack "
        "memory, or a script starts them outside `if __name__ == '__main__':`"
    )


def _told(failure: BaseException) -> BaseException:
    """What went wrong at a worker, in the words of this package where it is about the cluster."""
    if isinstance(failure, ModuleNotFoundError):
        return RequestError(f"executor: its workers have no package {failure.name}; install it there")
    if type(failure).__name__ == "KilledWorker":
        return RequestError(_gone(failure))
    return failure


@contextmanager
def ready(executor: Where) -> Iterator[Workers | None]:
    """The workers that a word, an address or an object stands for; an executor that was given stays open.

    Raises:
        RequestError: there is no such executor, or a cluster does not answer.
    """
    if executor is None or executor == "serial":
        yield None
        return
    if isinstance(executor, Executor):
        yield Workers(executor, getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
        return
    words = str(executor)
    if match := PROCESSES.fullmatch(words):
        count = int(match[1] or os.cpu_count() or 1)
        if count < 1:
            raise RequestError("executor: is 'processes:0'; give at least one process")
        workers = Workers(_processes(count), count, lambda: _processes(count))
        try:
            yield workers
        finally:
            workers.executor.shutdown(wait=True, cancel_futures=True)
    elif ADDRESS.fullmatch(words):
        with _cluster(words) as found:
            yield found
    else:
        raise RequestError(
            f"executor: is '{words}'; give serial, processes, processes:4 or the address of a Dask scheduler, "
            "as tcp://host:8786"
        )


def _processes(count: int) -> Executor:
    """Fresh processes: a copy of this one could hold locks of its threads."""
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_uninterrupted)


def _uninterrupted() -> None:
    """Leave an interrupt to the process that gave the jobs, which ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _cluster(address: str) -> Iterator[Workers]:
    """The workers of a Dask scheduler."""
    try:
        from distributed import Client
    except ImportError:
        raise RequestError("a cluster needs the package distributed: pip install 'llm-perf-model[dask]'") from None
    try:
        client = Client(address, timeout=ANSWER_S, set_as_default=False)
    except (OSError, ValueError):
        raise RequestError(f"executor: no cluster answers at {address} within {ANSWER_S} s") from None
    with _quiet("distributed", "distributed.client"), client:
        count = sum(client.nthreads().values())
        if not count:
            raise RequestError(f"executor: the cluster at {address} has no workers; start some")
        yield Workers(client.get_executor(pure=False), count)


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep parts of a library from telling of workers that end, which is dealt with here."""
    logs = [logging.getLogger(name) for name in names]
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)
