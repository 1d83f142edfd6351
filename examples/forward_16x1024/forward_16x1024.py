"""One forward pass of 16 x 1024 tokens on one and eight RTX A5000 or A6000: time, memory and energy."""

from __future__ import annotations

import llm_perf_model as lpm
from llm_perf_model.split import split_allocated_bytes

GIB = 2**30
MODELS = ("opt-1.3b", "opt-6.7b", "aicrossim-clm-60m", "aicrossim-clm-200m", "aicrossim-clm-400m", "aicrossim-clm-1.1b")

# Milliseconds from the tables, in the order of MODELS: (GPU, devices) -> measured, and the page's own estimates.
TABLES = {
    ("rtx-a5000", 1): (
        (693.77, 3275.30, 121.46, 241.97, 380.49, 747.17),
        (740.79, 3300.85, 112.05, 226.40, 355.55, 716.71),
    ),
    ("rtx-a6000", 1): (
        (510.96, 2150.14, 109.11, 204.46, 315.30, 600.65),
        (594.34, 2121.35, 76.87, 178.60, 295.36, 613.92),
    ),
    ("rtx-a5000", 8): (
        (1311.08, 4241.64, 124.78, 245.71, 356.11, 673.65),
        (1415.36, 4287.28, 131.60, 239.86, 360.63, 639.71),
    ),
    ("rtx-a6000", 8): (
        (1199.32, 3755.24, 115.16, 212.33, 309.74, 568.35),
        (1219.91, 3319.92, 96.43, 189.00, 294.85, 569.74),
    ),
}

# Devices -> GiB from the tables; both cards print the same, but for 8.09 of one model on eight A6000.
MEMORY_GIB = {1: (5.53, 15.48, 6.16, 6.50, 6.87, 8.17), 8: (4.99, 16.04, 7.62, 7.87, 8.10, 8.91)}

# (GPU, devices) -> joules per token from the tables.
ENERGY_J = {
    ("rtx-a5000", 1): (0.010, 0.046, 0.002, 0.003, 0.005, 0.010),
    ("rtx-a6000", 1): (0.009, 0.039, 0.002, 0.004, 0.006, 0.011),
    ("rtx-a5000", 8): (0.018, 0.060, 0.002, 0.004, 0.007, 0.012),
    ("rtx-a6000", 8): (0.022, 0.069, 0.002, 0.004, 0.006, 0.010),
}


def estimate(model: str, gpu: str, devices: int, convention: str = "power") -> lpm.Estimate:
    # The page's eight-device runs hold consecutive layers on each device.
    return lpm.estimate(
        model,
        gpu=gpu,
        engine="pytorch-forward",
        batch_size=16,
        input_len=1024,
        output_len=1,
        layer_split=devices,
        energy_convention=convention,
    )


def times() -> None:
    ours_errors, page_errors = [], []
    print(f"{'model':<19} {'device':<14} {'measured ms':>11} {'page ms':>8} {'error':>7} {'ours ms':>8} {'error':>7}")
    for (gpu, devices), (measured_row, page_row) in TABLES.items():
        for model, measured, page in zip(MODELS, measured_row, page_row, strict=True):
            ours = 1e3 * float(estimate(model, gpu, devices).prefill_s)
            ours_errors.append(ours / measured - 1.0)
            page_errors.append(page / measured - 1.0)
            print(
                f"{model:<19} {gpu + ' x ' + str(devices):<14} {measured:>11.1f} {page:>8.1f} {page_errors[-1]:>+7.1%}"
                f" {ours:>8.1f} {ours_errors[-1]:>+7.1%}"
            )
    for name, errors in (("page", page_errors), ("ours", ours_errors)):
        sizes = [abs(error) for error in errors]
        print(f"{name}: mean {sum(sizes) / len(sizes):.1%}, worst {max(sizes):.1%} of {len(sizes)} runtimes")


def memory() -> None:
    print(f"\n{'model':<19} {'devices':>7} {'measured GiB':>12} {'ours GiB':>8} {'error':>7}")
    for devices, measured_row in MEMORY_GIB.items():
        errors = []
        for model, measured in zip(MODELS, measured_row, strict=True):
            e = estimate(model, "rtx-a6000", devices)
            whole = e.memory.allocated_bytes if devices == 1 else split_allocated_bytes(e.case, 16, 1024)
            errors.append(whole / GIB / measured - 1.0)
            print(f"{model:<19} {devices:>7} {measured:>12.2f} {whole / GIB:>8.2f} {errors[-1]:>+7.1%}")
        sizes = [abs(error) for error in errors]
        print(f"mean {sum(sizes) / len(sizes):.2%}, worst {max(sizes):.2%}")


def energy() -> None:
    print(f"\n{'model':<19} {'device':<14} {'printed J/token':>15} {'design power x time':>19} {'physical':>8}")
    for (gpu, devices), printed_row in ENERGY_J.items():
        for model, printed in zip(MODELS, printed_row, strict=True):
            bound, physical = (
                float(estimate(model, gpu, devices, convention).energy_j) / (16 * 1024)
                for convention in ("tdp", "power")
            )
            print(f"{model:<19} {gpu + ' x ' + str(devices):<14} {printed:>15.3f} {bound:>19.3f} {physical:>8.3f}")


def main() -> None:
    times()
    memory()
    energy()


if __name__ == "__main__":
    main()
