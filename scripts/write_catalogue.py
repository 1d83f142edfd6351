"""Writes docs/catalogue.md: every model, network, device, engine and precision, with what distinguishes it.

Run from a checkout after a data file changes: `python scripts/write_catalogue.py`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from llm_perf_model.graph.stack import active_parameters, build, kv_bytes_per_token  # noqa: E402
from llm_perf_model.specs.attention import CompressedAttention, GroupedQueryAttention, LatentAttention  # noqa: E402
from llm_perf_model.specs.base import FileSpec  # noqa: E402
from llm_perf_model.specs.catalog import load, names  # noqa: E402
from llm_perf_model.specs.engine import EngineSpec  # noqa: E402
from llm_perf_model.specs.ffn import MoeFfn  # noqa: E402
from llm_perf_model.specs.gpu import GpuSpec  # noqa: E402
from llm_perf_model.specs.layer import text_of  # noqa: E402
from llm_perf_model.specs.mixer import Mixer  # noqa: E402
from llm_perf_model.specs.model import ModelSpec  # noqa: E402
from llm_perf_model.specs.network import NetworkSpec  # noqa: E402
from llm_perf_model.specs.precision import PrecisionSpec  # noqa: E402
from llm_perf_model.units import decimal  # noqa: E402

PAGE = ROOT / "docs" / "catalogue.md"
OPENING = """# Catalogue

What the data files describe; `python scripts/write_catalogue.py` writes this page from them. `show NAME` prints all of
a file with the origin of each number, and [adding.md](adding.md) says how to add one. Names are answered in any
spelling, and so are the names of checkpoints that a file lists as aliases.
"""
MODELS = """## Models

Parameters are as published, without what predicts further tokens. Active ones are those that a token passes, counted
over the operators: with token table and head, or without where the publisher counts so. What mixes tokens is given as
heads and key heads, `w` with the tokens of a window, `c` with those of a chunk; MLA is latent attention. The last
column is what a token adds to a 16-bit cache while it lies inside every window; states of fixed size add nothing.
"""
DEVICES = """## Devices

Peaks are dense, in TFLOP/s, of the unit that multiplies matrices where there is one, with accumulation in 32 bits.
Links are those to other devices, or the bus where there are none.
"""
STATES = {
    "mamba": "Mamba", "mamba2": "Mamba-2", "delta_net": "delta net", "linear": "linear attention",
    "short_conv": "short convolution",
}  # fmt: skip
WEB = {"arxiv:": "https://arxiv.org/abs/", "doi:": "https://doi.org/"}


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]], texts: frozenset[int]) -> str:
    """A Markdown table; `texts` are the columns that do not hold numbers."""
    rule = ["---" if column in texts else "--:" for column in range(len(head))]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def named(spec: FileSpec) -> str:
    """The title of an entry, linked to the page that its file owes the most numbers to."""
    url = max(spec.sources, key=lambda source: len(source.fields)).url if spec.sources else ""
    for short, address in WEB.items():
        url = url.replace(short, address) if url.startswith(short) else url
    return f"[{spec.title}]({url})" if url.startswith("http") else spec.title


def mixing(mixer: Mixer | None) -> str:
    """What mixes the tokens of a layer, in a few words."""
    match mixer:
        case None:
            return "none"
        case GroupedQueryAttention():
            seen = f" w{mixer.window_tokens}" if mixer.window_tokens else ""
            chunk = f" c{mixer.chunk_tokens}" if mixer.chunk_tokens else ""
            return f"{mixer.heads}/{mixer.kv_heads}{seen}{chunk}"
        case LatentAttention():
            return f"MLA {mixer.heads}{' indexed' if mixer.indexer else ''}"
        case CompressedAttention():
            past = f" past / {mixer.ratio}" if mixer.ratio else ""
            return f"{mixer.heads}/1 w{mixer.window_tokens}{past}"
        case _:
            return STATES[mixer.kind]


def mixers(model: ModelSpec) -> str:
    """What mixes the tokens of a model's own layers, with how many of them do so where they differ."""
    counts: Counter[str] = Counter()
    for group in model.layers:
        beside = f" + {mixing(group.beside_attention)}" if group.beside_attention else ""
        counts[mixing(group.attention) + beside] += group.count
    alone = len(counts) == 1
    return ", ".join(label if alone else f"{count} x {label}" for label, count in counts.items())


def model_row(model: ModelSpec) -> tuple[str, ...]:
    """Sizes of a model, and what its graph adds up to."""
    graph = build(model, load(EngineSpec, "ideal"), load(PrecisionSpec, "w16a16"), 1)
    sparse = any(isinstance(group.ffn, MoeFfn) for group in model.groups)
    layers = f"{model.encoder_layer_count} + {model.layer_count}" if model.encoder else f"{model.layer_count}"
    return (
        model.name,
        named(model),
        decimal(model.parameters, ""),
        decimal(active_parameters(graph, model.active_counts), "") if sparse else "",
        layers,
        f"{model.hidden}",
        mixers(model),
        f"{model.max_positions or ''}",
        f"{kv_bytes_per_token(graph):,.0f}" if model.causal else "",
    )


def gpu_row(gpu: GpuSpec) -> tuple[str, ...]:
    """Memory, dense peaks, power and links of a device."""
    peaks = gpu.peak_flops_per_s
    wide = peaks.get("tensor_bf16", peaks.get("tensor_fp16", peaks.get("vector_fp32", 0.0)))
    fabric = f"{gpu.scale_up.links} x {gpu.scale_up.link}, {gpu.scale_up.ranks} ranks" if gpu.scale_up else ""
    return (
        gpu.name,
        named(gpu),
        f"{gpu.launch_year}",
        f"{gpu.hbm_bytes / 2**30:.0f} GiB",
        decimal(gpu.hbm_bytes_per_s, "B/s"),
        *(f"{peak / 1e12:,.0f}" if peak else "" for peak in (wide, peaks.get("tensor_fp8"), peaks.get("tensor_fp4"))),
        f"{gpu.tdp_w:g} W",
        fabric or gpu.host_link,
    )


def network_row(network: NetworkSpec) -> tuple[str, ...]:
    """Sizes of a network."""
    adds = decimal(network.multiply_adds, "") if network.multiply_adds else ""
    return network.name, named(network), decimal(network.parameters, ""), adds, text_of(network.input)


def precision_row(precision: PrecisionSpec) -> tuple[str, ...]:
    """Widths of what a precision stores."""
    stored = (precision.weight_bytes, precision.activation_bytes, precision.kv_bytes)
    return precision.name, precision.title, *(f"{8.0 * width:.4g}" for width in stored)


def page() -> str:
    """The page, made afresh from the data files."""
    models = [load(ModelSpec, name) for name in names(ModelSpec)]
    gpus = [load(GpuSpec, name) for name in names(GpuSpec)]
    networks = [load(NetworkSpec, name) for name in names(NetworkSpec)]
    engines = [load(EngineSpec, name) for name in names(EngineSpec)]
    precisions = [load(PrecisionSpec, name) for name in names(PrecisionSpec)]
    sizes = ("name", "model", "parameters", "active", "layers", "width", "mixes tokens by", "positions", "B a token")
    reach = ("name", "device", "year", "memory", "bandwidth", "16 bits", "fp8", "fp4", "power", "links")
    return "\n".join(
        (
            OPENING,
            MODELS,
            f"{len(models)} models.\n",
            table(sizes, map(model_row, models), frozenset({0, 1, 6})),
            f"## Networks\n\n{len(networks)} networks of explicit layers ([networks.md](networks.md)).\n",
            table(
                ("name", "network", "parameters", "multiply-adds", "input"),
                map(network_row, networks),
                frozenset({0, 1}),
            ),
            DEVICES,
            f"{len(gpus)} devices.\n",
            table(reach, map(gpu_row, gpus), frozenset({0, 1, 9})),
            f"## Engines\n\n{len(engines)} engines ([engines.md](engines.md)).\n",
            table(
                ("name", "engine", "kind"), ((e.name, e.title, e.kind) for e in engines), frozenset({0, 1, 2})
            ),
            f"## Precisions\n\n{len(precisions)} precisions; bits a stored value.\n",
            table(
                ("name", "precision", "weight", "activation", "cached"),
                map(precision_row, precisions),
                frozenset({0, 1}),
            ),
        )
    )  # fmt: skip


def main() -> None:
    """Write the page if its text has changed."""
    text = page()
    if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        PAGE.write_text(text, encoding="utf-8")
        print(f"written: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
