"""A language model of random weights on a device, and the passes of it that are timed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from ..errors import RequestError
from ..specs.model import ModelSpec
from .backends import Backend, place_of, prepared
from .configs import config_of, families
from .device import Device
from .packages import missing, tensors
from .precisions import Precision
from .trials import Prepared, Task, Trial

ENGINES: Final = Path(__file__).with_name("engines.json")
"""Backend -> place -> how attention runs, or the task -> the engine whose estimate stands for it; and the tasks that it
runs, where these are not all, with why."""

_ANY_TOKEN: Final = 0
_KEPT: Final = ("eos_token_id", "bos_token_id", "forced_eos_token_id", "forced_bos_token_id")
"""Tokens that would begin or end a text of their own accord."""


def tasks_of_model(model: ModelSpec) -> tuple[Task, ...]:
    """What can be timed of a model."""
    if not model.causal:
        return ("forward",)
    return ("prefill", "decode", "generate") if model.encoder else ("prefill", "decode", "generate", "forward")


class Language:
    """A model file as a module of the family that its config is of, with random weights.

    It is made on the device, in the type of its weights: there is no second copy, and nothing is loaded.

    Raises:
        RequestError: no family that can be built is like the model, or a package is missing.
    """

    def __init__(self, model: ModelSpec, device: Device, precision: Precision, backend: Backend) -> None:
        self.model, self._device, self._precision, self._backend = model, device, precision, backend
        self.module = built(model, device.target, backend.weights_of(precision.dtype))
        if precision.narrow:
            narrowed(self.module, device)

    def engine(self, trial: Trial) -> str:
        """The engine that records of a trial name."""
        attention = "materialised" if self.module.config._attn_implementation == "eager" else "fused"
        return self._backend.recorded or engine_of(self._backend, self._device, trial.task, attention)

    def prepared(self, trial: Trial) -> Prepared:
        """The call of a trial; what it reads is on the device before."""
        torch = tensors()
        ids = tokens(self.model, trial, self._device)
        match trial.task:
            case "prefill":
                return self._call(_Pass(self.module, self._arguments(ids)), ids)
            case "decode":
                with torch.inference_mode():
                    cached = self.module(ids, **self._arguments(ids))
                step = _Step(self.module, cached, self.model.encoder is not None)
                return self._call(step, ids[:, :1], step.restart)
            case "generate":
                options = {"max_new_tokens": trial.output_len, "num_beams": trial.num_beams, "do_sample": False}
                return self._call(_Generation(self.module, options), ids)
            case _:
                plain = {"use_cache": False} if self.model.causal else {}
                return self._call(_Pass(self.module, plain), ids)

    def _call(self, module: Any, ids: Any, before: Callable[[], object] | None = None) -> Prepared:
        wrapped = _as_module(module)
        return Prepared(prepared(self._backend, wrapped, (ids,), self._precision.dtype, self._device), before)

    def _arguments(self, ids: Any) -> dict[str, Any]:
        """What a prefill takes beside its tokens: it keeps a cache, and scores the last token alone."""
        torch = tensors()
        found: dict[str, Any] = {"use_cache": True}
        if self.model.encoder is not None:
            found["decoder_input_ids"] = torch.full_like(ids[:, :1], _ANY_TOKEN)
        elif self.module._supports_logits_to_keep():
            found["logits_to_keep"] = 1
        return found


def engine_of(backend: Backend, device: Device, task: Task, attention: str = "fused") -> str:
    """The engine whose estimate stands for a task.

    Raises:
        RequestError: the backend runs no language models.
    """
    here = _told(backend)[place_of(device)]
    return str(here["forward"] if task == "forward" else here[attention])


def left_out(backend: Backend, task: Task) -> str | None:
    """Why a backend does not run a task of a language model; None: it does.

    Raises:
        RequestError: the backend runs none of them.
    """
    told = _told(backend)
    return str(told["why"]) if task not in told.get("tasks", (task,)) else None


def _told(backend: Backend) -> Mapping[str, Any]:
    engines = _engines()
    if backend.name not in engines:
        raise RequestError(f"backend {backend.name}: runs no language models; give {', '.join(engines)}")
    return engines[backend.name]


@cache
def _engines() -> dict[str, Mapping[str, Any]]:
    table: dict[str, Mapping[str, Any]] = json.loads(ENGINES.read_text(encoding="utf-8"))
    return table


def built(model: ModelSpec, target: Any, dtype: Any) -> Any:
    """The module of a model file, its weights random, on a device and in a type.

    Raises:
        RequestError: no family that can be built is like it, or the package is missing.
    """
    fields = config_of(model)
    torch = tensors()
    try:
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    except ImportError:
        raise missing("transformers") from None
    config = AutoConfig.for_model(**fields)
    kind = AutoModelForSeq2SeqLM if model.encoder else AutoModelForCausalLM if model.causal else AutoModel
    rest = families()[fields["model_type"]].get("headless", {}) if model.head == "none" else {}
    with torch.device(target):
        module = kind.from_config(config, dtype=dtype, **rest).eval().requires_grad_(False)
    if model.causal:
        _untie(module, model.tied_embeddings)
        told = module.generation_config
        for name in _KEPT:
            setattr(told, name, None)
        told.pad_token_id = told.decoder_start_token_id = _ANY_TOKEN
    return module


def _untie(module: Any, tied: bool) -> None:
    """Give the output weights of their own, where a family shares those of its token table whatever its config says."""
    torch = tensors()
    head = module.get_output_embeddings()
    if not tied and head.weight is module.get_input_embeddings().weight:
        head.weight = torch.nn.Parameter(head.weight.clone(), requires_grad=False)


def weights_of(module: Any) -> int:
    """How many weights a module has; tied ones count once."""
    return sum(weights.numel() for weights in module.parameters())


def tokens(model: ModelSpec, trial: Trial, device: Device) -> Any:
    """Random prompts on a device, the same ones in every run: batch x length."""
    torch = tensors()
    generator = torch.Generator().manual_seed(0)
    shape = (trial.batch_size, trial.input_len or 1)
    return torch.randint(0, model.vocab, shape, generator=generator).to(device.target)


def narrowed(module: Any, device: Device) -> None:
    """Keep the weights of dense layers in 8 bits, those of the output apart."""
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    torch = tensors()
    head = module.get_output_embeddings()
    dense = [(name, part) for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)]
    for name, part in dense:
        if part is not head:
            narrow = Linear8bitLt(part.in_features, part.out_features, part.bias is not None, has_fp16_weights=False)
            narrow.weight = Int8Params(part.weight.data, requires_grad=False, has_fp16_weights=False)
            narrow.bias = part.bias
            module.set_submodule(name, narrow.to(device.target))


class _Pass:
    """One pass over prompts."""

    def __init__(self, module: Any, options: Mapping[str, Any]) -> None:
        self.module, self._options = module, options

    def run(self, ids: Any) -> Any:
        made = self.module(ids, **self._options, return_dict=True)
        return made[0]


class _Step:
    """One step behind a prefill, whose cache it finds as it was each time."""

    def __init__(self, module: Any, prefilled: Any, encodes: bool) -> None:
        self.module, self._kept = module, prefilled.past_key_values
        self._encoded = (prefilled.encoder_last_hidden_state,) if encodes else None
        self.restart()

    def restart(self) -> None:
        """Take the cache of the prefill again; steps put longer tensors in place of its own, which stay as they are."""
        self._cached = restored(self._kept)

    def run(self, ids: Any) -> Any:
        given = (
            {"input_ids": ids}
            if self._encoded is None
            else {"decoder_input_ids": ids, "encoder_outputs": self._encoded}
        )
        return self.module(**given, past_key_values=self._cached, use_cache=True)[0]


class _Generation:
    """A greedy or a beam search for a fixed number of tokens."""

    def __init__(self, module: Any, options: Mapping[str, Any]) -> None:
        self.module, self._options = module, options

    def run(self, ids: Any) -> Any:
        return self.module.generate(ids, attention_mask=tensors().ones_like(ids), **self._options)


def _as_module(part: _Pass | _Step | _Generation) -> Any:
    """What runs as a module that holds the weights."""
    import torch

    class Whole(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = part.module

        def forward(self, ids: Any) -> Any:
            return part.run(ids)

    return Whole().eval()


def restored(cached: Any) -> Any:
    """A cache that holds the tensors of another, and grows apart from it."""
    from transformers.cache_utils import Cache

    fresh = copy.copy(cached)
    for name, value in vars(cached).items():
        if isinstance(value, list):
            setattr(fresh, name, [copy.copy(layer) for layer in value])
        elif isinstance(value, dict):
            setattr(fresh, name, dict(value))
        elif isinstance(value, Cache):
            setattr(fresh, name, restored(value))
    return fresh
