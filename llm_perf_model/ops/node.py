"""An operator's place in a graph: how often it runs, in which passes, and what stays alive beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .base import AbstractOp, Cost, Kind, Live
from .batch import Batch
from .elementwise import Elementwise

Role = Literal[
    "embedding", "attention", "ffn", "norm", "head", "communication",
    "convolution", "dense", "recurrent", "pool", "pass", "draft",
]  # fmt: skip
"""Part that a node belongs to: of a transformer, or of a network of layers; or what guesses tokens ahead."""

When = Literal["always", "encoder", "first", "vision", "crossed", "prediction"]
"""Passes in which a node runs: all, of a decoder or of a model that is one stack; that of an encoder; the first one of
the decoder that reads its output, in which it runs over the tokens of the encoder; that over the patches of images;
those with images, whose tokens a layer attends to; those that guess tokens ahead."""

Place = Literal["first", "layers", "last"]
"""Stages that hold a node: the first one, each with its layers, or the last one."""

NOTHING = Live()


@dataclass(frozen=True, slots=True)
class Node:
    """An operator that runs `count` times a pass, as `kernels` kernels each time."""

    name: str
    role: Role
    op: AbstractOp
    count: float = 1.0
    kernels: float = 1.0
    calls: float | None = None
    """Operators that a framework dispatches for it each time; None: one a kernel."""
    rate: Kind | None = None
    """Rate that it runs at, where that is not its operator's own."""
    beside_bytes: float = 0.0
    """Bytes a token that stay alive beside its own tensors: the residual stream, inputs that a caller keeps."""
    held: Live = NOTHING
    """What stays alive for the whole pass: biases of scores, the output of an encoder."""
    runs: When = "always"
    share: float = 1.0
    """Sequences that its operator sees for each one of the rank: fewer where ranks share tokens, more where experts see
    those of several ranks."""
    place: Place = "layers"
    stored: float | None = None
    """Times that its weights are kept; None: as often as it runs."""
    steps: float = 1.0
    """Tokens of one sequence that a sample of a network is to its operator."""

    @property
    def kind(self) -> Kind:
        """Which of a machine's rates it runs at."""
        return self.rate or self.op.kind

    @property
    def parameters(self) -> float:
        """Weights that it keeps."""
        return self.op.parameters * (self.count if self.stored is None else self.stored)

    @property
    def weights_bytes(self) -> float:
        """Bytes of those weights."""
        return self.op.stored_weight_bytes * (self.count if self.stored is None else self.stored)

    @property
    def dispatched(self) -> float:
        """Operators that a framework dispatches for it in a pass."""
        return self.count * (self.kernels if self.calls is None else self.calls)

    @property
    def launched(self) -> float:
        """Kernels that a library launches in a pass beside one for each call."""
        return self.count * max(self.kernels - (self.kernels if self.calls is None else self.calls), 0.0)

    @property
    def live(self) -> Live:
        """What is alive while it runs; a pass in several kernels holds the tensors of one of them."""
        own, share = self.op.live, self.kernels if isinstance(self.op, Elementwise) else 1.0
        own = own._replace(token_bytes=own.token_bytes / share, sequence_bytes=own.sequence_bytes / share)
        if self.share != 1.0:
            own = Live(*(self.share * part for part in own))
        if self.steps != 1.0:
            own = Live(self.steps * own.token_bytes + own.sequence_bytes + self.steps**2 * own.pair_bytes)
        if self.runs == "first":
            own = Live(sequence_bytes=own.sequence_bytes, source_bytes=own.token_bytes)
        return own.beside(Live(self.beside_bytes)).beside(self.held)

    def seen(self, batch: Batch) -> Batch:
        """The batch as its operator sees it: samples of a network as sequences, or the tokens of an encoder."""
        if self.runs == "first":
            return batch.of_source()
        if self.share != 1.0:
            batch = batch.times(self.share)
        return batch if self.steps == 1.0 else Batch.uniform(batch.tokens, self.steps, 0.0)

    def cost(self, batch: Batch) -> Cost:
        """Work of its operator, each time that it runs."""
        return self.op.cost(self.seen(batch))


Graph = tuple[Node, ...]


def running(graph: Graph, *when: When) -> Graph:
    """The nodes that run in such passes."""
    return tuple(node for node in graph if node.runs in when)
