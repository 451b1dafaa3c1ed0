"""The workers as the queue knows them, for what operators ask."""

import math

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

REGISTERED = text(
    "select count(*) from procrastinate_workers where last_heartbeat > now() - make_interval(secs => :lost_after)"
)


async def count_alive(session: AsyncSession, lost_after: float, queues: int) -> int:
    """How many workers, each of which serves ``queues`` queues, gave a sign of life in the last ``lost_after`` seconds.

    The queue registers a worker once for each queue and does not say which registrations belong together. While a
    worker starts or stops it may have some of them only, and counts.
    """
    registered: int = await session.scalar(REGISTERED, {"lost_after": lost_after}) or 0
    return math.ceil(registered / queues)
