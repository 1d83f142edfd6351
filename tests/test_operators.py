"""Timed operators in the terms of the model: one row of each family, what it costs, and each reason against it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_perf_model.ops.attention import FusedAttention
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.collective import AllGather, AllReduce, Transfer
from llm_perf_model.ops.convolution import Convolution
from llm_perf_model.ops.dense import Embedding, Linear
from llm_perf_model.ops.elementwise import Elementwise
from llm_perf_model.ops.moe import ExpertLinear
from llm_perf_model.ops.recurrence import Recurrence
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.validation.operators import Timed, timed
from llm_perf_model.validation.records import COLUMNS, Record
from llm_perf_model.validation.stacks import Stack, stacked
from llm_perf_model.validation.unmappable import UnmappableError

from .rows import operator, read_all, write

A = 2.0
"""Bytes of an activation of 16 bits."""

HEADS = {"heads": 32, "kv_heads": 8, "head_dim": 128}
MOE = "topk=2,experts=8,moe_tp=2,moe_ep=1,dist=balanced"
LAYER = {"shape": "llama-2-7b", "heads": 16, "kv_heads": 16, "head_dim": 128, "tp": 2, "batch": 40}


def of(operator_: str, **changes: Any) -> Timed:
    return timed(operator(operator=operator_, **changes))


# Families.


@pytest.mark.parametrize("name", ["gemm", "gemm/attn_pre_proj"])
def test_a_product(name: str) -> None:
    row = of(name, m=7, n=128, k=64)
    assert row.nodes[0].op == Linear(64.0, 128.0, 2.0, A, input_bytes=2.0)
    assert (row.family, row.batch, row.precision) == ("gemm", Batch.uniform(1.0, 7.0, 0.0), "w16a16")
    assert (row.gpu, row.engine, row.ranks) == ("a100-sxm-40gb", "generic-fused", 1)
    assert (row.launch_s, row.least_s, row.fitted) == (0.0, 0.0, True)


@pytest.mark.parametrize(
    ("dtype", "precision", "weight_bytes", "input_bytes", "names"),
    [
        ("bf16", "bf16", 2.0, 2.0, ["product"]),
        ("bfloat16", "bf16", 2.0, 2.0, ["product"]),
        ("half", "w16a16", 2.0, 2.0, ["product"]),
        ("Float", "fp32", 4.0, 4.0, ["product"]),
        ("int4_wo", "w4a16", 0.51953125, 2.0, ["product"]),
        ("int8_wo", "w8a16", 1.0, 2.0, ["product"]),
        ("sq", "w8a8", 1.0, 1.0, ["product"]),
        ("fp8", "fp8", 1.0, 1.0, ["narrowing", "product"]),
        ("fp8_block", "fp8-block", 1.000244140625, 1.0, ["narrowing", "product"]),
    ],
)
def test_a_product_at_each_recorded_type(
    dtype: str, precision: str, weight_bytes: float, input_bytes: float, names: list[str]
) -> None:
    row = of("gemm", m=7, n=128, k=64, w_dtype=dtype, device="h100-sxm-80gb")
    op = row.nodes[-1].op
    assert isinstance(op, Linear)
    assert (row.precision, op.weight_bytes, op.read_bytes) == (precision, weight_bytes, input_bytes)
    assert [node.name for node in row.nodes] == names
    if len(names) > 1:
        assert row.nodes[0].op.cost(row.batch).hbm_bytes == 7 * 64 * (2 + 1)


IMAGE = {
    "W": 56,
    "H": 28,
    "C": 64,
    "N": 8,
    "K": 128,
    "pad_w": 1,
    "pad_h": 1,
    "Horizontal stride": 1,
    "Vertical stride": 1,
}


@pytest.mark.parametrize(
    ("more", "window", "position_rows", "positions", "winograd"),
    [
        ({"R": 3, "S": 3}, 9.0, 28.0, 28 * 56.0, True),
        ({"R (Filter height)": 5, "S (Filter width)": 1}, 5.0, 26.0, 26 * 58.0, False),
        ({"R": 3, "S": 3, "Vertical stride": 2}, 9.0, 14.0, 14 * 56.0, False),
    ],
)
def test_a_convolution(
    more: dict[str, int], window: float, position_rows: float, positions: float, winograd: bool
) -> None:
    """Sheets spell the sides of a filter in two ways; the algorithm that the library took decides nothing."""
    shape = json.dumps({**IMAGE, **more, "Forward Algorithm": "WINOGRAD"})
    row = of("conv/Forward (msec)", shape=shape, w_dtype="Float")
    assert row.nodes[0].op == Convolution(
        64.0, 128.0, window, positions, 64 * 28 * 56.0, 1.0, 4.0, 4.0, position_rows=position_rows, winograd=winograd
    )
    assert (row.family, row.batch) == ("convolution", Batch.uniform(8.0, 1.0, 0.0))


@pytest.mark.parametrize(("layer", "gates", "tensors"), [("Vanilla", 1.0, 2.0), ("LSTM", 4.0, 7.0), ("GRU", 3.0, 6.0)])
def test_a_recurrent_layer_has_the_steps_of_the_row_above(
    tmp_path: Path, layer: str, gates: float, tensors: float
) -> None:
    """The sheet's column of steps is a row of its own, in the same unit as the times."""
    shape = '{"Hidden Units": 512, "N": 16}'
    names = (f"rnn/Recurrent Layers - {layer}/Timesteps", f"rnn/Recurrent Layers - {layer}/Time Forward (msec)")
    cells = [
        {"op": name, "shape": shape, "metric": "time_ms", "value": value, "unit": "ms"}
        for name, value in zip(names, ("25", "1.5"), strict=True)
    ]
    steps, time = read_all(write(tmp_path / "timed.csv", cells, (*COLUMNS, "op", "shape")))
    with pytest.raises(UnmappableError, match="the number of steps of the row below is no time"):
        timed(steps)
    row = timed(time)
    assert row.nodes[0].op == Recurrence(512.0, gates, 25.0, tensors, 2.0, 2.0)
    assert (row.family, row.batch, row.record.value) == ("recurrent", Batch.uniform(16.0, 1.0, 0.0), 1.5e-3)


def test_a_recurrent_layer_without_a_row_of_steps_is_not_timed() -> None:
    with pytest.raises(UnmappableError, match="the record states no steps"):
        of("rnn/Recurrent Layers - GRU/Time Forward (msec)", shape='{"Hidden units": 512, "N": 16}')


def test_a_product_of_columns_has_its_rows_and_columns_turned() -> None:
    plain, turned = (of("gemm", m=7, n=128, k=64, source=source) for source in ("a test", "DeepBench"))
    assert plain.batch.tokens == 7.0
    assert turned.batch.tokens == 128.0
    assert turned.nodes[0].op == Linear(64.0, 7.0, 2.0, A, input_bytes=2.0)


def test_a_prefill_of_attention() -> None:
    """Queries are the last of the keys."""
    row = of("context_attention", batch=3, q_len=100, kv_len=300, **HEADS)
    assert row.batch == Batch.uniform(3.0, 100.0, 200.0)
    assert row.nodes[0].op == FusedAttention(32.0, 8.0, 128.0, A, A)
    assert row.family == "attention"


def test_a_decode_step_of_attention() -> None:
    row = of("generation_attention", batch=3, kv_len=300, **HEADS)
    assert row.batch == Batch.uniform(3.0, 1.0, 299.0)
    narrow = of("generation_attention", batch=3, kv_len=300, w_dtype="bfloat16 kv fp8", device="h100-sxm-80gb", **HEADS)
    assert narrow.nodes[0].op == FusedAttention(32.0, 8.0, 128.0, A, 1.0)


def test_attention_of_collectors_that_count_otherwise() -> None:
    """Keys of the whole batch, shared out; nothing masked; the engine whose kernel was timed."""
    source = {"source": "LLMServingSim profiler"}
    step = of("generation_attention", batch=3, kv_len=301, **HEADS, **source)
    assert (step.batch, step.engine) == (Batch.uniform(3.0, 1.0, 99.0), "flash-attention-2")
    prefill = of("context_attention", batch=1, q_len=100, kv_len=300, **HEADS, **source)
    assert prefill.batch == Batch.uniform(1.0, 100.0, 200.0)
    assert prefill.nodes[0].op == FusedAttention(32.0, 8.0, 128.0, A, A, all_pairs=True)


def test_a_kernel_that_rotates_too() -> None:
    """Queries, keys and values of a prefill are read and written once more, without a start."""
    source = {"source": "aiconfigurator", "device": "A100 80GB"}
    row = of("context_attention", batch=3, q_len=100, kv_len=100, **HEADS, **source)
    attention, rotation = row.nodes
    assert (attention.kernels, rotation.kernels) == (1.0, 0.0)
    assert rotation.op == Elementwise((32.0 + 16.0) * 128.0, 2.0, A)
    assert row.engine == "trtllm-attention"
    alone = of("generation_attention", batch=3, kv_len=100, **{**HEADS, "kv_heads": 32}, **source)
    assert [node.name for node in alone.nodes] == ["attention"]


TENSORS = {"gelu": 2.0, "layernorm": 3.0, "softmax": 3.0, "elementwise/add": 3.0, "elementwise/relu": 2.0}


@pytest.mark.parametrize(("name", "tensors"), TENSORS.items())
def test_a_plain_pass(name: str, tensors: float) -> None:
    row = of(name, m=7, n=128)
    assert row.nodes[0].op == Elementwise(128.0, tensors, A)
    assert (row.family, row.batch) == ("elementwise", Batch.uniform(1.0, 7.0, 0.0))
    assert of(name, n=128).batch == Batch.uniform(1.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("emb", Embedding(1.0, (), 4096.0, 1.0, 0.0, A)),
        ("input_layernorm", Elementwise(4096.0, 2.0, A, touches=3.0)),
        ("post_attention_layernorm", Elementwise(4096.0, 2.0, A, touches=3.0)),
        ("attn_rope", Elementwise((16.0 + 16.0) * 128.0, 2.0, A, touches=2.0)),
        ("mlp_act", Elementwise(5504.0, 3.0, A, touches=3.0)),
        ("add", Elementwise(4096.0, 3.0, A)),
    ],
)
def test_a_pass_of_a_layer_of_a_model(name: str, op: object) -> None:
    """Llama-2 7B on two ranks: 16 of 32 heads, 5504 of 11008 columns."""
    row = of(name, **LAYER)
    assert row.nodes[0].op == op
    assert (row.family, row.batch, row.nodes[0].kernels) == ("elementwise", Batch.uniform(1.0, 40.0, 0.0), 1.0)


def test_passes_of_a_model_whose_branches_run_beside_each_other() -> None:
    """Falcon adds twice after a layer, and its activation is a plain one."""
    added, activation = (of(name, **{**LAYER, "shape": "falcon-40b"}) for name in ("add", "mlp_act"))
    assert (added.nodes[0].op, added.nodes[0].kernels) == (Elementwise(8192.0, 6.0, A), 2.0)
    assert activation.nodes[0].op == Elementwise(4 * 8192 / 2.0, 2.0, A)


def test_experts_of_one_rank() -> None:
    """8 experts of 512 columns on two ranks, two visits a token."""
    row = of("moe", shape=MOE, m=5, hidden=64, n=512)
    assert (row.family, row.batch) == ("experts", Batch.uniform(1.0, 5.0, 0.0))
    gate_up, activation, down, summed = (node.op for node in row.nodes)
    share = 8.0 / (8.0 * (1.0 - 0.75**5))
    assert gate_up == ExpertLinear(
        8.0, 2.0, 64.0, 512.0, 2.0, A, 2.0, inner=256.0, visited_share=pytest.approx(share, rel=1e-12)
    )
    assert down == replace(gate_up, d_in=256.0, d_out=64.0)
    assert activation == Elementwise(2 * 256.0, 3.0, A)
    assert summed == Elementwise(64.0, 3.0, A)


def test_experts_of_one_of_four_ranks() -> None:
    """Of 2 visits a token, every fourth stays; for the others the products write zeros, and passes see all."""
    row = of("moe", shape=MOE.replace("moe_tp=2,moe_ep=1", "moe_tp=1,moe_ep=4"), m=64, hidden=64, n=512)
    ops = {node.name: node.op for node in row.nodes}
    gate_up = ops["experts_gate_up"]
    assert isinstance(gate_up, ExpertLinear)
    assert (gate_up.experts, gate_up.experts_per_token, gate_up.d_out) == (2.0, 0.5, 1024.0)
    assert gate_up.visited(row.batch) == pytest.approx(2.0, rel=1e-12)
    masked = [node for node in row.nodes if node.name == "experts_masked"]
    assert [(node.op.width, node.kernels) for node in masked] == [(1.5 * 1024, 0.0), (1.5 * 64, 0.0)]
    assert ops["experts_activation"] == Elementwise(2 * 512.0, 3.0, A)


def test_inputs_of_narrow_experts_are_narrowed_once_a_token_and_once_a_visit() -> None:
    row = of("moe", shape=MOE, m=5, hidden=64, n=512, w_dtype="fp8", device="h100-sxm-80gb")
    assert [node.op.width for node in row.nodes if node.name == "narrowing"] == [64.0, 2 * 256.0]


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("all_reduce", AllReduce(512.0, 4.0, A)),
        ("all_gather", AllGather(512.0, 4.0, A)),
        ("reduce_scatter", AllGather(512.0, 4.0, A)),
        ("send_recv", Transfer(512.0, A)),
    ],
)
def test_an_exchange(name: str, op: object) -> None:
    row = of(name, n_devices=4, bytes=1024)
    assert (row.family, row.ranks, row.nodes[0].op) == ("collective", 4, op)
    assert row.batch == Batch.uniform(1.0, 1.0, 0.0)
    assert of(name, n_devices=4, bytes=1024, shape="devices_per_node=8").ranks == 4


def test_what_a_method_adds_and_hides_is_told() -> None:
    """Launches one by one, and rows that fix nothing."""
    launched = of("gemm", m=7, n=128, k=64, source="NeuSight")
    assert launched.launch_s > 0.0
    hidden = of("send_recv", n_devices=2, bytes=1024, source="vidur")
    assert hidden.least_s > 0.0
    assert (hidden.fitted, launched.fitted) == (False, True)
    one = of("all_reduce", n_devices=2, bytes=1024, source="aiconfigurator", engine="custom allreduce TRTLLM (graph)")
    assert one.engine == "vllm"


# Reasons.

SIZED = {"m": 64.0, "hidden": 64.0, "n": 512.0}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"operator": "conv2d"}, "operator 'conv2d' is not in the model"),
        ({"metric": "energy_j"}, "metric 'energy_j' of an operator is not a time"),
        ({"outcome": "oom", "value": None}, "is not a time"),
        ({"device": "abacus"}, "unknown device 'abacus'"),
        ({"w_dtype": "int3"}, "precision 'int3' of an operator is not modelled"),
        ({"w_dtype": ""}, "precision '' of an operator is not modelled"),
        ({"sizes": {"m": 1.0, "n": 2.0}}, "the record states no k"),
        ({"operator": "gelu", "sizes": {"m": 1.0}}, "the record states no n"),
        (
            {"operator": "add", "shape": "a model of nobody", "sizes": {"batch": 1.0}},
            "unknown model 'a model of nobody'",
        ),
        (
            {"operator": "moe", "shape": MOE.replace("moe_ep=1", "moe_ep=3"), "sizes": SIZED},
            "3 ranks do not share 8 experts evenly",
        ),
        (
            {"operator": "moe", "shape": MOE.replace("balanced", "zipf"), "sizes": SIZED},
            "router 'zipf' is not modelled",
        ),
        ({"operator": "all_reduce", "n_devices": 1, "sizes": {"bytes": 8.0}}, "an exchange needs two devices"),
        ({"operator": "all_reduce", "n_devices": None, "sizes": {"bytes": 8.0}}, "an exchange needs two devices"),
        (
            {"operator": "all_reduce", "n_devices": 16, "shape": "devices_per_node=8", "sizes": {"bytes": 8.0}},
            "ranks on several nodes",
        ),
        (
            {"operator": "generation_attention", "source": "LLMServingSim", "sizes": {"batch": 9.0, "kv_len": 8.0}},
            "no key is left for a sequence",
        ),
        (
            {
                "operator": "generation_attention",
                "source": "aiconfigurator",
                "device": "A100",
                "sizes": {"batch": 1.0, "kv_len": 8.0, "heads": 8.0, "kv_heads": 1.0, "head_dim": 64.0},
            },
            "the timed kernel keeps keys alone",
        ),
    ],
)
def test_an_operator_without_an_estimate_has_its_reason(changes: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(UnmappableError) as caught:
        timed(operator(**changes))
    assert reason in str(caught.value)


# Stacks.

EXPERT = {"hidden": 64, "n": 512}
JOINED = {"source": "aiconfigurator", "engine": "custom allreduce graph"}
ROWS: list[dict[str, Any]] = [
    {"operator": "gemm", "m": 7, "n": 128, "k": 64},
    {"operator": "gemm", "m": 700, "n": 128, "k": 4096, "source": "NeuSight"},
    {"operator": "gemm", "m": 512, "n": 5120, "k": 5120, "w_dtype": "sq"},
    {"operator": "gemm", "m": 3, "n": 1, "k": 77777},
    {"operator": "gemm", "m": 7, "n": 128, "k": 64, "device": "h100-sxm-80gb"},
    {"operator": "gemm", "m": 9, "n": 100, "k": 900, "w_dtype": "fp8", "device": "h100-sxm-80gb"},
    {"operator": "gemm", "m": 900, "n": 1000, "k": 90, "w_dtype": "fp8", "device": "h100-sxm-80gb"},
    {"operator": "gemm", "m": 64, "n": 64, "k": 64, "w_dtype": "fp32", "device": "v100-sxm-16gb"},
    {"operator": "context_attention", "batch": 3, "q_len": 100, "kv_len": 300, **HEADS},
    {"operator": "context_attention", "batch": 1, "q_len": 4000, "kv_len": 4000, **HEADS},
    {"operator": "context_attention", "batch": 1, "q_len": 1, "kv_len": 40, **HEADS},
    {"operator": "generation_attention", "batch": 64, "kv_len": 3000, **HEADS},
    {"operator": "generation_attention", "batch": 64, "kv_len": 3000, "source": "LLMServingSim", **HEADS},
    {"operator": "gelu", "m": 7, "n": 1280},
    {"operator": "gelu", "m": 70000, "n": 1280},
    {"operator": "softmax", "m": 7, "n": 128},
    {"operator": "emb", **LAYER},
    {"operator": "input_layernorm", **LAYER},
    {"operator": "input_layernorm", **LAYER, "batch": 4000},
    {"operator": "moe", "shape": MOE, "m": 5, "hidden": 64, "n": 512},
    {"operator": "moe", "shape": MOE, "m": 500, "hidden": 64, "n": 512},
    {"operator": "moe", "shape": MOE.replace("experts=8", "experts=60"), "m": 11, "hidden": 64, "n": 512},
    {"operator": "all_reduce", "n_devices": 4, "bytes": 1024},
    {"operator": "all_reduce", "n_devices": 4, "bytes": 1e9},
    {"operator": "all_reduce", "n_devices": 8, "bytes": 1e9},
    {"operator": "all_reduce", "n_devices": 4, "bytes": 8e6, **JOINED},
    {"operator": "all_reduce", "n_devices": 4, "bytes": 9e6, **JOINED},
    {"operator": "send_recv", "n_devices": 2, "bytes": 1e6},
    *({"operator": "gemm", "m": m, "n": 37 * m, "k": 64 * (1 + m % 5)} for m in range(1, 2000, 3)),
    *({"operator": "moe", "shape": MOE.replace("experts=8", "experts=60"), "m": m, **EXPERT} for m in range(1, 100)),
    *({"operator": "layernorm", "m": m, "n": 512 + m} for m in range(1, 4000, 97)),
]


def every_row() -> list[Timed]:
    return [timed(operator(**changes, line=index)) for index, changes in enumerate(ROWS)]


def seconds(stack: Stack) -> list[float]:
    return np.broadcast_to(stack.time_s(), len(stack.rows)).tolist()


def test_stacked_rows_take_what_each_takes_alone() -> None:
    """Bit for bit, whatever else is in the stack."""
    rows = every_row()
    alone = {id(row): seconds(stacked([row])[0])[0] for row in rows}
    assert all(value > 0.0 for value in alone.values())
    together = {
        id(row): value for stack in stacked(rows) for row, value in zip(stack.rows, seconds(stack), strict=True)
    }
    assert together == alone


def test_a_stack_holds_rows_that_differ_in_numbers_only() -> None:
    rows = every_row()
    stacks = stacked(rows)
    assert sorted(id(row) for stack in stacks for row in stack.rows) == sorted(id(row) for row in rows)
    assert 1 < len(stacks) < len(rows)
    for stack in stacks:
        for row in stack.rows:
            same = ("family", "gpu", "precision", "engine", "ranks")
            assert [getattr(row, name) for name in same] == [getattr(stack.first, name) for name in same]
            assert [(node.name, type(node.op)) for node in row.nodes] == [(n.name, type(n.op)) for n in stack.nodes]
    assert sum(stack.first.family == "gemm" for stack in stacks) == 5
    assert stacked([]) == ()


def test_a_stack_has_its_measured_seconds_and_those_of_the_methods() -> None:
    values = ((1e-5, "a test"), (2e-5, "NeuSight"))
    rows = [of("gemm", m=7, n=128, k=64, value=value, source=source) for value, source in values]
    (stack,) = stacked(rows)
    assert stack.measured_s.tolist() == [1e-5, 2e-5]
    assert stack.launch_s.tolist() == [0.0, rows[1].launch_s]
    plain, launched = seconds(stack)
    assert launched == pytest.approx(plain + rows[1].launch_s, rel=1e-12)


def test_a_method_hides_what_is_quicker_than_it() -> None:
    rows = [timed(operator(operator="send_recv", n_devices=2, bytes=size, source="vidur")) for size in (8, 1e9)]
    quick, slow = (value for stack in stacked(rows) for value in seconds(stack))
    assert quick >= rows[0].least_s
    assert slow > 100.0 * rows[0].least_s


def test_a_stack_knows_its_generation_and_its_link() -> None:
    (product,) = stacked([of("gemm", m=7, n=128, k=64)])
    (exchange,) = stacked([of("all_reduce", n_devices=4, bytes=1024)])
    (bus,) = stacked([of("all_reduce", n_devices=4, bytes=1024, device="rtx-a6000")])
    assert (product.generation, product.link_kind) == ("ampere", None)
    assert (exchange.link_kind, bus.link_kind) == ("fabric", "bus")


def test_coefficients_of_a_stack_may_be_replaced() -> None:
    (product,) = stacked([of("gemm", m=7, n=128, k=64)])
    (exchange,) = stacked([of("all_reduce", n_devices=4, bytes=1024)])
    kernels, reached = product.machine(), exchange.machine()
    ampere, fabric = load(KernelSpec, "ampere"), load(CollectiveSpec, "fabric")
    assert product.machine(kernels=ampere) == kernels
    assert exchange.machine(reached=fabric) == reached
    slower = ampere.model_copy(update={"kernel_start_s": 1.0})
    assert product.time_s(kernels=slower) > 1.0 > product.time_s()
    start = fabric.model_copy(update={"start_cycles": 1e12})
    assert exchange.time_s(reached=start) > 1.0 > exchange.time_s()


# Files.


def test_a_row_of_a_file_is_an_operator_with_its_sizes(tmp_path: Path) -> None:
    columns = ["source", "engine", "device", "op", "m", "n", "k", "dtype", "metric", "value", "unit", "outcome"]
    row = {"op": "gemm", "m": "7", "n": "128", "k": "64", "dtype": "bfloat16", "metric": "time_ms", "value": "0.02"}
    (record,) = read_all(write(tmp_path / "a.csv", [row], columns))
    assert isinstance(record, Record)
    assert (record.operator, record.w_dtype, record.value) == ("gemm", "bfloat16", pytest.approx(2e-5))
    assert record.sizes == {"m": 7.0, "n": 128.0, "k": 64.0}
    assert timed(record).precision == "bf16"
