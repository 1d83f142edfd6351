"""Calls of timed operators: what runs for each name of an operator, and how long one call of it takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from math import ceil
from typing import Any, Final

from ..units import binary_bytes
from .buffers import Buffers, Shape
from .device import Device, Processor
from .grids import Operator
from .method import Method, Timing, timed
from .outcomes import Failure, attempt
from .packages import tensors
from .precisions import PRECISIONS

LEAST_S: Final = 2e-4
"""Time that calls are repeated to fill before a clock is read."""

MOST_CALLS: Final = 500
"""Calls between two readings of a clock: fewer than a device queues before the host waits."""

MOST_OF_MEMORY: Final = 0.8
"""Part of a device's memory beyond which nothing is tried: an operating system would end the process."""

_TINY_S: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Kernel:
    """An operator as a function of tensors of these shapes."""

    shapes: tuple[Shape, ...]
    run: Callable[..., object]


@dataclass(frozen=True, slots=True)
class Timed:
    """The time of one call of an operator, and how it was seen."""

    timing: Timing
    calls: int
    """Calls between two readings of a clock."""
    cold: bool
    """Whether operands came from memory: since their last use more was used than the cache holds."""
    recorded: bool
    """Whether the device replayed a graph of calls, without waiting for the host."""


@dataclass(slots=True)
class Bench:
    """Where operators are timed and how.

    Operands come from memory; those of `warm` operators stay in the cache.
    """

    device: Device
    method: Method
    cache_bytes: int
    warm: bool = False
    _buffers: dict[str, Buffers] = field(default_factory=dict)

    def time(self, operator: Operator) -> Timed | Failure:
        """The time of one call of an operator on one device, or why there is none."""
        return attempt(lambda: self._time(operator), self.device)

    def _time(self, operator: Operator) -> Timed:
        kernel, buffers = kernel_of(operator), self._buffers_of(operator.dtype)
        needed_bytes = buffers.bytes_of(kernel.shapes)
        if needed_bytes > MOST_OF_MEMORY * self.device.total_bytes:
            memory = binary_bytes(self.device.total_bytes)
            raise MemoryError(f"operands and results of {binary_bytes(needed_bytes)}, and memory of {memory}")
        with PRECISIONS[operator.dtype].products_of(), tensors().inference_mode():
            sets = buffers.sets(kernel.shapes)
            first_s = min(self.device.timed(lambda: kernel.run(*sets[0])) for _ in range(3))
            calls = max(1, min(MOST_CALLS, ceil(LEAST_S / max(first_s, _TINY_S))))
            call, recorded = self._repeated(operator, kernel, sets, calls)
            clock = HostClock(self.device) if operator.name == "dispatch" else self.device
            timing = timed(call, clock, self.method)
        used = len(sets) if not recorded else min(calls, len(sets))
        made = calls * (timing.repeats + self.method.warmup)
        away = used * buffers.bytes_of(kernel.shapes) >= self.cache_bytes or (not recorded and made <= used)
        return Timed(_of_one(timing, calls), calls, away and not self.warm, recorded)

    def _buffers_of(self, dtype: str) -> Buffers:
        """The memory of a type; that of others is given back."""
        if dtype not in self._buffers:
            self._buffers.clear()
            self.device.release()
            cache_bytes = 0 if self.warm else self.cache_bytes
            self._buffers[dtype] = Buffers(self.device.target, dtype_of(dtype), cache_bytes)
        return self._buffers[dtype]

    def _kept(self, result: Any, most: int) -> deque[Any]:
        """Room for results, so that each has memory of its own until the cache has forgotten it."""
        return deque(maxlen=max(1, min(most, 2 * self.cache_bytes // max(result.nbytes, 1))))

    def _repeated(
        self, operator: Operator, kernel: Kernel, sets: Sequence[tuple[Any, ...]], calls: int
    ) -> tuple[Callable[[], object], bool]:
        """So many calls on one set of operands after the other; as a graph where the device records one."""
        turns = cycle(sets)
        kept = self._kept(kernel.run(*sets[0]), len(sets))

        def run() -> None:
            for _ in range(calls):
                kept.append(kernel.run(*next(turns)))

        if operator.name == "dispatch" or not self.device.accelerates:
            return run, False
        graph = attempt(lambda: recorded_by(self.device, run))
        return (run, False) if graph is None or isinstance(graph, Failure) else (graph, True)


def _of_one(timing: Timing, calls: int) -> Timing:
    energy_j = None if timing.energy_j is None else timing.energy_j / calls
    quartiles = (timing.median_s, timing.lower_quartile_s, timing.upper_quartile_s)
    middle_s, lower_s, upper_s = (seconds / calls for seconds in quartiles)
    return replace(timing, median_s=middle_s, lower_quartile_s=lower_s, upper_quartile_s=upper_s, energy_j=energy_j)


class HostClock(Processor):
    """The host beside a device: calls are timed until it has handed over their work."""

    def __init__(self, device: Device) -> None:
        self.target, self._device = device.target, device

    def timed(self, call: Callable[[], object]) -> float:
        self._device.synchronize()
        return super().timed(call)


def recorded_by(device: Device, run: Callable[[], object]) -> Callable[[], object] | None:
    """What a device does in a call as a graph that it replays on its own; None where it keeps none."""
    module = tensors().get_device_module(device.target)
    make, recording = getattr(module, "CUDAGraph", None), getattr(module, "graph", None)
    if make is None or recording is None:
        return None
    side = module.Stream()
    side.wait_stream(module.current_stream())
    with module.stream(side):
        run()
    module.current_stream().wait_stream(side)
    graph = make()
    with recording(graph):
        run()
    replay: Callable[[], object] = graph.replay
    return replay


def dtype_of(word: str) -> Any:
    """The type of torch that a word of `DTYPES` names."""
    return tensors().int8 if word == "int8" else PRECISIONS[word].dtype


def kernel_of(operator: Operator) -> Kernel:
    """The call that an operator is."""
    return _KERNELS[operator.name](tensors(), operator)


def _gemm(torch: Any, operator: Operator) -> Kernel:
    """Weights lie as a layer keeps them, (n, k). Sums of 8-bit products take 32 bits, in memory of their own."""
    m, n, k = (operator.sizes[name] for name in ("m", "n", "k"))
    if operator.dtype == "int8":
        return Kernel(((m, k), (n, k)), lambda x, w: torch._int_mm(x, w.t()))
    return Kernel(((m, k), (n, k), (m, n)), lambda x, w, y: torch.mm(x, w.t(), out=y))


def _attention(torch: Any, operator: Operator) -> Kernel:
    """Fused attention: causal for a prompt, over all keys for one query."""
    names = ("batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim")
    batch, heads, kv_heads, new, keys, width = (operator.sizes[name] for name in names)
    attend, grouped = torch.nn.functional.scaled_dot_product_attention, heads != kv_heads
    key_shape = (batch, kv_heads, keys, width)
    return Kernel(
        ((batch, heads, new, width), key_shape, key_shape),
        lambda q, k, v: attend(q, k, v, is_causal=new > 1, enable_gqa=grouped),
    )


def _pass(run: Callable[..., object], tensors_read: int, rows_read: int = 0) -> Callable[[Any, Operator], Kernel]:
    """A pass over tensors of m rows of n values, and over vectors of n; `run` takes torch, then those."""

    def kernel(torch: Any, operator: Operator) -> Kernel:
        m, n = operator.sizes["m"], operator.sizes["n"]
        return Kernel(((m, n),) * tensors_read + ((n,),) * rows_read, lambda *operands: run(torch, *operands))

    return kernel


def _convolution(torch: Any, operator: Operator) -> Kernel:
    size = operator.layer
    convolve, pad = torch.nn.functional.conv2d, size["pad_w"]
    image, filters = (size["N"], size["C"], size["H"], size["W"]), (size["K"], size["C"], size["R"], size["S"])
    return Kernel((image, filters), lambda x, w: convolve(x, w, padding=pad))


_start = _pass(lambda torch, x: torch.add(x, x, out=x), 1)

_KERNELS: Final[Mapping[str, Callable[[Any, Operator], Kernel]]] = {
    "gemm": _gemm,
    "context_attention": _attention,
    "generation_attention": _attention,
    "elementwise/rms_norm": _pass(lambda torch, x, w: torch.nn.functional.rms_norm(x, w.shape, w), 1, 1),
    "elementwise/layer_norm": _pass(lambda torch, x, w, b: torch.nn.functional.layer_norm(x, w.shape, w, b), 1, 2),
    "elementwise/add": _pass(lambda torch, x, z, y: torch.add(x, z, out=y), 3),
    "elementwise/silu": _pass(lambda torch, x, y: torch.ops.aten.silu.out(x, out=y), 2),
    "elementwise/gelu": _pass(lambda torch, x, y: torch.ops.aten.gelu.out(x, out=y), 2),
    "elementwise/copy": _pass(lambda _, x, y: y.copy_(x), 2),
    "elementwise/triad": _pass(lambda torch, x, z, y: torch.add(x, z, alpha=3, out=y), 3),
    "elementwise/launch": _start,
    "dispatch": _start,
    "convolution": _convolution,
}
"""Name of an operator -> its call."""
