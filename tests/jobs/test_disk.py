"""What a full disk ended is told from what failed by itself, whenever one asks."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from app.domain.errors import ConversionError
from app.jobs.disk import FULL_BELOW, ROOM, Disk
from tests.jobs.service import TIMEOUT

pytestmark = pytest.mark.anyio
UNFORESEEN = ConversionError("The conversion stopped with an unforeseen RuntimeError.").problem()


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@dataclass
class Filled:
    """A file system of 1 GiB that is as full as a test says."""

    free: int = 1 << 30
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def usage(self, _: Path) -> Usage:
        self.asked.set()
        return Usage(1 << 30, (1 << 30) - self.free, self.free)

    async def becomes(self, free: int) -> None:
        """Until who watches has seen it."""
        self.free = free
        self.asked.clear()
        await asyncio.wait_for(self.asked.wait(), TIMEOUT)


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> Filled:
    filled = Filled()
    monkeypatch.setattr("app.jobs.disk.shutil.disk_usage", filled.usage)
    return filled


async def test_what_ends_while_there_is_no_room_ended_for_that_although_its_end_makes_room(filled: Filled) -> None:
    disk = Disk(Path("work"), files=0)
    async with disk.watched():
        await filled.becomes(0)
        await filled.becomes(2 * FULL_BELOW)
    assert disk.ended(UNFORESEEN)


async def test_what_ends_on_a_disk_that_was_full_earlier_failed_by_itself(filled: Filled) -> None:
    disk = Disk(Path("work"), files=0)
    async with disk.watched():
        await filled.becomes(0)
    filled.free = 1 << 30
    async with disk.watched():
        await filled.becomes(1 << 30)
    assert not disk.ended(UNFORESEEN)


async def test_nothing_begins_with_less_room_than_another_try_waits_for(filled: Filled) -> None:
    filled.free = FULL_BELOW + ROOM
    assert Disk(Path("work"), files=FULL_BELOW + 1).scarce
    assert not Disk(Path("work"), files=FULL_BELOW).scarce
    assert not Disk(Path("work"), files=1 << 30).scarce  # which would be waited for in vain
