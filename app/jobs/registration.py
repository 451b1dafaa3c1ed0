"""A worker's place in the database: it is entered, gives signs of life until the very end, and is taken out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from app.database import checkpoints, conversions, deaths, workers
from app.database.session import Database
from app.jobs.patience import DatabaseAway, patiently

log = structlog.get_logger(__name__)

BEATS = 5
"""Signs of life in the time without any after which a worker counts as dead."""
AWAY_DELAY = 1.0
"""Most seconds between two signs of life while the database is away, so that the first one after it is soon."""
LEAVING = 1.0
"""Seconds that a worker takes to say that it leaves; who cannot is found out by its silence."""


class Forgotten(Exception):
    """This worker was taken for dead while it lived: paused, or cut off from the database alone."""


@dataclass
class Registration:
    """The entry of a worker. ``id``: what the queue's entries, conversions and readings name as their worker."""

    database: Database
    id: int
    lost_after: float

    async def keep(self) -> None:
        """Give signs of life for ever. Raises Forgotten."""
        interval = pause = self.lost_after / BEATS
        while True:
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(self.lost_after), self.database.transaction() as session:
                    known = await workers.beat(session, self.id)
            except (*DatabaseAway, TimeoutError) as error:
                pause = min(interval, AWAY_DELAY)
                log.warning("no_sign_of_life", error=str(error).split("\n", 1)[0])
                continue
            if not known:
                raise Forgotten
            pause = interval

    async def drain(self) -> None:
        """Say that this worker was told to stop, if the database can be told now."""
        with suppress(*DatabaseAway, TimeoutError):
            async with asyncio.timeout(LEAVING), self.database.transaction() as session:
                await workers.drain(session, self.id)


@asynccontextmanager
async def registered(
    database: Database, *, name: str, room: str, supervisor: str | None, lost_after: float, mistaken: int | None
) -> AsyncIterator[Registration]:
    """Be entered for the block, as soon as the database can be reached.

    ``mistaken``: the id under which this worker was taken for dead, whose death is taken back.
    """

    async def register() -> int:
        async with database.transaction() as session:
            if mistaken is not None:
                acquitted = await deaths.retract(session, mistaken)
                await conversions.acquit(session, acquitted)
                await checkpoints.acquit(session, acquitted)
            return await workers.register(session, name=name, room=room, supervisor=supervisor)

    id = await patiently(register)
    yield Registration(database, id, lost_after)
    with suppress(*DatabaseAway, TimeoutError):
        async with asyncio.timeout(LEAVING), database.transaction() as session:
            await workers.forget(session, id)
