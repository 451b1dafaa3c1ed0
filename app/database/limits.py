"""What a project may use: requests a minute, conversions that wait, conversions a day, bytes stored."""

import math
from datetime import timedelta

from pydantic import Field
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import Checkpoint, CheckpointOwner, Conversion, Project
from app.domain.base import Value
from app.domain.conversion import State
from app.domain.errors import QuotaExceeded, RateLimited

_ALLOW = text("""
    insert into rates (key, next_at) values (:key, now() + make_interval(secs => :pause))
    on conflict (key) do update set next_at = greatest(rates.next_at, now()) + make_interval(secs => :pause)
    where greatest(rates.next_at, now()) <= now() + make_interval(secs => :burst)
    returning next_at
""")
_WAIT = text("select extract(epoch from next_at - now()) - :burst from rates where key = :key")
BURST = 10
"""Requests that may come at once after a pause."""


class Limits(Value):
    """Null: no limit of the project's own."""

    requests_per_minute: int | None = Field(None, gt=0, strict=True)
    queued: int | None = Field(None, ge=0, strict=True)
    conversions_per_day: int | None = Field(None, ge=0, strict=True)
    stored_bytes: int | None = Field(None, ge=0, strict=True)
    share: float | None = Field(None, gt=0, le=1000, strict=True)


async def of(session: AsyncSession, project: str) -> Limits:
    found = await session.scalar(select(Project.limits).where(Project.id == project))
    return Limits.model_validate(found or {})


async def take_request(session: AsyncSession, key: str, per_minute: int) -> None:
    """Count one request of ``key`` by the generic cell rate algorithm. Raises RateLimited.

    One statement decides, so that any number of replicas limit together.
    """
    pause = 60 / per_minute
    burst = pause * (BURST - 1)
    if await session.scalar(_ALLOW, {"key": key, "pause": pause, "burst": burst}) is None:
        wait = await session.scalar(_WAIT, {"key": key, "burst": burst}) or pause
        raise RateLimited(f"{per_minute} requests a minute are admitted.", retry_after=max(1, math.ceil(wait)))


async def refuse_more_conversions(session: AsyncSession, project: str) -> None:
    """Raises QuotaExceeded where one more conversion would be too many."""
    limits = await of(session, project)
    if limits.queued is not None:
        query = select(func.count(Conversion.id)).where(
            Conversion.project_id == project, Conversion.state == State.queued
        )
        _refuse("conversions wait", await session.scalar(query) or 0, limits.queued, retry_after=30)
    if limits.conversions_per_day is not None:
        since = func.now() - timedelta(days=1)
        query = select(func.count(Conversion.id)).where(Conversion.project_id == project, Conversion.created_at > since)
        _refuse("conversions were asked for within a day", await session.scalar(query) or 0, limits.conversions_per_day)


async def refuse_more_bytes(session: AsyncSession, project: str, added: int) -> None:
    """Raises QuotaExceeded where ``added`` more bytes of checkpoints would be too many."""
    limits = await of(session, project)
    if limits.stored_bytes is None:
        return
    query = (
        select(func.coalesce(func.sum(Checkpoint.bytes), 0))
        .join(CheckpointOwner, CheckpointOwner.sha256 == Checkpoint.sha256)
        .where(CheckpointOwner.project_id == project)
    )
    stored = int(await session.scalar(query) or 0)
    if stored + added > limits.stored_bytes:
        raise QuotaExceeded(
            f"{stored} bytes are stored, {added} are to come; the project may store {limits.stored_bytes}.",
            limit=limits.stored_bytes,
        )


def _refuse(what: str, count: int, limit: int, retry_after: int = 3600) -> None:
    if count >= limit:
        raise QuotaExceeded(f"{count} {what}; the project may have {limit}.", limit=limit, retry_after=retry_after)
