"""What fits: single changes with which a workload that does not fit would, and the words for it."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.case import Case
from llm_perf_model.peak import MOMENTS, memory
from llm_perf_model.sizing import Alternatives, Point, alternatives, detail, memory_at, shortfall, worst_point
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec
from llm_perf_model.units import binary_bytes

from .strategies import cases, wholes

DETAIL_KEYS = [
    "model", "gpu", "engine", "precision", "tp", "layer_split", "batch_size", "input_len", "output_len", "fits",
    "moment", "peak_bytes", "limit_bytes", "capacity_bytes", "shortfall_bytes", "what_fits",
]  # fmt: skip
CHANGES = ["batch_size", "input_len", "tp", "layer_split", "precision", "gpu", "tp_and_pp", "ep"]

ASKED: dict[str, dict[str, Any]] = {
    "cache of many sequences": {"model": "llama-2-7b", "batch_size": 200, "output_len": 512},
    "weights of a large model": {"model": "llama-2-70b", "batch_size": 4},
    "eager engine, growing cache": {"model": "opt-13b", "engine": "hf-eager", "batch_size": 64, "output_len": 200},
    "serving engine": {"model": "llama-3.1-8b", "gpu": "l4-pcie-24gb", "engine": "vllm", "batch_size": 96},
    "fraction of what is free": {"model": "llama-2-13b", "gpu": "l4-pcie-24gb", "engine": "tensorrt-llm"},
    "logits of a forward pass": {
        "model": "opt-6.7b", "gpu": "rtx-4090", "engine": "pytorch-forward", "batch_size": 200, "output_len": 1
    },
    "workspace": {
        "model": "bloom-24l-2048h", "engine": "deepspeed-inference", "batch_size": 600, "input_len": 7,
        "output_len": 100,
    },
    "ranks already": {"model": "llama-2-70b", "tp": 2, "batch_size": 8},
    "stages already": {
        "model": "opt-66b", "gpu": "a100-sxm-80gb", "engine": "hf-eager", "layer_split": 2, "batch_size": 99
    },
    "ranks of an eager engine": {"model": "opt-66b", "engine": "hf-eager", "tp": 2, "batch_size": 4},
    "another vendor": {"model": "llama-2-70b", "gpu": "mi210-pcie-64gb", "engine": "ideal"},
    "narrow already": {"model": "llama-2-70b", "precision": "w8a16"},
    "far too large": {"model": "megatron-530b", "gpu": "rtx-4090"},
    "no ranks divide it": {"model": "falcon-7b", "gpu": "v100-pcie-16gb", "engine": "vllm"},
    "fits": {"model": "llama-2-7b"},
}  # fmt: skip
"""What lacks memory, and why."""


def fits(asked: dict[str, Any], **changes: Any) -> bool:
    """Whether a changed request can run and fits."""
    try:
        return bool(lpm.estimate(**(asked | changes)).fits)
    except lpm.InfeasibleError:
        return False


@pytest.fixture(params=list(ASKED), ids=lambda name: name.replace(" ", "_"))
def asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    return ASKED[request.param]


def what_fits(asked: dict[str, Any]) -> Alternatives:
    return lpm.memory(**asked).what_fits


# Each one fits when asked for, and less does not.


def test_the_offered_batch_fits_and_one_more_does_not(asked: dict[str, Any]) -> None:
    offered = what_fits(asked).batch_size
    assert offered == 0 or fits(asked, batch_size=offered)
    assert not fits(asked, batch_size=offered + 1)


def test_the_offered_prompt_fits_and_a_longer_one_does_not(asked: dict[str, Any]) -> None:
    offered = what_fits(asked).input_len
    assert offered == 0 or fits(asked, input_len=offered)
    beyond = lpm.estimate(**(asked | {"input_len": offered + 1}))
    assert beyond.extrapolated or not beyond.fits


def test_the_offered_ranks_fit_and_fewer_do_not(asked: dict[str, Any]) -> None:
    offered = what_fits(asked).tp
    whole = asked | {"layer_split": 1}
    assert offered is None or fits(whole, tp=offered)
    assert not any(fits(whole, tp=fewer) for fewer in range(1, offered or 65))


def test_the_offered_stages_fit_and_fewer_do_not(asked: dict[str, Any]) -> None:
    offered, case = what_fits(asked).layer_split, lpm.estimate(**asked).case
    splits = case.layout.tp == 1 and case.engine.kind in {"eager", "local"}
    assert offered is None or (splits and fits(asked, layer_split=offered))
    if splits:
        assert not any(fits(asked, layer_split=fewer) for fewer in range(1, offered or 65))


def test_the_offered_precision_fits_and_no_wider_one_that_is_narrower_does(asked: dict[str, Any]) -> None:
    def width(name: str) -> tuple[float, float]:
        spec = load(PrecisionSpec, name)
        return min(spec.weight_bytes, spec.filter_bytes), spec.kv_bytes

    def narrower(name: str) -> bool:
        spec = load(PrecisionSpec, name)
        suits = spec.offered_to is None or lpm.estimate(**asked).case.engine.kind in spec.offered_to
        return suits and width(name) < width(asked.get("precision", "w16a16")) and not spec.narrowing_pass

    offered = what_fits(asked).precision
    fitting = [name for name in lpm.precisions() if narrower(name) and fits(asked, precision=name)]
    assert (offered in fitting) if fitting else offered is None
    assert offered is None or width(offered) == max(map(width, fitting))


def test_a_network_in_32_bits_is_offered_16_before_8() -> None:
    asked = {"model": "resnet50", "gpu": "rtx-3080ti", "engine": "generic-fused", "precision": "tf32"}
    assert what_fits(asked | {"batch_size": 2000}).precision == "bf16"
    assert what_fits(asked | {"batch_size": 4000}).precision == "int8-convolutions"


def test_the_offered_device_fits_and_no_smaller_one_of_the_vendor_does(asked: dict[str, Any]) -> None:
    current, offered = load(GpuSpec, asked.get("gpu", "a100-sxm-40gb")), what_fits(asked).gpu
    known = [load(GpuSpec, name) for name in lpm.gpus()]
    larger = [g for g in known if g.vendor == current.vendor and g.capacity_bytes > current.capacity_bytes]
    fitting = [g for g in larger if fits(asked, gpu=g.name)]
    assert (offered is None) == (not fitting)
    if offered is not None:
        assert load(GpuSpec, offered) in fitting
        assert load(GpuSpec, offered).capacity_bytes == min(g.capacity_bytes for g in fitting)


def test_stages_are_offered_where_no_ranks_are_enough(asked: dict[str, Any]) -> None:
    found = what_fits(asked)
    assert found.tp is None or found.tp_and_pp is found.ep is None
    if found.tp_and_pp is not None:
        ranks, stages = found.tp_and_pp
        assert fits(asked | {"layer_split": 1}, tp=ranks, pp=stages)
        assert not fits(asked | {"layer_split": 1}, tp=ranks, pp=stages // 2)


def test_ranks_that_attend_apart_are_offered_where_all_keep_the_same_keys() -> None:
    """Experts of 8 x 7B with one key head: tensor-parallel ranks each keep all of it."""
    model = load(ModelSpec, "mixtral-8x7b")
    group = model.layers[0]
    alike = group.model_copy(update={"attention": group.attention.model_copy(update={"kv_heads": 1})})
    asked = {"model": model.model_copy(update={"layers": (alike,)}), "gpu": "rtx-4090", "engine": "ideal"}
    found = what_fits(asked | {"batch_size": 800, "input_len": 16, "output_len": 2048})
    assert (found.tp, found.ep, found.devices) == (None, 8, 8)
    assert "attention_dp and ep 8" in found.text()


def test_every_change_is_offered_somewhere_and_missing_somewhere() -> None:
    found = [what_fits(asked) for asked in ASKED.values()]
    for name in (change for change in CHANGES if change != "ep"):
        values = [getattr(one, name) for one in found]
        assert any(values), name
        assert not all(values), name


def test_ranks_over_a_named_network_stay_on_it() -> None:
    """16 cards of 80 GB are two nodes: nothing joins them but the network that the request names."""
    asked = {"model": "llama-3.1-405b", "gpu": "a100-sxm-80gb", "tp": 8, "link": "infiniband-hdr-200g"}
    assert not fits(asked)
    assert what_fits(asked).tp == what_fits(asked | {"tp": 16}).tp == 16
    assert fits(asked, tp=16)
    assert what_fits(asked | {"tp": 16, "batch_size": 500}).precision == "w8a16"
    assert fits(asked, tp=16, batch_size=500, precision="w8a16")


@settings(max_examples=15)
@given(cases(), wholes(1, 64), wholes(1, 500), wholes(1, 500))
def test_offered_batch_and_prompt_of_any_engine_fit(case: Case, batch: float, input_len: float, output: float) -> None:
    found = alternatives(case, Point(batch, input_len, output))
    a = case.allocation
    assert found.batch_size == 0 or memory(a, float(found.batch_size), input_len, output).fits
    assert found.input_len == 0 or memory(a, batch, float(found.input_len), output).fits
    assert found.input_len + output <= (case.model.max_positions or np.inf) or found.input_len == 0


# In words.

ALL = "a batch of 3, prompts of 7, tp 2, layer_split 4, precision w8a16, gpu t4"


@pytest.mark.parametrize(
    ("found", "text", "devices"),
    [
        (Alternatives(3, 7, 2, 4, "w8a16", "t4"), ALL, 2),
        (Alternatives(3, 0, None, None, None, None), "a batch of 3", None),
        (Alternatives(0, 0, 8, 4, None, "t4"), "tp 8, layer_split 4, gpu t4", 4),
        (Alternatives(0, 0, None, 3, None, None), "layer_split 3", 3),
    ],
)
def test_words_of_what_fits(found: Alternatives, text: str, devices: int | None) -> None:
    assert found.text() == f"what fits: {text}"
    assert found.devices == devices


def test_nothing_fits() -> None:
    assert Alternatives(0, 0, None, None, None, None).text() == "no single change makes it fit"
    text, data = shortfall(lpm.estimate(**ASKED["far too large"]))
    assert text.endswith("; no single change makes it fit")
    assert not any(data["what_fits"].values())


# The error.


def raised(**asked: Any) -> lpm.OutOfMemoryError:
    with pytest.raises(lpm.OutOfMemoryError) as caught:
        lpm.estimate(**asked).require_feasible()
    return caught.value


SHORT = [name for name in ASKED if name != "fits"]


@pytest.mark.parametrize("name", SHORT)
def test_the_detail_of_the_error_is_the_estimate_as_data(name: str) -> None:
    asked = ASKED[name]
    found, e = raised(**asked).detail, lpm.estimate(**asked)
    assert list(found) == DETAIL_KEYS
    for key in ("model", "gpu", "engine", "precision"):
        assert found[key] == getattr(e.case, key).name
    assert (found["tp"], found["layer_split"]) == (e.case.layout.tp, e.case.layout.layer_split)
    assert [found[key] for key in ("batch_size", "input_len", "output_len")] == [
        asked.get("batch_size", 1), asked.get("input_len", 512), asked.get("output_len", 32)
    ]  # fmt: skip
    for key in ("peak_bytes", "limit_bytes", "capacity_bytes", "shortfall_bytes"):
        assert found[key] == getattr(e.memory, key)
    assert found["fits"] is False
    assert found["moment"] == e.memory.moment
    assert found["moment"] in MOMENTS
    assert found["shortfall_bytes"] > 0.0
    what = what_fits(asked)
    assert found["what_fits"] == json.loads(json.dumps({key: getattr(what, key) for key in CHANGES}))
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("name", SHORT)
def test_the_message_is_one_line_with_the_numbers_and_what_fits(name: str) -> None:
    error, e = raised(**ASKED[name]), lpm.estimate(**ASKED[name])
    text, m = str(error), e.memory
    assert "\n" not in text
    assert text.startswith(f"{e.case.model.name} needs {binary_bytes(m.peak_bytes)} on each {e.case.gpu.name}, ")
    assert f"which has {binary_bytes(m.capacity_bytes)}" in text
    assert f": {binary_bytes(m.shortfall_bytes)} too much in the " in text
    assert text.endswith("; " + what_fits(ASKED[name]).text())
    takes = re.search(rf"of which {re.escape(e.case.engine.name)} takes ([\d.]+ \w+)", text)
    assert (takes is not None) == (m.limit_bytes < m.capacity_bytes)
    assert takes is None or takes[1] == binary_bytes(m.limit_bytes)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weights of a large model", "in the prefill;"),
        ("logits of a forward pass", "in the logits;"),
        ("eager engine, growing cache", "in the last decode step;"),
    ],
)
def test_the_message_names_the_moment(name: str, words: str) -> None:
    assert words in str(raised(**ASKED[name]))


def test_an_error_without_detail_has_none() -> None:
    assert lpm.OutOfMemoryError("too much").detail == {}
    given_ = {"tp": 2}
    error = lpm.OutOfMemoryError("too much", given_)
    assert error.detail == given_
    assert error.detail is not given_
    assert isinstance(error, lpm.InfeasibleError)


# The worst point.


@settings(max_examples=20)
@given(cases(), st.lists(st.tuples(wholes(1, 64), wholes(1, 500), wholes(1, 500)), min_size=1, max_size=4))
def test_the_worst_point_has_least_to_spare(case: Case, rows: list[tuple[float, float, float]]) -> None:
    batches, inputs, outputs = (list(axis) for axis in zip(*rows, strict=True))
    e = lpm.estimate(
        case.model, gpu=case.gpu, engine=case.engine, precision=case.precision, tp=case.layout.tp,
        layer_split=case.layout.layer_split, batch_size=batches, input_len=inputs, output_len=outputs,
    )  # fmt: skip
    point = worst_point(e)
    assert (point.batch_size, point.input_len, point.output_len) in rows

    def spare(row: tuple[float, float, float]) -> float:
        m = memory(case.allocation, *row)
        return float(m.limit_bytes - m.peak_bytes - m.beside_cache_bytes)

    assert spare((point.batch_size, point.input_len, point.output_len)) == min(map(spare, rows))


def test_what_is_left_free_beside_a_cache_counts_at_the_worst_point() -> None:
    """A cache of a tenth of what is free: less peak memory, but more cache, lacks more."""
    tenth = load(EngineSpec, "fastertransformer").model_copy(update={"pool_of": "free", "pool_fraction": 0.1})
    e = lpm.estimate("llama-2-7b", engine=tenth, batch_size=[1, 64], input_len=[4000, 60], output_len=40)
    assert e.memory.peak_bytes[0] > e.memory.peak_bytes[1]
    assert e.memory.shortfall_bytes[0] < e.memory.shortfall_bytes[1]
    assert worst_point(e) == Point(64.0, 60.0, 40.0)


def test_an_array_is_told_by_its_worst_point() -> None:
    many = raised(model="llama-2-7b", batch_size=[[1], [900], [64]], input_len=[16, 600])
    alone = raised(model="llama-2-7b", batch_size=900, input_len=600)
    assert str(many) == str(alone)
    assert many.detail == alone.detail


def test_the_point_of_a_detail_may_fit() -> None:
    case, point = lpm.estimate("llama-2-7b").case, Point(1.0, 512.0, 32.0)
    found = detail(case, point)
    assert found["fits"] is True
    assert found["shortfall_bytes"] == 0.0
    assert found["peak_bytes"] == memory_at(case, point).peak_bytes
