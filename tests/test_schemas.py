"""The published JSON schemas: fresh, closed, and agreeing with the data files."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llm_perf_model.specs.catalog import FOLDERS

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "write_schemas.py"
FOLDER = ROOT / "docs" / "schemas"
KINDS = {word.lower(): folder for word, folder in FOLDERS.values()}
WORDS = sorted([*KINDS, "layout", "workload"])
"""Every schema: those of the kinds of data files, and those of a layout and a workload, which have none."""
COEFFICIENTS = ("engine", "kernel", "collective", "power")
"""Kinds of files that may take what they leave out from another."""


def _made() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("write_schemas", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return dict(module.schemas())


def _stored(word: str) -> dict[str, Any]:
    return dict(json.loads((FOLDER / f"{word}.schema.json").read_text(encoding="utf-8")))


def _objects(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in (schema, *schema.get("$defs", {}).values()) if part.get("type") == "object"]


def test_a_schema_exists_for_every_kind_and_nothing_else() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{word}.schema.json" for word in WORDS}


@pytest.mark.parametrize("word", WORDS)
def test_stored_schemas_are_those_of_the_specs(word: str) -> None:
    fresh = json.loads(_made()[f"{word}.schema.json"])
    assert _stored(word) == fresh, "stale: run `python scripts/write_schemas.py`"


@pytest.mark.parametrize("word", WORDS)
def test_text_is_sorted_and_ends_with_one_newline(word: str) -> None:
    text = (FOLDER / f"{word}.schema.json").read_text(encoding="utf-8")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("word", WORDS)
def test_every_object_is_closed(word: str) -> None:
    for part in _objects(_stored(word)):
        if "properties" in part:
            assert part["additionalProperties"] is False, part["title"]


@pytest.mark.parametrize("word", sorted(KINDS))
def test_schema_agrees_with_the_keys_of_every_data_file(word: str) -> None:
    schema = _stored(word)
    for path in sorted((ROOT / KINDS[word]).glob("*.json")):
        keys = json.loads(path.read_text(encoding="utf-8")).keys()
        assert keys <= schema["properties"].keys(), path.name
        assert set(schema["required"]) <= keys, path.name


@pytest.mark.parametrize("word", WORDS)
def test_schema_names_only_definitions_that_it_holds(word: str) -> None:
    schema = _stored(word)
    named = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)))
    assert named == set(schema.get("$defs", {}))


def test_bounds_of_a_field_are_part_of_the_schema() -> None:
    own, generations = _stored("engine")["properties"]["gemm_compute_efficiency"]["anyOf"]
    assert (own["exclusiveMinimum"], own["maximum"], generations) == (0, 1, {"type": "null"})
    of_kernels = _stored("kernel")["$defs"]["GemmKernels"]["properties"]["memory_efficiency"]
    assert (of_kernels["exclusiveMinimum"], of_kernels["maximum"]) == (0, 1)
    assert _stored("kernel")["$defs"]["AttentionKernels"]["properties"]["query_rows"]["minimum"] == 1
    assert _stored("layout")["properties"]["tp"]["minimum"] == 1
    assert _stored("price")["$defs"]["Offer"]["properties"]["usd_per_hour"]["exclusiveMinimum"] == 0
    assert _stored("tariff")["properties"]["pue"]["minimum"] == 1
    idle = _stored("power")["properties"]["idle_fraction"]
    assert (idle["exclusiveMinimum"], idle["maximum"]) == (0, 1)


def test_script_runs_from_another_folder_and_leaves_fresh_files_alone(tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in FOLDER.iterdir()}
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == ""
    assert {path.name: path.stat().st_mtime_ns for path in FOLDER.iterdir()} == before


@pytest.mark.parametrize("word", COEFFICIENTS)
def test_fields_are_required_only_where_no_other_file_gives_them(word: str) -> None:
    """A file that is `like` another needs a name and a title; any other all that has no default."""
    schema = _stored(word)
    assert (schema["required"], schema["if"]) == (["name", "title"], {"required": ["like"]})
    for path in sorted((ROOT / KINDS[word]).glob("*.json")):
        keys = json.loads(path.read_text(encoding="utf-8")).keys()
        assert "like" in keys or set(schema["else"]["required"]) <= keys, path.name
    assert set(schema["else"]["required"]) > {"name", "title"}


@pytest.mark.parametrize("word", sorted(KINDS))
def test_only_files_of_coefficients_are_like_others(word: str) -> None:
    assert ("like" in _stored(word)["properties"]) == (word in COEFFICIENTS)
