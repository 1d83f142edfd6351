"""What the choices of an engine cost: slow head sizes, grown caches, time on the host, layers on several devices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.graph.stack import build
from llm_perf_model.ops.batch import Batch
from llm_perf_model.roofline import Run, totals, walk
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.model import ModelSpec

from .strategies import cases, engines, lengths, models, wholes

WITH_FAST_SIZES = [name for name in lpm.engines() if load(EngineSpec, name).fast_head_dims]
IDEAL = load(EngineSpec, "ideal")


def resized(model: ModelSpec, heads: int, head_dim: int) -> ModelSpec:
    """The model with other heads of the same width in all."""
    groups = tuple(
        group.model_copy(
            update={
                "attention": group.attention.model_copy(
                    update={"heads": heads, "kv_heads": heads, "head_dim": head_dim}
                )
            }
        )
        for group in model.layers
    )
    return model.model_copy(update={"layers": groups})


# Head sizes.


@pytest.mark.parametrize("name", WITH_FAST_SIZES)
@pytest.mark.parametrize("batch_size", [1, 4, 16, 128])
@pytest.mark.parametrize("input_len", [16, 512, 1024])
def test_a_slow_head_size_is_slower_than_a_fast_one(name: str, batch_size: int, input_len: int) -> None:
    """2560 values a token either way: 20 heads of 128 or 40 of 64, and 32 heads of 80."""
    model = load(ModelSpec, "gpt3-2.7b")
    given_ = {"engine": name, "batch_size": batch_size, "input_len": input_len, "output_len": 33}
    slow = lpm.estimate(resized(model, 32, 80), **given_)
    for heads, head_dim in ((20, 128), (40, 64)):
        fast = lpm.estimate(resized(model, heads, head_dim), **given_)
        assert slow.decode_s > fast.decode_s
        assert slow.prefill_s > fast.prefill_s


def test_there_is_an_engine_with_fast_head_sizes() -> None:
    assert "eet" in WITH_FAST_SIZES


# A cache that grows by concatenation.


@pytest.mark.parametrize("values_per_clock", [0.1, 0.39])
def test_a_copy_limited_by_its_values_takes_as_long_at_any_precision(values_per_clock: float) -> None:
    engine = IDEAL.model_copy(update={"cache": "concatenated", "concat_values_per_clock_per_sm": values_per_clock})

    def copied_s(precision: str) -> float:
        e = lpm.estimate("opt-1.3b", engine=engine, precision=precision, batch_size=8, output_len=20)
        (works,) = (works for works in e.decode.works() if works[0].node.op.kind == "concat")
        return float(sum(work.timing.memory_s for work in works))

    assert copied_s("fp32") == pytest.approx(copied_s("w16a16"), rel=1e-12)
    assert copied_s("w16a16") > 0.0


@pytest.mark.parametrize(
    "choice", [{"cache": "concatenated"}, {"cache": "concatenated_by_layer"}, {"concatenated_positions": {"learned"}}]
)
def test_a_cache_that_grows_in_place_copies_nothing(choice: dict[str, Any]) -> None:
    grown = IDEAL.model_copy(update=choice | {"concat_values_per_clock_per_sm": 0.4})
    place, copied = (lpm.estimate("opt-1.3b", engine=engine, batch_size=8, output_len=20) for engine in (IDEAL, grown))
    assert copied.prefill_s == place.prefill_s
    assert copied.decode_s > place.decode_s
    token = 2.0 * 24 * 2048 * 2  # keys and values of 24 layers at 2 bytes
    tokens = sum(512 + 1 + i for i in range(19))
    assert copied.decode.hbm_bytes - place.decode.hbm_bytes == pytest.approx(2.0 * 8 * tokens * token, rel=1e-9)


@pytest.mark.parametrize("choice", [{"cache": "paged"}, {"cache": "none"}, {"concatenated_positions": {"alibi"}}])
def test_how_a_cache_is_kept_costs_no_time_where_nothing_is_copied(choice: dict[str, Any]) -> None:
    given_ = {"batch_size": 8, "output_len": 20}
    place, kept = (lpm.estimate("opt-1.3b", engine=e, **given_) for e in (IDEAL, IDEAL.model_copy(update=choice)))
    assert (kept.prefill_s, kept.decode_s) == (place.prefill_s, place.decode_s)


# Time on the host.


@pytest.mark.parametrize("output_len", [1, 2, 33])
def test_the_time_of_a_request_is_paid_once(output_len: int) -> None:
    paid = IDEAL.model_copy(update={"request_s": 0.25})
    free, once = (lpm.estimate("opt-1.3b", engine=engine, output_len=output_len) for engine in (IDEAL, paid))
    assert once.ttft_s - free.ttft_s == pytest.approx(0.25, rel=1e-9)
    assert once.total_s - free.total_s == pytest.approx(0.25, rel=1e-9)
    assert once.tpot_s == free.tpot_s


@given(models(), engines(hosted=True), lengths())
def test_the_time_of_a_request_is_no_part_of_a_step(model: ModelSpec, engine: EngineSpec, w: Any) -> None:
    given_ = {"batch_size": w.batch_size, "input_len": w.input_len, "output_len": w.steps + 1.0}
    paid, free = (
        lpm.estimate(model, engine=engine.model_copy(update={"request_s": seconds}), **given_) for seconds in (0.5, 0.0)
    )
    assert paid.ttft_s == pytest.approx(free.ttft_s + 0.5, rel=1e-12)
    assert paid.decode_s == free.decode_s


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_time_of_a_sequence_is_paid_in_every_step(batch_size: int) -> None:
    paid = IDEAL.model_copy(update={"sequence_s": 0.5})
    free, more = (lpm.estimate("opt-125m", engine=e, batch_size=batch_size, output_len=5) for e in (IDEAL, paid))
    assert more.prefill_s - free.prefill_s == pytest.approx(0.5 * batch_size, rel=1e-9)
    assert more.decode_s - free.decode_s == pytest.approx(4 * 0.5 * batch_size, rel=1e-9)


@pytest.mark.parametrize("precision", ["w16a16", "fp32"])
def test_a_step_of_a_small_model_lasts_as_long_as_its_layers_on_the_host(precision: str) -> None:
    """12 layers of 1 ms, and 0.5 ms more where activations are narrow, hide a device that needs less."""
    engine = IDEAL.model_copy(update={"layer_s": 1e-3, "half_layer_s": 5e-4})
    e = lpm.estimate("opt-125m", engine=engine, precision=precision, output_len=2)
    assert e.decode_step_s == pytest.approx(12 * (1.5e-3 if precision == "w16a16" else 1e-3), rel=1e-12)


# Layers on several devices.

SPLITS = ("opt-1.3b", "llama-2-7b")


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("engine", ["ideal", "generic-fused", "deepspeed-inference"])
@pytest.mark.parametrize("stages", [2, 3, 8])
def test_stages_compute_as_long_as_one_device_and_pass_activations_on(name: str, engine: str, stages: int) -> None:
    given_: dict[str, Any] = {"model": name, "gpu": "rtx-a6000", "engine": engine, "batch_size": 4, "output_len": 9}
    one, split = lpm.estimate(**given_), lpm.estimate(**given_, layer_split=stages)
    hidden = load(ModelSpec, name).hidden
    for phase, passes, tokens in (("prefill", 1, 4 * 512), ("decode", 8, 4)):
        alone, shared = getattr(one, phase).totals, getattr(split, phase).totals
        for part in ("compute_s", "memory_s", "start_s", "overhead_s", "flops", "hbm_bytes"):
            assert getattr(shared, part) == getattr(alone, part), part
        assert alone.comm_bytes == alone.comm_s == 0.0
        assert shared.comm_bytes == passes * (stages - 1) * tokens * hidden * 2
        m = split.machine
        link = m.exchange
        transfer_s = passes * (stages - 1) * (link.start_s + link.hop_s) + shared.comm_bytes / link.bytes_per_s
        assert shared.comm_s == pytest.approx(transfer_s, rel=1e-12)
        if alone.host_s == shared.host_s == 0.0:
            assert shared.time_s == pytest.approx(alone.time_s + transfer_s, rel=1e-12)


@given(cases())
def test_a_stage_holds_its_share_and_one_stage_works_at_a_time(case: Any) -> None:
    """The fullest stage has the most layers, and the embedding or the head: they lie on different stages."""
    layout, stages = case.layout, case.layout.layer_split
    whole = build(case.model, case.engine, case.precision, layout.tp)
    layers = sum(group.count for group in case.model.layers)
    share = -(-layers // stages) / layers
    stored: dict[str, float] = {"layers": 0.0, "embedding": 0.0, "head": 0.0}
    for node in whole:
        stored[node.role if node.role in stored else "layers"] += node.count * node.op.stored_weight_bytes
    ends = max(stored["embedding"], stored["head"]) if stages > 1 else stored["embedding"] + stored["head"]
    assert case.allocation.weights_bytes == pytest.approx(share * stored["layers"] + ends, rel=1e-12)
    cached = sum(node.count * node.op.kv_bytes_per_token for node in whole) * (case.allocation.cache != "none")
    assert case.allocation.kv_token_bytes == share * cached
    given_ = {"gpu": case.gpu, "engine": case.engine, "precision": case.precision, "input_len": 10, "output_len": 5}
    given_ |= {"tp": layout.tp, "dp": layout.dp, "layer_split": stages}
    e, bound = (lpm.estimate(case.model, **given_, energy_convention=word) for word in ("power", "tdp"))
    assert e.memory.weights_bytes == case.allocation.weights_bytes
    if case.allocation.cache == "contiguous":
        assert e.memory.kv_cache_bytes == pytest.approx(15.0 * share * cached, rel=1e-12)
    working, waiting = layout.tp * layout.dp, layout.ranks - layout.tp * layout.dp
    assert bound.energy_j == pytest.approx(case.gpu.tdp_w * working * e.total_s, rel=1e-12)
    idle_j = e.machine.power.idle_w * e.total_s
    assert layout.ranks * idle_j * (1.0 - 1e-12) <= e.energy_j <= (bound.energy_j + waiting * idle_j) * (1.0 + 1e-12)


@pytest.mark.parametrize("stages", [1, 2, 5, 8])
def test_weights_and_cache_of_a_stage_by_hand(stages: int) -> None:
    """6,738,415,616 weights at 2 bytes, of which 131,072,000 in the embedding and as many in the head.

    4 sequences of 128 tokens at 524,288 bytes: 32, 16, 7 and 4 of 32 layers, and one of the two tables.
    """
    given_ = {"engine": "ideal", "batch_size": 4, "input_len": 100, "output_len": 28}
    m = lpm.estimate("llama-2-7b", layer_split=stages, **given_).memory
    share, tables = {1: 32, 2: 16, 5: 7, 8: 4}[stages] / 32, 2 if stages == 1 else 1
    assert m.weights_bytes == share * (13_476_831_232 - 2 * 262_144_000) + tables * 262_144_000
    assert m.kv_cache_bytes == share * 4 * 128 * 524_288


@pytest.mark.parametrize("stages", [2, 8])
def test_the_energy_of_a_layer_split_is_that_of_one_device_at_work(stages: int) -> None:
    """The others idle; design power x time counts the one alone."""
    given_: dict[str, Any] = {"gpu": "rtx-a5000", "layer_split": stages}
    bound = lpm.estimate("opt-1.3b", **given_, energy_convention="tdp")
    assert bound.energy_j == pytest.approx(load(GpuSpec, "rtx-a5000").tdp_w * bound.total_s, rel=1e-12)
    e = lpm.estimate("opt-1.3b", **given_)
    idle_j = (stages - 1) * e.machine.power.idle_w * e.total_s
    assert e.energy_j == pytest.approx(e.prefill.energy_j + e.decode.energy_j + idle_j, rel=1e-12)
    assert idle_j > 0.0


@given(cases(), wholes(1, 6), wholes(1, 60), wholes(2, 30))
def test_exchanges_of_a_decode_are_those_of_its_steps(case: Any, seqs: float, past: float, steps: float) -> None:
    """A mask that travels with the inputs of a layer grows with the cache."""
    run = Run(steps, Batch.uniform(seqs, 1.0, past), Batch.uniform(seqs, 1.0, past + steps - 1.0))
    singles = [Run.single(Batch.uniform(seqs, 1.0, past + i)) for i in range(int(steps))]
    whole = totals(case.graph, case.machine, [run])
    explicit = [totals(case.graph, case.machine, [single]) for single in singles]
    for part in ("comm_bytes", "comm_s"):
        assert getattr(whole, part) == pytest.approx(sum(getattr(t, part) for t in explicit), rel=1e-9), part


@pytest.mark.parametrize("stages", [2, 8])
def test_inputs_of_layers_are_staged_only_with_a_mask_tensor(stages: int) -> None:
    """Learned positions carry a mask; each layer but those of the first stage has its inputs moved."""
    for name, staged in (("opt-1.3b", True), ("llama-2-7b", False)):
        e = lpm.estimate(name, engine="pytorch-forward", layer_split=stages, batch_size=2, input_len=8, output_len=1)
        moved = [work for work in walk(e.case.graph, e.machine, e.prefill.runs[0]) if work.node.kind == "staged"]
        assert bool(moved) == staged
        for work in moved:
            assert work.node.count == 24 * (stages - 1) / stages
            assert work.cost.comm_bytes == work.node.count * (2 * 8 * 2048 + 2 * 8 * 8) * 2


@given(st.sampled_from(("eet", "fastertransformer")), wholes(1, 4), st.integers(1, 900), st.integers(1, 70))
@pytest.mark.parametrize("model", ["gpt3-small-125m", "test-13b"])
def test_a_longer_prompt_never_takes_less(model: str, engine: str, batch_size: float, short: int, more: int) -> None:
    """Also where a token more starts another block of queries, on a device that few blocks leave idle."""
    for edge in (short, 64):
        at, beyond = (
            lpm.estimate(model, engine=engine, batch_size=batch_size, input_len=n, output_len=1).prefill_s
            for n in (edge, edge + more)
        )
        assert beyond >= at * (1.0 - 1e-12)
