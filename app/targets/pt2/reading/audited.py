"""What verification audits in an exported program, read from its JSON: constants, axes, and operators that train."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from app.targets.artifact import GraphConstants
from app.targets.operators import CLAMPS

_NORMS = {
    "batch_norm": "batch_norm",
    "_native_batch_norm_legit_no_training": "batch_norm",
    "layer_norm": "layer_norm",
    "native_layer_norm": "layer_norm",
    "group_norm": "group_norm",
    "native_group_norm": "group_norm",
    "instance_norm": "instance_norm",
    "rms_norm": "rms_norm",
}
"""Operators that normalise, and the kind that each is."""
_TRAINING_ARGUMENTS = {
    "batch_norm": "training",
    "dropout": "train",
    "feature_dropout": "train",
    "alpha_dropout": "train",
    "feature_alpha_dropout": "train",
}
Program = Mapping[str, Any]


def constants(program: Program) -> GraphConstants:
    """What a program computes with."""
    calls = [(name, _constant_arguments(node)) for node in _nodes(program) if (name := _aten(node))]
    norms = [
        (_NORMS[name], float(given["eps"])) for name, given in calls if name in _NORMS and given.get("eps") is not None
    ]
    gelus = [given.get("approximate") for name, given in calls if name == "gelu"]
    targets = [node["target"] for node in _nodes(program)]
    return GraphConstants(
        norms=tuple(norms),
        erf=gelus.count("none") + sum(name == "erf" for name, _ in calls),
        tanh_gelu=gelus.count("tanh"),
        bounds=tuple(bound for name, given in calls for bound in _bounds(name.removesuffix("_"), given)),
        straight=not any("higher_order" in target for target in targets),
    )


def training_nodes(program: Program) -> list[str]:
    """Operators whose training flag is a constant true that changes something."""
    found = []
    for node in _nodes(program):
        name = _aten(node)
        flag = _TRAINING_ARGUMENTS.get(name or "")
        if flag is None:
            continue
        given = _constant_arguments(node)
        without_statistics = name == "batch_norm" and "running_mean" in given and given["running_mean"] is None
        if given.get(flag) is True and not without_statistics and given.get("p") != 0:
            found.append(f"aten::{name}")
    return found


def input_axes(program: Program) -> dict[int, tuple[int | str, ...]]:
    """Each input's shape as written, by position: sizes, and the symbols of those that vary."""
    graph = program["graph_module"]["graph"]
    specs = program["graph_module"]["signature"]["input_specs"]
    names = [spec["user_input"]["arg"]["as_tensor"]["name"] for spec in specs if "user_input" in spec]
    return {
        position: tuple(_size(size) for size in graph["tensor_values"][name]["sizes"])
        for position, name in enumerate(names)
    }


def _size(size: Mapping[str, Any]) -> int | str:
    """A size, or the symbol that stands for it: "Symbol('s77', positive=True, integer=True)" is s77."""
    if "as_int" in size:
        return int(size["as_int"])
    expression = str(size["as_expr"]["expr_str"])
    symbol = re.search(r"'(\w+)'", expression)
    return symbol.group(1) if symbol else expression


def _nodes(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every node: of the graph, and of graphs in arguments of nodes."""
    if isinstance(value, list):
        for item in value:
            yield from _nodes(item)
    elif isinstance(value, dict):
        if "target" in value and "inputs" in value:
            yield value
        for item in value.values():
            yield from _nodes(item)


def _aten(node: Mapping[str, Any]) -> str | None:
    """The operator's name in the namespace aten, without its overload."""
    namespace, _, name = str(node["target"]).removeprefix("torch.ops.").partition(".")
    return name.partition(".")[0] if namespace == "aten" else None


def _constant_arguments(node: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that are numbers, flags, words or None, by schema name; those left out have their defaults."""
    operator: Any = torch.ops.aten
    for part in str(node["target"]).split(".")[3:]:
        operator = getattr(operator, part)
    given = {argument["name"]: argument["arg"] for argument in node["inputs"]}
    found: dict[str, Any] = {}
    for argument in operator._schema.arguments:
        if argument.name not in given:
            found[argument.name] = argument.default_value if argument.has_default_value() else None
            continue
        kind, value = next(iter(given[argument.name].items()))
        if kind in ("as_float", "as_int", "as_bool", "as_string"):
            found[argument.name] = float(value) if kind == "as_float" else value
        elif kind == "as_none":
            found[argument.name] = None
    return found


def _bounds(name: str, given: Mapping[str, Any]) -> list[float]:
    bounds = [given.get(argument, default) for argument, default in CLAMPS.get(name, {}).items()]
    return [float(bound) for bound in bounds if isinstance(bound, (int, float))]
