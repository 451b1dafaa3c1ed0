"""Capturing an ONNX graph with torch.onnx.export(dynamo=False), the exporter built on TorchScript."""

import io
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor
from torch import nn

from app.architectures.calling import call
from app.conversion.exporters.captured import CapturedOnnx
from app.conversion.exporters.eval_mode import assert_eval
from app.conversion.exporters.flat_module import PREFIX, FlatModule
from app.conversion.exporters.onnx_finish import finish
from app.conversion.exporters.opset import checked_opset
from app.conversion.exporters.quiet import collected, first_lines
from app.conversion.exporters.request import ExportRequest
from app.domain.conversion import OnnxOptions
from app.domain.errors import ExportFailed, RecastError

NEWEST_WRITTEN = 20
"""The exporter has no operators beyond this opset (torch/onnx/_constants.py, ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET)."""

# What torch.jit's tracer says when Python looks at a value: the graph then holds the branch that the sample took.
_FROZEN_BRANCH = "Converting a tensor to a Python"


def capture(request: ExportRequest) -> CapturedOnnx:
    """Trace the module and translate the trace, without constant folding or conv+BN fusing.

    Where the trace warns that a branch on values was frozen, the module is compiled by torch.jit.script instead if its
    code permits; ``exporter`` is then "torchscript-scripted". Raises UnsupportedOpset, StaticAxis, InvalidOptions, and
    ExportFailed with the first lines of why.
    """
    options = request.options
    if not isinstance(options, OnnxOptions):
        raise TypeError(f"an ONNX exporter was given options of target {options.target}")
    opset = checked_opset(options.opset)
    assert_eval(request.module)
    with collected() as said:
        names = tuple(call(request.module, request.signature, request.sample))
        exporter = "torchscript"
        model = _export(FlatModule(request.module, request.signature).eval(), request, opset, names)
    warnings = tuple(said)
    if any(_FROZEN_BRANCH in line for line in warnings) and (scripted := _scripted(request, opset, names)):
        model, warnings = scripted
        exporter = "torchscript-scripted"
    assert_eval(request.module)
    _attach_weights(model, request.module)
    return CapturedOnnx(finish(model, request, options, opset, names), warnings, exporter)


def _scripted(request: ExportRequest, opset: int, names: tuple[str, ...]) -> tuple[ir.Model, tuple[str, ...]] | None:
    """The compiled module's graph, or None if its code is outside what TorchScript compiles."""
    with collected() as said:
        try:
            model = _export(torch.jit.script(request.module), request, opset, names)
        except Exception:  # noqa: BLE001 - the trace, with its warnings, stands
            return None
    return model, tuple(said)


def _export(module: nn.Module, request: ExportRequest, opset: int, names: tuple[str, ...]) -> ir.Model:
    """The graph with weights as further inputs, which keeps the exporter from merging equal ones, and from 2 GB."""
    buffer = io.BytesIO()
    try:
        with torch.no_grad():
            torch.onnx.export(
                module,
                tuple(request.sample[spec.name].clone() for spec in request.signature.inputs),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                export_params=False,
                keep_initializers_as_inputs=True,
                do_constant_folding=False,
                input_names=[spec.name for spec in request.signature.inputs],
                output_names=list(names),
                opset_version=min(opset, NEWEST_WRITTEN),
                dynamic_axes=_dynamic_axes(request),
            )
    except RecastError:
        raise
    except Exception as error:  # the exporter wraps whatever the model and its own passes raise
        said = first_lines(str(error), 4) or type(error).__name__
        raise ExportFailed(f"torch.onnx: {type(error).__name__}: {said}", stage="export", hint=_hint(said)) from error
    return ir.from_proto(onnx.load_from_string(buffer.getvalue()))


def _dynamic_axes(request: ExportRequest) -> dict[str, dict[int, str]]:
    return {
        spec.name: {position: size for position, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in request.signature.inputs
    }


def _attach_weights(model: ir.Model, module: nn.Module) -> None:
    """Turn the inputs that are weights into initializers on the module's own memory, under their state-dict keys."""
    tensors: dict[str, Any] = module.state_dict()
    for value in list(model.graph.inputs):
        name = str(value.name).removeprefix(PREFIX) if str(value.name).startswith(PREFIX) else str(value.name)
        tensor = tensors.get(name)
        if isinstance(tensor, torch.Tensor) and value in model.graph.inputs:
            model.graph.inputs.remove(value)
            value.name = name
            value.const_value = TorchTensor(tensor.detach(), name=name)
            model.graph.initializers[name] = value


def _hint(said: str) -> str | None:
    if "complex" in said.lower() or "stft" in said.lower():
        return "ONNX has no complex tensors; compute with real and imaginary parts."
    if "operator" in said and "not supported" in said:
        return "A newer opset may have the operator; exporter=dynamo knows others."
    return None
