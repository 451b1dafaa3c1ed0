"""Templates of targets whose artifact is an archive in torch's format: every record but the data of weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from app.targets.templating.archive_layout import Record, lay_out_archive
from app.targets.templating.container import FORMAT_VERSION, BrokenTemplate, read_container, write_container
from app.targets.templating.filling import WrittenFile, write_pieces
from app.targets.templating.pieces import Slot
from app.targets.templating.proof import holds
from app.targets.templating.recipe import Weight
from app.targets.templating.slots import TensorForm, WeightTable, check_fit
from app.targets.templating.structure import check_structure

FACTS = "recast.json"
"""Name of the extra file in which an archive says what it is."""


@dataclass(frozen=True)
class ArchiveTemplate:
    """``records`` are the archive's, in order; the data of a slot's record is the tensor of its state-dict key."""

    KIND: ClassVar[str]

    path: Path
    method: str
    """Name of the exporter."""
    warnings: tuple[str, ...]
    structure: str
    weights: WeightTable
    records: tuple[Record, ...]
    against_reuse: str | None = None
    """Why other weights may not use it, in words; such a template is not kept, so the file does not say."""
    of_weights: str | None = None

    def save(self) -> None:
        """Write the template to its path."""
        entries: list[dict[str, Any]] = []
        blobs: dict[str, bytes] = {}
        for record in self.records:
            if isinstance(record.content, bytes):
                entries.append({"name": record.name})
                blobs[record.name] = record.content
            else:
                slot = record.content
                assert isinstance(slot.recipe, Weight)
                entries.append({"name": record.name, **slot.form.to_json(), "weight": slot.recipe.key})
        header = {
            "kind": self.KIND,
            "version": FORMAT_VERSION,
            "method": self.method,
            "warnings": list(self.warnings),
            "structure": self.structure,
            "weights": self.weights.to_json(),
            "records": entries,
        }
        write_container(self.path, header, blobs)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a template file. Raises BrokenTemplate for a file of another kind or version, or a damaged one."""
        header, blobs = read_container(path)
        if (header.get("kind"), header.get("version")) != (cls.KIND, FORMAT_VERSION):
            found = f"kind {header.get('kind')}, version {header.get('version')}"
            raise BrokenTemplate(f"{path.name} is a template of {found}")

        def record(entry: Mapping[str, Any]) -> Record:
            name = entry["name"]
            if "weight" in entry:
                return Record(name, Slot(name, TensorForm.from_json(entry), Weight(entry["weight"])))
            return Record(name, blobs[name])

        return cls(
            path=path,
            method=header["method"],
            warnings=tuple(header["warnings"]),
            structure=header["structure"],
            weights=WeightTable.from_json(header["weights"]),
            records=tuple(map(record, header["records"])),
        )

    def with_facts(self, facts: Mapping[str, str]) -> Self:
        """The template of archives that say this of themselves, in an extra file that torch's own loaders give back."""
        told = json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n"
        return replace(self, records=(*self.records, Record(f"extra/{FACTS}", told)) if facts else self.records)

    def fill(self, tensors: Mapping[str, Tensor], path: Path, *, module: nn.Module | None = None) -> WrittenFile:
        """Write the archive that carries ``tensors`` (state-dict key to CPU tensor) to ``path``.

        Equal tensors give equal bytes. ``module`` is the module loaded for this job: its structure must be the one that
        was captured. Raises TemplateMismatch if it is not, or if the tensors do not fill every slot exactly.
        """
        check_fit(self.weights, tensors)
        if module is not None:
            check_structure(self.structure, module)
        return write_pieces(lay_out_archive(self.records), tensors, {}, path)

    def same(self, artifact: Path) -> bool:
        """Whether ``artifact`` is what the template writes, whatever fills the slots."""
        return holds(lay_out_archive(self.records), artifact)
