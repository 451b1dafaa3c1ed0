"""The layouts of the current catalog's architectures, as indexes that are made when they are first asked for."""

import asyncio
from collections.abc import Iterable, Mapping

import structlog

from app.architectures.known import known_layouts, unpacked
from app.conversion.matching import LayoutIndex
from app.database import layouts
from app.database import recipes as stored_recipes
from app.database.layouts import Source, source_of
from app.database.recipes import Version
from app.database.session import Database
from app.domain.catalog import Catalog
from app.domain.layout_file import LayoutFile

log = structlog.get_logger("recast.api")

Places = tuple[tuple[str, Source], ...]
"""Architectures in the registry's order, each with the source of its layouts."""


class LayoutReader:
    """Gives the indexes; makes one again only when the catalog or what is known of its own architectures has changed.

    What the package brings takes seconds on a busy machine, and plug-ins come and go: each part has its own index.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stored: tuple[Places, LayoutIndex] = (), LayoutIndex(())
        self._brought: tuple[Places, LayoutIndex] = (), LayoutIndex(())
        self._reading = asyncio.Lock()

    async def of_recipes(self, recipes: Mapping[Version, object], database: Database) -> LayoutIndex:
        """Of a project's recipes."""
        if not recipes:
            return LayoutIndex(())
        async with database.transaction() as session:
            found = await stored_recipes.layouts(session)
        names = {name: place for place, (name, _) in enumerate(recipes)}
        return await asyncio.to_thread(lambda: LayoutIndex(map(unpacked, found), names))

    async def indexes(self, catalog: Catalog) -> tuple[LayoutIndex, LayoutIndex]:
        """Of this catalog's architectures: those whose layouts were found by a worker, as a plug-in's are, and those
        whose layouts the package brings. What is not known is in neither."""
        places = tuple((entry.name, source_of(entry)) for entry in catalog.search())
        files = await asyncio.to_thread(known_layouts)
        package = {(file.source, file.version) for file in files}
        async with self._reading:
            async with self._database.transaction() as session:
                kept = await layouts.known(session, {source for _, source in places})
            package -= kept
            stored = tuple(place for place in places if place[1] in kept)
            brought = tuple(place for place in places if place[1] in package)
            if stored != self._stored[0]:
                async with self._database.transaction() as session:
                    found = await layouts.find(session, kept)
                self._stored = stored, await asyncio.to_thread(_index, _readable(found), stored)
            if brought != self._brought[0]:
                current = [file for file in files if (file.source, file.version) in package]
                self._brought = brought, await asyncio.to_thread(_index, current, brought)
            return self._stored[1], self._brought[1]


def _readable(found: Mapping[Source, bytes]) -> Iterable[LayoutFile]:
    for source, content in found.items():
        try:
            yield unpacked(content)
        except Exception as error:  # noqa: BLE001 - a document that cannot be read hides no other
            log.error("layouts_unreadable", source=source[0], error=str(error)[:200])


def _index(files: Iterable[LayoutFile], places: Places) -> LayoutIndex:
    return LayoutIndex(files, {name: place for place, (name, _) in enumerate(places)})
