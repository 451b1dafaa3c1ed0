"""Many clients that wait for conversions: pollers and followers of events, beside a bare handler in the same seconds.

Each poller asks once a second for a conversion, for the first page of the list, and the bare handler for the same
conversion, so that whatever else runs meanwhile delays all three alike. The clients speak HTTP/1.1 over a kept
connection by themselves: a library of clients would cost more than what is measured.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PAUSE = 1.0
"""Seconds between two rounds of a poller, as clients that wait pause."""
SECONDS_FOR_ONE = 30.0
"""After which a request without an answer counts as an error."""


@dataclass
class Readings:
    """Seconds of every answer, by what was asked; and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    events: int = 0

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            self.errors.append(f"{what}: {type(error).__name__}: {error}")
        else:
            self.seconds.setdefault(what, []).append(time.perf_counter() - began)


class Connection:
    """One kept HTTP/1.1 connection to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> bytes:
        """The body. Raises ValueError for another status than 200."""
        async with asyncio.timeout(SECONDS_FOR_ONE):
            reader = await self._ask(path)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(_content_length(head))
        if not head.startswith(b"HTTP/1.1 200"):
            self._streams = None
            raise ValueError(head.partition(b"\r\n")[0].decode())
        return body

    async def follow(self, path: str, readings: Readings) -> None:
        """Count the events of a stream until it ends, which it does with the conversion."""
        reader = await self._ask(path)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(head.partition(b"\r\n")[0].decode())
        while line := await reader.readline():
            readings.events += line.startswith(b"event:")
            if line == b"0\r\n":
                return

    async def _ask(self, path: str) -> asyncio.StreamReader:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n".encode())
        await writer.drain()
        return reader


async def read_meanwhile(
    service: int, bare: int, conversions: list[str], *, pollers: int, followers: int, over: asyncio.Event
) -> Readings:
    """Poll and follow these conversions on the ports of service and bare handler until ``over``."""
    readings = Readings()
    async with asyncio.TaskGroup() as group:
        for number in range(pollers):
            chosen = conversions[number % len(conversions)]
            group.create_task(_poll(service, bare, chosen, readings, over))
        following = [
            group.create_task(_follow(service, conversions[number % len(conversions)], readings))
            for number in range(followers)
        ]
        await over.wait()
        if following:
            await asyncio.wait(following, timeout=SECONDS_FOR_ONE)
        for one in following:
            one.cancel()
    return readings


async def _poll(service: int, bare: int, conversion: str, readings: Readings, over: asyncio.Event) -> None:
    ours, theirs = Connection(service), Connection(bare)
    await asyncio.sleep(random.random() * PAUSE)
    while not over.is_set():
        with readings.timed("bare"):
            await theirs.get(f"/{conversion}")
        with readings.timed("conversion"):
            await ours.get(f"/v1/conversions/{conversion}")
        if random.random() < 0.1:  # whoever waits looks at the list now and then
            with readings.timed("list"):
                await ours.get("/v1/conversions?limit=20")
        await asyncio.sleep(PAUSE)


async def _follow(service: int, conversion: str, readings: Readings) -> None:
    with readings.timed("events"):
        await Connection(service).follow(f"/v1/conversions/{conversion}/events", readings)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError("an answer without a length")
