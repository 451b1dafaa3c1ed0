"""The catalog of architectures as the workers describe it, read from the database and kept between requests."""

import asyncio
from collections.abc import Sequence

from app.database import catalogs
from app.database.catalogs import Described
from app.database.session import Database
from app.domain.catalog import Catalog
from app.domain.errors import Unavailable


class CatalogReader:
    """Gives what all workers that live offer together; parses it again only when one has described another catalog.

    ``lost_after``: seconds without a sign of life after which a worker counts as dead.
    """

    def __init__(self, database: Database, lost_after: float) -> None:
        self._database = database
        self._lost_after = lost_after
        self._digests: tuple[str, ...] = ()
        self._catalog = Catalog([])
        self._reading = asyncio.Lock()
        self.pending: tuple[str, ...] = ()
        """Plug-ins whose description is waited for."""

    async def current(self) -> Catalog:
        """Raises Unavailable while no worker has ever described its architectures."""
        async with self._database.transaction() as session:
            digests = await catalogs.current_digests(session, self._lost_after)
        if not digests:
            raise Unavailable(
                "No worker has described its architectures yet.", hint="Workers do so within seconds of starting."
            )
        if digests != self._digests:
            async with self._reading:  # held by who reads another catalog, and awaited by who needs that one
                await self._read(digests)
        return self._catalog

    async def _read(self, digests: tuple[str, ...]) -> None:
        if digests == self._digests:
            return
        async with self._database.transaction() as session:
            found = [one for digest in digests if (one := await catalogs.find(session, digest))]
        self._catalog, self._digests = together(found), digests
        self.pending = tuple(name for one in found for name in one.pending)


def together(offers: Sequence[Described]) -> Catalog:
    """What several workers offer. Of one name the first is told; what one cannot offer, another may.

    Any of them may take a conversion, so a target that one of them lacks is lacking.
    """
    entries = {entry.name: entry for one in reversed(offers) for entry in one.entries}
    for entry in (entry for one in offers for entry in one.entries if entry.lacking):
        entries[entry.name] = entries[entry.name].without(entry.lacking)
    offering = {entry.plugin for entry in entries.values()}
    broken = {plugin.name: plugin for one in offers for plugin in one.broken if plugin.name not in offering}
    undescribed = {name: None for one in offers for name in (*one.pending, *one.late) if name not in offering}
    return Catalog(entries.values(), broken.values(), undescribed)
