"""Five measured numbers -> an engine, and what it says of a run that nobody has measured."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import llm_perf_model as lpm

RECORDS = Path(__file__).with_name("five_runs.csv")
READ: dict[str, Callable[[lpm.Estimate], float]] = {
    "ttft_ms": lambda e: 1e3 * float(e.ttft_s),
    "tpot_ms": lambda e: 1e3 * float(e.tpot_s),
    "throughput_tok_s": lambda e: float(e.throughput_tokens_per_s),
}


def estimated(row: dict[str, str], engine: str | lpm.EngineSpec) -> float:
    lengths = {"input_len": int(row["input_len"]), "output_len": int(row["output_len"])}
    e = lpm.estimate(row["model"], gpu=row["device"], engine=engine, batch_size=int(row["batch"]), **lengths)
    return READ[row["metric"]](e)


def main() -> None:
    ours = lpm.calibrate(str(RECORDS), engine="generic-fused", name="our-server")

    print(f"{'metric':<17} {'batch':>5} {'in':>5} {'out':>4} {'measured':>9} {'generic-fused':>14} {'our-server':>11}")
    with RECORDS.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            shape = f"{row['batch']:>5} {row['input_len']:>5} {row['output_len']:>4}"
            values = f"{estimated(row, 'generic-fused'):>14.3g} {estimated(row, ours):>11.3g}"
            print(f"{row['metric']:<17} {shape} {row['value']:>9} {values}")

    (fit,) = ours.fits
    print(f"\n{fit.rows} rows: {fit.error}")
    for field in sorted(fit.fields):
        print(f"{field:<13} {getattr(ours, field):.2g}, log deviation {fit.deviations[field]:.2g}")

    e = lpm.estimate("llama-3.1-8b", gpu="a100-sxm-80gb", engine=ours, batch_size=16, input_len=1024, output_len=256)
    low, high, basis = e.bounds("total_s")
    print(f"\nbatch 16, 1024 in, 256 out: {e.total_s:.2g} s, 80 % interval {low:.2g} to {high:.2g} s")
    print(basis)


if __name__ == "__main__":
    main()
