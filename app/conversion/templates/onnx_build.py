"""Build an ONNX template: optimise the graph with its weights demoted to inputs, then keep everything but them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import onnx_ir as ir
import onnxscript.optimizer
from onnx_ir.passes import common
from torch import nn

from app.conversion.templates.onnx_layout import GRAPH_INITIALIZER, MODEL_GRAPH
from app.conversion.templates.onnx_template import OnnxTemplate, Slot, save_onnx_template
from app.conversion.templates.protobuf import fields
from app.conversion.templates.recipe import Weight
from app.conversion.templates.slots import TensorForm, WeightTable, state_forms
from app.conversion.templates.suitability import TemplateUnsuitable
from app.conversion.templates.tensor_bytes import TORCH_DTYPES


class CapturedOnnx(Protocol):
    """What an ONNX exporter captured (app/conversion/exporters)."""

    @property
    def model(self) -> ir.Model: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def exporter(self) -> str: ...


def build_template(captured: CapturedOnnx, module: nn.Module, path: Path) -> OnnxTemplate:
    """Make a template of an unoptimised capture of ``module`` and write it to ``path``.

    ``captured.model`` is consumed: its graph is optimised in place and loses its weights. Initializers whose name is a
    state-dict key become slots, all others stay in the template.

    Raises TemplateUnsuitable with the reason in words.
    """
    forms, groups = state_forms(module)
    model = captured.model
    demoted = _demote(model, forms)
    _optimise(model)
    slots = _promote(model, demoted)
    weights = _weight_table(slots, forms, groups)
    model_head, graph_head, graph_tail, model_tail = _serialise(model)
    template = OnnxTemplate(
        path=path,
        exporter=captured.exporter,
        warnings=captured.warnings,
        structure="",
        weights=weights,
        slots=tuple(slots),
        constants={},
        model_head=model_head,
        graph_head=graph_head,
        graph_tail=graph_tail,
        model_tail=model_tail,
    )
    save_onnx_template(template)
    return template


def _demote(model: ir.Model, forms: Mapping[str, TensorForm]) -> list[ir.Value]:
    """Turn weights into graph inputs, which no optimiser may fold, merge or rename."""
    graph = model.graph
    demoted = []
    for name, value in list(graph.initializers.items()):
        if name not in forms:
            continue
        tensor = value.const_value
        if tensor is None or TensorForm(TORCH_DTYPES[tensor.dtype], tuple(tensor.shape.numpy())) != forms[name]:
            raise TemplateUnsuitable(f"the exporter changed the shape or dtype of {name}")
        del graph.initializers[name]
        value.type = ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(forms[name].shape)
        value.const_value = None
        demoted.append(value)
    graph.inputs.extend(demoted)
    return demoted


def _optimise(model: ir.Model) -> None:
    onnxscript.optimizer.optimize_ir(model)
    common.RemoveUnusedNodesPass()(model)


def _promote(model: ir.Model, demoted: list[ir.Value]) -> list[Slot]:
    """Take the weights out of the inputs again. Slots are the ones still used, in the order of the state dict."""
    kept = len(model.graph.inputs) - len(demoted)
    if list(model.graph.inputs)[kept:] != demoted:
        raise TemplateUnsuitable("the optimiser replaced a graph input")
    del model.graph.inputs[kept:]
    slots = []
    for value in demoted:
        if value.uses() or value.is_graph_output():
            name, dtype, shape = value.name, value.dtype, value.shape
            assert name is not None
            assert dtype is not None
            assert shape is not None
            slots.append(Slot(name, TensorForm(TORCH_DTYPES[dtype], tuple(shape.numpy())), Weight(name)))
    return slots


def _weight_table(slots: list[Slot], forms: Mapping[str, TensorForm], groups: Mapping[str, list[str]]) -> WeightTable:
    used = {slot.name: forms[slot.name] for slot in slots}
    tied = {other: key for key in used for other in groups[key] if other != key}
    return WeightTable(
        used=used,
        tied=tied,
        unreached={key: form for key, form in forms.items() if key not in used and key not in tied},
    )


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
