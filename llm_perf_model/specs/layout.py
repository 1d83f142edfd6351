"""How a model is spread over devices."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..numeric import ceil, minimum
from ..types import Num
from .base import Count, Spec


class LayoutSpec(Spec):
    """How many devices share what.

    `tp` ranks share each layer. Of the ranks of a stage, `attention_dp` groups attend to sequences of their own, and
    `cp` groups share the tokens of each sequence; experts are spread over `ep` of all of them, and what is left of
    them slices each expert. `pp` stages hold consecutive layers each and work side by side on `micro_batches` parts of
    the batch; `layer_split` stages do so one after the other. `dp` replicas each serve a batch of their own.
    """

    tp: Count = 1
    attention_dp: Count = 1
    cp: Count = 1
    ep: Count = 1
    pp: Count = 1
    micro_batches: Count | None = None
    """Parts of the batch that are under way at once; None: as many as stages, at most one a sequence."""
    dp: Count = 1
    layer_split: Count = 1
    sequence_parallel: bool = False
    """Whether norms and sums are shared by tokens among `tp` ranks."""
    nodes: Count | None = None
    """Nodes that hold the devices of all replicas; None: the fewest."""
    expert_imbalance: Annotated[float, Field(ge=1)] | None = None
    """Tokens of the busiest expert rank over the mean; None: what an even router leads to."""

    @property
    def sharers(self) -> int:
        """Groups of `tp` ranks in a stage, each with tokens of its own."""
        return self.attention_dp * self.cp

    @property
    def stage_ranks(self) -> int:
        """Devices of one stage of a replica."""
        return self.tp * self.sharers

    @property
    def expert_tp(self) -> int:
        """Ranks that share each expert."""
        return self.stage_ranks // self.ep

    @property
    def stages(self) -> int:
        """Parts that consecutive layers are cut into."""
        return self.pp * self.layer_split

    @property
    def replica_ranks(self) -> int:
        """Devices that hold one copy of the model."""
        return self.stage_ranks * self.stages

    @property
    def ranks(self) -> int:
        """Devices in all."""
        return self.replica_ranks * self.dp

    @property
    def working_ranks(self) -> int:
        """Devices at work at any time: stages of a layer split take turns."""
        return self.ranks // self.layer_split

    def fullest_share(self, layers: int) -> float:
        """Share of the layers that the fullest stage holds."""
        return -(-layers // self.stages) / layers

    def kept_sequences(self, batch_size: Num) -> Num:
        """Sequences whose cache the fullest rank of a stage keeps.

        Parts of sequences where `cp` ranks share them.
        """
        return ceil(batch_size / self.attention_dp) / self.cp

    def parts(self, batch_size: Num) -> Num:
        """Micro-batches that are under way at once."""
        if self.micro_batches is not None or self.pp == 1:
            return float(self.micro_batches or 1)
        return minimum(float(self.pp), ceil(batch_size / self.attention_dp))

    def pass_sequences(self, batch_size: Num) -> Num:
        """Sequences of a rank in one pass: of a micro-batch."""
        return ceil(ceil(batch_size / self.attention_dp) / self.parts(batch_size)) / self.cp
