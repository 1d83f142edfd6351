"""Words of an encoder of images that stands alone -> a network of explicit layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from ...graph.stack import parameters
from ...layers import build_network
from ...specs.base import Assumption
from ...specs.layer import Pointwise
from ...specs.network import NetworkSpec
from .counting import plain
from .feeds import activation, dense_width
from .reading import Words
from .vision import sides_of

NORM: Mapping[str, Any] = {"kind": "layer_norm"}
FIRST: Mapping[str, Any] = {"kind": "first"}
CLASSIFIES = "ForImageClassification"
PROJECTS = "WithProjection"


def network_of(words: Words, config: Mapping[str, Any], architecture: str, name: str, title: str) -> NetworkSpec:
    """Patches, equal layers and a head, with the weights of its operators counted.

    Scales of what a layer adds are left out: they are 1 in 10,000 weights.
    """
    hidden, heads = words.need("hidden"), words.need("heads")
    embedding = {
        "kind": "patch_embedding",
        "features": hidden,
        "patch": words.need("patch"),
        "bias": words.flag("patch_bias"),
        "class_token": words.flag("class_token"),
        "positions": True,
    }
    body = [_added({"kind": "attention", "heads": heads, "bias": _biased(words)}), _added(*_feed_forward(words))]
    layers = [
        embedding,
        *([NORM] if words.flag("embedding_norm") else []),
        {"kind": "repeat", "count": words.need("layer_count"), "body": body},
        *([NORM] if words.flag("final_norm") and words.text("head") != "first" else []),
        *_head(words, config, architecture),
    ]
    fields = {
        "name": name,
        "title": title,
        "input": (words.whole("channels") or 3, *sides_of(words)),
        "layers": layers,
        "parameters": 1.0,
        "assumed": (Assumption(fields=("*",), reason="as the fields of its config.json say"),),
    }
    network = NetworkSpec.model_validate(fields, strict=False)
    graph = build_network(network, *plain(), network.input)
    return network.model_copy(update={"parameters": parameters(graph)})


def _added(*layers: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a layer adds to its input, which it normalises first."""
    return {"kind": "residual", "body": [NORM, *layers]}


def _biased(words: Words) -> bool:
    biased = words.flag("attention_bias")
    if words.get("qkv_bias") is not None and words.flag("qkv_bias") != biased:
        raise words.fail("qkv_bias", f"is {not biased}; an attention with a bias of its results alone is not modelled")
    return biased


def _feed_forward(words: Words) -> list[Mapping[str, Any]]:
    width, down = dense_width(words, 0), {"kind": "linear", "features": words.need("hidden")}
    if words.flag("narrowed"):
        halves = [
            [{"kind": "linear", "features": width, "activation": "silu"}],
            [{"kind": "linear", "features": width}],
        ]
        return [{"kind": "parallel", "join": "multiply", "branches": halves}, down]
    act = activation(words).removesuffix("_tanh")
    if act not in get_args(Pointwise):
        raise words.fail("activation", f"is {act!r}; known are {', '.join(get_args(Pointwise))}")
    return [{"kind": "linear", "features": width, "activation": act}, down]


def _head(words: Words, config: Mapping[str, Any], architecture: str) -> list[Mapping[str, Any]]:
    """What makes one result of all steps."""
    hidden, kind = words.need("hidden"), words.text("head")
    if architecture.endswith(CLASSIFIES):
        labels = config.get("id2label")
        count = len(labels) if isinstance(labels, dict) and labels else words.whole("labels") or 2
        both: Mapping[str, Any] = {
            "kind": "parallel",
            "join": "concat",
            "branches": [[FIRST], [{"kind": "global_pool"}]],
        }
        return [both if kind == "none" else FIRST, {"kind": "linear", "features": count}]
    match kind:
        case "pooler":
            return [FIRST, {"kind": "linear", "features": hidden, "activation": "tanh"}]
        case "first":
            joint = {"kind": "linear", "features": words.need("joint_width"), "bias": False}
            return [FIRST, NORM, *([joint] if architecture.endswith(PROJECTS) else [])]
        case "attended" if words.flag("pooling_layer"):  # by a learned query, which is as long as the patches here
            pooled = {"kind": "attention", "heads": words.need("heads"), "bias": _biased(words)}
            return [pooled, _added(*_feed_forward(words)), FIRST]
        case _:
            return []
