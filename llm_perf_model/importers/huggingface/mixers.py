"""Words -> the spec of what mixes tokens in a layer."""

from __future__ import annotations

from ...specs.attention import CompressedAttention, GroupedQueryAttention, Indexer, LatentAttention
from ...specs.mixer import DecayState, DeltaState, HeadState, Mixer, SelectiveState, ShortConvolution
from .reading import Words
from .rotation import is_rotated


def mixer(words: Words, kind: str, layer: int) -> Mixer:
    """What mixes tokens in a layer of some kind."""
    match kind:
        case "state" | "both":
            return _state(words)
        case "conv":
            width, window = words.whole("conv_width") or words.need("hidden"), words.need("conv_window")
            return ShortConvolution(inner=width, conv_window=window, bias=words.flag("conv_bias"))
        case _ if words.get("ratios") is not None:
            return _compressed(words, layer)
        case _ if words.whole("kv_rank") is not None:
            return _latent(words)
        case _:
            return grouped(words, kind, layer)


def grouped(words: Words, kind: str, layer: int) -> GroupedQueryAttention:
    """Softmax attention; a config may give layers with windows, or those without, sizes of their own."""
    heads = _own(words, kind, "heads", layer)
    if heads is None:
        raise words.fail("heads", "is missing")
    kv_heads = _own(words, kind, "kv_heads", layer) or (1 if words.flag("multi_query") else heads)
    head_dim = _own(words, kind, "head_dim", layer) or _even_head(words, heads)
    value_dim = _own(words, kind, "value_dim", layer)
    if heads % kv_heads:
        raise words.fail("kv_heads", f"is {kv_heads}, which does not divide the {heads} heads")
    biased = words.flag("attention_bias")
    sinks = words.get(f"{kind}_sinks")
    return GroupedQueryAttention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=None if value_dim == head_dim else value_dim,
        qkv_bias=biased if words.get("qkv_bias") is None else words.flag("qkv_bias"),
        out_bias=biased and words.get("out_follows") is not False
        if words.get("out_bias") is None
        else words.flag("out_bias"),
        qk_norm=words.flag("qk_norm") and ("whole" if words.text("qk_norm_of") == "whole" else True),
        gate="head" if words.flag("head_gate") else "value" if words.flag("value_gate") else None,
        rotated=is_rotated(words, kind, layer),
        sinks=bool(words.flag("sinks") if sinks is None else sinks),
        values_are_keys=words.flag("values_are_keys") and kind == "full",
        borrowed=layer >= words.need("layer_count") - (words.whole("borrowing") or 0),
        window_tokens=words.whole("window") if kind == "window" else None,
        chunk_tokens=words.whole("chunk") if kind == "chunk" else None,
        logit_cap=words.factor("logit_cap"),
    )


def _own(words: Words, kind: str, word: str, layer: int) -> int | None:
    """A size of layers of a kind; that of all layers where the kind has none of its own."""
    return words.whole(f"{kind}_{word}", layer) or words.whole(word, layer)


def _even_head(words: Words, heads: int) -> int:
    """Values of a head where heads share the width of the model."""
    return max(words.need("hidden") // heads, 1)


def _indexer(words: Words) -> Indexer | None:
    heads, tokens = words.whole("index_heads"), words.whole("index_tokens")
    if heads is None or tokens is None:
        return None
    return Indexer(heads=heads, head_dim=words.need("index_dim"), tokens=tokens)


def _latent(words: Words) -> LatentAttention:
    biased = words.flag("attention_bias")
    return LatentAttention(
        heads=words.need("heads"),
        q_rank=words.whole("q_rank"),
        kv_rank=words.need("kv_rank"),
        nope_dim=words.need("nope_dim"),
        rope_dim=words.need("rope_dim"),
        value_dim=words.whole("value_dim") or _even_head(words, words.need("heads")),
        qkv_bias=biased,
        out_bias=biased,
        indexer=_indexer(words),
    )


def _compressed(words: Words, layer: int) -> CompressedAttention:
    """The past is picked by an indexer only where it is compressed a little."""
    ratio = words.whole("ratios", layer)
    return CompressedAttention(
        heads=words.need("heads"),
        head_dim=words.need("head_dim"),
        rope_dim=words.need("rope_dim"),
        q_rank=words.need("q_rank"),
        out_rank=words.need("out_rank"),
        out_groups=words.need("out_groups"),
        window_tokens=words.need("window"),
        ratio=ratio,
        indexer=_indexer(words) if ratio is not None and ratio < words.need("sparse_below") else None,
    )


def _state(words: Words) -> Mixer:
    match words.text("state"):
        case "mamba":
            return _selective(words)
        case "mamba2":
            return _head_state(words)
        case "delta":
            return DeltaState(
                key_heads=words.need("delta_key_heads"),
                value_heads=words.whole("delta_value_heads") or words.need("delta_key_heads"),
                key_dim=words.need("delta_key_dim"),
                value_dim=words.whole("delta_value_dim") or words.need("delta_key_dim"),
                conv_window=words.need("conv_window"),
                decay_rank=words.need("delta_key_dim") if words.flag("delta_ranks") else None,
                gate_rank=words.need("delta_key_dim") if words.flag("delta_ranks") else None,
            )
        case "linear":
            heads = words.need("heads")
            return DecayState(heads=heads, head_dim=words.whole("head_dim") or _even_head(words, heads), gated=True)
        case _:
            raise words.fail(
                "mixer_types", f"holds layers with a state, of which {words.family} is not known to have any"
            )


def _selective(words: Words) -> SelectiveState:
    hidden = words.need("hidden")
    inner = words.whole("state_inner") or _times(words, "state_expand", hidden)
    return SelectiveState(
        inner=inner,
        state=words.need("state_size"),
        conv_window=words.need("conv_window"),
        step_rank=words.whole("step_rank") or -(-hidden // 16),
        bias=words.flag("state_bias"),
        conv_bias=words.flag("conv_bias"),
        inner_norms=words.flag("inner_norms"),
    )


def _head_state(words: Words) -> HeadState:
    inner = words.whole("state_inner") or 0
    heads = words.whole("state_heads")
    head_dim = words.whole("state_head_dim")
    if heads is None or head_dim is None:
        inner = inner or _times(words, "state_expand", words.need("hidden"))
        heads = heads or inner // (head_dim or inner)
        head_dim = head_dim or inner // heads
    return HeadState(
        heads=heads,
        head_dim=head_dim,
        state=words.need("state_size"),
        groups=words.whole("state_groups") or 1,
        conv_window=words.need("conv_window"),
        bias=words.flag("state_bias"),
        conv_bias=words.flag("conv_bias"),
        gated_norm=words.flag("state_norm"),
    )


def _times(words: Words, word: str, size: int) -> int:
    """A multiple of a size, which configs may give as a fraction."""
    factor = words.factor(word)
    return int(factor * size) if factor is not None else words.need(word)
