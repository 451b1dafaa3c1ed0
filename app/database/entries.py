"""The queue's entries, added and canceled as part of a transaction.

The engine is Procrastinate's tables and functions. They are called as any other statement, so that an error of the
database looks here as it does everywhere.
"""

import json
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

DELIVERIES = "deliveries"
"""The queue of webhook messages."""
PUBLICATIONS = "publications"
"""The queue of what is put elsewhere."""
RECIPES = "recipes"
"""The queue of recipes that are to be built once."""
TRANSFERS = "transfers"
"""The queue of what is fetched from elsewhere."""

_DEFER = text("""
    select (procrastinate_defer_jobs_v1(array[cast(
        row(:queue, :task, 0, null, null, cast(:arguments as jsonb), now() + cast(:after as interval))
        as procrastinate_job_to_defer_v1
    )]))[1]
""")
_CANCEL = text("select procrastinate_cancel_job_v1(:id, false, false)")
"""Without a mark on an entry that is worked on: none that has it may wait again, and nobody reads it."""


async def defer(
    session: AsyncSession, queue: str, after: timedelta | None = None, *, task: str | None = None, **arguments: str
) -> int:
    """Add an entry that may be taken ``after`` that time by the database's clock; gives its id.

    ``task``: what it is called where that is not the name of its queue.
    """
    told = {"queue": queue, "task": task or queue, "arguments": json.dumps(arguments), "after": after}
    return int((await session.execute(_DEFER, told)).scalar_one())


async def cancel(session: AsyncSession, id: int) -> None:
    """Take an entry out that waits; who works on one finds out by what it stands for."""
    await session.execute(_CANCEL, {"id": id})
