"""Ways through a model's code that sizes decide on, and what leads to each: tests on the sizes of the axes.

A test is Python over the names of axes, made of numbers, ``+ - * / // %``, ``abs``, ``min``, ``max``, comparisons and
``and``, ``or``, ``not``: what every target can write into a graph.
"""

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch

from app.architectures.sample import sample_inputs
from app.domain.architecture import Signature
from app.targets.request import SAMPLE_SEED, ExportRequest

Sizes = Mapping[str, int]

_NODES = (
    *(ast.Expression, ast.Name, ast.Load, ast.Constant),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.UnaryOp, ast.USub, ast.Not),
    *(ast.BoolOp, ast.And, ast.Or, ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
_FUNCTIONS = {"abs": abs, "min": min, "max": max}


@dataclass(frozen=True)
class Side:
    """One way through the code: where it was captured, and what holds wherever it is taken, there too."""

    sizes: Sizes
    tests: tuple[str, ...] = ()

    def serves(self, sizes: Sizes) -> bool:
        return all(holds(test, sizes) for test in self.tests)


def is_test(text: str, axes: Collection[str]) -> bool:
    """Whether ``text`` is a test as above, of these axes."""
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        return False
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {id(call.func) for call in calls}
    if any(not isinstance(call.func, ast.Name) or call.func.id not in _FUNCTIONS or call.keywords for call in calls):
        return False
    return all(
        isinstance(node, (*_NODES, ast.Call))
        and (not isinstance(node, ast.Constant) or type(node.value) in (int, float))
        and (not isinstance(node, ast.Name) or id(node) in called or node.id in axes)
        for node in ast.walk(tree)
    )


def holds(test: str, sizes: Sizes) -> bool:
    """A remainder by zero is no side: there the test holds."""
    assert is_test(test, sizes)
    try:
        return bool(eval(test, {"__builtins__": {}, **_FUNCTIONS, **sizes}))
    except ZeroDivisionError:
        return True


def renamed(tests: Collection[str], names: Mapping[str, str]) -> str:
    """All ``tests`` in one expression, with ``names`` in the place of the axes: of variables, or what gives a size."""
    tree = ast.parse(" and ".join(f"({test})" for test in tests), mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in names:
            node.id = names[node.id]
    return ast.unparse(tree)


def axis_places(signature: Signature) -> dict[str, tuple[int, int]]:
    """By axis, the number of an input that has it and its position there."""
    places: dict[str, tuple[int, int]] = {}
    for number, spec in enumerate(signature.inputs):
        for position, size in enumerate(spec.shape):
            if isinstance(size, str):
                places.setdefault(size, (number, position))
    return places


def at_side(request: ExportRequest, side: Side) -> ExportRequest:
    """The request with a sample of that side's sizes."""
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    return replace(request, sample=sample_inputs(request.signature, side.sizes, generator))
