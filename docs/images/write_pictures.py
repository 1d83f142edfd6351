"""Draws the pictures of docs/pictures.md anew; needs the extra `plot`: `python docs/images/write_pictures.py`.

With the same Matplotlib the same numbers give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llm_perf_model as lpm

FOLDER = Path(__file__).resolve().parent
LOAD: dict[str, Any] = {"engine": "vllm", "input_len": 2048, "output_len": 256}
CARDS = ["rtx-4090", "l4", "a100-sxm-80gb", "h100-sxm-80gb", "h200-sxm-141gb", "mi300x"]


@cache
def layouts() -> lpm.Sweep:
    """Six cards, alone and in groups, with batches up to 256."""
    return lpm.sweep("llama-3.1-8b", gpu=CARDS, tp=[1, 2, 4, 8], batch_size="1:256:x2", **LOAD)


@cache
def one() -> lpm.Estimate:
    return lpm.estimate("llama-3.1-8b", gpu="h100-sxm-80gb", batch_size=32, **LOAD)


PICTURES: dict[str, Callable[[], Any]] = {
    "latency": lambda: layouts().plot("tpot_s", where={"tp": 1}),
    "pareto": lambda: layouts().plot_pareto("throughput_tokens_per_s", "tpot_s"),
    "cost": lambda: layouts().plot_cost("tpot_s <= 0.03, ttft_s <= 2"),
    "roofline": lambda: one().plot_roofline(),
    "memory": lambda: one().plot_memory(),
}
"""Name -> the picture."""


def main() -> None:
    """Write all pictures."""
    for name, drawn in PICTURES.items():
        (FOLDER / f"{name}.svg").write_bytes(drawn().rendered("svg"))


if __name__ == "__main__":
    main()
