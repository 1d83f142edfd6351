"""A network that was imported, as a file of the catalogue and as a table of its layers."""

from __future__ import annotations

import json
from typing import Any

from ..report.document import Report, Table
from ..specs.layer import Layer, text_of
from ..specs.network import NetworkSpec


def data_of(network: NetworkSpec) -> dict[str, Any]:
    """The fields that a file needs: those that differ from their defaults."""
    data: dict[str, Any] = json.loads(network.model_dump_json(exclude_defaults=True))
    data["parameters"] = round(network.parameters)
    return data


def file_of(network: NetworkSpec) -> str:
    """A network file: a line a field, and a line a layer."""
    lines = []
    for field, value in data_of(network).items():
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


def _options(layer: Layer) -> str:
    """Fields of a layer; of one that holds others, their kinds."""
    data = json.loads(layer.model_dump_json(exclude_defaults=True, exclude={"kind"}))
    return ", ".join(f"{field} {_short(value)}" for field, value in data.items())


def _short(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return " ".join(layer["kind"] for layer in value)
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        return " | ".join(_short(item) if item else "-" for item in value)
    return "x".join(map(str, value)) if isinstance(value, list) else str(value)
