"""Workers, their supervisor and their clients."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.database.session import Database
from app.jobs.events import Changes
from app.jobs.supervisor import Supervisor
from app.storage.objects import ObjectStore
from tests.jobs.service import Client, StartWorker, worker_processes


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    """One for all tests of a session: its forkserver starts once, without torch."""
    supervisor = Supervisor(preload=("tests.jobs.tasks",))
    yield supervisor
    supervisor.close()


@pytest.fixture
def start_worker(worker_url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts worker processes on the test's database and store, as the role of workers."""
    with worker_processes(worker_url, tmp_path) as start:
        yield start


@pytest.fixture
async def client(database: Database, store: ObjectStore, tmp_path: Path) -> AsyncIterator[Client]:
    async with Changes(database) as changes:
        yield Client(database, store, changes, tmp_path)
