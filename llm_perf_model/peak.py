"""Peak memory of one device, by part and by the moment that sets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, assert_never

import numpy as np

from .allocation import Allocation
from .numeric import ceil, maximum, minimum, where
from .ops.base import Live
from .ops.batch import START_TOKENS, Batch
from .types import Mask, Num

MOMENTS: Final = ("prefill", "logits", "decode")
"""Pass over the prompts; the logits after it; the last decode step."""

SEGMENT_BYTES = 2.0**21
"""Large tensors are rounded up to whole segments by a caching allocator [1]_.

.. [1] PyTorch, "CUDA semantics: memory management", https://pytorch.org/docs/stable/notes/cuda.html
"""
LARGE_BYTES = 10.0 * 2.0**20

GATHERED_COPIES = 2.0
"""Old caches of a search while the longer one is made: as the last step left it, and gathered for the new beams."""


class Pool(NamedTuple):
    """What is left for the cache beside everything else. Fields broadcast."""

    pool_bytes: Num
    """Negative where everything else does not fit."""
    tokens: Num
    """Tokens of all sequences that the pool holds; infinite for a model without a cache."""
    blocks: Num
    """Whole blocks in it."""
    concurrency: Num
    """Sequences of the request's length that it holds at a time."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device at its worst moment. Fields broadcast together.

    `weights_bytes + kv_cache_bytes + activation_bytes + reserve_bytes` is the peak.
    """

    weights_bytes: Num
    kv_cache_bytes: Num
    live_bytes: Num
    """Tensors of the worst operator and those kept beside it."""
    fragment_bytes: Num
    """What the allocator holds beyond them."""
    logits_bytes: Num
    workspace_bytes: Num
    comm_buffer_bytes: Num
    graph_bytes: Num
    context_bytes: Num
    capacity_bytes: Num
    limit_bytes: Num
    """What the engine may use of the capacity."""
    beside_cache_bytes: Num
    """What the engine leaves free beside the cache, in proportion to it."""
    pool: Pool
    moment: Any
    """Which of `MOMENTS` sets the peak: text, or an array of it."""
    moment_bytes: tuple[Num, Num, Num]
    """What each of `MOMENTS` needs in all."""

    @property
    def activation_bytes(self) -> Num:
        """Live tensors, logits and workspaces, with what the allocator adds."""
        return self.live_bytes + self.fragment_bytes + self.logits_bytes + self.workspace_bytes

    @property
    def reserve_bytes(self) -> Num:
        """Context and libraries, captured graphs, buffers of exchanges."""
        return self.context_bytes + self.graph_bytes + self.comm_buffer_bytes

    @property
    def peak_bytes(self) -> Num:
        """All parts together."""
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes + self.reserve_bytes

    @property
    def allocated_bytes(self) -> Num:
        """What the framework counts as allocated: without context, graphs, buffers of exchanges and fragments."""
        return self.peak_bytes - self.reserve_bytes - self.fragment_bytes

    @property
    def shortfall_bytes(self) -> Num:
        """Bytes missing on the device; 0 where it fits."""
        return maximum(self.peak_bytes + self.beside_cache_bytes - self.limit_bytes, 0.0)

    @property
    def fits(self) -> Mask:
        """Whether the peak, and what the engine leaves free beside its cache, stay within its limit."""
        return self.peak_bytes + self.beside_cache_bytes <= self.limit_bytes


def memory(a: Allocation, batch_size: Num, input_len: Num, output_len: Num) -> Memory:
    """The peak over the prefill, its logits and the last decode step of `batch_size` equal sequences.

    In a search, a decode step has each sequence once for each beam; so has the prefill where prompts are repeated.
    The prefill of an encoder-decoder is the larger of the encoder's pass and the decoder's first one.
    """
    kept, batch_size = a.layout.kept_sequences(batch_size), a.layout.pass_sequences(batch_size)
    held = a.weights_bytes + a.comm_buffer_bytes + a.graph_bytes + a.context_bytes
    prompt_len, source = (START_TOKENS, input_len) if a.encodes else (input_len, 0.0)
    workspace_bytes = _workspace_bytes(a, kept * a.beams, prompt_len + output_len, source)
    moments = _moments(a, kept, batch_size, prompt_len, output_len, source)
    bytes_of: list[Num] = [kv + a.overallocation * live + logits for kv, live, logits in moments]
    index, kv, live, logits = _at_the_peak(moments, bytes_of)
    if len(bytes_of) > len(MOMENTS):
        bytes_of[0] = maximum(bytes_of[0], bytes_of.pop())
    fragments = (a.overallocation - 1.0) * live
    base = held + workspace_bytes + live + fragments + logits
    return Memory(
        weights_bytes=a.weights_bytes,
        kv_cache_bytes=kv,
        live_bytes=live,
        fragment_bytes=fragments,
        logits_bytes=logits,
        workspace_bytes=workspace_bytes,
        comm_buffer_bytes=a.comm_buffer_bytes,
        graph_bytes=a.graph_bytes,
        context_bytes=a.context_bytes,
        capacity_bytes=a.capacity_bytes,
        limit_bytes=a.limit_bytes,
        beside_cache_bytes=kv * (1.0 / a.pool_fraction - 1.0) if a.pool_of_free else 0.0,
        pool=_pool(a, base, prompt_len + output_len, source),
        moment=np.array((*MOMENTS, "prefill"))[index],
        moment_bytes=tuple(part + held + workspace_bytes for part in bytes_of),  # type: ignore[arg-type]
    )


def _moments(
    a: Allocation, kept: Num, batch_size: Num, prompt_len: Num, output_len: Num, source: Num
) -> list[tuple[Num, Num, Num]]:
    """Cache, live tensors and logits of each of `MOMENTS`, then those of an encoder's pass over its tokens.

    The cache is that of the `kept` sequences, the rest that of the `batch_size` of one pass.
    """
    prompts, sequences = batch_size * (a.beams if a.beam_cache == "copied" else 1.0), batch_size * a.beams
    kv_prefill, kv_decode = _kv_bytes(a, kept, prompt_len, output_len)
    fed = 1.0 if a.token_by_token else minimum(maximum(prompt_len - a.prefix_len, 1.0), a.chunk_tokens)
    prompt = Batch.uniform(prompts, fed, prompt_len - fed, source)
    step = Batch.uniform(sequences, 1.0, maximum(prompt_len + output_len - 2.0, 0.0), source)
    prefill_live, decode_live = (
        _live_bytes(a, live, pass_) for live, pass_ in (((*a.live, *a.first_live), prompt), (a.live, step))
    )
    prefill_logits, decode_logits = (
        a.logits.token_bytes * pass_.tokens + a.logits.sequence_bytes * maximum(pass_.seqs, a.pass_sequences)
        for pass_ in (prompt, step)
    )
    before: list[tuple[Num, Num, Num]] = []
    if a.encodes:
        source_prefill, source_decode = _source_kv_bytes(a, kept, source)
        kv_prefill, kv_decode = kv_prefill + source_prefill, kv_decode + source_decode
        taken = kv_prefill if a.cache in {"contiguous", "paged"} else 0.0  # others hold nothing yet
        before = [(taken, _live_bytes(a, a.encoder_live, Batch.uniform(batch_size, source, 0.0)), 0.0)]
    if a.patches:
        patches = Batch.uniform(batch_size * a.images, a.patches, 0.0)
        taken = kv_prefill if a.cache in {"contiguous", "paged"} else 0.0
        before = [(taken, _worst_bytes(a.vision_live, patches), 0.0)]
    decodes = a.token_by_token | (output_len > 1.0)  # the last token of such a prompt is a decode step
    return [
        (kv_prefill, prefill_live, 0.0),
        (kv_prefill, 0.0, prefill_logits),
        (where(decodes, kv_decode, 0.0), where(decodes, decode_live, 0.0), where(decodes, decode_logits, 0.0)),
        *before,
    ]


def _at_the_peak(moments: list[tuple[Num, Num, Num]], bytes_of: list[Num]) -> tuple[Any, Num, Num, Num]:
    """Index of the largest moment, and its parts."""
    if all(isinstance(part, float) for part in bytes_of):
        index = bytes_of.index(max(bytes_of, key=float))
        return index, *moments[index]
    indices = np.argmax(np.stack(np.broadcast_arrays(*bytes_of)), axis=0)
    kv, live, logits = (np.choose(indices, np.broadcast_arrays(*parts)) for parts in zip(*moments, strict=True))
    return indices, kv, live, logits


def _live_bytes(a: Allocation, lives: tuple[Live, ...], batch: Batch) -> Num:
    """Tensors of the worst operator; of a pass of fixed size where the engine has one, unless chunks are smaller.

    The decoder behind an encoder has none: it passes over one token of each sequence.
    """
    if a.pass_tokens is not None and (lives is a.encoder_live or not a.encodes):
        sequences = maximum(a.pass_sequences, 1.0)
        tokens = minimum(a.pass_tokens, batch.seqs * a.chunk_tokens)
        batch = Batch.uniform(sequences, tokens / sequences, 0.0)
    return _worst_bytes(lives, batch)


def _worst_bytes(lives: tuple[Live, ...], batch: Batch) -> Num:
    """Tensors of the operator that needs most for them."""
    worst: Num = 0.0
    for live in lives:
        worst = maximum(worst, live.bytes(batch))
    return worst


def _kv_bytes(a: Allocation, batch_size: Num, input_len: Num, output_len: Num) -> tuple[Num, Num]:
    """The cache during the prefill and in the last decode step.

    The last output token is never read, so n = input + output - 1 tokens are kept; a cache that grows
    by concatenation holds n and n - 1 of them at a time.
    """
    last = maximum(input_len + output_len - 1.0, input_len)
    sequences = batch_size * a.beams
    prompts = sequences if a.beam_cache == "copied" else batch_size
    own = sequences * a.own.bytes(input_len + output_len)
    grown = _grown_bytes(a, batch_size, (input_len, output_len, last), (prompts, sequences))
    return grown[0] + own, grown[1] + own


def _grown_bytes(
    a: Allocation, batch_size: Num, lengths: tuple[Num, Num, Num], counts: tuple[Num, Num]
) -> tuple[Num, Num]:
    """What the tokens of all sequences add, during the prefill and in the last decode step."""
    (input_len, output_len, last), (prompts, sequences) = lengths, counts
    match a.cache:
        case "contiguous":
            whole = sequences * (input_len + output_len) * a.kv_token_bytes
            return whole, whole
        case "paged":
            whole = _paged_tokens(a, batch_size, input_len, output_len) * a.kv_token_bytes
            return whole, whole
        case "concatenated":
            old = _tensors(a, sequences * (last - 1.0)) * (GATHERED_COPIES if a.beams > 1.0 else 1.0)
            return _tensors(a, prompts * input_len), _tensors(a, sequences * last) + old
        case "concatenated_by_layer":
            old = _tensors(a, sequences * (last - 1.0)) / maximum(a.cache_tensors, 1.0)
            return _tensors(a, prompts * input_len), _tensors(a, sequences * last) + old
        case "none":
            return 0.0, 0.0
        case never:
            assert_never(never)


def _source_kv_bytes(a: Allocation, batch_size: Num, source: Num) -> tuple[Num, Num]:
    """The cache of an encoder's output in the decoder's first pass and in the last one: it does not grow.

    Beams have one each unless they share their prompt's. A search that copies caches has, beside the gathered one,
    that of the step before: of all layers, or of one.
    """
    each = batch_size * (1.0 if a.beam_cache == "shared" else a.beams)
    gathers = a.beams > 1.0 and a.beam_cache == "copied"
    match a.cache:
        case "contiguous":
            whole = each * source * a.source_token_bytes
            return whole, whole
        case "paged":
            whole = each * ceil(source / a.block_tokens) * a.block_tokens * a.source_token_bytes
            return whole, whole
        case "concatenated" | "concatenated_by_layer":
            first = each if a.beam_cache == "copied" else batch_size
            share = 1.0 if a.cache == "concatenated" else 1.0 / maximum(a.cache_tensors, 1.0)
            kept = _tensors(a, each * source, a.source_token_bytes)
            return _tensors(a, first * source, a.source_token_bytes), kept * (1.0 + gathers * share)
        case "none":
            return 0.0, 0.0
        case never:
            assert_never(never)


def _paged_tokens(a: Allocation, batch_size: Num, input_len: Num, output_len: Num) -> Num:
    """Tokens of whole blocks: of each sequence, or of prompts that beams share and the outputs of each beam.

    Whole blocks of a prefix are there once for all sequences.
    """
    prefix = np.floor(a.prefix_len / a.block_tokens)
    if a.beams == 1.0 or a.beam_cache != "shared":
        sequences, blocks = batch_size * a.beams, ceil((input_len + output_len) / a.block_tokens)
    else:
        blocks = ceil(input_len / a.block_tokens) + a.beams * ceil(output_len / a.block_tokens)
        sequences = batch_size
    return (sequences * blocks - (sequences - 1.0) * prefix) * a.block_tokens


def _tensors(a: Allocation, tokens: Num, token_bytes: float | None = None) -> Num:
    """A cache of so many tokens in its tensors, each rounded up to whole segments if it is large."""
    count = maximum(a.cache_tensors, 1.0)
    each = tokens * (a.kv_token_bytes if token_bytes is None else token_bytes) / count
    return count * where(each >= LARGE_BYTES, ceil(each / SEGMENT_BYTES) * SEGMENT_BYTES, each)


def _workspace_bytes(a: Allocation, sequences: Num, context: Num, source: Num) -> Num:
    """A workspace for the tokens that it is meant for, or for those that fit beside the weights.

    It serves the longer pass of an encoder and its decoder. A cache inside it counts as cache, so it is taken off here.
    """
    if a.buffer is None:
        return 0.0
    free = a.capacity_bytes - a.weights_bytes - a.context_bytes - a.buffer.spare_bytes
    context = ceil(context / a.block_tokens) * a.block_tokens
    meant = sequences * maximum(maximum(context, source), a.buffer.max_tokens)
    tokens = minimum(meant, maximum(free, 0.0) / a.buffer.token_bytes) if a.buffer.token_bytes else meant
    return tokens * a.buffer.held_bytes - minimum(tokens, sequences * context) * a.buffer.cache_bytes


def _pool(a: Allocation, base: Num, context: Num, source: Num) -> Pool:
    """What `base`, everything but the cache, leaves for the cache of sequences of `context` tokens.

    An encoder's `source` tokens take blocks of the same size, as many as their bytes need.
    """
    pool_bytes = (a.limit_bytes - base) * (a.pool_fraction if a.pool_of_free else 1.0)
    per_token = a.kv_token_bytes * (2.0 if a.cache == "concatenated" else 1.0) + a.own.bytes(context) / context
    caches = np.any(per_token > 0.0)
    tokens = maximum(pool_bytes, 0.0) / per_token if caches else np.inf
    blocks = np.floor(tokens / a.block_tokens)
    beside = ceil(source / a.block_tokens) * (a.source_token_bytes / per_token) if caches else 0.0
    return Pool(pool_bytes, tokens, blocks, np.floor(blocks / (ceil(context / a.block_tokens) + beside)))
