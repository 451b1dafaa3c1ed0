"""The layouts of the current catalog's architectures, as an index that is made when it is first asked for."""

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


class LayoutReader:
    """Gives the index; makes it again only when the catalog or what is known of its architectures has changed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._state: tuple[object, frozenset[Source]] | None = None
        self._index = LayoutIndex(())
        self._reading = asyncio.Lock()

    async def of_recipes(self, recipes: Mapping[Version, object], database: Database) -> LayoutIndex:
        """Of a project's recipes."""
        if not recipes:
            return LayoutIndex(())
        async with database.transaction() as session:
            found = await stored_recipes.layouts(session)
        names = {name: place for place, (name, _) in enumerate(recipes)}
        return await asyncio.to_thread(lambda: LayoutIndex(map(unpacked, found), names))

    async def index(self, catalog: Catalog) -> LayoutIndex:
        """Of the architectures of this catalog; those of which no layout is known are not in it."""
        wanted = {source_of(entry) for entry in catalog.search()}
        async with self._reading:
            async with self._database.transaction() as session:
                kept = await layouts.known(session, wanted)
            state = (catalog, frozenset(kept))
            if state != self._state:
                async with self._database.transaction() as session:
                    found = await layouts.find(session, kept)
                self._index = await asyncio.to_thread(_index, catalog, wanted, found)
                self._state = state
            return self._index


def _index(catalog: Catalog, wanted: Iterable[Source], found: dict[Source, bytes]) -> LayoutIndex:
    """Plug-ins before libraries, as in the catalog: of equals, the first is proposed first."""
    brought = {(file.source, file.version): file for file in known_layouts()}
    files: list[LayoutFile] = []
    for source in wanted:
        try:
            files.append(unpacked(found[source]) if source in found else brought[source])
        except KeyError:
            continue
        except Exception as error:  # noqa: BLE001 - a document that cannot be read hides no other
            log.error("layouts_unreadable", source=source[0], error=str(error)[:200])
    order = {entry.name: place for place, entry in enumerate(catalog.search())}
    return LayoutIndex(files, order)
