"""Mode audit: the module is in eval and no operator of the artifact trains (verification.md, point 6).

A training flag alone is no fault: the eager module in eval mode sets it too where a batch norm keeps no statistics and
where a dropout drops nothing.
"""

from typing import Any

import onnx
import torch
from torch import nn

from app.conversion.verification.artifact.onnx_graph import all_nodes

_TRAINING_ARGUMENTS = {
    "aten::batch_norm": "training",
    "aten::dropout": "train",
    "aten::feature_dropout": "train",
    "aten::alpha_dropout": "train",
    "aten::feature_alpha_dropout": "train",
}


def modules_in_training(module: nn.Module) -> list[str]:
    """Names of modules whose ``training`` is on, "" being the module itself."""
    return [name for name, part in module.named_modules() if part.training]


def onnx_training_nodes(model: onnx.ModelProto) -> list[str]:
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


def torchscript_training_nodes(loaded: torch.jit.ScriptModule) -> list[str]:
    """Submodules stored in training mode, and operators whose training flag is a constant true that changes something.

    Freezing takes the attribute ``training`` away: what is left was compiled for eval.
    """
    found = [f"module {name or '(top)'}" for name, part in loaded.named_modules() if getattr(part, "training", False)]
    graph: Any = loaded.inlined_graph  # held here: nodes do not keep their graph alive
    for kind, flag in _TRAINING_ARGUMENTS.items():
        found += [kind for node in graph.findAllNodes(kind, recurse=True) if _trains(_arguments(node), flag)]
    return found


def _arguments(node: Any) -> dict[str, Any]:
    """A node's input values by the names of its operator's schema."""
    names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
    return dict(zip(names, node.inputs(), strict=False))


def _trains(arguments: dict[str, Any], flag: str) -> bool:
    """Whether an operator with a constant true flag does anything else than in eval mode."""
    if arguments[flag].toIValue() is not True:
        return False
    if "running_mean" in arguments:  # without statistics it normalises with those of the batch, in eval mode too
        return bool(arguments["running_mean"].type().kind() != "NoneType")
    return bool(arguments["p"].toIValue() != 0)


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
