"""This machine, measured: models and networks as records."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

from ..errors import RequestError
from ..report.document import FORMATS, Format, Report
from .base import file_of_flag, one_of, word


def measure(
    model: str | None = None,
    device: str = "auto",
    precision: Any = "fp32",
    backend: Any = "eager",
    tasks: Any = None,
    batch_size: Any = 1,
    input_len: Any = 128,
    output_len: Any = 16,
    num_beams: Any = 1,
    gpu: str | None = None,
    warmup: int = 3,
    repeats_least: int = 5,
    repeats_most: int = 50,
    spread: float = 0.03,
    budget_s: float = 10.0,
    force: bool = False,
    output: str | None = None,
    format: str = "text",
) -> Report:
    """How long a model takes on this machine, with random weights: records for validate and calibrate.

    Axes take one value, several with commas, or a range, as those of sweep.

    Args:
        model: name, alias or path of a model or a network (`list models`, `list networks`)
        device: auto (a card, else the processor), cpu, or a kind of card with or without a number, as cuda:1
        precision: fp32, tf32, bf16, fp16 or int8, or several
        backend: eager, autocast, compile or torchscript, or several; networks have further ones
        tasks: prefill, decode, generate, forward (logits of all tokens), or several (default: all but forward)
        batch_size: sequences or samples
        input_len: prompt tokens of a sequence
        output_len: generated tokens of a sequence, of the task generate
        num_beams: beams of the task generate
        gpu: name or path of the device file that the records name (default: the catalogue's of this device)
        warmup: calls that are not counted
        repeats_least: the fewest calls that are counted
        repeats_most: the most calls that are counted
        spread: half width of the 95 % interval of the median, over the median, that is small enough
        budget_s: seconds of calls after which there are no more of them
        force: try what does not fit the memory by its estimate
        output: CSV file of records; what it holds is not measured again
        format: text, json, csv or markdown
    """
    given = dict(locals())
    form = cast("Format", one_of("format", given.pop("format"), FORMATS))
    report = replace(_measured(given), format=form)
    return report if output is None else replace(report, notes=(*report.notes, f"written: {output}"))


def _measured(given: dict[str, Any]) -> Report:
    """The report of a run with these flags."""
    from ..measuring.method import Method
    from ..measuring.run import measure as run

    path = given["output"]
    given["output"] = None if path is None else file_of_flag("output", path)
    method = Method.of(**{field.name: given.pop(field.name) for field in fields(Method)})
    if given["model"] is None:
        raise RequestError("model: is missing; give a name, an alias or a path to a JSON file")
    texts = {flag: word(flag, given.pop(flag)) for flag in ("model", "device", "gpu")}
    lists = {flag: _words(flag, given.pop(flag)) for flag in ("precision", "backend", "tasks")}
    asked: dict[str, Any] = texts | lists | given
    try:
        return run(**asked, method=method).report()
    except KeyboardInterrupt:
        kept = "nothing is kept without --output" if path is None else f"{path} is whole, and the same command goes on"
        raise RequestError(f"interrupted: {kept}") from None


def _words(flag: str, value: Any) -> list[str] | None:
    """The words of a flag, which a command line may have taken for a list."""
    if value is None:
        return None
    items = value if isinstance(value, list | tuple) else str(word(flag, value)).split(",")
    return [str(item).strip() for item in items]
