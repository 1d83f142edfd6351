"""Files of coefficients that take what they leave out from another: values, origins, and what can go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_perf_model.errors import SpecError
from llm_perf_model.specs import catalog
from llm_perf_model.specs.base import CoefficientSpec
from llm_perf_model.specs.catalog import FOLDERS, folder_of, load, names, parse
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.link import LinkSpec
from llm_perf_model.validation.fit import free_fields

Data = dict[str, Any]
Write = Callable[..., CollectiveSpec]

BASE: Data = {
    "name": "base",
    "title": "The base",
    "aliases": ["ground"],
    "notes": ["It has records."],
    "start_cycles": 9000.0,
    "hop_cycles": 900.0,
    "chunk_cycles": 0.0,
    "link_efficiency": 0.75,
    "one_kernel": {
        "start_cycles": 6000.0,
        "rank_cycles": 100.0,
        "barrier_cycles": 1500.0,
        "link_efficiency": 0.5,
        "max_bytes": 8e6,
    },
    "sources": [{"fields": ["one_kernel.max_bytes"], "title": "A page of code", "url": "https://a.b/c"}],
    "fits": [
        {
            "fields": ["start_cycles", "hop_cycles", "link_efficiency", "one_kernel"],
            "records": ["records/a.csv"],
            "rows": 9,
            "date": "2025-01-31",
            "error": "median 5 %",
        }
    ],
    "assumed": [{"fields": ["chunk_cycles"], "reason": "a ring that sends in one piece"}],
}
BOOKKEEPING = {"name", "title", "aliases", "notes", "patterns", "like", "sources", "assumed", "fits"}
SHIPPED = [
    (kind, name)
    for kind in FOLDERS
    if issubclass(kind, CoefficientSpec)
    for name in names(kind)
    if "like" in json.loads((folder_of(kind) / f"{name}.json").read_bytes())
]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a file into a catalogue that holds the base alone, and loads it."""
    monkeypatch.setattr(catalog, "folder_of", lambda _kind: tmp_path)
    catalog._named.cache_clear()

    def written(name: str, /, **fields: Any) -> CollectiveSpec:
        data = {"name": name, "title": name.title(), **fields}
        (tmp_path / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
        return load(CollectiveSpec, str(tmp_path / f"{name}.json"))

    written("base", **BASE)
    yield written
    catalog._named.cache_clear()


def guess(*fields: str) -> list[Data]:
    """An assumption about some fields."""
    return [{"fields": list(fields), "reason": "made up for a test"}]


def told(spec: CoefficientSpec) -> dict[str, tuple[str, ...]]:
    """Reason of each assumption -> its fields."""
    return {assumption.reason: assumption.fields for assumption in spec.assumed}


# Values.


def test_what_a_file_leaves_out_is_that_of_the_other(write: Write) -> None:
    base, copy = load(CollectiveSpec, "base"), write("copy", like="base")
    taken = set(CollectiveSpec.model_fields) - BOOKKEEPING
    assert {field: getattr(copy, field) for field in taken} == {field: getattr(base, field) for field in taken}
    assert (copy.name, copy.title, copy.like) == ("copy", "Copy", "base")
    assert (copy.aliases, copy.notes, copy.sources, copy.fits) == ((), (), (), ())


def test_what_a_file_gives_is_its_own(write: Write) -> None:
    own = write("own", like="base", hop_cycles=1.0, assumed=guess("hop_cycles"))
    assert (own.hop_cycles, own.start_cycles) == (1.0, 9000.0)
    assert told(own)["made up for a test"] == ("hop_cycles",)


def test_a_file_may_leave_a_part_out_but_not_half_of_it(write: Write) -> None:
    none = write("none", like="base", one_kernel=None)
    assert none.one_kernel is None
    with pytest.raises(SpecError, match=r"one_kernel\.rank_cycles: Field required"):
        write("half", like="base", one_kernel={"start_cycles": 1.0})


def test_a_file_may_be_like_one_that_is_like_another(write: Write) -> None:
    write("middle", like="base", hop_cycles=1.0, assumed=guess("hop_cycles"))
    last = write("last", like="middle", start_cycles=2.0, assumed=guess("start_cycles"))
    assert (last.start_cycles, last.hop_cycles, last.link_efficiency) == (2.0, 1.0, 0.75)


# Origins.


def test_origins_of_what_is_taken_become_one_assumption_that_names_the_other_file(write: Write) -> None:
    named = ("chunk_cycles", "hop_cycles", "link_efficiency", "one_kernel", "one_kernel.max_bytes", "start_cycles")
    assert told(write("copy", like="base")) == {"no records of its own: as in base": named}
    assert free_fields(write("copy", like="base")) == ()


def test_origins_of_what_a_file_gives_itself_are_not_taken(write: Write) -> None:
    own = write("own", like="base", one_kernel=None, hop_cycles=1.0, assumed=guess("hop_cycles"))
    assert told(own) == {
        "made up for a test": ("hop_cycles",),
        "no records of its own: as in base": ("chunk_cycles", "link_efficiency", "start_cycles"),
    }


def test_a_value_of_its_own_needs_an_origin_of_its_own(write: Write) -> None:
    with pytest.raises(SpecError, match="hop_cycles: no entry of sources, fits or assumed names this number"):
        write("own", like="base", hop_cycles=1.0)


def test_an_origin_of_everything_is_one_of_everything_that_is_taken(write: Write) -> None:
    write("base", **(BASE | {"sources": [], "fits": [], "assumed": guess("*")}))
    catalog._read.cache_clear()
    catalog._named.cache_clear()
    assert told(write("copy", like="base")) == {"no records of its own: as in base": ("*",)}


def test_a_file_that_leaves_nothing_out_takes_no_origin(write: Write) -> None:
    everything = {field: value for field, value in BASE.items() if field not in {"name", "title", "aliases", "notes"}}
    assert "as in base" not in str(told(write("whole", like="base", **everything)))


# What can go wrong.


def test_a_circle_is_drawn(write: Write, tmp_path: Path) -> None:
    for name, like in (("one", "two"), ("two", "three"), ("three", "one")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"name": name, "title": name, "like": like}))
    with pytest.raises(SpecError, match=r"one\.json: like goes round in a circle: one -> two -> three -> one$"):
        load(CollectiveSpec, "one")
    with pytest.raises(SpecError, match=r"like goes round in a circle: self -> self$"):
        write("self", like="self")
    with pytest.raises(SpecError, match=r"circle: outside -> one -> two -> three -> one$"):
        write("outside", like="one")


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ("bass", "like is 'bass', which is no name of the catalogue; did you mean base?"),
        ("qqqq", "like is 'qqqq', which is no name of the catalogue"),
        ("../base", "which is no name of the catalogue"),
        ("ground", "which is no name of the catalogue"),
    ],
)
def test_a_name_that_the_catalogue_does_not_have(write: Write, like: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        write("copy", like=like)
    message = str(caught.value)
    assert words in message
    assert "copy.json: " in message
    assert ("did you mean" in message) == ("did you mean" in words) or like in {"../base", "ground"}


@pytest.mark.parametrize("like", [3, ["base"], {"name": "base"}, True])
def test_what_is_no_name_is_refused_as_any_wrong_field(write: Write, like: object) -> None:
    with pytest.raises(SpecError, match=r"\n  like: Input should be a valid string"):
        write("copy", like=like)


def test_other_kinds_of_files_are_like_no_other() -> None:
    data = {"name": "copy", "title": "A copy", "like": "nvlink-3"}
    with pytest.raises(SpecError, match=r"\n  like: Extra inputs are not permitted"):
        parse(LinkSpec, json.dumps(data).encode(), "copy.json")
    assert not issubclass(GpuSpec, CoefficientSpec)


# The files that ship.


def test_some_files_that_ship_are_like_others() -> None:
    assert {kind for kind, _ in SHIPPED} == {kind for kind in FOLDERS if issubclass(kind, CoefficientSpec)}


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_a_file_that_ships_says_what_it_takes(kind: type[CoefficientSpec], name: str) -> None:
    """The value of every field that it leaves out, under an assumption that covers each number."""
    raw = json.loads((folder_of(kind) / f"{name}.json").read_bytes())
    spec, base = load(kind, name), load(kind, raw["like"])
    for field in set(kind.model_fields) - BOOKKEEPING - raw.keys():
        assert getattr(spec, field) == getattr(base, field), field
    assert f"no records of its own: as in {base.name}" in told(spec)
    assert len(spec.fits) == len(raw.get("fits", []))
    assert {field.split(".")[0] for field in free_fields(spec)} <= raw.keys()


def test_patterns_of_a_stand_in_stay_its_own() -> None:
    fused = load(EngineSpec, "generic-fused")
    like = [name for kind, name in SHIPPED if kind is EngineSpec and load(EngineSpec, name).like == fused.name]
    assert fused.patterns == ("",)
    assert like
    for name in like:
        raw = json.loads((folder_of(EngineSpec) / f"{name}.json").read_bytes())
        assert load(EngineSpec, name).patterns == tuple(raw.get("patterns", ()))
