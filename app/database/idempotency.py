"""Idempotency keys: the same request sent twice becomes one conversion."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.projects import DEFAULT, owner_of_new
from app.database.tables import Conversion, IdempotencyKey
from app.domain.errors import IdempotencyConflict


@dataclass(frozen=True)
class Idempotency:
    """A client's Idempotency-Key and a digest of the request it came with."""

    key: str
    request_digest: str


async def earlier(session: AsyncSession, idempotency: Idempotency) -> Conversion | None:
    """What an earlier request with this key led to; requests with one key wait for each other.

    Raises IdempotencyConflict when that was another request.
    """
    key = _stored(session, idempotency)
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
    known = await session.get(IdempotencyKey, key)
    if known is None:
        return None
    if known.request_digest != idempotency.request_digest:
        raise IdempotencyConflict("The Idempotency-Key belongs to a request with another body.")
    return await session.get(Conversion, known.conversion_id)


def remember(session: AsyncSession, idempotency: Idempotency, conversion: Conversion) -> None:
    """Bind the key to a conversion, within the transaction that looked for an earlier one."""
    session.add(
        IdempotencyKey(
            key=_stored(session, idempotency),
            request_digest=idempotency.request_digest,
            conversion_id=conversion.id,
        )
    )


def _stored(session: AsyncSession, idempotency: Idempotency) -> str:
    """The key within its project; clients' keys hold no line break."""
    project = owner_of_new(session)
    return idempotency.key if project == DEFAULT else f"{project}\n{idempotency.key}"
