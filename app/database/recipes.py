"""Reading and writing recipes: per project, a name's versions by the digest of what they tell."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import events
from app.database.conversions import UNFINISHED
from app.database.projects import owner_of_new
from app.database.tables import Conversion
from app.database.tables import Recipe as Row
from app.domain.architecture import ArchitectureDescription
from app.domain.errors import InUse, InvalidRecipe, Problem, UnknownArchitecture
from app.domain.recipe import CheckedRecipe, Recipe

MOST_VERSIONS = 2_000
"""Of all recipes of a project together."""

Version = tuple[str, str]
"""Name and digest."""


@dataclass(frozen=True)
class Offered:
    """A version that conversions may name; ``base`` is the architecture that it is made of."""

    description: ArchitectureDescription
    checked: CheckedRecipe

    @property
    def base(self) -> str:
        return self.checked.base


def topic(project: str, digest: str) -> str:
    """Under what changes of a version are announced."""
    return f"recipe {project} {digest}"


async def add(session: AsyncSession, recipe: Recipe) -> Row:
    """The version of the session's project, made the name's newest, locked. Raises InvalidRecipe where it has many."""
    project = owner_of_new(session)
    count = await session.scalar(select(func.count()).select_from(Row).where(Row.project_id == project)) or 0
    if count >= MOST_VERSIONS:
        raise InvalidRecipe(f"The project has {count} versions of recipes; delete some.")
    asked = json.dumps(recipe.told(), separators=(",", ":"))
    statement = insert(Row).values(project_id=project, name=recipe.name, digest=recipe.digest, asked=asked)
    renewed = {"registered_at": func.clock_timestamp()}
    keys = ["project_id", "name", "digest"]
    await session.execute(statement.on_conflict_do_update(index_elements=keys, set_=renewed))
    found = await find(session, project, recipe.name, recipe.digest)
    assert found is not None
    return found


async def find(session: AsyncSession, project: str, name: str, digest: str) -> Row | None:
    """A version, locked until the transaction ends."""
    return await session.get(Row, (project, name, digest), with_for_update=True, populate_existing=True)


async def versions(session: AsyncSession) -> Sequence[Version]:
    """What the session's project offers, of each name the newest version first. Cheap: ask it per request."""
    query = select(Row.name, Row.digest).where(Row.project_id == owner_of_new(session), Row.description.is_not(None))
    ordered = query.order_by(Row.name, Row.registered_at.desc(), Row.digest)
    return [(name, digest) for name, digest in await session.execute(ordered)]


async def offered(session: AsyncSession) -> dict[Version, Offered]:
    """The same with their descriptions."""
    query = select(Row).where(Row.project_id == owner_of_new(session), Row.description.is_not(None))
    return {
        (row.name, row.digest): Offered(
            ArchitectureDescription.kept(row.description or ""),
            CheckedRecipe.kept(row.checked or ""),
        )
        for row in await session.scalars(query)
    }


async def layouts(session: AsyncSession) -> Sequence[bytes]:
    """The documents of the layouts of what the session's project offers, of each name that of the newest version."""
    query = select(Row.layout).where(Row.project_id == owner_of_new(session), Row.layout.is_not(None))
    newest = query.distinct(Row.name).order_by(Row.name, Row.registered_at.desc(), Row.digest)
    return [content for content in await session.scalars(newest) if content is not None]


async def checked(session: AsyncSession, project: str, name: str, digest: str) -> CheckedRecipe | None:
    """What conversions of a version are made of; None where it was deleted."""
    query = select(Row.checked).where(Row.project_id == project, Row.name == name, Row.digest == digest)
    found = await session.scalar(query)
    return None if found is None else CheckedRecipe.kept(found)


async def hold(session: AsyncSession, name: str, digest: str) -> None:
    """Keep a version of the session's project from being deleted until the transaction ends. UnknownArchitecture."""
    query = select(Row.name).where(Row.project_id == owner_of_new(session), Row.name == name, Row.digest == digest)
    if await session.scalar(query.with_for_update(key_share=True, read=True)) is None:
        raise UnknownArchitecture(f"The recipe {name!r} was deleted.")


async def record(
    session: AsyncSession,
    row: Row,
    found: CheckedRecipe | Problem,
    description: ArchitectureDescription | None = None,
    layout: bytes | None = None,
) -> None:
    """Store what building a version told, or why it could not be built; announced under its topic."""
    row.queue_job_id = None
    if isinstance(found, Problem):
        row.problem = found.model_dump(mode="json")
    else:
        row.checked = found.model_dump_json()
        row.description = None if description is None else description.model_dump_json()
        row.layout, row.problem = layout, None
    await session.flush()
    await events.announce(session, topic(row.project_id, row.digest))


async def remove(session: AsyncSession, name: str, digest: str | None) -> None:
    """Delete a version of the session's project, or all of a name. Raises UnknownArchitecture, InUse."""
    project = owner_of_new(session)
    query = select(Row).where(Row.project_id == project, Row.name == name)
    if digest is not None:
        query = query.where(Row.digest == digest)
    rows = (await session.scalars(query.with_for_update())).all()
    if not rows:
        raise UnknownArchitecture(f"There is no recipe {name[:100]!r}.")
    using = select(Conversion.id).where(
        Conversion.project_id == project,
        Conversion.recipe.in_([row.digest for row in rows]),
        Conversion.architecture == name,
        Conversion.state.in_(UNFINISHED),
    )
    if await session.scalar(using.limit(1)) is not None:
        raise InUse("A conversion that has not finished needs this recipe.")
    for row in rows:
        await session.delete(row)
