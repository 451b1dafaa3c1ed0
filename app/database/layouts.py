"""Layouts of architectures that the package does not bring: those of plug-ins."""

from collections.abc import Iterable

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import Layouts
from app.domain.architecture import ArchitectureDescription

Source = tuple[str, str]
"""A library and its version, or a plug-in and the digest of its source, under which its layouts are kept."""


def source_of(entry: ArchitectureDescription) -> Source:
    """Under what name and version the layouts of an architecture are kept.

    A library's version without its local part (PEP 440): "+cu130" says for which machines it was built, and nothing of
    its architectures.
    """
    if entry.plugin is None:
        return entry.library, entry.library_version.partition("+")[0]
    return f"plugin {entry.plugin}", entry.source_digest or entry.library_version


async def known(session: AsyncSession, sources: Iterable[Source]) -> set[Source]:
    """Those of the sources whose layouts are kept."""
    query = select(Layouts.source, Layouts.version).where(tuple_(Layouts.source, Layouts.version).in_(list(sources)))
    return {(source, version) for source, version in await session.execute(query)}


async def find(session: AsyncSession, sources: Iterable[Source]) -> dict[Source, bytes]:
    """The documents (architectures/known) of those of the sources that are kept."""
    query = select(Layouts).where(tuple_(Layouts.source, Layouts.version).in_(list(sources)))
    return {(found.source, found.version): found.content for found in await session.scalars(query)}


async def record(session: AsyncSession, source: Source, content: bytes) -> None:
    """Keep the document of a source in place of those of its other versions."""
    name, version = source
    await session.execute(delete(Layouts).where(Layouts.source == name, Layouts.version != version))
    statement = insert(Layouts).values(source=name, version=version, content=content)
    renewed = {"content": content, "created_at": func.clock_timestamp()}
    await session.execute(statement.on_conflict_do_update(index_elements=["source", "version"], set_=renewed))
