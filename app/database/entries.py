"""Adding entries to the queue, as part of a transaction."""

from datetime import timedelta

from procrastinate import App, PsycopgConnector
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.session import driver_connection

DELIVERIES = "deliveries"
"""The queue of webhook messages."""
PUBLICATIONS = "publications"
"""The queue of what is put elsewhere."""
RECIPES = "recipes"
"""The queue of recipes that are to be built once."""
TRANSFERS = "transfers"
"""The queue of what is fetched from elsewhere."""

QUEUE = App(connector=PsycopgConnector())
"""Never opened: every statement runs on the connection of a transaction of ours."""


async def defer(session: AsyncSession, queue: str, after: timedelta | None = None, **arguments: str) -> int:
    """Add an entry that may be taken ``after`` that time; gives its id."""
    task = QUEUE.configure_task(
        queue, queue=queue, connection=await driver_connection(session), schedule_in=_schedule(after)
    )
    return await task.defer_async(**arguments)


def _schedule(after: timedelta | None) -> dict[str, float] | None:
    return None if after is None else {"seconds": after.total_seconds()}
