"""The command line: parse, run a command, print its report."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise

from .commands.base import near
from .commands.bottlenecks import crossovers, sensitivity
from .commands.catalogue import list_, show
from .commands.estimates import infer, memory
from .commands.imports import import_file, import_hf, import_onnx, import_results
from .commands.limits import measure_device, measure_ops
from .commands.measure import measure
from .commands.measurements import calibrate, validate
from .commands.sweeps import plan, sweep
from .errors import LlmPerfModelError, OutOfMemoryError
from .report.document import Report

PROGRAM = "llm-perf-model"

COMMANDS: dict[str, Callable[..., Report]] = {
    "infer": infer,
    "memory": memory,
    "sweep": sweep,
    "sensitivity": sensitivity,
    "crossovers": crossovers,
    "plan": plan,
    "list": list_,
    "show": show,
    "validate": validate,
    "calibrate": calibrate,
    "measure": measure,
    "measure_ops": measure_ops,
    "measure_device": measure_device,
    "import_file": import_file,
    "import_onnx": import_onnx,
    "import_hf": import_hf,
    "import_results": import_results,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 the request is wrong or infeasible, 2 unknown flag or command."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    given = ["--help" if argument == "-h" else argument for argument in given]
    misuse = _misuse(given)
    if misuse is not None:
        return _fail(misuse, 2)
    import fire
    from fire.core import FireExit

    code = 0
    try:
        fire.Fire(COMMANDS, command=given, name=PROGRAM, serialize=_printed)
    except OutOfMemoryError as error:
        if "--format=json" in given or ("--format", "json") in pairwise(given):
            print(json.dumps({"error": str(error), **error.detail}, indent=2))
        return _fail(str(error), 1)
    except LlmPerfModelError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt as stop:
        code = _fail(": ".join(["interrupted", *map(str, stop.args)]), 130)
    except FireExit as leave:
        code = int(leave.code)
    except BrokenPipeError:  # the reader of a pipe has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


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
        return f"unknown command '{command}'{near(command, list(COMMANDS))} (commands: {', '.join(COMMANDS)})"
    known = list(inspect.signature(COMMANDS[command]).parameters)
    before_separator = rest[: rest.index("--")] if "--" in rest else rest
    for argument in before_separator:
        if argument.startswith("--"):
            flag = argument[2:].split("=", 1)[0]
            if flag.replace("-", "_") not in {*known, "help"}:
                return f"unknown flag '--{flag}' of {command}{near(flag.replace('-', '_'), known, '--')}"
        elif re.match(r"-([^\d.]|$)", argument) and not _is_short(argument, known):
            return f"unknown flag '{argument}' of {command}; flags are written in full, as --{known[0]}"
    return None


def _is_short(argument: str, known: list[str]) -> bool:
    """Whether an argument is the first letter of a single flag, as the help lists them."""
    letter = re.fullmatch(r"-([a-z])(=.*)?", argument)
    return letter is not None and sum(flag.startswith(letter[1]) for flag in known) == 1
