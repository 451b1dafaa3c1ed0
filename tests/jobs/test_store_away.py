"""The store is away when a worker starts, or hangs: what was accepted waits, and nothing is made in its place."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from app.database.conversions import NewConversion
from app.domain.conversion import State
from app.jobs import queue
from app.storage.opening import open_store
from app.targets.onnx.spec import OnnxOptions
from tests.jobs.service import TIMEOUT, Client, StartWorker
from tests.remotes.servers import KEY, SECRET, s3_server

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


@contextmanager
def hanging(directory: Path) -> Iterator[None]:
    """The server of that directory takes connections meanwhile, and answers nothing."""
    server = next(
        found for found in psutil.process_iter(["cmdline"]) if str(directory) in (found.info["cmdline"] or ())
    )
    server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send_signal(signal.SIGCONT)


async def test_a_store_that_takes_requests_and_never_answers_is_waited_for(
    client: Client, start_worker: StartWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For thirty seconds unless an operator says otherwise, as here."""
    told = {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1", "ALLOW_HTTP": "true"}
    with s3_server(tmp_path / "s3") as endpoint:
        for name, value in {**told, "ENDPOINT": endpoint, "READ_TIMEOUT": "1s"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        client.store = open_store("s3://models", tmp_path / "scratch")
        worker = start_worker(store_url="s3://models")
        assert (await client.ended(await client.submit("plain"))).state is State.succeeded
        running = await client.submit("sleep:3")
        await client.started(running)
        new = NewConversion(await client.checkpoint(b"other weights"), "test/plain", OnnxOptions())
        with hanging(tmp_path / "s3"):
            queued = (await queue.submit(client.database, new)).conversion.id
            waiting = (
                f"select count(*) from conversions where waiting_for = 'store' and id in ('{running}', '{queued}')"
            )
            async with asyncio.timeout(TIMEOUT):
                while await client.scalar(waiting) != 2:
                    await asyncio.sleep(0.05)
        for id in (running, queued):
            conversion = await client.ended(id)
            assert (conversion.state, conversion.attempt, conversion.waiting_for) == (State.succeeded, 1, None)
        assert worker.poll() is None
