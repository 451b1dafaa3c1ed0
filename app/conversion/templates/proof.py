"""Proof, from the final bytes on disk, that an artifact is its template with the slots filled, and nothing else.

Everything of an artifact but the data of its slots follows from the template, byte by byte, place by place. So it is
enough to compare those bytes and the files' sizes; the data of the slots is for the weight ledger to compare.
"""

import mmap
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.conversion.templates.archive_layout import lay_out_archive
from app.conversion.templates.onnx_layout import EXTERNAL_DATA_NAME, Layout, lay_out
from app.conversion.templates.onnx_template import OnnxTemplate
from app.conversion.templates.pieces import (
    CHECKSUM_BYTES,
    Piece,
    SlotChecksum,
    SlotData,
    piece_length,
    total_length,
)
from app.conversion.templates.torchscript_template import TorchScriptTemplate


def same_graph(template: OnnxTemplate, artifact: Path) -> bool:
    """Whether ``artifact`` (and its side file) is what the template writes, whatever fills the slots.

    Reads the template's own bytes and no weights: about a tenth of a megabyte of a file of any size.
    """
    inline, external = (lay_out(template, external=choice) for choice in (False, True))
    return _is_laid_out(inline, artifact) or (bool(external.side) and _is_laid_out(external, artifact))


def same_archive(template: TorchScriptTemplate, artifact: Path) -> bool:
    """Whether ``artifact`` is what the template writes, whatever fills the slots.

    Reads the whole file, because the archive's checksums follow from the weights.
    """
    return _holds(lay_out_archive(template.records), artifact)


def _is_laid_out(layout: Layout, artifact: Path) -> bool:
    if not _holds(layout.main, artifact):
        return False
    return not layout.side or _holds(layout.side, artifact.with_name(EXTERNAL_DATA_NAME))


def _holds(pieces: Sequence[Piece], path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != total_length(pieces):
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        literal = all(content[start:end] == piece for piece, start, end in _placed(pieces) if isinstance(piece, bytes))
        return literal and _checksums_agree(pieces, content)


def _checksums_agree(pieces: Sequence[Piece], content: mmap.mmap) -> bool:
    expected: dict[str, bytes] = {}
    with memoryview(content) as view:
        if any(isinstance(piece, SlotChecksum) for piece in pieces):
            for piece, start, end in _placed(pieces):
                if isinstance(piece, SlotData):
                    with view[start:end] as data:
                        expected[piece.slot.name] = zlib.crc32(data).to_bytes(CHECKSUM_BYTES, "little")
        return all(
            content[start:end] == expected[piece.slot.name]
            for piece, start, end in _placed(pieces)
            if isinstance(piece, SlotChecksum)
        )


def _placed(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, int, int]]:
    """Every piece with its first byte and the byte after its last."""
    position = 0
    for piece in pieces:
        end = position + piece_length(piece)
        yield piece, position, end
        position = end
