"""What a long queue costs: each thing that api and workers ask of the database, with none and with many waiting.

Rows are put into a PostgreSQL of its own: conversions that wait, of several projects, and conversions that have ended.
Of each operation the table tells the median time and the blocks of 8 KiB that the server touched, which say what it had
to look at on any machine; of a whole conversion also the seconds of processors. `python -m scripts.capacity` tells what
those mean for many workers.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
from sqlalchemy import text

from app.database import conversions, projects
from app.database.backlog import Backlog, oldest_seconds
from app.database.conversions import Ending, Filter, NewConversion
from app.database.embedded import EmbeddedPostgres
from app.database.migrations import migrate
from app.database.session import Database
from app.database.tables import Conversion
from app.database.workers import register
from app.domain.conversion import Stage, State
from app.domain.report import Verdict
from app.jobs import fairness, queue
from app.jobs.rescue import Rescuer
from app.storage.objects import StoredObject
from app.targets.onnx.spec import OnnxOptions

SHA = "ab" * 32
NEW = NewConversion(SHA, "torchvision/resnet18", OnnxOptions())
STAGES = (Stage.inspect, Stage.build, Stage.load, Stage.export, Stage.verify, Stage.package, Stage.publish)
NEVER = 3600.0
"""Seconds."""

_FILL = """
    insert into conversions
        (id, project_id, state, checkpoint_sha256, architecture, target, options, created_at, finished_at, verdict)
    select 'cnv_' || lpad(to_hex({first} + g), 32, '0'), 'prj_' || g % {projects}, '{state}', '{sha}',
        'torchvision/resnet18', 'onnx', cast(:options as jsonb), now() - interval '1 hour',
        case when '{state}' = 'queued' then null else now() end,
        case when '{state}' = 'queued' then null else 'pass' end
    from generate_series(1, {number}) g
"""
_ENTRIES = """
    insert into procrastinate_jobs (queue_name, task_name, args)
    select 'conversions', 'convert', jsonb_build_object('conversion_id', id) from conversions where state = 'queued'
"""
_JOIN = """
    update conversions set queue_job_id = j.id from procrastinate_jobs j
    where j.args ->> 'conversion_id' = conversions.id and queue_job_id is null
"""
_TOUCHED = text("select blks_hit + blks_read from pg_stat_database where datname = current_database()")
_FLUSH = text("select pg_stat_force_next_flush()")


@dataclass(frozen=True)
class Cost:
    """Of one operation: seconds (median) and blocks of 8 KiB touched."""

    seconds: float
    blocks: float


async def fill(database: Database, waiting: int, ended: int, owners: int) -> None:
    """Add so many conversions that wait, and that have ended, of so many projects."""
    async with database.transaction() as session:
        await session.execute(
            text(
                "insert into projects (id, name) select 'prj_' || g, 'project ' || g from generate_series(0, :most) g"
            ),
            {"most": owners - 1},
        )
    options = json.dumps(NEW.options.model_dump(mode="json"))
    for number, state, first in ((ended, "succeeded", 0), (waiting, "queued", 1 << 40)):
        sql = _FILL.format(first=first, projects=owners, state=state, number=number, sha=SHA)
        async with database.transaction() as session:
            await session.execute(text(sql), {"options": options})
    async with database.transaction() as session:
        await session.execute(text(_ENTRIES))
        await session.execute(text(_JOIN))
    await _vacuum(database)


async def _vacuum(database: Database) -> None:
    """As the server does it by itself after a while."""
    async with await psycopg.AsyncConnection.connect(database.url, autocommit=True) as connection:
        await connection.execute("vacuum analyze")


@dataclass(frozen=True)
class Operations:
    """What is asked of the database, by name."""

    database: Database
    worker_id: int
    backlog: Backlog

    def all(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            "submit": self.submit,
            "count the queue": self.count_the_queue,
            "take, run and end": self.take_and_end,
            "look for a reading": self.look_for_a_reading,
            "poll": self.poll,
            "first page of the list": self.page,
            "look for dead workers": self.rescue,
            "metrics": self.metrics,
        }

    async def submit(self) -> Conversion:
        return (await queue.submit(self.database, NEW)).conversion

    async def count_the_queue(self) -> None:
        async with self.database.transaction() as session:
            await Backlog(1 << 60).refuse_when_full(session, projects.DEFAULT)

    async def take_and_end(self) -> None:
        """Everything that a worker asks for one conversion."""
        async with self.database.transaction() as session:
            taken = await queue.take(session, queue.CONVERSIONS, self.worker_id)
            assert taken is not None
        async with self.database.transaction() as session:
            started = await conversions.start(
                session, taken.arguments["conversion_id"], taken.id, "load", self.worker_id
            )
            assert started is not None
        for stage in STAGES:
            async with self.database.transaction() as session:
                await conversions.advance(session, started.id, started.attempt, stage, 0.5)
        ending = Ending(State.succeeded, verdict=Verdict.passed, timings={stage.value: 0.1 for stage in STAGES})
        async with self.database.transaction() as session:
            await conversions.finish(session, started.id, started.attempt, ending)
        async with self.database.transaction() as session:
            await queue.remove_entry(session, taken.id)
        async with self.database.transaction() as session:
            await fairness.charge(session, started.project_id, 0.5, 1.0)

    async def look_for_a_reading(self) -> None:
        async with self.database.transaction() as session:
            assert await queue.take(session, queue.INSPECTIONS, self.worker_id) is None

    async def poll(self) -> None:
        async with self.database.transaction() as session:
            newest = (await conversions.newest(session, Filter(), 1))[0]
            await conversions.find_with_files(session, newest.id)

    async def page(self) -> None:
        async with self.database.transaction() as session:
            await conversions.newest_with_files(session, Filter(), 51)
            await conversions.count(session, Filter())

    async def rescue(self) -> None:
        await Rescuer(self.database, NEVER, 3).rescue()

    async def metrics(self) -> None:
        async with self.database.transaction() as session:
            await conversions.count_by_state(session)
            await oldest_seconds(session)


async def measure(database: Database, repeats: int) -> dict[str, Cost]:
    """The costs of every operation."""
    async with database.transaction() as session:
        worker_id = await register(session, name="load", room="load", supervisor=None)
    await queue.register_checkpoint(database, StoredObject(SHA, 10), "weights.pth", inspect=False)
    operations = Operations(database, worker_id, Backlog(1 << 60))
    for _ in range(2 * repeats):
        await operations.submit()
    costs = {}
    for name, operation in operations.all().items():
        await operation()
        seconds, before = [], await _blocks(database)
        for _ in range(repeats):
            began = time.perf_counter()
            await operation()
            seconds.append(time.perf_counter() - began)
        costs[name] = Cost(statistics.median(seconds), (await _blocks(database) - before) / repeats)
    return costs


async def _blocks(database: Database) -> int:
    """Blocks that the server has touched so far. Every connection of the pool tells of its own once it is asked to."""
    async with database.transaction() as session:
        await session.execute(_FLUSH)
    async with database.transaction() as session:
        return int(await session.scalar(_TOUCHED) or 0)


@dataclass(frozen=True)
class Load:
    """Many workers at once on one database."""

    per_second: float
    """Conversions from start to end; on a busy machine less than it could."""
    database_seconds: float
    """Of the database's processors for one conversion, which does not depend on what else the machine does."""


async def at_once(database: Database, workers: int, seconds: float, postmaster: psutil.Process) -> Load:
    """Let so many workers take and end conversions for so long."""
    ids = []
    for number in range(workers):
        async with database.transaction() as session:
            ids.append(await register(session, name=f"load {number}", room=f"load {number}", supervisor=None))
    began, used = time.perf_counter(), _processor_seconds(postmaster)
    done = 0

    async def work(worker_id: int) -> None:
        nonlocal done
        operations = Operations(database, worker_id, Backlog(1 << 60))
        while time.perf_counter() < began + seconds:
            await operations.take_and_end()
            done += 1

    await asyncio.gather(*(work(id) for id in ids))
    return Load(done / (time.perf_counter() - began), (_processor_seconds(postmaster) - used) / done)


def _processor_seconds(postmaster: psutil.Process) -> float:
    """Of the server and all its processes; connections stay open, so none of them ends meanwhile."""
    times = [process.cpu_times() for process in (postmaster, *postmaster.children())]
    return sum(one.user + one.system for one in times)


async def compare(url: str, waiting: int, ended: int, owners: int, repeats: int) -> tuple[dict[str, Cost], ...]:
    """Costs on an empty database, and with so many waiting and ended."""
    database = Database(url, 1)
    try:
        empty = await measure(database, repeats)
        await fill(database, waiting, ended, owners)
        return empty, await measure(database, repeats)
    finally:
        await database.close()


def table(empty: dict[str, Cost], full: dict[str, Cost]) -> str:
    lines = [
        "| operation | empty ms | full ms | empty blocks | full blocks |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {empty[name].seconds * 1000:.1f} | {full[name].seconds * 1000:.1f} | "
        f"{empty[name].blocks:.0f} | {full[name].blocks:.0f} |"
        for name in empty
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--ended", type=int, default=100_000)
    parser.add_argument("--projects", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--workers", type=int, default=8, help="at once, for the cost of a conversion")
    parser.add_argument("--seconds", type=float, default=20, help="for the cost of a conversion")
    parser.add_argument("--json", type=Path)
    told = parser.parse_args(arguments)
    with TemporaryDirectory(prefix="recast-load-") as directory, EmbeddedPostgres(Path(directory)) as server:
        migrate(server.url)
        empty, full = asyncio.run(compare(server.url, told.waiting, told.ended, told.projects, told.repeats))
        print(f"{told.waiting:,} waiting, {told.ended:,} ended, {told.projects} projects\n\n{table(empty, full)}")
        pid = int((Path(directory) / "postgres/data/postmaster.pid").read_text().split("\n", 1)[0])
        load = asyncio.run(_load(server.url, told.workers, told.seconds, psutil.Process(pid)))
        print(
            f"\n{told.workers} workers at once: {load.per_second:.0f} conversions a second from start to end, each of"
        )
        print(f"which takes {load.database_seconds * 1000:.1f} ms of the database's processors")
    if told.json:
        costs = {"empty": empty, "full": full}
        found = {name: {op: asdict(cost) for op, cost in of.items()} for name, of in costs.items()}
        told.json.write_text(json.dumps({**found, **asdict(load)}, indent=1))


async def _load(url: str, workers: int, seconds: float, postmaster: psutil.Process) -> Load:
    database = Database(url, workers)
    try:
        return await at_once(database, workers, seconds, postmaster)
    finally:
        await database.close()


if __name__ == "__main__":
    main()
