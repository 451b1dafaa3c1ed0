"""The object store that belongs to a database, used only while it is there and carries the database's name.

A directory whose disk is not mounted looks like an empty one, and so does a bucket that was named wrongly. What is in
doubt is therefore Unavailable, which is waited for: nothing is written to it, and no object counts as lost in it.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from app.database import identity
from app.database.session import Database
from app.database.tables import Checkpoint, Identity
from app.domain.errors import Unavailable
from app.storage.objects import Chunk, MissingObject, OwnableStore, StoredObject

KNOWN = 20
"""Newest checkpoints of which one must lie in a store without a name that a database with checkpoints is to claim."""
CLAIM = "If it is to be the store of this database from now on, run `recast claim-store`."


class OwnedStore:
    """Every use first makes sure whose the store is, and once more where an object is missing."""

    def __init__(self, store: OwnableStore, database: Database) -> None:
        self._store = store
        self._database = database
        self._owner: str | None = None
        self._sure_until = 0.0

    @asynccontextmanager
    async def arriving(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> AsyncIterator[StoredObject]:
        async with AsyncExitStack() as arriving:
            async with self._ours():
                stored = await arriving.enter_async_context(
                    self._store.arriving(chunks, limit=limit, expected_sha256=expected_sha256)
                )
            yield stored

    async def settle(self, sha256: str) -> None:
        async with self._ours():
            await self._store.settle(sha256)

    async def receive(
        self, chunks: AsyncIterable[bytes], *, limit: int, expected_sha256: str | None = None
    ) -> StoredObject:
        async with self._ours():
            return await self._store.receive(chunks, limit=limit, expected_sha256=expected_sha256)

    async def adopt(self, path: Path, sha256: str, filename: str | None = None) -> StoredObject:
        async with self._ours():
            return await self._store.adopt(path, sha256, filename)

    @asynccontextmanager
    async def local(self, sha256: str) -> AsyncIterator[Path]:
        async with AsyncExitStack() as kept:
            async with self._ours():
                path = await kept.enter_async_context(self._store.local(sha256))
            yield path

    async def stream(self, sha256: str, start: int = 0, end: int | None = None) -> AsyncGenerator[Chunk]:
        async with self._ours(), aclosing(self._store.stream(sha256, start, end)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def size(self, sha256: str) -> int | None:
        async with self._ours():
            found = await self._store.size(sha256)
        if found is None:
            await self._make_sure()
        return found

    async def collect(self, sha256: str, before: datetime) -> bool:
        async with self._ours():
            return await self._store.collect(sha256, before)

    async def older_than(self, moment: datetime) -> AsyncGenerator[str]:
        async with self._ours(), aclosing(self._store.older_than(moment)) as found:
            async for sha256 in found:
                yield sha256

    def url(self, sha256: str, expires_in: timedelta) -> str | None:
        return self._store.url(sha256, expires_in)

    async def check(self) -> None:
        await self._make_sure()
        async with self._ours():
            await self._store.check()

    @asynccontextmanager
    async def _ours(self) -> AsyncIterator[None]:
        if time.monotonic() >= self._sure_until:
            await self._make_sure()
        try:
            yield
        except (MissingObject, OSError):
            await self._make_sure()
            raise

    async def _make_sure(self) -> None:
        """Raises Unavailable unless the store carries the database's name; one that is new gets it now."""
        if self._owner is None or await self._store.owner() != self._owner:
            self._owner, self._sure_until = None, 0.0
            self._owner = await self._open()
        self._sure_until = time.monotonic() + self._store.owner_lasts

    async def _open(self) -> str:
        async with self._database.transaction() as session:
            own = await identity.of_database(session)
        owner = await self._store.owner()
        if own.store_claimed_at is None:
            if owner is None:
                await self._refuse_to_forget()
            if owner in (None, own.id):
                owner = await self._store.claim(own.id)
        _refuse_another(own, owner)
        if own.store_claimed_at is None:
            async with self._database.transaction() as session:
                await identity.record_claim(session)
        await self._store.tidy()
        return own.id

    async def _refuse_to_forget(self) -> None:
        """A database that has files and made no claim yet is of an earlier version; its store may be away too."""
        async with self._database.transaction() as session:
            newest = select(Checkpoint.sha256).order_by(Checkpoint.uploaded_at.desc()).limit(KNOWN)
            known = (await session.scalars(newest)).all()
        if known and not any([await self._store.size(sha256) is not None for sha256 in known]):
            raise Unavailable(f"The object store holds none of the newest checkpoints: it is away, or another. {CLAIM}")


def _refuse_another(own: Identity, owner: str | None) -> None:
    if owner is None:
        raise Unavailable(f"The object store is away, or another: it does not carry this database's name. {CLAIM}")
    if owner != own.id:
        raise Unavailable(f"The object store belongs to another database, {owner[:100]!r}. {CLAIM}")


async def claim(store: OwnableStore, database: Database, *, take_over: bool = False) -> tuple[str, str]:
    """Make the store the database's by an operator's decision, another's only with ``take_over``; gives the names of
    its owner and of the database."""
    async with database.transaction() as session:
        own = await identity.of_database(session)
    owner = await store.claim(own.id, take_over=take_over)
    if owner == own.id:
        async with database.transaction() as session:
            await identity.record_claim(session)
    return owner, own.id
