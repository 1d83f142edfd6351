"""The catalogue: names, aliases, paths, near misses, and files that cannot be read."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_perf_model.errors import LlmPerfModelError, SpecError, UnknownNameError
from llm_perf_model.listing import KINDS as LISTINGS
from llm_perf_model.listing import listing, show_spec
from llm_perf_model.specs import catalog
from llm_perf_model.specs.base import FileSpec
from llm_perf_model.specs.catalog import FOLDERS, folder_of, is_path, load, names
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.gpu import GpuSpec
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.specs.link import LinkSpec
from llm_perf_model.specs.model import ModelSpec
from llm_perf_model.specs.network import NetworkSpec
from llm_perf_model.specs.power import PowerSpec
from llm_perf_model.specs.precision import PrecisionSpec
from llm_perf_model.specs.price import PriceSpec, TariffSpec

KINDS = pytest.mark.parametrize("kind", list(FOLDERS), ids=lambda kind: kind.__name__)
OF_GENERATIONS = (KernelSpec, PowerSpec)
"""Kinds of files that are named after generations of devices."""


@KINDS
def test_names_are_the_files_sorted(kind: type[FileSpec]) -> None:
    listed = names(kind)
    assert listed
    assert list(listed) == sorted(path.stem for path in folder_of(kind).iterdir())


@KINDS
def test_every_file_of_a_folder_is_json(kind: type[FileSpec]) -> None:
    assert {path.suffix for path in folder_of(kind).iterdir()} == {".json"}


@KINDS
def test_loads_are_cached(kind: type[FileSpec]) -> None:
    name = names(kind)[0]
    assert load(kind, name) is load(kind, name)
    for alias in load(kind, name).aliases:
        assert load(kind, alias) is load(kind, name)


@pytest.mark.parametrize(
    ("kind", "spelled", "name"),
    [
        (GpuSpec, "a100-sxm-40gb", "a100-sxm-40gb"),
        (GpuSpec, "A100-SXM-40GB", "a100-sxm-40gb"),
        (GpuSpec, "a100_sxm_40gb", "a100-sxm-40gb"),
        (GpuSpec, "A100 SXM 40GB", "a100-sxm-40gb"),
        (GpuSpec, "  a100  sxm - 40gb ", "a100-sxm-40gb"),
        (GpuSpec, "NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        (GpuSpec, "a5000", "rtx-a5000"),
        (GpuSpec, "2080ti", "rtx-2080ti"),
        (GpuSpec, "NVIDIA RTX A5000", "rtx-a5000"),
        (GpuSpec, "nvidia_rtx_a5000", "rtx-a5000"),
        (EngineSpec, "FasterTransformer", "fastertransformer"),
        (EngineSpec, "FT", "fastertransformer"),
        (EngineSpec, "roofline", "ideal"),
        (PrecisionSpec, "FP16", "w16a16"),
        (PrecisionSpec, "W16A16", "w16a16"),
        (EngineSpec, "HF", "hf-transformers"),
        (EngineSpec, "DS-inference", "deepspeed-inference"),
        (EngineSpec, "PyTorch/HF forward pass (engine not stated)", "pytorch-forward"),
        (KernelSpec, "Ampere", "ampere"),
        (KernelSpec, "Zen3", "zen3"),
        (PowerSpec, "Ampere", "ampere"),
        (PriceSpec, "Google Cloud", "google-cloud"),
        (TariffSpec, "US_industrial", "us-industrial"),
        (LinkSpec, "NVLink 3", "nvlink-3"),
        (LinkSpec, "nvlink3", "nvlink-3"),
        (NetworkSpec, "ResNet18", "resnet18"),
        (NetworkSpec, "MobileNetV3 Large", "mobilenet-v3-large"),
        (ModelSpec, "TEST_13B", "test-13b"),
        (ModelSpec, "Llama-3.1-8B", "llama-3.1-8b"),
        (ModelSpec, "llama 3.1 8b", "llama-3.1-8b"),
    ],
)
def test_any_spelling_of_a_name_or_alias(kind: type[FileSpec], spelled: str, name: str) -> None:
    assert load(kind, spelled) is load(kind, name)


@KINDS
def test_every_alias_in_any_spelling_finds_its_file(kind: type[FileSpec]) -> None:
    for name in names(kind):
        for alias in (name, *load(kind, name).aliases):
            for spelled in (alias, alias.upper(), alias.lower(), alias.replace("-", "_"), alias.replace(" ", "-")):
                if not is_path(spelled):
                    assert load(kind, spelled).name == name, spelled


@KINDS
def test_names_and_aliases_are_unique_within_a_kind(kind: type[FileSpec]) -> None:
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for name in names(kind):
        for called in (name, *load(kind, name).aliases):
            owners[catalog._key(called)].add(name)
    assert {key: found for key, found in owners.items() if len(found) > 1} == {}


def test_names_and_aliases_are_unique_over_all_kinds_that_are_listed() -> None:
    """`show NAME` looks through every kind of a listing.

    Kernels and power are named after generations, of which some share the name of their only device: that one is shown.
    """
    owners: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for word, (kind, *_) in LISTINGS.items():
        for name in names(kind) if kind not in OF_GENERATIONS else ():
            for called in (name, *load(kind, name).aliases):
                owners[catalog._key(called)].add((word, name))
    assert {key: found for key, found in owners.items() if len(found) > 1} == {}


def test_a_generation_with_the_name_of_a_device_shows_the_device() -> None:
    shared = set(names(KernelSpec)) & set(names(GpuSpec))
    assert shared
    for name in shared:
        assert show_spec(name).title.startswith(f"{name}: {load(GpuSpec, name).title}")


@pytest.mark.parametrize("name", names(PowerSpec))
def test_a_generation_shows_its_kernels_and_says_what_else_is_called_so(name: str) -> None:
    shown = show_spec(f"kernels/{name}")
    assert shown.title == f"{name}: {load(KernelSpec, name).title}"
    assert f"also called so: show powers/{name}" in shown.notes
    assert f"also called so: show kernels/{name}" in show_spec(f"powers/{name}").notes
    if name in _shown(KernelSpec):
        assert show_spec(name) == shown


@pytest.mark.parametrize("name", ["kernels/hoper", "powers/", "prices/ampere", "colours/red", "gpus/ampere"])
def test_the_word_of_a_listing_looks_in_that_listing_alone(name: str) -> None:
    with pytest.raises(UnknownNameError):
        show_spec(name)


@KINDS
def test_no_alias_looks_like_a_path(kind: type[FileSpec]) -> None:
    for name in names(kind):
        assert [alias for alias in load(kind, name).aliases if is_path(alias)] == []


@pytest.mark.parametrize(
    ("kind", "wrong", "near"),
    [
        (GpuSpec, "a100-sxm-41gb", "a100-sxm-40gb"),
        (GpuSpec, "H100 SXM 80", "h100-sxm-80gb"),
        (GpuSpec, "rtx4090x", "rtx-4090"),
        (EngineSpec, "fastertransfomer", "fastertransformer"),
        (EngineSpec, "idael", "ideal"),
        (PrecisionSpec, "w16a17", "w16a16"),
        (KernelSpec, "amper", "ampere"),
        (PowerSpec, "hoper", "hopper"),
        (PriceSpec, "lamda", "lambda"),
        (TariffSpec, "us-industry", "us-industrial"),
        (LinkSpec, "nvlink-33", "nvlink-3"),
        (ModelSpec, "llama-3.1-8", "llama-3.1-8b"),
        (ModelSpec, "test13b", "test-13b"),
    ],
)
def test_an_unknown_name_is_answered_with_near_ones(kind: type[FileSpec], wrong: str, near: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load(kind, wrong)
    message = str(caught.value)
    word = FOLDERS[kind][0]
    assert message.startswith(f"unknown {word} '{wrong}': did you mean ")
    assert near in message
    assert f"`list {word.lower()}s` shows all {len(names(kind))}" in message
    assert "\n" not in message


@KINDS
@pytest.mark.parametrize("wrong", ["qqqqqqqqzzzz", "", "   ", "_", "*"])
def test_a_name_near_none_is_answered_with_the_way_to_all(kind: type[FileSpec], wrong: str) -> None:
    with pytest.raises(UnknownNameError, match="no name is near it; `list ") as caught:
        load(kind, wrong)
    assert "did you mean" not in str(caught.value)


@KINDS
def test_near_names_are_names_of_that_kind(kind: type[FileSpec]) -> None:
    wrong = names(kind)[0] + "x"
    with pytest.raises(UnknownNameError) as caught:
        load(kind, wrong)
    suggested = str(caught.value).split("did you mean ")[1].split("?")[0].split(" or ")
    assert set(suggested) <= set(names(kind))
    assert len(suggested) == len(set(suggested))


@pytest.mark.parametrize("name", ["../gpu_configs/a100-sxm-40gb", "..", ".", "a100-sxm-40gb/", "a100-sxm-40gb.jso"])
def test_a_name_does_not_leave_the_folder(name: str) -> None:
    with pytest.raises(LlmPerfModelError):
        load(EngineSpec, name)


@pytest.mark.parametrize(
    "name",
    ["a" * 5000, "/" + "a" * 5000, "a" * 5000 + ".json", "a\0b", "a\0b.json", "a/\0b", "~nobody-is-called-so/a.json"],
    ids=["long name", "long path", "long file", "NUL", "NUL file", "NUL path", "unknown home"],
)
def test_a_name_that_no_file_can_have_is_an_error_of_this_library(name: str) -> None:
    with pytest.raises(SpecError):
        load(GpuSpec, name)


# Paths.


def _copy(tmp_path: Path, kind: type[FileSpec], name: str, target: str = "mine.json") -> Path:
    return Path(shutil.copy(folder_of(kind) / f"{name}.json", tmp_path / target))


@KINDS
def test_a_path_stands_for_its_file(kind: type[FileSpec], tmp_path: Path) -> None:
    name = names(kind)[0]
    path = _copy(tmp_path, kind, name)
    assert load(kind, str(path)) == load(kind, name)


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _copy(tmp_path, GpuSpec, "rtx-4090")
    monkeypatch.chdir(tmp_path)
    assert load(GpuSpec, "mine.json").name == "rtx-4090"
    assert load(GpuSpec, "./mine.json").name == "rtx-4090"


def test_a_path_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _copy(tmp_path, GpuSpec, "rtx-4090")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(GpuSpec, "~/mine.json").name == "rtx-4090"


def test_a_path_needs_no_ending_where_it_has_a_folder(tmp_path: Path) -> None:
    path = _copy(tmp_path, GpuSpec, "rtx-4090", "mine")
    assert load(GpuSpec, str(path)).name == "rtx-4090"


def test_a_file_changed_between_loads_is_read_anew(tmp_path: Path) -> None:
    path = _copy(tmp_path, LinkSpec, "nvlink-3")
    assert load(LinkSpec, str(path)).bytes_per_s == 25e9
    path.write_text(path.read_text(encoding="utf-8").replace("25000000000.0", "30e9"), encoding="utf-8")
    assert load(LinkSpec, str(path)).bytes_per_s == 30e9


@KINDS
def test_a_missing_file_is_named(kind: type[FileSpec], tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(UnknownNameError) as caught:
        load(kind, str(path))
    assert str(caught.value) == f"{path}: no such {FOLDERS[kind][0]} file"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Invalid JSON"),
        ("{", "Invalid JSON"),
        ('{"name": "x",}', "Invalid JSON"),
        ("[1, 2]", "object"),
        ('"a100"', "object"),
        ("null", "object"),
    ],
)
@KINDS
def test_a_file_that_is_not_a_json_object_is_named_with_its_problem(
    kind: type[FileSpec], text: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load(kind, str(path))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: is no {FOLDERS[kind][0]} file: ")
    assert problem in line


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "folder.json"):
        path.mkdir(exist_ok=True)
        with pytest.raises(SpecError, match="cannot be read: Is a directory"):
            load(GpuSpec, str(path))


def test_a_path_through_a_file_and_a_loop_cannot_be_read(tmp_path: Path) -> None:
    _copy(tmp_path, GpuSpec, "rtx-4090")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    for path in (tmp_path / "mine.json" / "x.json", tmp_path / "loop.json"):
        with pytest.raises(SpecError, match="cannot be read: "):
            load(GpuSpec, str(path))


def test_a_file_without_permission_cannot_be_read(tmp_path: Path) -> None:
    path = _copy(tmp_path, GpuSpec, "rtx-4090")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads every file")
    with pytest.raises(SpecError, match="cannot be read: Permission denied"):
        load(GpuSpec, str(path))


def test_permission_denied_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _copy(tmp_path, GpuSpec, "rtx-4090")

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SpecError, match=r"mine\.json: cannot be read: Permission denied$"):
        load(GpuSpec, str(path))


def test_a_file_of_another_kind_lists_what_does_not_belong(tmp_path: Path) -> None:
    path = _copy(tmp_path, LinkSpec, "nvlink-3")
    with pytest.raises(SpecError, match="problems in this GPU file") as caught:
        load(GpuSpec, str(path))
    assert "  bytes_per_s: " in str(caught.value)


# A catalogue with a broken file in it.


@pytest.fixture
def small_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    _copy(tmp_path, LinkSpec, "nvlink-3", "nvlink-3.json")
    monkeypatch.setattr(catalog, "folder_of", lambda _kind: tmp_path)
    catalog._index.cache_clear()
    yield tmp_path
    catalog._index.cache_clear()


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff\xfe\x00", b'{"aliases": 3}', b'{"aliases": [3]}', b"null"])
def test_a_broken_file_does_not_hide_the_others(small_catalogue: Path, text: bytes) -> None:
    (small_catalogue / "broken.json").write_bytes(text)
    assert load(LinkSpec, "NVLink3").name == "nvlink-3"
    with pytest.raises(UnknownNameError):
        load(LinkSpec, "something else")
    with pytest.raises(SpecError, match=r"broken\.json: "):
        load(LinkSpec, "broken")


# Listings.


@pytest.mark.parametrize("word", list(LISTINGS))
def test_a_listing_has_every_name_once(word: str) -> None:
    kind = LISTINGS[word][0]
    report = listing(word)
    assert [row[0] for row in report.tables[0].rows] == list(names(kind))
    assert [record["name"] for record in report.records] == list(names(kind))
    assert report.title == f"{len(names(kind))} {word}"


def test_every_kind_whose_listing_an_error_offers_can_be_listed() -> None:
    for kind, (word, _) in FOLDERS.items():
        with pytest.raises(UnknownNameError) as caught:
            load(kind, "qqqqqqqqzzzz")
        offered = str(caught.value).split("`list ")[1].split("`")[0]
        assert offered in LISTINGS, f"an unknown {word} is answered with `list {offered}`"


def _shown(kind: type[FileSpec]) -> list[str]:
    """The names that show this kind: a generation called like a device shows the device, any other its kernels."""
    devices = [called for name in names(GpuSpec) for called in (name, *load(GpuSpec, name).aliases)]
    others = {KernelSpec: devices, PowerSpec: [*devices, *names(KernelSpec)]}.get(kind, [])
    return [name for name in names(kind) if name not in others]


@pytest.mark.parametrize("word", list(LISTINGS))
def test_what_a_name_shows_without_the_word_of_its_listing(word: str) -> None:
    kind = LISTINGS[word][0]
    for name in _shown(kind):
        assert show_spec(name) == show_spec(f"{word}/{name}")


@pytest.mark.parametrize("word", list(LISTINGS))
def test_show_has_every_number_of_every_entry(word: str) -> None:
    kind = LISTINGS[word][0]
    for name in names(kind):
        report = show_spec(f"{word}/{name}")
        assert report.data == json.loads(load(kind, name).model_dump_json(exclude_none=True))
        assert report.title.startswith(f"{name}: ")
        fields = {row[0].split(".")[0].split("[")[0] for row in report.tables[0].rows}
        told = {key for key, value in report.data.items() if value != {}}
        assert fields >= told - {"sources", "assumed", "fits", "notes"}


@pytest.mark.parametrize("word", list(LISTINGS))
def test_show_tells_the_origin_of_the_numbers(word: str) -> None:
    kind = LISTINGS[word][0]
    for name in names(kind):
        spec, tables = load(kind, name), show_spec(f"{word}/{name}").tables
        origins = next((table.rows for table in tables if table.columns[1] == "origin"), ())
        assert len(origins) == len(spec.sources) + len(spec.assumed) + len(spec.fits)


def test_show_of_a_path_finds_the_kind(tmp_path: Path) -> None:
    for word, (kind, *_) in LISTINGS.items():
        path = _copy(tmp_path, kind, names(kind)[0])
        assert show_spec(str(path)).title == show_spec(f"{word}/{names(kind)[0]}").title


def test_show_of_a_broken_file_reports_the_kind_that_it_is_nearest_to(tmp_path: Path) -> None:
    path = _copy(tmp_path, GpuSpec, "rtx-4090")
    path.write_text(path.read_text(encoding="utf-8").replace('"tdp_w"', '"tdp"'), encoding="utf-8")
    with pytest.raises(SpecError, match="in this GPU file") as caught:
        show_spec(str(path))
    assert "did you mean tdp_w?" in str(caught.value)


def test_show_of_an_unknown_name_suggests_across_kinds() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean .*a100-sxm-40gb") as caught:
        show_spec("a100-sxm-41gb")
    assert "\n" not in str(caught.value)
