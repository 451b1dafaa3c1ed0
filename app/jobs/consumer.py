"""Taking a queue's entries and running what they stand for, a number of them at once.

The engine is Procrastinate's tables and functions. Its own worker ends with every absence of the database, and gives no
sign of life while it drains; so this loop takes its place.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from app.database.session import Database
from app.jobs import queue
from app.jobs.events import Changes
from app.jobs.patience import DatabaseAway, patiently
from app.jobs.registration import Forgotten
from app.tasks import first

log = structlog.get_logger(__name__)

POLL_INTERVAL = 5.0
"""Seconds after which the queue is looked at although nothing was announced."""
AWAY_DELAY = 1.0
"""Seconds between looks while the database is away."""
LOGGED = frozenset({"conversion_id", "delivery_id", "sha256"})
"""Arguments of an entry that every log line of its job repeats."""
HAND_BACK = 2.0
"""Seconds that handing a job back may take; one that could not be is rescued by others."""


class Postponed(Exception):
    """A job is to be taken again by whoever comes, after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(eq=False)
class Job:
    """A queue entry that this worker has taken."""

    queue: str
    entry: int
    """Id of the queue entry."""
    worker_id: int
    arguments: dict[str, Any]
    idle: bool = True
    """It waits, and loses nothing when it is handed back."""
    task: asyncio.Task[None] = field(init=False)


class Consumer:
    """Runs the jobs of one queue.

    ``run`` does a job, which then leaves the queue, unless that raises Postponed before it has begun; ``hand_back``
    undoes that one was begun and will not be finished; ``stumble`` does what is to be done after an error that was not
    foreseen. ``lacking``: names of the architectures whose conversions are left to others.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        name: str,
        *,
        worker_id: int,
        concurrency: int,
        lacking: Callable[[], Collection[str]] = tuple,
        run: Callable[[Job], Awaitable[None]],
        hand_back: Callable[[Job], Awaitable[None]],
        stumble: Callable[[Job], Awaitable[None]],
    ) -> None:
        self._database = database
        self._changes = changes
        self._name = name
        self._worker_id = worker_id
        self._concurrency = concurrency
        self._lacking = lacking
        self._do = run
        self._hand_back = hand_back
        self._stumble = stumble
        self._jobs: set[Job] = set()
        self._freed = asyncio.Event()
        self._unsure = False
        """An entry may have been given to us in an answer that we never got."""

    async def consume(self, stop: asyncio.Event) -> None:
        """Take entries and run them until ``stop``; those that run then go on. Raises Forgotten."""
        with self._changes.watch(queue.channel(self._name)) as announced:
            while not stop.is_set():
                self._freed.clear()
                if len(self._jobs) >= self._concurrency:
                    await first(stop.wait(), self._freed.wait())
                    continue
                announced.clear()
                try:
                    taken = await self._take()
                except DatabaseAway as error:
                    log.warning("queue_away", queue=self._name, error=str(error).split("\n", 1)[0])
                    self._unsure = True
                    await first(stop.wait(), asyncio.sleep(AWAY_DELAY))
                    continue
                if taken is None:
                    await first(stop.wait(), announced.wait(), asyncio.sleep(POLL_INTERVAL))
                    continue
                self._start(taken)

    async def drain(self, seconds: float) -> None:
        """Let what runs come to its end for so long; hand back the rest, and at once what only waits."""
        self._cancel(lambda job: job.idle)
        await self._ended(seconds)
        await self.abandon()

    async def abandon(self) -> None:
        """Stop and hand back whatever runs."""
        self._cancel(lambda _: True)
        await self._ended(None)

    def _cancel(self, which: Callable[[Job], bool]) -> None:
        for job in filter(which, self._jobs):
            job.task.cancel()

    async def _ended(self, seconds: float | None) -> None:
        if self._jobs:
            await asyncio.wait([job.task for job in self._jobs], timeout=seconds)

    async def _take(self) -> Job | None:
        try:
            async with self._database.transaction() as session:
                if self._unsure:
                    await queue.put_back_unknown(
                        session, self._name, self._worker_id, [job.entry for job in self._jobs]
                    )
                taken = await queue.take(session, self._name, self._worker_id, self._lacking())
        except queue.NotRegistered:
            raise Forgotten from None
        self._unsure = False
        return None if taken is None else Job(self._name, taken.id, self._worker_id, taken.arguments)

    def _start(self, job: Job) -> None:
        self._jobs.add(job)
        job.task = asyncio.create_task(self._run(job), name=f"{self._name} {job.entry}")
        job.task.add_done_callback(lambda _: self._end(job))

    def _end(self, job: Job) -> None:
        self._jobs.discard(job)
        self._freed.set()

    async def _run(self, job: Job) -> None:
        about = {name.removesuffix("_id"): told for name, told in job.arguments.items() if name in LOGGED}
        structlog.contextvars.bind_contextvars(**about)
        try:
            try:
                await self._do(job)
            except Postponed as postponed:
                log.info("job_postponed", queue=self._name, seconds=round(postponed.seconds, 1), **job.arguments)
                await patiently(partial(self._postpone, job, postponed.seconds))
                return
            except Exception:
                log.exception("job_stumbled", queue=self._name, **job.arguments)
                await patiently(partial(self._stumble, job))
            await patiently(partial(self._finish, job))
        except asyncio.CancelledError:
            with suppress(*DatabaseAway, TimeoutError):
                async with asyncio.timeout(HAND_BACK):
                    await self._hand_back(job)
            raise

    async def _postpone(self, job: Job, seconds: float) -> None:
        async with self._database.transaction() as session:
            await queue.postpone(session, job.entry, seconds)

    async def _finish(self, job: Job) -> None:
        async with self._database.transaction() as session:
            await queue.remove_entry(session, job.entry)
