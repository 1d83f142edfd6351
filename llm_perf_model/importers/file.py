"""A network or a model that was imported, as a file of the catalogue and as a table of its layers."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from ..report.document import Report, Table
from ..specs.ffn import Ffn
from ..specs.layer import Layer, text_of
from ..specs.mixer import Mixer
from ..specs.model import ModelSpec
from ..specs.network import NetworkSpec


def data_of(spec: NetworkSpec | ModelSpec) -> dict[str, Any]:
    """The fields that a file needs: those that differ from their defaults."""
    data: dict[str, Any] = _told(spec)
    return data | {field: round(data[field]) for field in ("parameters", "active_parameters") if field in data}


def _told(value: Any) -> Any:
    """A spec as data: of each part its kind and what differs from its defaults."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        items = {field: getattr(value, field) for field in fields}
        return {field: _told(item) for field, item in items.items() if field == "kind" or item != fields[field].default}
    return [_told(item) for item in value] if isinstance(value, tuple | list) else value


def file_of(spec: NetworkSpec | ModelSpec) -> str:
    """A network or model file: a line a field, and a line a layer or a group of them."""
    lines = []
    for field, value in data_of(spec).items():
        if field == "layers":
            layers = ",\n    ".join(json.dumps(layer) for layer in value)
            lines.append(f'  "layers": [\n    {layers}\n  ]')
        else:
            lines.append(f"  {json.dumps(field)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def report_of(network: NetworkSpec) -> Report:
    """The layers with the shapes that they make, and the file as data."""
    rows, shape = [], network.input
    for number, layer in enumerate(network.layers):
        shape = layer.shape(shape)
        rows.append((str(number), layer.kind, _options(layer), text_of(shape)))
    table = Table(("layer", "kind", "options", "makes"), tuple(rows), text_columns=3)
    title = f"{network.name}: samples of {text_of(network.input)}, {network.parameters:,.0f} parameters"
    return Report(title, (table,), (), data_of(network), [dict(zip(table.columns, row, strict=True)) for row in rows])


def model_report_of(model: ModelSpec) -> Report:
    """The groups of layers, and the file as data."""
    rows = [
        (str(group.count), *(_block(block) for block in (group.attention, group.ffn)), str(group.norms))
        for group in model.layers
    ]
    table = Table(("layers", "attention", "feed-forward", "norms"), tuple(rows), text_columns=4)
    title = f"{model.name}: {model.parameters:,.0f} parameters, {model.layer_count} layers of width {model.hidden}"
    records = [dict(zip(table.columns, row, strict=True)) for row in rows]
    return Report(title, (table,), (), data_of(model), records)


def _block(block: Mixer | Ffn | None) -> str:
    """The kind of a block and its fields."""
    return "-" if block is None else f"{block.kind}: {_options(block)}"


def _options(layer: Layer | Mixer | Ffn) -> str:
    """Fields of a layer; of one that holds others, their kinds."""
    data = json.loads(layer.model_dump_json(exclude_defaults=True, exclude={"kind"}))
    return ", ".join(f"{field} {_short(value)}" for field, value in data.items())


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return " ".join(layer["kind"] for layer in value)
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        return " | ".join(_short(item) if item else "-" for item in value)
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
