"""Write an ONNX artifact: the template's bytes and the tensors' bytes, in one stream, hashed on the way."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from app.domain.errors import ExportFailed
from app.targets.onnx.writing.layout import EXTERNAL_DATA_NAME, PROTOBUF_LIMIT, Layout, lay_out
from app.targets.onnx.writing.template import OnnxTemplate
from app.targets.templating.filling import WrittenFile, write_pieces
from app.targets.templating.pieces import total_length
from app.targets.templating.slots import check_fit
from app.targets.templating.structure import check_structure

__all__ = ["WrittenFile", "write_onnx"]


def write_onnx(
    template: OnnxTemplate,
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    external_data: Literal["auto", "checkpoint"] | bool = "auto",
    module: nn.Module | None = None,
) -> WrittenFile:
    """Write the artifact that carries ``tensors`` (state-dict key to CPU tensor) to ``path``.

    Equal tensors give equal bytes, whatever file they came from. Memory beyond ``tensors``: a few tensors whose recipe
    makes a copy. With external data a second file, EXTERNAL_DATA_NAME, is written beside ``path``; "auto" does so
    where the artifact would exceed the 2 GiB that protobuf can read, or would with what a graph over a checkpoint still
    carries. ``module`` is the module that was loaded for this
    job: its structure must be the one that was captured.

    Raises TemplateMismatch if the module has another structure or the tensors do not fill every slot exactly, and
    ExportFailed when external data is forbidden but the artifact exceeds the limit. On an error no file is left.
    """
    check_fit(template.weights, tensors)
    if module is not None:
        check_structure(template.structure, module)
    layout = _choose_layout(template, external_data)
    if not layout.side:
        return write_pieces(layout.main, tensors, template.constants, path)
    data = write_pieces(layout.side, tensors, template.constants, path.with_name(EXTERNAL_DATA_NAME))
    try:
        main = write_pieces(layout.main, tensors, template.constants, path)
    except BaseException:
        data.path.unlink()
        raise
    return replace(main, data=data)


def _choose_layout(template: OnnxTemplate, external_data: Literal["auto", "checkpoint"] | bool) -> Layout:
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
