"""Operators of sequences: recurrent layers, layer norms, attention, class tokens and positions of patches."""

from __future__ import annotations

import re
from math import prod
from typing import Literal

from ..specs.layer import Attention, LayerNorm, OneStep, Recurrent, Softmax, text_of
from .axes import regrouped
from .branches import VIEWS, Fork, Item, Path, Step, operators
from .program import Op
from .reading import Reading

CELLS: dict[str, Literal["lstm", "gru", "rnn"]] = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}


def recurrent(reading: Reading, op: Op, output: str) -> None:
    """A recurrent layer; stacked on an equal one, a layer more of it."""
    batch_first = bool(op.attributes.get("layout"))
    if not reading.as_steps():
        raise op.refused("takes steps and features")
    if 1 not in op.constants or 2 not in op.constants:
        raise op.refused("its weights are no initialisers")
    hidden = op.constants[2].shape[-1]
    layer = Recurrent(
        kind=CELLS[op.kind],
        hidden=hidden,
        bias=3 in op.constants,
        bidirectional=op.attributes.get("direction") == "bidirectional",
    )
    last = reading.layers[-1] if reading.layers else None
    if isinstance(last, Recurrent) and last.model_copy(update={"layers": 1}) == layer:
        reading.layers[-1] = last.model_copy(update={"layers": last.layers + 1})
    else:
        reading.add(layer, ())
    reading.axes = ("n", "t", "d", "f") if batch_first else ("t", "d", "n", "f")
    if output in op.outputs[1:]:
        reading.add(OneStep(kind="last"), ("n", "d", "f") if batch_first else ("d", "n", "f"))
    reading.directions = layer.directions


def one_step(reading: Reading, op: Op) -> None:
    """The first or the last step, alone."""
    if op.kind == "Gather" and 1 not in op.constants:
        raise op.refused("looks up rows of a table: embeddings are no layer")
    if op.kind == "Gather":
        index, axis, alone = _index(op), op.attributes.get("axis", 0), op.constants[1].shape == ()
    else:
        index, axis, alone = *_slice(op), False
    axis %= len(op.given)
    if op.made == op.given and not alone:
        return
    steps = op.given[axis]
    if reading.axes[axis] != "t" or index is None or index % steps not in {0, steps - 1} or op.made[axis:][:1] == (0,):
        raise op.refused("takes another part of a tensor than its first or last step")
    if not alone and op.made[axis] != 1:
        raise op.refused("takes several steps of a sequence")
    kept = tuple("" if place == axis else name for place, name in enumerate(reading.axes))
    axes = kept[:axis] + kept[axis + 1 :] if alone else kept
    directions = reading.directions
    reading.add(OneStep(kind="first" if index % steps == 0 else "last"), axes)
    reading.directions = directions


def _index(op: Op) -> int | None:
    values = op.constants[1].values if 1 in op.constants else None
    return int(values.reshape(-1)[0]) if values is not None and values.size == 1 else None


def _slice(op: Op) -> tuple[int | None, int]:
    """Begin and axis of a slice along one axis."""
    if 1 in op.constants:
        found = [op.constants[place].values if place in op.constants else None for place in (1, 3)]
    else:
        found = [op.attributes.get("starts"), op.attributes.get("axes")]
    starts, axes = ([] if values is None else [int(value) for value in values] for values in found)
    changed = [
        (start, axis)
        for start, axis in zip(starts, axes or range(len(starts)), strict=True)
        if op.made[axis] != op.given[axis]
    ]
    return changed[0] if len(changed) == 1 else (None, 0)


def layer_norm(reading: Reading, op: Op, bias: bool) -> None:
    """The features of each step, or the channels of each place."""
    if op.attributes.get("axis", -1) % len(op.given) != len(op.given) - 1 or op.given[-1] != reading.width:
        raise op.refused("normalises other axes than features, or channels of each place")
    reading.settle()
    reading.add(LayerNorm(kind="layer_norm", bias=bias), reading.axes)


def softmax(reading: Reading, op: Op) -> None:
    """Features, or channels of each place, as shares of 1."""
    axis = op.attributes.get("axis", -1)
    if reading.axes[axis] not in {"f", "c"}:
        raise op.refused("is over an axis that holds neither features nor channels")
    reading.add(Softmax(kind="softmax"), reading.axes)


# Layer norms written as sums and means.

_DECOMPOSED = re.compile(r"Sub\(\|ReduceMean\) Div\(\|(Pow|Mul\(\|\)) ReduceMean Add Sqrt\)( Mul)?(?P<bias> Add)?")


def _signature(item: Item) -> str:
    if isinstance(item, Step):
        return item.op.kind
    return f"{item.op.kind}({'|'.join(' '.join(map(_signature, branch)) for branch in item.branches)})"


def decomposed_norm(reading: Reading, path: Path) -> int:
    """How many items at the begin of a path are a layer norm, which is read."""
    for count in (4, 3, 2):
        found = _DECOMPOSED.fullmatch(" ".join(map(_signature, path[:count])))
        if found and len(path) >= count:
            first = path[0].op
            reading.weights += sum(item.op.weights for item in path[2:count])
            if first.given[-1] != reading.width:
                raise first.refused("normalises other axes than features, or channels of each place")
            reading.settle()
            reading.add(LayerNorm(kind="layer_norm", bias=found["bias"] is not None), reading.axes)
            return count
    return 0


# Attention: products of the input for queries, keys and values, softmax(QK^T)V, a product.

_SCALES = frozenset({"Mul", "Div", "Sqrt"})
_JOINS = frozenset({"MatMul", "Attention"})


def is_product(op: Op) -> bool:
    """Whether an operator multiplies rows with a matrix of weights."""
    return op.kind in {"Gemm", "MatMul"} and 1 in op.constants and len(op.constants[1].shape) == 2


def features_of(op: Op) -> int:
    """Columns of that matrix."""
    shape = op.constants[1].shape
    return shape[0] if op.attributes.get("transB") else shape[1]


def _carries(item: Item) -> bool:
    """Whether an item moves, shifts or scales what products make."""
    op = item.op
    scales = op.kind in _SCALES and all(constant.scalar is not None for constant in op.constants.values())
    return isinstance(item, Step) and (op.kind in VIEWS or scales or (op.kind == "Add" and bool(op.constants)))


def attention(reading: Reading, path: Path) -> int:
    """How many items at the begin of a path are self-attention with its products, which is read."""
    fork = next((place for place, item in enumerate(path) if not (_carries(item) or is_product(item.op))), len(path))
    if fork == len(path) or path[fork].op.kind not in _JOINS or not isinstance(path[fork], Fork):
        return 0
    before = [item.op for item in path[:fork]]
    joined = path[fork].op
    inside = [op for op in operators((path[fork],)) if op is not joined]
    products = [op for op in inside if is_product(op)]
    if products and before:
        return 0  # the items before it are read first
    if not products and (not before or not is_product(before[0]) or sum(map(is_product, before)) != 1):
        return 0
    products = products or before[:1]
    after = next((place for place in range(fork + 1, len(path)) if path[place].op.kind not in VIEWS), len(path))
    if after == len(path) or not is_product(path[after].op):
        raise joined.refused("attention is a layer with the product after it, which is missing")
    end = after + 1
    if path[after].op.kind == "MatMul" and end < len(path) and path[end].op.kind == "Add" and path[end].op.constants:
        end += 1
    last = path[end - 1].op
    if not reading.as_steps():
        raise joined.refused("attention takes steps and features")
    steps, width = reading.shape
    heads = _heads(reading, path[fork], inside)
    widths = sum(map(features_of, products))
    if widths != 3 * width or features_of(path[after].op) != width:
        raise joined.refused(
            f"queries, keys and values of {width} features need {3 * width} columns together, but have {widths}"
        )
    used = [*before, *inside, *(item.op for item in path[fork:end])]
    reading.weights += sum(op.weights for op in used)
    biased = any((op.kind == "Gemm" and 2 in op.constants) or op.kind == "Add" for op in used)
    order = "".join(reading.axes)
    letters = ("n", "t", "f") if order.find("t") > order.find("n") else ("t", "n", "f")
    reading.add(Attention(kind="attention", heads=heads, bias=biased), letters)
    axes = regrouped(letters, reading.sizes, last.made)
    if axes is None:
        raise last.refused(f"does not make the {text_of((steps, width))} values of a sample")
    reading.axes = axes
    return end


def _heads(reading: Reading, fork: Item, inside: list[Op]) -> int:
    """Heads, from the shape of the scores; refuses masks, and scores of other sequences."""
    joined, steps = fork.op, reading.shape[0]
    if joined.kind == "Attention":
        if joined.attributes.get("is_causal") or len(joined.data) != 3:
            raise joined.refused("attention is a layer without masks and without a cache")
        return int(joined.attributes.get("q_num_heads", joined.given[1]))
    softmaxes = [op for op in inside if op.kind == "Softmax"]
    scores = [op for op in inside if op.kind == "MatMul" and len(op.data) == 2]
    if len(softmaxes) != 1 or len(scores) != 1:
        raise joined.refused("two products of data are a layer only as softmax(QK^T)V")
    strange = [
        op
        for op in inside
        if not (is_product(op) or op.kind in VIEWS | _SCALES or op is softmaxes[0] or op is scores[0])
        and not (op.kind == "Add" and op.constants and op.made != scores[0].made)
    ]
    if strange:
        raise strange[0].refused("attention is a layer without masks and without weights of positions")
    made = scores[0].made
    if made[-2:] != (steps, steps):
        raise joined.refused(f"scores of {text_of(made)} are not those of {steps} steps to {steps} steps")
    return prod(made[:-2]) // reading.samples


# Patches of an image.


def class_token(reading: Reading, op: Op) -> bool:
    """Whether a constant is put before the patches as a step more, which is read."""
    constant = next(iter(op.constants.values()), None)
    if constant is None or len(op.data) != 1:
        return False
    patches = reading.patches()
    if patches is None or patches.class_token or patches.positions or constant.weights != patches.features:
        return False
    reading.learned(class_token=True)
    return True


def positions(reading: Reading, op: Op) -> bool:
    """Whether each step of patches is given features of its own, which is read."""
    constant = next(iter(op.constants.values()), None)
    places = prod(op.made) // reading.samples
    if constant is None or constant.weights != places or (len(reading.shape) == 3 and not reading.holds("hw", "c")):
        return False
    patches = reading.patches()
    if patches is None or patches.positions:
        return False
    reading.learned(positions=True)
    return True
