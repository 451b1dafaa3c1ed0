"""Proof, from the final bytes on disk, that an artifact is its template's graph with the slots filled, nothing else.

Everything of an artifact but the data of its slots follows from the template, byte by byte, place by place. So it is
enough to compare those bytes and the files' sizes; the data of the slots is for the weight ledger to compare.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path

from app.conversion.templates.onnx_layout import EXTERNAL_DATA_NAME, Layout, Piece, lay_out, piece_length, total_length
from app.conversion.templates.onnx_template import OnnxTemplate


def same_graph(template: OnnxTemplate, artifact: Path) -> bool:
    """Whether ``artifact`` (and its side file) is what the template writes, whatever fills the slots.

    Reads the template's own bytes and no weights: about a tenth of a megabyte of a file of any size.
    """
    inline, external = (lay_out(template, external=choice) for choice in (False, True))
    return _is_laid_out(inline, artifact) or (bool(external.side) and _is_laid_out(external, artifact))


def _is_laid_out(layout: Layout, artifact: Path) -> bool:
    if not _holds(layout.main, artifact):
        return False
    return not layout.side or _holds(layout.side, artifact.with_name(EXTERNAL_DATA_NAME))


def _holds(pieces: Sequence[Piece], path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != total_length(pieces):
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = 0
        for piece in pieces:
            end = position + piece_length(piece)
            if isinstance(piece, bytes) and content[position:end] != piece:
                return False
            position = end
    return True
