"""Ways to run a module: each computes what the module computes, and says in one line what it lacks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import llm_perf_model as lpm
from llm_perf_model.errors import RequestError
from llm_perf_model.measuring import backends as module
from llm_perf_model.measuring.backends import _WAYS, Backend, backend_named, backends, prepared, word_of
from llm_perf_model.measuring.device import Processor
from llm_perf_model.specs.catalog import load

from .fake_device import FakeDevice
from .test_networks import conv, layers_of, linear, network


class FakeProcessor(FakeDevice):
    @property
    def accelerates(self) -> bool:
        return False


CARD, PROCESSOR = FakeDevice(), FakeProcessor()
NET = network(
    layers_of(
        conv(8, 3, padding=1, norm=True, activation="relu"),
        {"kind": "squeeze_excite", "channels": 4},
        {"kind": "places"},
        {"kind": "lstm", "hidden": 6, "layers": 2},
        {"kind": "last"},
        linear(5),
    ),
    (3, 4, 4),
)
HERE = ("eager", "autocast", "torchscript", "onnxruntime", "cpu-int8")
"""Those that run on any processor."""
ROUNDED = {"autocast": 2e-2, "cpu-int8": 5e-2}


# The table.


def test_every_backend_has_a_way_and_engines_that_exist() -> None:
    assert list(backends()) == list(_WAYS)
    for backend in backends().values():
        assert set(backend.engines) == set(backend.places)
        for engine in backend.engines.values():
            assert load(lpm.EngineSpec, engine).name == engine


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("egaer", "did you mean eager?"),
        ("torch-script", "did you mean torchscript?"),
        ("xyz", "known: eager, autocast, torchscript, compile, onnxruntime, tensorrt, cpu-int8"),
    ],
)
def test_an_unknown_backend(name: str, hint: str) -> None:
    with pytest.raises(RequestError) as refused:
        backend_named(name)
    assert str(refused.value) == f"backend: '{name}' is none; {hint}"


@pytest.mark.parametrize(
    ("name", "dtype", "device", "message"),
    [
        ("tensorrt", "torch.float32", PROCESSOR, "backend tensorrt: runs on a card, not on the processor"),
        ("cpu-int8", "torch.float32", CARD, "backend cpu-int8: runs on a processor, not on the card"),
        ("autocast", "torch.float32", CARD, "backend autocast: takes bfloat16 or float16, not float32"),
        ("onnxruntime", "torch.bfloat16", CARD, "backend onnxruntime: takes float32 or float16, not bfloat16"),
        ("cpu-int8", "float16", PROCESSOR, "backend cpu-int8: takes float32, not float16"),
        ("eager", "float64", PROCESSOR, "backend eager: takes float32 or bfloat16 or float16, not float64"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_built(
    name: str, dtype: str, device: Any, message: str
) -> None:
    with pytest.raises(RequestError) as refused:
        backend_named(name).check(dtype, device)
    assert str(refused.value) == message


def test_a_missing_package_is_named_with_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    for name, device, wanted in (
        ("tensorrt", CARD, "backend tensorrt: needs torch_tensorrt, not installed here: pip install torch-tensorrt"),
        (
            "onnxruntime",
            PROCESSOR,
            "backend onnxruntime: needs onnxruntime and onnx, not installed here: pip install onnxruntime onnx",
        ),
    ):
        with pytest.raises(RequestError) as refused:
            backend_named(name).check("float32", device)
        assert str(refused.value) == wanted


def test_an_engine_is_that_of_the_place() -> None:
    eager = backend_named("eager")
    assert [eager.engine(device) for device in (PROCESSOR, CARD)] == ["pytorch-cpu", "pytorch-eager"]
    assert [eager.recorded_engine(device) for device in (PROCESSOR, CARD)] == ["pytorch-cpu", "pytorch-eager"]


def test_records_of_two_backends_do_not_name_one_engine() -> None:
    """Else an engine would be fitted to what another ran; precisions tell autocast on a processor from eager."""
    for device, place in ((PROCESSOR, "processor"), (CARD, "card")):
        here = [backend for backend in backends().values() if place in backend.places]
        named = [
            backend.recorded_engine(device) for backend in here if (backend.name, place) != ("autocast", "processor")
        ]
        assert len(set(named)) == len(named)
    assert backend_named("compile").recorded_engine(CARD) == "torch-compile"


# Calls.


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def run(torch: Any) -> Callable[..., tuple[Any, Any]]:
    """What a backend makes of two samples, and what the same module makes of them by itself in 32 bits."""
    from llm_perf_model.measuring.networks import built, samples

    def run(name: str, dtype: str = "float32") -> tuple[Any, Any]:
        backend = backend_named(name)
        narrow = getattr(torch, dtype)
        net = built(NET, "cpu", backend.weights_of(narrow))
        given = samples(NET, 2, "cpu", narrow)
        made = prepared(backend, net, (given,), narrow, Processor())()
        with torch.inference_mode():
            return (torch.from_numpy(made[0].numpy()) if isinstance(made, list) else made), net.float()(given.float())

    return run


@pytest.mark.parametrize("name", HERE)
def test_a_backend_computes_what_the_module_computes(name: str, run: Callable[..., Any]) -> None:
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
    made, wanted = run(name, "bfloat16" if name == "autocast" else "float32")
    assert made.shape == (2, 5)
    assert (made.float() - wanted).abs().max() <= ROUNDED.get(name, 1e-5) * wanted.abs().max()


def test_narrow_numbers_differ_from_wide_ones(run: Callable[..., Any]) -> None:
    for name, dtype in (("autocast", "bfloat16"), ("cpu-int8", "float32")):
        made, wanted = run(name, dtype)
        assert (made.float() - wanted).abs().max() > 1e-6


def test_weights_of_autocast_stay_wide(torch: Any) -> None:
    assert backend_named("autocast").weights_of(torch.bfloat16) is torch.float32
    assert backend_named("eager").weights_of(torch.bfloat16) is torch.bfloat16
    assert word_of(torch.bfloat16) == "bfloat16"


def test_an_exported_file_is_gone_when_the_session_runs(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run("onnxruntime")
    assert list(tmp_path.iterdir()) == []


def test_no_gradient_is_kept(torch: Any) -> None:
    net = torch.nn.Linear(3, 2)
    made = prepared(backend_named("eager"), net, (torch.ones(1, 3),), torch.float32, Processor())()
    assert made.is_inference() and not made.requires_grad


def test_a_runtime_without_anything_for_the_card(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = SimpleNamespace(get_available_providers=lambda: ["CPUExecutionProvider"], SessionOptions=SimpleNamespace)
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    monkeypatch.setattr(module, "import_module", lambda _: runtime)
    with pytest.raises(RequestError) as refused:
        prepared(backend_named("onnxruntime"), torch.nn.Linear(3, 2), (torch.ones(1, 3),), torch.float32, card(torch))
    assert str(refused.value) == (
        "backend onnxruntime: what is installed runs on CPUExecutionProvider, not on cuda: pip install onnxruntime-gpu"
    )


def test_a_session_on_a_card_binds_inputs_and_outputs_there(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that notes what it is asked for."""
    told: list[Any] = []
    binding = SimpleNamespace(
        bind_input=lambda *given: told.append(given),
        bind_output=lambda *given: told.append(given),
        get_outputs=lambda: ["made"],
    )
    session = SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(name="samples")],
        get_outputs=lambda: [SimpleNamespace(name="scores")],
        io_binding=lambda: binding,
        run_with_iobinding=lambda bound: told.append(bound is binding),
    )
    runtime = SimpleNamespace(
        get_available_providers=lambda: ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
        SessionOptions=SimpleNamespace,
        InferenceSession=lambda *_, providers: told.append(providers) or session,
    )
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    monkeypatch.setattr(module, "import_module", lambda _: runtime)
    given = torch.ones(1, 3)
    call = prepared(backend_named("onnxruntime"), torch.nn.Linear(3, 2), (given,), torch.float32, card(torch))
    assert call() == ["made"]
    number = told[1][3]
    assert told == [
        [("CUDAExecutionProvider", {"device_id": 1})],
        ("samples", "cuda", 1, number, (1, 3), given.data_ptr()),
        ("scores", "cuda", 1),
        True,
        True,
    ]
    assert number.__name__ == "float32"


def test_an_engine_is_built_of_the_exported_module(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that hands the exported module back."""
    told: dict[str, Any] = {}

    def compile_(program: Any, **options: Any) -> Any:
        told.update(options)
        return program.module()

    library = SimpleNamespace(dynamo=SimpleNamespace(compile=compile_))
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    monkeypatch.setattr(module, "import_module", lambda _: library)
    net, given = torch.nn.Linear(3, 2), torch.ones(4, 3)
    call = prepared(backend_named("tensorrt"), net, (given,), torch.float32, card(torch))
    torch.testing.assert_close(call(), net(given))
    assert told == {"inputs": [given], "use_explicit_typing": True}


def test_a_torch_that_no_longer_quantises(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(module, "import_module", gone)
    with pytest.raises(RequestError) as refused:
        prepared(
            backend_named("cpu-int8"), torch.nn.Linear(3, 2), (torch.ones(1, 3),), torch.float32,
            Processor(),
        )  # fmt: skip
    assert str(refused.value) == "backend cpu-int8: the installed torch has no torch.ao.quantization any more"


def test_shapes_do_not_slow_each_other_down(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each compilation starts anew and is made for its own shapes."""
    told: list[Any] = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: told.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda net, **options: told.append(options) or net)
    net = torch.nn.Linear(3, 2)
    prepared(backend_named("compile"), net, (torch.ones(1, 3),), torch.float32, Processor())
    assert told == ["reset", {"dynamic": False}]


def card(torch: Any) -> FakeDevice:
    """A card that is not there."""
    device = FakeDevice()
    device.target = torch.device("cuda", 1)  # type: ignore[assignment]
    return device


def test_a_backend_without_facts_runs_everywhere() -> None:
    plain = Backend("plain", {})
    for device in (CARD, PROCESSOR):
        plain.check("float16", device)
