"""The grid of the study on the machine at hand: seven networks, the backends that it has, growing batches."""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

import llm_perf_model as lpm

NETWORKS = (
    "mobilenet-v3-large", "resnet18", "custom-fcn", "custom-cnn", "custom-lstm", "bert-base", "gpt-neo-125m"
)  # fmt: skip
LENGTHS = {
    "bert-base": {"tasks": "forward", "input_len": 100},
    "gpt-neo-125m": {"tasks": "generate", "input_len": 100, "output_len": 100, "num_beams": 4},
}
SMALL_LENGTHS = {
    "bert-base": {"tasks": "forward", "input_len": 16},
    "gpt-neo-125m": {"tasks": "generate", "input_len": 8, "output_len": 3, "num_beams": 4},
}
BACKENDS = {
    "eager fp32": ("eager", "fp32", "fp32"),
    "eager tf32": ("eager", "tf32", "tf32"),
    "autocast bf16": ("autocast", "bf16", "bf16-autocast"),
    "torchscript fp32": ("torchscript", "fp32", "fp32"),
    "compile fp32": ("compile", "fp32", "fp32"),
    "onnxruntime fp32": ("onnxruntime", "fp32", "fp32"),
    "tensorrt fp32": ("tensorrt", "fp32", "fp32"),
    "tensorrt fp16": ("tensorrt", "fp16", "w16a16"),
    "cpu-int8 fp32": ("cpu-int8", "fp32", "fp32"),
}
"""Label -> backend, precision, and the precision of the estimate."""
SMALL_BACKENDS = ("eager fp32", "torchscript fp32", "onnxruntime fp32", "cpu-int8 fp32")
BATCHES, SMALL_BATCHES = (1, 16, 32, 64), (1, 2)
STAND_IN = "ryzen-9-5950x"
QUICK = lpm.Method(warmup=1, repeats_least=3, repeats_most=20, budget_s=0.3)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu or a card, as cuda:1")
    parser.add_argument("--gpu", help="name or path of the device file for the estimates (default: by the device)")
    parser.add_argument("--full", action="store_true", help="all backends, batches and lengths of the study")
    parser.add_argument("--networks", help=f"some of {', '.join(NETWORKS)}")
    parser.add_argument("--batch_size", help="other batches, separated by commas")
    parser.add_argument("--output", default="records.csv", help="file of records; what it holds is not measured again")
    return parser.parse_args()


def main() -> None:
    told = arguments()
    lengths = LENGTHS if told.full else SMALL_LENGTHS
    batches = BATCHES if told.full else SMALL_BATCHES
    if told.batch_size:
        batches = tuple(int(batch) for batch in told.batch_size.split(","))
    errors: list[float] = []
    print("milliseconds a batch as measured, and how far the estimate is from it")
    for network in told.networks.split(",") if told.networks else NETWORKS:
        print(f"\n{network:<20}" + "".join(f"{f'batch {batch}':>15}" for batch in batches))
        for label in BACKENDS if told.full else SMALL_BACKENDS:
            asked = {**lengths.get(network, {}), "batch_size": batches}
            print(line(network, label, asked, told, errors))
    if errors:
        print(f"\nmedian error {median(errors):.0%} of {len(errors)} times; records: {told.output}")
        print(f"estimates are those of {told.gpu or 'the device of the records, or else of ' + STAND_IN}")


def line(network: str, label: str, asked: dict[str, Any], told: argparse.Namespace, errors: list[float]) -> str:
    """One backend: its times, or why there are none."""
    backend, precision, estimated = BACKENDS[label]
    try:
        measured = lpm.measure(
            network,
            device=told.device,
            gpu=told.gpu,
            precision=precision,
            backend=backend,
            output=told.output,
            method=None if told.full else QUICK,
            **asked,
        )
    except lpm.LlmPerfModelError as error:
        return f"{label:<20}  {str(error).removeprefix(f'backend {backend}: ').partition(';')[0]}"[:80]
    text = f"{label:<20}"
    for row in measured.records:
        if row["unit"] != "ms":
            continue
        if row["outcome"] != "ok":
            text += f"{row['outcome']:>15}"
            continue
        ours_ms = estimate_ms(network, row, estimated, asked, told.gpu)
        text += f"{float(row['value']):>9.4g}"
        if ours_ms is None:
            text += f"{'-':>6}"
            continue
        error = ours_ms / float(row["value"]) - 1.0
        errors.append(abs(error))
        text += f"{error:>+6.0%}"
    return text


def estimate_ms(network: str, row: Any, precision: str, asked: dict[str, Any], gpu: str | None) -> float | None:
    """The estimate for a record; None where no engine is of its backend, or the device does not compute so."""
    if row["engine"] not in lpm.engines():
        return None
    rest = {name: value for name, value in asked.items() if name not in {"tasks", "batch_size"}}
    rest |= {"gpu": gpu or (row["device"] if row["device"] in lpm.gpus() else STAND_IN), "engine": row["engine"]}
    try:
        return 1e3 * float(lpm.estimate(network, precision=precision, batch_size=int(row["batch"]), **rest).total_s)
    except lpm.InfeasibleError:
        return None


if __name__ == "__main__":
    main()
