"""The workers as the queue knows them, for what operators ask."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

ALIVE = text(
    "select count(*) from procrastinate_workers where last_heartbeat > now() - make_interval(secs => :lost_after)"
)


async def count_alive(session: AsyncSession, lost_after: float) -> int:
    """How many queue workers gave a sign of life within the last ``lost_after`` seconds; a process has two."""
    return await session.scalar(ALIVE, {"lost_after": lost_after}) or 0
