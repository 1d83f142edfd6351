"""Timed layers of networks, convolutions and recurrent layers, as nodes."""

from __future__ import annotations

import json
from math import prod

from ..ops.batch import Batch
from ..ops.convolution import Convolution
from ..ops.node import Node
from ..ops.recurrence import CELLS, Recurrence, RecurrentKind
from ..specs.precision import PrecisionSpec
from .records import Record

LAYERS: dict[str, RecurrentKind] = {"Vanilla": "rnn", "LSTM": "lstm", "GRU": "gru"}


def convolution(record: Record, p: PrecisionSpec) -> tuple[Node, Batch]:
    """One convolution of a batch of images: W x H values of C channels, K filters of R x S."""
    size = _sizes(record)
    filters, strides = (size["R"], size["S"]), (size["Vertical stride"], size["Horizontal stride"])
    padded = (size["H"] + 2.0 * size["pad_h"], size["W"] + 2.0 * size["pad_w"])
    made = [(n - r) // s + 1.0 for n, r, s in zip(padded, filters, strides, strict=True)]
    op = Convolution(
        in_channels=size["C"],
        out_channels=size["K"],
        window=prod(filters),
        positions=prod(made),
        in_values=size["C"] * size["H"] * size["W"],
        groups=1.0,
        weight_bytes=p.filter_bytes,
        activation_bytes=p.activation_bytes,
        position_rows=made[0],
        winograd=(filters, strides) == ((3.0, 3.0), (1.0, 1.0)),
    )
    return Node("convolution", "convolution", op), Batch.uniform(size["N"], 1.0, 0.0)


def recurrence(record: Record, p: PrecisionSpec) -> tuple[Node, Batch]:
    """The steps of one layer, without the product of its inputs: they are as wide as the layer and skip it."""
    size, cell = _sizes(record), CELLS[LAYERS[record.operator.split(" - ")[1].split("/")[0]]]
    hidden, steps = size["Hidden Units"], record.sizes["steps"]
    op = Recurrence(hidden, cell.gates, steps, cell.tensors, p.weight_bytes, p.activation_bytes)
    return Node("steps", "recurrent", op), Batch.uniform(size["N"], 1.0, 0.0)


def _sizes(record: Record) -> dict[str, float]:
    """The sizes of a shape in JSON; sheets spell some in two ways."""
    stated = json.loads(record.shape)
    sizes = {key.split(" (")[0]: float(value) for key, value in stated.items() if isinstance(value, int | float)}
    return sizes if "Hidden units" not in sizes else {"Hidden Units": sizes["Hidden units"], **sizes}
