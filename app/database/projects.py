"""Projects: who owns a conversion or a checkpoint, and sessions that see what one of them owns.

A session of a project sees nothing else: the condition is added to every query of those tables' entities, so that none
can forget it. Statements that are no such query (texts, counts over a subquery) have to say it themselves. Workers,
which serve all projects, use sessions of none.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import event, exists, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.sql.base import ExecutableOption

from app.database.tables import Checkpoint, CheckpointOwner, Conversion, Group, Project, Recipe, Upload, Webhook
from app.domain.errors import InvalidRequest, NotFound
from app.domain.identifiers import new_id

DEFAULT = "default"
"""The project of who needs no key, and of all that was there before there were projects."""
_INFO = "project"


def session_info(project: str | None) -> dict[str, Any]:
    """What marks a session as a project's."""
    return {_INFO: project}


def project_of(session: AsyncSession) -> str | None:
    """Whose session it is; None: it sees everything."""
    project: str | None = session.info.get(_INFO)
    return project


def owner_of_new(session: AsyncSession) -> str:
    """The project that owns what this session adds."""
    return project_of(session) or DEFAULT


@event.listens_for(Session, "do_orm_execute")
def _see_own_only(state: ORMExecuteState) -> None:
    project = state.session.info.get(_INFO)
    if project is not None and state.is_orm_statement:
        state.statement = state.statement.options(*_owned_by(project))


@lru_cache(maxsize=1_000)
def _owned_by(project: str) -> tuple[ExecutableOption, ...]:
    owners = CheckpointOwner.__table__.alias()
    owned = exists().where(owners.c.sha256 == Checkpoint.sha256, owners.c.project_id == project)
    criteria = (
        (Conversion, Conversion.project_id == project),
        (Webhook, Webhook.project_id == project),
        (Group, Group.project_id == project),
        (CheckpointOwner, CheckpointOwner.project_id == project),
        (Checkpoint, owned),
        (Recipe, Recipe.project_id == project),
        (Upload, Upload.project_id == project),
    )
    return tuple(with_loader_criteria(entity, condition, include_aliases=True) for entity, condition in criteria)


async def known_as(session: AsyncSession, id: str) -> tuple[str, str]:
    """Id and name of a project, by either of which an operator may mean it."""
    return id, await session.scalar(select(Project.name).where(Project.id == id)) or id


async def create(session: AsyncSession, name: str, limits: dict[str, Any]) -> Project:
    """Add a project. Raises InvalidRequest when the name is taken."""
    if await session.scalar(select(Project.id).where(Project.name == name)) is not None:
        raise InvalidRequest(f"There is a project called {name!r}.")
    project = Project(id=new_id("prj"), name=name, limits=limits)
    session.add(project)
    await session.flush()
    await session.refresh(project)
    return project


async def listed(session: AsyncSession, project: str | None) -> Sequence[Project]:
    """The project of that id, or all of them."""
    query = select(Project).order_by(Project.created_at, Project.id)
    return (await session.scalars(query if project is None else query.where(Project.id == project))).all()


async def named(session: AsyncSession, name_or_id: str) -> Project:
    """The project of that name or id. Raises NotFound."""
    found = await session.scalar(select(Project).where((Project.name == name_or_id) | (Project.id == name_or_id)))
    if found is None:
        raise NotFound(f"There is no project {name_or_id[:100]!r}.")
    return found
