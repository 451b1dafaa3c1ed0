"""What this worker can do: the architectures that it has described, and what its version knows; and what it leaves to
others, who offer that."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

from recast_plugins.declaration import RESERVED

from app.database import catalogs
from app.database.catalogs import Described
from app.database.session import Database
from app.domain.catalog import Catalog
from app.domain.errors import InvalidOptions
from app.jobs.consumer import Postponed
from app.targets.abilities import abilities
from app.targets.specs import known_target, target_not_installed

LOOK_AGAIN = 1.0
"""Seconds until a conversion is looked at again that another worker is to take, or that waits for a plug-in."""


class Offer:
    """The architectures that a worker offers, and its abilities."""

    def __init__(self) -> None:
        self._digest = ""
        self._catalog = Catalog([])
        self._known = asyncio.Event()
        """It has described its architectures, or failed to."""
        self.lacking: tuple[str, ...] = ()
        """Names that others offer and this worker does not: it takes nothing of these from the queue."""

    def change(self, described: Described) -> None:
        self._digest = described.digest
        self._catalog = Catalog(described.entries, described.broken, (*described.pending, *described.late))
        self._known.set()

    def give_up(self) -> None:
        """Let nobody wait for a description that failed."""
        self._known.set()

    async def renew(self, database: Database, room: str) -> None:
        """Tell that the worker of that work directory still offers this, and learn what others offer."""
        async with database.transaction() as session:
            await catalogs.offer(session, self._digest, room)
        await self._learn(database)

    def plugin_of(self, name: str) -> str | None:
        """The plug-in that offers an architecture; "" for one of a library, None for one that is not offered here."""
        entry = self._catalog.find(name)
        if entry is None:
            return "" if name.startswith(RESERVED) else None
        return entry.plugin or ""

    async def make_sure(self, database: Database, name: str) -> None:
        """Return once an architecture is known to be offered here, or nowhere.

        Raises Postponed where a plug-in that may offer it has not been described yet, and where another worker does.
        """
        if not self._known.is_set() and await self._may_lack(database, name):
            await self._known.wait()
        if self._catalog.find(name) or not self._known.is_set():
            return
        if self._catalog.undescribed and not name.startswith(RESERVED):
            raise Postponed(LOOK_AGAIN)
        await self._learn(database)
        if name in self.lacking:
            raise Postponed(LOOK_AGAIN)

    async def make_sure_of(self, database: Database, needs: Iterable[str], since: datetime) -> None:
        """Return once this worker is known to be able to do all that a conversion needs which was sent at ``since``.

        Raises Postponed where others are, or may be within the time for which what is offered is left to them, and
        InvalidOptions or TargetNotInstalled where nobody is.
        """
        missing = sorted(set(needs) - abilities())
        if not missing:
            return
        await self._learn(database)
        if any(name in self.lacking for name in missing) or datetime.now(UTC) - since < catalogs.OFFERED_FOR:
            raise Postponed(LOOK_AGAIN)
        for spec in filter(None, map(known_target, missing)):
            raise target_not_installed(spec, spec.installing or "")
        raise InvalidOptions(f"No worker of this service can do this: {', '.join(missing)}.")

    async def _may_lack(self, database: Database, name: str) -> bool:
        """Whether this worker may turn out not to offer it: a plug-in's, or one of libraries that others have in other
        versions."""
        if not name.startswith(RESERVED):
            return True
        async with database.transaction() as session:
            return await catalogs.is_lacked_by_one(session, name)

    async def _learn(self, database: Database) -> None:
        async with database.transaction() as session:
            others = await catalogs.offered_by_others(session, self._digest)
        unknown = (name for name in others - abilities() if self._catalog.find(name) is None)
        self.lacking = tuple(sorted(unknown))
