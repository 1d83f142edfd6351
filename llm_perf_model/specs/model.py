"""A model as a stack of layer groups: a family is a composition, not a class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .attention import CrossAttention, GroupedQueryAttention
from .base import Count, FileSpec, Positive, Spec
from .ffn import Ffn
from .mixer import Mixer

Norm = Literal["layernorm", "rmsnorm"]
ActiveCounts = Literal["tables", "head", "layers"]
Position = Literal["learned", "rotary", "alibi", "relative", "none"]


class LayerGroup(Spec):
    """`count` equal layers; the order of groups does not change the work."""

    count: Count
    stored: Count | None = None
    """Layers whose weights are kept, where the others run the same weights again; None: all of them."""
    attention: Mixer | None = None
    """What mixes tokens; None: nothing does."""
    beside_attention: Mixer | None = None
    """A second mixer that reads the same input; what both make is added."""
    cross_attention: CrossAttention | None = None
    """Attention over the output of an encoder, between attention and feed-forward.

    Where that is one of images, the layer runs for prompts with images alone."""
    ffn: Ffn | None = None
    parallel: bool = False
    """Attention and feed-forward read the same input and are added once."""
    norms: Annotated[int, Field(ge=0, le=8)] = 2

    @model_validator(mode="after")
    def _in_turn(self) -> Self:
        if self.parallel and self.cross_attention is not None:
            raise ValueError("parallel layers have no place for cross_attention: leave one of them out")
        return self

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.attention is None and self.ffn is None:
            raise ValueError("needs attention, ffn or both")
        if self.attention is None and self.beside_attention is not None:
            raise ValueError("beside_attention needs an attention to run beside")
        return self

    @property
    def blocks(self) -> tuple[Mixer | CrossAttention | Ffn, ...]:
        """What a layer is made of, in its order."""
        every = (self.attention, self.beside_attention, self.cross_attention, self.ffn)
        return tuple(block for block in every if block is not None)

    @property
    def residuals(self) -> int:
        """Blocks whose results are added to what a layer reads: one for those that run side by side."""
        blocks = (self.attention, self.cross_attention, self.ffn)
        return 1 if self.parallel else sum(block is not None for block in blocks)


class AudioInput(Spec):
    """What an encoder hears: frames of `mel_bins` values, through two convolutions in place of a token table.

    Both have filters of `window` frames; the second one moves by `stride` of them, which makes a token of so many.
    """

    mel_bins: Count
    window: Count = 3
    stride: Count = 2
    position_rows: Count
    """Rows of a table of positions, and the most tokens that are heard at once."""


class EncoderStack(Spec):
    """The layers of an encoder-decoder that read the input; what is not said here is as in the decoder."""

    layers: Annotated[tuple[LayerGroup, ...], Field(min_length=1)]
    audio: AudioInput | None = None
    """The sound that it reads; None: it reads tokens."""
    embedding_norm: bool = False
    final_norm: bool = True
    tied_embeddings: bool = True
    """Whether input and output tokens are looked up in one table."""


class Prediction(Spec):
    """Layers that guess tokens ahead of the next one, from the last hidden state and the next embedding.

    Each of `depth` modules joins the two by a product, runs `layers` and shares token table and output head with the
    model unless it has its own.
    """

    depth: Count = 1
    layers: Annotated[tuple[LayerGroup, ...], Field(min_length=1)]
    own_embeddings: bool = False
    own_head: bool = False


class Vision(Spec):
    """An encoder of images: patches through layers of its own width, `merged` of them joined to one token each.

    A product of patches of `channels` x `patch` x `patch` x `frames` values goes in; a projector of plain products, of
    widths `projector`, comes out.
    """

    hidden: Count
    patch: Count
    channels: Count = 3
    frames: Count = 1
    position_rows: Count | None = None
    """Rows of a table of learned positions; None: positions are not learned."""
    patch_bias: bool = True
    class_token: bool = False
    norm: Norm = "layernorm"
    embedding_norm: bool = False
    final_norm: bool = True
    layers: Annotated[tuple[LayerGroup, ...], Field(min_length=1)]
    merged: Count = 1
    tapped: Annotated[int, Field(ge=0, le=100)] = 0
    """Layers whose results lie beside those of the last one."""
    pooled: bool = False
    """Whether they are joined by their mean, not end to end."""
    merged_norm: bool = False
    """Whether patches are normalised before they are joined."""
    projector: tuple[Count, ...] = ()
    """Widths of the products behind the layers, the last one that of the tokens."""
    projector_bias: bool = True
    projector_ffn: Ffn | None = None
    """A feed-forward behind them."""
    projectors: Count = 1
    """Projectors of that kind: of the output, and of layers in between."""


class LayerInputs(Spec):
    """A second token table with `width` values for each layer, which a gated product adds to its output."""

    vocab: Count
    width: Count


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
    """Longest prompt plus output, or the longest of both where an `encoder` reads the prompt; None: no limit.

    What an encoder hears has a limit of its own."""
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
    vision: Vision | None = None
    prediction: Prediction | None = None
    """What guesses further tokens; its weights are not among `parameters`."""
    layer_inputs: LayerInputs | None = None
    embedding_width: Count | None = None
    """Values of a row of the token table, and of tables beside it, which a product widens to `hidden`; None: `hidden`.

    A head over the vocabulary narrows them again."""
    residual_streams: Count | None = None
    """Copies of the residual stream, which small products mix before and after each block; None: one, unmixed."""
    parameters: Positive
    active_parameters: Positive | None = None
    """Published count of the weights that one token passes; None: not published."""
    active_counts: ActiveCounts = "tables"
    """What that count holds beside the layers: the token table as a whole and the head, the head alone, neither."""

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
            yield {group.attention.heads for group in stack if isinstance(group.attention, GroupedQueryAttention)}

    def _stack_problems(self) -> Iterator[tuple[str, str]]:
        crossed = [group.cross_attention is not None for group in self.layers]
        if self.encoder is None:
            if any(crossed) and self.vision is None:
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
    def crossed_layers(self) -> tuple[LayerGroup, ...]:
        """Groups that attend to images, and run where there are some alone."""
        return () if self.encoder else tuple(group for group in self.layers if group.cross_attention is not None)

    @property
    def encoder_layer_count(self) -> int:
        """Layers of the encoder of an encoder-decoder."""
        return sum(group.count for group in self.encoder.layers) if self.encoder else 0

    @property
    def source_positions(self) -> int | None:
        """The most tokens that the encoder of an encoder-decoder reads; None: no limit."""
        audio = self.encoder.audio if self.encoder else None
        return audio.position_rows if audio else self.max_positions

    @property
    def groups(self) -> tuple[LayerGroup, ...]:
        """Groups of layers of all stacks."""
        return (*(self.encoder.layers if self.encoder else ()), *self.layers)

    @property
    def learned_rows(self) -> int:
        """Rows of the position table that is stored as weights."""
        return (self.position_rows or self.max_positions or 0) if self.position == "learned" else 0
