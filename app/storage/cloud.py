"""The object store of a cloud (S3, GCS, Azure) through obstore. Bytes pass through a local file, because the name of an
object is known only when its last byte is."""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
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

if TYPE_CHECKING:
    from obstore.store import RetryConfig

OWNER = "owner"
"""Names the database that the store belongs to."""
OWNER_LASTS = 30.0
"""Seconds between requests for it, so that not every use of the store costs one more."""
COLLECTED = "collected"
"""Prefix of copies of objects that are being removed."""
RENEWED = "renewed"
"""Prefix of marks that an object was stored again."""
MARKS_KEPT = timedelta(days=1)
"""Far longer than the removal of one object takes."""
LARGEST_COPY = 5 << 30
"""Bytes that CopyObject of S3 copies."""
PLAIN = re.compile(r"[\w.-]{1,200}", re.ASCII)
"""File names that need no quoting in a header; the service gives its files no others."""
PART = 16 << 20
"""Bytes of one part of a multipart upload."""
PARTS_AT_ONCE = 4
"""So few that each arrives within SILENCE also where the way to the store is slow (2 MiB/s)."""
SILENCE = "30s"
"""For which a store may leave a request without an answer, or an answer without a further byte. The whole may take as
long as it likes: a large file on a slow way takes many minutes."""
ANSWERING = {"connect_timeout": "5s", "read_timeout": SILENCE, "timeout": "1day"}
VARIABLES = {"s3": "AWS", "gcs": "GOOGLE", "azure": "AZURE"}
"""What the names of the variables begin with by which an operator says otherwise."""
CLIENT_SETTINGS = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "timeout",
    "user_agent",
)
"""Of object_store (ClientConfigKey), which takes them from variables only where it is given none."""
RETRIES: "RetryConfig" = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=1), "base": 2},
}
"""Of each request, before it is told that the store is away. At least one a second, so that a store that comes back is
used at once."""


@dataclass
class _Copy:
    """A local copy of an object, for as long as somebody uses it."""

    users: int = 0
    path: Path | None = None
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    kept: AsyncExitStack = field(default_factory=AsyncExitStack)


class CloudStore:
    """Objects under ``sha256/ab/cdef...`` of an obstore URL. Credentials come from each cloud's usual variables."""

    owner_lasts = OWNER_LASTS

    def __init__(self, url: str, scratch: Path) -> None:
        self._store = _opened(url)
        self._scratch = scratch
        self._scratch.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self._scratch)
        self._copies: dict[str, _Copy] = {}

    @asynccontextmanager
    async def arriving(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> AsyncIterator[StoredObject]:
        yield await self.receive(chunks, limit=limit, expected_sha256=expected_sha256)

    async def settle(self, sha256: str) -> None:
        """Nothing to do: an object is there once the store has acknowledged it."""

    async def receive(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> StoredObject:
        with full_disk_as_insufficient_storage(), temporary_file(self._scratch) as file:
            stored = await receive_into(file, chunks, limit=limit, expected_sha256=expected_sha256)
            await self._put(file.path, stored.sha256)
            return stored

    async def adopt(self, path: Path, sha256: str, filename: str | None = None) -> StoredObject:
        size = path.stat().st_size
        await self._put(path, sha256, filename)
        path.unlink()
        return StoredObject(sha256, size)

    @asynccontextmanager
    async def local(self, sha256: str) -> AsyncIterator[Path]:
        """One copy for all who need it at the same time, such as the conversions of one file to several targets."""
        copy = self._copies.setdefault(sha256, _Copy())
        copy.users += 1
        try:
            async with copy.making:
                if copy.path is None:
                    copy.path = await copy.kept.enter_async_context(self._copied(sha256))
            yield copy.path
        finally:
            copy.users -= 1
            if not copy.users:
                del self._copies[sha256]
                await copy.kept.aclose()

    @asynccontextmanager
    async def _copied(self, sha256: str) -> AsyncIterator[Path]:
        with temporary_file(self._scratch) as file:
            with full_disk_as_insufficient_storage(), open(file.fd, "wb", closefd=False) as out:
                async for block in self.stream(sha256):
                    await in_thread(partial(out.write, block))
            os.fchmod(file.fd, 0o444)  # whom it is shown to may be another user, as conversion processes are
            yield file.path

    async def stream(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncGenerator[Chunk]:
        """A way that breaks is taken up again where it broke, as often as it leads on."""
        with _failures(sha256):
            size = (await obstore.head_async(self._store, object_name(sha256)))["size"]
            stop = size if end is None else min(end, size)
            while start < stop:
                began = start
                try:
                    found = await obstore.get_async(self._store, object_name(sha256), options={"range": (start, stop)})
                    async for block in found.stream(min_chunk_size=BLOCK):
                        start += len(block)
                        yield bytes(block)
                except BaseError:
                    if start == began:
                        raise
                if start == began:
                    raise Unavailable(f"The object store gives less of {sha256} than it has.")

    async def size(self, sha256: str) -> int | None:
        try:
            with _failures(sha256):
                return (await obstore.head_async(self._store, object_name(sha256)))["size"]
        except MissingObject:
            return None

    async def collect(self, sha256: str, before: datetime) -> bool:
        """Not even a client that stores the same bytes again between two of these requests loses them.

        Who stores an object that is there leaves a mark first (``_put``). So a mark that came while the object was
        being removed says that somebody relies on it, and it is put back from a copy.
        """
        name, aside = object_name(sha256), f"{COLLECTED}/{sha256}"
        try:
            with _failures(sha256):
                marks = await self._marks(sha256)
                if (await obstore.head_async(self._store, name))["last_modified"] >= before:
                    return False
                await self._copy(name, aside)
                await obstore.delete_async(self._store, name)
                renewed = await self._marks(sha256) - marks
                if renewed:
                    await self._copy(aside, name)
                await obstore.delete_async(self._store, [aside, *marks])
        except MissingObject:
            return False
        return not renewed

    async def _marks(self, sha256: str) -> set[str]:
        pages = obstore.list(self._store, prefix=f"{RENEWED}/{sha256}")
        return {entry["path"] async for page in pages for entry in page}

    async def _copy(self, source: str, target: str) -> None:
        """Within the store where it can: S3 copies no more than 5 GiB at once."""
        size = (await obstore.head_async(self._store, source))["size"]
        if size <= LARGEST_COPY:
            await obstore.copy_async(self._store, source, target)
            return
        found = await obstore.get_async(self._store, source)
        await obstore.put_async(
            self._store, target, found.stream(min_chunk_size=PART), chunk_size=PART, max_concurrency=PARTS_AT_ONCE
        )

    async def _restore_collected(self) -> None:
        """Put back what a collection moved aside and died over."""
        async for page in obstore.list(self._store, prefix=COLLECTED):
            for entry in page:
                name = object_name(entry["path"].rpartition("/")[2])
                try:
                    await obstore.head_async(self._store, name)
                except FileNotFoundError:
                    await self._copy(entry["path"], name)
                await obstore.delete_async(self._store, entry["path"])

    async def _forget_marks(self, before: datetime) -> None:
        async for page in obstore.list(self._store, prefix=RENEWED):
            old = [entry["path"] for entry in page if entry["last_modified"] < before]
            if old:
                await obstore.delete_async(self._store, old)

    async def older_than(self, moment: datetime) -> AsyncGenerator[str]:
        with _failures("sha256/"):
            await self._restore_collected()
            await self._forget_marks(datetime.now(UTC) - MARKS_KEPT)
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

    async def owner(self) -> str | None:
        try:
            with _failures(OWNER):
                found = await obstore.get_async(self._store, OWNER)
                return bytes(await found.bytes_async()).decode(errors="replace")
        except MissingObject:
            return None

    async def claim(self, claimant: str, *, take_over: bool = False) -> str:
        """Some servers write over an object although they are told to create it: so it is looked for before."""
        if not take_over and (earlier := await self.owner()) is not None:
            return earlier
        try:
            with _failures(OWNER), suppress(AlreadyExistsError):
                await obstore.put_async(
                    self._store, OWNER, claimant.encode(), mode="overwrite" if take_over else "create"
                )
        except MissingObject:
            raise Unavailable("The object store is not there: no such bucket or container.") from None
        return await self.owner() or claimant

    async def tidy(self) -> None:
        """Nothing of its own: each collection puts back what the one before it died over."""

    async def _put(self, path: Path, sha256: str, filename: str | None = None) -> None:
        """Written even when it is there already: that renews its age, and so keeps it from being collected."""
        name = object_name(sha256)
        named = {}
        if filename is not None and PLAIN.fullmatch(filename):
            named["Content-Disposition"] = f'attachment; filename="{filename}"'
        with _failures(sha256):
            with suppress(FileNotFoundError):
                await obstore.head_async(self._store, name)
                await obstore.put_async(self._store, f"{RENEWED}/{sha256}/{uuid4().hex}", b"renewed")
            await obstore.put_async(
                self._store, name, path, attributes=named or None, chunk_size=PART, max_concurrency=PARTS_AT_ONCE
            )


def _opened(url: str) -> Any:
    """Raises BaseError, ValueError."""
    variables = VARIABLES.get(obstore.parse_scheme(url))
    if variables is None:
        return from_url(url)
    told = {name: value for name in CLIENT_SETTINGS if (value := os.environ.get(f"{variables}_{name.upper()}"))}
    return from_url(url, client_options=cast(Any, {**ANSWERING, **told}), retry_config=RETRIES)


@contextmanager
def _failures(name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise MissingObject(name) from None
    except (BaseError, OSError) as error:
        raise Unavailable(f"The object store does not answer: {str(error).splitlines()[0]}") from error
