"""Write an ONNX artifact: the template's bytes and the tensors' bytes, in one stream, hashed on the way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from app.conversion.templates.hashed_file import HashedFile
from app.conversion.templates.onnx_layout import (
    EXTERNAL_DATA_NAME,
    PROTOBUF_LIMIT,
    Layout,
    Piece,
    lay_out,
    total_length,
)
from app.conversion.templates.onnx_template import OnnxTemplate, Slot
from app.conversion.templates.recipe import evaluate
from app.conversion.templates.slots import TensorForm, check_fit
from app.conversion.templates.structure import check_structure
from app.conversion.templates.tensor_bytes import tensor_bytes
from app.domain.errors import ExportFailed, TemplateMismatch


@dataclass(frozen=True)
class WrittenFile:
    """A finished file. ``data`` is the side file of an ONNX artifact with external data."""

    path: Path
    sha256: str
    bytes: int
    data: "WrittenFile | None" = None


def write_onnx(
    template: OnnxTemplate,
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    external_data: Literal["auto"] | bool = "auto",
    module: nn.Module | None = None,
) -> WrittenFile:
    """Write the artifact that carries ``tensors`` (state-dict key to CPU tensor) to ``path``.

    Equal tensors give equal bytes, whatever file they came from. Memory beyond ``tensors``: a few tensors whose recipe
    makes a copy. With external data a second file, EXTERNAL_DATA_NAME, is written beside ``path``; "auto" does so
    where the artifact would exceed the 2 GiB that protobuf can read. ``module`` is the module that was loaded for this
    job: its structure must be the one that was captured.

    Raises TemplateMismatch if the module has another structure or the tensors do not fill every slot exactly, and
    ExportFailed when external data is forbidden but the artifact exceeds the limit. On an error no file is left.
    """
    check_fit(template.weights, tensors)
    if module is not None:
        check_structure(template.structure, module)
    layout = _choose_layout(template, external_data)
    data = None
    if layout.side:
        data = _write_pieces(layout.side, template, tensors, path.with_name(EXTERNAL_DATA_NAME))
    main = _write_pieces(layout.main, template, tensors, path)
    return WrittenFile(main.path, main.sha256, main.bytes, data)


def _choose_layout(template: OnnxTemplate, external_data: Literal["auto"] | bool) -> Layout:
    layout = lay_out(template, external=external_data is True)
    length = total_length(layout.main)
    if length <= PROTOBUF_LIMIT:
        return layout
    if external_data is False:
        raise ExportFailed(
            f"The artifact would hold {length} bytes in one file; protobuf reads at most {PROTOBUF_LIMIT}",
            hint="Leave external_data at auto, or set it to true.",
        )
    return lay_out(template, external=True)


def _write_pieces(
    pieces: Sequence[Piece], template: OnnxTemplate, tensors: Mapping[str, Tensor], path: Path
) -> WrittenFile:
    with HashedFile(path) as file:
        for piece in pieces:
            file.write(piece if isinstance(piece, bytes) else _slot_bytes(piece.slot, template, tensors))
    return WrittenFile(path, file.sha256(), file.bytes)


def _slot_bytes(slot: Slot, template: OnnxTemplate, tensors: Mapping[str, Tensor]) -> memoryview:
    tensor = evaluate(slot.recipe, tensors, template.constants)
    if TensorForm.of(tensor) != slot.form:
        raise TemplateMismatch(f"slot {slot.name} holds {slot.form}, its recipe gave {TensorForm.of(tensor)}")
    return tensor_bytes(tensor)
