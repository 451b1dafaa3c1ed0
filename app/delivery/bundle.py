"""The bundle: everything a client needs to trust and use an artifact, in one zip whose bytes are reproducible."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from app.delivery.zip_layout import Member, Piece, layout, total_size

MANIFEST = "manifest.json"
REPORT_PAGE = "report.html"
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class BundledFile:
    """A stored file of a conversion, with the CRC-32 of its content."""

    role: str
    filename: str
    sha256: str
    size: int
    crc32: int
    media_type: str


@dataclass(frozen=True)
class Bundle:
    """The archive's layout; ``digest`` (sha256 of its manifest) changes when any member does."""

    pieces: tuple[Piece, ...]
    size: int
    digest: str


def make_bundle(conversion_id: str, files: Sequence[BundledFile], report_page: bytes) -> Bundle:
    """Lay the conversion's files, the report page and a manifest of both out as one archive.

    Raises ValueError for a file name that is a path, names the archive's own members, or occurs twice: such an archive
    could write outside the directory it is unpacked in.
    """
    page = BundledFile(
        "report_page",
        REPORT_PAGE,
        hashlib.sha256(report_page).hexdigest(),
        len(report_page),
        zlib.crc32(report_page),
        "text/html",
    )
    members = [Member(file.filename, file.size, file.crc32, file.sha256) for file in files]
    members.append(Member(page.filename, page.size, page.crc32, report_page))
    manifest = manifest_document(conversion_id, [*files, page])
    members.append(Member(MANIFEST, len(manifest), zlib.crc32(manifest), manifest))
    _refuse_unsafe_names([member.name for member in members])
    pieces = layout(members)
    return Bundle(pieces, total_size(pieces), hashlib.sha256(manifest).hexdigest())


def manifest_document(conversion_id: str, files: Sequence[BundledFile]) -> bytes:
    """Name, role, sha256, bytes and media type of every member but the manifest itself."""
    document = {
        "version": MANIFEST_VERSION,
        "conversion_id": conversion_id,
        "members": [
            {
                "name": file.filename,
                "role": file.role,
                "sha256": file.sha256,
                "bytes": file.size,
                "media_type": file.media_type,
            }
            for file in files
        ],
    }
    return json.dumps(document, indent=2).encode("utf-8") + b"\n"


def is_plain_name(name: str) -> bool:
    """Whether a member of that name stays in the directory where the archive is unpacked, on every system."""
    return name not in ("", ".", "..") and not any(character in name for character in "/\\:\0")


def _refuse_unsafe_names(names: Sequence[str]) -> None:
    for name in names:
        if not is_plain_name(name):
            raise ValueError(f"{name!r} is not a plain file name")
    if len(set(names)) != len(names):
        raise ValueError(f"two members of the bundle have one name: {sorted(names)}")
