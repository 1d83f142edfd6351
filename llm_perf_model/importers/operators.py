"""A path of operators to the layers that a network file holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import get_args

from ..specs.layer import (
    Dense,
    GlobalPool,
    Layer,
    Parallel,
    Pointwise,
    Repeat,
    Residual,
    Shape,
    SqueezeExcite,
    shape_after,
)
from .axes import regrouped
from .branches import Fork, Path, Step
from .functions import OF_ONE_NUMBER, activation_of
from .program import Op
from .reading import Reading
from .sequences import (
    CELLS,
    attention,
    class_token,
    decomposed_norm,
    features_of,
    is_product,
    layer_norm,
    one_step,
    positions,
    recurrent,
    softmax,
)
from .windows import batch_norm, convolution, global_pool, mean, pad, pool

_AFFINE = frozenset({"Add", "Sub", "Mul", "Div"})
_SCALE_AND_SHIFT = {(scale, shift) for scale in ("Mul", "Div") for shift in ("Add", "Sub")}


def read(reading: Reading, path: Path) -> None:
    """Add the layers of a path to a reading.

    Raises:
        RefusedError: an operator has no layer.
    """
    place = 0
    while place < len(path):
        item, rest = path[place], path[place:]
        if any(reading.padding) and item.op.kind not in {"Conv", "MaxPool", "AveragePool"}:
            raise item.op.refused("follows zeros around a map, which only a convolution or a pool takes over")
        count = next(filter(None, (rule(reading, rest) for rule in _RUNS)), 0)
        if not count and isinstance(item, Fork):
            _fork(reading, item)
        elif not count and isinstance(item, Step):
            _step(reading, item)
        place += count or 1
        end = path[place - 1]
        reading.check(end.op, end.op.shape_of(end.output if isinstance(end, Step) else end.op.outputs[0]))


def _activation(reading: Reading, path: Path) -> int:
    """How many items at the begin of a path are an activation, which is read."""
    if path[0].op.kind not in OF_ONE_NUMBER:
        return 0
    found = activation_of(path)
    if found is None:
        return 0
    count, name = found
    reading.weights += sum(item.op.weights for item in path[:count])
    if name is not None:
        reading.activate(name)
    return count


def _shuffle(reading: Reading, path: Path) -> int:
    """How many items at the begin of a path move values and give back the shape that they take: nothing is computed."""
    first = path[0].op
    if first.kind != "Reshape" or regrouped(reading.axes, reading.sizes, first.made) is not None:
        return 0
    for count, item in enumerate(path, 1):
        if item.op.kind not in {"Reshape", "Transpose"}:
            return 0
        if item.op.made == first.given:
            return count
    return 0


def _scale_and_shift(reading: Reading, path: Path) -> int:
    """How many items at the begin of a path are a scale and a shift in two operators, which are one norm."""
    scale, shift = ([item.op if isinstance(item, Step) else None for item in path[:2]] + [None])[:2]
    if scale is None or shift is None or (scale.kind, shift.kind) not in _SCALE_AND_SHIFT:
        return 0
    widths = {prod(constant.shape) for op in (scale, shift) for constant in op.constants.values()}
    if widths != {reading.width}:
        return 0
    reading.weights += scale.weights + shift.weights
    reading.norm()
    return 2


_RUNS = (attention, decomposed_norm, _activation, _shuffle, _scale_and_shift)
"""Rules for several operators that are one layer together; each says how many it has read."""


def _step(reading: Reading, item: Step) -> None:
    op = item.op
    if op.kind in OF_ONE_NUMBER - _AFFINE:
        raise op.refused(f"makes a function that is none of the activations {', '.join(get_args(Pointwise))}")
    if op.kind not in READERS and op.kind not in CELLS and op.kind not in _AFFINE:
        raise op.refused(f"is no layer that is known; supported operators: {', '.join(SUPPORTED)}")
    reading.weights += op.weights
    if op.kind in CELLS:
        recurrent(reading, op, item.output)
    elif op.kind in _AFFINE:
        _affine(reading, op)
    else:
        READERS[op.kind](reading, op)


def _affine(reading: Reading, op: Op) -> None:
    """A bias, positions of patches, or a scale and a shift of each channel."""
    elements = max(prod(constant.shape) for constant in op.constants.values())
    if op.kind == "Add" and (reading.bias(elements) or positions(reading, op)):
        return
    if elements not in {1, reading.width}:
        raise op.refused("adds or multiplies constants that are neither a bias nor a scale of channels or features")
    reading.norm()


def _product(reading: Reading, op: Op) -> None:
    if not is_product(op):
        raise op.refused("is a layer only as rows times a matrix of weights, or as self-attention")
    reading.product(op, features_of(op), 2 in op.constants)


def _concat(reading: Reading, op: Op) -> None:
    if not class_token(reading, op):
        raise op.refused("constants beside data are a layer only as a class token before patches")


def _regroup(reading: Reading, op: Op) -> None:
    reading.regroup(op)


def _transpose(reading: Reading, op: Op) -> None:
    order = op.attributes.get("perm") or range(len(reading.axes))[::-1]
    reading.axes = tuple(reading.axes[axis] for axis in order)


def _layer_norm(reading: Reading, op: Op) -> None:
    layer_norm(reading, op, 2 in op.constants)


READERS: Mapping[str, Callable[[Reading, Op], None]] = {
    "AveragePool": pool,
    "BatchNormalization": batch_norm,
    "Concat": _concat,
    "Conv": convolution,
    "Flatten": _regroup,
    "Gather": one_step,
    "Gemm": _product,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "LayerNormalization": _layer_norm,
    "MatMul": _product,
    "MaxPool": pool,
    "Pad": pad,
    "ReduceMean": mean,
    "Reshape": _regroup,
    "Slice": one_step,
    "Softmax": softmax,
    "Squeeze": _regroup,
    "Transpose": _transpose,
    "Unsqueeze": _regroup,
}
"""Operator -> what reads it."""

SUPPORTED = tuple(sorted({*READERS, *CELLS, *OF_ONE_NUMBER, "Attention", "Sum"}))


# Branches.


def _fork(reading: Reading, fork: Fork) -> None:
    op = fork.op
    if op.kind not in {"Add", "Sum", "Mul", "Concat"} or op.constants:
        raise op.refused("branches are layers that end in a sum, a product or side by side, or as self-attention")
    reading.settle()
    branches = []
    for path in fork.branches:
        branch = reading.branch()
        read(branch, path)
        branch.settle()
        branches.append(branch)
    reading.weights += sum(branch.weights for branch in branches)
    found = [written_once(branch.layers, reading.shape) for branch in branches]
    widest = max(branches, key=lambda branch: len(branch.shape))
    try:
        layer = _joined(op, found, widest)
        reading.add(layer, widest.axes)
    except ValueError as error:
        raise op.refused(str(error)) from None


def _joined(op: Op, branches: list[tuple[Layer, ...]], widest: Reading) -> Layer:
    match op.kind:
        case "Concat":
            if widest.axes[op.attributes["axis"]] != ("c" if len(widest.shape) == 3 else "f"):
                raise ValueError("tensors side by side are a layer along channels or features")
            return Parallel(kind="parallel", join="concat", branches=tuple(branches))
        case "Mul":
            gate = _gate(branches, channels=widest.shape[0])
            return gate or Parallel(kind="parallel", join="multiply", branches=tuple(branches))
        case _:
            if len(branches) != 2 or not any(branches):
                raise ValueError("a sum is a layer of two branches")
            body, shortcut = sorted(branches, key=len, reverse=True)
            return Residual(kind="residual", body=body, shortcut=shortcut)


def _gate(branches: list[tuple[Layer, ...]], channels: int) -> SqueezeExcite | None:
    """Channels scaled by two dense layers over their means."""
    if len(branches) != 2 or all(branches) or not any(branches):
        return None
    match branches[0] or branches[1]:
        case (
            GlobalPool(),
            Dense(bias=True, activation=str(first)) as down,
            Dense(bias=True, activation=str(gate)) as up,
        ) if up.features == channels:
            return SqueezeExcite(kind="squeeze_excite", channels=down.features, activation=first, gate=gate)
        case _:
            return None


# Equal blocks that follow each other.

_LONGEST_BLOCK = 8


def written_once(layers: Sequence[Layer], shape: Shape) -> tuple[Layer, ...]:
    """Layers with three or more equal blocks in a row written once."""
    found: list[Layer] = []
    place = 0
    while place < len(layers):
        count, length = max((_copies(layers[place:], length), length) for length in range(1, _LONGEST_BLOCK + 1))
        block = tuple(layers[place : place + length])
        if count >= 3 and shape_after(block, shape) == shape:
            found.append(Repeat(kind="repeat", count=count, body=block))
            place += count * length
        else:
            found.append(layers[place])
            shape = layers[place].shape(shape)
            place += 1
    return tuple(found)


def _copies(layers: Sequence[Layer], length: int) -> int:
    count = 1
    while layers[:length] == layers[count * length : (count + 1) * length]:
        count += 1
    return count
