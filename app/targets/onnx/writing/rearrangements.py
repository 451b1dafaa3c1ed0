"""ONNX operators that only move elements about or round them, as recipe operations. Semantics: onnx Operators.md."""

from collections.abc import Callable, Sequence
from math import prod

import onnx_ir as ir

from app.targets.templating.recipe import Operation, Recipe
from app.targets.templating.tensor_bytes import TORCH_DTYPES, dtype_of

OperandOf = Callable[[ir.Value], Recipe | None]
"""The recipe of a value that follows from weights and constants; None for any other value."""


def rearrangement(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
    """One recipe for each output, or None when the node does anything but rearrange known values.

    Operands that only say how (shapes, axes, starts) must be constants; outputs must have static shapes.
    """
    translate = _TRANSLATIONS.get(node.op_type)
    if node.domain != "" or translate is None or any(_shape(output) is None for output in node.outputs):
        return None
    return translate(node, operand_of)


def _shape(value: ir.Value) -> tuple[int, ...] | None:
    if value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(extent) for extent in value.shape)  # type: ignore[arg-type]


def _operand(node: ir.Node, position: int, operand_of: OperandOf) -> Recipe | None:
    value = node.inputs[position] if position < len(node.inputs) else None
    return None if value is None else operand_of(value)


def _constant(node: ir.Node, position: int) -> list[int] | None:
    """The integers of a constant operand; None if it is absent or not constant."""
    value = node.inputs[position] if position < len(node.inputs) else None
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else [int(number) for number in tensor.numpy().reshape(-1)]


def _identity(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
    operand = _operand(node, 0, operand_of)
    return None if operand is None else (operand,)


def _transpose(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
    operand, shape = _operand(node, 0, operand_of), _shape(node.outputs[0])
    if operand is None or shape is None:
        return None
    perm = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(shape))[::-1]
    return (Operation("permute", (operand,), {"perm": list(perm)}),)


def _to_output_shape(name: str) -> Callable[[ir.Node, OperandOf], tuple[Recipe, ...] | None]:
    """Operators whose output shape, already inferred, says everything."""

    def translate(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
        operand, shape = _operand(node, 0, operand_of), _shape(node.outputs[0])
        if operand is None or shape is None:
            return None
        return (Operation(name, (operand,), {"shape": list(shape)}),)

    return translate


def _cast(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
    """Between floats (round to nearest even) and from integers to int64; other casts differ between runtimes."""
    operand, source = _operand(node, 0, operand_of), node.inputs[0]
    if operand is None or source is None or source.dtype is None:
        return None
    before, after = (TORCH_DTYPES.get(number) for number in (source.dtype, node.attributes["to"].as_int()))
    if before is None or after is None:
        return None
    both_float = dtype_of(before).is_floating_point and dtype_of(after).is_floating_point
    if not both_float and not (after == "int64" and before in ("int8", "int16", "int32", "uint8")):
        return None
    return (Operation("cast", (operand,), {"dtype": after}),)


def _concat(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
    operands = [_operand(node, position, operand_of) for position in range(len(node.inputs))]
    known = tuple(operand for operand in operands if operand is not None)
    if len(known) < len(operands):
        return None
    return (Operation("concat", known, {"axis": node.attributes["axis"].as_int()}),)


def _slice(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
    source = node.inputs[0]
    extents = None if source is None else _shape(source)
    operand, starts, ends = _operand(node, 0, operand_of), _constant(node, 1), _constant(node, 2)
    if operand is None or extents is None or starts is None or ends is None:
        return None
    axes = _constant(node, 3) if len(node.inputs) > 3 and node.inputs[3] is not None else list(range(len(starts)))
    steps = _constant(node, 4) if len(node.inputs) > 4 and node.inputs[4] is not None else [1] * len(starts)
    if axes is None or steps is None or any(step < 1 for step in steps):
        return None
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        first, last, _ = slice(start, end, step).indices(extents[axis])
        operand = _slice_axis(operand, axis % len(extents), first, max(first, last), step)
    return (operand,)


def _slice_axis(operand: Recipe, axis: int, start: int, end: int, step: int = 1) -> Recipe:
    return Operation("slice", (operand,), {"axis": axis, "start": start, "end": end, "step": step})


def _split(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
    operand = _operand(node, 0, operand_of)
    shapes: Sequence[tuple[int, ...] | None] = [_shape(output) for output in node.outputs]
    if operand is None:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    parts: list[Recipe] = []
    start = 0
    for shape in shapes:
        if shape is None:
            return None
        end = start + shape[axis]
        parts.append(_slice_axis(operand, axis % len(shape), start, end))
        start = end
    return tuple(parts)


def _gather(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
    operand, indices = _operand(node, 0, operand_of), _operand(node, 1, operand_of)
    source = node.inputs[0]
    extents = None if source is None else _shape(source)
    if operand is None or indices is None or extents is None or prod(extents) == 0:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    return (Operation("gather", (operand, indices), {"axis": axis % len(extents)}),)


def _gather_nd(node: ir.Node, operand_of: OperandOf) -> tuple[Recipe, ...] | None:
    operand, indices = _operand(node, 0, operand_of), _operand(node, 1, operand_of)
    batched = "batch_dims" in node.attributes and node.attributes["batch_dims"].as_int() != 0
    if operand is None or indices is None or batched:
        return None
    return (Operation("gather_nd", (operand, indices)),)


_TRANSLATIONS: dict[str, Callable[[ir.Node, OperandOf], tuple[Recipe, ...] | None]] = {
    "Identity": _identity,
    "Transpose": _transpose,
    "Reshape": _to_output_shape("reshape"),
    "Flatten": _to_output_shape("reshape"),
    "Squeeze": _to_output_shape("reshape"),
    "Unsqueeze": _to_output_shape("reshape"),
    "Expand": _to_output_shape("expand"),
    "Cast": _cast,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Gather": _gather,
    "GatherND": _gather_nd,
}
