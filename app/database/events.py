"""Events of conversions: rows in the order of their ids, and a notice to every listening process at commit.

An event is recorded in the transaction that changes its conversion, after the change: the conversion's row lock then
keeps ids of one conversion in the order of their commits, so that a reader who has seen id n has missed none before.
"""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import webhooks
from app.database.tables import Conversion, Event

CHANNEL = "recast_changes"
"""The NOTIFY channel. The payload is the id of what changed: a conversion's id or a checkpoint's sha256."""

EventType = Literal["state", "progress"]


async def announce(session: AsyncSession, topic: str) -> None:
    """Tell every listening process, when this transaction commits, that something about ``topic`` changed."""
    await session.execute(select(func.pg_notify(CHANNEL, topic)))


async def record(session: AsyncSession, conversion: Conversion, kind: EventType) -> None:
    """Add an event with the conversion's present state, and announce it; webhooks are told of another state."""
    session.add(Event(conversion_id=conversion.id, type=kind, data=_facts(conversion)))
    await session.flush()
    if kind == "state":
        await webhooks.tell(session, conversion)
    await announce(session, conversion.id)


async def after(session: AsyncSession, conversion_id: str, event_id: int, limit: int = 500) -> Sequence[Event]:
    """Events of one conversion with ids above ``event_id``, oldest first."""
    query = (
        select(Event).where(Event.conversion_id == conversion_id, Event.id > event_id).order_by(Event.id).limit(limit)
    )
    return (await session.scalars(query)).all()


def _facts(conversion: Conversion) -> dict[str, Any]:
    return {
        "state": conversion.state.value,
        "stage": conversion.stage,
        "progress": conversion.progress,
        "attempt": conversion.attempt,
        "waiting_for": conversion.waiting_for,
        "verdict": conversion.verdict,
        "error": conversion.problem,
    }
