"""Outliving a short absence of the database or the store: what was computed for minutes is not thrown away for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

from app.domain.errors import Unavailable

log = structlog.get_logger(__name__)

DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0)
"""Seconds between tries; together a minute and a half."""

DatabaseAway = (OperationalError, InterfaceError, TimeoutError)
"""What SQLAlchemy raises when the database cannot be reached or hangs up."""

Result = TypeVar("Result")


async def patiently(operation: Callable[[], Awaitable[Result]]) -> Result:
    """Do an operation that may be repeated, again and again while database or store are away; then let the error be."""
    for delay in DELAYS:
        try:
            return await operation()
        except (*DatabaseAway, Unavailable) as error:
            log.warning("waiting_for_database_or_store", seconds=delay, error=str(error).splitlines()[0])
        await asyncio.sleep(delay)
    return await operation()
