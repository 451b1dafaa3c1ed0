"""The zip container of torch.save, checked before anything in it is read.

torch.save stores every record uncompressed, once, under one root folder (caffe2/serialize/inline_container.h). What
departs from that is refused: such files are damaged, or made to be read differently by two readers.
"""

import io
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from mmap import mmap
from typing import cast

from app.conversion.checkpoint.extent import Extent
from app.domain.checkpoint_format import foreign
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge, UnsupportedFormat

MAX_DIRECTORY = 16 << 20
"""Bytes of the central directory, of which each record takes at least 46 beside its name."""
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # APPNOTE.TXT 4.3.7


@dataclass(frozen=True)
class ZipLayout:
    root: str
    records: dict[str, Extent]
    """Stored members by name, without the root folder."""


def read_layout(archive: Extent, *, program: bool = False) -> ZipLayout:
    """The records of an archive that torch.save wrote, or of a ``program``, whose root folder is that of all members.

    Raises CorruptCheckpoint for a damaged or tricked container, and UnsupportedFormat for other kinds of zip files
    (``.npz``, anything else).
    """
    members = members_of(archive)
    names = [member.filename for member in members]
    root = _common_root(names) if program else _identify(names)
    if program:  # its code is compressed, and is not read
        check_members(members)
        members = [member for member in members if not member.filename.startswith(f"{root}code/")]
    return ZipLayout(root, {name.removeprefix(root): extent for name, extent in stored(archive, members).items()})


def members_of(archive: Extent) -> list[zipfile.ZipInfo]:
    """The central directory. Raises CorruptCheckpoint where it cannot be read, PayloadTooLarge where it is too long."""
    try:
        with _Bounded(cast(io.RawIOBase, archive.open())) as file, zipfile.ZipFile(file) as opened:
            return opened.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OverflowError, struct.error) as error:
        raise CorruptCheckpoint(
            f"The zip container cannot be read: {error}.",
            hint="The file was probably cut off while it was saved or sent. Save it again and compare its size.",
        ) from error


class _Bounded(io.BufferedReader):
    """A file of which nobody reads a directory beyond MAX_DIRECTORY: zipfile makes an object of each entry."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise PayloadTooLarge(f"The archive's directory has {size:,} bytes; at most {MAX_DIRECTORY:,} are read.")
        return super().read(size)


def stored(archive: Extent, members: list[zipfile.ZipInfo]) -> dict[str, Extent]:
    """Where each member's bytes lie, all of them stored as they are. Raises CorruptCheckpoint."""
    check_members(members)
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise CorruptCheckpoint(
                f"The record {member.filename!r} is compressed; torch.save compresses nothing.",
                hint="The archive was re-packed. Load it where it came from and save it with torch.save.",
            )
    return located(archive, members)


def located(archive: Extent, members: list[zipfile.ZipInfo]) -> dict[str, Extent]:
    """Where each member's bytes lie, compressed or not. Raises CorruptCheckpoint unless they lie apart in the file."""
    declared = sum(member.compress_size for member in members)
    if declared > archive.size:
        raise CorruptCheckpoint(f"The records declare {declared} bytes in a file of {archive.size}.")
    before = min((member.header_offset for member in members), default=0)
    if before > 0:
        raise CorruptCheckpoint(
            f"The archive has {before} bytes of something else before its first record.",
            hint="One .distcp file of a torch.distributed.checkpoint directory? Send a zip of the directory.",
        )
    with archive.map() as data:
        records = {member.filename: _locate(data, archive, member) for member in members}
    _check_overlaps(records)
    return records


def _common_root(names: list[str]) -> str:
    roots = {name.partition("/")[0] for name in names}
    if len(roots) > 1:
        raise CorruptCheckpoint("The archive holds records outside of its folder.")
    return f"{roots.pop()}/"


def _identify(names: list[str]) -> str:
    """The root folder of a torch.save archive; raises for every other kind of zip."""
    if names and all(name.endswith(".npy") for name in names):
        raise foreign(
            "a NumPy .npz archive", "Turn the arrays into tensors and save them with torch.save or safetensors."
        )
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if not pickles:
        raise _without_pickle(names)
    if len(set(pickles)) > 1:
        raise CorruptCheckpoint(f"The archive holds {len(pickles)} data.pkl records; torch.save writes one.")
    return pickles[0].removesuffix("data.pkl")


def _without_pickle(names: list[str]) -> CorruptCheckpoint | UnsupportedFormat:
    if any(name.endswith(("/version", "/byteorder")) or "/data/" in name for name in names):
        return CorruptCheckpoint("data.pkl is missing from the archive, so no tensor has a name.")
    kind = "a zip archive"
    if any(name.endswith((".pt", ".pth", ".bin", ".safetensors", ".ckpt")) for name in names):
        return foreign(f"{kind} of checkpoint files", "Unpack it and send the weights file itself.")
    return foreign(kind)


def check_members(members: list[zipfile.ZipInfo]) -> None:
    """Raises CorruptCheckpoint for members that are not there once each, in the open, inside of the archive."""
    for name, count in Counter(member.filename for member in members).items():
        if count > 1:
            raise CorruptCheckpoint(f"The record {name!r} is in the archive {count} times.")
    for member in members:
        if member.flag_bits & 0x1:
            raise CorruptCheckpoint(f"The record {member.filename!r} is encrypted.")
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise CorruptCheckpoint(f"The record {member.filename!r} declares two different sizes.")
        if not member.filename or member.filename.startswith("/") or ".." in member.filename.split("/"):
            raise CorruptCheckpoint(f"The record name {member.filename!r} is none of a file in the archive.")


def _locate(data: mmap, archive: Extent, member: zipfile.ZipInfo) -> Extent:
    """Where the record's bytes start, by its local header, which must agree with the central directory."""
    if member.header_offset < 0 or member.header_offset + _LOCAL_HEADER.size > archive.size:
        raise CorruptCheckpoint(f"The record {member.filename!r} starts outside the file.")
    begin = archive.offset + member.header_offset
    end = begin + _LOCAL_HEADER.size
    signature, _, _, method, _, _, _, _, _, name_length, extra_length = _LOCAL_HEADER.unpack(data[begin:end])
    name = data[end : end + name_length]
    written = member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
    if signature != b"PK\x03\x04" or method != member.compress_type or name != written:
        raise CorruptCheckpoint(f"The directory and the local header of record {member.filename!r} disagree.")
    offset = end + name_length + extra_length - archive.offset
    if offset + member.compress_size > archive.size:
        raise CorruptCheckpoint(f"The record {member.filename!r} is cut off.")
    return archive.part(offset, member.compress_size)


def _check_overlaps(records: dict[str, Extent]) -> None:
    reached = 0
    for name, record in sorted(records.items(), key=lambda item: (item[1].offset, item[1].size)):
        if record.offset < reached:
            raise CorruptCheckpoint(f"The record {name!r} overlaps the one before it.")
        reached = record.offset + record.size
