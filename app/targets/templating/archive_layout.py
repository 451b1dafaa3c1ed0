"""Where every byte of an archive in torch's format lies: a zip of stored records, aligned, with fixed times.

Source: PKWARE APPNOTE.TXT 6.3.10; records of 2 GiB and more, and directories beyond, are in zip64 form (section 4.5.3).
"""

import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from app.targets.templating.pieces import Piece, Slot, SlotChecksum, SlotData, total_length

ROOT = "archive"
ALIGNMENT = 64
"""Bytes. torch aligns tensor records so that they can be memory-mapped (caffe2/serialize/inline_container.h)."""

_DOS_DATE = 0 << 9 | 1 << 5 | 1
"""1980-01-01, the first day that the format can tell, at midnight."""
_LIMIT = zipfile.ZIP64_LIMIT
_MOST_RECORDS = zipfile.ZIP_FILECOUNT_LIMIT
_PLACEHOLDER = 0xFFFFFFFF
_LOCAL, _CENTRAL = "<4s5H", "<4s4B4H"
_PLAIN_VERSION, _ZIP64_VERSION, _UNIX = 20, 45, 3
_PERMISSIONS = 0o600 << 16


@dataclass(frozen=True)
class Record:
    """A file of the archive, named below its root: its content, or the slot that gives it."""

    name: str
    content: bytes | Slot

    @property
    def bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.bytes

    @property
    def checksum(self) -> Piece:
        if isinstance(self.content, bytes):
            return zlib.crc32(self.content).to_bytes(4, "little")
        return SlotChecksum(self.content)


def lay_out_archive(records: Sequence[Record]) -> list[Piece]:
    """The pieces of the archive: local headers with contents, then the directory."""
    pieces: list[Piece] = []
    directory: list[Piece] = []
    offset = 0
    for record in records:
        extra = _padding(record, offset)
        local: list[Piece] = [*_local_header(record, extra)]
        local.append(record.content if isinstance(record.content, bytes) else SlotData(record.content))
        directory += _central_header(record, extra, offset)
        pieces += local
        offset += total_length(local)
    return [*pieces, *directory, _end(len(records), total_length(directory), offset)]


def _path(record: Record) -> bytes:
    return f"{ROOT}/{record.name}".encode()


def _is_large(record: Record) -> bool:
    """zipfile decides before it knows the size for certain, and leaves a margin."""
    return record.bytes * 1.05 > _LIMIT


def _padding(record: Record, offset: int) -> bytes:
    """The extra field that moves the content to a multiple of ALIGNMENT."""
    start = offset + 30 + len(_path(record)) + 4 + (20 if _is_large(record) else 0)
    gap = -start % ALIGNMENT
    return b"FB" + gap.to_bytes(2, "little") + bytes(gap)


def _local_header(record: Record, extra: bytes) -> tuple[Piece, Piece, Piece]:
    large, size = _is_large(record), record.bytes
    version = _ZIP64_VERSION if large else _PLAIN_VERSION
    if large:
        extra += struct.pack("<HHQQ", 1, 16, size, size)
    shown = _PLACEHOLDER if large else size
    head = struct.pack(_LOCAL, b"PK\x03\x04", version, 0, 0, 0, _DOS_DATE)
    tail = struct.pack("<2L2H", shown, shown, len(_path(record)), len(extra)) + _path(record) + extra
    return head, record.checksum, tail


def _central_header(record: Record, extra: bytes, offset: int) -> tuple[Piece, Piece, Piece]:
    size, shown, shown_offset = record.bytes, record.bytes, offset
    wide: list[int] = []
    if size > _LIMIT:
        wide, shown = [size, size], _PLACEHOLDER
    if offset > _LIMIT:
        wide, shown_offset = [*wide, offset], _PLACEHOLDER
    if wide:
        extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) + extra
    version = _ZIP64_VERSION if wide or _is_large(record) else _PLAIN_VERSION
    head = struct.pack(_CENTRAL, b"PK\x01\x02", version, _UNIX, version, 0, 0, 0, 0, _DOS_DATE)
    tail = struct.pack("<2L5H2L", shown, shown, len(_path(record)), len(extra), 0, 0, 0, _PERMISSIONS, shown_offset)
    return head, record.checksum, tail + _path(record) + extra


def _end(count: int, length: int, start: int) -> bytes:
    ending = b""
    if count > _MOST_RECORDS or start > _LIMIT or length > _LIMIT:
        ending = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, start)
        ending += struct.pack("<4sLQL", b"PK\x06\x07", 0, start + length, 1)
        count, length, start = min(count, 0xFFFF), min(length, _PLACEHOLDER), min(start, _PLACEHOLDER)
    return ending + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, length, start, 0)
