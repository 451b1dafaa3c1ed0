"""Resumable uploads: how much of a file has arrived, and in which objects of the store it lies meanwhile.

Whoever writes to an upload takes its lease; a later one takes it from them. So a connection that still hangs somewhere
cannot add to an upload that its client goes on with elsewhere, at another replica too.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import limits
from app.database.projects import owner_of_new
from app.database.tables import Upload, UploadPart
from app.domain.errors import NotFound, Problem, RecastError
from app.domain.identifiers import new_id

ID = re.compile(r"upl_[0-9a-f]{32}")
MOST_UNFINISHED = 1000
"""Of one project."""
_DROP_EXPIRED = text("delete from uploads where expires_at < now()")


class LeaseLost(Exception):
    """Somebody else writes to the upload by now, or it was ended."""


class TooManyUnfinished(RecastError):
    code, status, title = "too_many_unfinished_uploads", 429, "Too many uploads have been begun and not finished"
    hint = "Finish or DELETE some of them; those that nothing arrives for expire by themselves."


async def create(
    session: AsyncSession,
    *,
    length: int,
    kept: timedelta,
    told: str | None,
    filename: str | None,
    name: str | None,
    labels: dict[str, str] | None,
    expected_sha256: str | None,
) -> Upload:
    """Begin an upload of ``length`` bytes for the session's project. Raises QuotaExceeded, TooManyUnfinished."""
    project = owner_of_new(session)
    query = select(func.count(), func.coalesce(func.sum(Upload.length), 0))
    unfinished = query.where(Upload.project_id == project, Upload.ended_at.is_(None))
    await limits.decide_alone(session, "bytes", project)
    count, announced = (await session.execute(unfinished)).one()
    await limits.refuse_more_bytes(session, project, int(announced) + length)
    if count >= MOST_UNFINISHED:
        raise TooManyUnfinished(f"{count} uploads of this project are unfinished.", retry_after=600)
    upload = Upload(
        id=new_id("upl"),
        project_id=project,
        length=length,
        told=told,
        filename=filename,
        name=name,
        labels=labels,
        expected_sha256=expected_sha256,
        expires_at=func.now() + kept,
    )
    session.add(upload)
    await session.flush()
    await session.refresh(upload)
    return upload


async def find(session: AsyncSession, id: str) -> Upload:
    """The upload of that id; NotFound."""
    found = await session.get(Upload, id, populate_existing=True) if ID.fullmatch(id) else None
    if found is None:
        raise NotFound(f"There is no upload {id[:100]!r}.")
    return found


async def lease(session: AsyncSession, id: str) -> Upload:
    """As ``find``, and nobody who found it before can write to it any more."""
    await find(session, id)
    await session.execute(update(Upload).where(Upload.id == id).values(lease=Upload.lease + 1))
    return await find(session, id)


async def parts(session: AsyncSession, id: str) -> Sequence[UploadPart]:
    """All parts, in the order of the file."""
    query = select(UploadPart).where(UploadPart.upload_id == id).order_by(UploadPart.start)
    return (await session.scalars(query)).all()


async def add_parts(session: AsyncSession, upload: Upload, arrived: Sequence[UploadPart], kept: timedelta) -> int:
    """Record stored parts, which take the place of those within them; gives what has arrived in all.

    Raises LeaseLost.
    """
    received = arrived[-1].start + arrived[-1].bytes
    held = (Upload.id == upload.id) & (Upload.lease == upload.lease) & Upload.ended_at.is_(None)
    changed = update(Upload).where(held).values(received=received, expires_at=func.now() + kept)
    if await session.scalar(changed.returning(Upload.id)) is None:
        raise LeaseLost(upload.id)
    within = (UploadPart.upload_id == upload.id) & (UploadPart.start >= arrived[0].start)
    await session.execute(delete(UploadPart).where(within))
    session.add_all(arrived)
    return received


async def end(
    session: AsyncSession,
    id: str,
    kept: timedelta,
    *,
    checkpoint_sha256: str | None = None,
    problem: Problem | None = None,
) -> None:
    """Record what became of a file that has arrived; its parts are not needed any more."""
    stored: dict[str, Any] | None = None if problem is None else problem.model_dump(mode="json")
    ended = {"ended_at": func.now(), "expires_at": func.now() + kept}
    await session.execute(
        update(Upload).where(Upload.id == id).values(checkpoint_sha256=checkpoint_sha256, problem=stored, **ended)
    )
    await session.execute(delete(UploadPart).where(UploadPart.upload_id == id))


async def remove(session: AsyncSession, id: str) -> None:
    """Forget an upload; NotFound."""
    await session.delete(await find(session, id))


async def drop_expired(session: AsyncSession) -> None:
    """Forget uploads for which nothing has arrived in a long time, and those that ended as long ago."""
    await session.execute(_DROP_EXPIRED)
