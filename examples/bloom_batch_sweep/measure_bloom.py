"""The batch sweep of the page on the machine at hand: greedy tokens for growing batches, until the memory is full."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

import llm_perf_model as lpm

SMALL = Path(__file__).with_name("bloom-4l-256h.json")
SMALL_BATCHES = (1, 4, 16, 64, 2**24)  # the last one fits no machine
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 1920)
QUICK = lpm.Method(warmup=1, repeats_least=3, repeats_most=20, budget_s=0.5)
ESTIMATED = {"fp32": "fp32", "bf16": "bf16", "fp16": "w16a16"}
"""Precision as it is measured -> as it is estimated."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu or a card, as cuda:1")
    parser.add_argument("--gpu", help="name or path of the device file for the estimates (default: by the device)")
    parser.add_argument("--full", action="store_true", help="the model and the batches of the page")
    parser.add_argument("--output", default="records.csv", help="file of records; what it holds is not measured again")
    return parser.parse_args()


def main() -> None:
    told = arguments()
    model, batches = ("bloom-24l-2048h", BATCHES) if told.full else (str(SMALL), SMALL_BATCHES)
    output_len = 100 if told.full else 8
    errors = []
    for precision in ("fp32", "bf16"):
        measured = lpm.measure(
            model,
            device=told.device,
            precision=precision,
            tasks="generate",
            batch_size=batches,
            input_len=9,
            output_len=output_len,
            gpu=told.gpu,
            output=told.output,
            method=None if told.full else QUICK,
        )
        rows = {int(row["batch"]): row for row in measured.records if row["metric"] == "total_ms"}
        gpu = told.gpu or known(next(iter(rows.values()))["device"])
        print(f"{precision}: measured {measured.title.split(': ')[0]}; estimated on {gpu}")
        print(f"{'batch':>9} {'measured tok/s':>15} {'ours tok/s':>11} {'error':>7} {'memory':>11}")
        for batch_size in batches:
            row = rows.get(batch_size)
            engine = row["engine"] if row else next(iter(rows.values()))["engine"]
            e = lpm.estimate(
                model,
                gpu=gpu,
                engine=engine,
                precision=ESTIMATED[precision],
                batch_size=batch_size,
                input_len=9,
                output_len=output_len,
            )
            needs = f"{float(e.memory.peak_bytes) / 2**30:.1f} GiB"
            if row is None or row["outcome"] != "ok":
                outcome = row["outcome"] if row else "does not fit"
                print(f"{batch_size:>9} {outcome:>15} {'':>11} {'':>7} {needs:>11}")
                continue
            rate = batch_size * output_len / (1e-3 * float(row["value"]))
            ours = float(e.throughput_tokens_per_s)
            errors.append(abs(ours / rate - 1.0))
            print(f"{batch_size:>9} {rate:>15.1f} {ours:>11.1f} {ours / rate - 1.0:>+7.0%} {needs:>11}")
        print()
    print(f"median error {median(errors):.0%} of {len(errors)} throughputs; records: {told.output}")


def known(device: str) -> str:
    """The device file of what was measured, or one that stands in for a processor without a file."""
    return device if device in lpm.gpus() else "ryzen-9-5950x"


if __name__ == "__main__":
    main()
