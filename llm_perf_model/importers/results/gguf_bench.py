"""Results of llama-bench with `-o json`, `-o jsonl` or `-o csv` [1]_.

The files state a build and no version of their layout: read are those with `n_prompt`, `n_gen` and `avg_ts`, which all
builds have; older ones lack `n_depth`. A test of prompts is a prefill, a test of generation is decode steps
after `n_depth` tokens (from an empty cache without it), a test of both counts the tokens of both.

.. [1] https://github.com/ggml-org/llama.cpp, tools/llama-bench/README.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PureWindowsPath
from typing import Any, Final

from ..stated import Stated
from .result import Result
from .tool import format_of, known, text, tools

_MARKS: Final = frozenset({"build_commit", "model_type", "n_prompt", "n_gen", "avg_ts"})
_WEIGHTS: Final = r"(?:mostly |all )?(I?Q\d\w*|B?F16|F32|MXFP4)(?: - (\w)\w*| MoE| - [\d.]+ bpw)?$"
"""How the weights are stored, at the end of the type of a model."""


def recognises(data: Mapping[str, Any]) -> bool:
    """Whether a file is one of these."""
    return data.keys() >= _MARKS


def results(where: str, data: Mapping[str, Any]) -> Iterator[Result]:
    """The rate of one test."""
    tool = tools()["gguf_bench"]
    stated = tool.stated(where, data)
    prompt, generated, depth = (_tokens(stated, key) for key in ("n_prompt", "n_gen", "n_depth"))
    if not prompt and not generated:
        raise stated.refuse("n_prompt and n_gen are both 0, so nothing was measured")
    devices = _devices(stated)
    run = tool.run(
        where,
        engine_version=text(stated, "build_number"),
        device=devices[0] if devices else None,
        n_devices=len(devices) or None,
        model=_model(stated),
        w_dtype=_w_dtype(stated),
        kv_dtype=format_of(text(stated, "type_k")),
        batch=1,
        input_len=prompt or max(depth, 1),
        output_len=generated or None,
        extra=_settings(stated, depth, bool(generated)),
    )
    per_s = stated.needed("avg_ts")
    if not generated:
        yield run.measured("prefill_tok_s", per_s, "tok/s", n_batch_flag=_pass(stated))
    elif not prompt:
        yield run.measured("decode_tok_s", per_s, "tok/s")
    else:
        yield run.measured("throughput_total_tok_s", per_s, "(in+out) tok/s", n_batch_flag=_pass(stated))


def _tokens(stated: Stated, key: str) -> int:
    """A count that may be 0."""
    return 0 if known(stated, key) is None else stated.needed_count(key)


def _pass(stated: Stated) -> int | None:
    """Tokens of a prompt that one pass takes."""
    return min(filter(None, (stated.count("n_batch"), stated.count("n_ubatch"))), default=None)


def _settings(stated: Stated, depth: int, generates: bool) -> dict[str, Any]:
    told = {key: stated.fields.get(key) for key in ("backends", "n_gpu_layers", "n_threads", "split_mode")}
    told |= {"n_depth": depth or None, "decode_steps": True if generates else None}
    return {key: item for key, item in told.items() if item is not None}


def _devices(stated: Stated) -> list[str]:
    """The devices that computed: cards, or the processor where no layer was on a card."""
    cards = text(stated, "gpu_info")
    if cards is None or stated.fields.get("n_gpu_layers") == 0 or stated.fields.get("backends") == "CPU":
        processor = text(stated, "cpu_info")
        return [] if processor is None else [processor]
    names = cards.split(", ")
    return names[:1] if stated.fields.get("split_mode") == "none" else names


def _model(stated: Stated) -> str | None:
    """The name of the file, without the format of its weights."""
    file = text(stated, "model_filename")
    if file is None:
        return None
    return re.sub(r"[-.](I?Q\d\w*|[bf]?f(p)?(16|32)|mxfp4)$", "", PureWindowsPath(file).stem, flags=re.IGNORECASE)


def _w_dtype(stated: Stated) -> str | None:
    """The format of the weights: `Q4_K - Medium` is q4_k_m."""
    found = re.search(_WEIGHTS, text(stated, "model_type") or "")
    if found is None:
        return None
    name, size = found[1].lower(), (found[2] or "").lower()
    return format_of(f"{name}_{size}" if size else name)
