"""Weights stored in bfloat16 and computed with in float32.

onnxruntime 1.32 has no MatMul, Gemm, Conv or Add of bfloat16 on CPU, so a graph that computed in it could not be proved
here. Each weight is cast where it is read; a session folds that when it is created.
"""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from app.targets.onnx.writing.reworked import needs_opset, prepend, reworked
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.templating.pieces import Slot
from app.targets.templating.recipe import Operation
from app.targets.templating.slots import TensorForm

LOWEST_OPSET = 13
"""The first whose Cast takes bfloat16."""
TOLD = "bf16: weights are stored in bfloat16; the file casts them to float32 and computes in it"


def in_bfloat16(template: OnnxTemplate) -> OnnxTemplate:
    """The template with every float32 weight in bfloat16. Raises UnsupportedOpset."""
    needs_opset(template, LOWEST_OPSET, "bf16")

    def change(graph: ir.Graph, weights: Mapping[str, ir.Value]) -> Sequence[Slot]:
        return [_stored(graph, weights[slot.name], slot) for slot in template.slots]

    return reworked(template, change)


def _stored(graph: ir.Graph, weight: ir.Value, slot: Slot) -> Slot:
    if slot.form.dtype != "float32":
        return slot
    stored = ir.Value(name=slot.name, type=ir.TensorType(ir.DataType.BFLOAT16), shape=weight.shape)
    weight.name = f"{slot.name}_float32"
    cast = ir.node("Cast", [stored], {"to": int(ir.DataType.FLOAT)})
    read = cast.outputs[0]
    read.name, read.type, read.shape = f"{slot.name}_read", weight.type, weight.shape
    ir.convenience.replace_all_uses_with(weight, read)
    prepend(graph, [cast])
    return Slot(slot.name, TensorForm("bfloat16", slot.form.shape), Operation("cast", (slot.recipe,), _BFLOAT16))


_BFLOAT16 = {"dtype": "bfloat16"}
