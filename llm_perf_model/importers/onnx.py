"""Networks from ONNX files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import RequestError, SpecError
from ..specs.base import Assumption
from ..specs.layer import Shape, text_of
from ..specs.network import NetworkSpec
from .branches import Step, path_of
from .folding import RefusedError
from .operators import read, written_once
from .program import Program, belongs_to_input, program_of
from .reading import Reading

_OF_MAPS = frozenset({"Conv", "MaxPool", "AveragePool", "BatchNormalization", "GlobalAveragePool"})


def import_onnx(path: str | Path, name: str | None = None, input_shape: Shape | None = None) -> NetworkSpec:
    """The network in an ONNX file, layer by layer.

    Of its weights only the shapes are read.

    Args:
        path: the file.
        name: name of the network; None: that of the file.
        input_shape: shape of a sample, where the file leaves sizes open.

    Raises:
        RequestError: the package `onnx` is missing.
        SpecError: the file is no ONNX model, or has an operator that no layer stands for.
    """
    where = Path(path).expanduser()
    model = _model(where)
    try:
        program = program_of(model, input_shape)
        reading, shape = _read(program)
    except RefusedError as error:
        raise SpecError(f"{where}: {error}") from None
    title = where.stem
    origin = Assumption(fields=("*",), reason=f"as the operators and weights of {where.name} say")
    try:
        return NetworkSpec(
            name=name or re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-.") or "network",
            title=title,
            input=shape,
            layers=written_once(reading.layers, shape),
            parameters=float(reading.weights),
            assumed=(origin,),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise SpecError(f"{where}: {problem['loc'][0]}: {problem['msg']}") from None


def _model(path: Path) -> Any:
    """The message in a file."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise RequestError("an ONNX file needs the package onnx: pip install 'llm-perf-model[onnx]'") from None
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except DecodeError:
        raise SpecError(f"{path}: is no ONNX file, or a part of it is missing") from None
    if len(model.functions):
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    return model


def _read(program: Program) -> tuple[Reading, Shape]:
    """What the operators are as layers, and the shape of a sample."""
    path, dims, axis = path_of(program), program.shape, program.batch_axis
    while path and isinstance(path[0], Step) and path[0].op.kind == "Transpose":
        order = path[0].op.attributes.get("perm") or range(len(dims))[::-1]
        if not belongs_to_input(order):
            break
        dims, axis = tuple(dims[place] for place in order), list(order).index(axis)
        path = path[1:]
    sample = tuple(size for place, size in enumerate(dims) if place != axis)
    shape: Shape = sample
    letters = {1: "f", 2: "tf", 3: "chw"}.get(len(sample))
    if letters is None:
        raise RefusedError(f"input {program.source} is {text_of(program.shape)}: a sample has one to three axes")
    if len(sample) == 2 and any(item.op.kind in _OF_MAPS for item in path[:1]):
        letters, shape = "cw", (sample[0], 1, sample[1])  # a signal is a map of height 1
    reading = Reading(shape, (*letters[:axis], "n", *letters[axis:]), dims[axis])
    read(reading, path)
    reading.settle()
    return reading, shape
