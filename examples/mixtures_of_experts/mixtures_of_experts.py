"""DeepSeek-V3 and Qwen3-30B-A3B on eight H200 and eight H100, in the layouts that serve them.

Prints time, memory and price of each layout, and where a decode step goes (README.md explains what differs).
"""

from __future__ import annotations

import llm_perf_model as lpm

ENGINE = "sglang"
WORKLOAD = {"batch_size": 128, "input_len": 2048, "output_len": 512}

RUNS = (
    ("deepseek-v3", "h200-sxm-141gb", "fp8-block"),
    ("qwen3-30b-a3b", "h100-sxm-80gb", "bf16"),
)
LAYOUTS: dict[str, dict[str, int]] = {
    "tp 8": {"tp": 8},
    "tp 8, ep 8": {"tp": 8, "ep": 8},
    "attention dp 8, ep 8": {"attention_dp": 8, "ep": 8},
}
ROLES = ("attention", "ffn", "norm", "communication", "head", "host")


def estimated(model: str, gpu: str, precision: str, layout: dict[str, int]) -> lpm.Estimate:
    """One replica on eight devices."""
    return lpm.estimate(model, gpu=gpu, engine=ENGINE, precision=precision, **WORKLOAD, **layout)


def print_run(model: str, gpu: str, precision: str) -> None:
    answers = {name: estimated(model, gpu, precision, layout) for name, layout in LAYOUTS.items()}
    print(f"{model} on 8 x {gpu}, {precision}, {ENGINE}")
    print(
        f"  {'':<22}{'TTFT s':>8}{'TPOT ms':>9}{'tokens/s':>10}{'peak GiB':>10}{'largest batch':>15}{'$ per M out':>13}"
    )
    for name, e in answers.items():
        print(
            f"  {name:<22}{e.ttft_s:>8.2f}{1e3 * e.tpot_s:>9.1f}{e.throughput_tokens_per_s:>10.0f}"
            f"{e.memory.peak_bytes / 2**30:>10.1f}{e.max_batch_size:>15.0f}"
            f"{e.cost.usd_per_million_output_tokens:>13.2f}"
        )
    print(f"  {'ms of a decode step':<22}" + "".join(f"    {role}" for role in ROLES))
    for name, e in answers.items():
        lines = {line["name"]: line for line in e.to_dict("roles")["breakdown"] if line["phase"] == "decode"}
        cells = (1e3 * lines[role]["time_s"] / e.decode_steps for role in ROLES)
        print(f"  {name:<22}" + "".join(f"{cell:>{len(role) + 4}.2f}" for role, cell in zip(ROLES, cells, strict=True)))
    print()


def main() -> None:
    print("{batch_size} sequences, {input_len} tokens in, {output_len} out\n".format(**WORKLOAD))
    for run in RUNS:
        print_run(*run)


if __name__ == "__main__":
    main()
