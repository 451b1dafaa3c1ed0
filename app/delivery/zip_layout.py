"""A stored zip archive as a layout: every byte's place is known before any is sent, so that ranges cost nothing extra.

All members are uncompressed with their sizes and CRC-32 in the local headers (no data descriptors). Zip64 fields are
written exactly where a value does not fit the classic ones. Format: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12,
4.3.14-16 and 4.5.3. Time stamps are 1980-01-01, the format's zero, so that equal content gives equal bytes.
"""

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from app.storage.objects import Chunk

CLASSIC_LIMIT = 0xFFFFFFFF
CLASSIC_MEMBERS = 0xFFFF
UTF8_NAMES = 1 << 11
VERSION_CLASSIC = 20
VERSION_ZIP64 = 45
MADE_BY_UNIX = 3 << 8
REGULAR_FILE = 0o100644 << 16
DOS_EPOCH = (0, (1 << 5) | 1)
"""Time 00:00:00 and date 1980-01-01 in MS-DOS form."""

StreamObject = Callable[[str, int, int], AsyncIterator[Chunk]]
"""Streams bytes [start, end) of the stored object with that sha256."""


@dataclass(frozen=True)
class Member:
    """One file of the archive. ``content`` is its bytes, or the sha256 of a stored object."""

    name: str
    size: int
    crc32: int
    content: bytes | str


@dataclass(frozen=True)
class Piece:
    """Consecutive bytes of the archive that come from one place."""

    start: int
    size: int
    content: bytes | str


def layout(members: Sequence[Member]) -> tuple[Piece, ...]:
    """The archive as pieces in order, without gaps."""
    pieces: list[Piece] = []
    directory = bytearray()
    position = 0

    def place(size: int, content: bytes | str) -> None:
        nonlocal position
        if size:
            pieces.append(Piece(position, size, content))
            position += size

    for member in members:
        offset = position
        header = _local_header(member)
        place(len(header), header)
        place(member.size, member.content)
        directory += _directory_entry(member, offset)
    end = bytes(directory) + _end_of_directory(len(members), len(directory), position)
    place(len(end), end)
    return tuple(pieces)


def total_size(pieces: Sequence[Piece]) -> int:
    return pieces[-1].start + pieces[-1].size


async def stream(pieces: Sequence[Piece], start: int, end: int, stream_object: StreamObject) -> AsyncIterator[Chunk]:
    """Bytes [start, end) of the archive."""
    for piece in pieces:
        first = max(start, piece.start) - piece.start
        last = min(end, piece.start + piece.size) - piece.start
        if first >= last:
            continue
        if isinstance(piece.content, bytes):
            yield piece.content[first:last]
        else:
            async for chunk in stream_object(piece.content, first, last):
                yield chunk


def _local_header(member: Member) -> bytes:
    name = member.name.encode("utf-8")
    large = member.size >= CLASSIC_LIMIT
    extra = struct.pack("<HHQQ", 1, 16, member.size, member.size) if large else b""
    shown = CLASSIC_LIMIT if large else member.size
    fixed = struct.pack(
        "<4sHHHHHLLLHH",
        b"PK\3\4",
        VERSION_ZIP64 if large else VERSION_CLASSIC,
        UTF8_NAMES,
        0,
        *DOS_EPOCH,
        member.crc32,
        shown,
        shown,
        len(name),
        len(extra),
    )
    return fixed + name + extra


def _directory_entry(member: Member, offset: int) -> bytes:
    name = member.name.encode("utf-8")
    wide: list[int] = []
    if member.size >= CLASSIC_LIMIT:
        wide += [member.size, member.size]
    if offset >= CLASSIC_LIMIT:
        wide.append(offset)
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    version = VERSION_ZIP64 if wide else VERSION_CLASSIC
    shown = min(member.size, CLASSIC_LIMIT)
    fixed = struct.pack(
        "<4sHHHHHHLLLHHHHHLL",
        b"PK\1\2",
        MADE_BY_UNIX | version,
        version,
        UTF8_NAMES,
        0,
        *DOS_EPOCH,
        member.crc32,
        shown,
        shown,
        len(name),
        len(extra),
        0,
        0,
        0,
        REGULAR_FILE,
        min(offset, CLASSIC_LIMIT),
    )
    return fixed + name + extra


def _end_of_directory(members: int, size: int, offset: int) -> bytes:
    zip64 = b""
    if members >= CLASSIC_MEMBERS or size >= CLASSIC_LIMIT or offset >= CLASSIC_LIMIT:
        made_by = MADE_BY_UNIX | VERSION_ZIP64
        record = (b"PK\6\6", 44, made_by, VERSION_ZIP64, 0, 0, members, members, size, offset)
        zip64 = struct.pack("<4sQHHLLQQQQ", *record) + struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
    shown = min(members, CLASSIC_MEMBERS)
    end = (b"PK\5\6", 0, 0, shown, shown, min(size, CLASSIC_LIMIT), min(offset, CLASSIC_LIMIT), 0)
    return zip64 + struct.pack("<4sHHHHLLH", *end)
