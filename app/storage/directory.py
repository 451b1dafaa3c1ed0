"""The object store in a local directory: publishing is a rename, reading needs no copy.

What has arrived is, in this order: shown as ``incoming/arrived-SHA256-...``, where only ``local`` finds it; flushed;
moved to its place; and its directory flushed. What lies in a place is therefore whole, whatever died when. An arrival
is believed while a process lives that wrote or reads it, for then the kernel has had its bytes all the time; else once
it was hashed anew (``_settle_arrival``).
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

from app.domain.errors import Unavailable
from app.storage.intake import (
    TemporaryFile,
    full_disk_as_insufficient_storage,
    is_abandoned,
    linked_file,
    receive_into,
    remove_abandoned,
    share,
    temporary_file,
)
from app.storage.objects import BLOCK, Chunk, MissingObject, StoredObject, object_name, object_sha256
from app.threads import in_thread

NOT_IN_MEMORY = {errno.EAGAIN, errno.EOPNOTSUPP}
"""How preadv(2) with RWF_NOWAIT says that the disk must be read, or that the file system does not know the flag."""
ARRIVED = "arrived-"
"""Begin of the names in ``incoming`` of what has arrived whole and is not known to be durable."""
LONGEST_FLUSH = 600.0
"""Seconds after which a directory entry that somebody was about to flush is durable, or he died; ext4 and XFS write
theirs within 5 and 30 by themselves."""
SHARDS = tuple(f"{number:02x}" for number in range(256))


class DirectoryStore:
    """Objects as files ``sha256/ab/cdef...`` under ``root``; what is being written lies in ``root/incoming``, and
    ``root/owner`` names the database that all of it belongs to."""

    owner_lasts = 0.0

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._incoming = self._root / "incoming"
        self._owner = self._root / "owner"

    @asynccontextmanager
    async def arriving(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> AsyncIterator[StoredObject]:
        with ExitStack() as kept:
            with self._writing():
                file = kept.enter_context(temporary_file(self._incoming))
                stored = await receive_into(file, chunks, limit=limit, expected_sha256=expected_sha256)
                arrived = kept.enter_context(self._shown(file, stored.sha256))
            settling = asyncio.create_task(in_thread(partial(self._settle_own, file.fd, arrived, stored.sha256)))
            try:
                yield stored
            finally:
                with self._writing():
                    await settling

    async def receive(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> StoredObject:
        async with self.arriving(chunks, limit=limit, expected_sha256=expected_sha256) as stored:
            return stored

    async def settle(self, sha256: str) -> None:
        with self._writing():
            await in_thread(partial(self._settle, sha256))

    async def adopt(self, path: Path, sha256: str, filename: str | None = None) -> StoredObject:
        del filename  # nobody is sent here
        with self._writing():
            return await in_thread(partial(self._adopt, path, sha256))

    @asynccontextmanager
    async def local(self, sha256: str) -> AsyncIterator[Path]:
        path = self._path(sha256)
        with ExitStack() as kept:
            if not path.is_file():
                arrived = await in_thread(partial(self._arrival, sha256, kept))
                path = arrived if arrived is not None else path
            if not path.is_file():
                raise self._absent(sha256)
            yield path

    async def stream(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncGenerator[Chunk]:
        try:
            file = self._path(sha256).open("rb", buffering=0)
        except FileNotFoundError:
            raise self._absent(sha256) from None
        with file:
            fd = file.fileno()
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            stop = os.fstat(fd).st_size if end is None else end
            while start < stop and (block := await _read(fd, start, min(BLOCK, stop - start))):
                start += len(block)
                yield block

    async def size(self, sha256: str) -> int | None:
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError:
            if isinstance(error := self._absent(sha256), Unavailable):
                raise error from None
            return None

    async def collect(self, sha256: str, before: datetime) -> bool:
        return await in_thread(partial(self._collect, sha256, before))

    async def older_than(self, moment: datetime) -> AsyncGenerator[str]:
        for path in await in_thread(lambda: list(self._root.glob("sha256/??/*"))):
            sha256 = object_sha256(path.as_posix())
            with suppress(FileNotFoundError):
                if sha256 and path.stat().st_mtime < moment.timestamp():
                    yield sha256

    def url(self, sha256: str, expires_in: timedelta) -> str | None:  # noqa: ARG002
        return None

    async def owner(self) -> str | None:
        try:
            return self._owner.read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise Unavailable(f"It cannot be read whose the object store is: {error}.") from error

    async def claim(self, claimant: str, *, take_over: bool = False) -> str:
        try:
            with full_disk_as_insufficient_storage():
                return await in_thread(partial(self._claim, claimant, take_over))
        except OSError as error:
            raise Unavailable(f"The object store cannot be made: {error}.") from error

    async def tidy(self) -> None:
        with self._present():
            await in_thread(self._tidy)

    async def check(self) -> None:
        with self._writing(), temporary_file(self._incoming) as file:
            os.write(file.fd, b"recast")

    def _path(self, sha256: str) -> Path:
        return self._root / object_name(sha256)

    @contextmanager
    def _present(self) -> Iterator[None]:
        """Raises Unavailable when the store's directories are gone."""
        try:
            yield
        except FileNotFoundError as error:
            if self._incoming.is_dir():
                raise
            raise Unavailable(f"The object store is not there: {self._root}.") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises Unavailable, InsufficientStorage."""
        with self._present(), full_disk_as_insufficient_storage():
            yield

    def _absent(self, sha256: str) -> MissingObject | Unavailable:
        """What it means that an object is not there: it is missing, or the whole store is (not mounted, say)."""
        if self._path(sha256).parent.is_dir():
            return MissingObject(sha256)
        return Unavailable(f"The object store is not there: {self._root}.")

    def _collect(self, sha256: str, before: datetime) -> bool:
        """Nobody stores while the file's age is looked at, so that a fresh one cannot slip in between."""
        with self._storing(fcntl.LOCK_EX):
            path = self._path(sha256)
            try:
                if path.stat().st_mtime >= before.timestamp():
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def _restore_collected(self) -> None:
        """Put back what earlier versions moved aside to collect it, and died over."""
        with self._storing(fcntl.LOCK_EX):
            for aside in self._incoming.glob("collected-*"):
                target = self._path(aside.name.removeprefix("collected-"))
                if target.parent.is_dir() and not target.exists():
                    aside.rename(target)
                else:
                    aside.unlink()

    @contextmanager
    def _storing(self, how: int) -> Iterator[None]:
        """Hold the lock under which objects come (shared) and go (exclusive) for the block."""
        lock = os.open(self._incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, how)
            yield
        finally:
            os.close(lock)

    def _claim(self, claimant: str, take_over: bool) -> str:
        self.make()
        with self._storing(fcntl.LOCK_EX):
            if take_over or not self._owner.exists():
                with temporary_file(self._incoming) as file:
                    os.write(file.fd, claimant.encode())
                    os.fchmod(file.fd, 0o444)
                    os.fsync(file.fd)
                    file.path.rename(self._owner)
                _flush_directory(self._root)
            return self._owner.read_text()

    def _tidy(self) -> None:
        for arrived in self._incoming.glob(f"{ARRIVED}*"):
            self._settle_arrival(arrived)
        remove_abandoned(self._incoming)
        self._restore_collected()

    @contextmanager
    def _shown(self, file: TemporaryFile, sha256: str) -> Iterator[Path]:
        """Show a file that has arrived to ``local``, for the block or until it is moved away."""
        os.fchmod(file.fd, 0o444)
        share(file)
        arrived = self._incoming / f"{ARRIVED}{sha256}-{uuid4().hex}"
        file.path.rename(arrived)
        try:
            yield arrived
        finally:
            arrived.unlink(missing_ok=True)

    def _arrivals(self, sha256: str) -> list[Path]:
        return list(self._incoming.glob(f"{ARRIVED}{sha256}-*"))

    def _arrival(self, sha256: str, kept: ExitStack) -> Path | None:
        """A name of our own for an object that has arrived and is not in its place yet, as long as ``kept`` is; None
        where there is none such, or none any more."""
        for arrived in self._arrivals(sha256):
            with self._storing(fcntl.LOCK_EX), suppress(FileNotFoundError), arrived.open("rb") as file:
                if not is_abandoned(file.fileno()):
                    with suppress(OSError):  # as where a file system has no links
                        return kept.enter_context(linked_file(arrived, self._incoming)).path
            self._settle_arrival(arrived)
        return None

    def _settle(self, sha256: str) -> None:
        for arrived in self._arrivals(sha256):
            self._settle_arrival(arrived)
        with suppress(FileNotFoundError):
            moved = self._path(sha256).stat().st_ctime
            if time.time() - moved < LONGEST_FLUSH:
                _flush_directory(self._path(sha256).parent)

    def _settle_arrival(self, arrived: Path) -> None:
        """Put in its place what another brought; what nobody alive brought must still have its sha256, else it goes.

        Nobody else judges it meanwhile, so that who asks whether somebody lives is not taken for one who does.
        """
        sha256 = arrived.name.removeprefix(ARRIVED).partition("-")[0]
        with self._storing(fcntl.LOCK_EX), suppress(FileNotFoundError), arrived.open("rb") as file:
            if is_abandoned(file.fileno()) and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                arrived.unlink()
                return
            os.fsync(file.fileno())
            os.utime(arrived)
            arrived.rename(self._path(sha256))
        _flush_directory(self._path(sha256).parent)

    def _settle_own(self, fd: int, arrived: Path, sha256: str) -> None:
        """Put in its place what this process brought, unless another was quicker; durable when it returns."""
        os.fsync(fd)
        try:
            self._publish(arrived, sha256)
        except FileNotFoundError:
            if not self._path(sha256).is_file():
                raise
            _flush_directory(self._path(sha256).parent)

    def _adopt(self, path: Path, sha256: str) -> StoredObject:
        """An object that is there already is kept, not replaced: its bytes were verified when it came.

        Only one of another size, which cannot have that sha256 and was damaged, gives way to the bytes that have it.
        """
        size = path.stat().st_size
        target = self._path(sha256)
        with self._storing(fcntl.LOCK_SH):
            known = target.exists() and target.stat().st_size == size
            if known:
                os.utime(target)
        if known:
            path.unlink()
            return StoredObject(sha256, size)
        if path.stat().st_dev == self._root.stat().st_dev:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            self._publish(path, sha256)
            return StoredObject(sha256, size)
        with temporary_file(self._incoming) as copy, path.open("rb") as file:
            with open(copy.fd, "wb", closefd=False) as out:
                shutil.copyfileobj(file, out, BLOCK)
            os.fsync(copy.fd)
            self._publish(copy.path, sha256)
        path.unlink()
        return StoredObject(sha256, size)

    def _publish(self, path: Path, sha256: str) -> None:
        """Move a finished, flushed file to its place; durable when it returns."""
        target = self._path(sha256)
        path.chmod(0o444)
        os.utime(path)
        with self._storing(fcntl.LOCK_SH):
            path.rename(target)
        _flush_directory(target.parent)

    def make(self) -> None:
        """All directories that objects can lie in, durable, so that no upload has to make and flush its own."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        if all((self._root / "sha256" / shard).is_dir() for shard in SHARDS):
            return
        for shard in SHARDS:
            (self._root / "sha256" / shard).mkdir(parents=True, exist_ok=True)
        _flush_directory(self._root / "sha256")
        _flush_directory(self._root)


async def _read(fd: int, position: int, length: int) -> Chunk:
    """Up to ``length`` bytes, none at the end. Copying what is in memory takes less time than asking a thread."""
    block = bytearray(length)
    try:
        return memoryview(block)[: os.preadv(fd, [block], position, os.RWF_NOWAIT)]
    except OSError as error:
        if error.errno not in NOT_IN_MEMORY:
            raise
    return await in_thread(partial(os.pread, fd, length, position))


def _flush_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
