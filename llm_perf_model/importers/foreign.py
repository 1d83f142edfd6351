"""Files of other tools in place of names: what a file is, by its content, and the specs that it stands for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, cast

from ..errors import RequestError, SpecError
from ..specs.base import FileSpec
from ..specs.catalog import FOLDERS, is_path, load
from ..specs.gpu import GpuSpec
from ..specs.link import LinkSpec
from ..specs.model import ModelSpec
from ..specs.precision import PrecisionSpec
from . import aiconfigurator, llm_analysis, safetensors
from .devices import Device, gpu_of, link_of
from .huggingface import loading
from .paths import at_home

S = TypeVar("S", bound=FileSpec)

MAGIC: Final = b"GGUF"
KINDS: Final[Mapping[str, type[FileSpec]]] = {
    "model": ModelSpec,
    "gpu": GpuSpec,
    "precision": PrecisionSpec,
    "link": LinkSpec,
}
"""Word of a kind of spec that files of other tools stand for -> the kind."""

_READ: Final = (
    "a model, GPU or dtype JSON of llm-analysis, a system YAML of aiconfigurator, a GGUF file or a config.json "
    "as a model's publisher writes it"
)
_YAML: Final = (".yaml", ".yml")
GGUF: Final = ".gguf"


class Foreign(NamedTuple):
    """A file of another tool."""

    where: str
    word: str
    """What it is, for messages."""
    readers: Mapping[type[FileSpec], Callable[[], FileSpec]]
    """Kind of spec -> what reads one from the file, the first one being what the file is about."""

    def read(self, kind: type[S]) -> S:
        """The spec of a kind; a file about one thing does not stand for another."""
        if kind not in self.readers:
            raise SpecError(f"{self.where}: is {self.word}, where a {FOLDERS[kind][0]} is needed")
        return cast("S", self.readers[kind]())


def find(kind: type[S], name: str) -> S:
    """The spec that a name, an alias, a path or a file of another tool stands for.

    Raises:
        UnknownNameError: nothing is called so.
        SpecError: the file is not valid, or is about something else.
        RequestError: a package is missing that reads it.
    """
    found = foreign(kind, name)
    return load(kind, name) if found is None else found


def foreign(kind: type[S], name: str) -> S | None:
    """The spec in a file of another tool; None where the name stands for nothing of the sort."""
    path = located(name) if is_path(name) else None
    if path is None:
        return None
    changed = path.stat()
    found = _recognised(path, changed.st_mtime_ns, changed.st_size)
    return None if found is None else found.read(kind)


def located(name: str) -> Path | None:
    """The file that a path, a folder with a config or the name of a repository stands for; None: there is none.

    Raises:
        SpecError: a folder holds no config.
    """
    path = loading.at_hub(name) if name.startswith(loading.HUB) else at_home(name)
    path = loading.inside(path)
    return path if path.is_file() else None


def states_precision(name: str) -> bool:
    """Whether a path stands for a checkpoint that says how its weights are stored."""
    path = located(name) if is_path(name) else None
    if path is None:
        return False
    return path.suffix == GGUF or loading.is_quantised(path) or _has_weights(path)


def import_file(path: str | Path, kind: str | None = None) -> FileSpec:
    """The model, device, precision or link in a file of another tool.

    Args:
        path: a JSON file of llm-analysis, a system YAML of aiconfigurator, a GGUF file, a config.json, or a folder that
            holds one.
        kind: `model`, `gpu`, `precision` or `link`; None: what the file is about.

    Raises:
        RequestError: a package is missing that reads the file, or the kind is none of those.
        SpecError: the file is of none of these tools, or does not say what is wanted.
    """
    where = located(str(path))
    if kind is not None and kind not in KINDS:
        raise RequestError(f"kind: is {kind!r}; must be {', '.join(KINDS)}")
    if where is None:
        raise SpecError(f"{path}: no such file, and no folder with a {loading.CONFIG}")
    found = recognised(where)
    if found is None:
        raise SpecError(f"{where}: is none of the files that are read: {_READ}")
    return found.read(next(iter(found.readers)) if kind is None else KINDS[kind])


def recognised(path: Path) -> Foreign | None:
    """What a file of another tool is; None for any other file."""
    where = str(path)
    start = _start(path)
    if start == MAGIC:
        from . import gguf

        readers: dict[type[FileSpec], Callable[[], FileSpec]] = {
            ModelSpec: partial(gguf.model_of, path),
            PrecisionSpec: partial(gguf.precision_of, path),
        }
        return Foreign(where, "a GGUF file", readers)
    if path.suffix == GGUF:
        raise SpecError(f"{where}: is no GGUF file: it starts with {start!r}, not with {MAGIC!r}")
    if path.suffix in _YAML:
        data = _yaml(path)
        if not all(isinstance(data.get(mark), dict) for mark in aiconfigurator.MARKS):
            raise SpecError(f"{where}: is no system of aiconfigurator, which has gpu and node")
        return _device(where, "a system of aiconfigurator", aiconfigurator.device_of, data)
    if path.name == loading.BESIDE:
        raise SpecError(
            f"{where}: says how weights are stored, not what the model is; give the {loading.CONFIG} beside it"
        )
    found = _of_llm_analysis(where, _json(path))
    return _of_config(where, path) if found is None and loading.is_config(path) else found


def _of_config(where: str, path: Path) -> Foreign:
    """A config of Hugging Face: a model, and how its weights are stored, to the byte where they are beside it."""
    readers: dict[type[FileSpec], Callable[[], FileSpec]] = {
        ModelSpec: partial(loading.import_hf, path),
        PrecisionSpec: partial(_exact if _has_weights(path) else loading.precision_as_stored, path),
    }
    return Foreign(where, "a config of a model", readers)


def _has_weights(config: Path) -> bool:
    """Whether a config has safetensors files, or an index of them, beside it."""
    return config.name == loading.CONFIG and safetensors.is_checkpoint(config.parent)


def _exact(config: Path) -> PrecisionSpec:
    """The precision of a checkpoint, as wide as its files are."""
    checkpoint = safetensors.read(config.parent)
    described = loading.is_quantised(config) or not checkpoint.tensors
    base = loading.precision_as_stored(config) if described else None
    model = loading.import_hf(config)
    if not isinstance(model, ModelSpec):
        return base or loading.precision_as_stored(config)
    return safetensors.precision_as_stored(checkpoint, model, base)


def _of_llm_analysis(where: str, data: Mapping[str, Any]) -> Foreign | None:
    marks = data.keys()
    if marks >= llm_analysis.MODEL_MARKS:
        read: Callable[[], FileSpec] = partial(llm_analysis.model_of, where, data)
        return Foreign(where, "a model of llm-analysis", {ModelSpec: read})
    if marks >= llm_analysis.DTYPE_MARKS:
        read = partial(llm_analysis.precision_of, where, data)
        return Foreign(where, "a data type of llm-analysis", {PrecisionSpec: read})
    if marks >= llm_analysis.DEVICE_MARKS:
        return _device(where, "a GPU of llm-analysis", llm_analysis.device_of, data)
    return None


def _device(
    where: str, word: str, read: Callable[[str, Mapping[str, Any]], Device], data: Mapping[str, Any]
) -> Foreign:
    readers: dict[type[FileSpec], Callable[[], FileSpec]] = {
        GpuSpec: lambda: gpu_of(read(where, data)),
        LinkSpec: lambda: link_of(read(where, data)),
    }
    return Foreign(where, word, readers)


@lru_cache(maxsize=64)
def _recognised(path: Path, _changed_ns: int, _size: int) -> Foreign | None:
    """What a file is, read again only after it has changed."""
    found = recognised(path)
    return None if found is None else found._replace(readers={k: cache(read) for k, read in found.readers.items()})


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None


def _json(path: Path) -> dict[str, Any]:
    """The fields of a JSON object; none where the file holds no such thing, which is reported when it is loaded."""
    try:
        data = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise RequestError("a YAML file needs the package pyyaml: pip install 'llm-perf-model[yaml]'") from None
    try:
        data = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f": line {mark.line + 1} is broken"
        raise SpecError(f"{path}: is no YAML file{place}") from None
    return data if isinstance(data, dict) else {}
