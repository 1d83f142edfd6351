"""What a config says of stored weights -> a precision of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ...errors import SpecError
from ...specs.catalog import load
from ...specs.checkpoint import Checkpoint, Narrowed, cache_format_of, narrowed_of, precision_of
from ...specs.precision import PrecisionSpec
from .reading import TEXT_PARTS

QUANTISED: Final = (b'"quantization_config"', b'"compression_config"')
"""What the bytes of a config hold whose weights are stored narrow."""
PLAIN: Final = {"float16": "w16a16", "half": "w16a16", "bfloat16": "bf16", "float32": "fp32", "float": "fp32"}
"""Types of values that nothing narrows -> precisions."""
NARROW_EXPERTS: Final = "fp8-mxfp4-experts"
"""The precision of checkpoints in 8 bits whose experts are said to be in 4."""
_NO_PRODUCT: Final = re.compile(r"norm|\bgate$|router|lm_head|embed|visual|vision")
_EXCLUDED: Final = ("modules_to_not_convert", "ignore", "exclude_modules", "ignored_layers", "llm_int8_skip_modules")
_BITS: Final = ("bits", "num_bits", "w_bit", "weight_bits")
_GROUP: Final = ("group_size", "q_group_size")


def plain_of(config: Mapping[str, Any]) -> str:
    """The precision of weights that nothing narrows, by the type of values that a config names."""
    inner = _inside(config)
    named = config.get("torch_dtype") or config.get("dtype") or inner.get("torch_dtype") or inner.get("dtype")
    return PLAIN.get(str(named).removeprefix("torch."), "w16a16")


def _inside(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the language model inside a larger one; empty where there is none."""
    parts: list[Mapping[str, Any]] = [config[part] for part in TEXT_PARTS if isinstance(config.get(part), dict)]
    return parts[0] if parts else {}


def stored_as(config: Mapping[str, Any], beside: Mapping[str, Any], where: str) -> PrecisionSpec | None:
    """The precision that a config, or the file beside it, describes; None: weights are stored as values are.

    Raises:
        SpecError: no precision of the catalogue stands for it.
    """
    inner = _inside(config)
    sources = (beside.get("quantization"), *(part.get(word) for part in (config, inner) for word in _WORDS))
    described = next((source for source in sources if isinstance(source, dict) and source), None)
    if described is None:
        return None
    layers = inner.get("num_hidden_layers") or config.get("num_hidden_layers")
    try:
        narrow = config.get("expert_dtype") == "fp4"
        name = NARROW_EXPERTS if narrow else precision_of(_checkpoint(described, layers))
        cache = cache_format_of(_cache(described))
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None
    return load(PrecisionSpec, name).with_cache(cache)


_WORDS: Final = ("quantization_config", "compression_config")


def _checkpoint(described: Mapping[str, Any], layers: Any) -> Checkpoint:
    """A description in the words of a checkpoint."""
    weights, inputs = _group_of(described)
    excluded = next((described[word] for word in _EXCLUDED if described.get(word)), ())
    products = [str(module) for module in excluded if not _NO_PRODUCT.search(str(module))]
    narrowed: Narrowed = narrowed_of(products, layers if isinstance(layers, int) else None)
    method = str(described.get("quant_algo") or described.get("quant_method") or "")
    form = described.get("bnb_4bit_quant_type") if described.get("load_in_4bit") else None
    blocks = bool(described.get("weight_block_size")) or weights.get("strategy") == "block"
    bits = _first(weights, _BITS) or _first(described, _BITS)
    loaded = 4 if described.get("load_in_4bit") else 8 if described.get("load_in_8bit") else None
    return Checkpoint(
        method=method,
        bits=loaded or bits,
        group_size=_first(weights, _GROUP) or _first(described, _GROUP),
        form=str(form or described.get("format") or described.get("fmt") or ""),
        input_bits=_first(inputs, _BITS) or (8 if described.get("activation_scheme") else None),
        blocks=blocks,
        narrowed=narrowed,
    )


def _group_of(described: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What the first group of modules has for weights and for the inputs of products."""
    groups = described.get("config_groups")
    group: Mapping[str, Any] = next(iter(groups.values()), {}) if isinstance(groups, dict) else {}
    return group.get("weights") or {}, group.get("input_activations") or {}


def _first(fields: Mapping[str, Any], words: tuple[str, ...]) -> int | None:
    return next((fields[word] for word in words if isinstance(fields.get(word), int)), None)


def _cache(described: Mapping[str, Any]) -> str | None:
    """What keys and values are stored in."""
    told = described.get("kv_cache_quant_algo") or described.get("kv_cache_scheme")
    if isinstance(told, dict):
        return f"{'fp' if told.get('type') == 'float' else 'int'}{told.get('num_bits')}"
    return told if isinstance(told, str) else None
