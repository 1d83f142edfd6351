"""An ONNX file as operators: shapes known, what is constant folded, what only passes values on left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from ..specs.layer import Shape, text_of
from .folding import LARGEST_VALUE, RefusedError, folded

PASSED_ON = frozenset({"Identity", "Dropout", "Cast", "QuantizeLinear", "DequantizeLinear"})
"""Operators that leave values as they are: the precision of an estimate is the user's choice."""

WEIGHTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Add": (0, 1),
    "Sub": (0, 1),
    "Mul": (0, 1),
    "Div": (0, 1),
    "PRelu": (1,),
    "Concat": (0, 1),
}
"""Operator -> places of the inputs that are weights."""

_CONSTANT_INITIALISERS = 4
"""Version of the format since which initialisers cannot be replaced by inputs, so that inference takes their values."""

_SOFTMAX_OF_THE_LAST_AXIS = 13
"""Version of the operators since which a softmax is over the last axis unless it says another; before: the second."""

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that does not depend on the input: its shape, its values where they are few."""

    shape: Shape
    weights: int
    """Elements of initialisers that it is made of."""
    values: Any = None

    @property
    def scalar(self) -> float | None:
        """The value of a tensor of one element."""
        return None if self.values is None or self.values.size != 1 else float(self.values.reshape(()))


@dataclass(frozen=True, slots=True)
class Op:
    """An operator of the graph, with the shapes of the tensors that it reads and makes."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    """Names by position; empty where an optional one is left out."""
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[int, Constant]
    """Inputs that are constant, by position."""
    shapes: Mapping[str, Shape] = field(repr=False)

    @property
    def data(self) -> tuple[str, ...]:
        """Inputs that depend on the input of the network; states of recurrent layers start anew with each sample."""
        names = self.inputs[:1] if self.kind in RECURRENT else self.inputs
        return tuple(name for place, name in enumerate(names) if name and place not in self.constants)

    @property
    def weights(self) -> int:
        """Trained numbers among its constants: no sizes, no single numbers, and no mean and variance of a norm."""
        found = (self.constants[place] for place in WEIGHTS.get(self.kind, ()) if place in self.constants)
        return sum(constant.weights for constant in found if constant.shape)

    @property
    def given(self) -> Shape:
        """Shape of the first input that is not constant."""
        return self.shape_of(self.data[0])

    @property
    def made(self) -> Shape:
        """Shape of the first output."""
        return self.shape_of(self.outputs[0])

    def shape_of(self, name: str) -> Shape:
        """Shape of a tensor."""
        if name not in self.shapes:
            raise RefusedError(f"node {self.name} ({self.kind}): the shape of {name} cannot be inferred")
        return self.shapes[name]

    def refused(self, reason: str) -> RefusedError:
        """The error that names the operator, what it is given and what is missing."""
        given = " and ".join(text_of(self.shapes[name]) or "a scalar" for name in self.data if name in self.shapes)
        return RefusedError(f"node {self.name} ({self.kind} of {given or 'constants'}): {reason}")


@dataclass(frozen=True, slots=True)
class Program:
    """Operators in their order, from the input of a sample to the first output."""

    source: str
    target: str
    shape: Shape
    """Of the input, with the batch."""
    batch_axis: int
    ops: tuple[Op, ...]


def program_of(model: Any, sample: Shape | None) -> Program:
    """The operators of an ONNX model; `sample` gives the sizes that the file leaves open.

    Raises:
        RefusedError: the graph has several inputs, a size is open, or a shape cannot be inferred.
    """
    graph = model.graph
    if not graph.node or not graph.output:
        raise RefusedError("holds no operators")
    weights = _without_weights(graph)
    model.ir_version = max(model.ir_version, _CONSTANT_INITIALISERS)
    source = _source(graph, weights)
    batch_axis = _batch_axis(graph, source)
    _bind(graph, source, batch_axis, sample)
    declared = {value.name: _dims(value) for value in graph.output}
    shapes, values = folded(model)
    for name, dims in declared.items():
        _hold(name, dims, shapes.get(name))
    constants = {name: Constant(shapes[name], count, values.get(name)) for name, count in weights.items()}
    ops, names = _computing(model, shapes, values, constants)
    target = graph.output[0].name
    return Program(source.name, names.get(target, target), shapes[source.name], batch_axis, tuple(_joined(ops)))


def _without_weights(graph: Any) -> dict[str, int]:
    """Leave only the shapes of large initialisers in the graph, as inputs; what each counts as weights, by name.

    Long integers are sizes, axes and indices.
    """
    from onnx import TensorProto, helper

    elements = {tensor.name: prod(tensor.dims) for tensor in graph.initializer}
    weights = {t.name: elements[t.name] * (t.data_type != TensorProto.INT64) for t in graph.initializer}
    given = [value for value in graph.input if value.name not in weights]  # old files list weights as inputs too
    small = []
    for tensor in graph.initializer:
        if elements[tensor.name] <= LARGEST_VALUE and tensor.data_location != TensorProto.EXTERNAL:
            small.append(tensor)
        else:
            given.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for place, kept in ((graph.input, given), (graph.initializer, small)):
        del place[:]
        place.extend(kept)
    return weights


def _source(graph: Any, weights: Mapping[str, int]) -> Any:
    """The input that holds samples: none of the weights, and no first state of a recurrent layer."""
    read = {name for node in graph.node for name in (node.input[:1] if node.op_type in RECURRENT else node.input)}
    found = [value for value in graph.input if value.name not in weights and value.name in read]
    if len(found) != 1:
        named = ", ".join(value.name for value in found) or "none"
        raise RefusedError(f"a network of layers takes one input, but the graph has {len(found)}: {named}")
    return found[0]


def _dims(value: Any) -> tuple[int | str, ...]:
    """Sizes of a tensor: numbers, or the names of open ones."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)


def _batch_axis(graph: Any, source: Any) -> int:
    """The axis of samples: the open one that is called so; the second of what a recurrent layer reads; the first."""
    dims = _dims(source)
    named = [axis for axis, size in enumerate(dims) if isinstance(size, str) and "batch" in size.lower()]
    if named:
        return named[0]
    readers = [node for node in graph.node if source.name in node.input[:1]]
    steps_first = any(node.op_type in RECURRENT and not _attributes(node).get("layout") for node in readers)
    return int(steps_first)


def _bind(graph: Any, source: Any, batch_axis: int, sample: Shape | None) -> None:
    """Give every open size a number: one sample, and the sizes of `sample` for the other axes."""
    dims = _dims(source)
    places = [axis for axis in range(len(dims)) if axis != batch_axis]
    order = _first_transposed(graph, source, places)
    wanted = dict(zip(order, sample, strict=True)) if sample is not None and len(sample) == len(places) else {}
    sizes = {dims[batch_axis]: 1} if dims and isinstance(dims[batch_axis], str) else {}
    for axis in places:
        size = dims[axis]
        if isinstance(size, str):
            if axis not in wanted:
                shown = text_of(tuple(dims))  # type: ignore[arg-type]
                raise RefusedError(
                    f"input {source.name} is {shown}: the size of {size if size != '?' else f'axis {axis}'} is open; "
                    f"give input_shape, {len(places)} numbers"
                )
            sizes[size] = wanted[axis]
            source.type.tensor_type.shape.dim[axis].dim_value = wanted[axis]
    if dims:
        source.type.tensor_type.shape.dim[batch_axis].dim_value = int(sizes.get(dims[batch_axis], dims[batch_axis]))
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = sizes.get(dim.dim_param, 1)


def _first_transposed(graph: Any, source: Any, places: list[int]) -> list[int]:
    """Axes of a sample in the order in which the first layer sees them."""
    readers = [node for node in graph.node if source.name in node.input]
    order = _attributes(readers[0]).get("perm", ()) if len(readers) == 1 and readers[0].op_type == "Transpose" else ()
    return [axis for axis in order if axis in places] if belongs_to_input(order) else places


def belongs_to_input(order: Sequence[int]) -> bool:
    """Whether axes that are moved before any layer are how the file keeps its input: steps, or channels last."""
    return len(order) == 3 or tuple(order) == (0, 3, 1, 2)


def _hold(name: str, declared: tuple[int | str, ...], inferred: Shape | None) -> None:
    """Refuse a file whose declared output is not what its operators make."""
    if inferred is None or not declared:
        return
    if len(declared) != len(inferred) or any(
        isinstance(one, int) and one != other for one, other in zip(declared, inferred, strict=True)
    ):
        made = text_of(inferred)
        raise RefusedError(f"output {name} is declared as {text_of(declared)}, but its operators make {made}")  # type: ignore[arg-type]


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import AttributeProto, helper

    plain = [a for a in node.attribute if a.type not in {AttributeProto.GRAPH, AttributeProto.GRAPHS}]
    found = {a.name: helper.get_attribute_value(a) for a in plain}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def _computing(
    model: Any, shapes: Mapping[str, Shape], values: Mapping[str, Any], weights: Mapping[str, Constant]
) -> tuple[list[Op], dict[str, str]]:
    """The operators that depend on the input, and by which name they know each tensor."""
    version = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    constants = dict(weights)
    names: dict[str, str] = {}
    ops: list[Op] = []
    for number, node in enumerate(model.graph.node):
        inputs = tuple(names.get(name, name) for name in node.input)
        fixed = {place: constants[name] for place, name in enumerate(inputs) if name in constants}
        if all(name in constants for name in inputs if name) or all(name in values for name in node.output):
            for name in node.output:
                constants[name] = _made_of(node.op_type, shapes.get(name, ()), fixed.values(), values.get(name))
        elif node.op_type in PASSED_ON or (len(inputs) == 1 and node.op_type == "Concat"):
            names[node.output[0]] = inputs[0]
        else:
            label = node.name or node.output[0] or str(number)
            attributes = _attributes(node)
            if node.op_type == "Softmax" and version < _SOFTMAX_OF_THE_LAST_AXIS:
                attributes.setdefault("axis", 1)
            ops.append(Op(label, node.op_type, inputs, tuple(node.output), attributes, fixed, shapes))
    return ops, names


def _made_of(kind: str, shape: Shape, parts: Iterable[Constant], values: Any) -> Constant:
    """What is computed from constants has at most their weights; what is made from a shape alone, one a value."""
    held = prod(shape) if kind == "ConstantOfShape" else sum(part.weights for part in parts)
    return Constant(shape, min(prod(shape), held), values)


def _joined(ops: list[Op]) -> Iterator[Op]:
    """Tensors side by side that begin as an earlier join does, as that join and what comes after it."""
    earlier: dict[tuple[str, ...], str] = {}
    for op in ops:
        if op.kind != "Concat" or op.constants:
            yield op
            continue
        known = [length for length in range(len(op.inputs) - 1, 1, -1) if op.inputs[:length] in earlier]
        first = (earlier[op.inputs[: known[0]]], *op.inputs[known[0] :]) if known else op.inputs
        earlier.setdefault(op.inputs, op.outputs[0])
        yield replace(op, inputs=first)
