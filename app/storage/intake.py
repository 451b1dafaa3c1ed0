"""Receiving a stream into a temporary local file, hashed on the way."""

import asyncio
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app.domain.errors import DigestMismatch, EmptyFile, InsufficientStorage, PayloadTooLarge
from app.storage.objects import StoredObject
from app.threads import in_thread

GATHERED = 4 << 20
"""Bytes gathered before a thread hashes and writes them: large enough that changing threads costs nothing."""
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


def _create(directory: Path) -> TemporaryFile:
    while True:
        fd, name = tempfile.mkstemp(dir=directory, prefix="incoming-")
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:  # else remove_abandoned() came between the two calls
            return TemporaryFile(Path(name), fd)
        os.close(fd)


def remove_abandoned(directory: Path) -> int:
    """Remove the temporary files whose creators died; gives how many."""
    removed = 0
    for path in directory.glob("incoming-*"):
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                removed += 1
            except BlockingIOError:
                continue
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


async def receive_into(
    file: TemporaryFile, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None
) -> StoredObject:
    """Write ``chunks`` to ``file`` and flush it to the disk. Errors as ObjectStore.receive.

    While a thread hashes and writes one block, the next is gathered; so at most two blocks are in memory.
    """
    hasher = hashlib.sha256()
    total = 0

    def keep(gathered: list[bytes]) -> None:
        block = b"".join(gathered)
        _write_all(file.fd, block)
        hasher.update(block)

    pending: asyncio.Task[None] | None = None
    gathered: list[bytes] = []
    size = 0
    try:
        async for chunk in chunks:
            total += len(chunk)
            if total > limit:
                raise PayloadTooLarge(f"The upload exceeds {limit} bytes.", limit=limit)
            gathered.append(chunk)
            size += len(chunk)
            if size >= GATHERED:
                if pending:
                    await asyncio.shield(pending)
                pending = asyncio.create_task(in_thread(partial(keep, gathered)))
                gathered, size = [], 0
    finally:
        if pending:
            await pending
    if total == 0:
        raise EmptyFile("The upload holds no bytes.")
    await in_thread(partial(keep, gathered))
    sha256 = hasher.hexdigest()
    if expected_sha256 is not None and expected_sha256.lower() != sha256:
        raise DigestMismatch("The sha256 differs.", expected_sha256=expected_sha256, received_sha256=sha256)
    await in_thread(partial(os.fsync, file.fd))
    return StoredObject(sha256, total)


def _write_all(fd: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]
