"""Capturing an ONNX graph with torch.onnx.export(dynamo=False), the exporter built on TorchScript."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnx_ir.tensor_adapters import TorchTensor
from torch import nn

from app.domain.errors import ExportFailed, RecastError, UnsupportedOpset
from app.targets.capturing.attention import plain_attention
from app.targets.capturing.eval_mode import assert_eval
from app.targets.capturing.flat_module import PREFIX, FlatModule
from app.targets.capturing.output_names import output_names
from app.targets.capturing.quiet import collected, first_lines
from app.targets.capturing.tracing import tracing
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.captured import CapturedOnnx
from app.targets.onnx.writing.finish import finish
from app.targets.onnx.writing.opset import checked_opset
from app.targets.onnx.writing.output_shapes import refine_output_shapes
from app.targets.request import ExportRequest

SCRIPTED = "torchscript-scripted"
"""This exporter, given the compiled module: it keeps branches that a trace freezes."""

_NEWER_OPSET = re.compile(r"(?:added in|try opset) version (\d+)")
"""How the exporter says that a newer opset has what an operator needs (torch/onnx/errors.py, symbolic_helper.py)."""

NEWEST_WRITTEN = 20
"""The exporter has no operators beyond this opset (torch/onnx/_constants.py, ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET)."""


def capture(request: ExportRequest) -> CapturedOnnx:
    """Trace the module and translate the trace, without constant folding or conv+BN fusing.

    Raises UnsupportedOpset, StaticAxis, InvalidOptions, and ExportFailed with the first lines of why.
    """
    return _captured(request, "torchscript")


def capture_scripted(request: ExportRequest) -> CapturedOnnx:
    """Compile the module by torch.jit.script and translate that, branches and loops included. Raises likewise."""
    return _captured(request, SCRIPTED)


def _captured(request: ExportRequest, exporter: str) -> CapturedOnnx:
    options = request.options
    if not isinstance(options, OnnxOptions):
        raise TypeError(f"an ONNX exporter was given options of target {options.target}")
    opset = checked_opset(options)
    assert_eval(request.module)
    with tracing() if exporter != SCRIPTED else collected() as said:
        names = output_names(request)
        model = _export(_program(request, exporter), request, opset, names)
    assert_eval(request.module)
    model = finish(model, request, options, opset, names)
    refine_output_shapes(model, sizes_known=False)
    if exporter == SCRIPTED:
        return CapturedOnnx(model, tuple(said.lines), exporter)
    return CapturedOnnx(model, tuple(said.lines), exporter, tuple(said.kept), (request.sample,))


def _program(request: ExportRequest, exporter: str) -> nn.Module:
    if exporter != SCRIPTED:
        return FlatModule(request).eval()
    try:
        scripted: torch.jit.ScriptModule = torch.jit.script(request.module)
    except Exception as error:  # the compiler wraps whatever it meets
        said = first_lines(str(error), 6) or type(error).__name__
        raise ExportFailed(f"torch.jit.script: {type(error).__name__}: {said}", stage="export") from error
    return scripted


def _export(module: nn.Module, request: ExportRequest, opset: int, names: tuple[str, ...]) -> ir.Model:
    """The graph with weights as further inputs, which keeps the exporter from merging equal ones, and from 2 GB."""
    buffer = io.BytesIO()
    try:
        with torch.no_grad(), plain_attention(), _graph_log_off():
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
        raise _failure(error) from error
    model = ir.from_proto(onnx.load_from_string(buffer.getvalue()))
    _attach_weights(model, request)
    LiftConstantsToInitializersPass()(model)
    return model


@contextmanager
def _graph_log_off() -> Iterator[None]:
    """Keep the exporter from printing graphs to stdout.

    It switches its C++ log on for every export (setup_onnx_logging compares a function, not its result, with False).
    """
    log = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = log


def _dynamic_axes(request: ExportRequest) -> dict[str, dict[int, str]]:
    return {
        spec.name: {position: size for position, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in request.signature.inputs
    }


def _attach_weights(model: ir.Model, request: ExportRequest) -> None:
    """Turn the inputs that are weights into initializers on the module's own memory, under their state-dict keys."""
    tensors: dict[str, Any] = request.module.state_dict()
    for value in model.graph.inputs[len(request.signature.inputs) :]:
        name = str(value.name).removeprefix(PREFIX) if str(value.name) not in tensors else str(value.name)
        if isinstance(tensor := tensors.get(name), torch.Tensor):
            model.graph.inputs.remove(value)
            value.name = name
            value.const_value = TorchTensor(tensor.detach(), name=name)
            model.graph.initializers[name] = value


def _failure(error: Exception) -> RecastError:
    said = first_lines(str(error), 4) or type(error).__name__
    detail = f"torch.onnx: {type(error).__name__}: {said}"
    newer = _NEWER_OPSET.search(str(error))
    if newer is None:
        return ExportFailed(detail, stage="export", hint=_hint(said))
    opset = int(newer.group(1))
    return UnsupportedOpset(
        detail,
        stage="export",
        hint=f"Opset {opset} is the lowest that this model can be written in by this exporter.",
        lowest_opset=opset,
    )


def _hint(said: str) -> str | None:
    if "complex" in said.lower() or "stft" in said.lower():
        return "ONNX has no complex tensors; compute with real and imaginary parts."
    if "operator" in said and "not supported" in said:
        return "exporter=dynamo knows other operators."
    return None
