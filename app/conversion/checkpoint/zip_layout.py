"""The zip container of torch.save, checked before anything in it is read.

torch.save stores every record uncompressed, once, under one root folder (caffe2/serialize/inline_container.h). What
departs from that is refused: such files are damaged, or made to be read differently by two readers.
"""

import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from app.domain.checkpoint_format import foreign
from app.domain.errors import AlreadyTorchScript, CorruptCheckpoint, UnsupportedFormat

MAX_RECORDS = 1_000_000
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # APPNOTE.TXT 4.3.7


@dataclass(frozen=True)
class Record:
    """One stored member. ``name`` is without the root folder; ``offset`` is where its ``size`` bytes start."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class ZipLayout:
    root: str
    records: dict[str, Record]

    def storages(self) -> list[Record]:
        return [record for name, record in self.records.items() if name.startswith("data/")]


def read_layout(path: Path) -> ZipLayout:
    """The records of a torch.save archive.

    Raises CorruptCheckpoint for a damaged or tricked container, AlreadyTorchScript, and UnsupportedFormat for
    other kinds of zip files (``.pt2``, ``.npz``, anything else).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OverflowError, UnicodeDecodeError) as error:
        raise CorruptCheckpoint(
            f"The zip container cannot be read: {error}.",
            hint="The file was probably cut off while it was saved or sent. Save it again and compare its size.",
        ) from error
    names = [member.filename for member in members]
    root = _identify(names)
    _check_members(members, path.stat().st_size)
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        records = [_locate(data, member, root) for member in members]
    _check_overlaps(records)
    return ZipLayout(root, {record.name: record for record in records})


def _identify(names: list[str]) -> str:
    """The root folder of a torch.save archive; raises for every other kind of zip."""
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends and any("/code/" in name or name.startswith("code/") for name in names):
        raise AlreadyTorchScript("The archive holds TorchScript code (constants.pkl, code/).")
    if "archive_format" in ends or any("/models/" in name and name.endswith(".json") for name in names):
        raise foreign(
            "a torch.export archive (.pt2)",
            "Save the weights instead: torch.save(torch.export.load(path).module().state_dict(), 'weights.pth').",
        )
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


def _check_members(members: list[zipfile.ZipInfo], file_size: int) -> None:
    if len(members) > MAX_RECORDS:
        raise CorruptCheckpoint(f"The archive declares {len(members)} records; at most {MAX_RECORDS} are read.")
    for name, count in Counter(member.filename for member in members).items():
        if count > 1:
            raise CorruptCheckpoint(f"The record {name!r} is in the archive {count} times.")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise CorruptCheckpoint(
                f"The record {member.filename!r} is compressed; torch.save compresses nothing.",
                hint="The archive was re-packed. Load it where it came from and save it with torch.save.",
            )
        if member.flag_bits & 0x1:
            raise CorruptCheckpoint(f"The record {member.filename!r} is encrypted.")
        if member.compress_size != member.file_size:
            raise CorruptCheckpoint(f"The record {member.filename!r} declares two different sizes.")
        if member.filename.startswith("/") or ".." in member.filename.split("/"):
            raise CorruptCheckpoint(f"The record name {member.filename!r} leads out of the archive.")
    declared = sum(member.file_size for member in members)
    if declared > file_size:
        raise CorruptCheckpoint(f"The records declare {declared} bytes in a file of {file_size}.")


def _locate(data: mmap, member: zipfile.ZipInfo, root: str) -> Record:
    """Where the record's bytes start, by its local header, which must agree with the central directory."""
    begin, end = member.header_offset, member.header_offset + _LOCAL_HEADER.size
    if begin < 0 or end > len(data):
        raise CorruptCheckpoint(f"The record {member.filename!r} starts outside the file.")
    signature, _, _, method, _, _, _, _, _, name_length, extra_length = _LOCAL_HEADER.unpack(data[begin:end])
    name = data[end : end + name_length]
    written = member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
    if signature != b"PK\x03\x04" or method != zipfile.ZIP_STORED or name != written:
        raise CorruptCheckpoint(f"The directory and the local header of record {member.filename!r} disagree.")
    offset = end + name_length + extra_length
    if offset + member.file_size > len(data):
        raise CorruptCheckpoint(f"The record {member.filename!r} is cut off.")
    return Record(member.filename.removeprefix(root), offset, member.file_size)


def _check_overlaps(records: list[Record]) -> None:
    reached = 0
    for record in sorted(records, key=lambda record: record.offset):
        if record.offset < reached:
            raise CorruptCheckpoint(f"The record {record.name!r} overlaps the one before it.")
        reached = record.offset + record.size
