"""What `import llm_perf_model` offers: complete, sorted, documented, typed."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llm_perf_model

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = llm_perf_model.__name__
OBJECTS = sorted(set(llm_perf_model.__all__) - {"__version__"})
LONGEST = 80


def _ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith(PACKAGE)


def _members(owner: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that the package's own classes define."""
    for name in dir(owner):
        if name.startswith("_"):
            continue
        value = inspect.getattr_static(owner, name)
        function = (
            value.fget if isinstance(value, property) else getattr(value, "func", getattr(value, "__func__", value))
        )
        if inspect.isfunction(function) and _ours(function):
            yield name, value


MEMBERS = [
    (name, member)
    for name in OBJECTS
    if inspect.isclass(getattr(llm_perf_model, name))
    for member, _ in _members(getattr(llm_perf_model, name))
]


def test_all_is_sorted_and_has_no_duplicates() -> None:
    assert list(llm_perf_model.__all__) == sorted(set(llm_perf_model.__all__))


def test_all_names_exist() -> None:
    assert [name for name in llm_perf_model.__all__ if not hasattr(llm_perf_model, name)] == []


LATER = set(llm_perf_model._LATER)


def test_all_is_complete() -> None:
    public = {
        name
        for name, value in vars(llm_perf_model).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | LATER == set(OBJECTS)


def test_names_that_start_up_does_not_wait_for_are_loaded_on_use() -> None:
    for name in LATER:
        assert callable(getattr(llm_perf_model, name))
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        llm_perf_model.nosuch  # noqa: B018


def test_every_exception_is_exported() -> None:
    from llm_perf_model import errors

    raised = {name for name, value in vars(errors).items() if inspect.isclass(value) and _ours(value)}
    assert raised <= set(OBJECTS)


def test_every_exception_has_the_common_base_and_is_drawn_in_the_tree() -> None:
    from llm_perf_model import errors

    for name, value in vars(errors).items():
        if inspect.isclass(value) and _ours(value):
            assert issubclass(value, llm_perf_model.LlmPerfModelError)
            assert name in (errors.__doc__ or "")


def test_every_kind_of_file_has_its_spec_and_its_list_exported() -> None:
    from llm_perf_model.listing import KINDS

    for word, (kind, _, _) in KINDS.items():
        assert kind.__name__ in OBJECTS
        assert word in OBJECTS
        names = getattr(llm_perf_model, word)()
        assert isinstance(names, tuple)
        assert list(names) == sorted(names)


def test_public_functions_of_the_api_are_exported() -> None:
    from llm_perf_model import api

    own = {name for name, value in vars(api).items() if inspect.isfunction(value) and value.__module__ == api.__name__}
    public = {name for name in own if not name.startswith("_")}
    inside = {"answer", "case_of"}  # of a checked request: they serve the command line and sweeps
    assert public - inside <= set(OBJECTS)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_export_has_a_docstring(name: str) -> None:
    _assert_documented(getattr(llm_perf_model, name).__doc__)


@pytest.mark.parametrize(("owner", "member"), MEMBERS)
def test_every_public_method_and_property_has_a_docstring(owner: str, member: str) -> None:
    owners = getattr(llm_perf_model, owner).__mro__
    docs = [inspect.getdoc(vars(base)[member]) for base in owners if member in vars(base)]
    _assert_documented(next(filter(None, docs), None))


def _assert_documented(doc: str | None) -> None:
    assert doc
    first = inspect.cleandoc(doc).splitlines()[0]
    assert first.strip()
    assert len(first) <= LONGEST, first


def test_estimate_has_members_to_document() -> None:
    assert {("Estimate", "prefill_s"), ("Estimate", "to_dict"), ("LayoutSpec", "ranks")} <= set(MEMBERS)
    assert {("Capacity", "what_fits"), ("Capacity", "max_context"), ("Estimate", "cost")} <= set(MEMBERS)


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert llm_perf_model.__version__ == project["version"]


def test_a_typed_package_says_so() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "Typing :: Typed" in project["classifiers"]
    assert (ROOT / PACKAGE / "py.typed").is_file()


def test_the_script_of_the_project_is_the_command_line() -> None:
    from llm_perf_model import cli

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {cli.PROGRAM: "llm_perf_model.cli:main"}


def test_import_is_quiet_and_leaves_heavy_libraries_alone() -> None:
    code = "import sys, llm_perf_model; print(sorted({'fire', 'rich', 'pandas', 'matplotlib'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
