"""Workers as processes of their own, and what clients do with them, on the service's own functions."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from app.database.conversions import NewConversion
from app.database.session import Database
from app.database.tables import Conversion
from app.domain.conversion import OnnxOptions
from app.jobs import queue
from app.jobs.events import Changes
from app.storage.objects import ObjectStore
from tests.jobs.chunks import chunks_of

TIMEOUT = 60
PROJECT = Path(__file__).parents[2]
StartWorker = Callable[..., subprocess.Popen[bytes]]


@contextmanager
def worker_processes(database_url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """A function that starts a worker with the given settings; those that still run at the end are killed."""
    workers = []

    def start(**settings: object) -> subprocess.Popen[bytes]:
        defaults = {"data_dir": tmp_path, "worker_lost_after": 2.5, "drain_timeout": 20, "children": 2}
        environment = {f"RECAST_{name.upper()}": str(value) for name, value in (defaults | settings).items()}
        with (tmp_path / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.jobs.worker_process", database_url],
                env=os.environ | environment,
                cwd=PROJECT,
                stdout=log,
                stderr=log,
            )
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()


@dataclass
class Client:
    """What clients do, on the service's own functions."""

    database: Database
    store: ObjectStore
    changes: Changes
    directory: Path

    async def checkpoint(self, content: bytes, *, inspect: bool = False) -> str:
        stored = await self.store.receive(chunks_of(content), limit=1000)
        await queue.register_checkpoint(self.database, stored, "weights.pth", inspect=inspect)
        return stored.sha256

    async def submit(self, behaviour: str, content: bytes = b"weights") -> str:
        new = NewConversion(await self.checkpoint(content), f"test/{behaviour}", OnnxOptions())
        return (await queue.submit(self.database, new)).conversion.id

    async def ended(self, id: str) -> Conversion:
        return await self.changes.wait_for(id, TIMEOUT)

    async def started(self, id: str) -> int:
        """The process that runs a sleeping conversion, once it does."""
        path = self.directory / f"pid-{id}"
        async with asyncio.timeout(TIMEOUT):
            while not (path.exists() and path.read_text()):
                await asyncio.sleep(0.02)
        return int(path.read_text())

    async def scalar(self, query: str) -> object:
        async with self.database.transaction() as session:
            return await session.scalar(text(query))

    async def execute(self, *statements: str) -> None:
        async with self.database.transaction() as session:
            for statement in statements:
                await session.execute(text(statement.replace(":", "\\:")))
