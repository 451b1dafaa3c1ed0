"""The writing half of target ``onnx``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import onnx
import torch
from torch import Tensor, nn
from torch.onnx._internal.exporter import _flags

from app.architectures.module_state import state_kept
from app.domain.conversion import CommonOptions
from app.domain.errors import RecastError
from app.domain.report import ExportReport, Quantization, WeightsBeside
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.side import Side, at_side
from app.targets.capturing.tracing import traced
from app.targets.claims import Claim
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing import build, dynamo_exporter, torchscript_exporter
from app.targets.onnx.writing.captured import CapturedOnnx
from app.targets.onnx.writing.fill import write_onnx
from app.targets.onnx.writing.joined import join
from app.targets.onnx.writing.layout import referenced_slots, same_graph, with_metadata
from app.targets.onnx.writing.opset import NEWER, with_opset
from app.targets.onnx.writing.preload import warm_exporters
from app.targets.onnx.writing.sensitive_layers import quantisations
from app.targets.onnx.writing.template import OnnxTemplate, load_onnx_template
from app.targets.onnx.writing.torchscript_exporter import SCRIPTED
from app.targets.request import ExportRequest
from app.targets.templating.claims import claims
from app.targets.templating.filling import WrittenFile
from app.targets.writer import Writer

_EXPORTERS: dict[str, Callable[[ExportRequest], CapturedOnnx]] = {
    "dynamo": dynamo_exporter.capture,
    "torchscript": torchscript_exporter.capture,
    SCRIPTED: torchscript_exporter.capture_scripted,
}
_TRIED = {
    "auto": ("torchscript", "dynamo", "torchscript", SCRIPTED),
    "dynamo": ("dynamo",),
    "torchscript": ("torchscript", SCRIPTED),
}


class OnnxWriter:
    joined = ("dynamo", "torchscript")

    def warm(self) -> None:
        warm_exporters()

    def exporters(self, options: CommonOptions) -> Sequence[str]:
        asked = cast(OnnxOptions, options)
        if asked.exporter == "auto" and asked.precision != "fp32":  # compared in float32 alone (docs/decisions/0014)
            return tuple(_EXPORTERS)
        return _TRIED[asked.exporter]

    def relaxed(self, request: ExportRequest) -> tuple[str, ExportRequest] | None:
        newer = with_opset(request, NEWER)
        return None if newer is None else (f"opset {NEWER}", newer)

    def capture(self, request: ExportRequest, exporter: str, sides: Sequence[Side] = ()) -> CapturedOnnx:
        if sides:
            return join([(side, self._captured_at(side, request, exporter)) for side in sides], request)
        return _EXPORTERS[exporter](request)

    def _captured_at(self, side: Side, request: ExportRequest, exporter: str) -> CapturedOnnx:
        """By that exporter, or by the other one if it may be used.

        A size of 0 or 1 that varies torch.export refuses, or takes for a greater one.
        """
        errors: list[RecastError] = []
        others = (other for other in self.exporters(request.options) if other in self.joined)
        names = list(dict.fromkeys((exporter, *others)))
        if min(side.sizes.values(), default=2) < 2:
            names.sort(key="dynamo".__eq__)
        for name in names:
            try:
                with state_kept(request.module):
                    return self.capture(at_side(request, side), name)
            except RecastError as error:
                errors.append(error)
        raise errors[0]

    def constants(self, captured: CapturedOnnx, module: nn.Module) -> Mapping[str, Tensor]:
        return build.constants(captured.model, module.state_dict().keys())

    def build_template(self, captured: CapturedOnnx, request: ExportRequest, path: Path) -> OnnxTemplate:
        return build.build_template(captured, request.module, path, request=request)

    def load_template(self, path: Path) -> OnnxTemplate:
        return load_onnx_template(path)

    def for_request(self, template: OnnxTemplate, request: ExportRequest) -> OnnxTemplate:
        model_tail = with_metadata(template.model_tail, request.facts)
        return replace(template, model_tail=model_tail, checkpoint=request.checkpoint)

    def fill(
        self, template: OnnxTemplate, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        options = cast(OnnxOptions, request.options)
        one_file = options.limits is not None and not options.limits.external_data
        external_data = False if one_file else options.external_data
        return write_onnx(template, tensors, path, external_data=external_data, module=request.module)

    def claims(self, template: OnnxTemplate) -> Mapping[str, Claim]:
        slots = ((slot.name, slot.recipe) for slot in template.slots)
        return claims(slots, template.own_tensors(), template.constants)

    def is_filled(self, template: OnnxTemplate, written: WrittenFile) -> bool:
        return same_graph(template, written.path)

    def report(self, template: OnnxTemplate, request: ExportRequest) -> ExportReport:
        """What the file itself says."""
        limits, io_dtype = cast(OnnxOptions, request.options).limits, request.options.io_dtype
        model = onnx.ModelProto.FromString(template.graph_without_weights())
        initializers = {tensor.name for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in initializers]
        dims = {
            value.name: {at: d.dim_param for at, d in enumerate(value.type.tensor_type.shape.dim) if d.dim_param}
            for value in inputs
        }
        return ExportReport(
            target="onnx",
            exporter=template.exporter,
            opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
            ir_version=model.ir_version,
            input_names=tuple(value.name for value in inputs),
            output_names=tuple(value.name for value in model.graph.output),
            dynamic_axes={name: axes for name, axes in dims.items() if axes},
            io_dtype=io_dtype,
            warnings=template.warnings,
            made_for=None if limits is None else str(limits),
            weights_beside=_weights_beside(template),
        )

    def approximations(
        self, template: OnnxTemplate, tensors: Mapping[str, Tensor], request: ExportRequest, directory: Path
    ) -> Iterator[tuple[OnnxTemplate, Quantization]]:
        return quantisations(template, tensors, request, directory)

    @_flags.set_onnx_exporting_flag  # so that a module takes its export-only branches
    def program(self, flat: FlatModule, examples: tuple[Tensor, ...], exporter: str) -> Callable[..., Sequence[Tensor]]:
        if exporter == "dynamo":
            return torch.export.export(flat, examples, strict=False).module()
        return traced(flat, examples)


def _weights_beside(template: OnnxTemplate) -> WeightsBeside | None:
    if (file := template.checkpoint) is None:
        return None
    referenced = referenced_slots(template)
    carried = sum(slot.bytes for slot in template.slots if slot.name not in referenced)
    return WeightsBeside(
        filename=file.name,
        sha256=file.sha256,
        bytes=file.bytes,
        referenced_bytes=sum(slot.bytes for slot in template.slots if slot.name in referenced),
        carried_bytes=carried,
    )


WRITER: Writer[CapturedOnnx, OnnxTemplate] = OnnxWriter()
