"""The papers: links lead somewhere, code runs, shown output is current, names are complete, diffs apply."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import llm_perf_model as lpm
from llm_perf_model import cost as money
from llm_perf_model.allocation import Allocation, Buffer, OwnCache, Rolling
from llm_perf_model.breakdown import Line
from llm_perf_model.case import Case, Draft
from llm_perf_model.estimate import Bounds
from llm_perf_model.generate import Phase, Steps
from llm_perf_model.graph.parts import Split
from llm_perf_model.graph.stack import parameters
from llm_perf_model.handover import Handover
from llm_perf_model.importers.results.result import Result
from llm_perf_model.intervals import Interval
from llm_perf_model.machine import Connection
from llm_perf_model.measuring.method import Timing as CallTiming
from llm_perf_model.measuring.trials import Trial
from llm_perf_model.ops.base import AbstractOp, Cost, Live, Product
from llm_perf_model.ops.batch import Batch, Group
from llm_perf_model.ops.elementwise import Elementwise
from llm_perf_model.ops.node import Node
from llm_perf_model.ops.router import Router
from llm_perf_model.peak import Memory, Pool
from llm_perf_model.placement import Joints, Links
from llm_perf_model.planning.candidates import Rejected
from llm_perf_model.planning.choose import Option
from llm_perf_model.planning.load import Load
from llm_perf_model.rates import AttentionRate, BlockRate, Exchange, HostLink, Machine, OneKernel, PassRate, Power, Rate
from llm_perf_model.roofline import Pipeline, Run, Step, Timing, Totals, Work
from llm_perf_model.sizing import Alternatives, Point
from llm_perf_model.specs.base import FileSpec, Spec
from llm_perf_model.specs.catalog import FOLDERS, load
from llm_perf_model.specs.catalog import names as catalogue
from llm_perf_model.specs.collective import CollectiveSpec
from llm_perf_model.specs.engine import EngineSpec
from llm_perf_model.specs.hardware import Hardware
from llm_perf_model.specs.images import Images
from llm_perf_model.specs.kernels import KernelSpec
from llm_perf_model.specs.layer import Layer
from llm_perf_model.specs.layer import Pool as NetworkPool
from llm_perf_model.specs.network import NetworkSpec
from llm_perf_model.specs.plan import Lengths, PlanRequest
from llm_perf_model.specs.power import PowerSpec
from llm_perf_model.specs.request import Request
from llm_perf_model.specs.sharing import Sharing
from llm_perf_model.specs.techniques import Techniques
from llm_perf_model.specs.workload import WorkloadSpec
from llm_perf_model.speculation import Guessed, Speculation
from llm_perf_model.sweeping.axes import Axis
from llm_perf_model.sweeping.crossovers import Crossover
from llm_perf_model.sweeping.grid import Skipped
from llm_perf_model.sweeping.metrics import Metric
from llm_perf_model.sweeping.pairs import Pair, Parts
from llm_perf_model.sweeping.sensitivity import Change, Upgrade
from llm_perf_model.sweeping.single import Single
from llm_perf_model.validation.compare import Errors, OperatorScore, Score, Unmapped, Validation
from llm_perf_model.validation.crossing import CrossValidation
from llm_perf_model.validation.fit import MEMORY_FIELDS
from llm_perf_model.validation.mapping import Asked, Mapped
from llm_perf_model.validation.operators import Timed
from llm_perf_model.validation.outcomes import Outcome
from llm_perf_model.validation.records import Problem, Record

from .strategies import op_types

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
DATA = [*[folder for _, folder in FOLDERS.values()], "records"]


every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


def blocks(page: Path, language: str) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(page, *pair) for pair in found if pair[0] == language]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def environment() -> dict[str, str]:
    """This process's, with the width of a terminal and the checkout's package."""
    return {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


# Links and paths


@every_page
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.split("#")[0]).exists(), target


@every_page
def test_headings_that_links_name_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            file, anchor = target.split("#")
            text = (page.parent / file if file else page).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h).lower().replace(" ", "-") for h in headings}, target


@every_page
def test_code_spans_that_look_like_project_paths_exist(page: Path) -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir()}
    for span in re.findall(r"`([^`\n]+)`", prose(page)):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span) and span.split("/")[0] in folders and "/" in span:
            assert (ROOT / span).exists(), span


@every_page
def test_no_line_holds_a_machine_path(page: Path) -> None:
    """No absolute path of any computer."""
    for line in page.read_text(encoding="utf-8").splitlines():
        assert not re.search(r"(?<![\w.:/-])(/(work|tmp|home|root|Users|mnt|opt|var)/|[A-Z]:\\)", line), line


def test_every_page_of_docs_is_reachable_from_the_readme() -> None:
    reached, open_pages = set(), [ROOT / "README.md"]
    while open_pages:
        page = open_pages.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)[^)]*\)", prose(page)):
            linked = (page.parent / target).resolve()
            if not target.startswith("http") and linked not in reached:
                open_pages.append(linked)
    assert set(DOCS) <= reached


def test_every_decision_is_in_the_index_with_its_title() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(folder.glob("[0-9]*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04d}" for n in range(1, len(pages) + 1)]
    index = (folder / "README.md").read_text(encoding="utf-8")
    for page in pages:
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        assert title.startswith(page.name[:4])
        assert f"- [{title}]({page.name})" in index


def test_the_licence_is_complete() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


# Code and output


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python")],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of one page are one program; it writes no file."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile(block.text, str(page), "exec"), namespace)
    assert list(tmp_path.iterdir()) == []


CONSOLES = [block for page in PAGES for block in blocks(page, "console")]


def test_the_readme_shows_a_command_with_its_output() -> None:
    assert any(block.page == ROOT / "README.md" for block in CONSOLES)


@pytest.mark.parametrize("block", CONSOLES, ids=lambda block: block.text.splitlines()[0][2:60])
def test_shown_output_is_what_the_command_prints(block: Block) -> None:
    first, shown = block.text.split("\n", 1)
    assert first.startswith("$ python -m llm_perf_model "), first
    command = [sys.executable, *first.removeprefix("$ python ").split()]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == shown


REFUSED = [block for page in PAGES for block in blocks(page, "refused")]


@pytest.mark.parametrize("name", ["memory.md", "networks.md"])
def test_pages_show_what_is_refused(name: str) -> None:
    assert any(block.page == ROOT / "docs" / name for block in REFUSED)


@pytest.mark.parametrize("block", REFUSED, ids=lambda block: block.text.splitlines()[0][2:60])
def test_a_shown_refusal_is_what_the_command_prints(block: Block) -> None:
    """One line on standard error, exit status 1; with `--format json` data on standard output."""
    first, shown = block.text.split("\n", 1)
    command = [sys.executable, *first.removeprefix("$ python ").split()]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout + done.stderr == shown
    if "--format json" in first:
        assert done.stderr == f"error: {json.loads(done.stdout)['error']}\n"
    else:
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)


# Networks

COUNTED = re.compile(r"^\| `([\w-]+)` \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| (.+) \|$", re.MULTILINE)
"""Network, parameters built and published, multiply-adds built and published."""


def test_the_page_of_networks_counts_every_network() -> None:
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    rows = {name: cells for name, *cells in COUNTED.findall(text)}
    assert set(rows) == set(catalogue(NetworkSpec))
    for name, (built, published, work, printed) in rows.items():
        e = lpm.estimate(name, engine="ideal")
        assert isinstance(e.case.model, NetworkSpec)
        assert (built, published) == (f"{parameters(e.case.graph):,.0f}", f"{e.case.model.parameters:,.0f}")
        assert work == f"{multiply_adds(e):,.0f}"
        stated = e.case.model.multiply_adds
        assert printed == ("not published" if stated is None else f"{stated / 1e9:.3f} G")


def test_the_page_of_networks_has_every_kind_of_layer() -> None:
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    kinds = {word for cls in layer_kinds() for word in get_args(cls.model_fields["kind"].annotation)}
    assert kinds <= set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE))))


def layer_kinds() -> tuple[type[BaseModel], ...]:
    union, _ = get_args(Layer)
    return get_args(union)


def test_the_readme_has_the_two_commands() -> None:
    commands = [block.text.strip() for block in blocks(ROOT / "README.md", "bash")]
    assert "pip install . && python -m llm_perf_model infer --model test-13b --tp 2" in commands
    assert 'pip install -e ".[dev]" && pytest -n 2' in commands


MEASURED_MS = {1: (63.17, 22.0, 283.6), 2: (45.45, 13.5, 180.86)}
"""Prefill, decode step and total of FasterTransformer 13B; examples/fastertransformer_13b names the source."""


@pytest.mark.parametrize("tp", sorted(MEASURED_MS))
def test_the_accuracy_table_is_current(tp: int) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    engines = ("ideal", "fastertransformer")
    answers = [lpm.estimate("test-13b", engine=engine, tp=tp, input_len=512, output_len=11) for engine in engines]
    for field, measured in zip(("prefill_s", "decode_step_s", "total_s"), MEASURED_MS[tp], strict=True):
        values = [1e3 * float(getattr(e, field)) for e in answers]
        cells = [f"{value:.2f} | {value / measured - 1.0:+.1%}" for value in values]
        phase = field.removesuffix("_s").replace("_", " ")
        assert f"| {tp} | {phase} | {measured:.2f} | {' | '.join(cells)} |" in readme


# Validation


def test_the_page_of_validation_is_current() -> None:
    """Text and counts are equal; figures printed with one decimal may differ by one unit of it."""
    page = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    report = dataclasses.replace(lpm.validate(cross_validate="model"), format="markdown")
    decimals = r"[+-]?\d+\.\d(?= %)"
    shown, current = (re.split(decimals, text.rstrip("\n")) for text in (page, str(report)))
    assert shown == current
    figures = zip(*(map(float, re.findall(decimals, text)) for text in (page, str(report))), strict=True)
    assert all(abs(a - b) < 0.15 for a, b in figures)


def test_the_table_of_studies_in_the_readme_is_that_of_the_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    section = page.split("### times and rates by source\n", 1)[1].split("###", 1)[0]
    row = r"^\| .+? \| (\d+) \| ([\d.]+ %) \| .+ \| ([\d.]+ %) \| ([-+][\d.]+ %) \|$"
    rows = re.findall(row, section, re.MULTILINE)
    assert len(rows) == 6
    scored, listed = re.findall(r"\d+", page.splitlines()[0])[:2]
    assert f"{scored} are scored, {listed} are listed" in " ".join(readme.split())
    for n, median, worst, bias in rows:
        assert f"| {n} | {median} | {worst} | {bias} |" in readme


FITTED = [name for name in catalogue(EngineSpec) if load(EngineSpec, name).fits]
OWN = {
    name
    for name in FITTED
    if all(
        origin.startswith("records/")
        for fit in load(EngineSpec, name).fits
        if not set(fit.fields) <= set(MEMORY_FIELDS)
        for origin in fit.records
    )
}
"""Engines whose records of time are part of the project."""


@pytest.mark.parametrize("name", FITTED)
def test_the_page_of_engines_shows_the_coefficients_of_the_files(name: str) -> None:
    text = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    for fit in load(EngineSpec, name).fits:
        assert f"{fit.rows} rows: {fit.error}" in section
        for field in fit.fields:
            assert f"| `{field}` | {getattr(load(EngineSpec, name), field):.4g} |" in section


def test_the_figures_of_kernels_and_engines_are_those_of_the_files() -> None:
    """`python docs/write_figures.py` writes them."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from write_figures import pages
    finally:
        sys.path.remove(str(ROOT / "docs"))
    for path, text in pages().items():
        assert path.read_text(encoding="utf-8") == text, path.name


@pytest.mark.parametrize("kind", [KernelSpec, CollectiveSpec], ids=lambda kind: kind.__name__)
def test_the_page_of_kernels_names_every_file(kind: type[FileSpec]) -> None:
    text = (ROOT / "docs" / "kernels.md").read_text(encoding="utf-8")
    for name in catalogue(kind):
        assert re.search(rf"\b{re.escape(name)}\b", text), name


@pytest.mark.parametrize("name", [name for name in catalogue(EngineSpec) if load(EngineSpec, name).like])
def test_an_engine_like_another_says_so(name: str) -> None:
    text = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]
    assert section.strip().startswith(f"Like `{load(EngineSpec, name).like}`")


def test_the_page_of_engines_shows_the_errors_of_the_page_of_validation() -> None:
    text, page = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("engines.md", "validation.md"))
    row = r"^\| ([\w.-]+): (?:fitted|left out) \| .+? \| ([\d.]+ %) \| .+ \| ([\d.]+ %) \| [-+][\d.]+ % \|$"
    found = re.findall(row, page, re.MULTILINE)
    assert {engine for engine, _, _ in found} == OWN
    for engine, median, worst in found:
        line, *_ = re.findall(rf"^\| \[{engine}\].*$", text, re.MULTILINE)
        assert f"{median}, {worst}" in line or "each precision" in line


def test_the_page_of_engines_has_a_section_for_each() -> None:
    text = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    assert set(catalogue(EngineSpec)) == set(re.findall(r"^## ([a-z0-9.-]+)$", text, re.MULTILINE))


# Names


CLASSES: list[type] = [
    Cost, Timing, Step, Totals, Line, Memory, Machine, Rate, BlockRate, AttentionRate, PassRate, Exchange, OneKernel,
    Connection, Case, Node, Run, Work, Group, Batch, Phase, lpm.Estimate, Request, WorkloadSpec, lpm.LayoutSpec,
    FileSpec, AbstractOp, *op_types(), Product, Live, Bounds, Interval, Record, Problem, Asked, Mapped, Timed, Outcome,
    Score, OperatorScore, Unmapped, Validation, Errors, CrossValidation, Pool, Allocation, OwnCache, Rolling, Buffer,
    Point, Alternatives, lpm.Capacity, Power, money.Price, money.Cost, Images, Techniques, Steps, Hardware, lpm.Sweep,
    lpm.Cells, Axis, Skipped, Metric, Sharing, Pipeline, Links, Joints, Split, Router, Speculation, Guessed, Handover,
    HostLink, Draft,
    PlanRequest, Lengths, Load, Option, Rejected, Result, lpm.SweepFolder,
    lpm.Sensitivity, Upgrade, Change, lpm.Crossovers, Crossover, Pair, Parts, Single,
    lpm.Method, lpm.Measured, Trial, CallTiming,
]  # fmt: skip
HEADINGS = {CallTiming: "Timing of a call", money.Cost: "Cost in US dollars", NetworkPool: "Pool of a network"}
"""Heading of a class whose name another class has too."""


def heading_of(cls: type) -> str:
    return HEADINGS.get(cls, cls.__name__)


def spec_classes(base: type[Spec] = Spec) -> Iterator[type[Spec]]:
    for cls in base.__subclasses__():
        if cls.__module__.startswith("llm_perf_model.") and cls is not FileSpec:
            yield cls
        yield from spec_classes(cls)


def fields_of(cls: type) -> set[str]:
    """Fields and public properties that the class itself adds; those of its bases have tables of their own."""
    if issubclass(cls, BaseModel):
        inherited = {field for base in cls.__bases__ for field in getattr(base, "model_fields", {})}
        names = set(cls.model_fields) - inherited
    elif dataclasses.is_dataclass(cls):
        names = {field.name for field in dataclasses.fields(cls)}
    else:
        names = set(getattr(cls, "_fields", ()))
    if issubclass(cls, AbstractOp):
        if cls is not AbstractOp:
            return names
        names |= {name for name in cls.__annotations__ if not name.startswith("_")}
    public = {name for name, value in vars(cls).items() if is_property(value) and not name.startswith("_")}
    return names | (public - {"workload"} if cls is Request else public)


def is_property(value: object) -> bool:
    return isinstance(value, property) or type(value).__name__ == "cached_property"


@cache
def tables() -> dict[str, dict[str, str]]:
    """Heading -> name -> unit, of the page of names."""
    text = (ROOT / "docs" / "nomenclature.md").read_text(encoding="utf-8")
    sections = re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]
    row = re.compile(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)
    return {section.splitlines()[0].strip("`"): dict(row.findall(section)) for section in sections}


@pytest.mark.parametrize("cls", dict.fromkeys([*CLASSES, *spec_classes()]), ids=heading_of)
def test_every_field_has_a_unit_and_a_meaning(cls: type) -> None:
    assert set(tables().get(heading_of(cls), {})) == fields_of(cls)


def test_every_json_key_is_named() -> None:
    named = {name for table in tables().values() for name in table}
    for engine in catalogue(EngineSpec):
        answer = lpm.estimate("test-13b", engine=engine, tp=2).to_dict("ops")
        keys = set(json_keys(json.loads(json.dumps(answer))))
        assert keys <= named | {word.lower() for word, _ in FOLDERS.values()}


@pytest.mark.parametrize("name", catalogue(NetworkSpec))
def test_every_json_key_of_a_network_is_named(name: str) -> None:
    named = {name for table in tables().values() for name in table}
    answer = lpm.estimate(name, engine="generic-fused").to_dict("ops")
    assert set(json_keys(json.loads(json.dumps(answer)))) <= named | {word.lower() for word, _ in FOLDERS.values()}


@pytest.mark.parametrize("engine", ["hf-transformers", "vllm"])
def test_every_json_key_of_memory_is_named(engine: str) -> None:
    named = {name for table in tables().values() for name in table}
    asked: dict[str, Any] = {"model": "llama-3.1-70b", "engine": engine, "gpu": "a100-sxm-80gb"}
    found = lpm.memory(**asked)
    assert set(json_keys(json.loads(json.dumps(found.to_dict())))) <= named
    with pytest.raises(lpm.OutOfMemoryError) as raised:
        lpm.estimate(**asked).require_feasible()
    assert {*json_keys(json.loads(json.dumps(raised.value.detail))), "error"} <= named


@pytest.mark.parametrize("asked", [lpm.sensitivity, lpm.crossovers])
def test_every_json_key_of_a_sensitivity_is_named(asked: Any) -> None:
    named = {name for table in tables().values() for name in table}
    keys = set(json_keys(json.loads(json.dumps(asked("test-13b", tp=2).to_dict()))))
    assert keys - {"prefill", "decode", "all", "first", "crossovers"} <= named


def test_the_columns_and_keys_of_a_validation_are_named() -> None:
    report = lpm.validate(str(ROOT / "records" / "fastertransformer_13b_a100.csv"), cross_validate="model")
    assert {key for record in report.records for key in record} == set(tables()["--per_row"])
    named = {name for table in tables().values() for name in table}
    assert set(json_keys(json.loads(json.dumps(report.data)))) <= named


def json_keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from json_keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from json_keys(item)


UNIT_OF_SUFFIX = {
    "_usd": "USD", "_usd_per_hour": "USD/h", "_usd_per_gpu_hour": "USD/h", "_usd_per_kwh": "USD/kWh",
    "_usd_per_request": "USD", "_usd_per_million_input_tokens": "USD", "_usd_per_million_output_tokens": "USD",
    "_requests_per_s": "1/s",
    "_tokens_per_s": "tokens/s", "_bytes_per_s": "bytes/s", "_flops_per_s": "FLOP/s", "_values_per_s": "values/s",
    "_bits_per_s_per_pin": "bit/s", "_bytes_per_cycle": "bytes/cycle", "_values_per_cycle": "values/cycle",
    "_cycles": "cycles", "_ratio": "ratio", "_bytes": "bytes", "_bits": "bits", "_tokens": "tokens", "_hz": "Hz",
    "_w": "W", "_j": "J", "_efficiency": "fraction", "_utilisation": "fraction", "_fraction": "fraction", "_s": "s",
}  # fmt: skip
"""Longest first where one ends in another."""


def test_units_agree_with_the_endings_of_names() -> None:
    for heading, names in tables().items():
        for name, unit in names.items():
            suffix = next((suffix for suffix in UNIT_OF_SUFFIX if f"_{name}".endswith(suffix)), None)
            if suffix is not None:
                assert unit == UNIT_OF_SUFFIX[suffix], f"{heading}.{name}"


def test_the_python_names_of_all_pages_exist() -> None:
    """`module.py`: `name` and `Class.name` beside a path in the page of equations."""
    text = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    claims = re.findall(r"`(llm_perf_model/[\w/]+\.py)`(?::|\s\()\s*((?:`[\w.]+`(?:,\s+)?)+)", text)
    assert len(claims) >= 10
    for path, names in claims:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"`([\w.]+)`", names):
            for part in name.split("."):
                assert re.search(rf"(def|class) {part}\b", source), f"{path}: {name}"


def test_every_key_of_a_convention_is_described() -> None:
    page = (ROOT / "records" / "README.md").read_text(encoding="utf-8")
    section = page.split("\n## Conventions\n", 1)[1].split("\n## ", 1)[0]
    rules = json.loads((ROOT / "records" / "conventions.json").read_text(encoding="utf-8"))
    described = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE))))
    assert {key for rule in rules for key in rule} <= described


# Diffs of docs/adding.md


def changes() -> Iterator[tuple[str, str]]:
    """Path and hunks of every file that the page changes."""
    for block in blocks(ROOT / "docs" / "adding.md", "diff"):
        parts = re.split(r"^--- .+\n\+\+\+ b/(.+)\n", block.text, flags=re.MULTILINE)
        assert parts[0] == ""
        yield from zip(parts[1::2], parts[2::2], strict=True)


def is_new(hunks: str) -> bool:
    """Whether the hunks make a file that does not exist yet."""
    return "-" not in {line[:1] for line in hunks.splitlines()} and hunks.startswith("@@ -0,0 ")


def apply(hunks: str, before: str) -> str:
    """The text after all hunks; each must find its place once, wherever it is."""
    text = before
    for hunk in re.split(r"^@@.*\n", hunks, flags=re.MULTILINE)[1:]:
        lines = hunk.splitlines()
        old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
        new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
        assert text.count(old) == 1 or (not old and not text), old
        text = text.replace(old, new, 1) if old else new
    return text


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its data with every diff of the page applied."""
    root = tmp_path_factory.mktemp("adding")
    for name in ("llm_perf_model", *DATA):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, hunks in changes():
        target = root / path
        new = is_new(hunks)
        assert target.exists() != new, path
        target.write_text(apply(hunks, "" if new else target.read_text(encoding="utf-8")), encoding="utf-8")
    return root


def additions(folder: str) -> list[str]:
    """Files of a folder that the page adds, in its order."""
    return [path for path, hunks in changes() if path.startswith(f"{folder}/") and is_new(hunks)]


def added(root: Path, folder: str) -> str:
    """The first of them."""
    return str(root / additions(folder)[0])


def run(root: Path, code: str) -> str:
    environ = {**environment(), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


ADDED = [(kind, path) for kind, (_, folder) in FOLDERS.items() for path in additions(folder)]


def test_the_page_adds_a_file_of_every_kind() -> None:
    assert {kind for kind, _ in ADDED} == set(FOLDERS)


@pytest.mark.parametrize(("kind", "path"), ADDED, ids=[path for _, path in ADDED])
def test_an_added_file_loads_under_its_own_name(kind: type[FileSpec], path: str, changed: Path) -> None:
    assert load(kind, str(changed / path)).name == Path(path).stem
    assert not (ROOT / path).exists(), "the page adds what the catalogue has"


@pytest.mark.parametrize(
    ("flag", "folder"),
    [
        ("model", "model_configs"),
        ("gpu", "gpu_configs"),
        ("engine", "engine_configs"),
        ("precision", "precision_configs"),
        ("link", "link_configs"),
    ],
)
def test_an_added_file_answers_by_path(flag: str, folder: str, changed: Path) -> None:
    request: dict[str, Any] = {"model": "llama-3.2-3b", "tp": 2 if flag == "link" else 1}
    e = lpm.estimate(**{**request, flag: added(changed, folder)}, batch_size=2, input_len=128, output_len=16)
    assert e.fits is True or e.fits
    assert 0.0 < e.ttft_s < e.total_s < 60.0


@pytest.mark.parametrize("path", additions("model_configs"))
def test_an_added_model_has_its_published_parameters(path: str, changed: Path) -> None:
    e = lpm.estimate(model=str(changed / path))
    rounded = any(group.ffn.kind == "moe" for group in e.case.model.layers)
    assert parameters(e.case.graph) == pytest.approx(e.case.model.parameters, rel=2e-3 if rounded else 1e-9)


def test_the_added_models_are_a_plain_one_one_with_experts_and_an_encoder(changed: Path) -> None:
    plain, experts, encoder = (lpm.estimate(str(changed / path)) for path in additions("model_configs"))
    assert {node.name for node in plain.case.graph} >= {"ffn_gate_up", "ffn_down"}
    assert {node.name for node in experts.case.graph} >= {"router", "shared_ffn_down", "experts_down"}
    assert encoder.decode_steps == 0.0
    assert encoder.memory.kv_cache_bytes == 0.0


def test_the_added_network_has_its_published_counts(changed: Path) -> None:
    (path,) = additions("network_configs")
    e = lpm.estimate(str(changed / path), engine="generic-fused", batch_size=8)
    assert isinstance(e.case.model, NetworkSpec)
    assert parameters(e.case.graph) == e.case.model.parameters
    assert multiply_adds(e) == pytest.approx(e.case.model.multiply_adds, rel=0.01)
    code = f"import llm_perf_model as lpm; print(lpm.estimate('{Path(path).stem}', batch_size=8).total_s > 0.0)"
    assert run(changed, code).split() == ["True"]


def multiply_adds(e: lpm.Estimate) -> float:
    """Of one sample, in products."""
    one = Batch.uniform(1.0, 1.0, 0.0)
    return sum(n.count * float(n.cost(one).flops) / 2.0 for n in e.case.graph if not isinstance(n.op, Elementwise))


def test_the_added_layer_is_a_pass_of_the_larger_map(changed: Path) -> None:
    spelled = re.search(r'`(\{"kind": "upsample".*?\})`', (ROOT / "docs" / "adding.md").read_text(encoding="utf-8"))
    assert spelled is not None
    data = json.loads((ROOT / "network_configs" / "resnet18.json").read_text(encoding="utf-8"))
    data["layers"].insert(2, json.loads(spelled[1]))
    (changed / "upsampled.json").write_text(json.dumps(data), encoding="utf-8")
    code = (
        "import llm_perf_model as lpm\n"
        "e = lpm.estimate('upsampled.json', engine='generic-fused')\n"
        "node = next(n for n in e.case.graph if n.name == '2.upsample')\n"
        "print(node.role, node.op.width, node.op.passes, e.total_s > 0.0)"
    )
    assert run(changed, code).split() == ["pass", str(64.0 * 112 * 112), "1.25", "True"]


def test_the_added_files_answer_by_name(changed: Path) -> None:
    kinds = [kind for kind in FOLDERS if kind not in {KernelSpec, CollectiveSpec, PowerSpec, NetworkSpec}]
    given = {FOLDERS[kind][0].lower(): Path(added(changed, FOLDERS[kind][1])).stem for kind in kinds}
    asked = {**given, "tp": 2, "batch_size": 1, "input_len": 64, "output_len": 8, "gpu": "a100-sxm-80gb"}
    assert float(run(changed, f"import llm_perf_model as lpm; print(lpm.estimate(**{asked!r}).total_s)")) > 0.0
    asked = {"model": "llama-3.2-3b", "engine": "ideal", "gpu": given["gpu"]}
    assert float(run(changed, f"import llm_perf_model as lpm; print(lpm.estimate(**{asked!r}).total_s)")) > 0.0


def test_the_added_kernels_are_those_of_their_generation(changed: Path) -> None:
    (name,) = (Path(path).stem for path in additions("kernel_configs"))
    gpu = Path(additions("gpu_configs")[-1]).stem
    code = (
        "import llm_perf_model as lpm\n"
        f"e = lpm.estimate('llama-3.2-3b', gpu='{gpu}', engine='generic-fused')\n"
        "print(e.case.kernels.name, e.case.gpu.generation, e.case.kernels.like, e.total_s > 0.0)"
    )
    assert run(changed, code).split() == [name, name, "cdna2", "True"]


def test_the_added_power_file_is_that_of_the_same_generation(changed: Path) -> None:
    (name,) = (Path(path).stem for path in additions("power_configs"))
    gpu = Path(additions("gpu_configs")[-1]).stem
    code = (
        "import llm_perf_model as lpm\n"
        f"e = lpm.estimate('llama-3.2-3b', gpu='{gpu}', engine='generic-fused')\n"
        "print(e.case.power.name, e.case.power.like, 0.0 < e.power_w <= e.case.gpu.tdp_w)"
    )
    assert run(changed, code).split() == [name, "cdna2", "True"]


def test_the_added_price_and_tariff_make_a_cost(changed: Path) -> None:
    price, tariff = (Path(added(changed, folder)).stem for folder in ("price_configs", "tariff_configs"))
    code = (
        "import llm_perf_model as lpm\n"
        "from llm_perf_model.specs.catalog import load\n"
        f"asked = dict(model='llama-3.1-8b', gpu='a100-sxm-80gb', price='{price}', tariff='{tariff}')\n"
        "cost = lpm.estimate(**asked).cost\n"
        f"offer = load(lpm.PriceSpec, '{price}').offers['a100-sxm-80gb']\n"
        f"tariff = load(lpm.TariffSpec, '{tariff}')\n"
        "p = cost.price\n"
        "print(p.usd_per_gpu_hour == offer.usd_per_hour, (p.usd_per_kwh, p.pue) == (tariff.usd_per_kwh, tariff.pue))\n"
        "print(cost.usd > 0.0, p.origin)"
    )
    lines = run(changed, code).splitlines()
    assert lines[0] == "True True"
    assert lines[1].startswith("True ")


def test_the_added_memory_rules_set_the_pool(changed: Path) -> None:
    first, second = (load(EngineSpec, str(changed / path)) for path in additions("engine_configs"))
    assert (first.cache, first.block_tokens, first.pool_of) == ("paged", 16, "free")
    code = (
        "import llm_perf_model as lpm\n"
        f"m = lpm.memory('llama-3.1-8b', gpu='a100-sxm-80gb', engine='{first.name}').memory\n"
        "rest = m.capacity_bytes - m.peak_bytes + m.kv_cache_bytes\n"
        f"print(abs(m.pool.pool_bytes / rest / {first.pool_fraction} - 1.0) < 1e-9)"
    )
    assert run(changed, code).split() == ["True"]
    assert second.pool_fraction == load(EngineSpec, "vllm").pool_fraction


def test_the_fitted_kernels_take_the_rest_from_another_generation(changed: Path) -> None:
    own, other = load(KernelSpec, added(changed, "kernel_configs")), load(KernelSpec, "cdna2")
    assert {field.split(".")[0] for fit in own.fits for field in fit.fields} == {"gemm"}
    assert own.gemm != other.gemm
    assert (own.attention, own.elementwise, own.kernel_start_s) == (
        other.attention,
        other.elementwise,
        other.kernel_start_s,
    )


def test_the_engine_like_another_differs_where_it_says_so(changed: Path) -> None:
    first, second = (load(EngineSpec, str(changed / path)) for path in additions("engine_configs"))
    assert (first.like, second.like) == (None, "vllm")
    other = load(EngineSpec, second.like)
    assert second.step_s != other.step_s
    assert second.sequence_s == other.sequence_s


def test_the_added_scheme_reads_narrow_weights(changed: Path) -> None:
    wide, narrow = (str(changed / path) for path in additions("precision_configs"))
    seconds = [lpm.estimate("llama-3.1-8b", engine="generic-fused", precision=p).decode_s for p in (wide, narrow)]
    assert seconds[1] < 0.6 * seconds[0]


def test_the_added_kind_of_link_has_exchanges_of_its_own(changed: Path) -> None:
    (path,) = additions("collective_configs")
    code = (
        "import llm_perf_model as lpm\n"
        "from llm_perf_model.specs.catalog import load\n"
        "from llm_perf_model.specs.collective import CollectiveSpec\n"
        "e = lpm.estimate('llama-3.1-8b', gpu='tpu-v5p', engine='vllm', precision='bf16', tp=4)\n"
        f"own, other = load(CollectiveSpec, '{Path(path).stem}'), load(CollectiveSpec, 'fabric')\n"
        "hop = abs(e.machine.exchange.hop_s * e.case.gpu.boost_hz - own.hop_cycles) < 1e-6\n"
        "print(e.case.link.kind, own.start_cycles == other.start_cycles, e.machine.one_kernel, hop)"
    )
    assert run(changed, code).split() == [Path(path).stem, "True", "None", "True"]


def test_the_added_operators_are_timed_with_the_added_convention(changed: Path) -> None:
    code = (
        "from llm_perf_model.validation.run import held_against\n"
        "from llm_perf_model.validation.mapping import map_record\n"
        f"runs, operators = (held_against(path) for path in {additions('records')!r})\n"
        "print({map_record(score.record).request['output_len'] for score in runs.scores})\n"
        "print([score.row.launch_s for score in operators.operators], operators.unmapped, operators.problems)"
    )
    assert run(changed, code).splitlines() == ["{33}", "[2e-05, 2e-05] () ()"]


def test_the_added_records_are_scored(changed: Path) -> None:
    code = f"import llm_perf_model as lpm; print(lpm.validate({added(changed, 'records')!r}).title)"
    assert run(changed, code).startswith("2 scored, 0 without an estimate, 0 unreadable;")


def test_the_added_operator_counts_its_work(changed: Path) -> None:
    code = (
        "from llm_perf_model.ops.batch import Batch\n"
        "from llm_perf_model.ops.short_convolution import ShortConvolution\n"
        "cost = ShortConvolution(4096.0, 4.0, 2.0, 2.0).cost(Batch.uniform(2.0, 8.0, 0.0))\n"
        "print(cost.flops, cost.hbm_bytes)"
    )
    assert run(changed, code).split() == [str(2.0 * 16 * 4096 * 4), str(2.0 * 4 * 4096 + 2 * 16 * 4096 * 2.0)]


def test_the_added_block_is_in_the_graph(changed: Path) -> None:
    data = json.loads((ROOT / "model_configs" / "llama-3.1-8b.json").read_text(encoding="utf-8"))
    spelled = re.search(r'`"ffn": (\{.*?\})`', (ROOT / "docs" / "adding.md").read_text(encoding="utf-8"), re.DOTALL)
    assert spelled is not None
    data["layers"][0]["ffn"] = json.loads(spelled[1])
    (changed / "low-rank.json").write_text(json.dumps(data), encoding="utf-8")
    code = (
        "import llm_perf_model as lpm\n"
        "e = lpm.estimate('low-rank.json', tp=2)\n"
        "print(*[(n.name, n.op.parameters) for n in e.case.graph if n.role == 'ffn'], e.total_s > 0.0, sep='\\n')"
    )
    rank, inner = 1024.0, 14336.0 / 2
    names = {"ffn_up_a": 4096 * rank, "ffn_up_b": rank * inner, "ffn_down_a": inner * rank, "ffn_down_b": rank * 4096}
    assert run(changed, code).splitlines() == [*map(str, names.items()), "True"]


def test_the_example_that_adds_a_gpu_is_a_command_that_runs(changed: Path) -> None:
    (block,) = blocks(ROOT / "docs" / "adding.md", "bash")
    arguments = block.text.split()
    assert arguments[:3] == ["python", "-m", "llm_perf_model"]
    code = f"import sys; from llm_perf_model.cli import main; sys.exit(main({arguments[3:]!r}))"
    assert "prefill" in run(changed, code)
