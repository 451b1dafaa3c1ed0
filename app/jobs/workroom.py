"""A worker's directory for running jobs; what dead workers left in theirs is removed."""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

from app.jobs.scratch import remove_tree
from app.threads import in_thread


@contextmanager
def work_room(root: Path) -> Iterator[Path]:
    """A new empty directory under ``root`` for the length of the block, locked as long as this process lives."""
    root.mkdir(parents=True, exist_ok=True)
    room, lock = _locked_room(root)
    try:
        yield room.resolve()
    finally:
        remove_tree(room)
        os.close(lock)


def _locked_room(root: Path) -> tuple[Path, int]:
    while True:
        room = root / f"worker-{uuid4().hex}"
        room.mkdir(mode=0o700)
        with suppress(FileNotFoundError):
            lock = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if room.is_dir():  # else abandoned_rooms() came between the calls
                return room, lock
            os.close(lock)


@asynccontextmanager
async def abandoned_rooms(root: Path) -> AsyncIterator[list[str]]:
    """Names of the directories under ``root`` whose workers died, held for the block and removed after it.

    Where it raises they stay: that a worker died is known by nothing else.
    """
    held: dict[Path, int] = {}
    try:
        for room in root.glob("worker-*"):
            with suppress(FileNotFoundError):
                lock = os.open(room, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held[room] = lock
                except BlockingIOError:
                    os.close(lock)
        yield sorted(room.name for room in held)
        for room in held:
            await in_thread(partial(remove_tree, room))
    finally:
        for lock in held.values():
            os.close(lock)
