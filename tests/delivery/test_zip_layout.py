import asyncio
import io
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator

from app.delivery.zip_layout import Member, Piece, layout, stream, total_size

OBJECTS = {"aa": b"stored object " * 5000, "bb": b""}


async def stream_object(sha256: str, start: int, end: int) -> AsyncIterator[bytes]:
    content = OBJECTS[sha256][start:end]
    for offset in range(0, len(content), 1000):
        yield content[offset : offset + 1000]


def read(pieces: tuple[Piece, ...], start: int, end: int) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in stream(pieces, start, end, stream_object)])

    return asyncio.run(collect())


def members() -> list[Member]:
    return [
        Member("model.onnx", len(OBJECTS["aa"]), zlib.crc32(OBJECTS["aa"]), "aa"),
        Member("leer-ü.npz", 0, 0, "bb"),
        Member("report.html", 4, zlib.crc32(b"page"), b"page"),
    ]


def test_the_archive_opens_and_every_crc_holds() -> None:
    pieces = layout(members())
    content = read(pieces, 0, total_size(pieces))
    assert len(content) == total_size(pieces)
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.testzip() is None
    assert archive.namelist() == ["model.onnx", "leer-ü.npz", "report.html"]
    assert archive.read("model.onnx") == OBJECTS["aa"]
    assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())


def test_any_range_is_the_slice_of_the_whole() -> None:
    pieces = layout(members())
    whole = read(pieces, 0, total_size(pieces))
    edges = sorted({0, 1, 29, 31, len(whole) - 1, len(whole)} | {piece.start for piece in pieces})
    for start in edges:
        for end in edges:
            assert read(pieces, start, max(start, end)) == whole[start : max(start, end)]


def test_the_same_members_give_the_same_bytes() -> None:
    assert layout(members()) == layout(members())


def test_members_beyond_four_gigabytes_use_zip64(tmp_path) -> None:
    """A sparse file stands for the large member: zeros, whose CRC-32 zipfile itself checks on reading."""
    size = (1 << 32) + 5
    pieces = layout([Member("large", size, 0, "zeros"), Member("after", 3, zlib.crc32(b"end"), b"end")])
    path = tmp_path / "large.zip"
    with path.open("wb") as file:
        for piece in pieces:
            if isinstance(piece.content, bytes):
                file.seek(piece.start)
                file.write(piece.content)
    with zipfile.ZipFile(path) as archive:
        assert [info.file_size for info in archive.infolist()] == [size, 3]
        assert archive.read("after") == b"end"
        with archive.open("large") as member:
            assert member.read(10) == bytes(10)


def test_more_members_than_classic_zip_counts() -> None:
    pieces = layout([Member(f"{number:05}", 1, zlib.crc32(b"x"), b"x") for number in range(70_000)])
    content = read(pieces, 0, total_size(pieces))
    assert len(zipfile.ZipFile(io.BytesIO(content)).namelist()) == 70_000
    assert struct.unpack_from("<H", content, len(content) - 12)[0] == 0xFFFF
