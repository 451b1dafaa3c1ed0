"""Reading and writing checkpoints."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, delete, exists, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import events, limits
from app.database.conversions import SHOWN_ID, UNFINISHED
from app.database.projects import owner_of_new, project_of
from app.database.tables import Checkpoint, CheckpointOwner, Conversion
from app.domain.checkpoint import CheckpointInspection, ParameterReport
from app.domain.errors import InUse, Problem, UnknownCheckpoint


@dataclass(frozen=True)
class CheckpointFilter:
    """Which files to list; None: any. ``before``: only those that come after it in the list (the cursor)."""

    labels: dict[str, str] = field(default_factory=dict)
    created_after: datetime | None = None
    created_before: datetime | None = None
    before: tuple[datetime, str] | None = None


_DROP_UNOWNED = text("""
    delete from checkpoints where sha256 = :sha256
    and not exists (select from checkpoint_owners where checkpoint_owners.sha256 = checkpoints.sha256)
""")
"""As a text, which is not narrowed to what the session's project sees."""

SHA256 = re.compile(r"[0-9a-f]{64}")


async def find(session: AsyncSession, sha256: str) -> Checkpoint:
    """The checkpoint of that sha256; UnknownCheckpoint."""
    return await _get(session, sha256)


async def find_locked(session: AsyncSession, sha256: str) -> Checkpoint:
    """As ``find``, with the row locked until the transaction ends."""
    return await _get(session, sha256, lock=True)


async def being_read_in(session: AsyncSession, worker_id: int) -> Sequence[Checkpoint]:
    """What a worker reads, locked until the transaction ends."""
    query = select(Checkpoint).where(Checkpoint.worker_id == worker_id)
    return (await session.scalars(query.order_by(Checkpoint.sha256).with_for_update())).all()


async def hold(session: AsyncSession, sha256: str) -> None:
    """Keep the checkpoint from being deleted until the transaction ends; UnknownCheckpoint."""
    query = select(Checkpoint.sha256).where(Checkpoint.sha256 == sha256).with_for_update(key_share=True, read=True)
    if await session.scalar(query) is None:
        raise UnknownCheckpoint(f"There is no checkpoint {sha256!r}.")


async def add(
    session: AsyncSession,
    sha256: str,
    bytes: int,
    filename: str | None,
    *,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    project: str | None = None,
) -> bool:
    """Add a checkpoint whose bytes are stored, for a project, by default the session's; False when that knows it.

    Its first file name is then kept, and it is kept from now on as long as a new one. A name or labels replace earlier
    ones.
    """
    project = project or owner_of_new(session)
    await limits.refuse_more_bytes(session, project, bytes, sha256)
    statement = insert(Checkpoint).values(sha256=sha256, bytes=bytes, filename=filename)
    renewed = statement.on_conflict_do_update(index_elements=[Checkpoint.sha256], set_={"uploaded_at": func.now()})
    await session.execute(renewed)
    told = {k: v for k, v in (("name", name), ("labels", labels)) if v is not None}
    owner = insert(CheckpointOwner).values(sha256=sha256, project_id=project, filename=filename, **told)
    taken = owner.on_conflict_do_update(
        index_elements=[CheckpointOwner.sha256, CheckpointOwner.project_id], set_={"uploaded_at": func.now(), **told}
    )
    is_new = CheckpointOwner.uploaded_at == CheckpointOwner.created_at
    return bool(await session.scalar(taken.returning(is_new)))


async def owner(session: AsyncSession, sha256: str, project: str | None = None) -> CheckpointOwner:
    """What a project, or the session's own, has of the file; UnknownCheckpoint."""
    # Clients may send anything, also what PostgreSQL cannot hold in a text, such as NUL.
    whose = project or owner_of_new(session)
    found = await session.get(CheckpointOwner, (sha256, whose)) if SHA256.fullmatch(sha256) else None
    if found is None:
        raise UnknownCheckpoint(f"There is no checkpoint {sha256[:SHOWN_ID]!r}.")
    return found


async def newest(
    session: AsyncSession, wanted: CheckpointFilter, limit: int
) -> Sequence[tuple[CheckpointOwner, int, bool]]:
    """Up to ``limit`` of the project's files, newest first, each with its bytes and whether it is a checkpoint."""
    query = select(CheckpointOwner, Checkpoint.bytes, CheckpointOwner.problem.is_(None))
    rows = await session.execute(_page(query, session, wanted, limit))
    return [(found, size, good) for found, size, good in rows]


@dataclass(frozen=True)
class Described:
    """A file as a list tells of it; ``format`` and ``parameters`` are None until it was read."""

    sha256: str
    called: str | None
    created_at: datetime
    bytes: int
    usable: bool
    format: str | None
    parameters: int | None


async def newest_described(session: AsyncSession, wanted: CheckpointFilter, limit: int) -> Sequence[Described]:
    """As ``newest``, with what reading each file told, and without what takes long to send."""
    owner, told = CheckpointOwner, CheckpointOwner.inspection
    query = select(
        owner.sha256,
        func.coalesce(owner.name, owner.filename),
        owner.created_at,
        Checkpoint.bytes,
        owner.problem.is_(None),
        told["format"].astext,
        told["parameter_count"].astext.cast(BigInteger),
    )
    return [Described(*row) for row in await session.execute(_page(query, session, wanted, limit))]


def _page(query: Any, session: AsyncSession, wanted: CheckpointFilter, limit: int) -> Any:
    query = _matching(query, session, wanted)
    if wanted.before is not None:
        query = query.where(tuple_(CheckpointOwner.created_at, CheckpointOwner.sha256) < wanted.before)
    return query.order_by(CheckpointOwner.created_at.desc(), CheckpointOwner.sha256.desc()).limit(limit)


async def count(session: AsyncSession, wanted: CheckpointFilter) -> int:
    """How many of the project's files match on all pages."""
    return await session.scalar(_matching(select(func.count(CheckpointOwner.sha256)), session, wanted)) or 0


def _matching(query: Any, session: AsyncSession, wanted: CheckpointFilter) -> Any:
    query = query.join(Checkpoint, Checkpoint.sha256 == CheckpointOwner.sha256)
    query = query.where(CheckpointOwner.project_id == owner_of_new(session))
    if wanted.labels:
        query = query.where(CheckpointOwner.labels.contains(wanted.labels))
    if wanted.created_after is not None:
        query = query.where(CheckpointOwner.created_at > wanted.created_after)
    if wanted.created_before is not None:
        query = query.where(CheckpointOwner.created_at < wanted.created_before)
    return query


async def record_inspection(
    session: AsyncSession, sha256: str, found: CheckpointInspection | Problem, project: str | None = None
) -> None:
    """Store what reading the file told, or why it could not be read; announced under the sha256.

    For all projects that wait for it, or for ``project`` alone. An inspection that is there already stays.
    """
    is_problem = isinstance(found, Problem)
    data = found.model_dump(mode="json")
    waiting = (CheckpointOwner.sha256 == sha256) & CheckpointOwner.inspection.is_(None)
    if project is None:
        none_reads = update(Checkpoint).where(Checkpoint.sha256 == sha256)
        await session.execute(none_reads.values(queue_job_id=None, worker_id=None, waiting_for=None))
    else:
        waiting &= CheckpointOwner.project_id == project
    told = {"inspection": None if is_problem else data, "problem": data if is_problem else None}
    await session.execute(update(CheckpointOwner).where(waiting).values(**told, inspected_at=func.now()))
    await events.announce(session, sha256)


async def begin_reading(session: AsyncSession, sha256: str, queue_job_id: int, worker_id: int) -> Checkpoint | None:
    """Let a worker read the file on behalf of a queue entry; None when that is no longer the checkpoint's own."""
    checkpoint = await session.get(Checkpoint, sha256, with_for_update=True, populate_existing=True)
    if checkpoint is None or checkpoint.queue_job_id != queue_job_id:
        return None
    waiting = select(CheckpointOwner.sha256).where(CheckpointOwner.sha256 == sha256, _unread())
    if await session.scalar(waiting.limit(1)) is None:
        return None
    checkpoint.worker_id = worker_id
    return checkpoint


async def end_reading(session: AsyncSession, sha256: str, worker_id: int) -> None:
    """Record that a worker does not read the file any more."""
    reading = (Checkpoint.sha256 == sha256) & (Checkpoint.worker_id == worker_id)
    await session.execute(update(Checkpoint).where(reading).values(worker_id=None, waiting_for=None))


async def wait_for(session: AsyncSession, sha256: str, part: str | None) -> None:
    """Record which part of the service the reading of the file waits for; None: for nothing any more."""
    await session.execute(update(Checkpoint).where(Checkpoint.sha256 == sha256).values(waiting_for=part))


async def acquit(session: AsyncSession, sha256s: Sequence[str]) -> None:
    """Take back one death from each of these that is still being read: who was thought dead lives."""
    unread = exists().where(CheckpointOwner.sha256 == Checkpoint.sha256, _unread())
    mistaken = Checkpoint.sha256.in_(sha256s) & (Checkpoint.inspection_attempts > 0) & unread
    attempts = Checkpoint.inspection_attempts - 1
    await session.execute(update(Checkpoint).where(mistaken).values(inspection_attempts=attempts))


async def record_parameters(session: AsyncSession, sha256: str, told: ParameterReport, project: str) -> None:
    """Store what a module of a project that took these weights told of them; it outlives the conversion."""
    owned = (CheckpointOwner.sha256 == sha256) & (CheckpointOwner.project_id == project)
    await session.execute(update(CheckpointOwner).where(owned).values(parameters=told.model_dump(mode="json")))


async def remove(session: AsyncSession, sha256: str) -> None:
    """Take a checkpoint from the session's project, and delete its row when no other has it; its bytes are collected
    later. UnknownCheckpoint, InUse.
    """
    checkpoint = await find_locked(session, sha256)
    project = project_of(session)
    needed = select(Conversion.id).where(Conversion.checkpoint_sha256 == sha256, Conversion.state.in_(UNFINISHED))
    if await session.scalar(needed.limit(1)) is not None:
        raise InUse("A conversion that has not finished needs this checkpoint.")
    if project is None:
        await session.delete(checkpoint)
        return
    await session.execute(delete(CheckpointOwner).where(CheckpointOwner.sha256 == sha256))
    await session.execute(_DROP_UNOWNED, {"sha256": sha256})


def _unread() -> ColumnElement[bool]:
    return CheckpointOwner.inspection.is_(None) & CheckpointOwner.problem.is_(None)


async def _get(session: AsyncSession, sha256: str, *, lock: bool = False) -> Checkpoint:
    # Clients may send anything, also what PostgreSQL cannot hold in a text, such as NUL.
    found = (
        await session.get(Checkpoint, sha256, with_for_update=lock, populate_existing=lock)
        if SHA256.fullmatch(sha256)
        else None
    )
    if found is None:
        raise UnknownCheckpoint(f"There is no checkpoint {sha256[:SHOWN_ID]!r}.")
    return found
