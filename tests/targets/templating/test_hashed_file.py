"""A file written while it is hashed holds what was written, and is removed where writing failed."""

import hashlib
import random
import resource
import signal
from pathlib import Path

import pytest

from app.targets.templating.hashed_file import CHUNK, SMALL, HashedFile


def test_pieces_of_every_size_keep_their_order(tmp_path: Path) -> None:
    draw = random.Random(0)
    sizes = [0, 1, SMALL - 1, SMALL, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7, *range(40), *[SMALL - 1] * 40]
    draw.shuffle(sizes)
    pieces = [draw.randbytes(size) for size in sizes]
    with HashedFile(tmp_path / "file") as file:
        for piece in pieces:
            file.write(piece)
    assert (tmp_path / "file").read_bytes() == b"".join(pieces)
    assert file.sha256() == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert file.bytes == sum(sizes)


def fail_in_between(path: Path) -> None:
    with HashedFile(path) as file:
        file.write(bytes(2 * CHUNK))
        raise KeyError


def write_more_than_fits(path: Path) -> None:
    with HashedFile(path) as file:
        file.write(bytes(CHUNK))
        file.write(b"the gathered rest")


def test_an_error_in_between_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        fail_in_between(tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_disk_that_takes_no_more_leaves_no_file(tmp_path: Path) -> None:
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            write_more_than_fits(tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "file").exists()
