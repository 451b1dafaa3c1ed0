"""A directory of files that was sent as one zip: sharded checkpoints."""

import zipfile
import zlib
from pathlib import Path

from app.conversion.checkpoint.extent import Extent
from app.conversion.checkpoint.names import shown
from app.conversion.checkpoint.zip_layout import check_members, located
from app.domain.errors import CorruptCheckpoint, PayloadTooLarge

MOST_INFLATED = 16
"""Times the size of the zip that its files may have; weights do not shrink to half."""
FREE_INFLATED = 64 << 20
"""Bytes that files may have whatever the size of the zip."""
_BLOCK = 1 << 20


class ZippedDirectory:
    """Files by name: stored ones are read where they lie, deflated ones inflated into ``scratch`` when asked for."""

    def __init__(self, archive: Extent, members: list[zipfile.ZipInfo], scratch: Path) -> None:
        """Raises CorruptCheckpoint for a tricked container, PayloadTooLarge for a bomb."""
        check_members(members)
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CorruptCheckpoint(
                    f"The file {member.filename!r} of the zip is compressed by a method that is not read.",
                    hint="Zip the directory without compression: zip -0 -r checkpoint.zip DIRECTORY",
                )
        inflated = sum(member.file_size for member in members)
        if inflated > MOST_INFLATED * archive.size + FREE_INFLATED:
            raise PayloadTooLarge(f"The zip of {archive.size:,} bytes declares files of {inflated:,}.")
        self._scratch = scratch
        self._members = {member.filename: member for member in members if not member.is_dir()}
        self._located = located(archive, members)
        self._inflated: dict[str, Extent] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def file(self, name: str) -> Extent:
        """Raises CorruptCheckpoint when there is no such file, or it is damaged."""
        member = self._members.get(name)
        if member is None:
            raise CorruptCheckpoint(f"The zip lacks the file {shown(name)!r}, which its index names.")
        if member.compress_type == zipfile.ZIP_STORED:
            return self._located[name]
        if name not in self._inflated:
            self._inflated[name] = self._inflate(member)
        return self._inflated[name]

    def _inflate(self, member: zipfile.ZipInfo) -> Extent:
        """From where it lies, by what the directory said of it: zipfile would read the whole directory again."""
        path = self._scratch / f"{len(self._inflated)}"
        inflating, left, checksum = zlib.decompressobj(-zlib.MAX_WBITS), member.file_size, 0
        try:
            with self._located[member.filename].open() as source, path.open("wb") as target:
                while left and (packed := inflating.unconsumed_tail or source.read(_BLOCK)):
                    block = inflating.decompress(packed, min(left, _BLOCK))
                    left, checksum = left - len(block), zlib.crc32(block, checksum)
                    target.write(block)
        except zlib.error as error:
            raise CorruptCheckpoint(f"The file {member.filename!r} of the zip is damaged: {error}.") from error
        if left:
            raise CorruptCheckpoint(f"The file {member.filename!r} of the zip is shorter than declared.")
        if checksum != member.CRC:
            raise CorruptCheckpoint(f"The file {member.filename!r} of the zip is damaged: its checksum is another.")
        return Extent.of(path)
