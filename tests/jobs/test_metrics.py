"""What workers count reaches whoever asks the api, and outlives the workers."""

import asyncio

import pytest

from app.database import sums
from app.database.session import Database
from app.jobs.metrics import Publisher, exposition, stage_seconds
from tests.jobs.service import TIMEOUT, Client, StartWorker

pytestmark = pytest.mark.anyio


async def shown(database: Database) -> str:
    async with database.transaction() as session:
        return exposition(await sums.all_sums(session)).decode()


async def test_a_workers_counts_are_shown_and_outlive_it(client: Client, start_worker: StartWorker) -> None:
    worker = start_worker()
    await client.ended(await client.submit("plain"))
    ended = 'recast_conversions_ended_total{state="succeeded",target="onnx"} '
    worker.terminate()
    assert worker.wait(TIMEOUT) == 0
    assert f"{ended}1.0" in await shown(client.database)
    start_worker()
    await client.ended(await client.submit("plain", b"other"))
    async with asyncio.timeout(TIMEOUT):
        while f"{ended}2.0" not in await shown(client.database):
            await asyncio.sleep(0.1)


async def test_each_count_is_added_once_and_buckets_are_in_order(database: Database) -> None:
    publisher = Publisher(database)
    stage_seconds.labels("test").observe(0.02)
    for _ in range(3):
        await publisher.publish()
    lines = [line for line in (await shown(database)).splitlines() if 'stage="test"' in line]
    assert lines[0] == 'recast_stage_seconds_bucket{le="0.01",stage="test"} 0.0'
    assert lines[-2:] == ['recast_stage_seconds_count{stage="test"} 1.0', 'recast_stage_seconds_sum{stage="test"} 0.02']
    values = [float(line.rpartition(" ")[2]) for line in lines[:-2]]
    assert values == sorted(values)
