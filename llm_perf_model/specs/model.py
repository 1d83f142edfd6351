"""A model as a stack of layer groups: a family is a composition, not a class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from .attention import GroupedQueryAttention
from .base import Count, FileSpec, Positive, Spec
from .ffn import Ffn

Norm = Literal["layernorm", "rmsnorm"]
Position = Literal["learned", "rotary", "alibi", "none"]


class LayerGroup(Spec):
    """`count` equal layers; the order of groups does not change the work."""

    count: Count
    attention: GroupedQueryAttention
    ffn: Ffn
    parallel: bool = False
    """Attention and feed-forward read the same input and are added once."""
    norms: Annotated[int, Field(ge=0, le=8)] = 2


class ModelSpec(FileSpec):
    """A decoder-only transformer, or an encoder where it is not `causal`.

    `parameters` is the published count; the operators built from this spec must meet it within 1 %.
    """

    causal: bool = True
    """False: every query sees every token of its sequence, nothing is generated and no cache is kept."""

    hidden: Count
    vocab: Count
    max_positions: Count | None = None
    """Longest prompt plus output; None where positions set no limit."""
    position: Position
    position_rows: Count | None = None
    """Rows of a learned position table (None: `max_positions`)."""
    norm: Norm
    norm_bias: bool = True
    """Whether a layernorm has a bias beside its weight."""
    embedding_norm: bool = False
    final_norm: bool = True
    tied_embeddings: bool
    head: Literal["lm", "pooler", "none"] = "lm"
    """Scores over the vocabulary; a dense layer on the first position; nothing."""
    head_bias: bool = False
    wide_logits: bool = False
    """Whether the reference implementation casts its logits to 32 bits."""
    token_types: Count | None = None
    """Rows of a table of token types, added to the embedding."""
    layers: Annotated[tuple[LayerGroup, ...], Field(min_length=1)]
    parameters: Positive

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        if self.position == "learned" and self.learned_rows == 0:
            yield "position_rows", "learned positions need position_rows or max_positions"

    @property
    def layer_count(self) -> int:
        """Layers of all groups."""
        return sum(group.count for group in self.layers)

    @property
    def learned_rows(self) -> int:
        """Rows of the position table that is stored as weights."""
        return (self.position_rows or self.max_positions or 0) if self.position == "learned" else 0
