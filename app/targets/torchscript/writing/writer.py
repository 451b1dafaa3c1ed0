"""The writing half of target ``torchscript``."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from app.domain.conversion import CommonOptions
from app.domain.report import ExportReport
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.side import Side
from app.targets.capturing.tracing import traced
from app.targets.claims import Claim
from app.targets.request import ExportRequest, asked_axes
from app.targets.templating.claims import claims
from app.targets.templating.filling import WrittenFile
from app.targets.torchscript.spec import TorchScriptOptions
from app.targets.torchscript.writing import exporter as exporters
from app.targets.torchscript.writing import template as templates
from app.targets.torchscript.writing.exporter import CapturedTorchScript
from app.targets.torchscript.writing.template import TorchScriptTemplate
from app.targets.writer import Writer


class TorchScriptWriter:
    joined = ("trace",)

    def warm(self) -> None:
        pass

    def exporters(self, options: CommonOptions) -> Sequence[str]:
        method = cast(TorchScriptOptions, options).method
        return ("trace", "script") if method == "auto" else (method,)

    def relaxed(self, request: ExportRequest) -> None:
        return None

    def capture(self, request: ExportRequest, exporter: str, sides: Sequence[Side] = ()) -> CapturedTorchScript:
        if sides:
            return exporters.capture_joined(request, sides)
        return exporters.capture(request, "trace" if exporter == "trace" else "script")

    def constants(self, captured: CapturedTorchScript, module: nn.Module) -> Mapping[str, Tensor]:
        return templates.constants(captured.module)

    def build_template(self, captured: CapturedTorchScript, request: ExportRequest, path: Path) -> TorchScriptTemplate:
        return templates.build_template(captured, request, path)

    def load_template(self, path: Path) -> TorchScriptTemplate:
        return TorchScriptTemplate.load(path)

    def for_request(self, template: TorchScriptTemplate, request: ExportRequest) -> TorchScriptTemplate:
        return template.with_facts(request.facts)

    def fill(
        self, template: TorchScriptTemplate, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        return template.fill(tensors, path, module=request.module)

    def claims(self, template: TorchScriptTemplate) -> Mapping[str, Claim]:
        return claims(template.slots(), template.own_tensors(), {})

    def is_filled(self, template: TorchScriptTemplate, written: WrittenFile) -> bool:
        return template.same(written.path)

    def report(self, template: TorchScriptTemplate, request: ExportRequest) -> ExportReport:
        """A TorchScript file declares no axes; what it does at other sizes is for the dims certificate to show."""
        signature = request.signature
        return ExportReport(
            target="torchscript",
            exporter=template.method,
            input_names=tuple(spec.name for spec in signature.inputs),
            output_names=tuple(spec.name for spec in signature.outputs),
            dynamic_axes=asked_axes(signature),
            warnings=template.warnings,
        )

    def program(self, flat: FlatModule, examples: tuple[Tensor, ...], exporter: str) -> Callable[..., Sequence[Tensor]]:
        return traced(flat, examples)


WRITER: Writer[CapturedTorchScript, TorchScriptTemplate] = TorchScriptWriter()
