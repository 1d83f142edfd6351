"""How ranks of several nodes share a model beyond slices of its layers, as fields of a request."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from .link import LinkSpec
from .named import named
from .quantities import Flag, Overhead, Single


class Sharing(BaseModel):
    """What a request says of its ranks; with their defaults they share each layer by tensors, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    attention_dp: Annotated[
        Single, Field(description="groups of tp ranks that attend to sequences of their own and share all experts")
    ] = 1
    cp: Annotated[Single, Field(description="groups of tp ranks that share the tokens of each sequence")] = 1
    micro_batches: Annotated[
        Single | None,
        Field(description="parts of the batch that pipeline stages work on at once (default: as many as stages)"),
    ] = None
    sequence_parallel: Annotated[
        Flag, Field(description="share norms and sums by tokens among tp ranks (default: each rank does all)")
    ] = False
    expert_imbalance: Annotated[
        Overhead | None,
        Field(description="tokens of the busiest expert rank over the mean (default: that of an even router)"),
    ] = None
    nodes: Annotated[
        Single | None, Field(description="nodes that hold the devices of all replicas (default: the fewest)")
    ] = None
    network: Annotated[
        Annotated[LinkSpec | str, named(LinkSpec)] | None,
        Field(description="link between nodes, a port for each device (default: the device's usual one)"),
    ] = None
    oversubscription: Annotated[
        Overhead, Field(description="rate of the devices' network ports over that of the switches above them")
    ] = 1.0
