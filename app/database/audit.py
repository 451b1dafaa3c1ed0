"""The audit log: who did what. Rows are added and never changed."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import AuditEntry


def record(session: AsyncSession, entry: AuditEntry) -> None:
    session.add(entry)


async def newest(session: AsyncSession, project: str | None, *, before: int | None, limit: int) -> Sequence[AuditEntry]:
    """Entries of a project, or all of them, newest first; ``before``: only ids below this one (the cursor)."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if project is not None:
        query = query.where(AuditEntry.project_id == project)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    return (await session.scalars(query)).all()
