"""Whose fault it is: a conversion fails only through its own, and harms no neighbour."""

import asyncio
import hashlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from app.database import conversions
from app.database.conversions import NewConversion
from app.database.tables import Conversion
from app.domain.conversion import State
from app.jobs import queue
from app.jobs.workroom import abandoned_rooms
from app.targets.onnx.spec import OnnxOptions
from tests.jobs.service import TIMEOUT, Client, StartWorker

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@asynccontextmanager
async def kept_running(start_worker: StartWorker, **settings: object) -> AsyncIterator[None]:
    """A worker that is started again whenever it dies."""

    async def keep() -> None:
        while True:
            worker = start_worker(**settings)
            while worker.poll() is None:
                await asyncio.sleep(0.05)

    keeping = asyncio.create_task(keep())
    try:
        yield
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def found(client: Client, id: str) -> Conversion:
    async with client.database.transaction() as session:
        return await conversions.find(session, id)


async def until(client: Client, query: str, value: object = True) -> None:
    async with asyncio.timeout(TIMEOUT):
        while await client.scalar(query) != value:
            await asyncio.sleep(0.05)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_a_conversion_whose_process_is_killed_from_outside_is_tried_again(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    id = await client.submit("sleep:2")
    os.kill(await client.started(id), signal.SIGKILL)
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt, conversion.workers_lost) == (State.succeeded, 2, 1)


async def test_a_conversion_that_kills_its_own_process_is_condemned_at_once_whatever_else_dies(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    await client.execute("insert into deaths (suspects) values ('[\"a\"]'), ('[\"b\"]'), ('[\"c\"]'), ('[]')")
    poison, neighbour = await client.submit("die"), await client.submit("sleep:3", b"other")
    conversion = await client.ended(poison)
    assert (conversion.state, conversion.attempt) == (State.failed, 1)
    assert conversion.problem
    assert conversion.problem["code"] == "child_crashed"
    innocent = await client.ended(neighbour)
    assert (innocent.state, innocent.attempt) == (State.succeeded, 1)


async def test_a_conversion_that_kills_its_worker_is_condemned_within_three_attempts_and_its_neighbour_succeeds(
    client: Client, start_worker: StartWorker
) -> None:
    neighbour = await client.submit("sleep:4")
    async with kept_running(start_worker):
        await client.started(neighbour)
        poison = await client.submit("kill_worker", b"other")
        conversion = await client.ended(poison)
        assert conversion.state is State.failed
        assert conversion.attempt <= 3
        innocent = await client.ended(neighbour)
        assert innocent.state is State.succeeded


async def test_two_poisonous_conversions_do_not_excuse_each_other(client: Client, start_worker: StartWorker) -> None:
    async with kept_running(start_worker):
        poisons = [await client.submit("kill_worker", content) for content in (b"one", b"two")]
        for poison in poisons:
            assert (await client.ended(poison)).state is State.failed


async def test_a_suspect_runs_without_neighbours(client: Client, start_worker: StartWorker) -> None:
    start_worker(children=3)
    suspect = await client.submit("sleep:3")
    os.kill(await client.started(suspect), signal.SIGKILL)
    others = [await client.submit("sleep:1", content) for content in (b"one", b"two", b"three")]
    await client.started(suspect)
    assert await client.scalar("select count(*) from conversions where state = 'running'") == 1
    for id in (suspect, *others):
        assert (await client.ended(id)).state is State.succeeded


async def test_what_dies_wherever_everything_dies_is_not_condemned_at_once(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker(max_attempts=2)
    await client.execute("insert into deaths (suspects) values ('[\"a\"]'), ('[\"b\"]'), ('[]')")
    id = await client.submit("sleep:2")
    for _ in range(2):
        os.kill(await client.started(id), signal.SIGKILL)
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt, conversion.workers_lost) == (State.succeeded, 3, 2)
    assert await client.scalar(
        "select started_at - (select max(at) from deaths) >= interval '10 s' from conversions"
    ), "the try that could condemn began without a control after the last death"


async def test_a_dead_forkserver_ends_neither_worker_nor_conversions(client: Client, start_worker: StartWorker) -> None:
    worker = start_worker()
    id = await client.submit("sleep:2")
    child = psutil.Process(await client.started(id))
    child.parent().kill()
    assert (await client.ended(id)).state is State.succeeded
    assert (await client.ended(await client.submit("plain", b"other"))).state is State.succeeded
    assert worker.poll() is None


async def test_the_death_of_an_idle_forkserver_is_on_record_and_points_at_nobody(
    client: Client, start_worker: StartWorker
) -> None:
    worker = start_worker()
    assert (await client.ended(await client.submit("plain"))).state is State.succeeded
    await until(client, "select count(catalog) from workers", 1)
    for forkserver in psutil.Process(worker.pid).children():
        forkserver.kill()
    await until(client, "select count(*) from deaths where suspects = '[]'", 1)
    assert (await client.ended(await client.submit("plain", b"other"))).state is State.succeeded
    assert await client.scalar("select count(*) from deaths") == 1


async def test_a_worker_that_died_on_this_machine_is_not_waited_for(client: Client, start_worker: StartWorker) -> None:
    worker = start_worker(worker_lost_after=600)
    id = await client.submit("sleep:2")
    await client.started(id)
    worker.kill()
    worker.wait()
    start_worker(worker_lost_after=600)
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt) == (State.succeeded, 2)


async def test_a_drained_worker_is_not_taken_for_dead(client: Client, start_worker: StartWorker) -> None:
    worker = start_worker(worker_lost_after=2.5, drain_timeout=30)
    id = await client.submit("sleep:8")
    await client.started(id)
    start_worker(worker_lost_after=2.5)
    await until(client, "select count(*) = 2 from workers")
    worker.terminate()
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt, conversion.workers_lost) == (State.succeeded, 1, 0)
    assert worker.wait(TIMEOUT) == 0


async def test_drains_are_never_counted(client: Client, start_worker: StartWorker) -> None:
    id = await client.submit("sleep:5")
    for _ in range(4):
        worker = start_worker(drain_timeout=0)
        await client.started(id)
        worker.terminate()
        assert worker.wait(TIMEOUT) == 0
    start_worker()
    conversion = await client.ended(id)
    assert (conversion.state, conversion.workers_lost) == (State.succeeded, 0)


async def test_restarts_of_everything_condemn_nobody(client: Client, start_worker: StartWorker) -> None:
    """After as many deaths as leave one to condemn, a worker must have lived for a while without the suspect; those
    that are restarted sooner do not even begin it."""
    id = await client.submit("sleep:3")
    for _ in range(2):
        worker = start_worker()
        await client.started(id)
        worker.kill()
        worker.wait()
    for _ in range(2):
        worker = start_worker()
        await until(
            client, "select count(*) = 1 from procrastinate_jobs where scheduled_at > now() and status = 'todo'"
        )
        worker.kill()
        worker.wait()
        await client.execute("update procrastinate_jobs set scheduled_at = null")
    start_worker()
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt, conversion.workers_lost) == (State.succeeded, 3, 2)


@pytest.mark.parametrize(("later", "ended"), [("the same run", State.failed), ("another run", State.succeeded)])
async def test_a_worker_that_died_with_its_supervisor_condemns_nobody(
    client: Client, start_worker: StartWorker, later: str, ended: State
) -> None:
    """As `recast serve` is killed as a whole, or restarted with its container."""
    id = await client.submit("sleep:2")
    worker = start_worker(max_attempts=1, supervisor="the same run")
    await client.started(id)
    worker.kill()
    worker.wait()
    start_worker(max_attempts=1, supervisor=later)
    assert (await client.ended(id)).state is ended


async def test_the_death_of_a_worker_is_noticed_although_who_notices_it_dies_too(
    client: Client, start_worker: StartWorker, tmp_path: Path
) -> None:
    worker = start_worker(worker_lost_after=600)
    id = await client.submit("sleep:2")
    await client.started(id)
    worker.kill()
    worker.wait()
    with suppress(ZeroDivisionError):
        async with abandoned_rooms(tmp_path / "work") as ended:
            assert ended
            raise ZeroDivisionError  # as if it were killed before the database was told
    start_worker(worker_lost_after=600)
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt) == (State.succeeded, 2)


async def test_a_store_that_is_away_is_waited_for(client: Client, start_worker: StartWorker) -> None:
    start_worker()
    await until(client, "select count(*) = 1 from workers")
    objects = client.directory / "objects"
    for content in (b"weights", b"good"):
        await client.checkpoint(content)
    objects.rename(client.directory / "away")
    new = NewConversion(sha256_of(b"weights"), "test/plain", OnnxOptions())
    id = (await queue.submit(client.database, new)).conversion.id
    sha256 = (await queue.request_inspection(client.database, sha256_of(b"good"))).sha256
    await until(client, "select waiting_for from conversions", "store")
    await until(client, "select count(*) > 0 from checkpoints where waiting_for = 'store'")
    shutil.rmtree(objects, ignore_errors=True)
    (client.directory / "away").rename(objects)
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt, conversion.waiting_for) == (State.succeeded, 1, None)
    read = await client.changes.wait_for_inspection(sha256, TIMEOUT)
    assert read.inspection
    assert read.file.waiting_for is None


async def test_a_conversion_whose_store_went_away_as_its_process_began_waits_for_it(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    objects, told = client.directory / "objects", client.directory / "told"
    id = await client.submit("stumble")
    await client.started(id)
    objects.rename(client.directory / "away")
    (told / "gone").touch()
    await until(client, "select waiting_for from conversions", "store")
    (told / "back").touch()
    (client.directory / "away").rename(objects)
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt, conversion.waiting_for) == (State.succeeded, 1, None)


async def test_a_conversion_that_a_full_disk_ended_is_done_again(client: Client, start_worker: StartWorker) -> None:
    start_worker()
    full = client.directory / "told" / "full"
    full.touch()
    id = await client.submit("write")
    await until(client, "select waiting_for from conversions", "disk_space")
    full.unlink()
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt) == (State.succeeded, 1)
    kinds = await client.scalar("select count(*) from events where data ->> 'waiting_for' = 'disk_space'")
    assert kinds == 1


async def test_a_conversion_that_finds_no_room_wherever_it_runs_is_not_done_for_ever(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    conversion = await client.ended(await client.submit("find_no_room"))
    assert conversion.state is State.failed
    assert conversion.problem
    assert conversion.problem["code"] == "insufficient_storage"


async def test_a_conversion_over_which_the_worker_stumbles_before_it_begins_is_not_tried_for_ever(
    client: Client, start_worker: StartWorker
) -> None:
    id = await client.submit("plain")
    await client.execute('update conversions set options = options || \'{"example_shapes": {"x": 5}}\'')
    start_worker()
    conversion = await client.ended(id)
    assert conversion.problem
    assert conversion.problem["code"] == "worker_lost"


async def test_a_conversion_that_has_its_workers_stopped_again_and_again_is_not_begun_without_end(
    client: Client, start_worker: StartWorker
) -> None:
    id = await client.submit("plain")
    await client.execute("update conversions set attempt = 100")
    start_worker()
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt) == (State.failed, 101)
    assert conversion.problem
    assert conversion.problem["code"] == "worker_lost"
    assert "begun 100 times" in conversion.problem["detail"]


async def test_a_conversion_whose_checkpoint_is_gone_fails_in_words(client: Client, start_worker: StartWorker) -> None:
    id = await client.submit("plain")
    statements = ("alter table conversions drop constraint conversions_held_checkpoint", "delete from checkpoints")
    await client.execute(*statements)
    start_worker()
    conversion = await client.ended(id)
    assert conversion.problem
    assert conversion.problem["code"] == "unknown_checkpoint"
