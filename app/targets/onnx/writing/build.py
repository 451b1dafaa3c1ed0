"""Build an ONNX template: optimise the graph with its weights demoted to inputs, then keep everything but them."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import cast

import onnx_ir as ir
import torch
from torch import Tensor, nn

from app.domain.errors import ExportFailed
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.bfloat16 import TOLD, in_bfloat16
from app.targets.onnx.writing.captured import CapturedOnnx
from app.targets.onnx.writing.finish import strip_debug
from app.targets.onnx.writing.fourier import make_transforms_exact
from app.targets.onnx.writing.half import Kept, to_half
from app.targets.onnx.writing.optimise import lift_constants, optimise
from app.targets.onnx.writing.prologue import fold_prologue, no_prologue
from app.targets.onnx.writing.reworked import serialised
from app.targets.onnx.writing.template import OnnxTemplate, save_onnx_template
from app.targets.onnx.writing.transposes import cast_before_transposing
from app.targets.request import ExportRequest
from app.targets.templating.pieces import weight_table
from app.targets.templating.reuse import against_reuse_at, foreign_state, refuse_baked_weight, rewriting
from app.targets.templating.slots import TensorForm, state_forms
from app.targets.templating.structure import structure_digest
from app.targets.templating.tensor_bytes import FLOATS, TORCH_DTYPES, to_torch

_log = logging.getLogger(__name__)

NAMED = 5
"""Operators that a reason names."""


def build_template(
    captured: CapturedOnnx, module: nn.Module, path: Path, *, request: ExportRequest | None = None
) -> OnnxTemplate:
    """Make a template of an unoptimised capture of ``module`` and write it to ``path``.

    ``captured.model`` is consumed: its graph is optimised in place and loses its weights. Initializers whose name is a
    state-dict key become slots, all others stay in the template. ``request`` is what the exporter was asked for;
    without it debug metadata is not kept, and nothing shows that other weights may use a traced graph.

    Raises ExportFailed where the capture holds weights in a form that cannot be filled.
    """
    forms, groups = state_forms(module)
    refuse_baked_weight(constants(captured.model, forms.keys()), module)
    model, weights = _optimised(captured.model, forms)
    if request is None or not cast(OnnxOptions, request.options).keep_debug:
        strip_debug(model)
    cast_before_transposing(model)
    kept = _lowered(model, weights, request)
    make_transforms_exact(model)  # in float32, as the operators are in any precision
    as_uploaded = request is not None and request.options.over_checkpoint
    prologue = no_prologue(weights) if as_uploaded else fold_prologue(model, weights)
    model_head, graph_head, graph_tail, model_tail = serialised(model)
    template = OnnxTemplate(
        path=path,
        exporter=captured.exporter,
        warnings=(*captured.warnings, *_told(kept)),
        structure=structure_digest(module),
        weights=weight_table(prologue.slots, forms, groups),
        slots=prologue.slots,
        constants=prologue.constants,
        model_head=model_head,
        graph_head=graph_head,
        graph_tail=graph_tail,
        model_tail=model_tail,
        against_reuse=_against_reuse(captured, module, request),
        of_weights=_of_weights(kept),
    )
    if request is not None and cast(OnnxOptions, request.options).precision == "bf16":
        template = replace(in_bfloat16(template), warnings=(*template.warnings, TOLD))
    save_onnx_template(template)
    return template


def _lowered(model: ir.Model, weights: Mapping[str, ir.Value], request: ExportRequest | None) -> Mapping[str, Kept]:
    """Bring the graph to the precision that was asked for; gives the operators that stay in float32."""
    if request is None or cast(OnnxOptions, request.options).precision != "fp16":
        return {}
    state = request.module.state_dict()
    return to_half(model, weights, request.sample, state, keep_io_types=request.options.io_dtype is None)


def _told(kept: Mapping[str, Kept]) -> tuple[str, ...]:
    return (f"fp16: {len(kept)} operators stay in float32: {_named(kept)}",) if kept else ()


def _of_weights(kept: Mapping[str, Kept]) -> str | None:
    by_values = {operator: why for operator, why in kept.items() if why.by_values}
    return f"these weights alone need float32 in {_named(by_values, NAMED)}" if by_values else None


def _named(kept: Mapping[str, Kept], most: int | None = None) -> str:
    return ", ".join(f"{operator} ({why.reason})" for operator, why in islice(kept.items(), most))


def _against_reuse(captured: CapturedOnnx, module: nn.Module, request: ExportRequest | None) -> str | None:
    if request is None:
        return "nothing is known of what the traced code reads" if captured.traced_with else foreign_state(module)
    if not captured.traced_with:
        return foreign_state(module) or rewriting(request)
    return against_reuse_at(captured.traced_with, request)


def _optimised(model: ir.Model, forms: Mapping[str, TensorForm]) -> tuple[ir.Model, dict[str, ir.Value]]:
    """The graph, optimised as far as the optimiser can, without its weights; and these by state-dict key.

    Where a pass raises, the graph is left as it was captured, with its constants lifted: a runtime optimises too.
    """
    demoted = _demote(model, forms)
    plain = model.clone()
    for simplify in (optimise, lift_constants):
        try:
            simplify(model)
            return model, _promote(model, demoted)
        except Exception:  # noqa: BLE001 - passes of several libraries, which may raise anything on a rare graph
            _log.warning("%s of an ONNX graph failed", simplify.__name__, exc_info=True)
        model = plain
    raise ExportFailed("The exported graph cannot be prepared for filling.", stage="export")


def _demote(model: ir.Model, forms: Mapping[str, TensorForm]) -> tuple[str, ...]:
    """Turn weights into graph inputs, which no optimiser may fold, merge or rename; gives their names."""
    graph = model.graph
    demoted = []
    for name, value in list(graph.initializers.items()):
        if name not in forms:
            continue
        tensor = value.const_value
        if tensor is None or TensorForm(TORCH_DTYPES.get(tensor.dtype, ""), tuple(tensor.shape.numpy())) != forms[name]:
            raise ExportFailed(f"the exporter changed the shape or dtype of {name}", stage="export")
        del graph.initializers[name]
        value.type = ir.TensorType(tensor.dtype)
        value.shape = ir.Shape(forms[name].shape)
        value.const_value = None
        graph.inputs.append(value)
        demoted.append(name)
    return tuple(demoted)


def _promote(model: ir.Model, demoted: tuple[str, ...]) -> dict[str, ir.Value]:
    """Take the weights out of the inputs again, by state-dict key."""
    kept = len(model.graph.inputs) - len(demoted)
    values = list(model.graph.inputs)[kept:]
    if tuple(value.name for value in values) != demoted:
        raise ValueError("the optimiser replaced a graph input")
    del model.graph.inputs[kept:]
    return dict(zip(demoted, values, strict=True))


def constants(model: ir.Model, keys: Collection[str]) -> dict[str, Tensor]:
    """The float tensors of a captured graph that are no weights: initializers without a key, attributes of nodes."""
    found: dict[str, Tensor] = {}
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if name not in keys and value.const_value is not None and value.const_value.dtype in FLOATS:
                found[name] = to_torch(value.const_value)
        for node in graph:
            for attribute in node.attributes.values():
                place = f"{node.outputs[0].name if node.outputs else node.name}:{attribute.name}"
                if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in FLOATS:
                    found[place] = to_torch(attribute.as_tensor())
                elif attribute.type == ir.AttributeType.FLOATS:
                    found[place] = torch.tensor(attribute.as_floats())
    return found
