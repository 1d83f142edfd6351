"""Shapes of all tensors of an ONNX graph, and the values of those that do not depend on its input."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from ..specs.layer import Shape

LARGEST_VALUE = 4096
"""Elements of the largest tensor whose values are read: sizes, axes and scalars, not weights."""

STANDARD = frozenset({"", "ai.onnx"})
"""Names of the domain of the operators that the format itself defines."""

_RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"})


class RefusedError(ValueError):
    """An operator or a file that cannot be told as layers."""


def folded(model: Any) -> tuple[dict[str, Shape], dict[str, Any]]:
    """Shapes by inference, and values of constants, each in turns until neither finds more.

    A shape that the graph computes from the shape of another tensor is a constant once that is known. The model stays
    as it is.
    """
    from onnx import numpy_helper, shape_inference

    model = type(model).FromString(model.SerializeToString())
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    while True:
        try:
            inferred = shape_inference.infer_shapes(model, data_prop=True).graph
        except shape_inference.InferenceError as error:
            raise RefusedError(f"its shapes contradict each other: {' '.join(str(error).split())}") from None
        shapes = {name: tuple(value.shape) for name, value in values.items()}
        for tensor in (*inferred.input, *inferred.output, *inferred.value_info):
            dims = tensor.type.tensor_type.shape.dim
            if tensor.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
                shapes[tensor.name] = tuple(dim.dim_value for dim in dims)
        found = _evaluated(model, shapes, values)
        if not found:
            return shapes, values
        values |= found
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in found.items())


def _evaluated(model: Any, shapes: Mapping[str, Shape], known: Mapping[str, Any]) -> dict[str, Any]:
    """Values of small constants that are not known yet; their nodes leave the graph."""
    import numpy as np

    found: dict[str, Any] = {}
    kept = []
    for node in model.graph.node:
        values = {name: known.get(name, found.get(name)) for name in node.input if name}
        if node.domain not in STANDARD:
            kept.append(node)
        elif node.op_type == "Shape" and node.input[0] in shapes:
            whole = shapes[node.input[0]]
            bounds = {attribute.name: attribute.i for attribute in node.attribute}
            found[node.output[0]] = np.array(whole[bounds.get("start", 0) : bounds.get("end")], dtype=np.int64)
        elif (
            all(value is not None for value in values.values())
            and node.op_type not in _RANDOM
            and all(prod(shapes.get(name, ())) <= LARGEST_VALUE for name in node.output)
        ):
            found |= _run(model, node, values)
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return found


def _run(model: Any, node: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Outputs of one operator."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for name, v in values.items()
    ]
    outputs = [helper.make_value_info(name, helper.make_tensor_type_proto(1, None)) for name in node.output if name]
    alone = helper.make_model(helper.make_graph([node], "constant", inputs, outputs), opset_imports=model.opset_import)
    alone.ir_version = model.ir_version
    made = ReferenceEvaluator(alone).run(None, dict(values))
    import numpy as np

    return {name: np.asarray(value) for name, value in zip((o for o in node.output if o), made, strict=True)}
