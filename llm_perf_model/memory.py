"""Peak memory of one device: weights, cache, live activations, reserve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .graph import Graph, kv_bytes_per_token, weights_bytes
from .ops.batch import Batch
from .rates import Machine
from .types import Mask, Num


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device at the worst moment. Fields broadcast together."""

    weights_bytes: Num
    kv_cache_bytes: Num
    activation_bytes: Num
    reserve_bytes: Num
    capacity_bytes: Num

    @property
    def peak_bytes(self) -> Num:
        """All parts together."""
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes + self.reserve_bytes

    @property
    def fits(self) -> Mask:
        """Whether the device holds the peak."""
        return self.peak_bytes <= self.capacity_bytes


def memory(graph: Graph, machine: Machine, batch_size: Num, input_len: Num, output_len: Num, stages: int = 1) -> Memory:
    """The peak: the whole cache of prompt and output, and the activations of the prefill.

    With `stages` of a layer split, a device holds its share of the weights and of the cache.
    """
    per_token = kv_bytes_per_token(graph)
    return Memory(
        weights_bytes=weights_bytes(graph) / stages,
        kv_cache_bytes=batch_size * (input_len + output_len) * per_token / stages,
        activation_bytes=activation_bytes(graph, Batch.uniform(batch_size, input_len, 0.0)),
        reserve_bytes=machine.reserve_bytes,
        capacity_bytes=machine.hbm_bytes,
    )


def activation_bytes(graph: Graph, batch: Batch) -> Num:
    """Activations alive at the worst operator: its own tensors, and the residual stream beside them."""
    residual = graph[0].op.workspace_bytes(batch)
    worst: Num = 0.0
    for node in graph:
        worst = np.maximum(worst, node.op.workspace_bytes(batch))
    return residual + worst


def max_batch_size(graph: Graph, machine: Machine, input_len: Num, output_len: Num, stages: int = 1) -> Num:
    """The largest batch that fits; 0 where not even one sequence does.

    Cache and activations are proportional to the batch, so it is a quotient.
    """
    one = memory(graph, machine, 1.0, input_len, output_len, stages)
    free = one.capacity_bytes - one.weights_bytes - one.reserve_bytes
    return np.maximum(np.floor(free / (one.kv_cache_bytes + one.activation_bytes)), 0.0)
