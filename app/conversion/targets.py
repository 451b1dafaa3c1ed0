"""The targets a checkpoint can be converted to: one class each, in one table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import onnx
from torch import Tensor, nn

from app.conversion.exporters import (
    ladder,
    onnx_dynamo,
    onnx_torchscript,
    torchscript,
)
from app.conversion.exporters.captured import CapturedOnnx, CapturedTorchScript
from app.conversion.exporters.request import ExportRequest
from app.conversion.templates import onnx_build, onnx_template, proof, torchscript_template
from app.conversion.templates.claims import claims
from app.conversion.templates.onnx_template import OnnxTemplate
from app.conversion.templates.onnx_write import WrittenFile, write_onnx
from app.conversion.templates.torchscript_template import TorchScriptTemplate, write_torchscript
from app.conversion.verification.claims import Claim
from app.domain.architecture import Signature
from app.domain.conversion import TargetName
from app.domain.report import ExportReport

Captured = TypeVar("Captured")
Template = TypeVar("Template")


class Target(Protocol[Captured, Template]):
    """What production needs to know of a target."""

    suffix: str
    media_type: str

    def capture(self, request: ExportRequest, exporter: str) -> Captured:
        """The graph, unoptimised. Raises ExportFailed and kin."""

    def constants(self, captured: Captured, module: nn.Module) -> Mapping[str, Tensor]:
        """The float tensors that the capture holds beside the module's state dict, by what they are called in it."""

    def build_template(self, captured: Captured, request: ExportRequest, path: Path) -> Template:
        """Make a weight-free template. ``captured`` is consumed. Raises ExportFailed."""

    def load_template(self, path: Path) -> Template:
        """Read a template file."""

    def fill(
        self, template: Template, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        """Write the artifact that carries ``tensors``. Raises TemplateMismatch."""

    def claims(self, template: Template) -> Mapping[str, Claim]:
        """What the template says of each of the artifact's tensors."""

    def is_filled(self, template: Template, written: WrittenFile) -> bool:
        """Whether the bytes on disk are the template's graph with its slots filled, and nothing else."""

    def report(self, template: Template, request: ExportRequest) -> ExportReport: ...


class Onnx:
    suffix = ".onnx"
    media_type = "application/octet-stream"

    def capture(self, request: ExportRequest, exporter: str) -> CapturedOnnx:
        exporters = {"dynamo": onnx_dynamo.capture, "torchscript": onnx_torchscript.capture}
        exporters[ladder.SCRIPTED] = onnx_torchscript.capture_scripted
        return exporters[exporter](request)

    def constants(self, captured: CapturedOnnx, module: nn.Module) -> Mapping[str, Tensor]:
        return onnx_build.constants(captured.model, module.state_dict().keys())

    def build_template(self, captured: CapturedOnnx, request: ExportRequest, path: Path) -> OnnxTemplate:
        return onnx_build.build_template(captured, request.module, path, request=request)

    def load_template(self, path: Path) -> OnnxTemplate:
        return onnx_template.load_onnx_template(path)

    def fill(
        self, template: OnnxTemplate, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        options = request.options
        assert options.target == "onnx"
        return write_onnx(template, tensors, path, external_data=options.external_data, module=request.module)

    def claims(self, template: OnnxTemplate) -> Mapping[str, Claim]:
        slots = ((slot.name, slot.recipe) for slot in template.slots)
        return claims(slots, template.own_tensors(), template.constants)

    def is_filled(self, template: OnnxTemplate, written: WrittenFile) -> bool:
        return proof.same_graph(template, written.path)

    def report(self, template: OnnxTemplate, request: ExportRequest) -> ExportReport:
        model = onnx.ModelProto.FromString(template.graph_without_weights())
        return _onnx_report(model, template.exporter, template.warnings)


class TorchScript:
    suffix = ".pt"
    media_type = "application/octet-stream"

    def capture(self, request: ExportRequest, exporter: str) -> CapturedTorchScript:
        return torchscript.capture(request, "trace" if exporter == "trace" else "script")

    def constants(self, captured: CapturedTorchScript, module: nn.Module) -> Mapping[str, Tensor]:
        return torchscript_template.constants(captured.module)

    def build_template(self, captured: CapturedTorchScript, request: ExportRequest, path: Path) -> TorchScriptTemplate:
        return torchscript_template.build_template(captured, request, path)

    def load_template(self, path: Path) -> TorchScriptTemplate:
        return torchscript_template.load_torchscript_template(path)

    def fill(
        self, template: TorchScriptTemplate, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        return write_torchscript(template, tensors, path, module=request.module)

    def claims(self, template: TorchScriptTemplate) -> Mapping[str, Claim]:
        return claims(template.slots(), template.own_tensors(), {})

    def is_filled(self, template: TorchScriptTemplate, written: WrittenFile) -> bool:
        return proof.same_archive(template, written.path)

    def report(self, template: TorchScriptTemplate, request: ExportRequest) -> ExportReport:
        return _torchscript_report(request.signature, template.method, template.warnings)


TARGETS: dict[TargetName, Target[Any, Any]] = {"onnx": Onnx(), "torchscript": TorchScript()}

rungs = ladder.rungs


def _onnx_report(model: onnx.ModelProto, exporter: str, warnings: tuple[str, ...]) -> ExportReport:
    """What the file itself says; initializers may be absent."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    dims = {
        value.name: {at: d.dim_param for at, d in enumerate(value.type.tensor_type.shape.dim) if d.dim_param}
        for value in inputs
    }
    return ExportReport(
        target="onnx",
        exporter=exporter,
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        ir_version=model.ir_version,
        input_names=tuple(value.name for value in inputs),
        output_names=tuple(value.name for value in model.graph.output),
        dynamic_axes={name: axes for name, axes in dims.items() if axes},
        warnings=warnings,
    )


def _torchscript_report(signature: Signature, method: str, warnings: tuple[str, ...]) -> ExportReport:
    """A TorchScript file declares no axes; what it does at other sizes is for the dims certificate to show."""
    dims = {
        spec.name: {at: size for at, size in enumerate(spec.shape) if isinstance(size, str)}
        for spec in signature.inputs
    }
    return ExportReport(
        target="torchscript",
        exporter=method,
        input_names=tuple(spec.name for spec in signature.inputs),
        output_names=tuple(spec.name for spec in signature.outputs),
        dynamic_axes={name: axes for name, axes in dims.items() if axes},
        warnings=warnings,
    )
