"""A model as a stack of layer groups: a family is a composition, not a class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .attention import CrossAttention, GroupedQueryAttention
from .base import Count, FileSpec, Positive, Spec
from .ffn import Ffn

Norm = Literal["layernorm", "rmsnorm"]
Position = Literal["learned", "rotary", "alibi", "relative", "none"]


class LayerGroup(Spec):
    """`count` equal layers; the order of groups does not change the work."""

    count: Count
    attention: GroupedQueryAttention
    cross_attention: CrossAttention | None = None
    """Attention over the output of an encoder, between attention and feed-forward."""
    ffn: Ffn
    parallel: bool = False
    """Attention and feed-forward read the same input and are added once."""
    norms: Annotated[int, Field(ge=0, le=8)] = 2

    @model_validator(mode="after")
    def _in_turn(self) -> Self:
        if self.parallel and self.cross_attention is not None:
            raise ValueError("parallel layers have no place for cross_attention: leave one of them out")
        return self

    @property
    def residuals(self) -> int:
        """Blocks whose results are added to what a layer reads: one for those that run side by side."""
        return 1 if self.parallel else 2 + (self.cross_attention is not None)


class EncoderStack(Spec):
    """The layers of an encoder-decoder that read the input; what is not said here is as in the decoder."""

    layers: Annotated[tuple[LayerGroup, ...], Field(min_length=1)]
    embedding_norm: bool = False
    final_norm: bool = True
    tied_embeddings: bool = True
    """Whether input and output tokens are looked up in one table."""


class ModelSpec(FileSpec):
    """A transformer: a decoder, an encoder, or both.

    It is a decoder alone unless it has an `encoder`, whose output it then reads; an encoder alone if not `causal`.
    `parameters` is the published count; the operators built from this spec must meet it within 1 %.
    """

    causal: bool = True
    """False: every query sees every token of its sequence, nothing is generated and no cache is kept."""

    hidden: Count
    vocab: Count
    max_positions: Count | None = None
    """Longest prompt plus output, or the longest of both where an `encoder` reads the prompt; None: no limit."""
    position: Position
    position_rows: Count | None = None
    """Rows of a learned position table (None: `max_positions`)."""
    position_buckets: Count | None = None
    """Rows of a table of relative distances, with a bias for each head, that the layers of a stack share."""
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
    encoder: EncoderStack | None = None
    """What reads the input of an encoder-decoder, whose other fields are then those of its decoder."""
    parameters: Positive

    def problems(self) -> Iterator[tuple[str, str]]:
        yield from super().problems()
        if self.position == "learned" and self.learned_rows == 0:
            yield "position_rows", "learned positions need position_rows or max_positions"
        if (self.position == "relative") != (self.position_buckets is not None):
            yield "position_buckets", "goes with relative positions: give both or none"
        if self.position == "relative" and any(len(heads) > 1 for heads in self._heads()):
            yield "layers", "the layers of a stack share the bias of relative positions, so all need as many heads"
        yield from self._stack_problems()

    def _heads(self) -> Iterator[set[int]]:
        """Numbers of heads that occur in each stack."""
        for stack in (self.encoder.layers if self.encoder else (), self.layers):
            yield {group.attention.heads for group in stack}

    def _stack_problems(self) -> Iterator[tuple[str, str]]:
        crossed = [group.cross_attention is not None for group in self.layers]
        if self.encoder is None:
            if any(crossed):
                yield "layers", "cross_attention has nothing to attend to without an encoder"
            return
        if not all(crossed):
            yield "layers", "each needs cross_attention, since the model has an encoder"
        if any(group.cross_attention is not None for group in self.encoder.layers):
            yield "encoder.layers", "cross_attention belongs in the layers of the decoder"
        if not self.causal:
            yield "causal", "an encoder-decoder generates: leave causal out"
        if self.head != "lm":
            yield "head", "an encoder-decoder generates: leave head out"

    @property
    def layer_count(self) -> int:
        """Layers of all groups; of the decoder, where there is an encoder too."""
        return sum(group.count for group in self.layers)

    @property
    def encoder_layer_count(self) -> int:
        """Layers of the encoder of an encoder-decoder."""
        return sum(group.count for group in self.encoder.layers) if self.encoder else 0

    @property
    def groups(self) -> tuple[LayerGroup, ...]:
        """Groups of layers of all stacks."""
        return (*(self.encoder.layers if self.encoder else ()), *self.layers)

    @property
    def learned_rows(self) -> int:
        """Rows of the position table that is stored as weights."""
        return (self.position_rows or self.max_positions or 0) if self.position == "learned" else 0
