"""The catalog of architectures that a worker's child made; the api reads it, because only torch can make it."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import Catalog
from app.domain.architecture import ArchitectureDescription


async def publish(session: AsyncSession, digest: str, entries: Sequence[ArchitectureDescription]) -> None:
    """Make this the current catalog."""
    data = [entry.model_dump(mode="json") for entry in entries]
    statement = insert(Catalog).values(digest=digest, entries=data)
    await session.execute(statement.on_conflict_do_update(index_elements=["digest"], set_={"seen_at": func.now()}))


async def current_digest(session: AsyncSession) -> str | None:
    """The digest of the current catalog; None before the first worker has made one. Cheap: ask it per request."""
    return await session.scalar(select(Catalog.digest).order_by(Catalog.seen_at.desc()).limit(1))


async def entries(session: AsyncSession, digest: str) -> tuple[ArchitectureDescription, ...]:
    """The architectures of a catalog, in the registry's order; empty for an unknown digest."""
    data = await session.scalar(select(Catalog.entries).where(Catalog.digest == digest))
    return tuple(ArchitectureDescription.model_validate(entry) for entry in data or ())
