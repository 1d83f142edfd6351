from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_perf_model as lpm
from llm_perf_model.exchange import EXCHANGES
from llm_perf_model.graph.stack import build, kv_bytes_per_token, parameters, weights_bytes
from llm_perf_model.ops.batch import Batch
from llm_perf_model.ops.dense import Embedding, Linear
from llm_perf_model.ops.moe import ExpertLinear
from llm_perf_model.ops.node import Graph, Node
from llm_perf_model.specs.catalog import load
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.precision import PrecisionSpec

from .strategies import (
    FUSIONS,
    NARROW,
    PRECISIONS,
    TPS,
    batches,
    engines,
    explicit_pairs,
    is_plain,
    models,
    precisions,
    spec_parameters,
    wholes,
)

IDEAL = load(EngineSpec, "ideal")
HALF = load(PrecisionSpec, "w16a16")
ROW_PARALLEL = ("attention_out", "ffn_down")
"""Products whose outputs are summed over ranks: each rank keeps the whole bias."""
PRODUCTS = ("gemm", "expert_gemm", "attention")

split = st.sampled_from(TPS)
many = settings(max_examples=150)
"""A description has many independent choices: graphs are cheap, so more of them are drawn."""


def products(graph: Graph) -> Iterator[Node]:
    return (node for node in graph if node.op.kind in PRODUCTS)


def flops(graph: Graph, batch: Batch) -> float:
    return float(sum(node.count * node.op.cost(batch).flops for node in products(graph)))


def attention_flops(model: ModelSpec, batch: Batch) -> float:
    """Of the pairs that a mask leaves; an encoder masks nothing."""
    total = 0.0
    for group in model.layers:
        a = group.attention
        window = float(a.window_tokens or 2**60)
        causal = sum(g.seqs * explicit_pairs(g, window) for g in batch.groups)
        pairs = causal if model.causal else sum(g.seqs * g.new * (g.past + g.new) for g in batch.groups)
        total += 4.0 * group.count * pairs * a.heads * a.head_dim
    return total


def router_weights(model: ModelSpec) -> int:
    """Weights of the routers, of which each rank keeps a copy."""
    return sum(g.count * model.hidden * g.ffn.experts for g in model.layers if g.ffn.kind == "moe")


def visited_weights(model: ModelSpec) -> int:
    """Weights of the layers' matrices that a token meets, without biases, norms, tables and the head."""
    count = router_weights(model)
    for group in model.layers:
        a, f = group.attention, group.ffn
        matrices = (2 * a.heads + 2 * a.kv_heads) * a.head_dim
        if f.kind == "moe":
            matrices += 3 * (f.experts_per_token * f.intermediate + (f.shared_intermediate or 0))
        else:
            matrices += (3 if f.kind == "gated" else 2) * f.intermediate
        count += group.count * model.hidden * matrices
    return count


def narrow_weights(model: ModelSpec) -> int:
    """Weights of the layers' products and their biases, of all experts, and of a pooler."""
    count = model.hidden * (model.hidden + 1) if model.head == "pooler" else 0
    for group in model.layers:
        a, f, h = group.attention, group.ffn, model.hidden
        fused = (a.heads + 2 * a.kv_heads) * a.head_dim
        layer = h * fused + a.qkv_bias * fused + a.heads * a.head_dim * h + a.out_bias * h
        if f.kind == "moe":
            layer += 3 * h * (f.experts * f.intermediate + (f.shared_intermediate or 0))
        else:
            inner = f.intermediate * (2 if f.kind == "gated" else 1)
            layer += h * (inner + f.intermediate) + f.bias * (inner + h)
        count += group.count * layer
    return count


def copied_columns(model: ModelSpec, tp: int) -> list[tuple[int, int]]:
    """Per group of layers, its count and the key and value columns of all ranks beyond one copy."""
    return [
        (g.count, 2 * g.attention.head_dim * (max(tp, g.attention.kv_heads) - g.attention.kv_heads))
        for g in model.layers
    ]


@many
@given(models(heads=("lm", "pooler", "none"), encoders=True), engines(), precisions())
def test_parameters_and_weights_are_those_of_the_description(
    model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec
) -> None:
    """Layers' products at the precision's width; embedding, norms, routers and output head stay wide."""
    graph = build(model, engine, precision, 1)
    assert parameters(graph) == spec_parameters(model)
    narrow, wide = narrow_weights(model), spec_parameters(model) - narrow_weights(model)
    assert weights_bytes(graph) == pytest.approx(
        narrow * precision.weight_bytes + wide * precision.wide_bytes, rel=1e-12
    )


@pytest.mark.parametrize("name", lpm.models())
def test_published_parameter_count_within_one_percent(name: str) -> None:
    model = load(ModelSpec, name)
    assert parameters(build(model, IDEAL, HALF, 1)) == pytest.approx(model.parameters, rel=0.01)
    if is_plain(model):
        assert spec_parameters(model) == parameters(build(model, IDEAL, HALF, 1))


@many
@given(models(encoders=True), precisions(), batches())
def test_flops_are_two_per_weight_and_token_plus_attention(
    model: ModelSpec, precision: PrecisionSpec, batch: Batch
) -> None:
    """At any precision: of experts, those that a token visits."""
    head = 2.0 * batch.seqs * model.hidden * model.vocab
    expected = 2.0 * visited_weights(model) * batch.tokens + head + attention_flops(model, batch)
    assert flops(build(model, IDEAL, precision, 1), batch) == expected


@given(models(), batches())
def test_logits_of_all_tokens_run_the_head_on_each(model: ModelSpec, batch: Batch) -> None:
    every_row = IDEAL.model_copy(update={"logits": "all"})
    more = flops(build(model, every_row, HALF, 1), batch) - flops(build(model, IDEAL, HALF, 1), batch)
    assert more == 2.0 * (batch.tokens - batch.seqs) * model.hidden * model.vocab


@many
@given(models(), batches(), split)
def test_flops_of_the_ranks_sum_to_the_whole(model: ModelSpec, batch: Batch, tp: int) -> None:
    whole, part = (flops(build(model, IDEAL, HALF, ranks), batch) for ranks in (1, tp))
    copies = sum(count * columns for count, columns in copied_columns(model, tp))
    routers = (tp - 1) * router_weights(model)
    assert tp * part == whole + 2.0 * batch.tokens * (model.hidden * copies + routers)


@many
@given(models(), engines(), split)
def test_stored_products_of_the_ranks_sum_to_the_whole(model: ModelSpec, engine: EngineSpec, tp: int) -> None:
    whole, part = ({n.name: n for n in products(build(model, engine, HALF, ranks))} for ranks in (1, tp))
    assert whole.keys() == part.keys()
    copied = 0.0
    for name, node in whole.items():
        alone = node.op.parameters
        if name.endswith(ROW_PARALLEL) and getattr(node.op, "bias", False):
            alone += (tp - 1) * model.hidden
        if name.endswith("router"):
            assert part[name].op.parameters == alone
        elif name.endswith("qkv"):
            copied += node.count * (tp * part[name].op.parameters - alone)
        else:
            assert tp * part[name].op.parameters == alone, name
    biased = zip(copied_columns(model, tp), model.layers, strict=True)
    assert copied == sum(n * columns * (model.hidden + g.attention.qkv_bias) for (n, columns), g in biased)


@many
@given(models(), engines(), precisions(), split)
def test_cache_of_the_ranks_is_the_whole_or_a_copy_per_rank(
    model: ModelSpec, engine: EngineSpec, precision: PrecisionSpec, tp: int
) -> None:
    expected = 0.0
    for group in model.layers:
        a = group.attention
        expected += group.count * 2 * a.kv_heads * a.head_dim * precision.kv_bytes * max(tp / a.kv_heads, 1.0)
    assert tp * kv_bytes_per_token(build(model, engine, precision, tp)) == expected
    encoder = model.model_copy(update={"causal": False})
    assert kv_bytes_per_token(build(encoder, engine, precision, tp)) == 0.0


@many
@given(models(), split, batches())
def test_exchanges_are_an_embedding_one_per_added_branch_and_the_logits(
    model: ModelSpec, tp: int, batch: Batch
) -> None:
    graph = build(model, IDEAL, HALF, tp)
    counts: Counter[str] = Counter()
    for node in graph:
        if node.op.kind in EXCHANGES:
            assert node.role == "communication"
            assert node.op.cost(batch).comm_bytes > 0.0
            counts[type(node.op).__name__] += int(node.count)
    branches = sum(group.count * (1 if group.parallel else 2) for group in model.layers)
    assert counts == ({} if tp == 1 else {"AllReduce": 1 + branches, "AllGather": 1})


@given(models(), engines(), split)
def test_names_are_unique_and_start_with_the_embedding(model: ModelSpec, engine: EngineSpec, tp: int) -> None:
    names = [node.name for node in build(model, engine, HALF, tp)]
    assert len(set(names)) == len(names)
    assert (names[0], names[-1]) == ("embedding", "sample")


@given(models(), engines(), st.sampled_from(FUSIONS), batches())
def test_fusing_saves_traffic_and_kernels_but_no_weights(
    model: ModelSpec, engine: EngineSpec, fusion: str, batch: Batch
) -> None:
    apart, joined = (
        build(model, engine.model_copy(update={"fused": fused}), HALF, 1)
        for fused in (engine.fused - {fusion}, engine.fused | {fusion})
    )

    def kernels(graph: Graph) -> float:
        return sum(node.count * node.kernels for node in graph)

    def traffic(graph: Graph) -> float:
        return sum(node.count * node.op.cost(batch).hbm_bytes for node in graph)

    def has(name: str) -> bool:
        return any(node.name.endswith(name) for node in apart)

    affected = {"bias": "_bias", "residual_norm": "norm", "activation": "s_activation", "rotary": "rotary"}
    dense = any(node.name.endswith("ffn_activation") for node in apart)
    affected |= {"activation": "ffn_activation"} if dense else {}
    if fusion == "residual_norm" and not any(group.norms for group in model.layers):
        assert apart == joined
    elif has(affected[fusion]):
        assert kernels(joined) < kernels(apart)
        assert traffic(joined) < traffic(apart)
    else:
        assert apart == joined
    assert parameters(apart) == parameters(joined)


@given(models(), engines(), wholes(1, 6))
def test_groups_of_equal_layers_may_be_merged(model: ModelSpec, engine: EngineSpec, more: float) -> None:
    first = model.layers[0]
    merged = model.model_copy(update={"layers": (first.model_copy(update={"count": first.count + int(more)}),)})
    split_up = model.model_copy(update={"layers": (first, first.model_copy(update={"count": int(more)}))})
    batch = Batch.uniform(2.0, 5.0, 3.0)
    one, two = (build(m, engine, HALF, 2) for m in (merged, split_up))
    assert flops(one, batch) == flops(two, batch)
    assert parameters(one) == parameters(two)
    assert sum(n.count * n.kernels for n in one) == sum(n.count * n.kernels for n in two)


def test_llama_2_7b_keeps_half_a_mebibyte_of_cache_per_token() -> None:
    """Key and value of 4096 values each, in 32 layers, at 2 bytes: 2 x 32 x 4096 x 2 = 524,288."""
    assert kv_bytes_per_token(build(load(ModelSpec, "llama-2-7b"), IDEAL, HALF, 1)) == 524288.0


def test_all_reduces_of_a_13b_prefill_by_hand() -> None:
    """512 tokens of 5120 values at 2 bytes are S = 5,242,880 bytes.

    A ring over 2 ranks sends 2 (2-1)/2 S = S, once after the embedding and twice in each of 40 layers;
    the gathered logits of one row are 50272 x 2 bytes, of which a rank sends half.
    """
    graph = build(load(ModelSpec, "test-13b"), IDEAL, HALF, 2)
    batch = Batch.uniform(1.0, 512.0, 0.0)
    sent = sum(node.count * node.op.cost(batch).comm_bytes for node in graph)
    assert sent == 81 * 5_242_880 + 50_272


@pytest.mark.parametrize(("model", "values"), [("llama-2-7b", 3 * 11008), ("opt-6.7b", 2 * 16384)])
def test_an_activation_apart_reads_its_inputs_and_writes_its_output(model: str, values: int) -> None:
    """A gated activation reads gate and value and writes their product; a plain one reads and writes."""
    apart = IDEAL.model_copy(update={"fused": frozenset()})
    node = next(n for n in build(load(ModelSpec, model), apart, HALF, 1) if n.name == "ffn_activation")
    assert node.op.cost(Batch.uniform(1.0, 7.0, 0.0)).hbm_bytes == 7 * values * 2


# Experts.

MIXTRAL = load(ModelSpec, "mixtral-8x7b")


def named(graph: Graph, name: str) -> Node:
    (found,) = (node for node in graph if node.name == name)
    return found


def test_weights_of_mixtral_8x7b_by_hand() -> None:
    """32 layers of 8 experts of 3 x 4096 x 14336, 4 x 4096 of router a token, and 32 heads of which 8 keep keys.

    arXiv:2401.04088 gives 47 B parameters, of which a token uses 13 B.
    """
    layer = 8 * 3 * 4096 * 14336 + 8 * 4096 + 4096 * (32 + 2 * 8) * 128 + 4096 * 4096 + 2 * 4096
    whole = 32 * layer + 4096 + 2 * 32000 * 4096
    graph = build(MIXTRAL, IDEAL, HALF, 1)
    assert parameters(graph) == whole == pytest.approx(47e9, rel=0.01)
    assert visited_weights(MIXTRAL) + 2 * 32000 * 4096 == pytest.approx(13e9, rel=0.01)


@pytest.mark.parametrize(("tokens", "visited"), [(1, 2.0), (2, 3.5), (64, 8 * (1 - 0.75**64)), (4096, 8.0)])
def test_a_step_reads_the_experts_that_its_tokens_visit(tokens: int, visited: float) -> None:
    graph, batch = build(MIXTRAL, IDEAL, HALF, 1), Batch.uniform(float(tokens), 1.0, 0.0)
    for name, d_in, d_out in (("experts_gate_up", 4096, 2 * 14336), ("experts_down", 14336, 4096)):
        cost = named(graph, name).op.cost(batch)
        assert cost.weight_bytes == pytest.approx(visited * d_in * d_out * 2, rel=1e-12)
        assert cost.flops == 2.0 * 2 * tokens * d_in * d_out


def test_passes_between_the_experts_see_each_visit() -> None:
    """Two visits of a token: an activation of 14336 values each, and a weighted sum of two results into one."""
    graph = build(MIXTRAL, IDEAL.model_copy(update={"fused": frozenset()}), HALF, 2)
    batch = Batch.uniform(3.0, 1.0, 9.0)
    assert named(graph, "experts_activation").op.cost(batch).hbm_bytes == 3 * 2 * 7168 * 3 * 2
    assert named(graph, "experts_sum").op.cost(batch).hbm_bytes == 3 * 4096 * (2 + 1) * 2
    assert named(graph, "route").op.cost(batch).hbm_bytes == 3 * 8 * 2 * 2


def test_a_shared_expert_sees_every_token() -> None:
    ffn = MIXTRAL.layers[0].ffn.model_copy(update={"shared_intermediate": 640})
    group = MIXTRAL.layers[0].model_copy(update={"ffn": ffn})
    plain, shared = (
        build(MIXTRAL.model_copy(update={"layers": (each,)}), IDEAL, HALF, 2) for each in (MIXTRAL.layers[0], group)
    )
    assert {node.name for node in shared} - {node.name for node in plain} == {
        "shared_ffn_gate_up", "shared_ffn_activation", "shared_ffn_down"
    } - ({"shared_ffn_activation"} if "activation" in IDEAL.fused else set())  # fmt: skip
    assert parameters(shared) - parameters(plain) == 32 * 3 * 4096 * 320
    batch = Batch.uniform(5.0, 1.0, 0.0)
    assert flops(shared, batch) - flops(plain, batch) == 2.0 * 5 * 32 * 3 * 4096 * 320


# Precisions.

WIDE = ("lm_head", "router")


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("model", ["llama-2-7b", "mixtral-8x7b"])
def test_layers_products_are_narrow_and_the_embedding_and_the_head_wide(model: str, name: str) -> None:
    """Also the rate: the head runs on the wide unit, as does the router."""
    precision = load(PrecisionSpec, name)
    graph = build(load(ModelSpec, model), IDEAL, precision, 1)
    for node in graph:
        if isinstance(node.op, Linear | ExpertLinear):
            wide = node.name in WIDE
            assert node.op.weight_bytes == (precision.wide_bytes if wide else precision.weight_bytes)
            read = node.op.read_bytes if isinstance(node.op, Linear) else node.op.input_bytes
            assert read == (precision.activation_bytes if wide else precision.read_bytes)
            assert node.kind == ("wide_gemm" if wide and name in NARROW else node.op.kind)
    assert isinstance(graph[0].op, Embedding)
    assert graph[0].op.weight_bytes == precision.wide_bytes
    assert precision.wide_bytes == precision.activation_bytes


def test_weights_of_a_4_bit_llama_by_hand() -> None:
    """6,476,005,376 weights of products at 0.5 byte and 2.5 bytes a group of 128; 262,410,240 others at 2 bytes."""
    graph = build(load(ModelSpec, "llama-2-7b"), IDEAL, load(PrecisionSpec, "w4a16"), 1)
    assert weights_bytes(graph) == 6_476_005_376 * (0.5 + 2.5 / 128) + 262_410_240 * 2


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("model", ["llama-2-7b", "mixtral-8x7b"])
def test_inputs_are_narrowed_before_each_narrow_product_where_the_precision_needs_it(model: str, name: str) -> None:
    """A pass reads 2 bytes a value and writes what products read; of experts, after the visits are known."""
    precision, batch = load(PrecisionSpec, name), Batch.uniform(3.0, 1.0, 9.0)
    names = [node.name for node in build(load(ModelSpec, model), IDEAL, precision, 1)]
    graph = build(load(ModelSpec, model), IDEAL, precision, 1)
    narrowed = [n.removesuffix("_narrowing") for n in names if n.endswith("_narrowing")]
    moe = ["experts_gate_up", "experts_down"]
    dense = ["ffn_gate_up", "ffn_down"]
    expected = ["qkv", "attention_out", *(moe if model == "mixtral-8x7b" else dense)]
    assert narrowed == (expected if precision.narrowing_pass else [])
    for product in narrowed:
        assert names.index(f"{product}_narrowing") == names.index(product) - 1
        d_in = getattr(named(graph, product).op, "d_in", 0.0)
        visits = 2.0 if product == "experts_down" else 1.0
        node = named(graph, f"{product}_narrowing")
        assert node.op.cost(batch).hbm_bytes == 3 * visits * d_in * (2 + precision.read_bytes)
        assert node.count == named(graph, product).count == 32
