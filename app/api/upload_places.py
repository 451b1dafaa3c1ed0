"""The uploads that a project has under way at all replicas together, where it may have so many only."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request

from app.api.service import Service
from app.database import limits
from app.database.projects import owner_of_new
from app.database.session import Database

LASTS = 60.0
"""Seconds after which a place is free whose process died."""
RENEWED = 20.0
"""Seconds between two signs that an upload still goes on."""


@asynccontextmanager
async def place(request: Request, service: Service) -> AsyncIterator[None]:
    """A place for one upload, of its client and of its project, for the block.

    Raises TooManyUploads, QuotaExceeded, InsufficientStorage.
    """
    with service.uploads.slot(request):
        async with service.database.transaction() as session:
            id = await limits.take_place(session, owner_of_new(session), LASTS)
        if id is None:
            yield
            return
        keeping = asyncio.create_task(_keep(service.database, id))
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(SQLAlchemyError):  # it is free before long
                async with service.database.transaction() as session:
                    await limits.leave_place(session, id)


async def _keep(database: Database, id: str) -> None:
    while True:
        await asyncio.sleep(RENEWED)
        with suppress(SQLAlchemyError):
            async with database.transaction() as session:
                await limits.keep_place(session, id, LASTS)
