"""Attention blocks of a model: what mixes the tokens of a sequence by comparing them."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from .base import Block, Count, Positive, Spec


class Indexer(Spec):
    """A small attention that picks the `tokens` cached ones which each query of the large one sees.

    Its keys, one of `head_dim` values a token, are cached beside those of the large one.
    """

    heads: Count
    head_dim: Count
    tokens: Count


class GroupedQueryAttention(Block):
    """Softmax attention; `kv_heads = heads` is multi-head, `kv_heads = 1` is multi-query."""

    shared_fields: ClassVar = {"heads": "heads"}
    copied_fields: ClassVar = {"key-value heads": "kv_heads"}

    kind: Literal["gqa"] = "gqa"
    heads: Count
    kv_heads: Count
    head_dim: Count
    value_dim: Count | None = None
    """Values of a head of V; None: `head_dim`."""
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool | Literal["whole"] = False
    """Queries and keys are normalised per head (one weight of head_dim each), or as whole vectors of all heads."""
    gate: Literal["value", "head"] | None = None
    """Results are multiplied by a sigmoid of a product of the input: one for each value, or for each head."""
    rotated: bool = True
    """False: queries and keys are not turned though the model's positions are rotary."""
    sinks: bool = False
    """Whether each head has a learned score that takes its share of the softmax."""
    values_are_keys: bool = False
    """Whether the product for keys makes the values too."""
    borrowed: bool = False
    """Whether keys and values are those of an earlier layer: no product makes them, and nothing is cached."""
    window_tokens: Count | None = None
    """Each query sees at most this many tokens, itself included."""
    chunk_tokens: Count | None = None
    """Sequences are cut into chunks of so many tokens, and each query sees those of its own."""
    indexer: Indexer | None = None
    logit_cap: Positive | None = None
    """Scores pass through cap * tanh(score / cap)."""

    @model_validator(mode="after")
    def _kv_heads_divide_heads(self) -> Self:
        _check_groups(self.heads, self.kv_heads)
        if self.window_tokens is not None and self.chunk_tokens is not None:
            raise ValueError("window_tokens and chunk_tokens exclude each other: give one of them")
        return self


class LatentAttention(Block):
    """Multi-head latent attention: a token's keys and values are products of `kv_rank` cached values.

    `rope_dim` values of each key are turned by position and shared by all heads; they are cached beside the latent
    ones. An engine either makes keys and values of all cached tokens, or absorbs those products into the queries and
    the results and attends over the latent values.
    """

    shared_fields: ClassVar = {"heads": "heads"}

    kind: Literal["mla"] = "mla"
    heads: Count
    q_rank: Count | None = None
    """Values of the vector that queries are made of; None: they are made of the layer's input."""
    kv_rank: Count
    nope_dim: Count
    rope_dim: Count
    value_dim: Count
    qkv_bias: bool = False
    out_bias: bool = False
    indexer: Indexer | None = None


class CompressedAttention(Block):
    """Attention with one key for all heads, which is its value too, over a window and a compressed past.

    `ratio` tokens become one entry of the compressed past (None: there is none), of which an `indexer` may pick some.
    Queries are made of `q_rank` values; results of `out_groups` groups of heads pass through `out_rank` values each.
    """

    shared_fields: ClassVar = {"heads": "heads", "groups of results": "out_groups"}

    kind: Literal["compressed"] = "compressed"
    heads: Count
    head_dim: Count
    rope_dim: Count
    q_rank: Count
    out_rank: Count
    out_groups: Count
    window_tokens: Count
    ratio: Count | None = None
    indexer: Indexer | None = None
    sinks: bool = True


class CrossAttention(Block):
    """Softmax attention of a decoder over the output of an encoder: keys and values come from there."""

    shared_fields: ClassVar = {"heads": "heads"}
    copied_fields: ClassVar = {"key-value heads": "kv_heads"}

    heads: Count
    kv_heads: Count
    head_dim: Count
    qkv_bias: bool = False
    out_bias: bool = False

    @model_validator(mode="after")
    def _kv_heads_divide_heads(self) -> Self:
        _check_groups(self.heads, self.kv_heads)
        return self


def _check_groups(heads: int, kv_heads: int) -> None:
    """Refuse heads that do not share keys evenly."""
    if heads % kv_heads:
        raise ValueError(f"heads is {heads}, which kv_heads = {kv_heads} does not divide")
