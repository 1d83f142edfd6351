"""The fields of a config under one word each, whatever its publisher calls them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import SpecError
from ...specs.quantities import shortened
from .settling import settled

HERE = Path(__file__).resolve().parent

TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
"""Fields that hold the config of a language model inside that of a larger one, the outermost last."""
SOUND = ("audio_config", "sound_config", "talker_config", "speech_config", "code2wav_config")
"""Fields that hold the config of what hears or speaks."""
BY_LAYER = "per_layer_config"
PARTS = frozenset({*TEXT_PARTS, *SOUND, "vision_config", "quantization_config", "compression_config"})
"""Fields that hold fields of their own."""
ASIDE = frozenset({*PARTS, BY_LAYER})
"""Fields that are read on their own."""

MOST_VALUES = 10**9
"""The largest number that is taken for a size."""
MOST = {"layer_count": 10_000, "encoder_layers": 10_000, "max_positions": 10**12, "window": 10**12}
"""That of some words."""

_SIZES = re.compile(r"ratio|mult|expan|factor|frac|spars|rank|dim|width|size|layers?(?!norm)|heads?")
"""Names of fractions that may be sizes, not scales of values."""
_OFF = (None, False, 0, "", "none", "None")


@dataclass(frozen=True, slots=True)
class Family:
    """What a `model_type` says beyond its fields: defaults, and names with a meaning of their own."""

    name: str
    defaults: Mapping[str, Any]
    names: Mapping[str, str | None]
    """Field -> word; None: it changes no arithmetic."""
    architectures: frozenset[str]
    """Classes of its models that score words, whatever their names say."""
    text: str | None
    """The family of the language model inside, where its own config does not say."""
    vision: str | None
    refused: str | None
    """Why models of this family cannot be imported."""


@dataclass(frozen=True, slots=True)
class Words:
    """Values by word, with the defaults of the family where the config says nothing."""

    where: str
    family: str
    values: Mapping[str, Any]
    names: Mapping[str, str]
    """Word -> the field that gave it."""

    def named(self, word: str) -> str:
        """The field that stands for a word, for messages."""
        return self.names.get(word) or (aliases().get(word) or (word,))[0]

    def fail(self, word: str, problem: str) -> SpecError:
        """An error about the field of a word."""
        return SpecError(f"{self.where}: {self.named(word)}: {problem}")

    def get(self, word: str, layer: int | None = None) -> Any:
        """The value of a word; of one layer, where a config lists a value for each."""
        value = self.values.get(word)
        if isinstance(value, list) and layer is not None:
            if layer >= len(value):
                raise self.fail(word, f"has {len(value)} values, fewer than there are layers")
            return value[layer]
        return value

    def whole(self, word: str, layer: int | None = None) -> int | None:
        """A whole number of at least 1; None where there is none."""
        value = self.get(word, layer)
        if value in _OFF or value in (-1, "auto"):
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        most = MOST.get(word, MOST_VALUES)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self.fail(word, f"is {shortened(value)}; must be a whole number from 1 to {most}")
        return value

    def need(self, word: str, layer: int | None = None) -> int:
        """A whole number that must be there."""
        value = self.whole(word, layer)
        if value is not None:
            return value
        given = self.get(word, layer) if word in self.names else None
        if given is not None:
            raise self.fail(word, f"is {shortened(given)}; must be a whole number of at least 1")
        raise SpecError(f"{self.where}: {self.named(word)} is missing; a config of {self.family} needs it")

    def factor(self, word: str) -> float | None:
        """A number above 0; None where there is none."""
        value = self.values.get(word)
        if value in _OFF:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST_VALUES:
            raise self.fail(word, f"is {shortened(value)}; must be a number above 0")
        return float(value)

    def flag(self, word: str) -> bool:
        """Whether something is so."""
        value = self.values.get(word)
        if value is not None and not isinstance(value, bool | int):
            raise self.fail(word, f"is {shortened(value)}; must be true or false")
        return bool(value)

    def text(self, word: str) -> str | None:
        """A word of text; None where there is none."""
        value = self.values.get(word)
        if value is None or isinstance(value, str):
            return value
        raise self.fail(word, f"is {shortened(value)}; must be text")

    def items(self, word: str) -> list[Any] | None:
        """A list; None where there is none."""
        value = self.values.get(word)
        if value is None or isinstance(value, list):
            return value
        raise self.fail(word, f"is {shortened(value)}; must be a list")


@cache
def _table(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


@cache
def aliases() -> dict[str, tuple[str, ...]]:
    """Word -> the fields that stand for it, the first one preferred."""
    return {word: tuple(fields) for word, fields in _table("words.json")["words"].items()}


@cache
def activations() -> dict[str, str]:
    """What configs call activations -> their names; functions of equal cost stand for each other."""
    return dict(_table("words.json")["activations"])


def types() -> Mapping[str, Any]:
    """The fields that name the type of values, and the precision of each type."""
    known: Mapping[str, Any] = _table("words.json")["types"]
    return known


@cache
def _words() -> dict[str, tuple[str, int]]:
    """Field -> its word, and its place among those of that word."""
    return {field: (word, place) for word, fields in aliases().items() for place, field in enumerate(fields)}


@cache
def _is_harmless(field: str) -> bool:
    return re.fullmatch("|".join(_table("words.json")["harmless"]), field) is not None


@cache
def family(name: str) -> Family | None:
    """The family of a `model_type`, completed by the one that it is like."""
    entry = _table("families.json").get(name)
    if entry is None:
        return None
    base = family(entry["like"]) if "like" in entry else None
    return Family(
        name=name,
        defaults={**(base.defaults if base else {}), **entry.get("defaults", {})},
        names={**(base.names if base else {}), **entry.get("names", {})},
        architectures=frozenset(entry.get("architectures", ())),
        text=entry.get("text", base.text if base else None),
        vision=entry.get("vision", base.vision if base else None),
        refused=entry.get("refused"),
    )


@cache
def _by_architecture() -> dict[str, str]:
    """Class of a model, or the plain letters of its name -> family."""
    known: dict[str, str] = {}
    for name, entry in _table("families.json").items():
        known.setdefault(_letters(name), name)
        known |= dict.fromkeys(entry.get("architectures", ()), name)
    return known


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def family_of_class(architecture: str) -> Family | None:
    """The family that the class of a model belongs to, by its name."""
    known = _by_architecture()
    stem = re.sub(r"(For[A-Z]\w+|LMHead\w*|Model|Encoder)$", "", architecture)
    name = known.get(architecture) or known.get(_letters(stem))
    return None if name is None else family(name)


def words_of(config: Mapping[str, Any], kind: Family, where: str) -> Words:
    """The words of one config; raises for a field that may change the arithmetic and is not known."""
    values, names = dict(kind.defaults), {}
    places: dict[str, int] = {}
    for field, value in _flat(config, kind, where):
        word, place = _word_of(field, kind)
        if word is None:
            if place and _may_matter(field, value):
                raise SpecError(
                    f"{where}: field '{field}' = {shortened(value)} is not known and may change the arithmetic; "
                    "remove it if it does not, or describe the model in a model file"
                )
        elif word not in names or (place < places[word] and value is not None) or values[word] is None:
            values[word], names[word], places[word] = value, field, place
    return Words(where, kind.name, settled(values | _of_layers(config, kind, values, where)), names)


def _of_layers(config: Mapping[str, Any], kind: Family, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values with one for each layer, where a config lists what differs in some of them."""
    told = config.get(BY_LAYER)
    count = values.get("layer_count")
    if not told or not isinstance(count, int):
        return {}
    if not isinstance(told, dict) or not all(isinstance(fields, dict) for fields in told.values()):
        raise SpecError(f"{where}: {BY_LAYER}: is {shortened(told)}; must hold the fields of layers")
    lists: dict[str, list[Any]] = {}
    for index, fields in told.items():
        if not (str(index).isdecimal() and int(index) < count <= MOST["layer_count"]):
            raise SpecError(f"{where}: {BY_LAYER}: names layer {shortened(index)}; there are {count}")
        for field, value in fields.items():
            word, unknown = _word_of(field, kind)
            if word is None and unknown:
                raise SpecError(f"{where}: {BY_LAYER}: field '{field}' = {shortened(value)} is not known")
            if word is not None:
                lists.setdefault(word, [values.get(word)] * count)[int(index)] = value
    return lists


def _flat(config: Mapping[str, Any], kind: Family, where: str) -> Iterator[tuple[str, Any]]:
    """Fields and values, those of a dictionary under `outer.inner`."""
    for field, value in config.items():
        if not isinstance(field, str):
            raise SpecError(f"{where}: field {shortened(field)}: names of fields are text")
        if field in PARTS and not isinstance(value, dict | None):
            raise SpecError(f"{where}: {field}: is {shortened(value)}; must hold fields")
        if isinstance(value, dict) and field not in ASIDE and field not in kind.names and not _is_harmless(field):
            yield from ((f"{field}.{inner}", item) for inner, item in value.items())
        elif field not in ASIDE:
            yield field, value


def _word_of(field: str, kind: Family) -> tuple[str | None, int]:
    """The word of a field and its place; without a word, 0 where it is known to change nothing."""
    if field in kind.names:
        return kind.names[field], 0 if kind.names[field] is None else -1
    found = _words().get(field)
    if found is not None:
        return found
    return None, 0 if _is_harmless(field) or _is_harmless(field.rpartition(".")[2]) else 1


def _may_matter(field: str, value: Any) -> bool:
    """Whether an unknown field could change sizes or counts: not if it is off, empty, or a scale of values."""
    if value in _OFF or value in ([], {}):
        return False
    return not isinstance(value, float) or _SIZES.search(field) is not None
