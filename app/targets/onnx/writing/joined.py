"""One ONNX graph of several, each taken where the sizes of the inputs lead to it.

An exported graph holds one way through the model's Python. Graphs of the same module, captured at sizes on both sides
of what its code asks, become branches of ``If`` here, which share its weights.
"""

import ast
from collections.abc import Collection, Sequence
from functools import partial, reduce

import numpy as np
import onnx_ir as ir

from app.domain.errors import ExportFailed
from app.targets.capturing.side import Side, at_side, axis_places
from app.targets.onnx.writing.captured import CapturedOnnx
from app.targets.request import ExportRequest

EXPORTER = "joined"
_ANSWERS = {
    **{"And": "And", "Or": "Or", "Not": "Not"},
    **{"Eq": "Equal", "Lt": "Less", "LtE": "LessOrEqual", "Gt": "Greater", "GtE": "GreaterOrEqual"},
}
_OPERATORS = {
    **{"Add": "Add", "Sub": "Sub", "Mult": "Mul", "Div": "Div", "Mod": "Mod", "USub": "Neg"},
    **{"abs": "Abs", "min": "Min", "max": "Max"},
    **_ANSWERS,
}
"""ONNX's operators by what Python calls its own. Mod of integers has the sign of the divisor in both."""


def join(sides: Sequence[tuple[Side, CapturedOnnx]], request: ExportRequest) -> CapturedOnnx:
    """Sides in the order in which they are asked; the last one serves all that is left. The captures are consumed.

    Raises ExportFailed where they do not give the same outputs.
    """
    captures = [captured for _, captured in sides]
    first = captures[0].model
    names = [[value.name for value in captured.model.graph.outputs] for captured in captures]
    if any(other != names[0] for other in names):
        raise ExportFailed(f"the model gives other outputs at other sizes: {names}", stage="export")
    shapes = [
        _common_shape([captured.model.graph.outputs[i].shape for captured in captures]) for i in range(len(names[0]))
    ]
    types = [value.type for value in first.graph.outputs]
    graph = ir.Graph(
        inputs=[ir.Value(name=value.name, type=value.type, shape=value.shape) for value in first.graph.inputs],
        outputs=(),
        nodes=(),
        opset_imports=dict(first.opset_imports),
        name=first.graph.name,
    )
    keys = request.module.state_dict().keys()
    branches = [_branch(captured.model.graph, graph, f"side{i}", keys) for i, captured in enumerate(captures)]
    tests = _Tests(graph, request)
    rest = branches.pop()
    for number, branch in reversed(list(enumerate(branches))):
        outputs = [
            ir.Value(name=f"choice{number}_{name}" if number else name, type=kind, shape=shape)
            for name, kind, shape in zip(names[0], types, shapes, strict=True)
        ]
        ways = [ir.AttrGraph("then_branch", branch), ir.AttrGraph("else_branch", rest)]
        choice = ir.Node(
            "", "If", [tests.all_of(sides[number][0].tests)], ways, outputs=outputs, name=f"choice{number}"
        )
        rest = ir.Graph((), outputs, nodes=[choice], name=f"rest{number}")
    graph.extend(_taken_out(rest))
    graph.outputs.extend(outputs)
    return CapturedOnnx(
        ir.Model(graph, ir_version=first.ir_version),
        tuple(dict.fromkeys(line for captured in captures for line in captured.warnings)),
        EXPORTER,
        tuple(dict.fromkeys(place for captured in captures for place in captured.kept)),
        tuple(at_side(request, side).sample for side, _ in sides),
    )


def _branch(captured: ir.Graph, graph: ir.Graph, prefix: str, keys: Collection[str]) -> ir.Graph:
    """The captured graph as a branch that reads inputs and initializers of ``graph``; weights are there once."""
    for node in ir.traversal.RecursiveGraphIterator(captured):
        node.name = f"{prefix}_{node.name}"
        for value in node.outputs:
            value.name = f"{prefix}_{value.name}"
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                for value in (*attribute.as_graph().inputs, *attribute.as_graph().initializers.values()):
                    value.name = f"{prefix}_{value.name}"
    for own, shared in zip(captured.inputs, graph.inputs, strict=True):
        own.replace_all_uses_with(shared)
    for name, own in list(captured.initializers.items()):
        shared_name = name if name in keys else f"{prefix}_{name}"
        if shared_name not in graph.initializers:
            value = ir.Value(name=shared_name, type=own.type, shape=own.shape, const_value=own.const_value)
            graph.initializers.add(value)
        own.replace_all_uses_with(graph.initializers[shared_name])
    outputs = list(captured.outputs)
    return ir.Graph((), outputs, nodes=_taken_out(captured), name=prefix)


def _taken_out(graph: ir.Graph) -> list[ir.Node]:
    nodes = list(graph)
    graph.outputs.clear()
    graph.remove(nodes)
    return nodes


def _common_shape(shapes: Sequence[ir.Shape | None]) -> ir.Shape | None:
    """The dims in which all agree; the others are open. None where they have not the same number of dims."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) > 1:
        return None
    return ir.Shape([dims[0] if all(dim == dims[0] for dim in dims) else None for dims in zip(*known, strict=True)])


def _parts(tree: ast.expr) -> tuple[str, list[ast.expr]]:
    """The operator or function of an expression, and its operands."""
    match tree:
        case ast.UnaryOp(op=op, operand=operand):
            return type(op).__name__, [operand]
        case ast.BoolOp(op=op, values=values):
            return type(op).__name__, values
        case ast.BinOp(left=left, op=op, right=right):
            return type(op).__name__, [left, right]
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return type(op).__name__, [left, right]
        case ast.Call(func=ast.Name(id=name), args=args):
            return name, args
    raise ExportFailed(f"no graph can hold {ast.unparse(tree)}", stage="export")


class _Tests:
    """Writes tests on sizes into a graph, as scalars of int64 and bool, and of float64 behind a division."""

    def __init__(self, graph: ir.Graph, request: ExportRequest) -> None:
        self._graph = graph
        self._places = axis_places(request.signature)
        self._count = 0

    def all_of(self, tests: Sequence[str]) -> ir.Value:
        values = [self._written(ast.parse(test, mode="eval").body) for test in tests]
        return values[0] if len(values) == 1 else self._chained("And", values)

    def _written(self, tree: ast.expr) -> ir.Value:
        match tree:
            case ast.Constant(value=int() | float() as number):
                return self._constant(number)
            case ast.Name(id=axis):
                return self._size(axis)
        operator, operands = _parts(tree)
        return self._applied(operator, [self._written(operand) for operand in operands])

    def _applied(self, operator: str, values: Sequence[ir.Value]) -> ir.Value:
        if operator == "Div" or any(value.dtype is ir.DataType.DOUBLE for value in values):
            if operator in ("FloorDiv", "Mod"):
                raise ExportFailed("a graph holds remainders of whole numbers only", stage="export")
            values = [self._real(value) for value in values]
        match operator:
            case "NotEq":
                return self._node("Not", self._node("Equal", *values))
            case "FloorDiv":  # Div of integers is cut towards 0 in ONNX: what remains is taken off before
                left, right = values
                return self._node("Div", self._node("Sub", left, self._node("Mod", left, right)), right)
        return self._chained(_OPERATORS[operator], values)

    def _real(self, value: ir.Value) -> ir.Value:
        if value.dtype is ir.DataType.DOUBLE:
            return value
        return self._node("Cast", value, dtype=ir.DataType.DOUBLE, to=ir.DataType.DOUBLE)

    def _chained(self, operator: str, values: Sequence[ir.Value]) -> ir.Value:
        if len(values) == 1:
            return self._node(operator, *values)
        return reduce(partial(self._node, operator), values)

    def _size(self, axis: str) -> ir.Value:
        number, position = self._places[axis]
        shape = self._node("Shape", self._graph.inputs[number], dtype=ir.DataType.INT64)
        return self._node("Gather", shape, self._constant(position))

    def _constant(self, number: float) -> ir.Value:
        tensor = ir.tensor(np.array(number, np.float64 if isinstance(number, float) else np.int64), name=self._name())
        value = ir.Value(name=tensor.name, shape=ir.Shape(()), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self._graph.initializers.add(value)
        return value

    def _node(self, operator: str, *inputs: ir.Value, dtype: ir.DataType | None = None, **attributes: int) -> ir.Value:
        """``dtype`` of the scalar that it gives; None: that of its inputs, or bool for an answer."""
        node = ir.node(operator, list(inputs), attributes, name=self._name())
        node.outputs[0].name = node.name
        answer = ir.TensorType(ir.DataType.BOOL) if operator in _ANSWERS.values() else inputs[0].type
        node.outputs[0].type = answer if dtype is None else ir.TensorType(dtype)
        self._graph.append(node)
        return node.outputs[0]

    def _name(self) -> str:
        self._count += 1
        return f"test_{self._count}"
