"""A worker's directory for running jobs; what dead workers left in theirs is removed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def work_room(root: Path) -> Iterator[Path]:
    """A new empty directory under ``root`` for the length of the block, locked as long as this process lives."""
    root.mkdir(parents=True, exist_ok=True)
    remove_abandoned_rooms(root)
    room = Path(tempfile.mkdtemp(dir=root, prefix="worker-"))
    lock = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield room.resolve()
    finally:
        shutil.rmtree(room, ignore_errors=True)
        os.close(lock)


def remove_abandoned_rooms(root: Path) -> None:
    """Remove the directories under ``root`` whose workers died."""
    for room in root.glob("worker-*"):
        with suppress(FileNotFoundError, BlockingIOError):
            fd = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(room, ignore_errors=True)
            finally:
                os.close(fd)
