"""The store is away when a worker starts: what was accepted waits for it, and nothing is made in its place."""

import asyncio
from pathlib import Path

import pytest

from app.domain.conversion import State
from tests.jobs.service import TIMEOUT, Client, StartWorker

pytestmark = pytest.mark.anyio


async def waits_for_the_store(client: Client, table: str) -> None:
    async with asyncio.timeout(TIMEOUT):
        while await client.scalar(f"select waiting_for from {table} where waiting_for is not null limit 1") != "store":
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("instead", ["nothing", "an empty directory", "an empty store"])
async def test_a_worker_that_starts_without_the_store_waits_for_it(
    client: Client, start_worker: StartWorker, tmp_path: Path, instead: str
) -> None:
    worker = start_worker()
    assert (await client.ended(await client.submit("plain", b"first"))).state is State.succeeded
    worker.terminate()
    assert worker.wait(TIMEOUT) == 0
    id = await client.submit("plain", b"second")
    read = await client.checkpoint(b"to be read", inspect=True)

    objects, away = tmp_path / "objects", tmp_path / "away"
    objects.rename(away)
    if instead == "an empty directory":
        objects.mkdir()
    if instead == "an empty store":
        for directory in away.glob("**/"):
            (objects / directory.relative_to(away)).mkdir(parents=True)
    there = sorted(objects.rglob("*"))
    start_worker()
    await waits_for_the_store(client, "conversions")
    await waits_for_the_store(client, "checkpoints")
    assert sorted(objects.rglob("*")) == there

    if objects.exists():
        objects.rename(tmp_path / "instead")
    away.rename(objects)
    assert (await client.ended(id)).state is State.succeeded
    async with asyncio.timeout(TIMEOUT):
        while await client.scalar(f"select inspected_at from checkpoint_owners where sha256 = '{read}'") is None:
            await asyncio.sleep(0.05)
    assert await client.scalar(f"select problem from checkpoint_owners where sha256 = '{read}'") is None
