"""The catalog of architectures that a worker's children made; the api reads it, because only torch can make it."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import workers
from app.database.tables import Catalog
from app.domain.architecture import ArchitectureDescription, BrokenPlugin


async def publish(
    session: AsyncSession,
    digest: str,
    entries: Sequence[ArchitectureDescription],
    broken: Sequence[BrokenPlugin] = (),
    supervisor: str | None = None,
) -> None:
    """Make this the current catalog. ``supervisor``: the run of `recast serve` that this worker belongs to."""
    statement = insert(Catalog).values(
        digest=digest,
        entries=[entry.model_dump(mode="json") for entry in entries],
        plugins={entry.name: entry.plugin for entry in entries if entry.plugin is not None},
        broken=[plugin.model_dump(mode="json") for plugin in broken],
        supervisor=supervisor,
    )
    seen = {"seen_at": func.clock_timestamp(), "supervisor": supervisor}
    await session.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=seen))


async def current_digest(session: AsyncSession) -> str | None:
    """The digest of the current catalog; None before the first worker has made one. Cheap: ask it per request."""
    return await session.scalar(select(Catalog.digest).order_by(Catalog.seen_at.desc()).limit(1))


async def entries(session: AsyncSession, digest: str) -> tuple[ArchitectureDescription, ...]:
    """The architectures of a catalog, in the registry's order; empty for an unknown digest."""
    data = await session.scalar(select(Catalog.entries).where(Catalog.digest == digest))
    return tuple(ArchitectureDescription.model_validate(entry) for entry in data or ())


async def broken(session: AsyncSession, digest: str) -> tuple[BrokenPlugin, ...]:
    """The plug-ins of a catalog that could not be loaded; empty for an unknown digest."""
    data = await session.scalar(select(Catalog.broken).where(Catalog.digest == digest))
    return tuple(BrokenPlugin.model_validate(plugin) for plugin in data or ())


async def plugin_of(session: AsyncSession, architecture: str) -> str | None:
    """The plug-in that offers an architecture by the current catalog; None for one of a library, or of none."""
    current = select(Catalog.plugins[architecture].astext).order_by(Catalog.seen_at.desc()).limit(1)
    return await session.scalar(current)


async def is_of_this_start(session: AsyncSession, supervisor: str | None, lost_after: float) -> bool:
    """Whether a worker of this start has described its architectures.

    Under `recast serve` (``supervisor``) it is one of that run; else one that began before the catalog was made, and
    while no worker gives signs of life, the last catalog is the one.
    """
    if supervisor is not None:
        return await session.scalar(select(Catalog.digest).where(Catalog.supervisor == supervisor).limit(1)) is not None
    seen = await session.scalar(select(func.max(Catalog.seen_at)))
    began = await workers.earliest_start(session, lost_after)
    return began is None or (seen is not None and began <= seen)
