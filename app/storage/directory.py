"""The object store in a local directory: publishing is a rename, reading needs no copy."""

import errno
import fcntl
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from app.domain.errors import Unavailable
from app.storage.intake import full_disk_as_insufficient_storage, receive_into, remove_abandoned, temporary_file
from app.storage.objects import BLOCK, Chunk, MissingObject, StoredObject, object_name, object_sha256
from app.threads import in_thread

NOT_IN_MEMORY = {errno.EAGAIN, errno.EOPNOTSUPP}
"""How preadv(2) with RWF_NOWAIT says that the disk must be read, or that the file system does not know the flag."""
SHARDS = tuple(f"{number:02x}" for number in range(256))


class DirectoryStore:
    """Objects as files ``sha256/ab/cdef...`` under ``root``; what is being written lies in ``root/incoming``, and
    ``root/owner`` names the database that all of it belongs to."""

    owner_lasts = 0.0

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._incoming = self._root / "incoming"
        self._owner = self._root / "owner"

    async def receive(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> StoredObject:
        with self._present(), full_disk_as_insufficient_storage(), temporary_file(self._incoming) as file:
            stored = await receive_into(file, chunks, limit=limit, expected_sha256=expected_sha256)
            await in_thread(partial(self._publish, file.path, stored.sha256))
            return stored

    async def adopt(self, path: Path, sha256: str, filename: str | None = None) -> StoredObject:
        del filename  # nobody is sent here
        with self._present(), full_disk_as_insufficient_storage():
            return await in_thread(partial(self._adopt, path, sha256))

    @asynccontextmanager
    async def local(self, sha256: str) -> AsyncIterator[Path]:
        path = self._path(sha256)
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
        with self._present(), full_disk_as_insufficient_storage(), temporary_file(self._incoming) as file:
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
        remove_abandoned(self._incoming)
        self._restore_collected()

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
