"""Receiving a stream into a temporary local file, hashed on the way."""

import asyncio
import errno
import fcntl
import hashlib
import os
import tempfile
from collections import deque
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from uuid import uuid4

from app.domain.errors import DigestMismatch, EmptyFile, InsufficientStorage, PayloadTooLarge
from app.storage.objects import StoredObject
from app.threads import in_thread

GATHERED = 1 << 20
"""Bytes gathered before a thread hashes and writes them: large enough that changing threads costs little, small enough
that they are still in the processor's cache."""
FLUSHED = 32 << 20
"""Bytes after which what was written is flushed while more arrives, so that little is left to flush at the end."""
MOST_VECTORS = os.sysconf("SC_IOV_MAX")
"""Buffers that one call may write."""
PREFIX = "incoming-"
"""Begin of the names of files that are removed when nobody who made or shares them lives."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class TemporaryFile:
    """A named file that only its creator writes. It is locked as long as its creator lives."""

    path: Path
    fd: int


@contextmanager
def temporary_file(directory: Path) -> Iterator[TemporaryFile]:
    """A new locked file in ``directory``; removed at the end of the block unless it was moved away."""
    file = _create(directory)
    try:
        yield file
    finally:
        with suppress(FileNotFoundError):
            file.path.unlink()
        os.close(file.fd)


@contextmanager
def linked_file(path: Path, directory: Path) -> Iterator[TemporaryFile]:
    """A further name in ``directory`` of a file that was shared with ``share``, for the block, whatever becomes of
    ``path``; to be read only. Raises FileNotFoundError, and OSError where the file system has no links."""
    link = directory / f"{PREFIX}{uuid4().hex}"
    os.link(path, link)
    try:
        fd = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield TemporaryFile(link, fd)
        finally:
            os.close(fd)
    finally:
        link.unlink()


def share(file: TemporaryFile) -> None:
    """Let others keep a finished file alive too. Raises FileNotFoundError where it was just taken for abandoned."""
    fcntl.flock(file.fd, fcntl.LOCK_SH)
    if not os.fstat(file.fd).st_nlink:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file.path))


def is_abandoned(fd: int) -> bool:
    """Whether nobody lives who made or shares the file; it is then locked as long as ``fd`` is open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _create(directory: Path) -> TemporaryFile:
    while True:
        fd, name = tempfile.mkstemp(dir=directory, prefix=PREFIX)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:  # else remove_abandoned() came between the two calls
            return TemporaryFile(Path(name), fd)
        os.close(fd)


def remove_abandoned(directory: Path) -> int:
    """Remove the temporary files whose creators died; gives how many."""
    removed = 0
    for path in directory.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if is_abandoned(fd):
                    path.unlink()
                    removed += 1
            finally:
                os.close(fd)
    return removed


@contextmanager
def full_disk_as_insufficient_storage() -> Iterator[None]:
    """Turn the system's ways of saying that a disk is full into InsufficientStorage."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise InsufficientStorage(f"No space is left in the store: {error.strerror}.") from error
        raise


class _Keeper:
    """Hashes and writes blocks in a thread, one after the other, while the caller gathers the next."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hasher = hashlib.sha256()
        self._keeping: asyncio.Task[None] | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._unflushed = 0

    async def keep(self, chunks: list[bytes]) -> None:
        """Take a block over once the one before it is kept."""
        if self._keeping:
            await asyncio.shield(self._keeping)
        self._keeping = asyncio.create_task(in_thread(partial(self._keep, chunks)))
        if self._unflushed >= FLUSHED and (self._flushing is None or self._flushing.done()):
            self._unflushed = 0
            self._flushing = asyncio.create_task(in_thread(partial(os.fdatasync, self._fd)))

    async def settle(self) -> str:
        """Wait until nothing uses the file any more; gives the sha256 of all that was kept, in hexadecimal."""
        for task in filter(None, (self._keeping, self._flushing)):
            await task
        return self._hasher.hexdigest()

    def _keep(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self._hasher.update(chunk)
            self._unflushed += len(chunk)
        _write_all(self._fd, chunks)


async def receive_into(
    file: TemporaryFile, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None
) -> StoredObject:
    """Write ``chunks`` to ``file``, of which little is left to flush then. Errors as ObjectStore.arriving.

    At most two blocks of GATHERED bytes are in memory.
    """
    keeper = _Keeper(file.fd)
    total = size = 0
    gathered: list[bytes] = []
    try:
        async for chunk in chunks:
            total += len(chunk)
            if total > limit:
                raise PayloadTooLarge(f"The upload exceeds {limit} bytes.", limit=limit)
            gathered.append(chunk)
            size += len(chunk)
            if size >= GATHERED:
                await keeper.keep(gathered)
                gathered, size = [], 0
        await keeper.keep(gathered)
    finally:
        sha256 = await keeper.settle()
    if total == 0:
        raise EmptyFile("The upload holds no bytes.")
    if expected_sha256 is not None and expected_sha256.lower() != sha256:
        raise DigestMismatch("The sha256 differs.", expected_sha256=expected_sha256, received_sha256=sha256)
    return StoredObject(sha256, total)


def _write_all(fd: int, chunks: list[bytes]) -> None:
    """Without joining them: that copy costs as much as writing."""
    views = deque(memoryview(chunk) for chunk in chunks)
    while views:
        written = os.writev(fd, list(islice(views, MOST_VECTORS)))
        while views and written >= len(views[0]):
            written -= len(views.popleft())
        if written:
            views[0] = views[0][written:]
