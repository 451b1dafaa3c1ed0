"""Directories that hostile processes wrote in, and their removal, whatever lies in them."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_OPENED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def scratch_directory(parent: Path, prefix: str) -> Iterator[Path]:
    """A new directory for the length of the block. At its end no process that could write there may be left."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield path
    finally:
        remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it as far as that is possible; links are removed, and not followed.

    shutil.rmtree recurses, which some hundred directories below each other break, and names whole paths. Here what lies
    in a directory is moved up before that is removed, so that nothing is ever far down; names stay bytes.
    """
    with suppress(OSError):
        os.chmod(path, stat.S_IRWXU)
        fd = os.open(path, _OPENED)
        try:
            waiting = os.listdir(f"/proc/self/fd/{fd}".encode())
            while waiting:
                waiting += _removed(waiting.pop(), fd)
        finally:
            os.close(fd)
        os.rmdir(path)


def _removed(name: bytes, parent: int) -> list[bytes]:
    """The names under which what lay in a directory lies in ``parent`` now, after it was removed from there."""
    with suppress(OSError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return []
        os.chmod(name, stat.S_IRWXU, dir_fd=parent)
        fd = os.open(name, _OPENED, dir_fd=parent)
        try:
            moved = [_moved(within, fd, parent) for within in os.listdir(f"/proc/self/fd/{fd}".encode())]
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)
        return [new for new in moved if new]
    return []


def _moved(name: bytes, directory: int, parent: int) -> bytes:
    """Its new name in ``parent``; empty where it was a file and is gone."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=directory)
        return b""
    new = uuid4().hex.encode()
    os.chmod(name, stat.S_IRWXU, dir_fd=directory)
    os.rename(name, new, src_dir_fd=directory, dst_dir_fd=parent)
    return new
