"""What verification audits in a TorchScript program: constants that it computes with, and operators that train."""

from typing import Any

import torch

from app.targets.artifact import GraphConstants
from app.targets.operators import CLAMPS
from app.targets.torchscript.reading.graph import constant_arguments, count

_NORMS = ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm")
_TRAINING_ARGUMENTS = {
    "aten::batch_norm": "training",
    "aten::dropout": "train",
    "aten::feature_dropout": "train",
    "aten::alpha_dropout": "train",
    "aten::feature_alpha_dropout": "train",
}


def constants(loaded: torch.jit.ScriptModule) -> GraphConstants:
    """What a TorchScript program computes with. Operators inside branches and loops are seen, but not counted."""
    norms = [
        (kind, float(arguments["eps"]))
        for kind in _NORMS
        for arguments in constant_arguments(loaded, f"aten::{kind}")
        if arguments.get("eps") is not None  # None: that of the dtype, as in the model's own call
    ]
    gelus = [arguments.get("approximate") for arguments in constant_arguments(loaded, "aten::gelu")]
    return GraphConstants(
        norms=tuple(norms),
        erf=gelus.count("none") + count(loaded, "aten::erf"),
        tanh_gelu=gelus.count("tanh"),
        bounds=tuple(_clamp_bounds(loaded)),
        straight=count(loaded, "prim::If") == count(loaded, "prim::Loop") == 0,
    )


def _clamp_bounds(loaded: torch.jit.ScriptModule) -> list[float]:
    found = []
    for name, arguments in CLAMPS.items():
        for call in constant_arguments(loaded, f"aten::{name}") + constant_arguments(loaded, f"aten::{name}_"):
            given = {**arguments, **{k: v for k, v in call.items() if k in arguments}}
            found += [float(value) for value in given.values() if value is not None]
    return found


def training_nodes(loaded: torch.jit.ScriptModule) -> list[str]:
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
