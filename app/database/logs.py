"""What was said in the course of a conversion, kept within a bound: the beginning, and what came last."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import events
from app.database.tables import Conversion, LogPart

HEAD = 64 << 10
TAIL = 192 << 10
"""Characters that are kept of the beginning and of the end."""

_END = LogPart.offset + func.length(LogPart.text)


async def append(session: AsyncSession, conversion_id: str, attempt: int, said: str) -> None:
    """Add whole lines, unless a later attempt has begun; announced as a change of the conversion."""
    current = select(Conversion.id).where(Conversion.id == conversion_id, Conversion.attempt == attempt)
    if await session.scalar(current.with_for_update(key_share=True, read=True)) is None:
        return
    of_conversion = LogPart.conversion_id == conversion_id
    offset = await session.scalar(select(func.max(_END)).where(of_conversion)) or 0
    session.add(LogPart(conversion_id=conversion_id, attempt=attempt, offset=offset, text=said))
    await session.flush()
    in_neither = (_END > HEAD) & (offset + len(said) - TAIL >= _END)
    await session.execute(delete(LogPart).where(of_conversion, in_neither))
    await events.announce(session, conversion_id)


async def after(session: AsyncSession, conversion_id: str, id: int = 0) -> Sequence[LogPart]:
    """The parts of a conversion with ids above ``id``, oldest first."""
    query = select(LogPart).where(LogPart.conversion_id == conversion_id, LogPart.id > id).order_by(LogPart.id)
    return (await session.scalars(query)).all()


def shown(parts: Sequence[LogPart], previous: LogPart | None = None) -> str:
    """The parts as one text that goes on after ``previous``; it says what is left out, and where an attempt began."""
    attempt, end = (previous.attempt, previous.offset + len(previous.text)) if previous else (1, 0)
    told = []
    for part in parts:
        if part.offset > end:
            told.append(f"[... {part.offset - end} characters left out ...]\n")
        if part.attempt != attempt and part.attempt > 1:
            told.append(f"[attempt {part.attempt}]\n")
        told.append(part.text)
        attempt, end = part.attempt, part.offset + len(part.text)
    return "".join(told)
