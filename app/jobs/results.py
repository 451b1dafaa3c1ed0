"""The directory that a conversion process leaves its files in, and what of it may be taken over.

Names, sizes and hashes are found out here and not believed. To be used when no process that could write there is left.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType

from app.domain.errors import ChildCrashed

LONGEST_NAME = 255
MOST_FLUSHED = 16
"""Files that are flushed ahead; a conversion writes fewer."""


@dataclass(frozen=True)
class FoundFile:
    """A regular file of one name. ``path`` reaches it even when directories on the way were exchanged."""

    path: Path
    sha256: str
    bytes: int


class ResultsDirectory:
    """A new directory, held open: what a child does to the way that leads to it makes no difference."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __enter__(self) -> "ResultsDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def find(self, name: str) -> FoundFile:
        """The file of that name, hashed. Raises ChildCrashed for whatever else has that name, or for none."""
        with self._opened(name) as fd:
            with open(fd, "rb", closefd=False) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(fd).st_size
        return FoundFile(self._reach(name), digest, size)

    def flush(self) -> None:
        """Begin to put on the disk what lies here, while the process that wrote it goes on; promises nothing."""
        with os.scandir(self._fd) as entries:
            names = [entry.name for entry in islice(entries, MOST_FLUSHED)]
        for name in names:
            with suppress(OSError):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
                try:
                    if stat.S_ISREG(os.fstat(fd).st_mode):
                        os.fdatasync(fd)
                finally:
                    os.close(fd)

    def write(self, name: str, content: bytes) -> FoundFile:
        """Put a file of our own in the place of whatever has that name. Raises ChildCrashed for a directory."""
        os.fchmod(self._fd, stat.S_IRWXU)  # the child may have closed it to itself, and so to us
        there = self._kind_of(name)
        if there is not None and stat.S_ISDIR(there):
            raise ChildCrashed(f"The conversion process made a directory where a file of ours belongs: {name}.")
        if there is not None:
            os.unlink(name, dir_fd=self._fd)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        with open(fd, "wb") as file:
            file.write(content)
        return FoundFile(self._reach(name), hashlib.sha256(content).hexdigest(), len(content))

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        if not name or "/" in name or "\0" in name or name in (".", "..") or len(name) > LONGEST_NAME:
            raise ChildCrashed("The conversion process named a file that cannot be one of its own.")
        os.fchmod(self._fd, stat.S_IRWXU)  # the child may have closed it to itself, and so to us
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self._fd)
        except OSError as error:
            told = error.strerror or type(error).__name__
            raise ChildCrashed(f"The conversion process named a file that it did not make: {name} ({told}).") from None
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                raise ChildCrashed(f"The conversion process named what is no file of its own: {name}.")
            if found.st_uid != os.geteuid():
                os.fchown(fd, os.geteuid(), os.getegid())  # we are root then; the object is to be ours alone
            yield fd
        finally:
            os.close(fd)

    def _kind_of(self, name: str) -> int | None:
        with suppress(FileNotFoundError):
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mode
        return None

    def _reach(self, name: str) -> Path:
        return Path(f"/proc/self/fd/{self._fd}/{name}")
