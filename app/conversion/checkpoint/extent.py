"""A range of bytes of a file: a whole upload, a member of an archive, a record, a storage."""

import io
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, cast

from app.domain.errors import CorruptCheckpoint


@dataclass(frozen=True)
class Extent:
    """``size`` bytes of a file from ``offset`` on."""

    path: Path
    offset: int
    size: int

    @classmethod
    def of(cls, path: Path) -> "Extent":
        return cls(path, 0, path.stat().st_size)

    def part(self, offset: int, size: int) -> "Extent":
        """Raises CorruptCheckpoint for a part that reaches beyond this extent."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise CorruptCheckpoint(f"The file declares {size} bytes at {offset} of a range of {self.size} bytes.")
        return Extent(self.path, self.offset + offset, size)

    def read(self, limit: int = -1) -> bytes:
        """All bytes, or the first ``limit``."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size if limit < 0 else min(limit, self.size))

    def open(self) -> BinaryIO:
        """The bytes as a seekable file of their own."""
        return cast(BinaryIO, io.BufferedReader(_Window(self)))

    def map(self) -> mmap:
        """The whole file, mapped read-only: bytes of this extent start at ``offset``."""
        with self.path.open("rb") as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ)


class _Window(io.RawIOBase):
    def __init__(self, extent: Extent) -> None:
        self._file = extent.path.open("rb", buffering=0)
        self._extent = extent
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._extent.size}[whence]
        if at < 0:
            raise ValueError(f"There is no byte {at}.")
        self._at = at
        return at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)[: max(self._extent.size - self._at, 0)]  # type: ignore[arg-type]
        self._file.seek(self._extent.offset + self._at)
        count = self._file.readinto(view) or 0
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
