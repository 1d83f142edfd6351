"""The catalogue as tables: what there is, and every field of one entry with its origin."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .errors import SpecError, UnknownNameError
from .report.document import Report, Table
from .specs.base import CoefficientSpec, FileSpec
from .specs.catalog import is_path, load, names
from .specs.collective import CollectiveSpec
from .specs.engine import EngineSpec
from .specs.gpu import GpuSpec
from .specs.kernels import KernelSpec
from .specs.layer import text_of
from .specs.link import LinkSpec
from .specs.model import ModelSpec
from .specs.network import NetworkSpec
from .specs.power import PowerSpec
from .specs.precision import PrecisionSpec, Products
from .specs.price import PriceSpec, TariffSpec
from .units import binary_bytes, decimal

Row = tuple[str, ...]


def _model_row(spec: FileSpec) -> Row:
    assert isinstance(spec, ModelSpec)
    layers = f"{spec.encoder_layer_count} + {spec.layer_count}" if spec.encoder else str(spec.layer_count)
    return spec.name, decimal(spec.parameters, ""), layers, str(spec.hidden), str(spec.vocab)


def _network_row(spec: FileSpec) -> Row:
    assert isinstance(spec, NetworkSpec)
    adds = decimal(spec.multiply_adds, "") if spec.multiply_adds else "-"
    return spec.name, decimal(spec.parameters, ""), adds, text_of(spec.input)


def _gpu_row(spec: FileSpec) -> Row:
    assert isinstance(spec, GpuSpec)
    tensor = spec.peak_flops_per_s.get("tensor_bf16", spec.peak_flops_per_s.get("tensor_fp16"))
    return (
        spec.name,
        str(spec.launch_year),
        binary_bytes(spec.hbm_bytes),
        decimal(spec.hbm_bytes_per_s, "B/s"),
        decimal(tensor, "FLOP/s") if tensor else "-",
        f"{spec.tdp_w:.0f} W",
    )


def _engine_row(spec: FileSpec) -> Row:
    assert isinstance(spec, EngineSpec)
    return spec.name, spec.kind, *_records(spec)


def _precision_row(spec: FileSpec) -> Row:
    """Bits a value of weights, of inputs of products and of the cache; the best unit, and that of each fallback."""
    assert isinstance(spec, PrecisionSpec)
    products = {"": spec, **{f"{word} ": own for word, own in spec.own_products.items()}}
    weights = ", ".join(f"{word}{8.0 * own.weight_bytes:.4g}" for word, own in products.items())
    units = dict.fromkeys(_units(own) for own in products.values())
    return spec.name, weights, f"{8.0 * spec.read_bytes:.4g}", f"{8.0 * spec.kv_bytes:g}", ", ".join(units)


def _units(products: Products) -> str:
    return " or ".join(way.gemm_peaks[0].removeprefix("tensor_") for way in (products, *products.fallbacks))


def _link_row(spec: FileSpec) -> Row:
    assert isinstance(spec, LinkSpec)
    return spec.name, spec.kind, decimal(spec.bytes_per_s, "B/s"), spec.title


def _kernel_row(spec: FileSpec) -> Row:
    assert isinstance(spec, KernelSpec)
    return spec.name, *_records(spec)


def _collective_row(spec: FileSpec) -> Row:
    assert isinstance(spec, CollectiveSpec)
    return spec.name, *_records(spec)


def _power_row(spec: FileSpec) -> Row:
    assert isinstance(spec, PowerSpec)
    return spec.name, *_records(spec)


def _price_row(spec: FileSpec) -> Row:
    assert isinstance(spec, PriceSpec)
    hourly = [offer.usd_per_hour for offer in spec.offers.values()]
    newest = max(offer.date for offer in spec.offers.values())
    return spec.name, str(len(hourly)), f"{min(hourly):.2f} .. {max(hourly):.2f}", newest, spec.title


def _tariff_row(spec: FileSpec) -> Row:
    assert isinstance(spec, TariffSpec)
    return spec.name, f"{spec.usd_per_kwh:.3g}", f"{spec.pue:g}", spec.date, spec.title


def _records(spec: CoefficientSpec) -> Row:
    """The file that an entry is like, and the rows that fix its own coefficients."""
    return spec.like or "-", str(max((fit.rows for fit in spec.fits), default=0))


KINDS: dict[str, tuple[type[FileSpec], Row, Callable[[FileSpec], Row]]] = {
    "models": (ModelSpec, ("model", "parameters", "layers", "hidden", "vocabulary"), _model_row),
    "networks": (NetworkSpec, ("network", "parameters", "multiply-adds", "input"), _network_row),
    "gpus": (GpuSpec, ("device", "year", "memory", "bandwidth", "16-bit tensor", "TDP"), _gpu_row),
    "engines": (EngineSpec, ("engine", "kind", "like", "records"), _engine_row),
    "precisions": (PrecisionSpec, ("precision", "bits of weights", "in", "KV", "unit"), _precision_row),
    "kernels": (KernelSpec, ("generation", "like", "records"), _kernel_row),
    "collectives": (CollectiveSpec, ("kind of link", "like", "records"), _collective_row),
    "powers": (PowerSpec, ("generation", "like", "records"), _power_row),
    "prices": (PriceSpec, ("price list", "devices", "$ per hour", "newest", "title"), _price_row),
    "tariffs": (TariffSpec, ("tariff", "$ per kWh", "PUE", "date", "title"), _tariff_row),
    "links": (LinkSpec, ("link", "kind", "one way", "title"), _link_row),
}
"""Word of a listing -> kind of spec, columns, row of a spec."""


def listing(word: str) -> Report:
    """Every entry of one kind."""
    kind, columns, row = KINDS[word]
    specs = [load(kind, name) for name in names(kind)]
    texts = columns.index("records") if "records" in columns else 1
    table = Table(columns, tuple(row(spec) for spec in specs), text_columns=texts)
    records = [{"name": spec.name, "title": spec.title, "aliases": list(spec.aliases)} for spec in specs]
    return Report(f"{len(specs)} {word}", (table,), (), {word: records}, records)


def show_spec(name: str) -> Report:
    """Every field of the entry that `name` stands for, whatever its kind.

    A name that several kinds share, as that of a GPU generation, may follow the word of its listing: `powers/ampere`.

    Raises:
        UnknownNameError: nothing is called so.
        SpecError: a path's file is no valid spec of any kind.
    """
    return spec_report(_find(name))


def spec_report(spec: FileSpec) -> Report:
    """Every field of a spec, with its origin."""
    data = json.loads(spec.model_dump_json(exclude_none=True))
    rows = tuple((field, _text(value)) for field, value in _leaves(data))
    origins = tuple(
        (", ".join(origin["fields"]), kind, origin.get("title") or origin.get("reason") or origin["error"])
        for kind in ("sources", "fits", "assumed")
        for origin in data.get(kind, [])
    )
    tables = [Table(("field", "value"), rows, text_columns=2)]
    if origins:
        tables.append(Table(("fields", "origin", "text"), origins, "where the numbers come from", text_columns=3))
    others = [word for word, (kind, _, _) in KINDS.items() if not isinstance(spec, kind) and spec.name in names(kind)]
    same = tuple(f"also called so: show {word}/{spec.name}" for word in others)
    return Report(f"{spec.name}: {spec.title}", tuple(tables), (*spec.notes, *same), data)


def _find(name: str) -> FileSpec:
    failures: list[SpecError] = []
    word, _, rest = name.partition("/")
    if name.endswith(".onnx"):
        from .importers.onnx import import_onnx

        return import_onnx(name)
    if word in KINDS and rest:
        return load(KINDS[word][0], rest)
    if is_path(name):
        from .importers.foreign import located, recognised

        path = located(name)
        found = None if path is None else recognised(path)
        if found is not None:
            return next(iter(found.readers.values()))()
    for kind, _, _ in KINDS.values():
        try:
            return load(kind, name)
        except SpecError as error:
            failures.append(error)
    if is_path(name):
        raise min(failures, key=lambda failure: str(failure).count("\n"))
    nearest = [str(failure) for failure in failures if "did you mean" in str(failure)]
    raise UnknownNameError("; ".join(nearest) or f"nothing in the catalogue is called '{name}'; see `list`") from None


def _leaves(data: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(data, dict):
        bookkeeping = {"sources", "fits", "assumed", "notes"} if not path else set()
        return [
            leaf
            for key, value in data.items()
            if key not in bookkeeping
            for leaf in _leaves(value, f"{path}.{key}".lstrip("."))
        ]
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return [leaf for index, value in enumerate(data) for leaf in _leaves(value, f"{path}[{index}]")]
    return [(path, data)]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)
