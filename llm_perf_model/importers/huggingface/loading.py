"""A file, a folder, a dictionary or the name of a repository -> a model, and how its weights are stored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ...errors import RequestError, SpecError
from ...specs.catalog import load
from ...specs.model import ModelSpec
from ...specs.network import NetworkSpec
from ...specs.precision import PrecisionSpec
from ...specs.quantities import shortened
from ..paths import at_home
from .model import model_of
from .quantization import QUANTISED, plain_of, stored_as

CONFIG: Final = "config.json"
BESIDE: Final = "hf_quant_config.json"
"""Where some checkpoints say how their weights are stored."""
MARKS: Final = (b'"model_type"', b'"architectures"')
"""What the bytes of a config hold, even if they break off."""
HUB: Final = "hf:"
"""What the name of a repository starts with where a name of the catalogue could stand."""


def import_hf(source: str | Path | Mapping[str, Any], name: str | None = None) -> ModelSpec | NetworkSpec:
    """The model that a Hugging Face `config.json` describes, its weights counted.

    An encoder of images that stands alone (ViT, DINOv2, those of CLIP and SigLIP) is a network.

    Args:
        source: a `config.json`, a folder that holds one, its content, or `hf:` and the name of a repository.
        name: name of the model; None: that of the file, the folder or the repository.

    Raises:
        RequestError: a repository is named, but the package for the hub is missing or cannot reach it.
        SpecError: the file is no config, its family is not known, or it has a field that may change the arithmetic.
    """
    if not isinstance(source, Mapping | str | Path):
        raise SpecError(
            f"{CONFIG}: is {shortened(source)}; must be a path, the fields of a config, or {HUB} and a name"
        )
    if isinstance(source, Mapping):
        title = str(source.get("_name_or_path") or source.get("model_type") or "model")
        return model_of(source, _plain(name or title), title, CONFIG)
    path = at_hub(str(source)) if str(source).startswith(HUB) else at_home(source)
    path = inside(path)
    title = _title(path)
    return model_of(_read(path), _plain(name or title), title, str(path))


def precision_as_stored(path: Path) -> PrecisionSpec:
    """The precision that the weights of a checkpoint are stored in, and what its keys and values are.

    Raises:
        SpecError: no precision of the catalogue stands for it.
    """
    config, beside = _read(path), path.with_name(BESIDE)
    described = stored_as(config, _read(beside) if beside.is_file() else {}, str(path))
    return load(PrecisionSpec, plain_of(config)) if described is None else described


def is_config(path: Path) -> bool:
    """Whether a file holds the fields of a config."""
    return any(mark in path.read_bytes() for mark in MARKS)


def is_quantised(path: Path) -> bool:
    """Whether a checkpoint says that its weights are stored narrow."""
    if path.suffix != ".json" or not is_config(path):
        return False
    return path.with_name(BESIDE).is_file() or any(mark in path.read_bytes() for mark in QUANTISED)


def inside(path: Path) -> Path:
    """The config of a folder; any other path as it is.

    Raises:
        SpecError: a folder holds no config.
    """
    if not path.is_dir():
        return path
    if not (path / CONFIG).is_file():
        raise SpecError(f"{path}: holds no {CONFIG}")
    return path / CONFIG


def at_hub(name: str) -> Path:
    """The config of a repository, from the cache or from the hub.

    Raises:
        RequestError: the package for the hub is missing or cannot reach it.
    """
    repository = name.removeprefix(HUB)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise RequestError(
            f"{name}: a repository needs the package for the hub: pip install 'llm-perf-model[hub]', "
            f"or give the path of its {CONFIG}"
        ) from None
    try:
        return Path(hf_hub_download(repository, CONFIG))
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(f"{name}: its {CONFIG} cannot be had: {reason}; give the path of one") from None


def _title(path: Path) -> str:
    """What a model is called: as its file, else as its repository in the cache of the hub, else as its folder."""
    stem = path.stem.removesuffix("config").rstrip("-_.")
    cached = next((part for part in path.parts if part.startswith("models--")), None)
    return stem or (cached or "").removeprefix("models--").replace("--", "/") or path.resolve().parent.name


def _read(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        problem = str(error).splitlines()[0]
        raise SpecError(f"{path}: is no JSON, or a part of it is missing: {problem}") from None
    if not isinstance(data, dict):
        raise SpecError(f"{path}: holds no object, so it is no config of a model")
    return data


def _plain(title: str) -> str:
    """A title as the name of a model."""
    last = title.rstrip("/").split("/")[-1]
    return re.sub(r"[^a-z0-9.]+", "-", last.lower()).strip("-.") or "model"
