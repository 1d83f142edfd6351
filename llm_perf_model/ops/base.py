"""The operator interface and the work that it reports."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal, NamedTuple

from ..types import Num
from .batch import UNLIMITED, Batch

Kind = Literal[
    "gemm",
    "wide_gemm",
    "attention_gemm",
    "convolution",
    "expert_gemm",
    "attention",
    "slow_attention",
    "elementwise",
    "concat",
    "all_reduce",
    "collective",
    "all_to_all",
    "transfer",
    "staged",
]
"""Which of a machine's rates an operator runs at."""


class Cost(NamedTuple):
    """Work of one operator on one device. Fields broadcast together.

    A collective sends `comm_bytes` from each rank in `comm_steps` dependent steps inside a node, and `network_bytes`
    in `network_steps` between nodes.
    """

    flops: Num = 0.0
    weight_bytes: Num = 0.0
    activation_bytes: Num = 0.0
    kv_bytes: Num = 0.0
    comm_bytes: Num = 0.0
    comm_steps: Num = 0.0
    network_bytes: Num = 0.0
    network_steps: Num = 0.0

    @property
    def sent_bytes(self) -> Num:
        """Bytes that the device sends, inside its node and to others."""
        return self.comm_bytes + self.network_bytes

    @property
    def hbm_bytes(self) -> Num:
        """Bytes read from and written to the device's main memory."""
        return self.weight_bytes + self.activation_bytes + self.kv_bytes


class Live(NamedTuple):
    """Bytes of tensors that are alive at once: so many for each token, sequence and query-key pair of a pass.

    The last two are for each token that an encoder has read, and for each pair of a query and such a token.
    """

    token_bytes: float = 0.0
    sequence_bytes: float = 0.0
    pair_bytes: float = 0.0
    source_bytes: float = 0.0
    source_pair_bytes: float = 0.0

    def bytes(self, batch: Batch) -> Num:
        """Bytes for a batch."""
        alive = self.token_bytes * batch.tokens + self.sequence_bytes * batch.seqs
        if self.pair_bytes:
            alive = alive + self.pair_bytes * batch.all_pairs()
        if self.source_bytes:
            alive = alive + self.source_bytes * batch.source_tokens()
        return alive + self.source_pair_bytes * batch.source_pairs() if self.source_pair_bytes else alive

    def beside(self, other: Live) -> Live:
        """Both alive at once."""
        return Live(*(a + b for a, b in zip(self, other, strict=True)))


class Product(NamedTuple):
    """Shape of `groups` matrix products: (rows, depth) times (depth, columns) each. Fields broadcast."""

    rows: Num
    columns: Num
    depth: Num
    groups: Num = 1.0


class AbstractOp(abc.ABC):
    """An operator: static sizes of one rank in its fields, its work in `cost`. Subclasses are final."""

    __slots__ = ()

    kind: ClassVar[Kind]
    grows: ClassVar[bool] = False
    """Whether the cost of a decode step depends on how many tokens are cached."""

    @property
    def parameters(self) -> float:
        """Weights that this operator keeps."""
        return 0.0

    @property
    def stored_weight_bytes(self) -> float:
        """Bytes of weights resident on the device."""
        return 0.0

    @property
    def kv_bytes_per_token(self) -> float:
        """Bytes that each token adds to the cache."""
        return 0.0

    @property
    def source_kv_bytes_per_token(self) -> float:
        """Bytes that each token which an encoder has read adds to the cache."""
        return 0.0

    @property
    def rolling_bytes_per_token(self) -> float:
        """Bytes that each token of the last `attention_window` ones keeps in a cache of those alone."""
        return 0.0

    @property
    def sequence_bytes(self) -> float:
        """Bytes that each sequence keeps, however long it is."""
        return 0.0

    @property
    def attention_window(self) -> float:
        """Tokens that a query sees at most."""
        return UNLIMITED

    @property
    def attention_chunk_tokens(self) -> float:
        """Tokens of a chunk of the sequence, beyond which no query sees."""
        return UNLIMITED

    def kernel(self, batch: Batch) -> tuple[AbstractOp, Batch]:
        """The operator whose kernel runs, and the batch that it runs on."""
        return self, batch

    @abc.abstractmethod
    def cost(self, batch: Batch) -> Cost:
        """Work for `batch`."""

    @property
    @abc.abstractmethod
    def live(self) -> Live:
        """Activations alive while the operator runs: inputs, outputs, temporaries. The cache is not among them."""
