"""What this database is called, for the store that belongs to it."""

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.tables import Identity


async def of_database(session: AsyncSession) -> Identity:
    """The name that the database got when it was made, a copy has the same; and whether its store knows it."""
    return (await session.scalars(select(Identity))).one()


async def record_claim(session: AsyncSession) -> None:
    """Remember that the store carries the database's name from now on."""
    await session.execute(update(Identity).values(store_claimed_at=func.now()))
