"""The writing half of target ``safetensors``: the module's state dict under the architecture's keys, and nothing else.

The format is that of https://github.com/huggingface/safetensors: 8 bytes with the length of a JSON header, the header,
the tensors one after the other. A tied parameter is stored once, and its other keys named in the metadata, as
``safetensors.torch.save_model`` does and ``load_model`` expects.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from app.domain.conversion import CommonOptions
from app.domain.errors import ExportFailed
from app.domain.report import ExportReport
from app.targets.capturing.flat_module import FlatModule
from app.targets.capturing.place import Place
from app.targets.capturing.side import Side
from app.targets.claims import Claim
from app.targets.request import ExportRequest, asked_axes
from app.targets.templating.claims import claims
from app.targets.templating.container import FORMAT_VERSION, BrokenTemplate, read_container, write_container
from app.targets.templating.filling import WrittenFile, write_pieces
from app.targets.templating.pieces import Piece, Slot, SlotData, weight_table
from app.targets.templating.proof import holds
from app.targets.templating.recipe import Weight
from app.targets.templating.reuse import foreign_state
from app.targets.templating.slots import WeightTable, check_fit, state_forms
from app.targets.templating.structure import check_structure, structure_digest
from app.targets.writer import Writer

KIND = "safetensors"
EXPORTER = "state_dict"
_DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
    "complex64": "C64",
}
"""The format's name of each of torch's dtypes."""
_ALIGNMENT = 8


@dataclass(frozen=True)
class CapturedKeys:
    """Nothing of the module runs."""

    kept: tuple[Place, ...] = ()


@dataclass(frozen=True)
class SafetensorsTemplate:
    structure: str
    weights: WeightTable
    against_reuse: str | None = None
    of_weights: str | None = None
    """A state dict depends on no values."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the file says of itself beside the names of tied tensors; no part of the template's own file."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Large elements first, so that all are aligned, as the format's own library orders them."""
        made = [Slot(key, form, Weight(key)) for key, form in self.weights.used.items()]
        return tuple(sorted(made, key=lambda slot: (-_item_size(slot), slot.name)))

    def pieces(self) -> list[Piece]:
        """The file: length and header, then the tensors."""
        table: dict[str, object] = {"__metadata__": {"format": "pt", **self.facts, **self.weights.tied}}
        start = 0
        for slot in self.slots:
            span = [start, start + slot.bytes]
            table[slot.name] = {"dtype": _DTYPES[slot.form.dtype], "shape": slot.form.shape, "data_offsets": span}
            start += slot.bytes
        header = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
        header += b" " * (-len(header) % _ALIGNMENT)
        return [len(header).to_bytes(8, "little") + header, *map(SlotData, self.slots)]


def _item_size(slot: Slot) -> int:
    elements = slot.bytes
    for extent in slot.form.shape:
        elements = elements // extent if extent else 0
    return elements


class SafetensorsWriter:
    joined = ()

    def warm(self) -> None:
        pass

    def exporters(self, options: CommonOptions) -> Sequence[str]:
        return (EXPORTER,)

    def relaxed(self, request: ExportRequest) -> None:
        return None

    def capture(self, request: ExportRequest, exporter: str, sides: Sequence[Side] = ()) -> CapturedKeys:
        return CapturedKeys()

    def constants(self, captured: CapturedKeys, module: nn.Module) -> Mapping[str, Tensor]:
        return {}

    def build_template(self, captured: CapturedKeys, request: ExportRequest, path: Path) -> SafetensorsTemplate:
        foreign = foreign_state(request.module)
        if foreign is not None:
            raise ExportFailed(f"safetensors holds tensors only: {foreign}", stage="export")
        forms, groups = state_forms(request.module)
        unnamed = sorted({form.dtype for form in forms.values()} - _DTYPES.keys())
        if unnamed:
            raise ExportFailed(f"safetensors has no dtype for {', '.join(unnamed)}", stage="export")
        carried = {key: form for key, form in forms.items() if groups[key][0] == key}
        table = weight_table((Slot(key, form, Weight(key)) for key, form in carried.items()), forms, groups)
        structure = structure_digest(request.module)
        header = {"kind": KIND, "version": FORMAT_VERSION, "structure": structure, "weights": table.to_json()}
        write_container(path, header, {})
        return SafetensorsTemplate(structure, table)

    def load_template(self, path: Path) -> SafetensorsTemplate:
        header, _ = read_container(path)
        if (header.get("kind"), header.get("version")) != (KIND, FORMAT_VERSION):
            raise BrokenTemplate(f"{path.name} is a template of kind {header.get('kind')}")
        return SafetensorsTemplate(header["structure"], WeightTable.from_json(header["weights"]))

    def for_request(self, template: SafetensorsTemplate, request: ExportRequest) -> SafetensorsTemplate:
        return replace(template, facts=request.facts)

    def fill(
        self, template: SafetensorsTemplate, tensors: Mapping[str, Tensor], request: ExportRequest, path: Path
    ) -> WrittenFile:
        check_fit(template.weights, tensors)
        check_structure(template.structure, request.module)
        return write_pieces(template.pieces(), tensors, {}, path)

    def claims(self, template: SafetensorsTemplate) -> Mapping[str, Claim]:
        return claims(((slot.name, slot.recipe) for slot in template.slots), (), {})

    def is_filled(self, template: SafetensorsTemplate, written: WrittenFile) -> bool:
        return holds(template.pieces(), written.path)

    def report(self, template: SafetensorsTemplate, request: ExportRequest) -> ExportReport:
        signature = request.signature
        return ExportReport(
            target="safetensors",
            exporter=EXPORTER,
            input_names=tuple(spec.name for spec in signature.inputs),
            output_names=tuple(spec.name for spec in signature.outputs),
            dynamic_axes=asked_axes(signature),
            warnings=(),
        )

    def program(self, flat: FlatModule, examples: tuple[Tensor, ...], exporter: str) -> Callable[..., Sequence[Tensor]]:
        return flat


WRITER: Writer[CapturedKeys, SafetensorsTemplate] = SafetensorsWriter()
