"""Words that follow from others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPRESSED = ("compressed_sparse_attention", "heavily_compressed_attention")
"""Kinds of layers that compress the past a little and much."""


def settled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values with what a word for several things at once says about each of them."""
    said = dict(values)
    if said.get("no_bias") is not None:
        said["bias"] = not said["no_bias"]
    if said.get("bias") is not None:
        said |= {"attention_bias": said["bias"], "ffn_bias": said["bias"]}
    if said.get("linear_bias") is not None:
        said |= {"out_bias": said["linear_bias"], "ffn_bias": said["linear_bias"]}
    return said | _of_ratios(said) | _of_heads(said) | _of_norms(said) | _of_feeds(said)


def _of_ratios(said: Mapping[str, Any]) -> dict[str, Any]:
    """How much each layer compresses the past, where a config says it by the kinds of layers."""
    kinds = said.get("mixer_types")
    if "rate_low" not in said or not isinstance(kinds, list):
        return {}
    ratios = {COMPRESSED[0]: said["rate_low"], COMPRESSED[1]: said["rate_high"]}
    return {"mixer_types": None, "ratios": [ratios.get(kind, 0) for kind in kinds]}


def _of_heads(said: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of one head, unless groups of heads share theirs."""
    if said.get("grouped") is False:
        return {"kv_heads": None}
    if "multi_query" in said and not said.get("two_norms"):
        return {"kv_heads": 1 if said["multi_query"] else None}
    return {}


def _of_norms(said: Mapping[str, Any]) -> dict[str, Any]:
    """Norms of layers, where blocks side by side may share one; none behind layers that end in one."""
    changed: dict[str, Any] = {}
    if said.get("norm_before") is False:
        changed["final_norm"] = False
    if said.get("two_norms"):
        changed["norms"] = said.get("parallel_norms") or 2
    elif "shared_norm" in said:
        changed["norms"] = 1 if said.get("parallel") else 2
    return changed


def _of_feeds(said: Mapping[str, Any]) -> dict[str, Any]:
    """A feed-forward told in one word, or with the widths of both of its halves in one."""
    changed: dict[str, Any] = {}
    told = said.get("feed")
    if isinstance(told, str):
        activation = told.removeprefix("gated-")
        changed |= {"gated": told != activation, "activation": "gelu_new" if told == "gated-gelu" else activation}
    if said.get("intermediate") == "out":
        changed["intermediate"] = said.get("out")
    if isinstance(said.get("doubled_width"), int):
        changed["intermediate"] = said["doubled_width"] // 2
    return changed
