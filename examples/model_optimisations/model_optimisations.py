"""Seven networks under fifteen backends on an RTX 3080 Ti and a Ryzen 9 5950X: each cell, and our error."""

from __future__ import annotations

from statistics import median

import llm_perf_model as lpm

BATCHES = (1, 16, 32, 64)

# Milliseconds a sample, in the order of BATCHES, as printed; "error": the tool stopped with a RuntimeError.
PRINTED = """
mobilenet-v3-large
  CPU FP32                              6.285    2.333    2.644    3.535
  CPU JIT FP32                          4.189    1.885    2.363    3.456
  CUDA FP32                             4.798    0.296    0.181    0.168
  CUDA FP16                             4.536    0.526    0.425    0.338
  CUDA JIT FP32                         2.379    0.239    0.221    0.214
  TensorRT FP32                          0.71    0.128    0.111    0.105
  TensorRT FP16                         0.541    0.078    0.066    0.058
  TensorRT JIT FP32                     1.994    0.171    0.204    0.146
  TensorRT JIT FP16                     1.923    0.149    0.131    0.124
  TensorPTQ GPU INT8                    0.523    0.086    0.047     0.04
  TensorDynamicQuantization CPU INT8    6.407    2.468    2.742    3.229
  ONNX CPU FP32                        10.285    8.629    9.265   10.289
  ONNX GPU FP32                         1.354    0.332    0.333    0.343
resnet18
  CPU FP32                              6.567     4.04    5.079    4.283
  CPU JIT FP32                          4.238    3.211    3.705    3.467
  CUDA FP32                             2.104    0.254    0.253    0.215
  CUDA FP16                              2.05    0.423    0.442    0.403
  CUDA JIT FP32                         1.536    0.239    0.202    0.174
  TensorRT FP32                         0.862    0.217    0.201    error
  TensorRT FP16                         0.359    0.074    0.062    error
  TensorRT JIT FP32                     1.566    0.279    0.226    0.203
  TensorRT JIT FP16                     1.564    0.292    0.223    0.212
  TensorPTQ GPU INT8                    0.289    0.044    0.033    error
  TensorPTQ JIT FP32                    1.585    0.299    0.223    0.208
  TensorDynamicQuantization CPU INT8    7.569    4.119    3.965    4.286
  ONNX CPU FP32                         7.887     7.84    9.858    8.826
  ONNX GPU FP32                         1.254    0.342    0.306    0.339
custom-fcn
  CPU FP32                              3.538    0.481    0.381    0.396
  CPU JIT FP32                          7.794     0.72     0.53    0.517
  CUDA FP32                             0.254     0.02    0.012     0.01
  CUDA FP16                             0.194    0.014     0.01    0.006
  CUDA JIT FP32                         0.268    0.018    0.017    0.014
  CUDA JIT FP16                         0.183     0.02    0.015    0.012
  TensorRT FP32                         0.322    0.028    0.017    0.011
  TensorRT FP16                         0.249    0.023    0.015    0.011
  TensorRT JIT FP32                     0.332    0.026    0.016    0.011
  TensorRT JIT FP16                     0.243    0.022    0.014     0.01
  TensorPTQ GPU INT8                    0.319    0.026    0.016    0.011
  TensorPTQ JIT FP32                    0.325    0.026    0.017    0.011
  TensorDynamicQuantization CPU INT8    3.563    0.417    0.383    0.407
  ONNX CPU FP32                         2.217    0.324    0.311    0.222
  ONNX GPU FP32                         0.392    0.097     0.11    0.138
custom-cnn
  CPU FP32                              0.638    0.511    0.481    0.615
  CPU JIT FP32                           0.57    0.634    0.633    0.818
  CUDA FP32                             0.411     0.07    0.057    0.062
  CUDA FP16                              0.38    0.101    0.095    0.104
  CUDA JIT FP32                         0.304    0.057    0.051    0.063
  CUDA JIT FP16                         0.345    0.061    0.048    0.062
  TensorRT FP32                         0.197    0.033    0.029    0.028
  TensorRT FP16                         0.188    0.025    0.019    0.018
  TensorRT JIT FP32                     0.349    0.061    0.051    0.055
  TensorRT JIT FP16                     0.348    0.058    0.055    0.054
  TensorPTQ GPU INT8                    0.191    0.027    0.022     0.02
  TensorPTQ JIT FP32                    0.357    0.059    0.059    0.054
  TensorDynamicQuantization CPU INT8    0.674    0.425    0.517     0.59
  ONNX CPU FP32                         0.595    0.515     0.54    0.634
  ONNX GPU FP32                         0.368    0.131    0.156    0.179
custom-lstm
  CPU FP32                             10.481     5.14    2.605    1.518
  CPU JIT FP32                         12.097    4.917    2.592    1.523
  CUDA FP32                             3.343    0.226    0.117    0.062
  CUDA FP16                             4.386    0.275    0.144    0.077
  CUDA JIT FP32                         4.906    0.322    0.161    0.083
  CUDA JIT FP16                         4.351    0.271    0.138    0.078
  TensorRT FP32                         3.668    0.233    0.123    0.071
  TensorRT FP16                         3.404    0.253    0.124    0.071
  TensorRT JIT FP32                     5.111    0.345    0.174    0.096
  TensorRT JIT FP16                     5.013    0.355    0.174    0.094
  TensorDynamicQuantization CPU INT8    9.749    5.139    2.619    1.555
  ONNX CPU FP32                         3.772    error    error    error
  ONNX GPU FP32                         5.063    error    error    error
bert-base
  CUDA FP32                             5.219    1.256    1.204    1.022
  CUDA FP16                              5.87    0.523    0.512     0.39
  CUDA JIT FP32                          4.61    1.737    1.062    0.894
  CUDA JIT FP16                         5.352    1.423    0.454    0.372
  TensorDynamicQuantization CPU INT8   50.772   38.479   37.276   35.526
gpt-neo-125m
  CUDA FP32                           774.454   97.448   72.084      oom
  CUDA FP16                           853.397  100.885   73.057   51.257
  TensorDynamicQuantization CPU INT8  4277.05      oom      oom      oom
"""

GPU, CPU = "rtx-3080ti", "ryzen-9-5950x"
BACKENDS = {
    "CPU FP32": (CPU, "pytorch-cpu", "fp32"),
    "CPU JIT FP32": (CPU, "pytorch-cpu-jit", "fp32"),
    "CUDA FP32": (GPU, "pytorch-eager", "fp32-tf32-convolutions"),
    "CUDA FP16": (GPU, "pytorch-autocast", "bf16-autocast"),
    "CUDA JIT FP32": (GPU, "pytorch-jit", "fp32-tf32-convolutions"),
    "CUDA JIT FP16": (GPU, "pytorch-jit", "bf16-dense"),
    "TensorRT FP32": (GPU, "tensorrt", "tf32"),
    "TensorRT FP16": (GPU, "tensorrt", "w16a16-acc16"),
    "TensorRT JIT FP32": (GPU, "torch-tensorrt-jit", "tf32"),
    "TensorRT JIT FP16": (GPU, "torch-tensorrt-jit", "fp16-dense"),
    "TensorPTQ GPU INT8": (GPU, "tensorrt", "int8-convolutions"),
    "TensorPTQ JIT FP32": (GPU, "torch-tensorrt-jit", "tf32"),
    "TensorDynamicQuantization CPU INT8": (CPU, "pytorch-cpu", "fp32"),
    "ONNX CPU FP32": (CPU, "onnxruntime-cpu", "fp32"),
    "ONNX GPU FP32": (GPU, "onnxruntime-gpu", "fp32-tf32-convolutions"),
}
LENGTHS = {"bert-base": {"input_len": 100}, "gpt-neo-125m": {"input_len": 100, "output_len": 100, "num_beams": 4}}


def main() -> None:
    networks = [line for line in PRINTED.strip().splitlines() if not line.startswith(" ")]
    engines = dict.fromkeys(engine for _, engine, _ in BACKENDS.values())
    errors: dict[str, list[float]] = {group: [] for group in (*engines, *networks, "all")}
    known_failures, told = 0, []
    for line in PRINTED.strip().splitlines():
        if not line.startswith(" "):
            network = line
            print(f"\n{network:<35}" + "".join(f"{f'batch {batch}':>19}" for batch in BATCHES))
            continue
        backend, cells = line[2:36].strip(), line[36:].split()
        gpu, engine, precision = BACKENDS[backend]
        e = lpm.estimate(
            network, gpu=gpu, engine=engine, precision=precision, batch_size=BATCHES, **LENGTHS.get(network, {})
        )
        row = f"{backend:<35}"
        for printed, ours_s, fits in zip(cells, e.time_per_sample_s, e.fits, strict=True):
            if printed == "error":
                known_failures += 1
                row += f"{printed:>8} {1e3 * ours_s:>10.4g}"
                continue
            if gpu == GPU:
                told.append(bool(fits) == (printed != "oom"))
            if printed == "oom":
                row += f"{printed:>8} {'fits' if fits else 'oom':>10}"
                continue
            error = 1e3 * ours_s / float(printed) - 1.0
            row += f"{printed:>8} {error:>+10.0%}"
            for group in (engine, network, "all"):
                errors[group].append(abs(error))
        print(row)
    print("\nabsolute error            n  median   p90")
    for group, values in errors.items():
        values.sort()
        print(f"{group:<22} {len(values):>4} {median(values):>7.1%} {values[int(0.9 * (len(values) - 1))]:>5.0%}")
    print(f"\n{known_failures} cells are known failures of the tool: there, our milliseconds stand beside the word")
    print(f"fits or out of memory, cells of the GPU that ran or ran out: {sum(told)} of {len(told)} told right")


if __name__ == "__main__":
    main()
