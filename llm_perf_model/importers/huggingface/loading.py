"""A file, a folder, a dictionary or the name of a repository -> a model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import RequestError, SpecError
from ...specs.model import ModelSpec
from .model import model_of

CONFIG = "config.json"
MARKS = (b'"model_type"', b'"architectures"')
"""What the bytes of a config hold, even if they break off."""
HUB = "hf:"
"""What the name of a repository starts with where a name of the catalogue could stand."""


def import_hf(source: str | Path | Mapping[str, Any], name: str | None = None) -> ModelSpec:
    """The model that a Hugging Face `config.json` describes, its weights counted.

    Args:
        source: a `config.json`, a folder that holds one, its content, or `hf:` and the name of a repository.
        name: name of the model; None: that of the file, the folder or the repository.

    Raises:
        RequestError: a repository is named, but the package `huggingface_hub` is missing or cannot reach it.
        SpecError: the file is no config, its family is not known, or it has a field that may change the arithmetic.
    """
    if isinstance(source, Mapping):
        title = str(source.get("_name_or_path") or source.get("model_type") or "model")
        return model_of(source, _plain(name or title), title, CONFIG)
    path, title = _at_hub(str(source)) if str(source).startswith(HUB) else _at(Path(source).expanduser())
    return model_of(_read(path), _plain(name or title), title, str(path))


def stands_for_config(name: str) -> bool:
    """Whether a path stands for a config: a repository, a folder that holds one, or a file with its fields."""
    if name.startswith(HUB):
        return True
    path = Path(name).expanduser()
    if path.is_dir():
        return (path / CONFIG).is_file()
    return path.is_file() and any(mark in path.read_bytes() for mark in MARKS)


def _at(path: Path) -> tuple[Path, str]:
    """A config, and what its model is called."""
    if path.is_dir():
        return path / CONFIG, path.resolve().name
    stem = path.stem.removesuffix("config").rstrip("-_.")
    return path, stem or path.resolve().parent.name


def _at_hub(name: str) -> tuple[Path, str]:
    """The config of a repository, from the cache or from the hub."""
    repository = name.removeprefix(HUB)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise RequestError(
            f"{name}: a repository needs the package for the hub: pip install 'llm-perf-model[hub]', "
            f"or give the path of its {CONFIG}"
        ) from None
    try:
        return Path(hf_hub_download(repository, CONFIG)), repository
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(f"{name}: its {CONFIG} cannot be had: {reason}; give the path of one") from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        problem = str(error).splitlines()[0]
        raise SpecError(f"{path}: is no JSON, or a part of it is missing: {problem}") from None
    if not isinstance(data, dict):
        raise SpecError(f"{path}: holds no object, so it is no config of a model")
    return data


def _plain(title: str) -> str:
    """A title as the name of a model."""
    last = title.rstrip("/").split("/")[-1]
    return re.sub(r"[^a-z0-9.]+", "-", last.lower()).strip("-.") or "model"
