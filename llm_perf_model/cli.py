"""The command line: parse, compute, return a report. Commands print nothing themselves."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

from .api import answer
from .breakdown import DETAILS, Detail
from .capacity import Capacity
from .errors import LlmPerfModelError, OutOfMemoryError, RequestError
from .estimate import Estimate
from .flags import given_to, like, taking
from .listing import KINDS, listing, show_spec, spec_report
from .queries import Query, asked
from .report.document import FORMATS, Format, Report
from .report.export import write_text
from .specs.hardware import Hardware
from .specs.request import Request
from .specs.sharing import Sharing
from .specs.techniques import Techniques

PROGRAM = "llm-perf-model"


@taking(Sharing, Techniques, Hardware)
def infer(
    model: str | None = None,
    gpu: str = "a100-sxm-40gb",
    engine: str = "fastertransformer",
    precision: str | None = None,
    kv_dtype: str = "auto",
    link: str | None = None,
    tp: int = 1,
    pp: int = 1,
    dp: int = 1,
    ep: int = 1,
    layer_split: int = 1,
    batch_size: int = 1,
    input_len: int | None = None,
    output_len: int | None = None,
    num_beams: int = 1,
    input_shape: str | None = None,
    flops_efficiency: float | None = None,
    hbm_memory_efficiency: float | None = None,
    pool_fraction: float | None = None,
    power_limit_w: float | None = None,
    energy_convention: str = "power",
    price: str | None = None,
    usd_per_gpu_hour: float | None = None,
    tariff: str | None = None,
    usd_per_kwh: float | None = None,
    pue: float | None = None,
    utilisation: float = 1.0,
    interval_level: float = 0.8,
    breakdown: str | None = None,
    format: str = "text",
    output: str | None = None,
    **techniques: Any,
) -> Report:
    """How long one batch takes, and how much memory it needs.

    Args:
        model: name, alias or path of a model (`list models` shows all)
        gpu: name, alias or path of a device (`list gpus`)
        engine: name, alias or path of an engine (`list engines`)
        precision: name, alias or path of a precision (`list precisions`; default: w16a16, or as a checkpoint is stored)
        kv_dtype: what keys and values are stored in: auto (as the precision), fp32, fp16, bf16, fp8, int8 or fp4
        link: link between tensor-parallel ranks (default: the device's fastest that reaches them)
        tp: tensor-parallel ranks
        pp: pipeline stages of consecutive layers, which work side by side on parts of the batch
        dp: replicas, each with a batch of its own
        ep: ranks of a stage over which whole experts are spread; the others slice each expert
        layer_split: devices that hold consecutive layers each and work one after the other
        batch_size: sequences per replica
        input_len: prompt tokens of a sequence (default: 512)
        output_len: generated tokens of a sequence, the first by the prefill (default: 32; an encoder: 1)
        num_beams: beams of a search; each step computes all of them, and the best one counts as output
        input_shape: shape of a sample of a network, as 3,224,224 (default: that of its file)
        flops_efficiency: fraction of peak FLOP/s of all matrix products, in place of the engine's
        hbm_memory_efficiency: fraction of memory bandwidth of all kernels, in place of the engine's
        pool_fraction: share of the device's memory that the engine takes, in place of its own setting
        power_limit_w: power limit of each device, below its design power
        energy_convention: power (what the work draws) or tdp (design power x time)
        price: price list of the hourly price (`list prices`; default: the lowest listed)
        usd_per_gpu_hour: hourly price of a device in place of a listed one
        tariff: electricity paid beside the hourly price (`list tariffs`; default: it is part of it)
        usd_per_kwh: price of electricity in place of the tariff's
        pue: power usage effectiveness in place of the tariff's
        utilisation: share of the paid hours in which the devices do this work
        interval_level: how often a measurement lies in the interval: 0.5, 0.6, 0.7, 0.8, 0.9 or 0.95
        breakdown: ops or roles, where the time goes
        format: text, json, csv or markdown
        output: file to write instead of standard output
        **techniques: how ranks share, what engines do beyond one pass over a prompt and one token a step, and devices
    """
    given = given_to(locals(), "techniques")
    form, path, detail = given.pop("format"), given.pop("output", None), given.pop("breakdown", None)
    estimate = answer(Request.of(given))
    estimate.require_feasible()
    return _finish(_with_breakdown(estimate, detail), form, path)


@taking(Sharing, Techniques)
def memory(
    model: str | None = None,
    gpu: str = "a100-sxm-40gb",
    engine: str = "fastertransformer",
    precision: str | None = None,
    kv_dtype: str = "auto",
    link: str | None = None,
    tp: int = 1,
    pp: int = 1,
    ep: int = 1,
    layer_split: int = 1,
    batch_size: int = 1,
    input_len: int | None = None,
    output_len: int | None = None,
    num_beams: int = 1,
    input_shape: str | None = None,
    pool_fraction: float | None = None,
    format: str = "text",
    output: str | None = None,
    **techniques: Any,
) -> Report:
    """What fits: peak memory by part and moment, the engine's pool, largest batch, longest prompt, fewest devices.

    Args:
        model: name, alias or path of a model (`list models` shows all)
        gpu: name, alias or path of a device (`list gpus`)
        engine: name, alias or path of an engine (`list engines`), which says how memory is allocated
        precision: name, alias or path of a precision (`list precisions`; default: w16a16, or as a checkpoint is stored)
        kv_dtype: what keys and values are stored in: auto (as the precision), fp32, fp16, bf16, fp8, int8 or fp4
        link: link between tensor-parallel ranks (default: the device's fastest that reaches them)
        tp: tensor-parallel ranks
        pp: pipeline stages of consecutive layers, which work side by side on parts of the batch
        ep: ranks of a stage over which whole experts are spread; the others slice each expert
        layer_split: devices that hold consecutive layers each and work one after the other
        batch_size: sequences per replica
        input_len: prompt tokens of a sequence (default: 512)
        output_len: generated tokens of a sequence (default: 32; an encoder: 1)
        num_beams: beams of a search
        input_shape: shape of a sample of a network, as 3,224,224 (default: that of its file)
        pool_fraction: share of the device's memory that the engine takes, in place of its own setting
        format: text, json, csv or markdown
        output: file to write instead of standard output
        **techniques: how ranks share, and what engines do beyond one pass over a prompt and one token a step
    """
    given = given_to(locals(), "techniques")
    form, path = given.pop("format"), given.pop("output", None)
    return _finish(Capacity(answer(Request.of(given))).report(), form, path)


@like(infer, without=("breakdown", "interval_level"))
def sweep(
    model: str | None = None,
    metrics: str | None = None,
    best: str | None = None,
    constraints: str | None = None,
    pareto: str | None = None,
    format: str = "text",
    output: str | None = None,
    **fields: Any,
) -> Report:
    """All combinations of values: each flag takes one, several with commas, or a range.

    A range is lo:hi, lo:hi:step, lo:hi:x2 (by a factor) or lo:hi:n50 (50 numbers; for rates lo:hi:50 too).

    Args:
        model: names, aliases or paths of models (`list models` shows all)
        metrics: what to keep of each estimate, by names with commas (default: times, throughput, memory, energy, cost)
        best: metric whose best configuration is the answer, in place of all
        constraints: what the best one is to meet, as "tpot_s <= 0.03, ttft_s <= 0.5"
        pareto: two metrics; the answer is what no other configuration beats in both
        format: text (the first ones), json, csv or markdown
        output: file to write: .csv, .json or .parquet
        **fields: those of infer
    """
    form = cast("Format", _one_of("format", format, FORMATS))
    query = Query.of(metrics, best, constraints, pareto)
    given = {flag: value for flag, value in {"model": model, **fields}.items() if value is not None}
    return asked(given, query, form, None if output is None else _file("output", output))


def plan(
    model: str | None = None,
    requests_per_s: float | None = None,
    input_len: Any = None,
    output_len: Any = None,
    trace: str | None = None,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    percentile: float = 0.95,
    gpus: Any = None,
    precisions: Any = None,
    engine: str = "generic-serving",
    objective: str = "usd_per_hour",
    max_devices: int | None = None,
    max_replica_devices: int = 16,
    max_usd_per_hour: float | None = None,
    max_power_w: float | None = None,
    max_batch_size: int = 256,
    prefill_chunk: int = 2048,
    format: str = "text",
    output: str | None = None,
) -> Report:
    """Which devices serve a load within objectives, how many, in what layout, and what comes next to them.

    Args:
        model: name, alias or path of a model (`list models` shows all)
        requests_per_s: requests that arrive in a second (default: those of the trace)
        input_len: prompt tokens, as 512, {mean:512,cv:0.8} or {values:[128,1024],weights:[3,1]}
        output_len: generated tokens, in the same forms
        trace: CSV file with the columns arrival_s, input_len and output_len
        ttft_s: seconds to the first token
        tpot_s: seconds per output token after the first
        percentile: share of the requests that stay within both
        gpus: names of devices, separated by commas (default: those with a listed price)
        precisions: names of precisions, separated by commas (default: w16a16)
        engine: name, alias or path of an engine (`list engines`)
        objective: usd_per_hour, devices or power_w, which the plan needs least of
        max_devices: the most devices of the plan
        max_replica_devices: the most devices that hold one copy of the model
        max_usd_per_hour: the highest price of the plan
        max_power_w: the most power of the plan
        max_batch_size: the most sequences that share a step
        prefill_chunk: the most prompt tokens of a step
        format: text, json, csv or markdown
        output: file to write instead of standard output
    """
    given = {flag: value for flag, value in locals().items() if value is not None}
    from .planning.answer import of_request
    from .specs.plan import PlanRequest

    form, path = given.pop("format"), given.pop("output", None)
    return _finish(of_request(PlanRequest.of(given)).report(), form, path)


def list_(kind: str = "models", format: str = "text", output: str | None = None) -> Report:
    """What the catalogue holds.

    Args:
        kind: models, networks, gpus, engines, precisions, kernels, collectives, powers, prices, tariffs or links
        format: text, json, csv or markdown
        output: file to write instead of standard output
    """
    return _finish(listing(_one_of("kind", kind, tuple(KINDS))), format, output)


def show(name: str | None = None, format: str = "text", output: str | None = None) -> Report:
    """Every field of a model, GPU, engine, precision or link, with its origin.

    Args:
        name: name, alias or path
        format: text, json, csv or markdown
        output: file to write instead of standard output
    """
    if name is None or isinstance(name, bool):
        raise RequestError("name: is missing; give a name, an alias or a path to a JSON file")
    return _finish(show_spec(str(name)), format, output)


def validate(
    records: Any = None,
    cross_validate: str | bool | None = None,
    per_row: str | None = None,
    engine: str | None = None,
    format: str = "text",
    output: str | None = None,
) -> Report:
    """Estimates against recorded measurements: errors, the term to blame, and what has no estimate.

    Args:
        records: files or folders of records, separated by commas (default: the project's own)
        cross_validate: model, device, source, precision, batch or shape: refit without each, and report its error
        per_row: CSV file to write, one line a record
        engine: name or path of an engine to estimate every record with, in place of the one that it names
        format: text, json, csv or markdown
        output: file to write instead of standard output
    """
    from .validation.run import validate as run

    group = "model" if cross_validate is True else str(cross_validate) if cross_validate else None
    report = run(_paths(records), group, _word("engine", engine))
    if per_row is not None:
        write_text(_file("per_row", per_row), report.csv(), "per_row")
    return _finish(report, format, output)


def calibrate(
    records: Any = None,
    engine: str = "generic-fused",
    recorded: str | None = None,
    name: str = "calibrated",
    title: str | None = None,
    output: str | None = None,
    format: str = "text",
) -> Report:
    """An engine file from your own records: two measured runs or fifty thousand timed operators.

    Args:
        records: files or folders of records, separated by commas
        engine: engine to start from; what the records cannot fix stays as it has it
        recorded: the engine's name in the records, where they hold several
        name: name of the new engine
        title: title of the new engine (default: its name and that of the engine to start from)
        output: engine file to write
        format: text, json, csv or markdown
    """
    from .validation.run import calibrated

    paths = _paths(records)
    if paths is None:
        raise RequestError("records: is missing; give files or folders, separated by commas")
    form = _one_of("format", format, FORMATS)
    words = {"engine": engine, "name": name, "title": title, "recorded": recorded}
    report, text = calibrated(paths, **{flag: _word(flag, value) for flag, value in words.items()})
    if output is not None:
        write_text(_file("output", output), text)
        report = replace(report, notes=(*report.notes, f"written: {output}"))
    return _finish(report, form, None)


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
    from .importers.file import file_of, report_of
    from .importers.onnx import import_onnx as imported

    if path is None or isinstance(path, bool):
        raise RequestError("path: is missing; give an ONNX file")
    shape = None if input_shape is None else Request.of({"model": "", "input_shape": input_shape}).input_shape
    network = imported(str(path), _word("name", name), shape)
    report = report_of(network)
    if output is not None:
        write_text(_file("output", output), file_of(network))
        report = replace(report, notes=(*report.notes, f"written: {output}"))
    return _finish(report, format, None)


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
    from .importers.huggingface.loading import import_hf as imported
    from .importers.written import data_of, text_of

    if path is None or isinstance(path, bool):
        raise RequestError("path: is missing; give a config.json, a folder that holds one, or hf:owner/name")
    model = imported(str(path), _word("name", name))
    if output is not None:
        write_text(_file("output", output), text_of(model))
        return Report(f"written: {output}")
    return _finish(replace(spec_report(model), data=data_of(model)), format, None)


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
    from .importers.foreign import import_file as imported
    from .importers.written import data_of, text_of

    if path is None or isinstance(path, bool):
        raise RequestError("path: is missing; give a file of another tool")
    spec = imported(str(path), _word("kind", kind))
    report = replace(spec_report(spec), data=data_of(spec))
    if output is not None:
        write_text(_file("output", output), text_of(spec))
        report = replace(report, notes=(*report.notes, f"written: {output}"))
    return _finish(report, format, None)


COMMANDS: dict[str, Callable[..., Report]] = {
    "infer": infer,
    "memory": memory,
    "sweep": sweep,
    "plan": plan,
    "list": list_,
    "show": show,
    "validate": validate,
    "calibrate": calibrate,
    "import_file": import_file,
    "import_onnx": import_onnx,
    "import_hf": import_hf,
}


def _with_breakdown(estimate: Estimate, detail: Detail | None) -> Report:
    """The report of an estimate, with where its time goes if that is asked for."""
    if detail is None:
        return replace(estimate.report(), data=estimate.to_dict())
    _one_of("breakdown", detail, DETAILS)
    report = replace(estimate.report(), data=estimate.to_dict(detail))
    parts = estimate.breakdown(detail)
    return replace(report, tables=(*report.tables, *parts.tables), records=parts.records)


def _paths(records: Any) -> list[str] | None:
    """The files and folders of a flag."""
    given = [str(path) for path in records] if isinstance(records, list | tuple) else records
    if given is True or not isinstance(given, list | str | None):
        raise RequestError("records: needs files or folders, separated by commas")
    return given.split(",") if isinstance(given, str) else given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 the request is wrong or infeasible, 2 unknown flag or command."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    given = ["--help" if argument == "-h" else argument for argument in given]
    misuse = _misuse(given)
    if misuse is not None:
        return _fail(misuse, 2)
    import fire
    from fire.core import FireExit

    try:
        fire.Fire(COMMANDS, command=given, name=PROGRAM, serialize=_printed)
    except OutOfMemoryError as error:
        if "--format=json" in given or ("--format", "json") in pairwise(given):
            print(json.dumps({"error": str(error), **error.detail}, indent=2))
        return _fail(str(error), 1)
    except LlmPerfModelError as error:
        return _fail(str(error), 1)
    except FireExit as leave:
        return int(leave.code)
    except BrokenPipeError:  # the reader of a pipe has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def _printed(result: object) -> str:
    return str(result) if isinstance(result, Report) else ""


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _misuse(given: Sequence[str]) -> str | None:
    """What is wrong with the command or the flags, before anything runs."""
    if given[0] in {"--help", "--"}:
        return None
    command, rest = given[0], given[1:]
    if command not in COMMANDS:
        return f"unknown command '{command}'{_near(command, list(COMMANDS))} (commands: {', '.join(COMMANDS)})"
    known = list(inspect.signature(COMMANDS[command]).parameters)
    before_separator = rest[: rest.index("--")] if "--" in rest else rest
    for argument in before_separator:
        if argument.startswith("--"):
            flag = argument[2:].split("=", 1)[0]
            if flag.replace("-", "_") not in {*known, "help"}:
                return f"unknown flag '--{flag}' of {command}{_near(flag.replace('-', '_'), known, '--')}"
        elif re.match(r"-([^\d.]|$)", argument) and not _is_short(argument, known):
            return f"unknown flag '{argument}' of {command}; flags are written in full, as --{known[0]}"
    return None


def _is_short(argument: str, known: list[str]) -> bool:
    """Whether an argument is the first letter of a single flag, as the help lists them."""
    letter = re.fullmatch(r"-([a-z])(=.*)?", argument)
    return letter is not None and sum(flag.startswith(letter[1]) for flag in known) == 1


def _near(word: str, known: list[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _word(flag: str, value: Any) -> Any:
    """The text of a flag; a command line turns the name `70` into a number."""
    if value is True:
        raise RequestError(f"{flag}: is given without a value")
    return None if value is None else str(value)


def _one_of(flag: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise RequestError(
            f"{flag}: is {value!r}; must be {', '.join(known[:-1])} or {known[-1]}{_near(str(value), list(known))}"
        )
    return str(value)


def _finish(report: Report, form: Any, path: Any) -> Report:
    """The report in its format; written to a file, it becomes a line that says so."""
    report = replace(report, format=cast("Format", _one_of("format", form, FORMATS)))
    if path is None:
        return report
    write_text(_file("output", path), str(report))
    return Report(f"written: {path}")


def _file(flag: str, path: Any) -> str:
    if isinstance(path, bool):
        raise RequestError(f"{flag}: needs the name of a file")
    return str(path)
