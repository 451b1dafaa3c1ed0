"""Constants in a TorchScript program, read from the file as loaded back from disk."""

from typing import Any

import torch

Constant = float | int | bool | str


def constant_arguments(loaded: torch.jit.ScriptModule, kind: str) -> list[dict[str, Constant]]:
    """For every call of an operator such as "aten::layer_norm", its arguments that are constants, by schema name."""
    found = []
    graph: Any = loaded.inlined_graph  # held here: nodes do not keep their graph alive
    for node in graph.findAllNodes(kind, recurse=True):
        names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
        values = [value.toIValue() for value in node.inputs()]
        pairs = zip(names, values, strict=False)
        found.append({name: value for name, value in pairs if isinstance(value, (float, int, bool, str))})
    return found


def count(loaded: torch.jit.ScriptModule, kind: str) -> int:
    """How many nodes of a kind the program has, in every branch."""
    graph: Any = loaded.inlined_graph
    return len(graph.findAllNodes(kind, recurse=True))
