"""The batch sweep of the page on the machine at hand: greedy tokens for growing batches, until the memory is full."""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

import llm_perf_model as lpm

SMALL = str(Path(__file__).with_name("bloom-4l-256h.json"))
SMALL_BATCHES = (1, 4, 16, 64, 2**24)  # the last one fits no machine
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 1920)
QUICK = lpm.Method(warmup=1, repeats_least=3, repeats_most=20, budget_s=0.5)
STAND_IN = "ryzen-9-5950x"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu or a card, as cuda:1")
    parser.add_argument("--gpu", help="name or path of the device file for the estimates (default: by the device)")
    parser.add_argument("--full", action="store_true", help="the model and the batches of the page")
    parser.add_argument("--output", default="records.csv", help="file of records; what it holds is not measured again")
    return parser.parse_args()


def main() -> None:
    told = arguments()
    model, batches = ("bloom-24l-2048h", BATCHES) if told.full else (SMALL, SMALL_BATCHES)
    asked = {"input_len": 9, "output_len": 100 if told.full else 8}
    errors: list[float] = []
    for precision in ("fp32", "bf16"):
        measured = lpm.measure(
            model,
            device=told.device,
            precision=precision,
            tasks="generate",
            batch_size=batches,
            gpu=told.gpu,
            output=told.output,
            method=None if told.full else QUICK,
            **asked,
        )
        rows = {int(row["batch"]): row for row in measured.records if row["metric"] == "total_ms"}
        some = next(iter(rows.values()))
        gpu = told.gpu or (some["device"] if some["device"] in lpm.gpus() else STAND_IN)
        print(f"{measured.title}, {precision}\nestimates are those of {gpu}")
        print(f"{'batch':>9} {'measured tok/s':>15} {'ours tok/s':>11} {'error':>7} {'memory':>11}")
        for batch_size in batches:
            setting = {"gpu": gpu, "engine": some["engine"], "precision": precision, "batch_size": batch_size}
            e = estimated(model, **setting, **asked)
            ours = float(e.throughput_tokens_per_s) if e else None
            needs = f"{float(e.memory.peak_bytes) / 2**30:.1f} GiB" if e else "-"
            row = rows.get(batch_size)
            if row is None or row["outcome"] != "ok":
                print(f"{batch_size:>9} {row['outcome'] if row else 'does not fit':>15} {'':>11} {'':>7} {needs:>11}")
                continue
            rate = batch_size * asked["output_len"] / (1e-3 * float(row["value"]))
            beside = f"{'-':>11} {'':>7}"
            if ours is not None:
                errors.append(abs(ours / rate - 1.0))
                beside = f"{ours:>11.1f} {ours / rate - 1.0:>+7.0%}"
            print(f"{batch_size:>9} {rate:>15.1f} {beside} {needs:>11}")
        print()
    print(f"median error {median(errors):.0%} of {len(errors)} throughputs; records: {told.output}")


def estimated(model: str, **setting: object) -> lpm.Estimate | None:
    """None where the device of the estimates does not compute in the precision."""
    try:
        return lpm.estimate(model, **setting)
    except lpm.InfeasibleError:
        return None


if __name__ == "__main__":
    main()
