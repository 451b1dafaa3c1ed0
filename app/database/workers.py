"""The workers that run, by their signs of life. One without any for a while has died, whatever became of it.

A worker's id is its registration with the queue, so that the entries that it works on name it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import Worker

_REGISTER = text("select worker_id from procrastinate_register_worker_v1()")
_UNREGISTER = text("select procrastinate_unregister_worker_v1(:id)")
_BEAT = text("select procrastinate_update_heartbeat_v1(:id)")


async def register(session: AsyncSession, *, name: str, room: str, supervisor: str | None) -> int:
    """Add a worker that begins to run; gives its id."""
    id: int = (await session.execute(_REGISTER)).scalar_one()
    session.add(Worker(id=id, name=name, room=room, supervisor=supervisor))
    await session.flush()
    return id


async def beat(session: AsyncSession, id: int) -> bool:
    """Record a sign of life; False when the worker was taken for dead meanwhile and its work given to others."""
    found = await session.scalar(update(Worker).where(Worker.id == id).values(seen_at=func.now()).returning(Worker.id))
    await session.execute(_BEAT, {"id": id})
    return found is not None


async def drain(session: AsyncSession, id: int) -> None:
    """Record that the worker was told to stop."""
    await session.execute(update(Worker).where(Worker.id == id).values(draining=True))


async def forget(session: AsyncSession, id: int) -> None:
    """Remove a worker that has ended and left nothing behind."""
    await session.execute(delete(Worker).where(Worker.id == id))
    await session.execute(_UNREGISTER, {"id": id})


async def mark_gone(session: AsyncSession, rooms: Sequence[str]) -> None:
    """Record that the workers of these work directories have ended."""
    await session.execute(update(Worker).where(Worker.room.in_(rooms)).values(gone=True))


async def signs(session: AsyncSession) -> dict[int, datetime]:
    """The newest sign of life of every worker that is entered, by id: a time of the database's clock."""
    return {id: seen_at for id, seen_at in await session.execute(select(Worker.id, Worker.seen_at))}


async def dead(session: AsyncSession, silent: Mapping[int, datetime]) -> Sequence[Worker]:
    """Workers that were seen to have ended, and those of the ``silent`` whose newest sign of life is still that one,
    locked; those that others hold are left to them."""
    found = Worker.gone | tuple_(Worker.id, Worker.seen_at).in_(silent.items())
    query = select(Worker).where(found).order_by(Worker.id).with_for_update(skip_locked=True)
    return (await session.scalars(query)).all()


async def died_with_supervisor(session: AsyncSession, dead: Worker) -> bool:
    """Whether the run of `recast serve` that would have started a dead worker again has ended too.

    Who sees on its machine that it has ended is another worker, either of the same run or of a later one.
    """
    if not dead.gone or dead.supervisor is None:
        return False
    others = select(Worker.id).where(Worker.supervisor == dead.supervisor, Worker.id != dead.id, ~Worker.gone)
    return await session.scalar(others.limit(1)) is None


async def record_confinement(session: AsyncSession, id: int, confinement: dict[str, dict[str, str]]) -> None:
    """Record which layers around the worker's conversion processes are in force, and which the platform refused."""
    await session.execute(update(Worker).where(Worker.id == id).values(confinement=confinement))


async def confinements(session: AsyncSession, lost_after: float) -> Sequence[dict[str, dict[str, str]]]:
    """The same of every worker that gave a sign of life in the last ``lost_after`` seconds and has told of it."""
    query = select(Worker.confinement).where(lives(lost_after), Worker.confinement.is_not(None))
    return [found for found in await session.scalars(query) if found]


async def count_alive(session: AsyncSession, lost_after: float) -> int:
    """How many workers gave a sign of life in the last ``lost_after`` seconds."""
    return await session.scalar(select(func.count(Worker.id)).where(lives(lost_after))) or 0


async def alive(session: AsyncSession, lost_after: float) -> Sequence[Worker]:
    """The workers that gave a sign of life in the last ``lost_after`` seconds, the oldest first."""
    return (await session.scalars(select(Worker).where(lives(lost_after)).order_by(Worker.started_at))).all()


def lives(lost_after: float) -> ColumnElement[bool]:
    """Of a Worker: it gave a sign of life in the last ``lost_after`` seconds, and was not seen to have ended."""
    return (Worker.seen_at >= func.now() - timedelta(seconds=lost_after)) & ~Worker.gone
