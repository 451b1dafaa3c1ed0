"""Waiting for changes. One connection per process listens, and wakes whoever waits; nobody polls.

A notice only says that something changed; what it is now is read from the rows. So a notice may come twice or for
nothing, and after a lost connection everybody is woken once to look.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

import psycopg
import structlog
from psycopg import sql

from app.database import checkpoints, conversions, events
from app.database.session import TCP, Database
from app.database.tables import CheckpointOwner, Conversion, Event

log = structlog.get_logger(__name__)

RECONNECT_AFTER = 1.0
"""Seconds between tries to reach a database that is away."""


class Changes:
    """The process's ear: ``async with Changes(database) as changes``."""

    def __init__(self, database: Database, channels: tuple[str, ...] = ()) -> None:
        """``channels``: further NOTIFY channels to listen to; each is a topic of its own."""
        self._database = database
        self._channels = channels
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Changes":
        """Listen as soon as the database can be reached; everybody is woken then, so that nothing is missed."""
        self._listener = asyncio.create_task(self._listen(), name="listen for changes")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener

    @contextlib.contextmanager
    def watch(self, topic: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever ``topic`` may have changed; clear it before looking."""
        woken = asyncio.Event()
        self._waiting[topic].add(woken)
        try:
            yield woken
        finally:
            self._waiting[topic].discard(woken)
            if not self._waiting[topic]:
                del self._waiting[topic]

    async def wait_for_change(self, topic: str, timeout: float) -> None:
        """Wait until ``topic`` may have changed, or ``timeout`` seconds."""
        with self.watch(topic) as changed:
            await _woken(changed, asyncio.get_running_loop().time() + timeout)

    async def wait_for(self, conversion_id: str, timeout: float) -> Conversion:
        """The conversion once it has finished, or as it is after ``timeout`` seconds. Raises NotFound."""
        with self.watch(conversion_id) as changed:
            deadline = asyncio.get_running_loop().time() + timeout
            while True:
                changed.clear()
                async with self._database.transaction() as session:
                    conversion = await conversions.find(session, conversion_id)
                if conversion.state.final or not await _woken(changed, deadline):
                    return conversion

    async def wait_for_inspection(self, sha256: str, timeout: float, project: str | None = None) -> CheckpointOwner:
        """What a project has of the file once that was read, or as it is after ``timeout`` seconds.

        Raises UnknownCheckpoint.
        """
        with self.watch(sha256) as changed:
            deadline = asyncio.get_running_loop().time() + timeout
            while True:
                changed.clear()
                async with self._database.transaction() as session:
                    owned = await checkpoints.owner(session, sha256, project)
                if owned.read or not await _woken(changed, deadline):
                    return owned

    async def follow(self, conversion_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Events with ids above ``after`` as they come; ends when the conversion has finished. Raises NotFound."""
        with self.watch(conversion_id) as changed:
            while True:
                changed.clear()
                async with self._database.transaction() as session:
                    conversion = await conversions.find(session, conversion_id)
                    news = await events.after(session, conversion_id, after)
                for event in news:
                    after = event.id
                    yield event
                if not news and conversion.state.final:
                    return
                if not news:
                    await changed.wait()

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except psycopg.Error as error:
                log.warning("listening_interrupted", error=str(error).strip())
                await asyncio.sleep(RECONNECT_AFTER)

    async def _listen_once(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._database.url, **TCP, autocommit=True, connect_timeout=5, application_name="recast changes"
        )
        async with connection:
            for name in (events.CHANNEL, *self._channels):
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(name)))
            self._wake_all()
            async for notice in connection.notifies():
                topic = notice.payload if notice.channel == events.CHANNEL else notice.channel
                for woken in self._waiting.get(topic, ()):
                    woken.set()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for woken in waiting:
                woken.set()


async def _woken(changed: asyncio.Event, deadline: float) -> bool:
    """Wait until ``deadline`` (of the loop's clock); False when nothing changed before it."""
    try:
        async with asyncio.timeout_at(deadline):
            await changed.wait()
    except TimeoutError:
        return False
    return True
