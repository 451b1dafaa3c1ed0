"""Outages are waited for: what depends on a part of the service that is away is done once the part is back."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

from app.domain.errors import InsufficientStorage, Unavailable, disk_ran_out

log = structlog.get_logger(__name__)

FIRST_DELAY = 0.25
LONGEST_DELAY = 2.0
"""Seconds between tries, doubled from the first: what waits goes on within this time of the part's return."""

DatabaseAway = (OperationalError, InterfaceError, TimeoutError)
"""What SQLAlchemy raises when the database cannot be reached or hangs up."""

DATABASE, STORE, DISK_SPACE, SOURCE = "database", "store", "disk_space", "source"
"""The parts that may be away, as the resource names them; a source is where a file is fetched from."""

Result = TypeVar("Result")
Tell = Callable[[str | None], Awaitable[None]]
"""Told which part is waited for, and None once it is back."""


def away(error: BaseException) -> str | None:
    """The part of the service whose absence an error tells of; None when it tells of something else."""
    if isinstance(error, DatabaseAway):
        return DATABASE
    if isinstance(error, Unavailable):
        return STORE
    if isinstance(error, InsufficientStorage) or disk_ran_out(error):
        return DISK_SPACE
    return None


def delays() -> Iterator[float]:
    """Seconds to wait before each further try, without end."""
    delay = FIRST_DELAY
    while True:
        yield delay
        delay = min(2 * delay, LONGEST_DELAY)


async def patiently(operation: Callable[[], Awaitable[Result]], tell: Tell | None = None) -> Result:
    """Do an operation that may be repeated; again and again for as long as a part that it needs is away."""
    told = None
    for delay in delays():
        try:
            result = await operation()
        except Exception as error:
            part = away(error)
            if part is None:
                raise
            log.warning("waiting", part=part, error=str(error).splitlines()[0])
            if tell and part != told:
                await tell(part)
            told = part
        else:
            if tell and told:
                await tell(None)
            return result
        await asyncio.sleep(delay)
    raise AssertionError
