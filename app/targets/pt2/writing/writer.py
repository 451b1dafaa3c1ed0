"""The writing half of target ``pt2``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from app.domain.conversion import CommonOptions
from app.domain.report import ExportReport
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.side import Side
from app.targets.claims import Claim
from app.targets.pt2.writing import exporter as exporters
from app.targets.pt2.writing import template as templates
from app.targets.pt2.writing.exporter import CapturedPt2
from app.targets.pt2.writing.template import Pt2Template
from app.targets.request import ExportRequest, asked_axes
from app.targets.templating.claims import claims
from app.targets.templating.filling import WrittenFile
from app.targets.writer import Writer

EXPORTER = "torch.export"


class Pt2Writer:
    joined = ()

    def warm(self) -> None:
        """ONNX's exporter is built on the same capture, and has warmed it."""

    def exporters(self, options: CommonOptions) -> Sequence[str]:
        return (EXPORTER,)

    def relaxed(self, request: ExportRequest) -> None:
        return None

    def capture(self, request: ExportRequest, exporter: str, sides: Sequence[Side] = ()) -> CapturedPt2:
        return exporters.capture(request)

    def constants(self, captured: CapturedPt2, module: nn.Module) -> Mapping[str, Tensor]:
        return templates.constants(captured.program, module)

    def build_template(self, captured: CapturedPt2, request: ExportRequest, path: Path) -> Pt2Template:
        return templates.build_template(captured, request, path)

    def load_template(self, path: Path) -> Pt2Template:
        return Pt2Template.load(path)

    def for_request(self, template: Pt2Template, request: ExportRequest) -> Pt2Template:
        return template.with_facts(request.facts)

    def fill(
        self, template: Pt2Template, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        return template.fill(tensors, path, module=request.module)

    def claims(self, template: Pt2Template) -> Mapping[str, Claim]:
        return claims(template.slots(), template.own_tensors(), {})

    def is_filled(self, template: Pt2Template, written: WrittenFile) -> bool:
        return template.same(written.path)

    def report(self, template: Pt2Template, request: ExportRequest) -> ExportReport:
        signature = request.signature
        return ExportReport(
            target="pt2",
            exporter=EXPORTER,
            input_names=tuple(spec.name for spec in signature.inputs),
            output_names=tuple(spec.name for spec in signature.outputs),
            dynamic_axes=asked_axes(signature),
            warnings=template.warnings,
        )

    def program(self, flat: FlatModule, examples: tuple[Tensor, ...], exporter: str) -> Callable[..., Sequence[Tensor]]:
        return torch.export.export(flat, examples, strict=False).module()


WRITER: Writer[CapturedPt2, Pt2Template] = Pt2Writer()
