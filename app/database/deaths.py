"""Deaths of workers and of their children: what ran then, and how many happened elsewhere."""

import math
from collections.abc import Collection

from sqlalchemy import delete, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import Death

_ELSEWHERE = text("""
    select count(distinct case when suspects = '[]' then to_jsonb(id) else suspects end) from deaths
    where at > now() - interval '1 hour' and not jsonb_exists(suspects, :suspect)
""")
_SINCE_LAST = text("""
    select min(abs(cast(extract(epoch from now() - at) as double precision))) from deaths
    where jsonb_exists(suspects, :suspect)
""")
"""A death that lies ahead was long ago: the clock was set back since."""
_OLD = text("delete from deaths where at < now() - interval '1 day'")


async def record(session: AsyncSession, suspects: Collection[str], worker_id: int | None = None) -> None:
    """Remember that a worker died while these ran in it; without ``worker_id``: that one of its processes did."""
    session.add(Death(worker_id=worker_id, suspects=sorted(suspects)))
    await session.flush()
    await session.execute(_OLD)


async def elsewhere(session: AsyncSession, suspect: str) -> int:
    """How many deaths of the last hour had nothing to do with a suspect; many of the same others count once."""
    return await session.scalar(_ELSEWHERE, {"suspect": suspect}) or 0


async def seconds_since_last(session: AsyncSession, suspect: str) -> float:
    """How long ago the last death was that points at a suspect; inf where none is on record."""
    seconds: float | None = await session.scalar(_SINCE_LAST, {"suspect": suspect})
    return math.inf if seconds is None else seconds


async def retract(session: AsyncSession, worker_id: int) -> list[str]:
    """Take back the death of a worker that turned out to live; gives whom it pointed at."""
    found = await session.scalars(delete(Death).where(Death.worker_id == worker_id).returning(Death.suspects))
    return [suspect for suspects in found for suspect in suspects]
