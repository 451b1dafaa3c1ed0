"""How much waits for workers, and whether one more conversion is taken: before the machine suffers, not after."""

import time
from collections import Counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.domain.errors import QueueFull

_COUNT = text("select project_id, count(*) from conversions where state = 'queued' group by project_id")
_AGE = text("""
    select extract(epoch from now() - min(created_at)) from conversions
    where id = (select min(id) from conversions where state = 'queued')
""")
EXACT = 1000
"""Conversions up to which each request counts anew."""
FRESH = 1.0
"""Seconds for which a larger count is relied on; what this process adds meanwhile is counted along."""
RETRY_AFTER = 30
"""Seconds."""


class Backlog:
    """What waits, as this process knows it. ``most``: conversions that may wait.

    A project that has less than its equal part of them is taken in even where others have filled the queue, which so
    holds twice as many at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: Counter[str] = Counter()
        self._until = 0.0

    async def refuse_when_full(self, session: AsyncSession, project: str) -> None:
        """Raises QueueFull where one more of a project would be too many."""
        if time.monotonic() >= self._until:
            self._waiting = Counter({row.project_id: row.count for row in await session.execute(_COUNT)})
            self._until = time.monotonic() + (FRESH if self._waiting.total() > EXACT else 0.0)
        waiting, own = self._waiting.total(), self._waiting[project]
        projects = len({project, *filter(self._waiting.get, self._waiting)})
        if waiting >= self._most and own * projects >= self._most:
            raise QueueFull(
                f"{waiting} conversions are waiting, {own} of them yours; this server takes no more now.",
                retry_after=RETRY_AFTER,
            )

    def added(self, project: str) -> None:
        """Count one that was taken in."""
        self._waiting[project] += 1


async def oldest_seconds(session: AsyncSession) -> float:
    """For how long the conversion has waited that waits the longest; 0 when none does."""
    return float(await session.scalar(_AGE) or 0.0)
