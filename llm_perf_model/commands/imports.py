"""Files of other tools as files of this package."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import RequestError
from ..listing import spec_report
from ..report.document import Report
from ..report.export import write_text
from ..specs.request import Request
from .base import file_of_flag, finish, paths, word


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


def import_results(
    path: str | None = None,
    device: str | None = None,
    engine: str | None = None,
    model: str | None = None,
    w_dtype: str | None = None,
    n_devices: int | None = None,
    tp: int | None = None,
    pp: int | None = None,
    batch: int | None = None,
    input_len: int | None = None,
    output_len: int | None = None,
    engine_version: str | None = None,
    output: str | None = None,
    format: str = "text",
) -> Report:
    """Results of another tool as records, which `validate --records` and `calibrate --records` take.

    Args:
        path: result file of vLLM bench, GuideLLM, AIPerf, GenAI-Perf, trtllm-bench, llama-bench, optimum-benchmark or
            MLPerf LoadGen, or several, separated by commas
        device: the device, where the file does not say it, or by a name that the catalogue has
        engine: the engine, likewise
        model: the model, likewise
        w_dtype: format of the weights, likewise
        n_devices: devices that the run occupies
        tp: tensor-parallel ranks
        pp: pipeline stages
        batch: sequences that run together
        input_len: prompt tokens of a sequence
        output_len: generated tokens of a sequence
        engine_version: version of the engine
        output: file of records to write
        format: text (a table), json, csv or markdown
    """
    from ..importers.results.imported import import_results as imported
    from ..importers.results.table import report_of

    words = {"device": device, "engine": engine, "model": model, "w_dtype": w_dtype, "engine_version": engine_version}
    counts = {"n_devices": n_devices, "tp": tp, "pp": pp, "batch": batch}
    lengths = {"input_len": input_len, "output_len": output_len}
    stated = {flag: word(flag, value) for flag, value in words.items()} | counts | lengths
    files = paths(path, "path")
    if not files:
        raise RequestError("path: is missing; give a result file of another tool")
    report = report_of([row for file in files for row in imported(file, **stated)])
    if output is not None:
        write_text(file_of_flag("output", output), report.csv())
        report = replace(report, notes=(*report.notes, f"written: {output}"))
    return finish(report, format, None)
