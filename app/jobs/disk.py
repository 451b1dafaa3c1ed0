"""A full disk is waited for: what ended because of it is done again once there is room."""

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.errors import InsufficientStorage, Problem
from app.jobs.patience import delays

FULL_BELOW = 16 << 20
"""Bytes left below which whatever went wrong is taken to have gone wrong for want of room: libraries say it in words of
their own, and a process that writes to mapped memory dies of SIGBUS."""
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

    def ended(self, problem: Problem) -> bool:
        """Whether it was the disk that ended what ended with this problem.

        Not for ever: what finds no room although there was some each time it began fills the disk itself, or lies.
        """
        self._ended += 1
        full = problem.code == InsufficientStorage.code or shutil.disk_usage(self.directory).free < FULL_BELOW
        return full and self._ended <= MOST_TRIES

    async def until_room(self) -> None:
        """Wait, at least a moment, until there is room. Raises InsufficientStorage where there never can be."""
        await asyncio.sleep(next(self._delays))
        needed = ROOM + self.files
        while (usage := shutil.disk_usage(self.directory)).free < needed:
            if usage.total < needed:
                raise InsufficientStorage(f"It needs {needed:,} bytes on a disk of {usage.total:,}.")
            await asyncio.sleep(next(self._delays))
