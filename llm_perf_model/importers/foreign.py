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
from . import aiconfigurator, llm_analysis
from .devices import Device, gpu_of, link_of
from .huggingface.loading import CONFIG, HUB, import_hf, stands_for_config
from .safetensors import is_checkpoint, precision_as_stored, read

S = TypeVar("S", bound=FileSpec)

MAGIC: Final = b"GGUF"
KINDS: Final[Mapping[str, type[FileSpec]]] = {
    "model": ModelSpec,
    "gpu": GpuSpec,
    "precision": PrecisionSpec,
    "link": LinkSpec,
}
"""Word of a kind of spec that files of other tools stand for -> the kind."""

_READ: Final = "a model, GPU or dtype JSON of llm-analysis, a system YAML of aiconfigurator, a GGUF file, a config.json"
_YAML: Final = (".yaml", ".yml")


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
    found = _found(name)
    return None if found is None else found.read(kind)


def whatever(name: str) -> FileSpec | None:
    """What a file of another tool is about; None where the name stands for nothing of the sort."""
    found = _found(name)
    return None if found is None else found.read(next(iter(found.readers)))


def stores_weights(name: str) -> bool:
    """Whether a name stands for a file or a folder that says how its weights are stored."""
    if not is_path(name) or name.startswith(HUB):
        return False
    path = Path(name).expanduser()
    return path.suffix == ".gguf" or (path.is_dir() and is_checkpoint(path))


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
    where = Path(path).expanduser()
    if kind is not None and kind not in KINDS:
        raise RequestError(f"kind: is {kind!r}; must be {', '.join(KINDS)}")
    if not where.exists():
        raise SpecError(f"{where}: no such file")
    found = recognised(where)
    if found is None:
        raise SpecError(f"{where}: is none of the files that are read: {_READ}")
    return found.read(next(iter(found.readers)) if kind is None else KINDS[kind])


def recognised(path: Path) -> Foreign | None:
    """What a file of another tool is; None for any other file."""
    where = str(path)
    if path.is_dir():
        return _checkpoint(path) if (path / CONFIG).is_file() else None
    start = _start(path)
    if start == MAGIC:
        from . import gguf

        readers: dict[type[FileSpec], Callable[[], FileSpec]] = {
            ModelSpec: partial(gguf.model_of, path),
            PrecisionSpec: partial(gguf.precision_of, path),
        }
        return Foreign(where, "a GGUF file", readers)
    if path.suffix == ".gguf":
        raise SpecError(f"{where}: is no GGUF file: it starts with {start!r}, not with {MAGIC!r}")
    if path.suffix in _YAML:
        data = _yaml(path)
        if not all(isinstance(data.get(mark), dict) for mark in aiconfigurator.MARKS):
            raise SpecError(f"{where}: is no system of aiconfigurator, which has gpu and node")
        return _device(where, "a system of aiconfigurator", aiconfigurator.device_of, data)
    found = _of_llm_analysis(where, _json(path))
    if found is None and stands_for_config(where):
        return Foreign(where, "a config", {ModelSpec: partial(import_hf, path)})
    return found


def _checkpoint(folder: Path) -> Foreign:
    """A config with the weights beside it, or without them."""
    readers: dict[type[FileSpec], Callable[[], FileSpec]] = {ModelSpec: partial(import_hf, folder)}
    if is_checkpoint(folder):
        readers[PrecisionSpec] = lambda: precision_as_stored(read(folder), import_hf(folder))
    return Foreign(str(folder), "a folder with a config", readers)


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


def _found(name: str) -> Foreign | None:
    """What a name stands for, looked up again only after the file has changed."""
    if name.startswith(HUB):
        return Foreign(name, "a config", {ModelSpec: partial(import_hf, name)})
    path = Path(name).expanduser()
    if not is_path(name) or not path.exists():
        return None
    changed = (path / CONFIG if (path / CONFIG).is_file() else path).stat()
    return _recognised(path, changed.st_mtime_ns, changed.st_size)


@lru_cache(maxsize=64)
def _recognised(path: Path, _changed_ns: int, _size: int) -> Foreign | None:
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
