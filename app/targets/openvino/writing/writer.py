"""The writing half of target ``openvino``: ONNX's capture and template, translated by OpenVINO and filled anew."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from app.domain.conversion import CommonOptions
from app.domain.report import ExportReport
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.side import Side
from app.targets.claims import Claim
from app.targets.onnx.spec import OnnxOptions
from app.targets.onnx.writing.captured import CapturedOnnx
from app.targets.onnx.writing.writer import WRITER as ONNX
from app.targets.openvino.library import openvino
from app.targets.openvino.spec import OpenVinoOptions
from app.targets.openvino.writing.graph import output_names, own_constants
from app.targets.openvino.writing.template import OpenVinoTemplate, derived
from app.targets.request import ExportRequest, asked_axes
from app.targets.templating.claims import claims
from app.targets.templating.filling import WrittenFile
from app.targets.writer import Writer


class OpenVinoWriter:
    joined = ONNX.joined

    def warm(self) -> None:
        openvino()

    def exporters(self, options: CommonOptions) -> Sequence[str]:
        return ONNX.exporters(_of_onnx(options))

    def relaxed(self, request: ExportRequest) -> tuple[str, ExportRequest] | None:
        relaxed = ONNX.relaxed(_asking_onnx(request))
        if relaxed is None:
            return None
        called, asked = relaxed
        opset = {"opset": cast(OnnxOptions, asked.options).opset}
        return called, replace(request, options=request.options.model_copy(update=opset))

    def capture(self, request: ExportRequest, exporter: str, sides: Sequence[Side] = ()) -> CapturedOnnx:
        captured: CapturedOnnx = ONNX.capture(_asking_onnx(request), exporter, sides)
        return captured

    def constants(self, captured: CapturedOnnx, module: nn.Module) -> Mapping[str, Tensor]:
        return ONNX.constants(captured, module)

    def build_template(self, captured: CapturedOnnx, request: ExportRequest, path: Path) -> OpenVinoTemplate:
        source = ONNX.build_template(captured, _asking_onnx(request), path)
        return derived(source, request.module, path)

    def load_template(self, path: Path) -> OpenVinoTemplate:
        return OpenVinoTemplate.load(path)

    def for_request(self, template: OpenVinoTemplate, request: ExportRequest) -> OpenVinoTemplate:
        return template.with_facts(request.facts)

    def fill(
        self, template: OpenVinoTemplate, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        return template.fill(tensors, path, module=request.module)

    def claims(self, template: OpenVinoTemplate) -> Mapping[str, Claim]:
        slots = ((slot.name, slot.recipe) for slot in template.graph.slots)
        return claims(slots, own_constants(template.graph), template.constants)

    def is_filled(self, template: OpenVinoTemplate, written: WrittenFile) -> bool:
        return template.same(written.path)

    def report(self, template: OpenVinoTemplate, request: ExportRequest) -> ExportReport:
        signature = request.signature
        return ExportReport(
            target="openvino",
            exporter=template.exporter,
            input_names=tuple(spec.name for spec in signature.inputs),
            output_names=tuple(output_names(template.graph)),
            dynamic_axes=asked_axes(signature),
            warnings=template.warnings,
        )

    def program(self, flat: FlatModule, examples: tuple[Tensor, ...], exporter: str) -> Callable[..., Sequence[Tensor]]:
        return ONNX.program(flat, examples, exporter)


def _asking_onnx(request: ExportRequest) -> ExportRequest:
    return replace(request, options=_of_onnx(request.options))


def _of_onnx(options: CommonOptions) -> OnnxOptions:
    """Options of the ONNX graph that the file is derived from."""
    assert isinstance(options, OpenVinoOptions)
    return OnnxOptions.model_validate({**options.model_dump(), "target": "onnx"})


WRITER: Writer[CapturedOnnx, OpenVinoTemplate] = OpenVinoWriter()
