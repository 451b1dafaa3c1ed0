"""API keys. Only their sha256 is kept: they are random, so that nothing slower is needed to keep them secret."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import ApiKey
from app.domain.errors import NotFound
from app.domain.identifiers import new_id

PREFIX = "rk_"
FORM = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
SHOWN = 8
"""Characters of a key that are kept readable, so that people can tell their keys apart."""
NOTED_EVERY = timedelta(minutes=1)
SCOPES = ("read", "convert", "admin")


@dataclass(frozen=True)
class NewKey:
    """A key and, this once, its secret."""

    row: ApiKey
    secret: str


async def create(
    session: AsyncSession, *, project: str, name: str, scopes: Sequence[str], expires_at: datetime | None
) -> NewKey:
    secret = PREFIX + secrets.token_urlsafe(32)
    row = ApiKey(
        id=new_id("key"),
        project_id=project,
        name=name,
        digest=digest(secret),
        shown=secret[: len(PREFIX) + SHOWN],
        scopes=list(scopes),
        expires_at=expires_at,
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return NewKey(row, secret)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


async def find_valid(session: AsyncSession, secret: str) -> ApiKey | None:
    """The key of that secret; None for one that is unknown, revoked or expired. Notes once a minute that it is used."""
    if not FORM.fullmatch(secret):
        return None  # without a question to the database, which strangers could make many of
    row = await session.scalar(select(ApiKey).where(ApiKey.digest == digest(secret), valid()))
    if row is not None:
        stale = ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at < func.now() - NOTED_EVERY)
        await session.execute(update(ApiKey).where(ApiKey.id == row.id, stale).values(last_used_at=func.now()))
    return row


async def listed(session: AsyncSession, project: str | None) -> Sequence[ApiKey]:
    """The keys of a project, or all of them, newest first."""
    query = select(ApiKey).order_by(ApiKey.id.desc())
    return (await session.scalars(query if project is None else query.where(ApiKey.project_id == project))).all()


async def revoke(session: AsyncSession, id: str, project: str | None) -> ApiKey:
    """Make a key of the project (None: of any) useless from now on. Raises NotFound."""
    row = await session.scalar(select(ApiKey).where(ApiKey.id == id).with_for_update())
    if row is None or (project is not None and row.project_id != project):
        raise NotFound(f"There is no key {id[:100]!r}.")
    row.revoked_at = row.revoked_at or datetime.now(row.created_at.tzinfo)
    return row


async def any_valid(session: AsyncSession) -> bool:
    return await session.scalar(select(ApiKey.id).where(valid()).limit(1)) is not None


def valid() -> ColumnElement[bool]:
    """The condition that a key is neither revoked nor expired."""
    return ApiKey.revoked_at.is_(None) & (ApiKey.expires_at.is_(None) | (ApiKey.expires_at > func.now()))
