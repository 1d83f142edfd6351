"""Exchanges between ranks: what each sends, and in how many dependent steps.

Ranks of several nodes exchange in stages: :math:`a = p / n` ranks inside each of n nodes, and n across.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from ..numeric import minimum
from ..types import Num
from .base import AbstractOp, Cost, Kind, Live
from .batch import UNLIMITED, Batch
from .router import Router


@final
@dataclass(frozen=True, slots=True)
class AllReduce(AbstractOp):
    r"""Sum of a tensor over p ranks by a ring: :math:`2\frac{p-1}{p} S` bytes in 2(p-1) steps [1]_.

    S is T rows of `width` values. Over n nodes, a ring of the ranks of each node around one of :math:`2\frac{n-1}{n}
    \frac{S}{a}` bytes in 2(n-1) steps between nodes.

    .. [1] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication
       Operations in MPICH", IJHPCA 19(1), 2005.
    """

    kind: ClassVar[Kind] = "all_reduce"

    width: float
    ranks: float
    activation_bytes: float
    nodes: float = 1.0

    def cost(self, batch: Batch) -> Cost:
        payload_bytes = batch.tokens * self.width * self.activation_bytes
        inside = self.ranks / self.nodes
        return Cost(
            comm_bytes=2.0 * (inside - 1.0) / inside * payload_bytes,
            comm_steps=2.0 * (inside - 1.0),
            network_bytes=2.0 * (self.nodes - 1.0) / self.nodes * payload_bytes / inside,
            network_steps=2.0 * (self.nodes - 1.0),
        )

    @property
    def live(self) -> Live:
        return Live(2.0 * self.width * self.activation_bytes)


@final
@dataclass(frozen=True, slots=True)
class AllGather(AbstractOp):
    r"""Each rank's share of `width` values a row to all ranks: :math:`\frac{p-1}{p} S` bytes in p-1 steps.

    Rows are sequences where `last_only`, else tokens. Over n nodes, :math:`\frac{n-1}{n} \frac{S}{a}` bytes in n-1
    steps between nodes, and what a node then has to all its ranks. A reduce-scatter sends as much the other way round.
    """

    kind: ClassVar[Kind] = "collective"

    width: float
    ranks: float
    activation_bytes: float
    last_only: bool = False
    nodes: float = 1.0

    def cost(self, batch: Batch) -> Cost:
        payload_bytes, inside = self._payload_bytes(batch), self.ranks / self.nodes
        return Cost(
            comm_bytes=(inside - 1.0) / inside * payload_bytes,
            comm_steps=inside - 1.0,
            network_bytes=(self.nodes - 1.0) / self.nodes * payload_bytes / inside,
            network_steps=self.nodes - 1.0,
        )

    @property
    def live(self) -> Live:
        row_bytes = 2.0 * self.width * self.activation_bytes
        return Live(sequence_bytes=row_bytes) if self.last_only else Live(row_bytes)

    def _payload_bytes(self, batch: Batch) -> Num:
        rows = batch.seqs if self.last_only else batch.tokens
        return rows * self.width * self.activation_bytes


@final
@dataclass(frozen=True, slots=True)
class AllToAll(AbstractOp):
    r"""Each token to the ranks that hold its experts, or their results back, all at once [1]_.

    .. math:: Q = \beta\,T w\,b\,r \frac{a - 1}{a},\quad
       Q_{net} = \beta\,T w\,b\,r_{nodes} \frac{n-1}{n}

    T tokens are a rank's own. Each goes once to every other node with one of its experts, of which it visits
    :math:`r_{nodes}`, and inside a node once to every rank with one of them, r in all. :math:`\beta` is the imbalance
    of the `router`.

    .. [1] D. Lepikhin et al., "GShard", arXiv:2006.16668; C. Zhao et al., "DeepEP", https://github.com/deepseek-ai/DeepEP
    """

    kind: ClassVar[Kind] = "all_to_all"

    width: float
    ranks: float
    value_bytes: float
    router: Router
    slices: float = 1.0
    """Ranks that share each expert: all of them need its tokens."""
    nodes: float = 1.0
    seen: float = 1.0
    """Tokens that the router spreads for each one of the rank."""

    def cost(self, batch: Batch) -> Cost:
        busiest = self.router.imbalance(batch.tokens * self.seen)
        sent_bytes = busiest * batch.tokens * self.width * self.value_bytes
        inside = self.ranks / self.nodes
        visited = self.router.holders(self.router.ranks) * self.slices
        apart = min(self.nodes, self.router.ranks)  # ranks that share an expert may lie in several nodes
        visited_nodes = self.router.holders(apart) * self.nodes / apart
        return Cost(
            comm_bytes=sent_bytes * visited * (inside - 1.0) / inside,
            comm_steps=float(inside > 1.0),
            network_bytes=sent_bytes * visited_nodes * (self.nodes - 1.0) / self.nodes,
            network_steps=float(self.nodes > 1.0),
        )

    @property
    def live(self) -> Live:
        arriving = self.router.experts_per_token * self.slices * self.seen / self.router.ranks
        return Live((1.0 + arriving) * self.width * self.value_bytes)


@final
@dataclass(frozen=True, slots=True)
class ContextExchange(AbstractOp):
    r"""What ranks that share the tokens of a sequence tell each other so that queries meet all keys [1]_.

    .. math:: Q = (p-1) \min(K\,b_{key},\; 2 T\,w\,b_a)

    Either the K keys and values of a rank go round, :math:`b_{key}` bytes each, or its T queries of `width` values do
    and their results come back: the former in a prefill, the latter in a decode step. Both in p-1 steps; between n
    nodes pass n of the p links of the ring, at the rate of which it runs.

    .. [1] A. Yang et al., "Context Parallelism for Scalable Million-Token Inference", arXiv:2411.01783.
    """

    kind: ClassVar[Kind] = "collective"
    grows: ClassVar[bool] = True

    width: float
    key_bytes: float
    ranks: float
    activation_bytes: float
    window: float = UNLIMITED
    nodes: float = 1.0

    def cost(self, batch: Batch) -> Cost:
        keys_bytes = batch.kv_tokens(self.window) * self.key_bytes
        queries_bytes = 2.0 * batch.tokens * self.width * self.activation_bytes
        steps = self.ranks - 1.0
        sent_bytes = steps * minimum(keys_bytes, queries_bytes)
        if self.nodes > 1.0:
            return Cost(network_bytes=sent_bytes, network_steps=steps)
        return Cost(comm_bytes=sent_bytes, comm_steps=steps)

    @property
    def live(self) -> Live:
        return Live(2.0 * self.key_bytes + self.width * self.activation_bytes)


@final
@dataclass(frozen=True, slots=True)
class Transfer(AbstractOp):
    r"""Activations from one stage to the next: :math:`(T w + A) b_a` bytes in one step.

    A counts the query-key pairs of an explicit attention mask that travels along (`with_mask`).
    """

    kind: ClassVar[Kind] = "transfer"
    grows: ClassVar[bool] = True

    width: float
    activation_bytes: float
    with_mask: bool = False
    between_nodes: bool = False

    def cost(self, batch: Batch) -> Cost:
        if self.between_nodes:
            return Cost(network_bytes=self._payload_bytes(batch), network_steps=1.0)
        return Cost(comm_bytes=self._payload_bytes(batch), comm_steps=1.0)

    @property
    def live(self) -> Live:
        return Live(2.0 * self.width * self.activation_bytes, pair_bytes=2.0 * self.with_mask * self.activation_bytes)

    def _payload_bytes(self, batch: Batch) -> Num:
        mask = batch.all_pairs() if self.with_mask else 0.0
        return (batch.tokens * self.width + mask) * self.activation_bytes


@final
@dataclass(frozen=True, slots=True)
class CacheTransfer(AbstractOp):
    """The cache of prompts on its way to other devices, so many bytes for each sequence."""

    kind: ClassVar[Kind] = "transfer"

    prompt_bytes: Num

    def cost(self, batch: Batch) -> Cost:
        return Cost(comm_bytes=batch.seqs * self.prompt_bytes, comm_steps=1.0)

    @property
    def live(self) -> Live:
        return Live()
