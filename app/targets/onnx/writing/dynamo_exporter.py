"""Capturing an ONNX graph with torch.onnx.export(dynamo=True), the exporter built on torch.export."""

import onnx_ir as ir
import torch

from app.domain.architecture import InputSpec
from app.domain.errors import ExportFailed, RecastError, StaticAxis
from app.targets.capturing.attention import plain_attention
from app.targets.capturing.eval_mode import assert_eval
from app.targets.capturing.fixed_axis import tells_of_fixed_axis
from app.targets.capturing.flat_module import PREFIX, FlatModule
from app.targets.capturing.output_names import output_names
from app.targets.capturing.quiet import collected, first_lines
from app.targets.capturing.recurrent import forget_recurrent_kernels
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing import operator_library
from app.targets.onnx.writing.captured import CapturedOnnx
from app.targets.onnx.writing.finish import finish
from app.targets.onnx.writing.opset import EXPORT_MINIMUM, checked_opset
from app.targets.onnx.writing.output_shapes import refine_output_shapes
from app.targets.request import ExportRequest


def capture(request: ExportRequest) -> CapturedOnnx:
    """Export with torch.export, without optimisation.

    Raises StaticAxis if the model's code fixes an axis that was asked to vary, UnsupportedOpset, and ExportFailed with
    the first lines of why.
    """
    options = request.options
    if not isinstance(options, OnnxOptions):
        raise TypeError(f"an ONNX exporter was given options of target {options.target}")
    opset = checked_opset(options)
    assert_eval(request.module)
    operator_library.read_once()
    forget_recurrent_kernels()  # torch.onnx puts its own in their place
    flat = FlatModule(request).eval()
    # Where gradients are kept, torch.export chooses attention kernels by other strides than the decompositions find.
    with collected() as said, plain_attention(), torch.no_grad():
        try:
            program = torch.onnx.export(
                flat,
                tuple(request.sample[spec.name].clone() for spec in request.signature.inputs),
                dynamo=True,
                dynamic_shapes={"inputs": tuple(_dynamic_shape(spec) for spec in request.signature.inputs)},
                input_names=[spec.name for spec in request.signature.inputs],
                opset_version=max(opset, EXPORT_MINIMUM),
                optimize=False,
                verify=False,
                verbose=False,
            )
        except RecastError:
            raise
        except Exception as error:  # the exporter wraps whatever the model and its own passes raise
            raise _failure(error) from error
    assert_eval(request.module)
    if program is None:
        raise ExportFailed("torch.onnx.export(dynamo=True) gave no program.", stage="export")
    model = program.model
    _rename_initializers(model)
    model = finish(model, request, options, opset, getattr(flat, "output_names", None) or output_names(request))
    refine_output_shapes(model, sizes_known=True)
    return CapturedOnnx(model, tuple(said.lines), "dynamo")


def _dynamic_shape(spec: InputSpec) -> dict[int, str] | None:
    # Names, never torch.export.Dim objects: with a Dim, an axis that the code fixes is silently exported static.
    axes = {position: size for position, size in enumerate(spec.shape) if isinstance(size, str)}
    return axes or None


def _rename_initializers(model: ir.Model) -> None:
    for name in list(model.graph.initializers):
        if name.startswith(PREFIX):
            value = model.graph.initializers.pop(name)
            value.name = name.removeprefix(PREFIX)
            model.graph.initializers[value.name] = value


def _failure(error: BaseException) -> RecastError:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    specialised = [link for link in chain if tells_of_fixed_axis(link)]
    root = (specialised or chain)[-1]
    said = first_lines(str(root)) or type(root).__name__
    if specialised:
        return StaticAxis(
            f"The model's code fixes the size of an axis that was asked to be dynamic: {said}",
            stage="export",
            hint="Ask for fewer dynamic axes (dynamic_axes={} makes all static), or use exporter=torchscript.",
        )
    return ExportFailed(f"torch.export: {type(root).__name__}: {said}", stage="export", hint=_hint(str(root)))


def _hint(said: str) -> str | None:
    if "data-dependent" in said or "Could not guard" in said:
        return (
            "The forward pass branches on values. The torchscript exporter keeps such branches: exporter=torchscript."
        )
    if "complex" in said.lower():
        return "ONNX has no complex tensors; compute with real and imaginary parts."
    return None
