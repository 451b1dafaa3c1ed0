"""A template of target ``openvino``: the graph as XML, its own constants, and the slots after them in the .bin."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.openvino.writing.graph import ALIGNMENT, OpenVinoGraph, saying, translated
from app.targets.templating import recipe as recipes
from app.targets.templating.container import FORMAT_VERSION, BrokenTemplate, read_container, write_container
from app.targets.templating.filling import WrittenFile, write_pieces
from app.targets.templating.pieces import Piece, Slot, SlotData, weight_table
from app.targets.templating.proof import holds
from app.targets.templating.slots import TensorForm, WeightTable, check_fit, state_forms
from app.targets.templating.structure import check_structure
from app.targets.templating.tensor_bytes import dtype_of, tensor_bytes

KIND = "openvino"


@dataclass(frozen=True)
class OpenVinoTemplate:
    """``constants`` are the operands of recipes that are neither weights nor attributes."""

    exporter: str
    warnings: tuple[str, ...]
    structure: str
    weights: WeightTable
    graph: OpenVinoGraph
    constants: Mapping[str, Tensor]
    against_reuse: str | None = None
    """Why other weights may not use it, in words; such a template is not kept, so the file does not say."""
    of_weights: str | None = None

    def save(self, path: Path) -> None:
        header: dict[str, Any] = {
            "kind": KIND,
            "version": FORMAT_VERSION,
            "exporter": self.exporter,
            "warnings": list(self.warnings),
            "structure": self.structure,
            "weights": self.weights.to_json(),
            "slots": [
                {"name": slot.name, **slot.form.to_json(), "recipe": recipes.to_json(slot.recipe)}
                for slot in self.graph.slots
            ],
            "constants": {name: TensorForm.of(tensor).to_json() for name, tensor in self.constants.items()},
        }
        blobs = {f"constant:{name}": bytes(tensor_bytes(tensor)) for name, tensor in self.constants.items()}
        write_container(path, header, {"xml": self.graph.xml, "own": self.graph.own, **blobs})

    @classmethod
    def load(cls, path: Path) -> "OpenVinoTemplate":
        """Read a template file. Raises BrokenTemplate for a file of another kind or version, or a damaged one."""
        header, blobs = read_container(path)
        if (header.get("kind"), header.get("version")) != (KIND, FORMAT_VERSION):
            found = f"kind {header.get('kind')}, version {header.get('version')}"
            raise BrokenTemplate(f"{path.name} is a template of {found}")
        slots = tuple(
            Slot(value["name"], TensorForm.from_json(value), recipes.from_json(value["recipe"]))
            for value in header["slots"]
        )
        return cls(
            exporter=header["exporter"],
            warnings=tuple(header["warnings"]),
            structure=header["structure"],
            weights=WeightTable.from_json(header["weights"]),
            graph=OpenVinoGraph(blobs["xml"], blobs["own"], slots),
            constants={
                name: _tensor(blobs[f"constant:{name}"], TensorForm.from_json(form))
                for name, form in header["constants"].items()
            },
        )

    def with_facts(self, facts: Mapping[str, str]) -> "OpenVinoTemplate":
        """The template of graphs that say this of themselves."""
        if not facts:
            return self
        told = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        return replace(self, graph=replace(self.graph, xml=saying(self.graph.xml, told)))

    def fill(self, tensors: Mapping[str, Tensor], path: Path, *, module: nn.Module) -> WrittenFile:
        """Write the graph to ``path`` and the constants to a file beside it that differs in its suffix.

        Equal tensors give equal bytes. Raises TemplateMismatch if the module has another structure or the tensors do
        not fill every slot exactly. On an error no file is left.
        """
        check_fit(self.weights, tensors)
        check_structure(self.structure, module)
        data = write_pieces(self._constants(), tensors, self.constants, path.with_suffix(".bin"))
        try:
            return replace(write_pieces([self.graph.xml], tensors, {}, path), data=data)
        except BaseException:
            data.path.unlink()
            raise

    def same(self, artifact: Path) -> bool:
        """Whether both files are what the template writes, whatever fills the slots."""
        return holds([self.graph.xml], artifact) and holds(self._constants(), artifact.with_suffix(".bin"))

    def _constants(self) -> Sequence[Piece]:
        pieces: list[Piece] = [self.graph.own]
        length = len(self.graph.own)
        for slot in self.graph.slots:
            gap = -length % ALIGNMENT
            pieces += [bytes(gap), SlotData(slot)]
            length += gap + slot.bytes
        return pieces if length else [bytes(ALIGNMENT)]  # an empty file cannot be mapped


def derived(source: OnnxTemplate, module: nn.Module, path: Path) -> OpenVinoTemplate:
    """The template of OpenVINO's graph of that ONNX graph, written to ``path``. Raises ExportFailed."""
    graph = translated(source, path)
    template = OpenVinoTemplate(
        exporter=source.exporter,
        warnings=source.warnings,
        structure=source.structure,
        weights=weight_table(graph.slots, *state_forms(module)),
        graph=graph,
        constants=source.constants,
        against_reuse=source.against_reuse,
    )
    template.save(path)
    return template


def _tensor(content: bytes, form: TensorForm) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=dtype_of(form.dtype)).reshape(form.shape)
