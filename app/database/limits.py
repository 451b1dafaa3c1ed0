"""What a project may use: requests a minute, uploads at once, conversions that wait, that run and of a day, bytes."""

import math
from datetime import timedelta

from pydantic import Field
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import Checkpoint, CheckpointOwner, Conversion, Project, UploadUnderWay
from app.domain.base import Value
from app.domain.conversion import State
from app.domain.errors import QuotaExceeded, RateLimited
from app.domain.identifiers import new_id

_ALLOW = text("""
    insert into rates (key, next_at) values (:key, now() + make_interval(secs => :pause))
    on conflict (key) do update set next_at = greatest(rates.next_at, now()) + make_interval(secs => :pause)
    where greatest(rates.next_at, now()) <= now() + make_interval(secs => :burst)
    returning next_at
""")
_DECIDE_ALONE = text("select pg_advisory_xact_lock(:key, hashtext(:what))")
_LIMITS = 0x11_0175
"""First half of the keys under which it is decided whether a project may have one more of something."""
_WAIT = text("select extract(epoch from next_at - now()) - :burst from rates where key = :key")
MOST = 2**53
"""Of any limit: the integers that JSON's readers keep exactly (RFC 8259, section 6)."""
BURST = 10
"""Requests that may come at once after a pause."""


class Limits(Value):
    """Null: no limit of the project's own."""

    requests_per_minute: int | None = Field(None, gt=0, le=MOST, strict=True)
    uploads: int | None = Field(None, ge=0, le=MOST, strict=True)
    queued: int | None = Field(None, ge=0, le=MOST, strict=True)
    running: int | None = Field(None, ge=0, le=MOST, strict=True)
    conversions_per_day: int | None = Field(None, ge=0, le=MOST, strict=True)
    stored_bytes: int | None = Field(None, ge=0, le=MOST, strict=True)
    share: float | None = Field(None, ge=0.001, le=1000, strict=True)


async def of(session: AsyncSession, project: str) -> Limits:
    found = await session.scalar(select(Project.limits).where(Project.id == project))
    return Limits.kept(found or {})


async def take_request(session: AsyncSession, key: str, per_minute: int) -> None:
    """Count one request of ``key`` by the generic cell rate algorithm. Raises RateLimited.

    One statement decides, so that any number of replicas limit together.
    """
    pause = 60 / per_minute
    burst = pause * (BURST - 1)
    if await session.scalar(_ALLOW, {"key": key, "pause": pause, "burst": burst}) is None:
        wait = await session.scalar(_WAIT, {"key": key, "burst": burst}) or pause
        raise RateLimited(f"{per_minute} requests a minute are admitted.", retry_after=max(1, math.ceil(wait)))


async def decide_alone(session: AsyncSession, what: str, project: str) -> None:
    """From here on to the end of the transaction nobody else decides whether a project may have more of something."""
    await session.execute(_DECIDE_ALONE, {"key": _LIMITS, "what": f"{what} {project}"})


async def refuse_more_conversions(session: AsyncSession, project: str) -> None:
    """Raises QuotaExceeded where one more conversion would be too many."""
    limits = await of(session, project)
    if limits.queued is not None or limits.conversions_per_day is not None:
        await decide_alone(session, "conversions", project)
    if limits.queued is not None:
        query = select(func.count(Conversion.id)).where(
            Conversion.project_id == project, Conversion.state == State.queued
        )
        _refuse("conversions wait", await session.scalar(query) or 0, limits.queued, retry_after=30)
    if limits.conversions_per_day is not None:
        since = func.now() - timedelta(days=1)
        query = select(func.count(Conversion.id)).where(Conversion.project_id == project, Conversion.created_at > since)
        _refuse("conversions were asked for within a day", await session.scalar(query) or 0, limits.conversions_per_day)


async def refuse_more_bytes(session: AsyncSession, project: str, added: int, sha256: str | None = None) -> None:
    """Raises QuotaExceeded where ``added`` more bytes, those of the file ``sha256``, would be too many."""
    limits = await of(session, project)
    if limits.stored_bytes is None:
        return
    await decide_alone(session, "bytes", project)
    query = (
        select(func.coalesce(func.sum(Checkpoint.bytes), 0))
        .join(CheckpointOwner, CheckpointOwner.sha256 == Checkpoint.sha256)
        .where(CheckpointOwner.project_id == project, CheckpointOwner.sha256.is_distinct_from(sha256))
    )
    stored = int(await session.scalar(query) or 0)
    if stored + added > limits.stored_bytes:
        raise QuotaExceeded(
            f"{stored} bytes are stored, {added} are to come; the project may store {limits.stored_bytes}.",
            limit=limits.stored_bytes,
        )


async def take_place(session: AsyncSession, project: str, seconds: float) -> str | None:
    """Count one more upload that is under way, at whichever replica, for so long unless it is renewed; gives its id, or
    None where the project may have any number. Raises QuotaExceeded."""
    limits = await of(session, project)
    if limits.uploads is None:
        return None
    await decide_alone(session, "uploads", project)
    under_way = UploadUnderWay.project_id == project
    await session.execute(delete(UploadUnderWay).where(under_way, UploadUnderWay.until < func.now()))
    count = await session.scalar(select(func.count()).select_from(UploadUnderWay).where(under_way)) or 0
    _refuse("uploads are under way", count, limits.uploads, retry_after=5)
    place = UploadUnderWay(id=new_id("place"), project_id=project, until=func.now() + timedelta(seconds=seconds))
    session.add(place)
    await session.flush()
    return place.id


async def keep_place(session: AsyncSession, id: str, seconds: float) -> None:
    """Count an upload for so much longer."""
    until = func.now() + timedelta(seconds=seconds)
    await session.execute(update(UploadUnderWay).where(UploadUnderWay.id == id).values(until=until))


async def leave_place(session: AsyncSession, id: str) -> None:
    await session.execute(delete(UploadUnderWay).where(UploadUnderWay.id == id))


def _refuse(what: str, count: int, limit: int, retry_after: int = 3600) -> None:
    if count >= limit:
        raise QuotaExceeded(f"{count} {what}; the project may have {limit}.", limit=limit, retry_after=retry_after)
