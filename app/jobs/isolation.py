"""Who may run beside whom in a worker: any number together, or one alone."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Isolation:
    """Lets those in that may have neighbours, and those that must not, in turns.

    A job in which a process died runs alone from then on: whoever dies next to nobody has nobody else to blame, and
    harms nobody.
    """

    def __init__(self) -> None:
        self._together = 0
        self._alone = False
        self._asking = 0
        """How many wait to be alone; nobody else enters meanwhile, so that they are not kept waiting for ever."""
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """Run beside others for the block."""
        await self._until(lambda: not self._alone and not self._asking)
        self._together += 1
        try:
            yield
        finally:
            self._together -= 1
            self._tell()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Run alone for the block."""
        self._asking += 1
        try:
            await self._until(lambda: not self._alone and not self._together)
            self._alone = True
        finally:
            self._asking -= 1
            self._tell()
        try:
            yield
        finally:
            self._alone = False
            self._tell()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
