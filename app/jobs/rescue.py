"""Rescuing work whose worker died. One rule: what is not finished must have a live entry in the queue.

A live entry waits (todo), or is being worked on (doing) by a worker that gives signs of life. Any worker may rescue at
any time: rows are locked, and a rescued conversion gets a new entry, so that the old one means nothing even if its
worker wakes up again.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import checkpoints, conversions, deaths, workers
from app.database.session import Database
from app.database.tables import Checkpoint, Conversion, Worker
from app.domain.conversion import State
from app.domain.errors import WorkerLost
from app.jobs import metrics, queue
from app.jobs.patience import DatabaseAway
from app.jobs.suspicion import Suspicion, suspect

log = structlog.get_logger(__name__)

_ENTRY = "left join procrastinate_jobs j on j.id = owner.queue_job_id"
_NO_LIVE_ENTRY = f"""(
    j.id is null
    or j.status not in ('todo', 'doing')
    or j.status = 'doing' and {queue.NO_LIVE_WORKER}
)"""
_ABANDONED = (
    f"select owner.id from conversions owner {_ENTRY}"
    " where owner.state in ('queued', 'running')"
    f" and ({_NO_LIVE_ENTRY} or owner.state = 'running' and j.status = 'todo')"
    " {among} order by owner.id for update of owner skip locked limit 100"
)
_UNDER_WAY = """
    and owner.id in (
        select id from conversions where state = 'running'
        union all
        select args ->> 'conversion_id' from procrastinate_jobs where status = 'doing' and worker_id is not null
        union all
        select unnest(cast(:freed as text[]))
    )
"""
_ABANDONED_UNDER_WAY = text(_ABANDONED.format(among=_UNDER_WAY))
"""Those that somebody has begun: they are few, however many wait."""
_ABANDONED_CONVERSIONS = text(_ABANDONED.format(among=""))
_ABANDONED_INSPECTIONS = text(
    f"select owner.sha256 from checkpoints owner {_ENTRY}"
    " where owner.queue_job_id is not null and exists ("
    "   select from checkpoint_owners o"
    "   where o.sha256 = owner.sha256 and o.inspection is null and o.problem is null)"
    f" and {_NO_LIVE_ENTRY} for update of owner skip locked limit 100"
)
_DROP_ENTRIES = text("""
    delete from procrastinate_jobs
    where worker_id = :worker_id and status = 'doing' and not queue_name = any(:repeatable)
    returning args ->> 'conversion_id'
""")
_DROP_ENTRY = text("delete from procrastinate_jobs where id = :id and status = 'doing'")

Blame = Callable[[str, int], Awaitable[Suspicion]]
"""Counts a death against what ran then, at which so many pointed before."""


class Silence:
    """Which workers have been silent for so long, as one saw who looked again and again, by a clock of its own.

    Times of the database's clock are only compared with each other: it may be set, and goes on where all machines that
    it looks after stood still.
    """

    def __init__(self, lost_after: float) -> None:
        self._lost_after = lost_after
        self._newest: Mapping[int, datetime] = {}
        self._seconds: dict[int, float] = {}
        self._looked_at = 0.0

    def heard(self, newest: Mapping[int, datetime], now: float) -> dict[int, datetime]:
        """Take note of every worker's newest sign of life; gives those that had none for long.

        ``now``: seconds of the monotonic clock. One long pause of who looks does not count as long: others may have
        paused with it, and are about to go on.
        """
        passed = min(now - self._looked_at, self._lost_after / 2)
        self._seconds = {
            id: self._seconds.get(id, 0.0) + passed if self._newest.get(id) == sign else 0.0
            for id, sign in newest.items()
        }
        self._newest, self._looked_at = newest, now
        return {id: sign for id, sign in newest.items() if self._seconds[id] >= self._lost_after}

    def not_heard(self) -> None:
        """Begin anew: signs could not be seen, and perhaps not be given."""
        self._newest, self._seconds = {}, {}


@dataclass
class Rescuer:
    """Who rescues, and by which rules."""

    database: Database
    lost_after: float
    """Seconds without a sign of life after which a worker counts as dead."""
    max_attempts: int
    """Deaths that point at a job after which it is not tried again."""

    def __post_init__(self) -> None:
        self._silence = Silence(self.lost_after)

    async def rescue(self) -> int:
        """Queue again what lost its worker, end what its deaths point at; gives how many were rescued."""
        try:
            async with self.database.transaction() as session:
                silent = self._silence.heard(await workers.signs(session), time.monotonic())
                freed: list[str] = []
                for worker in await workers.dead(session, silent):
                    freed += await self._bury(session, worker)
                rescued = await _requeue_abandoned(session, _ABANDONED_UNDER_WAY.bindparams(freed=freed))
                await queue.put_back_abandoned(session)
        except DatabaseAway:
            self._silence.not_heard()
            raise
        metrics.jobs_rescued.inc(rescued)
        return rescued

    async def requeue_forgotten(self) -> None:
        """Queue again what waits without an entry, which no death leaves behind: a look at all that waits."""
        async with self.database.transaction() as session:
            metrics.jobs_rescued.inc(await _requeue_abandoned(session, _ABANDONED_CONVERSIONS))

    async def _bury(self, session: AsyncSession, worker: Worker) -> list[str]:
        """Note the death of a worker against what ran in it, and free all of that; gives the conversions."""
        ran = await conversions.running_in(session, worker.id)
        read = await checkpoints.being_read_in(session, worker.id)
        together = {conversion.id for conversion in ran} | {checkpoint.sha256 for checkpoint in read}
        counts = not worker.draining
        blame = partial(
            suspect,
            session,
            together=together,
            max_attempts=self.max_attempts,
            with_supervisor=await workers.died_with_supervisor(session, worker),
        )
        metrics.deaths.labels("worker").inc()
        log.warning("worker_died", worker=worker.name, running=sorted(together), counts=counts)
        if counts:
            await deaths.record(session, together, worker.id)
        for conversion in ran:
            if counts:
                await _blame_conversion(session, conversion, blame)
            if not conversion.state.final:
                await conversions.requeue(session, conversion)
        for checkpoint in read:
            checkpoint.worker_id = None
            if counts:
                await _blame_reading(session, checkpoint, blame)
        await session.flush()
        dropped = {"worker_id": worker.id, "repeatable": list(queue.REPEATABLE)}
        taken = (await session.scalars(_DROP_ENTRIES, dropped)).all()
        await workers.forget(session, worker.id)
        return [conversion.id for conversion in ran] + [id for id in taken if id is not None]


async def _blame_conversion(session: AsyncSession, conversion: Conversion, blame: Blame) -> None:
    found = await blame(conversion.id, conversion.workers_lost)
    conversion.workers_lost = found.losses
    if found.condemned:
        error = WorkerLost(f"{found.losses} workers died while they ran this conversion.")
        await conversions.end(session, conversion, State.failed, error.problem())


async def _blame_reading(session: AsyncSession, checkpoint: Checkpoint, blame: Blame) -> None:
    found = await blame(checkpoint.sha256, checkpoint.inspection_attempts)
    checkpoint.inspection_attempts = found.losses
    await session.flush()
    if found.condemned:
        error = WorkerLost(f"{found.losses} workers died while they read this file.")
        await checkpoints.record_inspection(session, checkpoint.sha256, error.problem())


async def _requeue_abandoned(session: AsyncSession, abandoned: TextClause) -> int:
    rescued = 0
    while ids := (await session.scalars(abandoned)).all():
        rescued += len(ids)
        for id in ids:
            conversion = await conversions.find_locked(session, id)
            await session.execute(_DROP_ENTRY, {"id": conversion.queue_job_id})
            if conversion.state is State.running:
                await conversions.requeue(session, conversion)
            await queue.enqueue_conversion(session, conversion)
            losses = conversion.workers_lost
            log.warning("conversion_rescued", conversion=id, attempt=conversion.attempt, losses=losses)
    sha256s = (await session.scalars(_ABANDONED_INSPECTIONS)).all()
    for sha256 in sha256s:
        checkpoint = await checkpoints.find_locked(session, sha256)
        await session.execute(_DROP_ENTRY, {"id": checkpoint.queue_job_id})
        await queue.enqueue_inspection(session, checkpoint)
    return rescued + len(sha256s)
