"""The writing half: every tensor of the state dict is a slot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from app.domain.report import ExportReport
from app.targets.capturing.side import Side
from app.targets.request import ExportRequest
from app.targets.templating.claims import claims
from app.targets.templating.container import read_container, write_container
from app.targets.templating.filling import WrittenFile, write_pieces
from app.targets.templating.pieces import Piece, Slot, SlotData, weight_table
from app.targets.templating.proof import holds
from app.targets.templating.recipe import Weight
from app.targets.templating.slots import TensorForm, check_fit, state_forms
from app.targets.writer import Writer


@dataclass(frozen=True)
class Captured:
    greeting: str
    kept: tuple[()] = ()


@dataclass(frozen=True)
class Template:
    greeting: str
    slots: tuple[Slot, ...]
    against_reuse: str | None = None
    of_weights: str | None = None

    @property
    def pieces(self) -> list[Piece]:
        table = {slot.name: slot.form.to_json() for slot in self.slots}
        head = json.dumps({"greeting": self.greeting, "tensors": table}).encode() + b"\n"
        return [head, *map(SlotData, self.slots)]


class ToyWriter:
    joined = ()

    def warm(self) -> None:
        pass

    def exporters(self, options: Any) -> tuple[str]:
        return ("copy",)

    def relaxed(self, request: ExportRequest) -> None:
        return None

    def capture(self, request: ExportRequest, exporter: str, sides: Sequence[Side] = ()) -> Captured:
        return Captured(request.options.greeting)

    def constants(self, captured: Captured, module: nn.Module) -> Mapping[str, Tensor]:
        return {}

    def build_template(self, captured: Captured, request: ExportRequest, path: Path) -> Template:
        forms, _ = state_forms(request.module)
        write_container(path, {"greeting": captured.greeting, "forms": {k: f.to_json() for k, f in forms.items()}}, {})
        return self.load_template(path)

    def load_template(self, path: Path) -> Template:
        header, _ = read_container(path)
        forms = {key: TensorForm.from_json(form) for key, form in header["forms"].items()}
        return Template(header["greeting"], tuple(Slot(key, form, Weight(key)) for key, form in forms.items()))

    def for_request(self, template: Template, request: ExportRequest) -> Template:
        return template  # a toy has no place for them

    def fill(
        self, template: Template, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        forms, groups = state_forms(request.module)
        check_fit(weight_table(template.slots, forms, groups), tensors)
        return write_pieces(template.pieces, tensors, {}, path)

    def claims(self, template: Template) -> Any:
        return claims(((slot.name, slot.recipe) for slot in template.slots), (), {})

    def is_filled(self, template: Template, written: WrittenFile) -> bool:
        return holds(template.pieces, written.path)

    def report(self, template: Template, request: ExportRequest) -> ExportReport:
        names = tuple(spec.name for spec in request.signature.inputs)
        return ExportReport(target="toy", exporter="copy", input_names=names, output_names=(), dynamic_axes={})

    def program(self, flat: Any, examples: Any, exporter: str) -> Any:
        return flat


WRITER: Writer[Captured, Template] = ToyWriter()
