"""Many configurations: all combinations of values, and plans for a load."""

from __future__ import annotations

from typing import Any, cast

from ..flags import like
from ..report.document import FORMATS, Format, Report
from .base import file_of_flag, finish, one_of, word
from .estimates import infer


@like(infer, without=("breakdown", "interval_level"))
def sweep(
    model: str | None = None,
    metrics: str | None = None,
    best: str | None = None,
    constraints: str | None = None,
    pareto: str | None = None,
    executor: str | None = None,
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
        executor: serial, processes (one a core), processes:4, or the address of a Dask scheduler, as tcp://host:8786
        format: text (the first ones), json, csv or markdown
        output: file to write: .csv, .json or .parquet; or, without an ending, a folder of Parquet parts
        **fields: those of infer
    """
    from ..sweeping.queries import Query, asked

    form = cast("Format", one_of("format", format, FORMATS))
    query = Query.of(metrics, best, constraints, pareto)
    given = {flag: value for flag, value in {"model": model, **fields}.items() if value is not None}
    return asked(
        given, query, form, None if output is None else file_of_flag("output", output), word("executor", executor)
    )


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
    from ..planning.answer import of_request
    from ..specs.plan import PlanRequest

    form, path = given.pop("format"), given.pop("output", None)
    return finish(of_request(PlanRequest.of(given)).report(), form, path)
