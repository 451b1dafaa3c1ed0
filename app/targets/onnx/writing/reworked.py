"""A template whose graph is changed after it was made: other forms of its weights, and nodes that read them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from app.domain.errors import UnsupportedOpset
from app.targets.onnx.writing.protobuf import GRAPH_INITIALIZER, MODEL_GRAPH, fields
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.templating.pieces import Slot

Change = Callable[[ir.Graph, Mapping[str, ir.Value]], Sequence[Slot]]
"""Changes the graph in place, given the values that slots fill by their names; gives the slots it has afterwards."""


def reworked(template: OnnxTemplate, change: Change) -> OnnxTemplate:
    """The template with a changed graph. Slots fill from the keys that they filled from before."""
    model, weights = opened(template)
    slots = change(model.graph, weights)
    for value in weights.values():
        model.graph.inputs.remove(value)
    RemoveUnusedNodesPass()(model)
    model_head, graph_head, graph_tail, model_tail = serialised(model)
    return replace(
        template,
        slots=tuple(slots),
        model_head=model_head,
        graph_head=graph_head,
        graph_tail=graph_tail,
        model_tail=model_tail,
    )


def opened(template: OnnxTemplate) -> tuple[ir.Model, dict[str, ir.Value]]:
    """The template's graph, and the values that slots fill by their names, which are inputs of it."""
    model = ir.from_proto(template.with_slots_as_inputs())
    inputs = model.graph.inputs
    return model, {str(value.name): value for value in inputs[len(inputs) - len(template.slots) :]}


def prepend(graph: ir.Graph, nodes: Iterable[ir.Node]) -> None:
    """Put nodes, in this order, before all others."""
    first = next(iter(graph))
    for node in nodes:
        graph.insert_before(first, node)


def needs_opset(template: OnnxTemplate, lowest: int, what: str) -> None:
    """Raise UnsupportedOpset where the template's graph is of an older operator set."""
    model = onnx.ModelProto.FromString(template.graph_without_weights())
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < lowest:
        raise UnsupportedOpset(
            f"Precision {what} needs opset {lowest} or above; {opset} was asked for.",
            stage="export",
            lowest_opset=lowest,
        )


def serialised(model: ir.Model) -> tuple[bytes, bytes, bytes, bytes]:
    """Model fields before the graph, graph fields up to and after ``initializer``, model fields after the graph."""
    proto = ir.to_proto(model)
    graph_fields = list(fields(proto.graph.SerializeToString(deterministic=True)))
    proto.ClearField("graph")
    model_fields = list(fields(proto.SerializeToString(deterministic=True)))
    return (
        b"".join(field for number, field in model_fields if number < MODEL_GRAPH),
        b"".join(field for number, field in graph_fields if number <= GRAPH_INITIALIZER),
        b"".join(field for number, field in graph_fields if number > GRAPH_INITIALIZER),
        b"".join(field for number, field in model_fields if number > MODEL_GRAPH),
    )
