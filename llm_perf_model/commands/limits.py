"""The machine at hand: times of single operators, and a draft of its device file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from ..errors import RequestError
from ..report.document import FORMATS, Format, Report
from ..report.export import check_writable, write_text
from .base import file_of_flag, finish, one_of, word


def measure_ops(
    ops: Any = None,
    dtypes: Any = None,
    device: str = "auto",
    gpu: str | None = None,
    m: Any = None,
    n: Any = None,
    k: Any = None,
    batch: Any = None,
    length: Any = None,
    heads: Any = None,
    kv_heads: Any = None,
    head_dim: Any = None,
    channels: Any = None,
    image: Any = None,
    window: Any = None,
    bytes: Any = None,
    ranks: Any = None,
    warm: bool = False,
    budget_s: float = 1.0,
    output: str = "operators.csv",
    format: str = "text",
) -> Report:
    """Times of single operators on the machine at hand, as records that validate and calibrate read.

    Sizes are whole numbers with commas, or ranges as lo:hi:step or lo:hi:x4 (by a factor). What the file of an
    interrupted run holds is not measured again.

    Args:
        ops: gemm, attention, norm, elementwise, convolution, copy, launch, dispatch, all_reduce (default: all)
        dtypes: fp32, tf32, bf16, fp16, int8 (default: fp32 and bf16; on cards tf32 and fp16 too)
        device: auto, cpu, or a kind of card with or without a number
        gpu: name or path of a device file that times are held against (default: the catalogue's of this device)
        m: rows of products and passes
        n: columns of products, width of passes
        k: depth of products
        batch: sequences of attention, images of convolutions
        length: tokens of prompts, keys of decode steps
        heads: query heads
        kv_heads: key heads
        head_dim: values of a head
        channels: channels in and out of convolutions
        image: side of the images of convolutions
        window: side of the filters of convolutions
        bytes: size of a tensor that is copied, or exchanged
        ranks: processes that exchange
        warm: whether operands stay in the cache; else they come from memory
        budget_s: seconds for the repeats of an operator
        output: file of the records; new ones are added to its end
        format: text, json, csv or markdown
    """
    from ..measuring.operator_run import measure_ops as run

    form = one_of("format", format, FORMATS)
    if not isinstance(warm, bool):
        raise RequestError(f"warm: is {warm!r}; give it alone, or leave it out")
    sizes = {
        "m": m, "n": n, "k": k, "batch": batch, "length": length, "heads": heads, "kv_heads": kv_heads,
        "head_dim": head_dim, "channels": channels, "image": image, "window": window, "bytes": bytes, "ranks": ranks,
    }  # fmt: skip
    path = file_of_flag("output", output)
    given = {"device": str(word("device", device)), "gpu": word("gpu", gpu), "budget_s": budget_s}
    try:
        report = run(path, ops=ops, dtypes=dtypes, warm=warm, **given, **sizes)
    except KeyboardInterrupt:
        raise RequestError(f"interrupted: {path} is whole, and the same command goes on") from None
    return replace(report, format=cast("Format", form))


def measure_device(
    device: str = "auto",
    dtypes: Any = None,
    like: str | None = None,
    name: str | None = None,
    budget_s: float = 3.0,
    output: str | None = None,
    format: str = "text",
) -> Report:
    """A draft of the device file of the machine at hand: what it reaches, beside what its datasheet states.

    Args:
        device: auto, cpu, or a kind of card with or without a number
        dtypes: fp32, tf32, bf16, fp16, int8 (default: those that it multiplies)
        like: device that gives what neither a measurement nor the system tells (default: the nearest of its kind)
        name: name of the new device (default: what its maker calls it)
        budget_s: seconds for the repeats of an operator
        output: device file to write, which --gpu takes
        format: text, json, csv or markdown
    """
    from ..measuring.limits import drafted

    form = one_of("format", format, FORMATS)
    path = None if output is None else file_of_flag("output", output)
    if path is not None:
        check_writable(path)
    given = {flag: word(flag, value) for flag, value in {"device": device, "like": like, "name": name}.items()}
    try:
        report, text = drafted(dtypes=dtypes, budget_s=budget_s, **given)
    except KeyboardInterrupt:
        raise RequestError("interrupted: there is no draft without all of its measurements") from None
    if path is not None:
        write_text(path, text)
        report = replace(report, notes=(*report.notes, f"written: {path}"))
    return finish(report, form, None)
