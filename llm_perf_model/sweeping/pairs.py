"""Parts of the work of a phase, and the pairs of which one passes the other as a number grows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from ..generate import Phase
from ..roofline import Work
from ..types import Num

PRODUCTS: Final = frozenset({"gemm", "wide_gemm", "attention_gemm", "expert_gemm", "convolution"})
"""Kinds of operators that multiply by weights."""


class Parts(NamedTuple):
    """Work of some operators of a phase on one device. Fields broadcast together.

    Busy time is under `compute_s` or `memory_s`, whichever binds the operator; `product_` of those that multiply by
    weights.
    """

    compute_s: Num = 0.0
    memory_s: Num = 0.0
    comm_s: Num = 0.0
    busy_s: Num = 0.0
    product_compute_s: Num = 0.0
    product_memory_s: Num = 0.0
    attention_s: Num = 0.0
    """Device time of operators that read keys: scores and values, copies of the cache."""
    ffn_s: Num = 0.0
    cache_bytes: Num = 0.0
    weight_bytes: Num = 0.0

    @classmethod
    def of(cls, works: tuple[Work, ...]) -> Parts:
        """Those of one operator in all runs."""
        node, timings, costs = works[0].node, [work.timing for work in works], [work.cost for work in works]
        compute_s, memory_s = sum(t.compute_bound_s for t in timings), sum(t.memory_bound_s for t in timings)
        device_s = sum(t.device_s for t in timings)
        is_product = node.kind in PRODUCTS and not node.op.grows
        reads_keys = node.role == "attention" and (node.op.grows or node.op.source_kv_bytes_per_token > 0.0)
        return cls(
            compute_s,
            memory_s,
            sum(t.comm_s for t in timings),
            compute_s + memory_s,
            compute_s if is_product else 0.0,
            memory_s if is_product else 0.0,
            device_s if reads_keys else 0.0,
            device_s if node.role == "ffn" else 0.0,
            sum(c.kv_bytes for c in costs),
            sum(c.weight_bytes for c in costs),
        )


WORDS: Final = {
    "compute_s": "arithmetic", "memory_s": "memory traffic", "comm_s": "the time of exchanges",
    "busy_s": "that of arithmetic and memory", "product_compute_s": "arithmetic", "product_memory_s": "memory traffic",
    "attention_s": "attention", "ffn_s": "the FFN", "cache_bytes": "cache", "weight_bytes": "weights",
}  # fmt: skip
"""Parts in words."""


@dataclass(frozen=True)
class Pair:
    """From where on one part of a phase passes another."""

    name: str
    field: str
    phase: str
    passing: str
    """Fields of `Parts`."""
    passed: str
    text: str
    """For people, with `{phase}` for the word of the phase."""
    nothing: str = ""
    """What there is none of where the first part is nothing."""


PAIRS: Final = (
    Pair("decode_compute_batch", "batch_size", "decode", "compute_s", "memory_s", "{phase} is compute-bound"),
    Pair(
        "decode_products_batch", "batch_size", "decode", "product_compute_s", "product_memory_s",
        "its weight products alone are",
    ),
    Pair(
        "decode_cache_batch", "batch_size", "decode", "cache_bytes", "weight_bytes", "it moves more cache than weights",
        "it keeps no cache",
    ),
    Pair("pass_compute_batch", "batch_size", "prefill", "compute_s", "memory_s", "{phase} is compute-bound"),
    Pair("prefill_compute_len", "input_len", "prefill", "compute_s", "memory_s", "{phase} is compute-bound"),
    Pair(
        "prefill_attention_len", "input_len", "prefill", "attention_s", "ffn_s", "attention passes FFN in {phase}",
        "no operator attends to tokens",
    ),
    Pair(
        "decode_attention_len", "input_len", "decode", "attention_s", "ffn_s", "attention passes FFN in {phase}",
        "no operator attends to tokens",
    ),
    Pair("prefill_comm_tp", "tp", "prefill", "comm_s", "busy_s", "exchanges pass other work in {phase}"),
    Pair("decode_comm_tp", "tp", "decode", "comm_s", "busy_s", "exchanges pass other work in {phase}"),
)  # fmt: skip


def operators(phase: Phase) -> Iterator[tuple[str, Parts]]:
    """The parts of each operator of a phase, by name."""
    for works in phase.works():
        yield works[0].node.name, Parts.of(works)
