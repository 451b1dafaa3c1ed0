"""The database is away, or everything is killed at once: nothing that was accepted is lost."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from app.database.embedded import EmbeddedPostgres
from app.database.migrations import migrate
from app.domain.conversion import State
from tests.jobs.service import TIMEOUT, Client, StartWorker

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def postgres_dir() -> Iterator[Path]:
    """The data directory of a server of the test's own."""
    with TemporaryDirectory(prefix="recast-test-") as directory:
        yield Path(directory)


@pytest.fixture
def database_url(postgres_dir: Path) -> Iterator[str]:
    with EmbeddedPostgres(postgres_dir) as server:
        migrate(server.url)
        yield server.url


@pytest.fixture
def worker_url(database_url: str) -> str:
    """Of one role for all, as in a service that is not divided."""
    return database_url


def kill_server(postgres_dir: Path) -> None:
    pid = int((postgres_dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    server = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    server.wait(20)


async def test_a_conversion_outlives_a_killed_database(
    client: Client, start_worker: StartWorker, postgres_dir: Path
) -> None:
    start_worker(worker_lost_after=15)
    running, waiting = await client.submit("sleep:2"), await client.submit("plain")
    await client.started(running)
    kill_server(postgres_dir)
    with EmbeddedPostgres(postgres_dir):
        for id in (running, waiting):
            assert (await client.ended(id)).state is State.succeeded


async def test_what_was_accepted_is_finished_after_a_kill_of_everything(
    client: Client, start_worker: StartWorker, postgres_dir: Path
) -> None:
    worker = start_worker()
    running, waiting = await client.submit("sleep:2"), await client.submit("plain", b"other weights")
    await client.started(running)
    worker.kill()
    kill_server(postgres_dir)
    with EmbeddedPostgres(postgres_dir):
        start_worker()
        for id, content in ((running, b"weights"), (waiting, b"other weights")):
            conversion = await client.ended(id)
            assert conversion.state is State.succeeded
            async with client.store.local(conversion.checkpoint_sha256) as path:
                assert path.read_bytes() == content


async def test_what_runs_through_an_outage_is_not_rescued(
    client: Client, start_worker: StartWorker, postgres_dir: Path
) -> None:
    """However much longer the outage is than a worker may be silent."""
    workers = [start_worker(worker_lost_after=2.5) for _ in range(2)]
    id = await client.submit("sleep:8")
    await client.started(id)
    kill_server(postgres_dir)
    await asyncio.sleep(4)
    with EmbeddedPostgres(postgres_dir):
        conversion = await client.ended(id)
        assert (conversion.state, conversion.attempt, conversion.workers_lost) == (State.succeeded, 1, 0)
        assert (await client.ended(await client.submit("plain", b"other"))).state is State.succeeded
        assert [worker.poll() for worker in workers] == [None, None]


async def test_a_worker_that_is_told_to_stop_while_the_database_is_away_ends_and_its_conversion_is_done_by_another(
    client: Client, start_worker: StartWorker, postgres_dir: Path
) -> None:
    worker = start_worker(drain_timeout=1)
    id = await client.submit("sleep:3")
    await client.started(id)
    kill_server(postgres_dir)
    worker.terminate()
    assert worker.wait(TIMEOUT) == 0
    with EmbeddedPostgres(postgres_dir):
        start_worker()
        conversion = await client.ended(id)
        assert (conversion.state, conversion.attempt) == (State.succeeded, 2)


async def test_the_time_of_a_conversion_stands_still_while_its_template_cannot_be_asked_for(
    client: Client, start_worker: StartWorker, postgres_dir: Path
) -> None:
    start_worker(worker_lost_after=15)
    id = await client.submit(f"template_late:{'ab' * 32}", timeout=10)
    await client.started(id)
    kill_server(postgres_dir)
    await asyncio.sleep(12)
    with EmbeddedPostgres(postgres_dir):
        conversion = await client.ended(id)
        assert (conversion.state, conversion.attempt) == (State.succeeded, 1)
