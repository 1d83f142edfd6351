"""Models that need every kind of mixer, from the values of their published configurations, for tests of blocks."""

from __future__ import annotations

from typing import Any

from llm_perf_model.specs.attention import CompressedAttention, GroupedQueryAttention, Indexer, LatentAttention
from llm_perf_model.specs.base import Assumption
from llm_perf_model.specs.ffn import Ffn, GatedFfn, MoeFfn, PlainFfn
from llm_perf_model.specs.mixer import (
    DecayState,
    DeltaState,
    HeadState,
    Mixer,
    SelectiveState,
    ShortConvolution,
)
from llm_perf_model.specs.model import LayerGroup, ModelSpec, Prediction, Vision

WRITTEN = (Assumption(fields=("*",), reason="values of the published configuration"),)


def model(hidden: int, vocab: int, *layers: LayerGroup, tied: bool = False, **fields: Any) -> ModelSpec:
    given: dict[str, Any] = {
        "name": "written", "title": "Written", "assumed": WRITTEN, "hidden": hidden, "vocab": vocab,
        "position": "rotary", "norm": "rmsnorm", "norm_bias": False, "tied_embeddings": tied, "layers": layers,
        "parameters": 1.0,
    }  # fmt: skip
    return ModelSpec.model_validate(given | fields)


def layers(count: int, mixer: Mixer | None, ffn: Ffn | None = None, norms: int = 2) -> LayerGroup:
    return LayerGroup(count=count, attention=mixer, ffn=ffn, norms=norms)


def moe(experts: int, visits: int, width: int, shared: int | None = None, **fields: Any) -> MoeFfn:
    given: dict[str, Any] = {"activation": "silu"} | fields
    return MoeFfn(experts=experts, experts_per_token=visits, intermediate=width, shared_intermediate=shared, **given)


def gated(width: int, activation: Any = "silu") -> GatedFfn:
    return GatedFfn(intermediate=width, activation=activation)


def gqa(heads: int, kv_heads: int, dim: int, **fields: Any) -> GroupedQueryAttention:
    return GroupedQueryAttention(heads=heads, kv_heads=kv_heads, head_dim=dim, **fields)


def mla(heads: int, q_rank: int | None = 1536, indexer: Indexer | None = None) -> LatentAttention:
    return LatentAttention(
        heads=heads, q_rank=q_rank, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128, indexer=indexer
    )


def compressed(ratio: int | None, tokens: int | None = None) -> CompressedAttention:
    return CompressedAttention(
        heads=64, head_dim=512, rope_dim=64, q_rank=1024, out_rank=1024, out_groups=8, window_tokens=128, ratio=ratio,
        indexer=None if tokens is None else Indexer(heads=64, head_dim=128, tokens=tokens),
    )  # fmt: skip


DEEP = moe(256, 8, 2048, 2048, router_bias=True)
LATENT = model(
    7168, 129280, layers(3, mla(128), gated(18432)), layers(58, mla(128), DEEP),
    prediction=Prediction(layers=(layers(1, mla(128), DEEP),)),
)  # fmt: skip
PICKING = Indexer(heads=64, head_dim=128, tokens=2048)
SPARSE = model(
    7168, 129280, layers(3, mla(128, indexer=PICKING), gated(18432)), layers(58, mla(128, indexer=PICKING), DEEP)
)
WIDE = moe(256, 6, 2048, 2048, router_bias=True)
COMPRESSED = model(
    4096, 129280, layers(2, compressed(None), WIDE), layers(21, compressed(4, 512), WIDE),
    layers(20, compressed(128), WIDE), residual_streams=4,
)  # fmt: skip
PLAIN_EXPERTS = model(2048, 151936, layers(48, gqa(32, 4, 128, qk_norm=True), moe(128, 8, 768)))
GATED_DELTA = model(
    2048, 151936,
    layers(36, DeltaState(key_heads=16, value_heads=32, key_dim=128, value_dim=128, conv_window=4),
           moe(512, 10, 512, 512, shared_gate=True)),
    layers(12, gqa(16, 2, 256, qk_norm=True, gate="value"), moe(512, 10, 512, 512, shared_gate=True)),
)  # fmt: skip
KIMI_DELTA = model(
    2304, 163840,
    *(
        layers(count, mixer, ffn)
        for mixer, parts in (
            (DeltaState(key_heads=32, value_heads=32, key_dim=128, value_dim=128, conv_window=4, decay_rank=128,
                        gate_rank=128), ((1, gated(9216)), (19, moe(256, 8, 1024, 1024, router_bias=True)))),
            (mla(32, q_rank=None), ((7, moe(256, 8, 1024, 1024, router_bias=True)),)),
        )
        for count, ffn in parts
    ),
)  # fmt: skip
TWO_STATES = model(
    8192, 131072,
    layers(54, HeadState(heads=256, head_dim=64, state=256, groups=8, conv_window=4), norms=1),
    layers(54, None, PlainFfn(intermediate=32768, activation="relu2"), norms=1),
    layers(10, gqa(64, 8, 128), norms=1),
)  # fmt: skip
SELECTIVE = model(
    4096, 65536,
    *(
        layers(count, mixer, ffn)
        for count, mixer in (
            (14, SelectiveState(inner=8192, state=16, conv_window=4, step_rank=256, inner_norms=True)),
            (2, gqa(32, 8, 128, rotated=False)),
        )
        for ffn in (moe(16, 2, 14336), gated(14336))
    ),
)  # fmt: skip
STATES_ALONE = model(
    2560, 50288, layers(64, HeadState(heads=80, head_dim=64, state=128, groups=1, conv_window=4), norms=1), tied=True
)
DECAYS = model(
    6144, 200064,
    layers(70, DecayState(heads=64, head_dim=128, gated=True), moe(32, 2, 9216)),
    layers(10, gqa(64, 8, 128), moe(32, 2, 9216)),
)  # fmt: skip
CONVOLUTIONS = model(
    2048, 65536,
    layers(10, ShortConvolution(inner=2048, conv_window=3), gated(8192)),
    layers(6, gqa(32, 8, 64, qk_norm=True), gated(8192)), tied=True,
)  # fmt: skip
SINKS = model(
    2880, 201088,
    *(
        layers(12, gqa(64, 8, 64, qkv_bias=True, out_bias=True, sinks=True, window_tokens=window),
               moe(32, 4, 2880, bias=True, router_bias=True))
        for window in (128, None)
    ),
    active_counts="head",
)  # fmt: skip
WHOLE_NORMS = model(
    3072, 200064, layers(62, gqa(48, 8, 128, qk_norm="whole"), moe(256, 8, 1536, router_bias=True)),
    active_counts="layers",
)  # fmt: skip
SEEING_CHUNKS = model(
    5120, 202048,
    layers(36, gqa(40, 8, 128, chunk_tokens=8192), moe(16, 1, 8192, 8192)),
    layers(12, gqa(40, 8, 128, rotated=False), moe(16, 1, 8192, 8192)),
    vision=Vision(
        hidden=1408, patch=14, patch_bias=False, position_rows=576, class_token=True, embedding_norm=True,
        layers=(layers(34, gqa(16, 16, 88, qkv_bias=True, out_bias=True),
                       PlainFfn(intermediate=5632, activation="gelu", bias=True)),),
        merged=4, projector=(4096, 4096, 5120), projector_bias=False,
    ),
)  # fmt: skip
KEYS_AS_VALUES = model(
    2816, 262144,
    layers(25, gqa(16, 8, 256, qk_norm=True, window_tokens=1024), moe(128, 8, 704, 2112, activation="gelu_tanh"), 7),
    layers(5, gqa(16, 2, 512, qk_norm=True, values_are_keys=True), moe(128, 8, 704, 2112, activation="gelu_tanh"), 7),
    tied=True,
)  # fmt: skip

PUBLISHED: dict[str, tuple[ModelSpec, float, float]] = {
    "DeepSeek-V3": (LATENT, 671.03e9, 37e9),
    "DeepSeek-V4-Flash": (COMPRESSED.model_copy(update={"active_counts": "layers"}), 284e9, 13e9),
    "Qwen3-30B-A3B": (PLAIN_EXPERTS, 30.53e9, 3.3e9),
    "Qwen3-Next-80B-A3B": (GATED_DELTA, 79.67e9, 3.87e9),
    "Kimi-Linear-48B-A3B": (KIMI_DELTA, 49.12e9, 3.48e9),
    "Nemotron-H-56B": (TWO_STATES, 56.3e9, 56.3e9),
    "Jamba-v0.1": (SELECTIVE, 51.57e9, 12e9),
    "mamba2-2.7b": (STATES_ALONE, 2.70e9, 2.70e9),
    "MiniMax-Text-01": (DECAYS.model_copy(update={"active_counts": "layers"}), 456e9, 45.9e9),
    "MiniMax-M2": (WHOLE_NORMS, 228.7e9, 10e9),
    "LFM2-1.2B": (CONVOLUTIONS, 1.17e9, 1.17e9),
    "gpt-oss-20b": (SINKS, 20.91e9, 3.61e9),
    "Llama-4-Scout": (SEEING_CHUNKS, 108.64e9, 17.2e9),
    "gemma-4-26B-A4B": (KEYS_AS_VALUES, 25.23e9, 3.8e9),
}
"""Model, and the parameters and active ones that its card or its safetensors index states."""
