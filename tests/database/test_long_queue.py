"""The small version of scripts/load: what is asked of the database looks at as much of it, however many wait.

Blocks that the server touched are compared, not seconds: they are the same on a busy machine.
"""

from dataclasses import replace

import pytest

from scripts.capacity import Fleet, simulate
from scripts.load import compare

pytestmark = pytest.mark.anyio

FEW = 60
"""Blocks more than on an empty database: indexes have grown by some levels, and a project each is looked at."""


async def test_a_long_queue_is_not_read_by_what_every_request_and_worker_asks(database_url):
    empty, full = await compare(database_url, waiting=20_000, ended=5_000, owners=10, repeats=5)
    for name in ("submit", "look for a reading", "poll", "first page of the list", "look for dead workers"):
        assert full[name].blocks <= empty[name].blocks + FEW, name
    assert full["take, run and end"].blocks <= empty["take, run and end"].blocks + 5 * FEW
    assert full["count the queue"].blocks > 2 * FEW  # which is why it is done once in a while only


def test_a_fleet_does_what_its_workers_can_until_the_database_is_full():
    fleet = Fleet(workers=10, children=2, seconds=0.6, database_seconds=0.010, database_cores=2, flush=0.001)
    few = simulate(fleet, 5_000)
    assert few.rate == pytest.approx(20 / (0.6 + 0.010 + 13 * 0.001), rel=0.05)
    assert max(few.busy, few.locked) < 0.5
    many = simulate(replace(fleet, workers=400), 20_000)
    assert many.rate == pytest.approx(2 / 0.010, rel=0.05)
    assert many.busy > 0.95
    slow_disk = simulate(replace(fleet, workers=400, flush=0.004), 20_000)
    assert slow_disk.rate == pytest.approx(1 / (3 * 0.004), rel=0.05)
    assert slow_disk.locked > 0.95
