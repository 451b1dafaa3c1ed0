"""Letting go of what is no longer kept: files of old conversions, old checkpoints, objects that nothing refers to."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import uploads
from app.database.references import COLLECTING, REFERRED_TO
from app.database.session import Database
from app.domain.checkpoint import READING_CUT_SHORT
from app.jobs.queue import NO_LIVE_WORKER, REPEATABLE
from app.storage.objects import ObjectStore

log = structlog.get_logger(__name__)

LOCK = 0x5EC0A58
"""Key of the advisory lock under which one worker at a time cleans up."""
KEYS_KEPT = timedelta(days=7)
"""How long an Idempotency-Key is remembered."""
DELIVERIES_KEPT = timedelta(days=30)
"""How long is known what became of a webhook's message."""
BATCH = 1000

_EXPIRE_FILES = text("""
    with expired as (
        update conversions set expired_at = now() where finished_at < :before and expired_at is null returning id
    ), gone as (delete from events using expired where events.conversion_id = expired.id),
    unsaid as (delete from log_parts using expired where log_parts.conversion_id = expired.id)
    delete from conversion_files using expired where conversion_files.conversion_id = expired.id
""")
_OLD_CHECKPOINTS = text("""
    select sha256 from checkpoints c
    where c.uploaded_at < :before
       or (select bool_and(
             o.problem is not null and o.inspected_at < :bad_before and not o.problem ->> 'code' = any(:cut_short)
           ) from checkpoint_owners o where o.sha256 = c.sha256)
    for update skip locked
""")
_DROP_CHECKPOINTS = text("""
    delete from checkpoints c
    where c.sha256 = any(:old) and not exists (
        select from conversions v
        where v.checkpoint_sha256 = c.sha256 and (v.state in ('queued', 'running') or v.created_at >= :before)
    )
""")
_DROP_KEYS = text("delete from idempotency_keys where created_at < :before")
_DROP_TEMPLATES = text("delete from templates where used_at < :before and state <> 'building'")
_DROP_CATALOGS = text("delete from catalogs where seen_at < (select max(seen_at) from catalogs) - interval '7 days'")
_DROP_DELIVERIES = text("delete from deliveries where created_at < :before and state <> 'pending'")
_DROP_ENTRIES = text(f"""
    delete from procrastinate_jobs j
    where j.status = 'doing' and not j.queue_name = any(:repeatable) and {NO_LIVE_WORKER}
       or j.status not in ('todo', 'doing')
      and not exists (select from procrastinate_events e where e.job_id = j.id and e.at > now() - interval '1 day')
""")
_DROP_STALE = text("""
    delete from procrastinate_jobs j
    where j.status = 'todo' and j.queue_name = 'conversions' and not exists (
        select from conversions c where c.id = j.args ->> 'conversion_id' and c.queue_job_id = j.id
    )
""")
"""Entries that wait and are no longer their conversion's own: nobody takes them."""


async def clean_up(
    database: Database, store: ObjectStore, *, retention: timedelta | None, orphan_grace: timedelta
) -> None:
    """Do all of it, unless another worker is at it. ``retention`` None: conversions and checkpoints stay for ever."""
    async with database.transaction() as session:
        if not await session.scalar(text("select pg_try_advisory_xact_lock(:key)"), {"key": LOCK}):
            return
        await _drop_rows(session, retention, orphan_grace)
    await collect_orphans(database, store, orphan_grace)


async def collect_orphans(database: Database, store: ObjectStore, grace: timedelta) -> int:
    """Remove objects that no row refers to and that were written before the grace period began; gives how many.

    An upload is stored before its row exists; the grace period covers the time between. Nothing is removed while
    another process does so, or while somebody copies the store.
    """
    async with database.exclusively(COLLECTING) as ours:
        return await _collect(database, store, grace) if ours else 0


async def _collect(database: Database, store: ObjectStore, grace: timedelta) -> int:
    before = datetime.now(UTC) - grace
    found = [sha256 async for sha256 in store.older_than(before)]
    collected = 0
    candidates = iter(found)
    while batch := list(islice(candidates, BATCH)):
        async with database.transaction() as session:
            referred = set(await session.scalars(REFERRED_TO, {"candidates": batch}))
        for sha256 in set(batch) - referred:
            collected += await store.collect(sha256, before)
    if collected:
        log.info("orphans_collected", objects=collected)
    return collected


async def _drop_rows(session: AsyncSession, retention: timedelta | None, orphan_grace: timedelta) -> None:
    now = datetime.now(UTC)
    bad_before = now - orphan_grace
    before = now - retention if retention else datetime.min.replace(tzinfo=UTC)
    await session.execute(_EXPIRE_FILES, {"before": before})
    await _drop_checkpoints(session, before, bad_before)
    await session.execute(_DROP_TEMPLATES, {"before": before})
    await session.execute(_DROP_KEYS, {"before": now - KEYS_KEPT})
    await uploads.drop_expired(session)
    await session.execute(_DROP_CATALOGS)
    await session.execute(_DROP_DELIVERIES, {"before": now - DELIVERIES_KEPT})
    await session.execute(_DROP_ENTRIES, {"repeatable": list(REPEATABLE)})
    await session.execute(_DROP_STALE)


async def _drop_checkpoints(session: AsyncSession, before: datetime, bad_before: datetime) -> None:
    """Whoever queues a conversion locks its checkpoint. So it is looked for conversions by a statement of its own,
    which sees all that were queued before the lock was had; none can be queued after."""
    reading = {"before": before, "bad_before": bad_before, "cut_short": sorted(READING_CUT_SHORT)}
    old = (await session.scalars(_OLD_CHECKPOINTS, reading)).all()
    await session.execute(_DROP_CHECKPOINTS, {"old": old, "before": before})
