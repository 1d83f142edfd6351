"""A draft of the device file of the machine at hand: what was measured, what was told, what another device gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import llm_perf_model as lpm
from llm_perf_model.errors import RequestError
from llm_perf_model.measuring.device import Processor
from llm_perf_model.measuring.facts import Facts
from llm_perf_model.measuring.limit_tables import report
from llm_perf_model.measuring.limits import Draft, Limits, limits_of, nearest, slug, stated_of, unit_of, vendor_of
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.validation.records import Record

from .rows import operator
from .running import Run, runner

CPU = "ryzen-9-5950x"
H200 = "h200-sxm-141gb"
TOLD = Facts(132, 1.98e9, 60 * 2**20, 700.0)
NOTHING_TOLD = Facts(None, None, None, None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return runner(capsys, monkeypatch, 80)


class Named(Processor):
    """A device of a name and a memory."""

    def __init__(self, name: str, total_bytes: int, accelerates: bool) -> None:
        self.target, self._told = "cpu", (name, total_bytes, accelerates)

    @property
    def name(self) -> str:
        return self._told[0]

    @property
    def total_bytes(self) -> int:
        return self._told[1]

    @property
    def accelerates(self) -> bool:
        return self._told[2]


CARD = Named("NVIDIA H200", 150109945856, accelerates=True)
LIMITS = Limits(
    {"fp32": 51e12, "tf32": 402e12, "bf16": 792e12, "fp16": 771e12, "int8": 1.5e15}, 4.2e12, 2e-6, 5e-6, 24, 0.011, {}
)


def drafted(device: Any = CARD, facts: Facts = TOLD, limits: Limits = LIMITS, name: str | None = None) -> GpuSpec:
    stated = stated_of(device)
    return Draft(device, facts, limits, stated or nearest(device, limits), stated, name).spec()


def _timed(name: str, seconds: float, dtype: str = "fp32", **sizes: int) -> Record:
    quartiles = {"lower_quartile_s": seconds, "upper_quartile_s": 1.02 * seconds}
    return operator(operator=name, w_dtype=dtype, value=1.01 * seconds, extra=quartiles, **sizes)


RECORDS = [
    _timed("gemm", 2.0, m=100, n=100, k=100),
    _timed("gemm", 4.0, m=200, n=200, k=200),
    _timed("gemm", 1.0, dtype="bf16", m=100, n=100, k=100),
    _timed("elementwise/copy", 1.0, m=1, n=1000),
    _timed("elementwise/triad", 1.0, m=1, n=1000),
    _timed("gemm", 0.5, m=1, n=50, k=50),
    _timed("elementwise/launch", 3e-6, m=1, n=1),
]


# Limits of records.


def test_limits_are_the_fastest_of_each_kind() -> None:
    """By the lower quartile: the record's median is what else ran."""
    found = limits_of(RECORDS)
    assert found.flops_per_s == {"fp32": pytest.approx(2 * 200**3 / 4.0), "bf16": pytest.approx(2 * 100**3)}
    assert found.hbm_bytes_per_s == pytest.approx(max(12000.0, 4 * (2500 + 100) / 0.5))
    assert (found.launch_s, found.dispatch_s, found.rows) == (pytest.approx(3e-6), None, 7)
    assert found.quartile_ratio == pytest.approx(0.02)


def test_a_type_that_does_not_run_is_left_out_with_its_reason() -> None:
    failed = replace(
        _timed("gemm", 1.0, dtype="fp16", m=9, n=9, k=9), value=None, outcome="runtime_error", note="no fp16"
    )
    assert limits_of([*RECORDS, failed]).failed == {"fp16": "no fp16"}
    slower = replace(failed, w_dtype="fp32")
    assert limits_of([*RECORDS, slower]).failed == {}, "another size of it ran"


def test_without_a_product_or_a_copy_there_is_no_draft() -> None:
    with pytest.raises(RequestError, match="device: no product or no copy could be timed"):
        limits_of(RECORDS[:2])
    failed = replace(RECORDS[0], value=None, note="it is full")
    with pytest.raises(RequestError, match=r"could be timed \(it is full\)"):
        limits_of([failed])


# Drafts.


def test_a_draft_holds_what_was_measured() -> None:
    spec = drafted()
    assert spec.peak_flops_per_s == {
        "vector_fp32": 51e12, "tensor_tf32": 402e12, "tensor_bf16": 792e12, "tensor_fp16": 771e12,
        "tensor_int8": 1.5e15,
    }  # fmt: skip
    assert spec.hbm_bytes_per_s == 4.2e12
    assert (spec.sms, spec.boost_hz, spec.l2_bytes, spec.tdp_w) == (132, 1.98e9, 60 * 2**20, 700.0)
    assert (spec.name, spec.generation, spec.form, spec.kind, spec.vendor) == (
        "nvidia-h200", "hopper", "sxm", "gpu", "nvidia",
    )  # fmt: skip
    assert spec.scale_up == load(GpuSpec, H200).scale_up


def test_each_number_of_a_draft_has_an_origin() -> None:
    """The file checks that itself; here each origin is the right one."""
    spec = drafted(facts=NOTHING_TOLD)
    (fit,) = spec.fits
    assert fit.fields == ("peak_flops_per_s", "hbm_bytes_per_s")
    assert (fit.rows, fit.error) == (24, "lower quartiles of the fastest; the upper ones are up to 1.1% above")
    told, lent, derived = spec.assumed
    assert told.fields == ("hbm_bytes",)
    assert set(lent.fields) == {"sms", "boost_hz", "l2_bytes", "tdp_w", "launch_year", "scale_up"}
    assert lent.reason == "told by nobody: as in h200-sxm-141gb"
    assert derived.fields == ("flops_per_clock_per_sm",)


def test_a_processor_has_the_design_power_of_its_cores() -> None:
    device = Named("Intel(R) Xeon(R) Processor", 2**34, accelerates=False)
    limits = replace(LIMITS, flops_per_s={"fp32": 3e11, "bf16": 2e12, "int8": 2e12}, hbm_bytes_per_s=2e10)
    spec = drafted(device, Facts(2, 2.6e9, 2**25, None), limits)
    assert spec.tdp_w == pytest.approx(105.0 * 2 / 16, rel=1e-3)
    assert set(spec.peak_flops_per_s) == {"vector_fp32", "vector_bf16", "tensor_int8"}, "cores, whatever unit ran"
    assert (spec.name, spec.vendor, spec.kind, spec.memory_kind) == ("intel-xeon-processor", "intel", "cpu", "unknown")
    assert spec.scale_up is None


def test_a_draft_of_an_unknown_card_is_like_the_nearest() -> None:
    near = load(GpuSpec, "l4-pcie-24gb")
    device = Named("Some New Card", int(near.hbm_bytes), accelerates=True)
    limits = replace(LIMITS, hbm_bytes_per_s=near.hbm_bytes_per_s)
    assert stated_of(device) is None
    assert nearest(device, limits).name == near.name
    assert drafted(device, NOTHING_TOLD, limits).scale_up is None


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("Intel(R) Xeon(R) Platinum 8480C", "intel-xeon-platinum-8480c"),
        ("AMD EPYC 9554 64-Core Processor", "amd-epyc-9554-64-core-processor"),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm4-80gb"),
        ("Cœur™ (TM) v1.5", "c-ur-v1.5"),
        ("???", "device"),
    ],
)
def test_names_of_makers_as_catalogue_names(called: str, name: str) -> None:
    assert slug(called) == name
    assert (
        drafted(Named(called, 2**34, accelerates=False), limits=replace(LIMITS, flops_per_s={"fp32": 1e12})).name
        == name
    )


def test_the_vendor_is_read_from_the_name() -> None:
    like = load(GpuSpec, CPU)
    assert vendor_of("Intel(R) Core(TM) i9", like) == "intel"
    assert vendor_of("Neoverse-V2", like) == like.vendor


def test_units_of_types() -> None:
    card, cpu, old = (load(GpuSpec, name) for name in (H200, CPU, "p100-sxm-16gb"))
    assert [unit_of("fp16", each) for each in (card, cpu, old)] == ["tensor_fp16", "vector_fp16", "vector_fp16"]
    assert [unit_of("fp32", each) for each in (card, cpu, old)] == 3 * ["vector_fp32"]


# The table.


def test_a_measured_device_beside_its_datasheet() -> None:
    found = report(drafted(), load(GpuSpec, H200), LIMITS, H200)
    rows = {row[0]: row[1:] for row in found.tables[0].rows}
    assert rows["tensor_bf16 peak"] == ("792 TFLOP/s", "990 TFLOP/s", "0.80")
    assert rows["memory bandwidth"] == ("4.20 TB/s", "4.80 TB/s", "0.88")
    assert rows["start of a kernel"] == ("2.00 us", "-", "-")
    assert found.data["stated"] == H200
    assert GpuSpec.model_validate_json(json.dumps(found.data["device"])) == drafted()


def test_what_is_not_in_the_catalogue_is_held_against_nothing() -> None:
    found = report(drafted(), None, replace(LIMITS, failed={"fp16": "no unit"}), CPU)
    assert {row[2:] for row in found.tables[0].rows} == {("-", "-")}
    assert "fp16 is left out: no unit" in found.notes
    assert max(map(len, found.text(80).splitlines())) <= 80


# The command.


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators of a few microseconds."""
    pytest.importorskip("torch")
    from llm_perf_model.measuring import limits, operator_run

    monkeypatch.setattr(limits, "SIDES", {False: (32, 64)})
    monkeypatch.setattr(limits, "STREAMED_BYTES", (2**14,))
    for module in (limits, operator_run):
        monkeypatch.setattr(module, "facts_of", lambda _: Facts(2, 2.5e9, 2**16, None))


@pytest.mark.usefixtures("small")
def test_a_draft_is_a_device_at_once(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    ran = run("measure_device", "--device", "cpu", "--name", "mine", "--budget_s", "0.01", "--output", str(path))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == "mine: a draft of a device file"
    assert f"written: {path}" in ran.out
    spec = load(GpuSpec, str(path))
    assert (spec.name, spec.sms, spec.boost_hz) == ("mine", 2, 2.5e9)
    assert {"vector_fp32", "vector_bf16"} <= spec.peak_flops_per_s.keys()
    flags = ("--model", "resnet18", "--engine", "pytorch-cpu", "--precision", "fp32", "--format", "json")
    shown = run("infer", "--gpu", str(path), *flags)
    assert json.loads(shown.out)["total_s"] > 0.0


@pytest.mark.usefixtures("small")
def test_the_function_gives_the_device() -> None:
    spec = lpm.measure_device("cpu", dtypes="fp32", budget_s=0.01)
    assert set(spec.peak_flops_per_s) == {"vector_fp32"}
    assert lpm.estimate("resnet18", gpu=spec, engine="pytorch-cpu", precision="fp32").total_s > 0.0


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ("--name", "My CPU"),
            "name: is 'My CPU'; must be lower-case letters, digits, dots and dashes, as 'our-server'",
        ),
        (("--like", "nosuch"), "unknown GPU 'nosuch'"),
        (("--like", H200), "like: h200-sxm-141gb is a gpu, and"),
        (("--dtypes", "tf32"), "dtypes: the processor has no tf32"),
        (("--output", "/nosuch/mine.json"), "output /nosuch/mine.json: cannot be written: No such file or directory"),
        (("--format", "xml"), "format: is 'xml'; must be text, json, csv or markdown"),
    ],
)
@pytest.mark.usefixtures("small")
def test_what_cannot_be_drafted(run: Run, flags: tuple[str, ...], told: str) -> None:
    ran = run("measure_device", "--device", "cpu", *flags)
    assert (ran.code, ran.out) == (1, "")
    assert told in ran.err
    assert ran.err.count("\n") == 1
