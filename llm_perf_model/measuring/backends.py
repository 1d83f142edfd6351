"""Ways to run a module: each makes of it and of its inputs one call that can be timed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

from ..errors import RequestError
from .device import Device
from .packages import tensors

Call = Callable[[], Any]
"""A pass over the inputs; it returns the outputs."""
Place = Literal["processor", "card"]

FACTS: Final = Path(__file__).with_name("backends.json")


@dataclass(frozen=True, slots=True)
class Backend:
    """What a way to run a module takes, and the engine whose estimate stands for it; a line of backends.json."""

    name: str
    engines: Mapping[Place, str]
    """Place -> the engine of the catalogue that is nearest to it there."""
    places: Sequence[Place] = ("processor", "card")
    dtypes: Sequence[str] = ("float32", "bfloat16", "float16")
    """Of inputs, as PyTorch calls them."""
    weights: str | None = None
    """Dtype of weights; None: that of the inputs."""
    packages: Sequence[str] = ()
    """Those that it needs beside PyTorch, as they are imported."""
    counted: bool = True
    """Whether PyTorch counts its memory."""
    recorded: str | None = None
    """What records call its engine where that of the catalogue only stands in; None: as the catalogue does."""

    def check(self, dtype: Any, device: Device) -> None:
        """Refuse what it cannot run, before anything is built.

        Raises:
            RequestError: the device or the dtype is none of its own, or its package is missing.
        """
        place, word = place_of(device), word_of(dtype)
        if place not in self.places:
            raise RequestError(f"backend {self.name}: runs on a {' or a '.join(self.places)}, not on the {place}")
        if word not in self.dtypes:
            raise RequestError(f"backend {self.name}: takes {' or '.join(self.dtypes)}, not {word}")
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            command = f"pip install {' '.join(missing).replace('_', '-')}"
            raise RequestError(f"backend {self.name}: needs {' and '.join(missing)}, not installed here: {command}")

    def weights_of(self, dtype: Any) -> Any:
        """The dtype in which a module is built whose inputs have a dtype."""
        return getattr(tensors(), self.weights) if self.weights else dtype

    def engine(self, device: Device) -> str:
        """The engine whose estimate stands for it."""
        return self.engines[place_of(device)]

    def recorded_engine(self, device: Device) -> str:
        """The engine that records name, so that no engine is fitted to what another ran."""
        return self.recorded or self.engine(device)


@cache
def backends() -> dict[str, Backend]:
    """All ways by their names."""
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    return {name: Backend(name, **told) for name, told in facts.items()}


def backend_named(name: str) -> Backend:
    """The way of a name.

    Raises:
        RequestError: there is none of that name.
    """
    known = backends()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise RequestError(f"backend: '{name}' is none; {hint}")
    return known[name]


def prepared(backend: Backend, module: Any, inputs: Sequence[Any], dtype: Any, device: Device) -> Call:
    """A call that runs a module, which has run once, so that what is built at its first use is there.

    Args:
        backend: how to run it
        module: a `torch.nn.Module` on the device, its weights in `backend.weights_of(dtype)`
        inputs: its arguments, on the device
        dtype: of the arithmetic
        device: what runs it

    Raises:
        RequestError: the backend does not run on this device, with this dtype or without a package.
    """
    torch = tensors()
    backend.check(dtype, device)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of what frameworks will take away later
        call = _WAYS[backend.name](Run(module, tuple(inputs), dtype, device))
        call()

    def inferred() -> Any:
        with torch.inference_mode():
            return call()

    return inferred


def place_of(device: Device) -> Place:
    """A processor, or a card beside one."""
    return "card" if device.accelerates else "processor"


def word_of(dtype: Any) -> str:
    """A dtype as PyTorch calls it, without its package."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class Run:
    """A module, its inputs, the dtype of the arithmetic and what runs it."""

    module: Any
    inputs: tuple[Any, ...]
    dtype: Any
    device: Device


def _eager(run: Run) -> Call:
    """Operator by operator."""
    return lambda: run.module(*run.inputs)


def _autocast(run: Run) -> Call:
    """Operator by operator, those that gain by it in narrow numbers: their weights are cast in each pass."""
    torch, kind = tensors(), run.device.target.type
    wide = tuple(given.float() if given.is_floating_point() else given for given in run.inputs)

    def call() -> Any:
        with torch.autocast(kind, dtype=run.dtype):
            return run.module(*wide)

    return call


def _traced(run: Run) -> Call:
    """A trace with its weights frozen into it."""
    torch = tensors()
    with torch.no_grad():
        trace = torch.jit.freeze(torch.jit.trace(run.module, run.inputs, check_trace=False))
    return lambda: trace(*run.inputs)


def _compiled(run: Run) -> Call:
    """Kernels made for the shapes of these inputs, whatever was compiled before."""
    torch = tensors()
    torch.compiler.reset()
    compiled = torch.compile(run.module, dynamic=False)
    return lambda: compiled(*run.inputs)


def _exported(run: Run) -> Call:
    """A session over an exported graph, with its inputs and outputs where they lie."""
    torch, runtime = tensors(), import_module("onnxruntime")
    provider = _provider(runtime, run.device)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    with TemporaryDirectory() as folder:
        path = str(Path(folder) / "module.onnx")
        with torch.no_grad():
            torch.onnx.export(run.module, run.inputs, path, dynamo=False)
        session = runtime.InferenceSession(path, options, providers=[provider])
    binding, number = session.io_binding(), run.device.target.index or 0
    kind, given = run.device.target.type, [values.contiguous() for values in run.inputs]
    for name, values in zip((told.name for told in session.get_inputs()), given, strict=True):
        numbers = torch.empty(0, dtype=values.dtype).numpy().dtype.type
        binding.bind_input(name, kind, number, numbers, tuple(values.shape), values.data_ptr())
    for told in session.get_outputs():
        binding.bind_output(told.name, kind, number)

    def call(_held: Any = given) -> Any:
        session.run_with_iobinding(binding)
        return binding.get_outputs()

    return call


def _provider(runtime: Any, device: Device) -> Any:
    """What runs a graph on a device.

    Raises:
        RequestError: the package that is installed has nothing for it.
    """
    kind, available = device.target.type, runtime.get_available_providers()
    found = next((name for name in available if name.lower().startswith(kind)), None)
    if found is None:
        raise RequestError(
            f"backend onnxruntime: what is installed runs on {', '.join(available)}, not on {kind}:"
            " pip install onnxruntime-gpu"
        )
    return (found, {"device_id": device.target.index or 0}) if device.accelerates else found


def _engine_built(run: Run) -> Call:
    """An engine that a library of the card's maker builds of the exported module, in the module's own dtypes."""
    library, torch = import_module("torch_tensorrt"), tensors()
    with torch.no_grad():
        program = torch.export.export(run.module, run.inputs)
        engine = library.dynamo.compile(program, inputs=list(run.inputs), use_explicit_typing=True)
    return lambda: engine(*run.inputs)


def _quantised(run: Run) -> Call:
    """Weights of dense and recurrent layers in 8 bits, inputs of their products quantised in each pass.

    Raises:
        RequestError: the installed PyTorch no longer quantises so.
    """
    torch = tensors()
    try:
        quantise = import_module("torch.ao.quantization").quantize_dynamic
    except (ImportError, AttributeError):
        raise RequestError("backend cpu-int8: the installed torch has no torch.ao.quantization any more") from None
    narrow = quantise(run.module, {torch.nn.Linear, torch.nn.LSTM, torch.nn.GRU}, dtype=torch.qint8)
    return lambda: narrow(*run.inputs)


_WAYS: Final[Mapping[str, Callable[[Run], Call]]] = {
    "eager": _eager,
    "autocast": _autocast,
    "torchscript": _traced,
    "compile": _compiled,
    "onnxruntime": _exported,
    "tensorrt": _engine_built,
    "cpu-int8": _quantised,
}
