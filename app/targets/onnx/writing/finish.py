"""From what an exporter gave to the graph that was asked for: names, opset, IR version, no traces of this server."""

from collections.abc import Iterator, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from app.domain.errors import ExportFailed, InvalidOptions, StaticAxis
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.opset import deliver_opset, ir_version
from app.targets.request import ExportRequest


def finish(
    model: ir.Model, request: ExportRequest, options: OnnxOptions, opset: int, output_names: Sequence[str]
) -> ir.Model:
    """The finished model; ``model`` itself is changed on the way.

    Raises StaticAxis if an axis that was asked to vary is fixed in the graph, UnsupportedOpset, InvalidOptions for an
    IR version that cannot hold the opset, ExportFailed for inputs or outputs that the graph does not have.
    """
    ir_asked = ir_version(options.ir_version, opset)
    if model.functions:
        model = InlinePass()(model).model
    _name_outputs(model, output_names)
    _check_names(model, request)
    if not options.keep_debug:
        strip_debug(model)
    model = deliver_opset(model, opset)
    _drop_unused_initializers(model)
    model.ir_version = ir_asked
    _check_axes(model, request)
    return model


def strip_debug(model: ir.Model) -> None:
    """Remove metadata and doc strings: the exporters keep stack traces with absolute paths there."""
    model.metadata_props.clear()
    model.doc_string = None
    for graph in _graphs(model):
        graph.metadata_props.clear()
        graph.doc_string = None
        weights = graph.initializers.values() if isinstance(graph, ir.Graph) else ()
        for value in (*graph.inputs, *weights):
            _strip(value)
        for node in graph:
            _strip(node)
            for value in node.outputs:
                _strip(value)


def _strip(described: ir.Node | ir.Value) -> None:
    described.metadata_props.clear()
    described.doc_string = None


def _graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    yield from model.functions.values()
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph:
            for attribute in node.attributes.values():
                if attribute.type == ir.AttributeType.GRAPH:
                    pending.append(attribute.as_graph())
                elif attribute.type == ir.AttributeType.GRAPHS:
                    pending.extend(attribute.as_graphs())


def _drop_unused_initializers(model: ir.Model) -> None:
    outputs = {id(value) for value in model.graph.outputs}
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and id(value) not in outputs:
            del model.graph.initializers[name]


def _name_outputs(model: ir.Model, names: Sequence[str]) -> None:
    graph = model.graph
    if len(names) != len(graph.outputs):
        raise ExportFailed(
            f"The module returns {len(names)} tensors; the exported graph has {len(graph.outputs)} outputs.",
            stage="export",
        )
    seen: set[int] = set()
    for position, value in enumerate(list(graph.outputs)):
        # An output that is an input, a weight or another output again needs a value of its own to be named.
        if value.producer() is None or id(value) in seen:
            node = ir.node("Identity", [value])
            node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
            graph.append(node)
            graph.outputs[position] = node.outputs[0]
        seen.add(id(value))
    _free_names(graph, set(names))
    for value, name in zip(graph.outputs, names, strict=True):
        value.name = name


def _free_names(graph: ir.Graph, wanted: set[str]) -> None:
    """Rename inner values that have a name that an output shall get."""
    outputs = {id(value) for value in graph.outputs}
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for value in node.outputs:
            if value.name in wanted and id(value) not in outputs:
                value.name = f"{value.name}_inner"


def _check_names(model: ir.Model, request: ExportRequest) -> None:
    inputs = [value.name for value in model.graph.inputs]
    asked = [spec.name for spec in request.signature.inputs]
    if inputs != asked:
        raise ExportFailed(
            f"The exported graph has the inputs {', '.join(map(str, inputs))} instead of {', '.join(asked)}: "
            "the model does not use the others, or takes them for constants.",
            stage="export",
        )
    clash = set(model.graph.initializers) & {*asked, *(str(value.name) for value in model.graph.outputs)}
    if clash:
        raise InvalidOptions(
            f"Inputs or outputs have the name of a weight: {', '.join(sorted(clash))}.",
            hint="Choose other names with input_names or output_names.",
        )


def _check_axes(model: ir.Model, request: ExportRequest) -> None:
    fixed = [
        f"axis {position} ({size}) of input {spec.name!r}"
        for spec, value in zip(request.signature.inputs, model.graph.inputs, strict=True)
        for position, size in enumerate(spec.shape)
        if isinstance(size, str) and value.shape is not None and isinstance(value.shape[position], int)
    ]
    if fixed:
        raise StaticAxis(
            f"The exported graph fixes {', '.join(fixed)}.",
            stage="export",
            hint="Leave these axes out of dynamic_axes; dynamic_axes={} makes all static.",
        )
