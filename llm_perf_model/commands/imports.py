"""Files of other tools as files of this package."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import RequestError
from ..listing import spec_report
from ..report.document import Report
from ..report.export import write_text
from ..specs.request import Request
from .base import file_of_flag, finish, word


def import_onnx(
    path: str | None = None,
    name: str | None = None,
    input_shape: Any = None,
    output: str | None = None,
    format: str = "text",
) -> Report:
    """The layers of a network in an ONNX file, and a network file of them.

    Args:
        path: the ONNX file; of its weights only the shapes are read
        name: name of the network (default: that of the file)
        input_shape: shape of a sample, as 3,224,224, where the file leaves sizes open
        output: network file to write
        format: text (the layers), json (the network file), csv or markdown
    """
    from ..importers.file import file_of, report_of
    from ..importers.onnx import import_onnx as imported

    if path is None or isinstance(path, bool):
        raise RequestError("path: is missing; give an ONNX file")
    shape = None if input_shape is None else Request.of({"model": "", "input_shape": input_shape}).input_shape
    network = imported(str(path), word("name", name), shape)
    report = report_of(network)
    if output is not None:
        write_text(file_of_flag("output", output), file_of(network))
        report = replace(report, notes=(*report.notes, f"written: {output}"))
    return finish(report, format, None)


def import_hf(
    path: str | None = None, name: str | None = None, output: str | None = None, format: str = "json"
) -> Report:
    """The model that a Hugging Face config.json describes, as a model file.

    Args:
        path: the config.json, a folder that holds one, or hf: and the name of a repository
        name: name of the model (default: that of the file, the folder or the repository)
        output: model file to write
        format: json (the model file), text (fields and origins), csv or markdown
    """
    from ..importers.huggingface.loading import import_hf as imported
    from ..importers.written import data_of, text_of

    if path is None or isinstance(path, bool):
        raise RequestError("path: is missing; give a config.json, a folder that holds one, or hf:owner/name")
    model = imported(str(path), word("name", name))
    if output is not None:
        write_text(file_of_flag("output", output), text_of(model))
        return Report(f"written: {output}")
    return finish(replace(spec_report(model), data=data_of(model)), format, None)


def import_file(
    path: str | None = None, kind: str | None = None, output: str | None = None, format: str = "text"
) -> Report:
    """A file of llm-analysis or aiconfigurator, or a GGUF file, as a file of this package.

    Args:
        path: model, GPU or dtype JSON of llm-analysis, system YAML of aiconfigurator, or GGUF file
        kind: model, gpu, precision or link (default: what the file is about)
        output: file to write
        format: text (fields and origins), json (the file), csv or markdown
    """
    from ..importers.foreign import import_file as imported
    from ..importers.written import data_of, text_of

    if path is None or isinstance(path, bool):
        raise RequestError("path: is missing; give a file of another tool")
    spec = imported(str(path), word("kind", kind))
    report = replace(spec_report(spec), data=data_of(spec))
    if output is not None:
        write_text(file_of_flag("output", output), text_of(spec))
        report = replace(report, notes=(*report.notes, f"written: {output}"))
    return finish(report, format, None)
