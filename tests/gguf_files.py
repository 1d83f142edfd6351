"""GGUF files written from specs, with tensors of zeros."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

from llm_perf_model.specs.attention import GroupedQueryAttention, LatentAttention
from llm_perf_model.specs.ffn import Ffn, MoeFfn
from llm_perf_model.specs.model import LayerGroup, ModelSpec

Q = GGMLQuantizationType
Shape = tuple[int, ...]


def layers(model: ModelSpec) -> Iterator[LayerGroup]:
    """Every layer by itself."""
    for group in model.layers:
        yield from [group] * group.count


def _attention(a: GroupedQueryAttention | LatentAttention, hidden: int) -> Iterator[tuple[str, Shape]]:
    if isinstance(a, LatentAttention):
        yield "attn_kv_a_mqa.weight", (hidden, a.kv_rank + a.rope_dim)
        yield "attn_kv_a_norm.weight", (a.kv_rank,)
        width = a.heads * (a.nope_dim + a.rope_dim)
        if a.q_rank:
            yield "attn_q_a.weight", (hidden, a.q_rank)
            yield "attn_q_a_norm.weight", (a.q_rank,)
            yield "attn_q_b.weight", (a.q_rank, width)
        else:
            yield "attn_q.weight", (hidden, width)
        yield "attn_k_b.weight", (a.nope_dim, a.kv_rank, a.heads)
        yield "attn_v_b.weight", (a.kv_rank, a.value_dim, a.heads)
        yield "attn_output.weight", (a.heads * a.value_dim, hidden)
        return
    width, kv = a.heads * a.head_dim, a.kv_heads * a.head_dim
    for name, size in (("attn_q", width), ("attn_k", kv), ("attn_v", kv)):
        yield f"{name}.weight", (hidden, size)
        if a.qkv_bias:
            yield f"{name}.bias", (size,)
    yield "attn_output.weight", (width, hidden)
    if a.out_bias:
        yield "attn_output.bias", (hidden,)
    if a.qk_norm:
        for name, size in (("attn_q_norm", width), ("attn_k_norm", kv)):
            yield f"{name}.weight", (a.head_dim if a.qk_norm is True else size,)
    if a.sinks:
        yield "attn_sinks.weight", (a.heads,)


def _ffn(f: Ffn, hidden: int) -> Iterator[tuple[str, Shape]]:
    if not isinstance(f, MoeFfn):
        up = ("ffn_gate", "ffn_up") if f.kind == "gated" else ("ffn_up",)
        for name in up:
            yield f"{name}.weight", (hidden, f.intermediate)
            if f.bias:
                yield f"{name}.bias", (f.intermediate,)
        yield "ffn_down.weight", (f.intermediate, hidden)
        if f.bias:
            yield "ffn_down.bias", (hidden,)
        return
    yield "ffn_gate_inp.weight", (hidden, f.experts)
    for name in ("ffn_gate_exps", "ffn_up_exps"):
        yield f"{name}.weight", (hidden, f.intermediate, f.experts)
    yield "ffn_down_exps.weight", (f.intermediate, hidden, f.experts)
    if f.shared_intermediate:
        for name in ("ffn_gate_shexp", "ffn_up_shexp"):
            yield f"{name}.weight", (hidden, f.shared_intermediate)
        yield "ffn_down_shexp.weight", (f.shared_intermediate, hidden)
    if f.shared_gate:
        yield "ffn_gate_inp_shexp.weight", (hidden,)


def tensors(model: ModelSpec) -> Iterator[tuple[str, Shape]]:
    """Names and shapes, inputs before outputs."""
    hidden, bias = model.hidden, model.norm == "layernorm" and model.norm_bias
    norms = ["output_norm"] + (["token_embd_norm"] if model.embedding_norm else [])
    yield "token_embd.weight", (hidden, model.vocab)
    if model.position == "learned":
        yield "position_embd.weight", (hidden, model.learned_rows)
    if not model.tied_embeddings:
        yield "output.weight", (hidden, model.vocab)
    for index, layer in enumerate(layers(model)):
        start = f"blk.{index}."
        after = [] if layer.norms == 1 else ["ffn_norm"]
        norms += [start + each for each in ["attn_norm", *after, "post_attention_norm", "post_ffw_norm"][: layer.norms]]
        assert isinstance(layer.attention, GroupedQueryAttention | LatentAttention) and layer.ffn is not None
        yield from ((start + name, shape) for name, shape in _attention(layer.attention, hidden))
        yield from ((start + name, shape) for name, shape in _ffn(layer.ffn, hidden))
    for name in norms:
        yield f"{name}.weight", (hidden,)
        if bias:
            yield f"{name}.bias", (hidden,)


def write(
    model: ModelSpec, path: Path, architecture: str = "llama", kind: Q = Q.F16, extra: dict[str, Shape] | None = None
) -> int:
    """The file of a model, with matrices of a type and vectors of 32 bits; the bytes of its tensors."""
    writer = GGUFWriter(path, architecture)
    writer.add_name(model.title)
    writer.add_block_count(model.layer_count)
    if model.max_positions:
        writer.add_context_length(model.max_positions)
    (writer.add_layer_norm_eps if model.norm == "layernorm" else writer.add_layer_norm_rms_eps)(1e-5)
    attention = model.layers[0].attention
    writer.add_head_count(attention.heads)  # type: ignore[union-attr]
    if isinstance(attention, GroupedQueryAttention):
        writer.add_head_count_kv([each.attention.kv_heads for each in layers(model)])  # type: ignore[union-attr]
        writer.add_key_length(attention.head_dim)
        windows = {each.attention.window_tokens for each in layers(model)} - {None}  # type: ignore[union-attr]
        for window in windows:
            writer.add_sliding_window(window)
    ffn = model.layers[-1].ffn
    if isinstance(ffn, MoeFfn):
        writer.add_expert_used_count(ffn.experts_per_token)
    writer.add_token_list([str(number) for number in range(8)])
    held = 0
    for name, shape in [*tensors(model), *(extra or {}).items()]:
        own = kind if len(shape) > 1 and shape[0] % GGML_QUANT_SIZES[kind][0] == 0 else Q.F32
        values, size = GGML_QUANT_SIZES[own]
        row = (*shape[:0:-1], shape[0] // values * size)
        held += int(np.prod(row))
        data = np.zeros(row, np.uint8) if own is not Q.F32 else np.zeros(shape[::-1], np.float32)
        writer.add_tensor(name, data, raw_dtype=None if own is Q.F32 else own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held
