"""A config, read -> the spec of a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from ...errors import SpecError
from ...graph.stack import active_parameters, build, parameters
from ...specs.base import Assumption
from ...specs.model import AudioInput, EncoderStack, LayerGroup, LayerInputs, ModelSpec, Position, Prediction, Vision
from ...specs.network import NetworkSpec
from .counting import plain
from .network import network_of
from .reading import SOUND, TEXT_PARTS, Family, Words, family, family_of_class, words_of
from .stack import further, groups
from .vision import norm_of, vision

WITHOUT_HEAD = re.compile(
    r"(?<!LMHead)(?<!DoubleHeads)Model$|Classification$|Reward|Embedding|Sentence|QuestionAnswering$"
)
"""Classes of models that score no words."""
GENERATES = re.compile(r"ForCausalLM$|LMHeadModel$")
GATED_LIKE = frozenset({"silu", "swiglu"})
"""Activations of feed-forwards that are gated in every model of an unknown family."""
POSITIONS: dict[str, Position] = {
    "learned": "learned", "rotary": "rotary", "alibi": "alibi", "relative": "relative", "none": "none",
}  # fmt: skip


def model_of(config: Mapping[str, Any], name: str, title: str, where: str) -> ModelSpec | NetworkSpec:
    """The model that a config describes, or the network of an encoder of images alone, with its parameters counted."""
    kind = family_at(config, where)
    try:
        if "alone" in kind.defaults:
            return network_of(words_of(config, kind, where), config, _class_of(config) or "", name, title)
        return counted(_model(config, kind, name, title, where))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise SpecError(f"{where}: {field}: {problem['msg'].removeprefix('Value error, ')}") from None


def _model(config: Mapping[str, Any], kind: Family, name: str, title: str, where: str) -> ModelSpec:
    """The model that a config describes, whose weights are yet to count."""
    inner = next((config[part] for part in TEXT_PARTS if isinstance(config.get(part), dict)), None)
    while inner is not None and isinstance(inner.get("text_config"), dict):
        inner = inner["text_config"]
    outer = words_of(config, kind, where)
    if inner is None:
        text = outer
        if not {"hidden", "layer_count"} & outer.names.keys():
            raise SpecError(f"{where}: {outer.named('hidden')} and {outer.named('layer_count')} are missing")
    else:
        text = words_of(inner, _inside(inner, kind, where), f"{where}: text_config")
        if "tied" in outer.names:
            text = replace(text, values={**text.values, "tied": outer.get("tied")})
    return _spec(text, name, title, _head(config, text, kind), _seen(config, kind, text, outer, where))


def family_at(config: Mapping[str, Any], where: str) -> Family:
    """The family of a config, by its `model_type`, or else by the class of the model."""
    named, architecture = config.get("model_type"), _class_of(config)
    if named is not None and not isinstance(named, str):
        raise SpecError(f"{where}: model_type: is {named!r}; must be text")
    if not named and architecture is None:
        beside = "; give the config.json beside it" if "quantization" in config else ""
        raise SpecError(f"{where}: is no config of a model: it has neither model_type nor architectures{beside}")
    kind = family(named) if named else None
    if architecture is not None and (kind is None or kind.name == "any"):
        kind = family_of_class(architecture) or kind
    if kind is None:
        kind = _unknown(config, named, architecture, where)
    if kind.refused is not None:
        raise SpecError(f"{where}: model_type '{kind.name}' cannot be imported: {kind.refused}")
    return kind


def _class_of(config: Mapping[str, Any]) -> str | None:
    """The class of the model that a config is for."""
    classes = config.get("architectures")
    classes = [classes] if isinstance(classes, str) else classes
    first = classes[0] if isinstance(classes, list) and classes else None
    return first if isinstance(first, str) else None


def _unknown(config: Mapping[str, Any], named: str | None, architecture: str | None, where: str) -> Family:
    """Decoders of a family that is not known are read as the plain one, where all that their fields say is known."""
    kind = family("any")
    generates = architecture is not None and GENERATES.search(architecture)
    if kind is None or not generates or config.get("hidden_act", "silu") not in GATED_LIKE:
        raise SpecError(
            f"{where}: model_type '{named or architecture}' is not known; describe the model in a model file"
        )
    return kind


def _inside(inner: Mapping[str, Any], outer: Family, where: str) -> Family:
    """The family of the language model inside a larger one."""
    if inner.get("model_type") is None and outer.text is not None:
        kind = family(outer.text)
        if kind is not None:
            return kind
    return family_at(inner, f"{where}: text_config")


def _seen(config: Mapping[str, Any], kind: Family, text: Words, outer: Words, where: str) -> Vision | None:
    """The encoder of images of a config that has one."""
    for part in SOUND:
        if config.get(part):
            raise SpecError(
                f"{where}: field '{part}' is not known and may change the arithmetic: no encoder of sound is"
            )
    inner = config.get("vision_config") or (config.get("thinker_config") or {}).get("vision_config")
    if not isinstance(inner, dict) or not inner:
        return None
    named = inner.get("model_type")
    eye = family(named) if isinstance(named, str) and kind.vision != named else None
    eye = eye if eye is not None and "patch_bias" in eye.defaults else family(kind.vision) if kind.vision else None
    if eye is None:
        raise SpecError(f"{where}: vision_config: model_type {named!r} is not known and may change the arithmetic")
    if eye.refused is not None:
        raise SpecError(f"{where}: vision_config: model_type '{eye.name}' cannot be imported: {eye.refused}")
    return vision(words_of(inner, eye, f"{where}: vision_config"), text.need("hidden"), outer)


def _head(config: Mapping[str, Any], words: Words, kind: Family) -> Any:
    """What reads the last hidden states."""
    plain = words.text("head") or "lm"
    if plain != "lm" or words.whole("encoder_layers") is not None:
        return plain
    architecture = _class_of(config) or ""
    return "none" if architecture not in kind.architectures and WITHOUT_HEAD.search(architecture) else "lm"


def _spec(words: Words, name: str, title: str, head: Any, seen: Vision | None) -> ModelSpec:
    hidden, encoder = words.need("hidden"), _encoder(words)
    stack = groups(words, crossed=encoder is not None)
    width = words.whole("embedding_width")
    return ModelSpec(
        name=name,
        title=title,
        causal=words.get("causal") is not False,
        hidden=hidden,
        vocab=words.need("vocab"),
        max_positions=words.whole("max_positions"),
        position=position_of(words),
        position_rows=_position_rows(words),
        position_buckets=words.whole("position_buckets") if position_of(words) == "relative" else None,
        norm=norm_of(words),
        norm_bias=words.get("norm_bias") is not False,
        embedding_norm=words.flag("embedding_norm"),
        final_norm=words.get("final_norm") is not False,
        tied_embeddings=words.flag("tied"),
        head=head,
        head_bias=words.flag("head_bias"),
        token_types=words.whole("token_types"),
        layers=stack,
        encoder=encoder,
        vision=seen,
        prediction=_prediction(words, stack),
        layer_inputs=_layer_inputs(words),
        embedding_width=None if width == hidden else width,
        residual_streams=words.whole("streams"),
        parameters=1.0,
        assumed=(Assumption(fields=("*",), reason="as the fields of its config.json say"),),
    )


def position_of(words: Words) -> Position:
    """How places of tokens are told."""
    if words.flag("alibi"):
        return "alibi"
    return POSITIONS[words.text("position") or "rotary"]


def _position_rows(words: Words) -> int | None:
    if position_of(words) != "learned":
        return None
    return words.need("max_positions") + (words.whole("position_offset") or 0)


def _encoder(words: Words) -> EncoderStack | None:
    """The encoder of an encoder-decoder, whose sizes may be its own."""
    count = words.whole("encoder_layers")
    if count is None:
        return None
    own = {word.removeprefix("encoder_"): value for word, value in words.values.items() if word.startswith("encoder_")}
    own = {word: value for word, value in own.items() if value is not None}
    inner = replace(words, values={**words.values, **own, "layer_count": count, "norms": 2, "encoder_layers": None})
    return EncoderStack(
        layers=groups(inner),
        audio=_audio(words),
        embedding_norm=words.flag("embedding_norm"),
        final_norm=words.get("final_norm") is not False,
    )


def _audio(words: Words) -> AudioInput | None:
    """The sound that an encoder reads."""
    bins = words.whole("mel_bins")
    return None if bins is None else AudioInput(mel_bins=bins, position_rows=words.need("source_positions"))


def _prediction(words: Words, stack: tuple[LayerGroup, ...]) -> Prediction | None:
    depth = words.whole("prediction")
    if depth is None or words.get("use_prediction") is False:
        return None
    return Prediction(depth=depth, layers=(further(words, stack[-1]),))


def _layer_inputs(words: Words) -> LayerInputs | None:
    width = words.whole("layer_input_width")
    return None if width is None else LayerInputs(vocab=words.need("layer_input_vocab"), width=width)


def counted(model: ModelSpec) -> ModelSpec:
    """The model with the weights of its operators counted."""
    engine, precision = plain()
    graph = build(model.model_copy(update={"prediction": None}), engine, precision, tp=1)
    total, active = parameters(graph), active_parameters(graph)
    return model.model_copy(update={"parameters": total, "active_parameters": active})
