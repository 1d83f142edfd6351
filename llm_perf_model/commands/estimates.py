"""One configuration: its time, memory, energy and cost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..api import answer
from ..breakdown import DETAILS, Detail
from ..capacity import Capacity
from ..estimate import Estimate
from ..flags import given_to, taking
from ..report.document import Report
from ..specs.hardware import Hardware
from ..specs.request import Request
from ..specs.sharing import Sharing
from ..specs.techniques import Techniques
from .base import finish, one_of, picture_file

if TYPE_CHECKING:
    from ..pictures.file import PictureFile


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
    picture: str | None = None,
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
        picture: file of a picture to write: .png, .svg or .pdf; every operator under the roofs of its device
        **techniques: how ranks share, what engines do beyond one pass over a prompt and one token a step, and devices
    """
    given = given_to(locals(), "techniques")
    form, path, detail = given.pop("format"), given.pop("output", None), given.pop("breakdown", None)
    place = picture_file(given.pop("picture", None))
    return finish(_told(answer(Request.of(given)), detail, place), form, path)


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
    return finish(Capacity(answer(Request.of(given))).report(), form, path)


def _told(estimate: Estimate, detail: Detail | None, place: PictureFile | None) -> Report:
    """The report of a configuration that can run, and its picture if one is asked for."""
    estimate.require_feasible()
    report = _with_breakdown(estimate, detail)
    if place is None:
        return report
    return replace(report, notes=(*report.notes, place.write(estimate.plot_roofline())))


def _with_breakdown(estimate: Estimate, detail: Detail | None) -> Report:
    """The report of an estimate, with where its time goes if that is asked for."""
    if detail is None:
        return replace(estimate.report(), data=estimate.to_dict())
    one_of("breakdown", detail, DETAILS)
    report = replace(estimate.report(), data=estimate.to_dict(detail))
    parts = estimate.breakdown(detail)
    return replace(report, tables=(*report.tables, *parts.tables), records=parts.records)
