"""What verification audits in an ONNX graph: constants that it computes with, and operators that train."""

import onnx

from app.targets.artifact import GraphConstants
from app.targets.onnx.reading.graph import all_nodes

_NORMS = {
    "BatchNormalization": "batch_norm",
    "LayerNormalization": "layer_norm",
    "GroupNormalization": "group_norm",
    "InstanceNormalization": "instance_norm",
    "RMSNormalization": "rms_norm",
}
_DEFAULT_EPSILON = 1e-5
"""Of every ONNX normalisation operator (onnx operator documentation)."""
_LARGEST_EPSILON = 0.05
"""A larger constant added before a square root is arithmetic (asinh: 1), not an epsilon."""


def constants(model: onnx.ModelProto) -> GraphConstants:
    """What an ONNX graph computes with."""
    nodes = list(all_nodes(model))
    norms = [(_NORMS[n.op_type], _epsilon(n)) for n in nodes if n.op_type in _NORMS]
    gelus = [_text_attribute(node, "approximate", "none") for node in nodes if node.op_type == "Gelu"]
    return GraphConstants(
        norms=tuple(norms),
        hidden=tuple(_hidden_epsilons(model, nodes)),
        erf=gelus.count("none") + sum(node.op_type == "Erf" for node in nodes),
        tanh_gelu=gelus.count("tanh"),
        bounds=tuple(_clip_bounds(model, nodes)),
        straight=not model.functions and not any(node.op_type in ("Loop", "If", "Scan") for node in nodes),
    )


def _epsilon(node: onnx.NodeProto) -> float:
    return next((a.f for a in node.attribute if a.name == "epsilon"), _DEFAULT_EPSILON)


def _text_attribute(node: onnx.NodeProto, name: str, default: str) -> str:
    return next((a.s.decode() for a in node.attribute if a.name == name), default)


def _hidden_epsilons(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[float]:
    """Numbers c of Sqrt(Add(x, c)) with 0 < c ≤ _LARGEST_EPSILON.

    Both exporters store a number of the code as a tensor without axes.
    """
    scalars = _stored(model, nodes)
    roots = {node.input[0] for node in nodes if node.op_type == "Sqrt"}
    found = []
    for node in nodes:
        if node.op_type == "Add" and node.output[0] in roots:
            for tensor in (scalars[name] for name in node.input if name in scalars):
                value = onnx.numpy_helper.to_array(tensor)
                if value.ndim == 0 and 0 < float(value) <= _LARGEST_EPSILON:
                    found.append(float(value))
    return found


def _clip_bounds(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[float]:
    """Numbers that floats are clipped to; exporters may write an integer and cast it."""
    stored = _stored(model, nodes)
    cast = {node.output[0]: node.input[0] for node in nodes if node.op_type in ("Cast", "CastLike")}
    bounds = (name for node in nodes if node.op_type == "Clip" for name in node.input[1:])
    found = [(name in cast, stored.get(cast.get(name, name))) for name in bounds]
    values = [(is_cast, onnx.numpy_helper.to_array(tensor)) for is_cast, tensor in found if tensor is not None]
    return [float(value) for is_cast, value in values if value.ndim == 0 and (is_cast or value.dtype.kind == "f")]


def _stored(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> dict[str, onnx.TensorProto]:
    """Initializers and constants by name."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return stored | {
        n.output[0]: a.t for n in nodes if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }


def training_nodes(model: onnx.ModelProto) -> list[str]:
    """Nodes that behave as in training: BatchNormalization with training_mode, Dropout with its third input true."""
    constants = _boolean_constants(model)
    found = []
    for node in all_nodes(model):
        trains = node.op_type == "BatchNormalization" and any(
            attribute.name == "training_mode" and attribute.i for attribute in node.attribute
        )
        # A flag that is not a constant is computed while running, so it may be on.
        drops = node.op_type == "Dropout" and len(node.input) > 2 and constants.get(node.input[2], True)
        if trains or (drops and node.input[2]):
            found.append(f"{node.op_type} {node.name or node.output[0]}")
    return found


def _boolean_constants(model: onnx.ModelProto) -> dict[str, bool]:
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in all_nodes(model):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                values[node.output[0]] = attribute.t
    return {
        name: bool(onnx.numpy_helper.to_array(tensor).any())
        for name, tensor in values.items()
        if tensor.data_type == onnx.TensorProto.BOOL
    }
