"""Models and precisions from GGUF files [1]_: metadata and the names, shapes and types of tensors, no values.

.. [1] G. Gerganov et al., "GGUF", https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ..errors import RequestError, SpecError
from ..specs.catalog import load
from ..specs.model import ModelSpec
from ..specs.precision import PrecisionSpec
from .counted import PARTS, Held, Part, as_stored, counted
from .facts import facts
from .gguf_layers import Tensor, layers_of
from .stated import Stated, slug

TOOL: Final = "GGUF"

_OUTSIDE: Final = frozenset({"token_embd", "token_embd_norm", "position_embd", "output", "output_norm"})
_FREQUENCIES: Final = frozenset({"rope_freqs", "rope_factors_long", "rope_factors_short"})
"""Tables of rotations: weights of no operator."""

_COMPUTES_AS: Final[Mapping[str, str]] = {
    "F64": "fp32",
    "F32": "fp32",
    "F16": "w16a16",
    "BF16": "bf16",
    "Q8_0": "q8-0",
    "Q8_1": "q8-0",
    "Q8_K": "q8-0",
    "Q6_K": "q6-k",
    "Q5_K": "q5-k-m",
    "Q5_0": "q5-k-m",
    "Q5_1": "q5-k-m",
    "Q4_K": "q4-k-m",
    "Q4_0": "q4-0",
    "Q4_1": "q4-0",
    "IQ4_NL": "q4-0",
    "IQ4_XS": "q4-0",
    "Q3_K": "q3-k-m",
    "IQ3_S": "q3-k-m",
    "IQ3_XXS": "q3-k-m",
    "Q2_K": "q2-k",
    "IQ2_S": "q2-k",
    "IQ2_XS": "q2-k",
    "IQ2_XXS": "q2-k",
    "IQ1_S": "q2-k",
    "IQ1_M": "q2-k",
    "TQ1_0": "q2-k",
    "TQ2_0": "q2-k",
    "MXFP4": "mxfp4-w4a16",
    "NVFP4": "nvfp4-w4a16",
}
"""Type of weights -> the precision that computes as they are stored; widths are the file's own."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """What the header of a file, or of all parts of a split one, says."""

    stated: Stated
    """Metadata, without the name of the architecture before its keys."""
    architecture: str
    title: str
    tensors: Mapping[str, Tensor]


def model_of(path: Path) -> ModelSpec:
    """The model in a file.

    Raises:
        RequestError: the package `gguf` is missing.
        SpecError: the file is broken, or has a tensor that no block stands for.
    """
    return _model(read(path))


def precision_of(path: Path) -> PrecisionSpec:
    """The precision of a file: widths are averages over its tensors, units are those of the type of most weights."""
    file = read(path)
    held = {part: _held([each for name, each in file.tensors.items() if _part(name) == part]) for part in PARTS}
    most = _most(list(file.tensors.values()))
    title = f"{file.title}: {most} and what else its file stores"
    origin = f"bytes of the tensors in {path.name} over their weights"
    return as_stored(_model(file), held, slug(f"{file.title}-{most}"), title, origin)


def read(path: Path) -> GgufFile:
    """The header of a file, and those of its other parts; read again only after it has changed."""
    changed = path.stat()
    return _read(path, changed.st_mtime_ns, changed.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, _changed_ns: int, _size: int) -> GgufFile:
    fields, tensors = _read_one(path)
    for part in _other_parts(path, fields):
        tensors |= _read_one(part)[1]
    architecture = str(fields.get("general.architecture", ""))
    own = {key.removeprefix(f"{architecture}."): value for key, value in fields.items()}
    stated = Stated(str(path), TOOL, {key: value for key, value in own.items() if value is not None})
    if not any(name.startswith("blk.0.") for name in tensors):
        raise stated.refuse(f"has no layers: architecture {architecture or 'unknown'}; a model has tensors blk.0.*")
    predicted = _predicted(stated)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(predicted)}
    title = str(fields.get("general.name") or path.stem)
    return GgufFile(stated, architecture, title, {k: v for k, v in kept.items() if _stem(k) not in _FREQUENCIES})


def _read_one(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata but for the tokenizer, and tensors by name."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise RequestError("a GGUF file needs the package gguf: pip install 'llm-perf-model[gguf]'") from None
    try:
        reader = GGUFReader(path)
        kept = {key: field for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
        fields = {key: field.contents() for key, field in kept.items()}
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, IndexError, KeyError, OverflowError, TypeError):
        raise SpecError(f"{path}: is no whole GGUF file: a part of it is missing or broken") from None
    tensors = {
        tensor.name: Tensor(tensor.tensor_type.name, tuple(int(n) for n in tensor.shape), int(tensor.n_bytes))
        for tensor in reader.tensors
    }
    return fields, tensors


def _other_parts(path: Path, fields: Mapping[str, Any]) -> Iterator[Path]:
    """The files beside the first one of a split model."""
    parts = int(fields.get("split.count") or 1)
    if parts == 1:
        return
    found = re.fullmatch(r"(.*)-00001-of-(\d+)", path.stem)
    if found is None:
        raise SpecError(f"{path}: is a part of a model of {parts} files: give the first one, which ends in -00001-of-N")
    for number in range(2, parts + 1):
        part = path.with_name(f"{found[1]}-{number:05d}-of-{found[2]}{path.suffix}")
        if not part.is_file():
            raise SpecError(f"{path}: is one of {parts} files, and {part.name} is not beside it")
        yield part


def _predicted(stated: Stated) -> tuple[str, ...]:
    """Starts of the names of layers that guess further tokens: they are no part of the model."""
    guesses = stated.count("nextn_predict_layers") if stated.fields.get("nextn_predict_layers") else None
    count = stated.needed_count("block_count")
    return tuple(f"blk.{index}." for index in range(count - (guesses or 0), count))


def _stem(name: str) -> str:
    """Name of a tensor without `.weight` or `.bias`, and without its block."""
    return re.sub(r"^blk\.\d+\.", "", name).rsplit(".", 1)[0]


def _part(name: str) -> Part:
    """What a tensor belongs to."""
    stem = _stem(name)
    if not name.startswith("blk."):
        return "table" if stem == "token_embd" else "others"
    if stem.endswith(("norm", "norm_2", "ffn_gate_inp", "ffn_gate_inp_shexp", "sinks", "exp_probs_b")):
        return "others"
    return "attention" if stem.startswith("attn") else "experts" if stem.endswith("exps") else "products"


def _most(tensors: list[Tensor]) -> str:
    """The type of most weights."""
    kinds: dict[str, int] = {}
    for tensor in tensors:
        kinds[tensor.kind] = kinds.get(tensor.kind, 0) + tensor.values
    return max(kinds, key=lambda kind: kinds[kind], default="F16")


def _held(tensors: list[Tensor]) -> Held:
    return Held(sum(tensor.stored_bytes for tensor in tensors), _base(_most(tensors)))


def _base(kind: str) -> PrecisionSpec:
    """The precision that computes as weights of a type do."""
    if kind not in _COMPUTES_AS:
        raise SpecError(f"no precision of the catalogue stores weights as {kind}; known: {', '.join(_COMPUTES_AS)}")
    return load(PrecisionSpec, _COMPUTES_AS[kind])


def _model(file: GgufFile) -> ModelSpec:
    stated, tensors = file.stated, file.tensors
    table = tensors.get("token_embd.weight")
    if table is None:
        raise stated.refuse("has no token_embd.weight: it is no model of tokens")
    for name in tensors:
        if not name.startswith("blk.") and _stem(name) not in _OUTSIDE:
            raise stated.refuse(f"tensor {name} is not known and may change the arithmetic")
    hidden, vocab = table.shape
    rows = tensors.get("position_embd.weight")
    fields = {
        "name": slug(file.title),
        "title": file.title,
        "hidden": hidden,
        "vocab": vocab,
        "max_positions": stated.count("context_length"),
        "position": _position(file, rows),
        "position_rows": rows.shape[1] if rows else None,
        "norm": "layernorm" if "attention.layer_norm_epsilon" in stated.fields else "rmsnorm",
        "norm_bias": "blk.0.attn_norm.bias" in tensors,
        "embedding_norm": "token_embd_norm.weight" in tensors,
        "final_norm": "output_norm.weight" in tensors,
        "tied_embeddings": "output.weight" not in tensors,
        "head_bias": "output.bias" in tensors,
        "layers": layers_of(stated, file.architecture, tensors),
        "assumed": (
            stated.says("*"),
            stated.silent(f"as models of architecture {file.architecture} have it", "layers"),
        ),
    }
    model = counted(fields, stated.where)
    held = sum(tensor.values for tensor in tensors.values())
    if abs(model.parameters / held - 1.0) > 0.01:
        problem = f"its tensors hold {held:.4g} weights, and the layers read from them {model.parameters:.4g}"
        raise stated.refuse(f"{problem}: a part of architecture {file.architecture} is not known")
    return model.model_copy(update={"parameters": float(held)})


def _position(file: GgufFile, rows: Tensor | None) -> str:
    if rows is not None:
        return "learned"
    if file.stated.fields.get("attention.max_alibi_bias"):
        return "alibi"
    return str(facts("positions").get(file.architecture, "rotary"))
