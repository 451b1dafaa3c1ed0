"""The queue. A row and its queue entry commit in one transaction: no one exists without the other."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from psycopg.errors import ForeignKeyViolation
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import checkpoints, conversions, entries, groups, idempotency, publications, recipes, webhooks
from app.database.conversions import NewConversion
from app.database.entries import DELIVERIES, PUBLICATIONS, RECIPES, TRANSFERS, defer
from app.database.idempotency import Idempotency
from app.database.session import Database
from app.database.tables import Checkpoint, CheckpointOwner, Conversion, Group
from app.database.tables import Recipe as RecipeRow
from app.domain.conversion import State
from app.domain.errors import AlreadyFinished, Canceled, Expired, InUse, NotFound, NotReady
from app.domain.publication import Publication
from app.domain.recipe import Recipe
from app.jobs import fairness
from app.storage.objects import StoredObject
from app.telemetry import carried_on

CONVERSIONS = "conversions"
"""The queue of conversions; a worker runs as many at once as it has children."""
INSPECTIONS = "inspections"
"""The queue of short readings of checkpoints, which must not wait behind conversions."""
REPEATABLE = (DELIVERIES, TRANSFERS, PUBLICATIONS, RECIPES)
"""Queues of what may be done twice: an entry whose worker died waits again."""
CONVERT = "convert"
INSPECT = "inspect"

NO_LIVE_WORKER = """(
    not exists (select from workers w where w.id = j.worker_id)
    and not exists (
        select from procrastinate_workers w where w.id = j.worker_id and w.last_heartbeat > now() - interval '1 minute'
    )
)"""
"""Of an entry j that is being worked on: nobody does any more. The second half is for workers of earlier versions that
the queue alone knows."""
_TAKE = """
    update procrastinate_jobs set status = 'doing', worker_id = :worker_id
    where id = (
        select j.id from procrastinate_jobs j
        where j.status = 'todo' and j.queue_name = '{queue}' and (j.scheduled_at is null or j.scheduled_at <= now())
        order by j.priority desc, j.id limit 1 for update of j skip locked
    )
    returning id, args
"""
_TAKES = {queue: text(_TAKE.format(queue=queue)) for queue in (INSPECTIONS, *REPEATABLE)}
"""Each names its queue, so that an index is walked that holds no conversions, however many wait (migrations/queue.py).
Conversions are given out by projects (fairness.py)."""
_PUT_BACK = text("update procrastinate_jobs set status = 'todo', worker_id = null where id = :id and status = 'doing'")
_POSTPONE = text("""
    update procrastinate_jobs
    set status = 'todo', worker_id = null, scheduled_at = now() + make_interval(secs => :seconds)
    where id = :id and status = 'doing'
""")
_PUT_BACK_UNKNOWN = text("""
    update procrastinate_jobs set status = 'todo', worker_id = null
    where worker_id = :worker_id and queue_name = :queue and status = 'doing' and not id = any(:known)
""")
_PUT_BACK_ABANDONED = text(f"""
    with abandoned as (
        select id from procrastinate_jobs j
        where j.queue_name = any(:queues) and j.status = 'doing' and {NO_LIVE_WORKER} for update skip locked
    )
    update procrastinate_jobs set status = 'todo', worker_id = null
    from abandoned where procrastinate_jobs.id = abandoned.id
""")
_ANNOUNCE = text("select pg_notify(:channel, '{}')")
_REMOVE = text("delete from procrastinate_jobs where id = :id")


class NotRegistered(Exception):
    """No worker of this id is entered any more: it was taken for dead."""


@dataclass(frozen=True)
class Submitted:
    """A conversion, and whether this request made it (else: an earlier request, or a finished twin)."""

    conversion: Conversion
    created: bool


@dataclass(frozen=True)
class Uploaded:
    """A file that came with a request and is not known as a checkpoint yet."""

    stored: StoredObject
    filename: str | None


@dataclass(frozen=True)
class Registered:
    """A checkpoint, and whether it is new."""

    checkpoint: CheckpointOwner
    created: bool


async def submit(
    database: Database,
    new: NewConversion,
    *,
    file: Uploaded | None = None,
    key: Idempotency | None = None,
    reuse_finished: bool = True,
) -> Submitted:
    """Queue a conversion; or give the one that this request, sent before, led to; or one that has already succeeded
    with the same ``dedup_key``, unless ``reuse_finished`` is False. ``file`` is known as a checkpoint from then on.

    Raises UnknownCheckpoint, IdempotencyConflict, QueueFull, QuotaExceeded; ``file`` is not known then.
    """
    async with database.transaction() as session:
        await _know(session, file)
        if key and (earlier := await idempotency.earlier(session, key)):
            return Submitted(earlier, created=False)
        submitted = await _submit(session, new, reuse_finished)
        if key:
            idempotency.remember(session, key, submitted.conversion)
        return submitted


async def submit_group(
    database: Database,
    new: groups.NewGroup,
    *,
    file: Uploaded | None = None,
    key: Idempotency | None = None,
    reuse_finished: bool = True,
) -> Group:
    """Queue several conversions as one, all or none of them; ``file`` and errors as of ``submit``."""
    async with database.transaction() as session:
        await _know(session, file)
        if key and (earlier := await groups.earlier(session, key)):
            return earlier
        members = [await _submit(session, member, reuse_finished) for member in new.members]
        return await groups.insert(session, new, [member.conversion for member in members], key)


async def _know(session: AsyncSession, file: Uploaded | None) -> None:
    if file is not None:
        await checkpoints.add(session, file.stored.sha256, file.stored.bytes, file.filename)


async def _submit(session: AsyncSession, new: NewConversion, reuse_finished: bool) -> Submitted:
    if new.checkpoint_sha256:
        await checkpoints.hold(session, new.checkpoint_sha256)
    if new.recipe is not None:
        await recipes.hold(session, new.architecture, new.recipe)
    found = None
    if reuse_finished and new.dedup_key:
        found = await conversions.finished_twin(session, new.dedup_key, new.accept)
    conversion = found or await conversions.insert(session, new)
    if found is None:
        await enqueue_conversion(session, conversion)
    elif new.webhook is not None:
        told = await webhooks.create(session, new.webhook, found)
        await webhooks.tell(session, found, only=told.id)
    if found is not None and new.publish:
        await publications.add(session, await conversions.find_locked(session, found.id), new.publish)
    return Submitted(conversion, created=found is None)


async def cancel(database: Database, id: str) -> Conversion:
    """End a queued or running conversion as canceled, at once; the worker that runs it stops its child.

    Raises NotFound, AlreadyFinished.
    """
    async with database.transaction() as session:
        conversion = await conversions.find_locked(session, id)
        if conversion.state.final:
            raise AlreadyFinished(f"The conversion ended {conversion.state}.")
        await conversions.end(session, conversion, State.canceled, Canceled("Canceled by request.").problem())
        await _abort(session, conversion)
        return conversion


async def publish(database: Database, id: str, wanted: Sequence[Publication]) -> Conversion:
    """Publish a conversion to further places, once it has succeeded. Raises NotFound, NotReady for one that has not and
    will not, Expired."""
    async with database.transaction() as session:
        conversion = await conversions.find_locked(session, id)
        if conversion.state.final and conversion.state is not State.succeeded:
            raise NotReady(f"The conversion ended {conversion.state}.")
        if conversion.expired_at is not None:
            raise Expired("The files of this conversion are no longer kept.")
        await publications.add(session, conversion, wanted)
        return conversion


async def cancel_group(database: Database, id: str) -> None:
    """Cancel those of a group that have not finished. Raises NotFound."""
    async with database.transaction() as session:
        unfinished = [member.id for member in await groups.members(session, id) if not member.state.final]
    for conversion_id in unfinished:
        with suppress(AlreadyFinished, NotFound):
            await cancel(database, conversion_id)


async def retry(database: Database, id: str) -> Conversion:
    """Queue a conversion again that failed, timed out or was canceled. Raises NotFound, AlreadyFinished, InUse."""
    async with database.transaction() as session:
        conversion = await conversions.find_locked(session, id)
        if conversion.state is State.succeeded:
            raise AlreadyFinished("The conversion succeeded; there is nothing to retry.")
        if not conversion.state.final:
            raise InUse("The conversion has not finished.")
        if conversion.checkpoint_sha256:
            await checkpoints.hold(session, conversion.checkpoint_sha256)
        if conversion.recipe is not None:
            await recipes.hold(session, conversion.architecture, conversion.recipe)
        await conversions.reset(session, conversion)
        await enqueue_conversion(session, conversion)
        return conversion


async def register_checkpoint(
    database: Database,
    stored: StoredObject,
    filename: str | None,
    *,
    inspect: bool = True,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Registered:
    """Make a stored file known as a checkpoint; with ``inspect``, queue its reading unless it was read before."""
    async with database.transaction() as session:
        created = await checkpoints.add(session, stored.sha256, stored.bytes, filename, name=name, labels=labels)
        await checkpoints.find_locked(session, stored.sha256)
        owned = await checkpoints.owner(session, stored.sha256)
        if inspect and owned.inspection is None:
            await _inspect_again(session, owned)
        return Registered(owned, created)


async def request_inspection(database: Database, sha256: str) -> CheckpointOwner:
    """Queue the reading of a checkpoint that has neither been read nor is about to be. Raises UnknownCheckpoint."""
    async with database.transaction() as session:
        await checkpoints.find_locked(session, sha256)
        owned = await checkpoints.owner(session, sha256)
        if not owned.read and owned.file.queue_job_id is None:
            await _inspect_again(session, owned)
        return owned


async def register_recipe(database: Database, recipe: Recipe) -> tuple[RecipeRow, bool]:
    """Make a recipe's version the newest of its name, and queue its building unless it was built; whether it is new.

    Raises InvalidRecipe.
    """
    async with database.transaction() as session:
        row = await recipes.add(session, recipe)
        created = row.description is None
        if created and row.queue_job_id is None:
            row.problem = None
            told = {"project": row.project_id, "name": row.name, "digest": row.digest}
            row.queue_job_id = await defer(session, RECIPES, None, **told)
        return row, created


async def enqueue_conversion(session: AsyncSession, conversion: Conversion) -> None:
    """Give a locked conversion a new queue entry; entries it had before no longer count.

    One whose file is elsewhere waits for that to be fetched first, under one entry with others that wait for it.
    """
    if not conversion.checkpoint_sha256:
        await session.flush()
        entry = await conversions.fetching_entry(session, conversion)
        conversion.queue_job_id = entry or await defer(
            session, TRANSFERS, None, conversion_id=conversion.id, **carried_on()
        )
        await session.flush()
        return
    told = {"conversion_id": conversion.id, **carried_on()}
    conversion.queue_job_id = await defer(session, CONVERSIONS, None, task=CONVERT, **told)
    await session.flush()


async def enqueue_inspection(session: AsyncSession, checkpoint: Checkpoint) -> None:
    """Give a locked checkpoint a new queue entry for its inspection."""
    checkpoint.queue_job_id = await defer(session, INSPECTIONS, task=INSPECT, sha256=checkpoint.sha256)
    await session.flush()


@dataclass(frozen=True)
class Taken:
    """An entry that now belongs to a worker."""

    id: int
    arguments: dict[str, Any]


def channel(queue: str) -> str:
    """The NOTIFY channel on which new entries of a queue are announced (Procrastinate's schema)."""
    return f"procrastinate_queue_v1#{queue}"


async def take(session: AsyncSession, queue: str, worker_id: int, lacking: Collection[str] = ()) -> Taken | None:
    """Give the next waiting entry of a queue to a worker, but none of an architecture that it is ``lacking``; None when
    none waits.

    Raises NotRegistered.
    """
    try:
        if queue == CONVERSIONS:
            next_one = await fairness.take(session, queue, worker_id, lacking)
            return None if next_one is None else Taken(*next_one)
        row = (await session.execute(_TAKES[queue], {"worker_id": worker_id})).first()
        return None if row is None else Taken(row.id, row.args)
    except IntegrityError as error:
        if isinstance(error.orig, ForeignKeyViolation):
            raise NotRegistered(worker_id) from None
        raise


async def put_back(session: AsyncSession, queue: str, id: int) -> None:
    """Let an entry wait again, in its old place."""
    await session.execute(_PUT_BACK, {"id": id})
    await session.execute(_ANNOUNCE, {"channel": channel(queue)})


async def postpone(session: AsyncSession, id: int, seconds: float) -> None:
    """Let an entry wait again, and nobody take it for so long."""
    await session.execute(_POSTPONE, {"id": id, "seconds": seconds})


async def put_back_unknown(session: AsyncSession, queue: str, worker_id: int, known: Collection[int]) -> None:
    """Let all entries wait again that a worker was given and does not know of."""
    await session.execute(_PUT_BACK_UNKNOWN, {"queue": queue, "worker_id": worker_id, "known": list(known)})


async def put_back_abandoned(session: AsyncSession) -> None:
    """Let entries of REPEATABLE queues wait again whose worker lives no more."""
    await session.execute(_PUT_BACK_ABANDONED, {"queues": list(REPEATABLE)})


async def remove_entry(session: AsyncSession, id: int) -> None:
    """Take an entry out that was worked off."""
    await session.execute(_REMOVE, {"id": id})


async def _inspect_again(session: AsyncSession, owned: CheckpointOwner) -> None:
    owned.problem = None
    owned.inspected_at = None
    owned.file.inspection_attempts = 0
    await enqueue_inspection(session, owned.file)


async def _abort(session: AsyncSession, conversion: Conversion) -> None:
    """Take a conversion's entry from the queue. One that fetches a file stays: others may wait for the same one, and
    who works on it finds out when nobody does any more."""
    if conversion.queue_job_id is not None and conversion.checkpoint_sha256:
        await entries.cancel(session, conversion.queue_job_id)
