"""Ratios of two engines: what both runs need, and what of it a source leaves open."""

from __future__ import annotations

from typing import Final

from ..errors import UnknownNameError
from ..specs.catalog import load, names
from ..specs.model import ModelSpec
from ..specs.network import NetworkSpec
from .conventions import convention
from .records import Record

RATIO: Final = "speedup_ratio"
"""Metric word of the time of another engine, the baseline, over the time of the one that the record names."""


def unstated(record: Record) -> list[str]:
    """What neither the record nor a convention states of the two runs."""
    rules = convention(record)
    model = rules.get("model_of_method") or _known(record.model)
    stated = {
        "the baseline": record.extra.get("baseline"),
        "the device": record.device or rules.get("device_of_method"),
        "the size of the model": model,
        "the precision": record.w_dtype or rules.get("precision"),
        "the batch": record.batch or rules.get("batch_of_method"),
    }
    if model not in names(NetworkSpec):
        room = max(rules.get("sequence_len_of_method", 0) - (record.input_len or 0), 0) or None
        lengths = (record.output_len, rules.get("output_len_of_method"), room)
        stated["the input length"] = record.input_len or rules.get("input_len_of_method")
        stated["the output length"] = next((length for length in lengths if length is not None), None)
    missing = [name for name, value in stated.items() if value in {None, ""}]
    return [*missing, rules["unstated"]] if "unstated" in rules else missing


def _known(model: str) -> str | None:
    """The model of the catalogue that a record names, None where it names a family or a shape."""
    for kind in (ModelSpec, NetworkSpec):
        try:
            return load(kind, model).name if model else None
        except UnknownNameError:
            continue
    return None
