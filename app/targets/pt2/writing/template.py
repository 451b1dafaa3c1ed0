"""A template of target ``pt2``: every record of an exported program's archive but the data of its state dict."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from app.domain.errors import ExportFailed
from app.targets.capturing.flat_module import PREFIX
from app.targets.pt2.spec import Pt2Options
from app.targets.pt2.writing.archive import CONFIGS, WEIGHTS, archive_records
from app.targets.pt2.writing.exporter import CapturedPt2
from app.targets.request import ExportRequest
from app.targets.templating.archive_layout import Record
from app.targets.templating.archive_template import ArchiveTemplate
from app.targets.templating.pieces import Slot, weight_table
from app.targets.templating.recipe import Recipe, Weight
from app.targets.templating.reuse import foreign_state, refuse_baked_weight, rewriting
from app.targets.templating.slots import TensorForm, separate_memory, state_forms
from app.targets.templating.structure import structure_digest


class Pt2Template(ArchiveTemplate):
    KIND = "pt2"

    def slots(self) -> Iterator[tuple[str, Recipe]]:
        """The recipe of every tensor that weights fill, by its key; a shared one under each of its keys."""
        for key, content in self._tensors():
            if isinstance(content, Slot):
                yield key, content.recipe

    def own_tensors(self) -> Iterator[tuple[str, bytes]]:
        """The raw data of the template's own tensors: constants, and buffers outside the state dict."""
        for key, content in self._tensors():
            if isinstance(content, bytes):
                yield key, content

    def outputs(self) -> int:
        """How many tensors the program gives."""
        model = self._content("models/model.json")
        return len(model["graph_module"]["signature"]["output_specs"])

    def _tensors(self) -> Iterator[tuple[str, bytes | Slot]]:
        contents = {record.name: record.content for record in self.records}
        for folder, config in CONFIGS.items():
            for key, entry in self._content(config)["config"].items():
                yield key, contents[f"{folder}{entry['path_name']}"]

    def _content(self, name: str) -> Any:
        content = next(record.content for record in self.records if record.name == name)
        assert isinstance(content, bytes)
        return json.loads(content)


def build_template(captured: CapturedPt2, request: ExportRequest, path: Path) -> Pt2Template:
    """Make a template of a capture of ``request.module`` and write it to ``path``.

    Raises ExportFailed where the capture holds weights in a form that cannot be filled.
    """
    assert isinstance(request.options, Pt2Options)
    module = request.module
    refuse_baked_weight(constants(captured.program, module), module)
    structure = structure_digest(module)
    against = foreign_state(module) or rewriting(request)
    separate_memory(module)
    contents = archive_records(captured.program, path, keep_debug=request.options.keep_debug)
    forms, groups = state_forms(module)
    slots = _slots(json.loads(contents[CONFIGS[WEIGHTS]])["config"], forms)
    template = Pt2Template(
        path=path,
        method="torch.export",
        warnings=captured.warnings,
        structure=structure,
        weights=weight_table(slots.values(), forms, groups),
        records=tuple(Record(name, slots.get(name, content)) for name, content in contents.items()),
        against_reuse=against,
    )
    template.save()
    return template


def _slots(table: Mapping[str, Any], forms: Mapping[str, TensorForm]) -> dict[str, Slot]:
    """The slot of every record that holds a tensor of the state dict, by record name."""
    slots: dict[str, Slot] = {}
    for key, entry in table.items():
        name = f"{WEIGHTS}{entry['path_name']}"
        slot = slots.setdefault(name, Slot(name, forms[key], Weight(key))) if key in forms else None
        if slot is None or slot.form != forms[key]:
            raise ExportFailed(f"{key} has another form in the archive than in the module", stage="export")
    return slots


def constants(program: ExportedProgram, module: nn.Module) -> dict[str, Tensor]:
    """The float tensors that the program holds beside the module's parameters and buffers."""
    own = {f"{PREFIX}{name}" for name, _ in module.named_buffers(remove_duplicate=False)}
    return {
        name: value
        for name, value in program.constants.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point() and name not in own
    }
