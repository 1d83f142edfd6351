"""Exact bytes of the weights in safetensors files [1]_, from their headers or from an index.

.. [1] Hugging Face, "Safetensors: metadata parsing", https://huggingface.co/docs/safetensors/metadata_parsing
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import SpecError
from ..specs.catalog import load
from ..specs.model import ModelSpec
from ..specs.precision import PrecisionSpec
from .counted import PARTS, Held, Part, as_stored, weights_of
from .paths import at_home
from .stated import slug

INDEX_ENDING: Final = ".safetensors.index.json"
ENDING: Final = ".safetensors"

_SAME = 0.05
"""Widths that differ by less are the same one, beside a few wider weights."""

_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000
"""Bytes of the longest header that the format allows."""

VALUE_BYTES: Final[Mapping[str, float]] = {
    "F64": 8.0, "I64": 8.0, "U64": 8.0, "C64": 8.0, "F32": 4.0, "I32": 4.0, "U32": 4.0, "F16": 2.0, "BF16": 2.0,
    "I16": 2.0, "U16": 2.0, "F8_E4M3": 1.0, "F8_E5M2": 1.0, "F8_E8M0": 1.0, "I8": 1.0, "U8": 1.0, "BOOL": 1.0,
    "F6_E2M3": 0.75, "F6_E3M2": 0.75, "F4": 0.5,
}  # fmt: skip
"""Bytes per value of each type."""

_COMPUTES_AS: Final[Mapping[str, str]] = {
    "F64": "fp32", "F32": "fp32", "F16": "w16a16", "BF16": "bf16", "F8_E4M3": "fp8", "F8_E5M2": "fp8",
}  # fmt: skip
"""Type of weights that are stored as they are multiplied -> the precision."""

_PARTS: Final[tuple[tuple[Part, str], ...]] = (
    ("others", r"norm|(^|[._])ln(_|\d|\b)|router|\bgate\.(weight|bias|e_score)|shared_expert_gate"),
    ("experts", r"\bexperts?\."),
    ("attention", r"attn|attention|mixer|mamba"),
    ("products", r"\.\d+\."),
    ("table", r"embed_tokens|\bwte\b|word_embeddings|tok_embeddings|embed_in"),
)
"""What names of tensors say about what they belong to, first match; otherwise the output head and other tables."""


class Tensor(NamedTuple):
    """A tensor in a header."""

    kind: str
    shape: tuple[int, ...]
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights as files hold them."""

    stored_bytes: int
    tensors: Mapping[str, Tensor]
    """By name; empty where only an index is there, which says but the bytes of all."""

    @property
    def values(self) -> int:
        """Values of all tensors: the parameters, unless several are packed in one."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def dtype_bytes(self) -> dict[str, int]:
        """Bytes of each type."""
        found: dict[str, int] = {}
        for tensor in self.tensors.values():
            found[tensor.kind] = found.get(tensor.kind, 0) + tensor.stored_bytes
        return found


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a safetensors file, an index of some, or a folder that holds either."""
    if path.is_dir():
        return next(path.glob(f"*{ENDING}*"), None) is not None
    return path.name.endswith((ENDING, INDEX_ENDING))


def read(path: str | Path) -> Checkpoint:
    """The weights in a file, in the files of an index, or in a folder.

    Raises:
        SpecError: a file is missing, cut off, or none of the format.
    """
    where = at_home(path)
    if where.is_dir():
        index = next(iter(sorted(where.glob(f"*{INDEX_ENDING}"))), None)
        files = sorted(where.glob(f"*{ENDING}"))
        if index is None and not files:
            raise SpecError(f"{where}: holds no safetensors file and no index of some")
        return _indexed(index) if index is not None else _together(files)
    return _indexed(where) if where.name.endswith(INDEX_ENDING) else _together([where])


def precision_as_stored(checkpoint: Checkpoint, model: ModelSpec, base: PrecisionSpec | None = None) -> PrecisionSpec:
    """The precision of a checkpoint: all weights take the bytes that its files do.

    Args:
        checkpoint: the weights.
        model: what they are the weights of.
        base: how packed weights are multiplied; None: weights are stored as they are multiplied.

    Raises:
        SpecError: weights are packed, and nothing says how they are multiplied.
    """
    own = {name: tensor for name, tensor in checkpoint.tensors.items() if not _guesses(name, model)}
    held = _by_part(own, base) if own else _of_all(checkpoint, model, base)
    name = f"{model.name}-{held['products'].like.name}"
    title = f"{model.title}: {held['products'].like.name} and what else its files store"
    return as_stored(model, held, slug(name), title, "bytes of the tensors in its safetensors files over their weights")


def _indexed(path: Path) -> Checkpoint:
    data = _object(_bytes(path), path)
    files, total = data.get("weight_map"), (data.get("metadata") or {}).get("total_size")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise SpecError(f"{path}: is no index of safetensors files: it has no weight_map of tensors and files")
    parts = [path.with_name(name) for name in sorted(set(files.values()))]
    if all(part.is_file() for part in parts):
        return _together(parts)
    if isinstance(total, bool) or not isinstance(total, int | float) or total <= 0:
        missing = next(part.name for part in parts if not part.is_file())
        raise SpecError(f"{path}: {missing} is not beside it, and metadata.total_size is {total!r}: give either")
    return Checkpoint(int(total), {})


def _together(files: list[Path]) -> Checkpoint:
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _header(file)
    return Checkpoint(sum(tensor.stored_bytes for tensor in tensors.values()), tensors)


def _header(path: Path) -> dict[str, Tensor]:
    """Tensors by name; of the file only the header is read."""
    try:
        with path.open("rb") as file:
            start = file.read(_LENGTH.size)
            length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
            text = file.read(length) if 0 < length <= _LONGEST_HEADER else b""
        held = path.stat().st_size - _LENGTH.size - length
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    if not text or len(text) < length:
        raise SpecError(f"{path}: is no safetensors file, or its header is cut off")
    tensors = {name: _tensor(path, name, item) for name, item in _object(text, path).items() if name != "__metadata__"}
    wanted = sum(tensor.stored_bytes for tensor in tensors.values())
    if held < wanted:
        raise SpecError(f"{path}: holds {held} bytes of tensors, and its header lists {wanted}: it is cut off")
    return tensors


def _tensor(path: Path, name: str, item: Any) -> Tensor:
    try:
        kind, shape, (first, last) = str(item["dtype"]), tuple(int(n) for n in item["shape"]), item["data_offsets"]
        stored = int(last) - int(first)
    except (TypeError, KeyError, ValueError):
        raise SpecError(f"{path}: tensor {name} has no dtype, shape and data_offsets") from None
    if kind not in VALUE_BYTES:
        raise SpecError(f"{path}: tensor {name} has the unknown dtype {kind}; known: {', '.join(VALUE_BYTES)}")
    if stored != math.ceil(math.prod(shape) * VALUE_BYTES[kind]):
        raise SpecError(
            f"{path}: tensor {name} of {kind} {list(shape)} takes {stored} bytes: header and shape disagree"
        )
    return Tensor(kind, shape, stored)


def _guesses(name: str, model: ModelSpec) -> bool:
    """Whether a tensor belongs to what guesses further tokens: the model's own layers are fewer."""
    layer = re.match(r"(?:model\.|language_model\.)*layers\.(\d+)\.", name)
    return name.startswith(("mtp.", "model.mtp.")) or (layer is not None and int(layer[1]) >= model.layer_count)


def _by_part(tensors: Mapping[str, Tensor], base: PrecisionSpec | None) -> dict[Part, Held]:
    inside: dict[Part, list[Tensor]] = {part: [] for part in PARTS}
    for name, tensor in tensors.items():
        inside[_part(name)].append(tensor)
    return {part: Held(sum(each.stored_bytes for each in inside[part]), _like(inside[part], base)) for part in PARTS}


def _of_all(checkpoint: Checkpoint, model: ModelSpec, base: PrecisionSpec | None) -> dict[Part, Held]:
    """Weights as wide beside each other as a precision has them, since an index says but the bytes of all."""
    like = _unpacked(checkpoint, model) if base is None else base
    widths: dict[Part, float] = {
        "products": like.weight_bytes,
        "attention": like.weight_bytes if like.attention is None else like.attention.weight_bytes,
        "experts": like.weight_bytes if like.experts is None else like.experts.weight_bytes,
        "table": like.table_bytes,
        "others": like.wide_bytes,
    }
    wanted = {part: weights_of(model, part) * width for part, width in widths.items()}
    ratio = checkpoint.stored_bytes / sum(wanted.values())
    return {part: Held(stored_bytes * ratio, like) for part, stored_bytes in wanted.items()}


def _unpacked(checkpoint: Checkpoint, model: ModelSpec) -> PrecisionSpec:
    """The precision of weights that are stored as they are multiplied, by their mean width."""
    width = checkpoint.stored_bytes / model.parameters
    for name, each in (("bf16", 2.0), ("fp32", 4.0)):
        if abs(width / each - 1.0) < _SAME:
            return load(PrecisionSpec, name)
    problem = f"an index of {checkpoint.stored_bytes} bytes is {width:.3g} bytes a weight of {model.name}"
    raise SpecError(f"{problem}: give its safetensors files too, or name a precision")


def _part(name: str) -> Part:
    return next((part for part, words in _PARTS if re.search(words, name)), "others")


def _like(tensors: list[Tensor], base: PrecisionSpec | None) -> PrecisionSpec:
    """The precision that computes as most of some weights are stored: packed ones need one from elsewhere."""
    dtype_bytes: dict[str, int] = {}
    for tensor in tensors:
        dtype_bytes[tensor.kind] = dtype_bytes.get(tensor.kind, 0) + tensor.stored_bytes
    most = max(dtype_bytes, key=lambda kind: dtype_bytes[kind], default="BF16")
    if base is not None and most not in {"F64", "F32", "F16", "BF16"}:
        return base
    if most not in _COMPUTES_AS:
        raise SpecError(f"weights are packed as {most}, and nothing says how they are multiplied: name a precision")
    return load(PrecisionSpec, _COMPUTES_AS[most])


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None


def _object(text: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        raise SpecError(f"{path}: is no JSON, or a part of it is missing") from None
    if not isinstance(data, dict):
        raise SpecError(f"{path}: is no JSON object")
    return data
