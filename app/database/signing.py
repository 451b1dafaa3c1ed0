"""The keys that statements are signed with. Public ones stay for ever: what they signed is out in the world."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import SigningKey


async def own_seed(session: AsyncSession) -> bytes | None:
    """The private part of the service's own key, the first that was made; None before one was."""
    query = select(SigningKey.seed).where(SigningKey.seed.is_not(None)).order_by(SigningKey.created_at, SigningKey.id)
    return await session.scalar(query.limit(1))


async def add(session: AsyncSession, id: str, public: bytes, seed: bytes | None = None) -> None:
    """Publish a key. ``seed``: its private part, where the service keeps that itself."""
    statement = insert(SigningKey).values(id=id, public=public, seed=seed)
    await session.execute(statement.on_conflict_do_nothing())


async def public_keys(session: AsyncSession) -> Sequence[tuple[str, bytes]]:
    """Id and public part of every key that ever signed, the newest first."""
    query = select(SigningKey.id, SigningKey.public).order_by(SigningKey.created_at.desc(), SigningKey.id)
    return [(id, public) for id, public in await session.execute(query)]
