"""Writing an ONNX model of the direct path, in one file or with external data beside it."""

from pathlib import Path
from typing import Literal

import onnx_ir as ir

from app.domain.errors import ExportFailed

SINGLE_FILE_LIMIT = 1_900_000_000
"""Bytes of weights up to which "auto" writes one file. Protobuf's own limit is 2 GiB for the whole message."""

DATA_SUFFIX = ".data"


def write(model: ir.Model, path: Path, external_data: Literal["auto"] | bool) -> None:
    """Write ``model`` to ``path``; with external data, all weights to ``path`` + ".data", named without folders.

    Raises ExportFailed if one file was asked for and protobuf cannot hold it.
    """
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if external_data is False and weights > SINGLE_FILE_LIMIT:
        raise ExportFailed(
            f"The weights take {weights:,} bytes; one ONNX file holds at most {SINGLE_FILE_LIMIT:,}.",
            stage="export",
            hint="Use external_data=auto or true.",
        )
    separate = external_data is True or (external_data == "auto" and weights > SINGLE_FILE_LIMIT)
    ir.save(model, path, external_data=path.name + DATA_SUFFIX if separate else None)
