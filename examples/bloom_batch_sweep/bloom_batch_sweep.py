"""A BLOOM of 24 layers on one A100 80GB: 100 tokens for batches up to out of memory, three engines and precisions."""

from __future__ import annotations

import llm_perf_model as lpm

GIB = 2**30
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 1920)

# Tokens per second from the table, in the order of BATCHES.
HF_FP32 = """
51.59 103.92 211.96 411.79 804.55 1574.68 2712.46 2974.36 3695.44 3591.13 3708.54 3859.43 3804.82 3652.42 oom
oom oom oom oom oom oom oom
"""
HF_BF16 = """
41.00 79.20 160.72 317.56 644.14 1277.62 2683.15 4766.97 6578.06 7285.37 7436.71 7554.05 7678.89 7542.81
7702.06 7719.68 7786.51 7770.26 7783.86 7772.43 7747.92 oom
"""
DS_FP16 = """
61.61 121.55 240.06 492.42 970.59 1999.04 3971.09 7514.59 10226.50 11094.27 11390.85 11625.71 11814.31
11744.38 11534.95 oom oom oom oom oom oom oom
"""

COLUMNS = (
    ("hf-transformers", "fp32", HF_FP32),
    ("hf-transformers", "bf16", HF_BF16),
    ("deepspeed-inference", "w16a16", DS_FP16),
)


def main() -> None:
    errors, told = [], []
    for engine, precision, measured_column in COLUMNS:
        print(f"{engine}, {precision}")
        print(f"{'batch':>6} {'measured tok/s':>15} {'ours tok/s':>11} {'error':>8} {'bound':>8} {'memory':>9}")
        for batch_size, printed in zip(BATCHES, measured_column.split(), strict=True):
            e = lpm.estimate(
                "bloom-24l-2048h",
                gpu="a100-sxm-80gb",
                engine=engine,
                precision=precision,
                batch_size=batch_size,
                input_len=9,
                output_len=100,
            )
            told.append(bool(e.fits) == (printed != "oom"))
            needs = f"{float(e.memory.peak_bytes) / GIB:.1f} GiB"
            if printed == "oom":
                print(f"{batch_size:>6} {printed:>15} {'oom' if not e.fits else 'fits':>11} {'':>8} {'':>8} {needs:>9}")
                continue
            measured = float(printed)
            ours = float(e.throughput_tokens_per_s)
            errors.append(abs(ours / measured - 1.0))
            print(
                f"{batch_size:>6} {measured:>15.1f} {ours:>11.1f} {ours / measured - 1.0:>+8.1%} {e.decode.bound!s:>8}"
                f" {needs:>9}"
            )
        print()
    errors.sort()
    within = errors[int(0.9 * len(errors))]
    capacity = float(e.memory.capacity_bytes) / GIB
    print(f"{sum(told)} of {len(told)} cells told right: {told.count(False)} wrong; capacity {capacity:.1f} GiB")
    print(f"median {errors[len(errors) // 2]:.1%}, 90 % within {within:.1%}, of {len(errors)} throughputs")


if __name__ == "__main__":
    main()
