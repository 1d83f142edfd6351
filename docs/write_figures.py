"""Writes the figures of docs/kernels.md and docs/engines.md anew, from the data files and docs/validation.md.

Run from a checkout after a fit: `python docs/write_figures.py`. It replaces tables between `<!-- figures: NAME -->` and
`<!-- end -->`, values and errors in the sections of engines, and nothing else.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from llm_perf_model.specs.base import CoefficientSpec, Fit  # noqa: E402
from llm_perf_model.specs.catalog import folder_of, load, names  # noqa: E402
from llm_perf_model.specs.collective import CollectiveSpec  # noqa: E402
from llm_perf_model.specs.engine import EngineSpec  # noqa: E402
from llm_perf_model.specs.gpu import GpuSpec  # noqa: E402
from llm_perf_model.specs.kernels import KernelRates, KernelSpec  # noqa: E402
from llm_perf_model.validation.fit import free_fields  # noqa: E402

KERNELS, ENGINES, VALIDATION = (ROOT / "docs" / f"{name}.md" for name in ("kernels", "engines", "validation"))
C = TypeVar("C", bound=CoefficientSpec)

SHOWN: dict[str, Callable[[float], str]] = {
    "_efficiency": lambda value: f"{100.0 * value:.3g} %",
    "_bytes_per_s": lambda value: f"{value / 1e9:.3g} GB/s",
    "_s": lambda value: f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.4g} us",
    "_cycles": lambda value: f"{value:,.0f} cycles" if value >= 100.0 else f"{value:.3g} cycles",
    "channel_bytes": lambda value: f"{value:g} B",
    "_bytes": lambda value: f"{value / 2**30:.3g} GiB" if value >= 2**30 else f"{value / 2**20:.3g} MiB",
}
"""Ending of a coefficient -> how people read it."""


def shown(field: str, value: float) -> str:
    """A value as people read it."""
    names_ = [part for part in field.split(".") if part.endswith(tuple(SHOWN))] or [field]
    form = next((form for ending, form in SHOWN.items() if names_[-1].endswith(ending)), None)
    return f"{value:.4g}" if form is None else form(value)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Dotted path and value of every number below."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]], texts: int = 1) -> str:
    """A Markdown table; the first `texts` columns and the last hold text."""
    rule = ["---" if i < texts or i == len(head) - 1 else "--:" for i in range(len(head))]
    lines = [" | ".join(head), "|".join(rule), *(" | ".join(row) for row in rows)]
    return "\n".join(f"|{line}|" if set(line) <= {"-", ":", "|"} else f"| {line} |" for line in lines)


def own(kind: type[C]) -> list[C]:
    """The files of a kind with coefficients of their own."""
    return [spec for spec in (load(kind, name) for name in names(kind)) if spec.like is None]


def launched(generation: str) -> int:
    """The year of a generation's first device."""
    devices = [load(GpuSpec, name) for name in names(GpuSpec)]
    return min((gpu.launch_year for gpu in devices if gpu.generation == generation), default=9999)


def generations() -> list[KernelSpec]:
    """The generations with coefficients of their own, the oldest first."""
    return sorted(own(KernelSpec), key=lambda spec: launched(spec.name))


def cell(spec: CoefficientSpec, field: str, numbers: dict[str, float]) -> str:
    """A coefficient, in brackets where it is assumed."""
    if field not in numbers:
        return "-"
    text = shown(field, numbers[field])
    return text if field in free_fields(spec) else f"({text})"


def coefficients() -> str:
    """Coefficients of kernels by generation."""
    columns = generations()
    numbers = [dict(leaves(spec.model_dump(include=set(KernelRates.model_fields)))) for spec in columns]
    fields = dict.fromkeys(field for of_one in sorted(numbers, key=len, reverse=True) for field in of_one)
    order = list(KernelRates.model_fields)
    rows = [
        (f"`{field}`", *(cell(spec, field, of_one) for spec, of_one in zip(columns, numbers, strict=True)))
        for field in sorted(fields, key=lambda field: order.index(field.split(".")[0]))
    ]
    text = table(("coefficient", *(spec.name for spec in columns)), rows)
    return text.replace("---|", "--:|").replace("|--:|", "|---|", 1)


def fits(specs: list[Any]) -> str:
    """What fixed the coefficients, and the errors that remained."""
    rows = [
        (spec.name, families(fit), str(fit.rows), *errors(fit), "; ".join(fit.records))
        for spec in specs
        for fit in spec.fits
    ]
    head = ("file", "coefficients", "rows", "median", "mean", "90 % within", "left out: median", "records")
    return table(head, rows, texts=2)


def families(fit: Fit) -> str:
    """The groups of coefficients that a fit names."""
    return ", ".join(dict.fromkeys(field.split(".")[0] if "." in field else field for field in fit.fields))


def errors(fit: Fit) -> tuple[str, ...]:
    """The figures of a fit of kernels or exchanges."""
    wanted = (r"^median ([\d.]+)", r"mean ([\d.]+)", r"rows within ([\d.]+)", r"in turn: median ([\d.]+)")
    found = [re.search(pattern, fit.error) for pattern in wanted]
    return tuple("-" if match is None else f"{match[1]} %" for match in found)


def taken() -> str:
    """Generations that take another's coefficients, and which groups of them they state themselves."""
    rows = []
    for spec in sorted((load(KernelSpec, name) for name in names(KernelSpec)), key=lambda spec: launched(spec.name)):
        if spec.like is not None:
            given = json.loads((folder_of(KernelSpec) / f"{spec.name}.json").read_bytes())
            stated = ", ".join(f"`{field}`" for field in KernelRates.model_fields if field in given) or "-"
            devices = [name for name in names(GpuSpec) if load(GpuSpec, name).generation == spec.name]
            rows.append((spec.name, spec.like, stated, ", ".join(devices)))
    return table(("generation", "like", "stated itself", "devices"), rows, texts=4)


def exchanges() -> str:
    """Coefficients of exchanges by kind of link."""
    rows = [
        (spec.name, f"`{field}`", f"{value:.4g}", cell(spec, field, dict(leaves(spec.model_dump()))))
        for spec in own(CollectiveSpec)
        for field, value in leaves(spec.model_dump(exclude={"sources", "fits", "assumed"}))
    ]
    return table(("kind of link", "coefficient", "value", "that is"), rows, texts=2)


def engines() -> str:
    """Every engine whose coefficients records have fixed, with its errors."""
    rows = []
    for spec in (load(EngineSpec, name) for name in names(EngineSpec)):
        if spec.fits:
            link = f"[{spec.name}](#{spec.name.replace('.', '')})"
            n, free = spec.fits[0].rows, len(free_fields(spec))
            rows.append((link, spec.like or "-", str(n), str(free), in_sample(spec), left_out(spec.name)))
    head = ("engine", "like", "rows", "free", "fitted: median, worst", "each model left out: median, worst")
    return table(head, rows, texts=2)


def memories() -> str:
    """How every engine allocates memory."""
    rows = []
    for spec in (load(EngineSpec, name) for name in names(EngineSpec)):
        cache = f"{spec.cache}, {spec.block_tokens}" if spec.block_tokens else spec.cache
        if spec.concatenated_positions:
            cache += f"; {', '.join(sorted(spec.concatenated_positions))}: concatenated"
        logits = f"{spec.logits}: {', '.join(spec.logits_held) or 'on the host'}"
        link = f"[{spec.name}](#{spec.name.replace('.', '')})"
        fitted = any("context_bytes" in fit.fields for fit in spec.fits)
        context = f"{spec.context_bytes / 2**30:.2f}{' (fitted)' if fitted else ''}"
        rows.append((link, cache, share(spec), size(spec), logits, context, beside(spec)))
    head = ("engine", "cache", "takes", "size of a pass", "logits held", "context, GiB", "beside")
    return table(head, rows, texts=5).replace("|--:|---|", "|---|---|")


def share(spec: EngineSpec) -> str:
    """What an engine takes of the device."""
    if spec.pool_fraction is None:
        return "what it needs"
    of = "what is free" if spec.pool_of == "free" else "the device"
    return f"{spec.pool_fraction:g} of {of}"


def size(spec: EngineSpec) -> str:
    """What activations and logits are sized for."""
    sizes = [(spec.pass_tokens, "tokens"), (spec.pass_sequences, "sequences")]
    return ", ".join(f"{n} {word}" for n, word in sizes if n is not None) or "the request's"


def beside(spec: EngineSpec) -> str:
    """Graphs, fragments and workspaces."""
    found = [f"graphs of {spec.graph_bytes / 2**20:.0f} MiB"] if spec.graph_bytes else []
    found += [f"{spec.overallocation:.3g} bytes a live byte"] if spec.overallocation else []
    found += [f"workspace for {spec.workspace.max_tokens} tokens"] if spec.workspace else []
    return ", ".join(found) or "-"


def in_sample(spec: EngineSpec) -> str:
    """Median and worst error of an engine on its own rows."""
    found = validated(spec.name, "fitted")
    if found is not None:
        return f"{found[1]} %, {found[2]} %"
    median, worst = (re.search(rf"{word} ([\d.]+) ?%", spec.fits[0].error) for word in ("median", "worst"))
    return ", ".join("-" if match is None else f"{match[1]} %" for match in (median, worst))


def left_out(name: str) -> str:
    """The same on models left out of the fit, for engines whose records are part of the project."""
    found = validated(name, "left out")
    return "-" if found is None else f"{found[1]} %, {found[2]} %"


def validated(name: str, which: str) -> re.Match[str] | None:
    """Median and worst error of a row of the page of validation."""
    page = VALIDATION.read_text(encoding="utf-8")
    row = rf"^\| {re.escape(name)}: {which} \| .+? \| ([\d.]+) % \| .+ \| ([\d.]+) % \| [-+][\d.]+ % \|$"
    return re.search(row, page, re.MULTILINE)


TABLES: dict[str, Callable[[], str]] = {
    "coefficients": coefficients,
    "fits of kernels": lambda: fits([load(KernelSpec, name) for name in names(KernelSpec)]),
    "generations without records": taken,
    "coefficients of exchanges": exchanges,
    "fits of exchanges": lambda: fits([load(CollectiveSpec, name) for name in names(CollectiveSpec)]),
    "fits of engines": engines,
    "memory of engines": memories,
}


def with_tables(page: str) -> str:
    """The page with every marked table written anew."""

    def written(match: re.Match[str]) -> str:
        known = TABLES.get(match[2])
        return match[0] if known is None else f"{match[1]}\n\n{known()}\n\n{match[3]}"

    return re.sub(r"(<!-- figures: ([^>]+) -->)\n.*?(<!-- end -->)", written, page, flags=re.DOTALL)


def with_sections(page: str) -> str:
    """The page with the coefficients and errors in the sections of engines written anew."""
    head, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    return head + "".join(map(with_coefficients, sections))


def with_coefficients(section: str) -> str:
    """A section with its engine's coefficients; what fixes each of them is kept as it stands."""
    name = section.splitlines()[0].removeprefix("## ")
    if name not in names(EngineSpec):
        return section
    spec = load(EngineSpec, name)
    kept = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \| (.+) \|$", section, re.MULTILINE))
    bare = re.sub(r"<!-- figures: engine -->\n.*?<!-- end -->\n\n", "", section, flags=re.DOTALL)
    if not spec.fits:
        return bare
    heading, first, *rest = bare.rstrip("\n").split("\n\n", 2)
    marked = f"<!-- figures: engine -->\n\n{of_engine(spec, kept)}\n\n<!-- end -->"
    last = "\n" * (len(bare) - len(bare.rstrip("\n")))
    return "\n\n".join([heading, first, marked, *rest]) + last


def of_engine(spec: EngineSpec, kept: dict[str, str]) -> str:
    """Fitted coefficients of an engine, the records that fixed them, and the error that remained."""
    rows = [
        (f"`{field}`", f"{getattr(spec, field):.4g}", shown(field, getattr(spec, field)), kept.get(field, "all rows"))
        for field in dict.fromkeys(field for fit in spec.fits for field in fit.fields)
    ]
    fixed = [f"{fit.rows} rows: {fit.error}. Records: {'; '.join(fit.records)}." for fit in spec.fits]
    return "\n\n".join([table(("coefficient", "value", "that is", "rows that fix it"), rows), *fixed])


def pages() -> dict[Path, str]:
    """Path -> text with current figures."""
    kernels, engines_ = (path.read_text(encoding="utf-8") for path in (KERNELS, ENGINES))
    return {KERNELS: with_tables(kernels), ENGINES: with_sections(with_tables(engines_))}


def main() -> None:
    """Write the pages whose text has changed."""
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
