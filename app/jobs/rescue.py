"""Rescuing work whose worker died. One rule: what is not finished must have a live entry in the queue.

A live entry waits (todo), or is being worked on (doing) by a worker whose heart beats. Any worker may rescue at any
time: rows are locked, and a rescued conversion gets a new entry, so that the old one means nothing even if its worker
wakes up again.
"""

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import checkpoints, conversions
from app.database.session import Database
from app.domain.conversion import State
from app.domain.errors import WorkerLost
from app.jobs import metrics, queue

log = structlog.get_logger(__name__)

_ENTRY = """
    left join procrastinate_jobs j on j.id = owner.queue_job_id
    left join procrastinate_workers w on w.id = j.worker_id
"""
_NO_LIVE_ENTRY = """(
    j.id is null
    or j.status not in ('todo', 'doing')
    or j.status = 'doing' and (w.id is null or w.last_heartbeat < now() - make_interval(secs => :lost_after))
)"""
_ABANDONED_CONVERSIONS = text(
    f"select owner.id from conversions owner {_ENTRY}"
    f" where owner.state in ('queued', 'running') and {_NO_LIVE_ENTRY}"
    " order by owner.id for update of owner skip locked limit 100"
)
_ABANDONED_INSPECTIONS = text(
    f"select owner.sha256 from checkpoints owner {_ENTRY}"
    " where owner.inspection is null and owner.problem is null and owner.queue_job_id is not null"
    f" and {_NO_LIVE_ENTRY} for update of owner skip locked limit 100"
)
_DROP_ENTRY = text("delete from procrastinate_jobs where id = :id and status = 'doing'")


async def rescue(database: Database, *, lost_after: float, max_attempts: int) -> int:
    """Queue again what lost its worker; end what lost ``max_attempts`` of them. Gives how many were rescued.

    ``lost_after``: seconds without a heartbeat after which a worker counts as dead.
    """
    async with database.transaction() as session:
        ids = (await session.scalars(_ABANDONED_CONVERSIONS, {"lost_after": lost_after})).all()
        for id in ids:
            await _rescue_conversion(session, id, max_attempts)
        sha256s = (await session.scalars(_ABANDONED_INSPECTIONS, {"lost_after": lost_after})).all()
        for sha256 in sha256s:
            await _rescue_inspection(session, sha256, max_attempts)
    metrics.jobs_rescued.inc(len(ids) + len(sha256s))
    return len(ids) + len(sha256s)


async def _rescue_conversion(session: AsyncSession, id: str, max_attempts: int) -> None:
    conversion = await conversions.find_locked(session, id)
    await session.execute(_DROP_ENTRY, {"id": conversion.queue_job_id})
    if conversion.state is State.running:
        conversion.workers_lost += 1
    log.warning("conversion_rescued", conversion=id, attempt=conversion.attempt, workers_lost=conversion.workers_lost)
    if conversion.workers_lost >= max_attempts:
        error = WorkerLost(f"{conversion.workers_lost} workers died while they ran this conversion.")
        await conversions.end(session, conversion, State.failed, error.problem())
        return
    await conversions.requeue(session, conversion)
    await queue.enqueue_conversion(session, conversion)


async def _rescue_inspection(session: AsyncSession, sha256: str, max_attempts: int) -> None:
    checkpoint = await checkpoints.find_locked(session, sha256)
    await session.execute(_DROP_ENTRY, {"id": checkpoint.queue_job_id})
    checkpoint.inspection_attempts += 1
    if checkpoint.inspection_attempts >= max_attempts:
        error = WorkerLost(f"{checkpoint.inspection_attempts} workers died while they read this file.")
        await checkpoints.record_inspection(session, sha256, error.problem())
        return
    await queue.enqueue_inspection(session, checkpoint)
