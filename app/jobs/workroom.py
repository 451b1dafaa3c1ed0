"""A worker's directory for running jobs; what dead workers left in theirs is removed."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def work_room(root: Path) -> Iterator[Path]:
    """A new empty directory under ``root`` for the length of the block, locked as long as this process lives."""
    root.mkdir(parents=True, exist_ok=True)
    remove_abandoned_rooms(root)
    room, lock = _locked_room(root)
    try:
        yield room.resolve()
    finally:
        shutil.rmtree(room, ignore_errors=True)
        os.close(lock)


def _locked_room(root: Path) -> tuple[Path, int]:
    while True:
        room = root / f"worker-{uuid4().hex}"
        room.mkdir(mode=0o700)
        with suppress(FileNotFoundError):
            lock = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if room.is_dir():  # else remove_abandoned_rooms() came between the calls
                return room, lock
            os.close(lock)


def remove_abandoned_rooms(root: Path) -> list[str]:
    """Remove the directories under ``root`` whose workers died; gives their names."""
    removed = []
    for room in root.glob("worker-*"):
        with suppress(FileNotFoundError, BlockingIOError):
            fd = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(room, ignore_errors=True)
                removed.append(room.name)
            finally:
                os.close(fd)
    return removed
