"""Proof, from the final bytes on disk, that an artifact is its template with the slots filled, and nothing else.

Everything of an artifact but the data of its slots follows from the template, byte by byte, place by place. So it is
enough to compare those bytes and the files' sizes; the data of the slots is for the weight ledger to compare.
"""

import mmap
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.targets.templating.pieces import (
    CHECKSUM_BYTES,
    Piece,
    SlotChecksum,
    SlotData,
    piece_length,
    total_length,
)


def holds(pieces: Sequence[Piece], path: Path) -> bool:
    """Whether the file is these pieces, whatever fills their slots; checksums must be those of what does.

    Reads the literal pieces only, and of a file with checksums all of it.
    """
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
