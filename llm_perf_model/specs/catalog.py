"""Names, aliases and paths to validated specs."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from ..errors import SpecError, UnknownNameError
from .base import CoefficientSpec, FileSpec, inherited
from .collective import CollectiveSpec
from .engine import EngineSpec
from .gpu import GpuSpec
from .kernels import KernelSpec
from .link import LinkSpec
from .mixer import MIXERS
from .model import ModelSpec
from .network import NetworkSpec
from .power import PowerSpec
from .precision import PrecisionSpec
from .price import PriceSpec, TariffSpec
from .quantities import shortened

S = TypeVar("S", bound=FileSpec)

FOLDERS: dict[type[FileSpec], tuple[str, str]] = {
    ModelSpec: ("model", "model_configs"),
    NetworkSpec: ("network", "network_configs"),
    GpuSpec: ("GPU", "gpu_configs"),
    EngineSpec: ("engine", "engine_configs"),
    PrecisionSpec: ("precision", "precision_configs"),
    LinkSpec: ("link", "link_configs"),
    KernelSpec: ("kernel", "kernel_configs"),
    CollectiveSpec: ("collective", "collective_configs"),
    PowerSpec: ("power", "power_configs"),
    PriceSpec: ("price", "price_configs"),
    TariffSpec: ("tariff", "tariff_configs"),
}
"""Kind of spec -> the word for it and its folder."""

FILE_ENDINGS = (".json", ".onnx", ".gguf", ".yaml", ".yml")
"""Ends of names that stand for files."""

LONGEST_NAME = 200
_PACKAGE = Path(__file__).resolve().parents[1]
_SELF_CHECK = "Value error, "


def folder_of(kind: type[FileSpec]) -> Path:
    """The folder of a kind of spec."""
    return data_folder(FOLDERS[kind][1])


@cache
def data_folder(name: str) -> Path:
    """The packaged data folder, or the one beside the package in a checkout."""
    packaged = _PACKAGE / "data" / name
    return packaged if packaged.is_dir() else _PACKAGE.parent / name


def names(kind: type[FileSpec]) -> tuple[str, ...]:
    """Every catalogue name of a kind, sorted."""
    return tuple(sorted(path.stem for path in folder_of(kind).glob("*.json")))


def load(kind: type[S], name: str) -> S:
    """The spec that a catalogue name, an alias or a path to a JSON file stands for.

    Raises:
        UnknownNameError: nothing is called so; the message names near matches.
        SpecError: the file is not valid; the message lists every problem with its field.
    """
    return _from_path(kind, Path(name)) if is_path(name) else cast("S", _named(kind, name))


@cache
def _named(kind: type[FileSpec], name: str) -> FileSpec:
    """The spec that a catalogue name or an alias stands for."""
    direct = folder_of(kind) / f"{name}.json"
    if _is_plain(name) and len(name) <= LONGEST_NAME and direct.is_file():
        return _read(kind, str(direct))
    index = _index(kind)
    found = index.get(_key(name))
    if found is None:
        raise UnknownNameError(_unknown(kind, name, index))
    return _read(kind, str(folder_of(kind) / f"{found}.json"))


def is_path(name: str) -> bool:
    """Whether a name stands for a file: it ends as one, or starts as a path does, or as the name of a repository."""
    return name.endswith(FILE_ENDINGS) or name.startswith(("/", "./", "../", "~", "hf:"))


def parse(kind: type[S], data: bytes, where: str) -> S:
    """A spec from JSON bytes, completed by the file that it is like; `where` names it in messages."""
    base = _base(kind, data, where) if issubclass(kind, CoefficientSpec) else None
    try:
        return kind.model_validate_json(data if base is None else json.dumps(inherited(json.loads(data), base)))
    except ValidationError as error:
        raise SpecError(_report(kind, error, where)) from None


def _base(kind: type[CoefficientSpec], data: bytes, where: str) -> dict[str, Any] | None:
    """The fields of the file that a file of coefficients names under `like`, which may be like another."""
    like = _key_of(data, "like")
    if not isinstance(like, str):
        return None
    chain: list[object] = [_key_of(data, "name")]
    following: object = like
    while isinstance(following, str):
        if following in chain:
            raise SpecError(f"{where}: like goes round in a circle: {' -> '.join(map(str, [*chain, following]))}")
        if following not in names(kind):
            near = difflib.get_close_matches(following, names(kind), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SpecError(f"{where}: like is {shortened(following)}, which is no name of the catalogue{hint}")
        chain.append(following)
        following = _key_of((folder_of(kind) / f"{following}.json").read_bytes(), "like")
    fields: dict[str, Any] = json.loads(load(kind, like).model_dump_json())
    return fields


def _key_of(data: bytes, key: str) -> object:
    """One value of a JSON object; None where there is none."""
    try:
        value = json.loads(data)
    except ValueError:
        return None
    return value.get(key) if isinstance(value, dict) else None


@cache
def _read(kind: type[FileSpec], path: str) -> FileSpec:
    return parse(kind, Path(path).read_bytes(), path)


def _from_path(kind: type[S], path: Path) -> S:
    word = FOLDERS[kind][0]
    try:
        data = path.expanduser().read_bytes()
    except FileNotFoundError:
        raise UnknownNameError(f"{path}: no such {word} file") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(f"{_cut(str(path))}: cannot be read: {reason}") from None
    return parse(kind, data, str(path))


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def _is_plain(name: str) -> bool:
    return re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) is not None


def _key(name: str) -> str:
    """Spelling that ignores case, spaces, underscores and dashes."""
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


@cache
def _index(kind: type[FileSpec]) -> dict[str, str]:
    """Key of every name and alias -> catalogue name."""
    index: dict[str, str] = {}
    for name in names(kind):
        path = folder_of(kind) / f"{name}.json"
        index |= {_key(alias): name for alias in _aliases(path)}
    return index | {_key(name): name for name in names(kind)}


def _aliases(path: Path) -> list[str]:
    """The aliases in a file; none from a broken one, whose problems are reported when it is loaded."""
    aliases = _key_of(path.read_bytes(), "aliases")
    return [alias for alias in aliases if isinstance(alias, str)] if isinstance(aliases, list) else []


def _unknown(kind: type[FileSpec], name: str, index: dict[str, str]) -> str:
    word = FOLDERS[kind][0]
    near = difflib.get_close_matches(_key(name), index, n=4, cutoff=0.5)
    suggested = dict.fromkeys(index[key] for key in near)
    hint = f"did you mean {' or '.join(suggested)}?" if suggested else "no name is near it;"
    everything = f"`list {word.lower()}s` shows all {len(names(kind))}"
    return f"unknown {word} '{_cut(name)}': {hint} {everything}, or give a path to a JSON file"


FEWEST_FIELDS = 1
"""Required fields in a file that is of another kind altogether."""


def _report(kind: type[FileSpec], error: ValidationError, where: str) -> str:
    lines = []
    problems = error.errors()
    if problems[0]["type"] == "json_invalid":
        return f"{where}: is no {FOLDERS[kind][0]} file: {problems[0]['msg']}"
    if problems[0]["type"] == "model_type":
        return f"{where}: is no {FOLDERS[kind][0]} file: it holds no object"
    needed = [name for name, field in kind.model_fields.items() if field.is_required()]
    missing = {problem["loc"][0] for problem in problems if problem["type"] == "missing" and len(problem["loc"]) == 1}
    if len(needed) - len(missing) <= FEWEST_FIELDS < len(needed):
        return (
            f"{where}: is no {FOLDERS[kind][0]} file: it lacks {', '.join(name for name in needed if name in missing)}"
        )
    for problem in problems:
        if problem["type"] == "too_short" and any(_is_inside(other["loc"], problem["loc"]) for other in problems):
            continue  # it is short because the items inside it are wrong
        field = ".".join(_written(problem["loc"]))
        for line in problem["msg"].removeprefix(_SELF_CHECK).splitlines():
            hint = _near_field(kind, problem["loc"]) if problem["type"] == "extra_forbidden" else ""
            lines.append(f"  {field}: {line}{hint}" if field else f"  {line}")
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    return f"{where}: {count} in this {FOLDERS[kind][0]} file\n" + "\n".join(lines)


def _written(path: tuple[int | str, ...]) -> Iterator[str]:
    """The parts of a path that a file holds: a kind of mixer is none of them."""
    for before, part in zip(("", *path), path, strict=False):
        if before not in {"attention", "beside_attention"} or part not in MIXERS:
            yield str(part)


def _is_inside(path: tuple[int | str, ...], whole: tuple[int | str, ...]) -> bool:
    return len(path) > len(whole) and path[: len(whole)] == whole


def _near_field(kind: type[FileSpec], path: tuple[int | str, ...]) -> str:
    """The nearest field of the file, or of its parts where the unknown key is inside one."""
    fields = list(kind.model_fields)
    if len(path) > 1:
        parts = kind.model_json_schema().get("$defs", {}).values()
        fields = [field for part in parts for field in part.get("properties", {})]
    near = difflib.get_close_matches(str(path[-1]), fields, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
