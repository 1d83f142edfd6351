"""Exchanges between processes of this machine, one for each rank; each of them runs this module."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from .device import Device, Processor, device_of
from .grids import DTYPES, Operator
from .method import Method, Timing, timed
from .operators import dtype_of
from .outcomes import Failure, failure_of
from .packages import tensors

PATIENCE: Final = timedelta(seconds=120)
"""Time after which ranks stop waiting for each other."""


def exchange_times(operators: Sequence[Operator], device: Device, method: Method) -> Iterator[Timing | Failure]:
    """The times of all-reduces of one type over as many processes as they have ranks, in their order.

    On cards, each rank has one of its own; on the processor they share its cores.
    """
    ranks = operators[0].ranks
    with tempfile.TemporaryDirectory() as folder:
        task = {
            "device": device.target.type, "ranks": ranks, "meeting": Path(folder, "ranks").as_uri(),
            "dtype": operators[0].dtype, "bytes": [each.sizes["bytes"] for each in operators], "method": asdict(method),
        }  # fmt: skip
        command = [sys.executable, "-m", __spec__.name, json.dumps(task)]
        started: list[subprocess.Popen[str]] = []
        try:
            started += (_started([*command, str(rank)]) for rank in range(ranks))
            yield from _answers(started[0], len(operators))
        finally:
            for process in started:
                process.kill()
                process.communicate()


def _started(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _answers(first: subprocess.Popen[str], count: int) -> Iterator[Timing | Failure]:
    """What the first rank tells of each exchange; a failure for those after which it was silent."""
    failure = Failure("runtime_error", "the processes ended before the exchange")
    told = 0
    for line in first.stdout or ():
        answer = json.loads(line)
        if "reason" in answer:
            failure = Failure(**answer)
            break
        told += 1
        yield Timing(**answer)
    for _ in range(count - told):
        yield failure


class SharedClock(Processor):
    """A device as one of several ranks: a call takes as long as it takes the slowest of them, and all know it."""

    def __init__(self, device: Device, distributed: Any) -> None:
        self.target, self._device, self._distributed = device.target, device, distributed

    def timed(self, call: Callable[[], object]) -> float:
        self._distributed.barrier()
        slowest = tensors().tensor([self._device.timed(call)], dtype=tensors().float32, device=self.target)
        self._distributed.all_reduce(slowest, op=self._distributed.ReduceOp.MAX)
        return float(slowest.item())


def _rank(task: dict[str, Any], rank: int) -> Iterator[Timing]:
    """The exchanges of a task as one of its ranks sees them."""
    torch = tensors()
    from torch import distributed

    kind = task["device"]
    device = device_of(kind if kind == "cpu" else f"{kind}:{rank}")
    torch.set_num_threads(max(torch.get_num_threads() // task["ranks"], 1))
    backend = distributed.get_default_backend_for_device(device.target)
    distributed.init_process_group(
        backend, init_method=task["meeting"], rank=rank, world_size=task["ranks"], timeout=PATIENCE
    )
    clock, method = SharedClock(device, distributed), Method(**task["method"])
    for size_bytes in task["bytes"]:
        values = max(size_bytes // DTYPES[task["dtype"]], 1)
        exchanged = torch.zeros(values, dtype=dtype_of(task["dtype"]), device=device.target)
        yield timed(partial(distributed.all_reduce, exchanged), clock, method)
    distributed.destroy_process_group()


def _main(task: str, rank: str) -> None:
    """Run one rank; each answer is a line."""
    try:
        for timing in _rank(json.loads(task), int(rank)):
            sys.stdout.write(json.dumps(asdict(timing)) + "\n")
            sys.stdout.flush()
    except Exception as error:  # told to the process that waits
        sys.stdout.write(json.dumps(asdict(failure_of(error))) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
