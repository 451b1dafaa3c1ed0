"""Zips written record by record, for lies that no library writes: sizes, offsets, names and ends that disagree."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.hostile.opcodes import FOUR, one, tensor

Cases = dict[str, tuple[bytes, str | None]]

_ZIP64 = 1
_MOST = 0xFFFFFFFF
_LINK = 0o120777 << 16
"""External attributes of a symbolic link, as unix writes them (APPNOTE.TXT 4.4.15)."""


@dataclass(frozen=True)
class Record:
    """``name``, ``flags``, ``extra`` and ``sizes`` (compressed, whole) as the directory has them; ``local_...``: as the
    record's own header does, where that differs."""

    name: bytes
    content: bytes
    flags: int = 0
    extra: bytes = b""
    sizes: tuple[int, int] | None = None
    attributes: int = 0
    local_name: bytes | None = None
    local_extra: bytes = b""
    local_extra_length: int | None = None
    local_sizes: tuple[int, int] | None = None
    after: bytes = b""
    offset: int | None = None
    crc: int | None = None


def extra_field(kind: int, content: bytes) -> bytes:
    return struct.pack("<HH", kind, len(content)) + content


def raw(records: Sequence[Record], *, end: bytes = b"", comment: bytes = b"", **told: int) -> bytes:
    """``end``: what stands between directory and end; ``told``: of the end, what is not so."""
    body, directory = bytearray(), bytearray()
    for record in records:
        at = len(body) if record.offset is None else record.offset
        true = (len(record.content),) * 2
        crc = zlib.crc32(record.content) if record.crc is None else record.crc
        name = record.name if record.local_name is None else record.local_name
        length = len(record.local_extra) if record.local_extra_length is None else record.local_extra_length
        sizes = true if record.local_sizes is None else record.local_sizes
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, record.flags, 0, 0, 0, crc, *sizes, len(name), length)
        body += name + record.local_extra + record.content + record.after
        sizes = true if record.sizes is None else record.sizes
        fixed = (b"PK\1\2", 20 | 3 << 8, 20, record.flags, 0, 0, 0, crc, *sizes)
        lengths = (len(record.name), len(record.extra), 0, 0, 0)
        directory += struct.pack("<4s6H3L5H2L", *fixed, *lengths, record.attributes, at) + record.name + record.extra
    count = told.get("count", len(records)) & 0xFFFF
    place = (told.get("size", len(directory)), told.get("offset", len(body)), len(comment))
    finish = struct.pack("<4s4H2LH", b"PK\5\6", told.get("disk", 0), told.get("disk", 0), count, count, *place)
    return bytes(body + directory + end + finish + comment)


PICKLE = Record(b"archive/data.pkl", one(tensor()))
STORAGE = Record(b"archive/data/0", FOUR["0"])
ORDER = Record(b"archive/byteorder", b"little")
GOOD = (PICKLE, ORDER, STORAGE)


def _with(**changes: object) -> bytes:
    """The good archive with a storage that is told of otherwise."""
    return raw((PICKLE, ORDER, replace(STORAGE, **changes)))  # type: ignore[arg-type]


def _beside(*names: bytes, content: bytes = b"x", **changes: object) -> bytes:
    others = (Record(name, content, **changes) for name in names)  # type: ignore[arg-type]
    return raw((*GOOD, *others))


def _zip64(sizes: tuple[int, ...]) -> bytes:
    return extra_field(_ZIP64, struct.pack(f"<{len(sizes)}Q", *sizes))


def _end64(offset: int, count: int, size: int, at: int) -> bytes:
    """The end of a zip64 directory, and what leads to it."""
    fields = (b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    return struct.pack("<4sQ2H2L4Q", *fields) + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)


def raw_zips() -> Cases:
    good = raw(GOOD)
    descriptor = struct.pack("<4s3L", b"PK\7\x08", zlib.crc32(STORAGE.content), 16, 16)
    true64 = _zip64((16, 16))
    empty = [Record(b"a%d" % number, b"") for number in range(200)]
    read: dict[str, bytes] = {
        "good": good,
        "descriptor": _with(flags=8, local_sizes=(0, 0), after=descriptor),
        "zip64-sizes": _with(sizes=(_MOST, _MOST), extra=true64),
        "local-extra": _with(local_extra=extra_field(0x4246, bytes(40))),
        "local-extra-into-the-directory": _with(local_extra_length=8),
        "comment": raw(GOOD, comment=b"c" * 0xFFFF),
        "link": _beside(b"archive/link", content=b"/etc/passwd", attributes=_LINK),
        "unicode-name": _beside("archive/\N{SNOWMAN}".encode(), flags=0x800),
        "many-of-one-place": _beside(*(b"archive/x%d" % number for number in range(3_000)), content=b""),
    }
    corrupt: dict[str, bytes] = {
        "descriptor-lies": _with(flags=8, local_sizes=(0, 0), sizes=(8, 8), after=descriptor),
        "zip64-missing": _with(sizes=(_MOST, _MOST)),
        "zip64-huge": _with(sizes=(_MOST, _MOST), extra=_zip64((1 << 63, 1 << 63))),
        "zip64-short": _with(sizes=(_MOST, _MOST), extra=extra_field(_ZIP64, b"\0\0\0")),
        "zip64-negative": _with(sizes=(_MOST, _MOST), extra=_zip64((2**64 - 16, 2**64 - 16))),
        "zip64-of-two": _with(sizes=(_MOST, 16), extra=_zip64((8,))),
        "extra-beyond": _with(extra=struct.pack("<HH", 9, 0xFFFF)),
        "local-extra-beyond": _with(local_extra_length=0xFFFF),
        "name-not-utf-8": _beside(b"archive/\xff\xfe", flags=0x800),
        "local-name": _with(local_name=b"archive/data/9"),
        "offset-into-directory": _with(offset=good.index(b"PK\1\2")),
        "offset-into-a-record": _with(offset=good.index(b"archive/data/0")),
        "offset-negative": _with(offset=_MOST),
        "one-place-twice": raw((*GOOD, replace(STORAGE, name=b"archive/data/1", offset=good.rindex(b"PK\3\4")))),
        "directory-begins-early": raw(GOOD, offset=good.index(b"PK\1\2") - 4),
        "directory-begins-late": raw(GOOD, offset=good.index(b"PK\1\2") + 4),
        "directory-short": raw(GOOD, size=60),
        "directory-long": raw(GOOD, size=1 << 20),
        "end64-beyond": raw(GOOD, end=_end64(1 << 60, 3, 100, 1 << 60), size=_MOST, offset=_MOST),
        "end64-elsewhere": raw(GOOD, end=_end64(0, 1, 46, 10), size=_MOST, offset=_MOST),
        "end64-of-a-billion": raw(GOOD, end=_end64(0, 1 << 40, 1 << 50, 0), size=_MOST, offset=_MOST, count=0xFFFF),
        "nested": _beside(b"archive/data.pkl/x", b"archive/data.pkl"),
        "up": _beside(b"archive/.."),
        "up-by-dots": _beside(b"archive/data/../data.pkl"),
        "drive": _beside(b"/archive/data.pkl"),
        "second-root": _beside(b"Archive/data.pkl"),
        "nameless": _beside(b""),
        "cut-name": _beside(b"archive/data.pkl\0.txt"),
        "bomb-by-repetition": raw(
            [*GOOD, *(replace(STORAGE, name=b"archive/data/%d" % n, offset=0) for n in range(1, 99))]
        ),
    }
    other: Cases = {
        "directory-nothing": (raw(GOOD, size=0), "unsupported_format"),
        "no-root": (raw([replace(record, name=record.name[8:]) for record in GOOD]), "unsupported_format"),
        "backslashes": (
            raw([replace(record, name=record.name.replace(b"/", b"\\")) for record in GOOD]),
            "unsupported_format",
        ),
        "empty-records": (raw(empty), "unsupported_format"),
        "many-records": (raw([*GOOD, *_tiny(350_000)]), "payload_too_large"),
    }
    return (
        {key: (content, None) for key, content in read.items()}
        | {key: (content, "corrupt_checkpoint") for key, content in corrupt.items()}
        | other
    )


def _tiny(number: int) -> list[Record]:
    return [Record(b"archive/%x" % index, b"") for index in range(number)]
