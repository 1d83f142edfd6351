"""Measure, calibrate on half, validate on the other half: a small decoder and a network on the machine at hand."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DECODER = "aicrossim-clm-60m"
NETWORK = "resnet18"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu or a card, as cuda:1")
    parser.add_argument("--gpu", help="name or path of the device file (default: the command measure_device makes one)")
    parser.add_argument("--decoder", default=DECODER, help="model whose prefill, step and generation are timed")
    parser.add_argument("--network", default=NETWORK, help="network whose pass is timed")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch_size", default="1:16:x2", help="as one value, several with commas, or a range")
    parser.add_argument("--network_batch_size", default="1,2,3,4,6,8,12,16,24,32")
    parser.add_argument("--input_len", default="16:256:x2")
    parser.add_argument("--output_len", default="8")
    parser.add_argument("--budget_s", default="2", help="seconds of calls of each trial")
    parser.add_argument("--folder", default="measured", help="where records and files go; what is there is kept")
    return parser.parse_args()


def command(*words: str) -> str:
    """What a command of the package prints."""
    done = subprocess.run([sys.executable, "-m", "llm_perf_model", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return done.stdout


def halves(rows: Sequence[dict[str, str]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Every other place of the grid, as the fields of a chessboard: each half has every batch and every length."""
    axes = [sorted({row[axis] for row in rows}, key=lambda text: int(text or 0)) for axis in ("batch", "input_len")]
    even = [(axes[0].index(row["batch"]) + axes[1].index(row["input_len"])) % 2 == 0 for row in rows]
    return ([row for row, kept in zip(rows, even, strict=True) if kept == side] for side in (True, False))  # type: ignore[return-value]


def write(path: Path, rows: Sequence[dict[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def errors(records: str, engine: str) -> dict[str, Any]:
    """The errors of an engine over records: estimate / measurement - 1."""
    (row,) = json.loads(command("validate", "--records", records, "--engine", engine, "--format", "json"))["errors"][
        "source"
    ]
    return dict(row)


def main() -> None:
    told = arguments()
    folder = Path(told.folder)
    folder.mkdir(exist_ok=True)
    gpu = told.gpu
    if gpu is None:
        gpu = str(folder / "machine.json")
        if not Path(gpu).exists():
            command("measure_device", "--device", told.device, "--output", gpu)
    print(f"{'what':<20} {'rows':>5} {'before':>8} {'fitted on':>10} {'left out':>9} {'worst':>7}")
    for name in (told.decoder, told.network):
        decodes = name == told.decoder
        shape = ["--input_len", told.input_len, "--output_len", told.output_len] if decodes else []
        shape += ["--batch_size", told.batch_size if decodes else told.network_batch_size]
        every = folder / f"{name}.csv"
        here = ["--device", told.device, "--gpu", gpu, "--precision", told.precision, "--budget_s", told.budget_s]
        command("measure", "--model", name, *here, *shape, "--output", str(every))
        with every.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["unit"] == "ms" and row["outcome"] == "ok"]
        first, second = halves(rows)
        known, unknown = write(folder / f"{name}-known.csv", first), write(folder / f"{name}-unknown.csv", second)
        base, fitted = rows[0]["engine"], str(folder / f"{name}-engine.json")
        command("calibrate", "--records", known, "--engine", base, "--name", "here", "--output", fitted)
        before, inside, outside = errors(unknown, base), errors(known, fitted), errors(unknown, fitted)
        print(
            f"{name:<20} {len(rows):>5} {before['median']:>8.1%} {inside['median']:>10.1%} "
            f"{outside['median']:>9.1%} {outside['worst']:>7.1%}"
        )


if __name__ == "__main__":
    main()
