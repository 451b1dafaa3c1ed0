"""Idempotency keys: the same request sent twice becomes one conversion."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.projects import DEFAULT, owner_of_new
from app.database.tables import Conversion, Group, IdempotencyKey
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
    key = await locked(session, idempotency)
    known = await session.get(IdempotencyKey, key)
    if known is None:
        if await session.scalar(select(Group.id).where(Group.idempotency_key == key)) is not None:
            raise IdempotencyConflict("The Idempotency-Key belongs to a request for several conversions.")
        return None
    if known.request_digest != idempotency.request_digest:
        raise IdempotencyConflict("The Idempotency-Key belongs to a request with another body.")
    return await session.get(Conversion, known.conversion_id)


def remember(session: AsyncSession, idempotency: Idempotency, conversion: Conversion) -> None:
    """Bind the key to a conversion, within the transaction that looked for an earlier one."""
    session.add(
        IdempotencyKey(
            key=_within_project(session, idempotency.key),
            request_digest=idempotency.request_digest,
            conversion_id=conversion.id,
        )
    )


async def locked(session: AsyncSession, idempotency: Idempotency) -> str:
    """The key within its project, which other transactions that ask for it wait for until this one ends."""
    key = _within_project(session, idempotency.key)
    await session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))
    return key


def _within_project(session: AsyncSession, key: str) -> str:
    """Clients' keys hold no line break."""
    project = owner_of_new(session)
    return key if project == DEFAULT else f"{project}\n{key}"
