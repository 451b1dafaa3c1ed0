"""The records of an archive in torch's format, a zip of stored files, mapped into memory and read where they lie."""

import struct
from collections.abc import Iterator, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from app.targets.artifact import Bytes, MalformedFile

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
"""Of a member: APPNOTE.TXT 4.3.7, the fixed part."""


class Records(Mapping[str, Bytes]):
    """Bytes of each record by its name below the root folder. Raises MalformedFile for a broken archive."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file, ZipFile(file) as archive:
                self._buffer = mmap(file.fileno(), 0, access=ACCESS_READ)
                found = archive.infolist()
        except (BadZipFile, OSError, ValueError, struct.error) as error:
            raise MalformedFile(f"{path.name} is no archive: {type(error).__name__}: {error}") from error
        self._found = {record.filename.partition("/")[2]: record for record in found}
        if len(self._found) != len(found) or len({record.filename.partition("/")[0] for record in found}) > 1:
            raise MalformedFile(f"{path.name} holds a record twice, or records outside its folder")

    def __getitem__(self, name: str) -> Bytes:
        return self._bytes(self._found[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def _bytes(self, record: ZipInfo) -> Bytes:
        """At the place that the record's own header gives."""
        if record.compress_type != ZIP_STORED:
            raise MalformedFile(f"the record {record.filename} is compressed")
        header = _LOCAL_HEADER.unpack_from(self._buffer, record.header_offset)
        start = record.header_offset + _LOCAL_HEADER.size + header[-2] + header[-1]
        if header[0] != b"PK\x03\x04" or start + record.file_size > len(self._buffer):
            raise MalformedFile(f"the record {record.filename} is not where the directory says")
        return np.frombuffer(self._buffer, np.uint8, record.file_size, start)
