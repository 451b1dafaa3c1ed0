"""What a conversion process prints, on its way to the log that clients read: while it runs, bounded and scrubbed.

Nothing that is printed is believed or waited for: it arrives late or in part where there is too much of it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import structlog

from app.database import logs
from app.database.session import Database
from app.database.templates import Holder
from app.domain.scrubbing import LONGEST_LINE, scrubbed
from app.jobs.patience import DatabaseAway
from app.threads import in_thread

log = structlog.get_logger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at what was printed."""
MOST_AT_ONCE = 32 << 10
"""Bytes of one piece. Of what is printed faster than one in an INTERVAL the end is told."""


class ConversionLog:
    """The log of one attempt."""

    def __init__(self, database: Database, holder: Holder) -> None:
        self._database = database
        self._holder = holder
        self._file = -1
        self._read = 0
        self._rest = b""
        """The beginning of a line whose end was not printed yet."""
        self._waiting = ""
        """Lines that the database has not taken yet."""

    @asynccontextmanager
    async def following(self, path: Path) -> AsyncIterator[None]:
        """Pass on what is added to a file while the block runs; all of it is passed on when it ends."""
        self._read, self._rest = 0, b""
        self._file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        ended = asyncio.Event()
        follower = asyncio.create_task(self._follow(ended))
        try:
            yield
        finally:
            ended.set()
            await follower
            await self._pass_on(last=True)
            os.close(self._file)

    async def _follow(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            await self._pass_on()
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await ended.wait()

    async def _pass_on(self, *, last: bool = False) -> None:
        self._waiting += await in_thread(partial(self._news, last=last))
        await self._send()

    def _news(self, *, last: bool) -> str:
        """The whole lines that were added since the last time; with ``last`` also one without an end."""
        new = os.fstat(self._file).st_size - self._read
        skipped = max(0, new - MOST_AT_ONCE)
        block = os.pread(self._file, min(new, MOST_AT_ONCE), self._read + skipped)
        self._read += skipped + len(block)
        if skipped:
            self._rest = b""
            block = block.partition(b"\n")[2]
        whole, end, rest = (self._rest + block).rpartition(b"\n")
        if last or len(rest) > LONGEST_LINE:
            whole, end, rest = self._rest + block, b"", b""
        self._rest = rest
        lines = whole.decode(errors="replace").split("\n") if whole or end else []
        if skipped:
            lines.insert(0, f"[... {skipped} bytes left out ...]")
        return "".join(scrubbed(line) + "\n" for line in lines)

    async def _send(self) -> None:
        """What a database that is away for a moment does not take is sent with what comes next."""
        said = self._waiting[-MOST_AT_ONCE:]
        if not said:
            return
        try:
            async with self._database.transaction() as session:
                await logs.append(session, self._holder.conversion_id, self._holder.attempt, said)
            self._waiting = ""
        except DatabaseAway as error:
            log.warning("log_not_recorded", conversion=self._holder.conversion_id, error=str(error).splitlines()[0])
            self._waiting = said
