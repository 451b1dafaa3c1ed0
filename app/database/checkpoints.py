"""Reading and writing checkpoints."""

import re
from collections.abc import Sequence

from sqlalchemy import exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import events
from app.database.conversions import SHOWN_ID, UNFINISHED
from app.database.tables import Checkpoint, Conversion
from app.domain.checkpoint import CheckpointInspection, ParameterReport
from app.domain.errors import InUse, Problem, UnknownCheckpoint

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


async def add(session: AsyncSession, sha256: str, bytes: int, filename: str | None) -> bool:
    """Add a checkpoint whose bytes are stored; False when it is known already.

    Its first name is then kept, and it is kept from now on as long as a new one.
    """
    statement = insert(Checkpoint).values(sha256=sha256, bytes=bytes, filename=filename)
    renewed = statement.on_conflict_do_update(index_elements=[Checkpoint.sha256], set_={"uploaded_at": func.now()})
    is_new = Checkpoint.uploaded_at == Checkpoint.created_at
    return bool(await session.scalar(renewed.returning(is_new)))


async def record_inspection(session: AsyncSession, sha256: str, found: CheckpointInspection | Problem) -> None:
    """Store what reading the file told, or why it could not be read; announced under the sha256.

    An inspection that is there already stays.
    """
    is_problem = isinstance(found, Problem)
    data = found.model_dump(mode="json")
    await session.execute(
        update(Checkpoint)
        .where(Checkpoint.sha256 == sha256, Checkpoint.inspection.is_(None))
        .values(
            inspection=None if is_problem else data,
            problem=data if is_problem else None,
            inspected_at=func.now(),
            worker_id=None,
            waiting_for=None,
        )
    )
    await events.announce(session, sha256)


async def begin_reading(session: AsyncSession, sha256: str, queue_job_id: int, worker_id: int) -> Checkpoint | None:
    """Let a worker read the file on behalf of a queue entry; None when that is no longer the checkpoint's own."""
    checkpoint = await session.get(Checkpoint, sha256, with_for_update=True, populate_existing=True)
    if checkpoint is None or checkpoint.inspection is not None or checkpoint.queue_job_id != queue_job_id:
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
    mistaken = Checkpoint.sha256.in_(sha256s) & (Checkpoint.inspection_attempts > 0) & Checkpoint.problem.is_(None)
    attempts = Checkpoint.inspection_attempts - 1
    await session.execute(update(Checkpoint).where(mistaken).values(inspection_attempts=attempts))


async def record_parameters(session: AsyncSession, sha256: str, told: ParameterReport) -> None:
    """Store what a module that took these weights told of them; it outlives the conversion and its report."""
    await session.execute(
        update(Checkpoint).where(Checkpoint.sha256 == sha256).values(parameters=told.model_dump(mode="json"))
    )


async def remove(session: AsyncSession, sha256: str) -> None:
    """Delete a checkpoint's row; its bytes are collected later. UnknownCheckpoint, InUse."""
    checkpoint = await find_locked(session, sha256)
    needed = exists().where(Conversion.checkpoint_sha256 == sha256, Conversion.state.in_(UNFINISHED))
    if await session.scalar(select(needed)):
        raise InUse("A conversion that has not finished needs this checkpoint.")
    await session.delete(checkpoint)


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
