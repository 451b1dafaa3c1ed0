"""Transposes in an order that onnxruntime does not change.

Where a MatMul reads a cast of a transposed value, onnxruntime's MatmulTransposeFusion (1.32) exchanges the two, to fuse
the transposition. Where the first axis moved behind the other batch axes, and those of the MatMul's other operand did
not, it fuses nothing and leaves the exchange half done: a later pass reads freed memory, and the process that creates
the session ends. The cast may be the runtime's own, which it puts before operators that it cannot run in float16.
"""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def cast_before_transposing(model: ir.Model) -> None:
    """Let such MatMuls read the transposition of the cast: the same values. In place."""
    changed = False
    for node in list(model.graph.all_nodes()):
        cast_input = node.inputs[0] if node.op_type == "Cast" else None
        transpose = None if cast_input is None else cast_input.producer()
        readers = _multiplications(node.outputs[0]) if transpose is not None and _moves_batch(transpose) else []
        if not readers:
            continue
        assert transpose is not None
        exchanged = _exchanged(transpose, node)
        for reader, position in readers:
            reader.replace_input_with(position, exchanged)
        changed = True
    if changed:
        RemoveUnusedNodesPass()(model)


def is_multiplied_behind(node: ir.Node) -> bool:
    """Whether the node is such a transposition and a MatMul reads it."""
    return _moves_batch(node) and bool(_multiplications(node.outputs[0]))


def _exchanged(transpose: ir.Node, cast: ir.Node) -> ir.Value:
    """What the cast gives, by casting first; its nodes stand before ``cast``."""
    (moved,), given, graph = transpose.inputs, cast.outputs[0], cast.graph
    assert moved is not None
    assert graph is not None
    first = ir.node("Cast", [moved], {"to": cast.attributes["to"].as_int()})
    second = ir.node("Transpose", [first.outputs[0]], {"perm": transpose.attributes["perm"].as_ints()})
    graph.insert_before(cast, [first, second])
    for value, name, shape in ((first.outputs[0], "cast", moved.shape), (second.outputs[0], "transposed", given.shape)):
        value.name, value.type, value.shape = f"{given.name}_{name}", given.type, shape
    return second.outputs[0]


def _moves_batch(node: ir.Node) -> bool:
    """Whether it is a Transpose that moves the first axis behind all others, or behind all but the last one."""
    if node.op_type != "Transpose" or node.domain != "" or "perm" not in node.attributes:
        return False
    perm = list(node.attributes["perm"].as_ints())
    others = list(range(1, len(perm)))
    return len(perm) > 2 and perm in ([*others, 0], [*others[:-1], 0, others[-1]])


def _multiplications(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """The MatMuls that read the value, and where."""
    return [(user, position) for user, position in value.uses() if user.op_type == "MatMul" and user.domain == ""]
