"""Where the numbers of an answer come from: files, and the origin of each coefficient."""

from __future__ import annotations

from typing import Any

from .case import Case
from .specs.base import FileSpec
from .specs.catalog import FOLDERS, is_path
from .specs.request import Request

ENERGY = {
    "power": "what the work draws, as shares of the design power, and never more than the limit",
    "tdp": "design power x time of the devices at work: an upper bound, not a measurement",
}
CACHE = {
    "contiguous": "kept at the longest length of every sequence from the start",
    "paged": "kept in whole blocks for every token of prompt and output",
    "concatenated": "grown by concatenation: old and new tensors of all layers are alive together",
    "concatenated_by_layer": "grown by concatenation: old and new tensors of one layer are alive together",
    "none": "not kept",
}


def provenance(case: Case, request: Request) -> dict[str, Any]:
    """Files used, the origin of every coefficient of the engine and the link, and conventions."""
    given: dict[str, tuple[FileSpec, object]] = {
        "model": (case.model, request.model),
        "gpu": (case.gpu, request.gpu),
        "engine": (case.engine, request.engine),
        "precision": (case.precision, request.precision),
    }
    coefficients = [*_origins(case.engine), *_origins(case.kernels), *_origins(case.power)]
    given["kernels"], given["power"] = (case.kernels, case.kernels.name), (case.power, case.power.name)
    if case.link is not None:
        given["link"] = (case.link, request.link or case.link.name)
        coefficients += _origins(case.link)
    if case.collectives is not None:
        given["collectives"] = (case.collectives, case.collectives.name)
        coefficients += _origins(case.collectives)
    conventions = {"energy": ENERGY[request.energy_convention], "kv_cache": CACHE[case.allocation.cache]}
    files = {word: _file(spec, name) for word, (spec, name) in given.items()}
    return {"files": files, "coefficients": coefficients, "conventions": conventions}


def _file(spec: FileSpec, given: object) -> str:
    """The file that a spec was read from, or the word that it came as an object."""
    if not isinstance(given, str):
        return "given as an object"
    return given if is_path(given) else f"{FOLDERS[type(spec)][1]}/{spec.name}.json"


def _origins(spec: FileSpec) -> list[dict[str, Any]]:
    origins = [(source.fields, "source", source.title) for source in spec.sources]
    origins += [(fit.fields, "fit", f"{', '.join(fit.records)}: {fit.rows} rows, {fit.error}") for fit in spec.fits]
    origins += [(guess.fields, "assumed", guess.reason) for guess in spec.assumed]
    return [{"of": spec.name, "fields": list(fields), "origin": kind, "text": text} for fields, kind, text in origins]
