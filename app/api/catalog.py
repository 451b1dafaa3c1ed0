"""The catalog of architectures as the workers describe it, read from the database and kept between requests."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.database import catalogs, recipes
from app.database.catalogs import Described
from app.database.recipes import Offered, Version
from app.database.session import Database
from app.domain.architecture import ArchitectureDescription
from app.domain.catalog import Catalog
from app.domain.errors import Unavailable
from app.domain.recipe import source_digest

MOST_REMEMBERED = 100
"""Projects of which the recipes are kept between requests."""


@dataclass(frozen=True)
class _Known:
    """What a project's catalog was made of, and the catalog."""

    common: Catalog
    versions: tuple[Version, ...]
    offered: dict[Version, Offered]
    catalog: Catalog


RecipesKnown = dict[str | None, _Known]


class CatalogReader:
    """Gives what all workers that live offer together; parses it again only when one has described another catalog.

    ``lost_after``: seconds without a sign of life after which a worker counts as dead.
    """

    def __init__(self, database: Database, lost_after: float) -> None:
        self._database = database
        self._lost_after = lost_after
        self._digests: tuple[str, ...] = ()
        self._catalog = Catalog([])
        self._reading = asyncio.Lock()
        self._recipes: RecipesKnown = {}
        self.pending: tuple[str, ...] = ()
        """Plug-ins whose description is waited for."""

    async def current(self) -> Catalog:
        """Raises Unavailable while no worker has ever described its architectures."""
        async with self._database.transaction() as session:
            digests = await catalogs.current_digests(session, self._lost_after)
        if not digests:
            raise Unavailable(
                "No worker has described its architectures yet.", hint="Workers do so within seconds of starting."
            )
        if digests != self._digests:
            async with self._reading:  # held by who reads another catalog, and awaited by who needs that one
                await self._read(digests)
        return self._catalog

    def of(self, database: Database) -> "ProjectCatalog":
        """The catalog as a project sees it, with its recipes."""
        return ProjectCatalog(self, database, self._recipes)

    async def _read(self, digests: tuple[str, ...]) -> None:
        if digests == self._digests:
            return
        async with self._database.transaction() as session:
            found = [one for digest in digests if (one := await catalogs.find(session, digest))]
        self._catalog, self._digests = together(found), digests
        self.pending = tuple(name for one in found for name in one.pending)


def together(offers: Sequence[Described]) -> Catalog:
    """What several workers offer. Of one name the first is told; what one cannot offer, another may.

    Any of them may take a conversion, so a target that one of them lacks is lacking.
    """
    entries = {entry.name: entry for one in reversed(offers) for entry in one.entries}
    for entry in (entry for one in offers for entry in one.entries if entry.lacking):
        entries[entry.name] = entries[entry.name].without(entry.lacking)
    offering = {entry.plugin for entry in entries.values()}
    broken = {plugin.name: plugin for one in offers for plugin in one.broken if plugin.name not in offering}
    undescribed = {name: None for one in offers for name in (*one.pending, *one.late) if name not in offering}
    return Catalog(entries.values(), broken.values(), undescribed)


class ProjectCatalog:
    """What a project may name: all that workers offer, and its own recipes."""

    def __init__(self, reader: CatalogReader, database: Database, known: RecipesKnown) -> None:
        self._reader, self._database, self._known = reader, database, known

    async def common(self) -> Catalog:
        """Without recipes. Raises Unavailable."""
        return await self._reader.current()

    async def current(self) -> Catalog:
        """Raises Unavailable."""
        return (await self._current()).catalog

    async def recipes(self) -> Mapping[Version, Offered]:
        """The project's recipes whose base is offered. Raises Unavailable."""
        return (await self._current()).offered

    async def _current(self) -> _Known:
        common = await self._reader.current()
        async with self._database.transaction() as session:
            versions = tuple(await recipes.versions(session))
            known = self._known.get(self._database.project)
            if known is not None and known.common is common and known.versions == versions:
                return known
            offered = await recipes.offered(session) if versions else {}
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        known = _known(common, versions, offered)
        self._known[self._database.project] = known
        return known


def _known(common: Catalog, versions: tuple[Version, ...], offered: dict[Version, Offered]) -> _Known:
    shown: dict[Version, Offered] = {}
    for version in versions:
        one = offered.get(version)
        base = None if one is None else common.find(one.base)
        if one is not None and base is not None:
            shown[version] = Offered(_of_today(one, base), one.checked)
    catalog = common.with_versions(one.description for one in shown.values()) if shown else common
    return _Known(common, versions, shown, catalog)


def _of_today(recipe: Offered, base: ArchitectureDescription) -> ArchitectureDescription:
    """The description with what its base may have changed since the recipe was built."""
    told = {
        "library_version": base.library_version,
        "targets": base.targets,
        "lacking": base.lacking,
        "plugin": base.plugin,
        "source_digest": source_digest(recipe.checked, base.source_digest),
    }
    return recipe.description.model_copy(update=told)
