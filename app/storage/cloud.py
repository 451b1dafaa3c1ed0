"""The object store of a cloud (S3, GCS, Azure) through obstore. Bytes pass through a local file, because the name of an
object is known only when its last byte is."""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store, from_url

from app.domain.errors import Unavailable
from app.storage.intake import (
    full_disk_as_insufficient_storage,
    receive_into,
    remove_abandoned,
    temporary_file,
)
from app.storage.objects import BLOCK, Chunk, MissingObject, StoredObject, object_name, object_sha256
from app.threads import in_thread

PART = 16 << 20
"""Bytes of one part of a multipart upload."""


class CloudStore:
    """Objects under ``sha256/ab/cdef...`` of an obstore URL. Credentials come from each cloud's usual variables."""

    def __init__(self, url: str, scratch: Path) -> None:
        self._store = from_url(url)
        self._scratch = scratch
        self._scratch.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self._scratch)

    async def receive(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> StoredObject:
        with full_disk_as_insufficient_storage(), temporary_file(self._scratch) as file:
            stored = await receive_into(file, chunks, limit=limit, expected_sha256=expected_sha256)
            await self._put(file.path, stored.sha256)
            return stored

    async def adopt(self, path: Path, sha256: str) -> StoredObject:
        size = path.stat().st_size
        await self._put(path, sha256)
        path.unlink()
        return StoredObject(sha256, size)

    @asynccontextmanager
    async def local(self, sha256: str) -> AsyncIterator[Path]:
        with temporary_file(self._scratch) as file:
            with full_disk_as_insufficient_storage(), open(file.fd, "wb", closefd=False) as out:
                async for block in self.stream(sha256):
                    await in_thread(partial(out.write, block))
            yield file.path

    async def stream(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncIterator[Chunk]:
        with _failures(sha256):
            size = (await obstore.head_async(self._store, object_name(sha256)))["size"]
            stop = size if end is None else min(end, size)
            if start >= stop:
                return
            found = await obstore.get_async(self._store, object_name(sha256), options={"range": (start, stop)})
            async for block in found.stream(min_chunk_size=BLOCK):
                yield bytes(block)

    async def size(self, sha256: str) -> int | None:
        try:
            with _failures(sha256):
                return (await obstore.head_async(self._store, object_name(sha256)))["size"]
        except MissingObject:
            return None

    async def collect(self, sha256: str, before: datetime) -> bool:
        try:
            with _failures(sha256):
                found = await obstore.head_async(self._store, object_name(sha256))
                if found["last_modified"] >= before:
                    return False
                await obstore.delete_async(self._store, object_name(sha256))
        except MissingObject:
            return False
        return True

    async def older_than(self, moment: datetime) -> AsyncIterator[str]:
        with _failures("sha256/"):
            async for page in obstore.list(self._store, prefix="sha256"):
                for entry in page:
                    sha256 = object_sha256(entry["path"])
                    if sha256 and entry["last_modified"] < moment:
                        yield sha256

    def url(self, sha256: str, expires_in: timedelta) -> str | None:
        if not isinstance(self._store, S3Store | GCSStore | AzureStore):
            return None
        return obstore.sign(self._store, "GET", object_name(sha256), expires_in)

    async def check(self) -> None:
        name = f"check/{uuid4().hex}"
        with _failures(name):
            await obstore.put_async(self._store, name, b"recast")
            await obstore.get_async(self._store, name)
            await obstore.delete_async(self._store, name)

    async def _put(self, path: Path, sha256: str) -> None:
        """Written even when it is there already: that renews its age, and so keeps it from being collected."""
        with _failures(sha256):
            await obstore.put_async(self._store, object_name(sha256), path, chunk_size=PART)


@contextmanager
def _failures(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MissingObject(name) from None
    except (BaseError, OSError) as error:
        raise Unavailable(f"The object store does not answer: {str(error).splitlines()[0]}") from error
