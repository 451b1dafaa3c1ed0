"""Build an ONNX template: optimise the graph with its weights demoted to inputs, then keep everything but them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx_ir as ir
from torch import Tensor, nn

from app.conversion.exporters.captured import CapturedOnnx
from app.conversion.exporters.onnx_finish import strip_debug
from app.conversion.exporters.request import ExportRequest
from app.conversion.templates.onnx_optimise import optimise
from app.conversion.templates.onnx_prologue import fold_prologue
from app.conversion.templates.onnx_template import OnnxTemplate, save_onnx_template
from app.conversion.templates.pieces import Slot
from app.conversion.templates.protobuf import GRAPH_INITIALIZER, MODEL_GRAPH, fields
from app.conversion.templates.recipe import weights_of
from app.conversion.templates.slots import TensorForm, WeightTable, state_forms
from app.conversion.templates.structure import structure_digest
from app.conversion.templates.suitability import TemplateUnsuitable, baked_weight, foreign_state, rewriting, steering
from app.conversion.templates.tensor_bytes import FLOATS, TORCH_DTYPES, to_torch

TRACED = "torchscript"
"""Name of the exporter whose graph records one run of the code (app/conversion/exporters/onnx_torchscript.py)."""


def build_template(
    captured: CapturedOnnx, module: nn.Module, path: Path, *, request: ExportRequest | None = None
) -> OnnxTemplate:
    """Make a template of an unoptimised capture of ``module`` and write it to ``path``.

    ``captured.model`` is consumed: its graph is optimised in place and loses its weights. Initializers whose name is a
    state-dict key become slots, all others stay in the template. ``request`` is what the exporter was asked for;
    without it debug metadata is not kept, a traced graph is unsuitable, since nothing shows that it is free of weights'
    values, and whether the forward pass writes into its weights is not asked.

    Raises TemplateUnsuitable with the reason in words.
    """
    _refuse(foreign_state(module))
    if captured.exporter == TRACED:
        _refuse(steering(request) if request is not None else "nothing is known of what the traced code reads")
    elif request is not None:
        _refuse(rewriting(request))
    model = captured.model
    forms, groups = state_forms(module)
    demoted = _demote(model, forms)
    optimise(model)
    if request is None or not request.options.keep_debug:
        strip_debug(model)
    prologue = fold_prologue(model, _promote(model, demoted))
    weights = _weight_table(prologue.slots, forms, groups)
    _refuse(baked_weight(_constants(model), module.state_dict()))
    model_head, graph_head, graph_tail, model_tail = _serialise(model)
    template = OnnxTemplate(
        path=path,
        exporter=captured.exporter,
        warnings=captured.warnings,
        structure=structure_digest(module),
        weights=weights,
        slots=prologue.slots,
        constants=prologue.constants,
        model_head=model_head,
        graph_head=graph_head,
        graph_tail=graph_tail,
        model_tail=model_tail,
    )
    save_onnx_template(template)
    return template


def _refuse(reason: str | None) -> None:
    if reason is not None:
        raise TemplateUnsuitable(reason)


def _demote(model: ir.Model, forms: Mapping[str, TensorForm]) -> list[ir.Value]:
    """Turn weights into graph inputs, which no optimiser may fold, merge or rename."""
    graph = model.graph
    demoted = []
    for name, value in list(graph.initializers.items()):
        if name not in forms:
            continue
        tensor = value.const_value
        if tensor is None or TensorForm(TORCH_DTYPES.get(tensor.dtype, ""), tuple(tensor.shape.numpy())) != forms[name]:
            raise TemplateUnsuitable(f"the exporter changed the shape or dtype of {name}")
        del graph.initializers[name]
        value.type = ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(forms[name].shape)
        value.const_value = None
        demoted.append(value)
    graph.inputs.extend(demoted)
    return demoted


def _promote(model: ir.Model, demoted: list[ir.Value]) -> dict[str, ir.Value]:
    """Take the weights out of the inputs again, by state-dict key."""
    kept = len(model.graph.inputs) - len(demoted)
    if list(model.graph.inputs)[kept:] != demoted:
        raise TemplateUnsuitable("the optimiser replaced a graph input")
    del model.graph.inputs[kept:]
    return {str(value.name): value for value in demoted}


def _weight_table(
    slots: Iterable[Slot], forms: Mapping[str, TensorForm], groups: Mapping[str, list[str]]
) -> WeightTable:
    used = {key: forms[key] for slot in slots for key in weights_of(slot.recipe)}
    tied = {other: key for key in used for other in groups[key] if other != key}
    return WeightTable(
        used=used,
        tied=tied,
        unreached={key: form for key, form in forms.items() if key not in used and key not in tied},
    )


def _constants(model: ir.Model) -> Iterator[tuple[str, Tensor]]:
    """The float tensors that stay in the graph; the optimiser has lifted all of them to initializers."""
    for name, value in model.graph.initializers.items():
        if value.const_value is not None and value.const_value.dtype in FLOATS:
            yield name, to_torch(value.const_value)


def _serialise(model: ir.Model) -> tuple[bytes, bytes, bytes, bytes]:
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
