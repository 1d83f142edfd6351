"""Attention blocks of a model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from .base import Count, Positive, Spec


class GroupedQueryAttention(Spec):
    """Softmax attention; `kv_heads = heads` is multi-head, `kv_heads = 1` is multi-query."""

    kind: Literal["gqa"] = "gqa"
    heads: Count
    kv_heads: Count
    head_dim: Count
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    """Queries and keys are normalised per head (one weight of head_dim each)."""
    window_tokens: Count | None = None
    """Each query sees at most this many tokens, itself included."""
    logit_cap: Positive | None = None
    """Scores pass through cap * tanh(score / cap)."""

    @model_validator(mode="after")
    def _kv_heads_divide_heads(self) -> Self:
        _check_groups(self.heads, self.kv_heads)
        return self


class CrossAttention(Spec):
    """Softmax attention of a decoder over the output of an encoder: keys and values come from there."""

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
