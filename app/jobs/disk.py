"""A full disk is waited for: what ended because of it is done again once there is room."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.errors import InsufficientStorage, Problem
from app.jobs.patience import DISK_SPACE, Tell, delays

FULL_BELOW = 16 << 20
"""Bytes left below which whatever went wrong is taken to have gone wrong for want of room: libraries say it in words of
their own, and a process that writes to mapped memory dies of SIGBUS."""
LOOKED_EVERY = 0.2
"""Seconds between two looks at the room while something runs."""
MOST_TRIES = 5
"""How often one attempt is made again because of the disk."""
ROOM = 64 << 20
"""Bytes beyond the files themselves that must be free before another try."""


@dataclass
class Disk:
    """The file system of a directory, on which something needs ``files`` bytes."""

    directory: Path
    files: int
    _delays: Iterator[float] = field(default_factory=delays, init=False)
    _ended: int = field(default=0, init=False)
    _least: int = field(default=FULL_BELOW, init=False)
    """Bytes that were free during the last try, when there were fewest."""

    @property
    def scarce(self) -> bool:
        """Whether there is less room than a try waits for, on a disk that can have so much."""
        usage = shutil.disk_usage(self.directory)
        return usage.free < self._needed <= usage.total

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """For a try, note how little room there is: whoever finds none gives room back with its end, so that none is
        missing any more when somebody asks why it ended."""
        self._least = self._free

        async def watch() -> None:
            while True:
                await asyncio.sleep(LOOKED_EVERY)
                self._least = min(self._least, self._free)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    @property
    def _needed(self) -> int:
        return ROOM + self.files

    @property
    def _free(self) -> int:
        return shutil.disk_usage(self.directory).free

    def ended(self, problem: Problem) -> bool:
        """Whether it was the disk that ended what ended with this problem.

        Not for ever: what finds no room although there was some each time it began fills the disk itself, or lies.
        """
        self._ended += 1
        full = problem.code == InsufficientStorage.code or min(self._least, self._free) < FULL_BELOW
        return full and self._ended <= MOST_TRIES

    async def before_a_try(self, tell: Tell) -> None:
        """Where room is scarce, ``until_room``."""
        if self.scarce:
            await self.until_room(tell)

    async def until_room(self, tell: Tell) -> None:
        """``tell`` that it is waited for, and wait, at least a moment, until there is room.

        Raises InsufficientStorage where there never can be.
        """
        await tell(DISK_SPACE)
        await asyncio.sleep(next(self._delays))
        while (usage := shutil.disk_usage(self.directory)).free < self._needed:
            if usage.total < self._needed:
                raise InsufficientStorage(f"It needs {self._needed:,} bytes on a disk of {usage.total:,}.")
            await asyncio.sleep(next(self._delays))
