"""The zip layout is one that Python's and torch's readers accept, also beyond the 32-bit limits."""

import zipfile
from pathlib import Path

from app.targets.templating.archive_layout import ALIGNMENT, ROOT, Record, lay_out_archive
from app.targets.templating.pieces import Slot, piece_length
from app.targets.templating.recipe import Weight
from app.targets.templating.slots import TensorForm

GIB = 1 << 30


def slot(name: str, size: int) -> Slot:
    return Slot(name, TensorForm("uint8", (size,)), Weight(name))


def write_sparse(records: list[Record], path: Path) -> None:
    """Write literals alone; the data of slots becomes holes, which take no room on disk."""
    with path.open("wb") as file:
        for piece in lay_out_archive(records):
            if isinstance(piece, bytes):
                file.write(piece)
            else:
                file.seek(piece_length(piece), 1)


def test_records_and_directories_beyond_four_gigabytes_are_found(tmp_path: Path) -> None:
    records = [
        Record("data/0", slot("data/0", 5 * GIB)),
        Record("data/1", slot("data/1", 2 * GIB)),
        Record("version", b"3\n"),
    ]
    write_sparse(records, tmp_path / "large.pt")
    with zipfile.ZipFile(tmp_path / "large.pt") as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        assert sizes == {f"{ROOT}/data/0": 5 * GIB, f"{ROOT}/data/1": 2 * GIB, f"{ROOT}/version": 2}
        assert archive.read(f"{ROOT}/version") == b"3\n"


def test_more_records_than_sixteen_bits_count_are_found(tmp_path: Path) -> None:
    records = [Record(f"code/{number}", b"") for number in range(66_000)]
    write_sparse(records, tmp_path / "many.pt")
    with zipfile.ZipFile(tmp_path / "many.pt") as archive:
        assert len(archive.infolist()) == len(records)


def test_contents_are_aligned(tmp_path: Path) -> None:
    records = [Record(f"data/{'x' * size}", bytes(size)) for size in range(1, 150)]
    write_sparse(records, tmp_path / "aligned.pt")
    content = (tmp_path / "aligned.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "aligned.pt") as archive:
        for info in archive.infolist():
            name, extra = (int.from_bytes(content[info.header_offset + at :][:2], "little") for at in (26, 28))
            assert (info.header_offset + 30 + name + extra) % ALIGNMENT == 0
        assert archive.testzip() is None
