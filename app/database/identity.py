"""What this database is called, for the store that belongs to it."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import Identity


async def of_database(session: AsyncSession) -> str:
    """The name that the database got when it was made; a copy has the same."""
    return (await session.scalars(select(Identity.id))).one()
