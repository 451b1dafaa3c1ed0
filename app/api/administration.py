"""Keys, projects and the audit log, for who administers a project, or the whole service."""

from datetime import datetime
from typing import Annotated

from fastapi import Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.api.bodies import json_body, json_model
from app.api.labels import Name
from app.api.parameters import Time
from app.api.principals import Acting, Principal
from app.api.problems import PROBLEM_RESPONSES
from app.api.readable import ReadableRouter
from app.api.service import WholeService
from app.database import audit, keys, projects
from app.database.keys import SCOPES
from app.database.limits import Limits
from app.database.tables import ApiKey, AuditEntry, Project
from app.domain.errors import NotFound

router = ReadableRouter(prefix="/v1", tags=["administration"], responses=PROBLEM_RESPONSES)

LARGEST_PAGE = 1000
KEY_EXAMPLE = {"name": "deployment", "scopes": ["read", "convert"]}
PROJECT_EXAMPLE = {"name": "vision", "limits": {"conversions_per_day": 1000}}
Scope = Annotated[str, Field(json_schema_extra={"enum": list(SCOPES)}, pattern=f"^({'|'.join(SCOPES)})$")]


class KeyRequest(BaseModel):
    """A key to be made. ``project``: name or id; only an operator may name another one than its own."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))]
    expires_at: Time | None = None
    project: Annotated[str, Field(max_length=200)] | None = None


class KeyResource(BaseModel):
    """A key without its secret; ``shown`` is how it begins. ``last_used_at`` is true to the minute."""

    id: str
    project: str
    name: str
    shown: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class MadeKey(KeyResource):
    """``key`` is told this once: only its sha256 is kept."""

    key: str


class KeyList(BaseModel):
    items: list[KeyResource]
    next_cursor: str | None = None


class ProjectRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    limits: Limits = Limits()


class ProjectResource(BaseModel):
    id: str
    name: str
    limits: Limits
    created_at: datetime


class ProjectList(BaseModel):
    items: list[ProjectResource]
    next_cursor: str | None = None


class AuditResource(BaseModel):
    """``outcome``: ok, or the code of the problem. ``key``: null where no key was needed."""

    id: int
    at: datetime
    project: str
    key: str | None
    action: str
    subject: str
    outcome: str
    client: str
    request_id: str


class AuditList(BaseModel):
    """Newest first."""

    items: list[AuditResource]
    next_cursor: str | None


@router.post("/keys", status_code=201, summary="Make a key", openapi_extra=json_body(KeyRequest, KEY_EXAMPLE))
async def create_key(request: Request, acting: Acting, service: WholeService) -> MadeKey:
    """For the own project, or for any by an admin of the project `default`. The key is shown this once."""
    acting.require("admin")
    wanted = await json_model(request, KeyRequest)
    async with service.database.transaction() as session:
        project = acting.project
        if wanted.project is not None:
            named = await projects.named(session, wanted.project)
            if named.id != acting.project and not acting.operator:
                raise NotFound(f"There is no project {wanted.project!r}.")
            project = named.id
        made = await keys.create(
            session, project=project, name=wanted.name, scopes=wanted.scopes, expires_at=wanted.expires_at
        )
    return MadeKey(**_key(made.row).model_dump(), key=made.secret)


@router.get("/keys", summary="List keys")
async def list_keys(acting: Acting, service: WholeService) -> KeyList:
    """Those of the own project, or all of them for an admin of the project `default`."""
    acting.require("admin")
    async with service.database.transaction() as session:
        found = await keys.listed(session, _seen(acting))
    return KeyList(items=[_key(row) for row in found])


@router.delete("/keys/{key_id}", status_code=204, summary="Revoke a key")
async def revoke_key(
    key_id: Annotated[str, Path(pattern="^[^\\x00]*$", max_length=100)], acting: Acting, service: WholeService
) -> None:
    """It is refused from then on, within two seconds on every replica."""
    acting.require("admin")
    async with service.database.transaction() as session:
        await keys.revoke(session, key_id, _seen(acting))


@router.post(
    "/projects", status_code=201, summary="Make a project", openapi_extra=json_body(ProjectRequest, PROJECT_EXAMPLE)
)
async def create_project(request: Request, acting: Acting, service: WholeService) -> ProjectResource:
    """For an admin of the project `default`."""
    acting.require_operator()
    wanted = await json_model(request, ProjectRequest)
    async with service.database.transaction() as session:
        row = await projects.create(session, wanted.name, wanted.limits.model_dump(exclude_none=True))
    return _project(row)


@router.get("/projects", summary="List projects")
async def list_projects(acting: Acting, service: WholeService) -> ProjectList:
    """The own one, or all of them for an admin of the project `default`."""
    async with service.database.transaction() as session:
        found = await projects.listed(session, _seen(acting))
    return ProjectList(items=[_project(row) for row in found])


@router.get("/audit", summary="Read the audit log")
async def read_audit(
    acting: Acting,
    service: WholeService,
    cursor: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="next_cursor of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 100,
) -> AuditList:
    """Who asked for what change, of the own project, or of all for an admin of the project `default`."""
    acting.require("admin")
    async with service.database.transaction() as session:
        found = await audit.newest(session, _seen(acting), before=cursor, limit=limit + 1)
    page = found[:limit]
    return AuditList(items=[_entry(row) for row in page], next_cursor=str(page[-1].id) if len(found) > limit else None)


def _seen(acting: Principal) -> str | None:
    """The project whose things are seen; None: all."""
    return None if acting.operator else acting.project


def _key(row: ApiKey) -> KeyResource:
    return KeyResource(
        id=row.id,
        project=row.project_id,
        name=row.name,
        shown=row.shown,
        scopes=row.scopes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def _project(row: Project) -> ProjectResource:
    return ProjectResource(id=row.id, name=row.name, limits=Limits.kept(row.limits), created_at=row.created_at)


def _entry(row: AuditEntry) -> AuditResource:
    return AuditResource(
        id=row.id,
        at=row.at,
        project=row.project_id,
        key=row.key_id,
        action=row.action,
        subject=row.subject,
        outcome=row.outcome,
        client=row.client,
        request_id=row.request_id,
    )
