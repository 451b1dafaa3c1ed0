"""Workers as processes of their own, and what clients do with them, on the service's own functions."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import text

from app.database.conversions import NewConversion
from app.database.session import Database
from app.database.tables import Conversion
from app.jobs import queue
from app.jobs.events import Changes
from app.storage.objects import ObjectStore
from app.targets.onnx.spec import OnnxOptions
from tests.jobs.chunks import chunks_of

TIMEOUT = 60
TOLD = "told"
"""Name of the directory by which a test can tell its conversions something while they run."""
POISON = "poison"
PROJECT = Path(__file__).parents[2]
StartWorker = Callable[..., subprocess.Popen[bytes]]


@contextmanager
def worker_processes(database_url: str, tmp_path: Path) -> Iterator[StartWorker]:
    """A function that starts a worker with the given settings; those that still run at the end are killed."""
    workers = []
    (tmp_path / TOLD).mkdir()
    stopped = threading.Event()
    poisoner = threading.Thread(target=_kill_poisoned_workers, args=(tmp_path, stopped))
    poisoner.start()

    def start(**settings: object) -> subprocess.Popen[bytes]:
        defaults = {
            "data_dir": tmp_path,
            "plugins_dir": tmp_path / TOLD,
            "worker_lost_after": 2.5,
            "drain_timeout": 20,
            "children": 2,
        }
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

    try:
        yield start
    finally:
        stopped.set()
        poisoner.join()
        for worker in workers:
            worker.kill()
            worker.wait()


def running(directory: Path, mark: str) -> psutil.Process | None:
    """The process of the conversion that left a file of that name in its results, while it lives.

    It is known by the log that it prints to: what a process can say of itself is its number in its own namespace.
    """
    for path in directory.glob(f"work/worker-*/convert-*/results/{mark}"):
        log = str(path.parents[1] / "child.log")
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                if os.readlink(f"/proc/{process.pid}/fd/1") == log:
                    return process
    return None


def _kill_poisoned_workers(directory: Path, stopped: threading.Event) -> None:
    """Kill every worker that runs a conversion that wishes its death, since none can bring it about by itself."""
    while not stopped.wait(0.05):
        with suppress(psutil.Error):
            poisonous = running(directory, POISON)
            ancestors = poisonous.parents() if poisonous else []
            if len(ancestors) > 2:  # its forkserver, its worker, and us
                ancestors[1].kill()


@dataclass
class Client:
    """What clients do, on the service's own functions."""

    database: Database
    store: ObjectStore
    changes: Changes
    directory: Path
    seen: set[int] = field(default_factory=set)

    async def checkpoint(self, content: bytes, *, inspect: bool = False) -> str:
        stored = await self.store.receive(chunks_of(content), limit=1000)
        await queue.register_checkpoint(self.database, stored, "weights.pth", inspect=inspect)
        return stored.sha256

    async def submit(self, behaviour: str, content: bytes = b"weights", *, timeout: float | None = None) -> str:
        return await self.submit_named(f"test/{behaviour}", content, timeout=timeout)

    async def submit_named(
        self, architecture: str, content: bytes = b"weights", *, timeout: float | None = None
    ) -> str:
        new = NewConversion(await self.checkpoint(content), architecture, OnnxOptions(), timeout=timeout)
        return (await queue.submit(self.database, new)).conversion.id

    async def ended(self, id: str) -> Conversion:
        return await self.changes.wait_for(id, TIMEOUT)

    async def started(self, id: str) -> int:
        """The process that runs a sleeping conversion, once it does: another one each time that this is asked."""
        async with asyncio.timeout(TIMEOUT):
            while (process := running(self.directory, f"sleeps-{id}")) is None or process.pid in self.seen:
                await asyncio.sleep(0.05)
        self.seen.add(process.pid)
        return process.pid

    async def scalar(self, query: str) -> object:
        async with self.database.transaction() as session:
            return await session.scalar(text(query))

    async def execute(self, *statements: str) -> None:
        async with self.database.transaction() as session:
            for statement in statements:
                await session.execute(text(statement.replace(":", "\\:")))
