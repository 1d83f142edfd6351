"""What a checkpoint says of its weights -> the name of the precision that stands for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

from ..errors import SpecError
from .catalog import names
from .precision import CacheFormat, PrecisionSpec

Narrowed = Literal["all", "ffn", "experts"]
"""Which products are narrow: those of layers; all but those of attention; those of routed experts alone."""


class Checkpoint(NamedTuple):
    """How the weights of a checkpoint are stored, in the words of its description."""

    method: str
    """As `quant_method` or `quant_algo` has it: gptq, awq, fp8, compressed-tensors, NVFP4, gguf, ..."""
    bits: int | None = None
    """Bits of a weight."""
    group_size: int | None = None
    """Weights that share a scale; None or less than 1: a whole column or tensor."""
    form: str = ""
    """Format beside the method: `pack-quantized`, `nf4`, `Q4_K_M`, ..."""
    input_bits: int | None = None
    """Bits of a product's inputs; None: not stated."""
    blocks: bool = False
    """Whether a scale is that of a block of rows and columns."""
    narrowed: Narrowed = "all"


RULES: Final = Path(__file__).with_name("checkpoints.json")
"""Pattern of a description, and the name of the precision; the first that matches counts."""

_NORM = re.compile(r"norm")
_ATTENTION = re.compile(r"attn|attention|\b[qkvo]_proj|kv_[ab]_proj|q_[ab]_proj|qkv")
_DENSE = re.compile(r"shared_expert|mlp\S*(gate|up|gate_up|down)\S*_proj")
_LAYER = re.compile(r"\.(\d+)\.")


def precision_of(checkpoint: Checkpoint) -> str:
    """The name of the precision that a checkpoint is stored in.

    Raises:
        SpecError: no precision of the catalogue stands for it.
    """
    name = _format_of(checkpoint) + ("" if checkpoint.narrowed == "all" else f"-{checkpoint.narrowed}")
    known = names(PrecisionSpec)
    for found in (name, name.replace("mxfp4-ffn", "mxfp4-experts")):  # where all feed-forwards are experts
        if found in known:
            return found
    raise SpecError(
        f"weights stored as {_words(checkpoint).strip()} match no precision: {name} is not in the catalogue; "
        f"near: {', '.join(other for other in known if other.startswith(name[:4])) or 'none'}; give --precision"
    )


def _format_of(checkpoint: Checkpoint) -> str:
    words = _words(checkpoint)
    for pattern, name in _rules():
        found = re.fullmatch(pattern, words)
        if found:
            given = {key: value.replace("_", "-") for key, value in found.groupdict().items()}
            return name.format(group=_group(checkpoint), **given)
    raise SpecError(f"weights stored as {words.strip()} match no precision; give --precision")


@cache
def _rules() -> tuple[tuple[str, str], ...]:
    return tuple((pattern, name) for pattern, name in json.loads(RULES.read_text(encoding="utf-8")))


def _words(c: Checkpoint) -> str:
    """The description in one line: method, format, widths, blocks."""
    bits = c.bits if c.bits is not None else 8 if "fp8" in c.method.lower() else "-"
    blocks = "blocks" if c.blocks else "whole"
    return f"{c.method.lower()} {c.form.lower() or '-'} w{bits} a{c.input_bits or '-'} {blocks}"


def _group(c: Checkpoint) -> str:
    """The group in the name of an integer format; 128 is that of the plain 4-bit name."""
    size = c.group_size if c.group_size is not None and c.group_size > 0 else None
    if c.bits == 8:
        return "" if size is None else f"-g{size}"
    return "-column" if size is None else "" if size == 128 and c.narrowed == "all" else f"-g{size}"


def narrowed_of(excluded: Iterable[str], layers: int | None = None) -> Narrowed:
    """Which products are narrow, by the modules that a checkpoint excludes.

    A module that names a layer stands for that layer; attention counts as wide where at least half of `layers` do.
    """
    modules = [module for module in excluded if not _NORM.search(module)]
    attention = [module for module in modules if _ATTENTION.search(module)]
    if not _most(attention, layers):
        return "all"
    return "experts" if _most([module for module in modules if _DENSE.search(module)], layers) else "ffn"


def _most(modules: list[str], layers: int | None) -> bool:
    """Whether modules stand for most of the layers: by a pattern of all, or by their numbers."""
    numbers = {int(found[1]) for module in modules if (found := _LAYER.search(module))}
    everywhere = any(not _LAYER.search(module) for module in modules)
    return everywhere or len(numbers) >= max(1.0, (layers or 1) / 2.0)


def cache_format_of(word: str | None) -> CacheFormat:
    """What keys and values are stored in, by the word of a checkpoint.

    Raises:
        SpecError: the word is none that is known.
    """
    if word is None or word.lower() in {"", "none", "auto"}:
        return "auto"
    known: dict[str, CacheFormat] = {"fp8": "fp8", "int8": "int8", "nvfp4": "fp4", "bf16": "bf16", "fp16": "fp16"}
    for start, found in known.items():
        if word.lower().startswith(start):
            return found
    raise SpecError(f"a cache stored as '{word}' is not known; known: {', '.join(known)}")
