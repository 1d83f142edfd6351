"""A model file as the config of a family that can be built: fields and values, checked by reading them back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache, reduce
from operator import or_
from pathlib import Path
from typing import Any, Final

from ..errors import RequestError, SpecError
from ..importers.huggingface.loading import import_hf
from ..specs.attention import GroupedQueryAttention
from ..specs.ffn import MoeFfn
from ..specs.model import EncoderStack, LayerGroup, ModelSpec

FAMILIES: Final = Path(__file__).with_name("families.json")
"""Family -> its fields and the words of `_words` that they hold, names of activations, fields that are always so, and
what its class takes for a model without a head."""

COMPARED: Final = (
    "causal", "hidden", "vocab", "position", "position_buckets", "norm", "norm_bias", "embedding_norm", "final_norm",
    "tied_embeddings", "head", "head_bias", "token_types", "layers", "encoder", "learned_rows", "embedding_width",
)  # fmt: skip
"""What of a model its operators come from."""


def config_of(model: ModelSpec) -> dict[str, Any]:
    """The fields of a config, `model_type` among them, whose model has the operators and weights of a model file.

    Of the families that are known, it is the one that the model is named after, or else the first whose config, read
    back, describes the same model.

    Raises:
        RequestError: no family that can be built is like it.
    """
    words = _words(model)
    known = families()
    for family in sorted(known, key=lambda family: not _named(model, family)):
        config = _config(family, words) if words is not None else None
        if config is not None and _same(model, config):
            return config
    raise RequestError(
        f"{model.name}: its layers are those of no family that can be built here; models of {', '.join(known)} can be"
    )


@cache
def families() -> dict[str, Mapping[str, Any]]:
    """The table of families, in the order in which they are tried."""
    table: dict[str, Mapping[str, Any]] = json.loads(FAMILIES.read_text(encoding="utf-8"))
    return table


def _named(model: ModelSpec, family: str) -> bool:
    """Whether a model is called after a family."""
    plain = family.removesuffix("_text").replace("_", "")
    return model.name.replace("-", "").replace(".", "").startswith(plain)


def _config(family: str, words: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of a family that says these words; None where an activation has no name there."""
    entry = families()[family]
    activations = {"gelu_tanh": "gelu_pytorch_tanh", **entry.get("activations", {})}
    told = {**words, "activation": activations.get(words["activation"], words["activation"])}
    fields = {field: told[word] for field, word in entry["fields"].items() if told.get(word) is not None}
    return {"model_type": family, **entry.get("always", {}), **fields}


def _same(model: ModelSpec, config: Mapping[str, Any]) -> bool:
    """Whether a config, read, describes a model of these operators."""
    try:
        read = import_hf(config)
    except (SpecError, RequestError):
        return False
    return isinstance(read, ModelSpec) and _compared(read) == _compared(model)


def _compared(model: ModelSpec) -> tuple[Any, ...]:
    return tuple(_plain(getattr(model, name)) for name in COMPARED)


def _plain(value: Any) -> Any:
    """Groups of layers as how often each occurs; the order does not change the work."""
    if isinstance(value, tuple):
        counted: Counter[LayerGroup] = Counter()
        for group in value:
            counted[group.model_copy(update={"count": 1})] += group.count
        return counted
    if isinstance(value, EncoderStack):
        return _plain(value.layers), value.embedding_norm, value.final_norm, value.tied_embeddings, value.audio
    return value


def _words(model: ModelSpec) -> dict[str, Any] | None:
    """What fields of configs can say of a model; None where it has parts that no family of the table has."""
    first = model.layers[0]
    attention, ffn = first.attention, first.ffn
    if not isinstance(attention, GroupedQueryAttention) or ffn is None or model.vision is not None:
        return None
    shape = {
        "hidden": model.hidden,
        "vocab": model.vocab,
        "layer_count": model.layer_count,
        "max_positions": model.max_positions,
        "position_rows": model.learned_rows or None,
        "tied": model.tied_embeddings,
        "token_types": model.token_types,
        "position_buckets": model.position_buckets,
        "embedding_width": model.embedding_width or model.hidden,
        "final_norm": model.final_norm,
        "parallel": first.parallel,
        "two_norms": first.parallel and first.norms == 2,
        "alibi": model.position == "alibi",
    }
    rest = (_attention_words(attention), _ffn_words(first, model.hidden), _windows(model), _encoder_words(model))
    return reduce(or_, rest, shape)


def _attention_words(attention: GroupedQueryAttention) -> dict[str, Any]:
    return {
        "heads": attention.heads,
        "kv_heads": attention.kv_heads,
        "one_key": attention.kv_heads == 1,
        "head_dim": attention.head_dim,
        "qkv_bias": attention.qkv_bias,
        "qk_norm": bool(attention.qk_norm),
        "logit_cap": attention.logit_cap,
    }


def _ffn_words(group: LayerGroup, hidden: int) -> dict[str, Any]:
    """What feeds forward; `feed` says it in one word."""
    ffn = group.ffn
    assert ffn is not None, "layers without a feed-forward have no words"
    told: dict[str, Any] = {"activation": ffn.activation, "ffn_bias": ffn.bias}
    if isinstance(ffn, MoeFfn):
        counts = {"experts": ffn.experts, "experts_per_token": ffn.experts_per_token, "expert_width": ffn.intermediate}
        return told | counts
    feed = f"gated-{ffn.activation.removesuffix('_tanh')}" if ffn.kind == "gated" else ffn.activation
    return told | {"intermediate": ffn.intermediate, "wider": ffn.intermediate // hidden, "feed": feed}


def _windows(model: ModelSpec) -> dict[str, Any]:
    """Which layers see a window, in the ways in which configs say so."""
    tokens = [_window(group) for group in model.layers for _ in range(group.count)]
    local = sum(each is not None for each in tokens)
    window = next((each for each in tokens if each is not None), None)
    kinds = ["full_attention" if each is None else "sliding_attention" for each in tokens]
    half = [[["global", "local"], len(tokens) // 2]] if 2 * local == len(tokens) else None
    return {
        "window": window,
        "windowed": window is not None,
        "layer_types": kinds if local else None,
        "attention_types": half or [[["global"], len(tokens)]],
    }


def _window(group: LayerGroup) -> int | None:
    return group.attention.window_tokens if isinstance(group.attention, GroupedQueryAttention) else None


def _encoder_words(model: ModelSpec) -> dict[str, Any]:
    """Sizes of the encoder of an encoder-decoder."""
    if model.encoder is None:
        return {}
    first = model.encoder.layers[0]
    heads = first.attention.heads if isinstance(first.attention, GroupedQueryAttention) else None
    width = None if first.ffn is None else first.ffn.intermediate
    return {"encoder_layers": model.encoder_layer_count, "encoder_heads": heads, "encoder_intermediate": width}
