"""The catalog of architectures as the workers describe it, read from the database and kept between requests."""

import asyncio

from app.database import catalogs
from app.database.session import Database
from app.domain.catalog import Catalog
from app.domain.errors import Unavailable


class CatalogReader:
    """Gives the current catalog; parses it again only when a worker has described another one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._digest: str | None = None
        self._catalog = Catalog([])
        self._reading = asyncio.Lock()

    async def current(self) -> Catalog:
        """Raises Unavailable while no worker has ever described its architectures."""
        async with self._database.transaction() as session:
            digest = await catalogs.current_digest(session)
        if digest is None:
            raise Unavailable(
                "No worker has described its architectures yet.", hint="Workers do so within seconds of starting."
            )
        if digest != self._digest:
            async with self._reading:  # held by who reads another catalog, and awaited by who needs that one
                await self._read(digest)
        return self._catalog

    async def _read(self, digest: str) -> None:
        if digest == self._digest:
            return
        async with self._database.transaction() as session:
            found = await catalogs.entries(session, digest)
            broken = await catalogs.broken(session, digest)
        self._catalog, self._digest = Catalog(found, broken), digest
