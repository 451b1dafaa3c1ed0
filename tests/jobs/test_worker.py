"""The worker, as a process, on a real database: what it was given ends in a final state whatever is killed."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.database import catalogs, conversions
from app.domain.conversion import State
from app.jobs import queue
from app.jobs.admission import estimate
from tests.jobs.service import TIMEOUT, Client, StartWorker

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def soon(condition: Callable[..., bool], *arguments: object) -> bool:
    """Whether something becomes true within the 2 seconds in which a conversion must have stopped."""
    for _ in range(200):
        if condition(*arguments):
            return True
        await asyncio.sleep(0.01)
    return False


def nothing_left(directory: Path) -> bool:
    """Whether the work directories of workers are empty."""
    return not list((directory / "work").glob("worker-*/convert-*"))


async def test_a_conversion_runs_to_its_published_files(client: Client, start_worker: StartWorker) -> None:
    start_worker()
    conversion = await client.ended(await client.submit("plain"))
    assert (conversion.state, conversion.attempt, conversion.progress) == (State.succeeded, 1, 1.0)
    async with client.database.transaction() as session:
        files = {file.role: file for file in await conversions.files(session, conversion.id)}
    assert set(files) == {"artifact", "report", "statement"}
    artifact = b"".join([block async for block in client.store.stream(files["artifact"].sha256)])
    assert artifact == b"weights" * 2
    assert set(conversion.timings) == {"export", "publish"}
    assert await soon(nothing_left, client.directory)


async def test_a_checkpoint_is_read_while_conversions_fill_every_child(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker(children=1)
    await client.started(await client.submit("sleep:60"))
    good, bad = [await client.checkpoint(content, inspect=True) for content in (b"good", b"bad")]
    fatal = await client.checkpoint(b"fatal", inspect=True)
    assert (await client.changes.wait_for_inspection(good, TIMEOUT)).inspection
    problem = (await client.changes.wait_for_inspection(bad, TIMEOUT)).problem
    assert problem
    assert problem["code"] == "corrupt_checkpoint"
    problem = (await client.changes.wait_for_inspection(fatal, TIMEOUT)).problem
    assert problem
    assert problem["code"] == "child_crashed"


async def test_the_catalog_is_published(client: Client, start_worker: StartWorker) -> None:
    start_worker()
    digests: tuple[str, ...] = ()
    async with asyncio.timeout(TIMEOUT):
        while not digests:
            async with client.database.transaction() as session:
                digests = await catalogs.current_digests(session, 60)
            await asyncio.sleep(0.05)
    async with client.database.transaction() as session:
        described = await catalogs.find(session, digests[0])
    assert described
    assert [entry.name for entry in described.entries] == ["test/net"]


async def test_cancelling_ends_the_running_child(client: Client, start_worker: StartWorker) -> None:
    start_worker()
    id = await client.submit("sleep:60")
    pid = await client.started(id)
    assert (await queue.cancel(client.database, id)).state is State.canceled
    assert await soon(gone, pid)
    assert (await client.ended(await client.submit("plain"))).state is State.succeeded
    async with client.database.transaction() as session:
        assert (await conversions.find(session, id)).state is State.canceled
    assert await soon(nothing_left, client.directory)


async def test_a_conversion_that_takes_too_long_is_timed_out(client: Client, start_worker: StartWorker) -> None:
    start_worker(job_timeout=5, children=2)
    ids = [await client.submit("sleep:60"), await client.submit("sleep:60", timeout=2)]
    for conversion, seconds in zip([await client.ended(id) for id in ids], (5, 2), strict=True):
        assert conversion.state is State.timed_out
        assert conversion.problem
        assert f"longer than {seconds} seconds" in conversion.problem["detail"]
    assert conversion.problem
    assert conversion.problem["stage"] == "export"
    assert set(conversion.timings) == {"export"}
    assert 1 < conversion.timings["export"] < 20


async def test_a_conversion_that_is_refused_tells_what_its_stages_cost(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker()
    conversion = await client.ended(await client.submit("refuse"))
    assert conversion.problem
    assert (conversion.problem["code"], conversion.problem["stage"]) == ("parity_failed", "verify")
    assert set(conversion.timings) == {"export", "verify"}
    assert 0.25 < conversion.timings["export"] < 20


async def test_a_conversion_that_can_never_fit_is_refused_with_the_arithmetic_and_holds_up_nothing(
    client: Client, start_worker: StartWorker
) -> None:
    start_worker(memory_budget=estimate(10))
    running = await client.submit("sleep:60", b"small")
    await client.started(running)
    conversion = await client.ended(await client.submit("plain", b"larger than ten bytes"))
    assert (conversion.state, conversion.attempt) == (State.failed, 1)
    problem = conversion.problem
    assert problem
    assert (problem["code"], problem["status"]) == ("memory_estimate_exceeded", 413)
    assert f"{estimate(21):,}" in problem["detail"]
    assert problem["extra"] == {"checkpoint_bytes": 21, "estimated_bytes": estimate(21), "budget_bytes": estimate(10)}
    assert problem["hint"]
    async with client.database.transaction() as session:
        assert (await conversions.find(session, running)).state is State.running


async def test_a_killed_child_fails_its_conversion_alone(client: Client, start_worker: StartWorker) -> None:
    start_worker()
    failed, fine = await client.submit("die"), await client.submit("plain")
    conversion = await client.ended(failed)
    assert conversion.state is State.failed
    assert conversion.problem
    assert conversion.problem["code"] == "child_crashed"
    assert set(conversion.timings) == {"export"}
    assert (await client.ended(fine)).state is State.succeeded


async def test_after_a_kill_of_the_worker_its_children_die_and_another_finishes(
    client: Client, start_worker: StartWorker
) -> None:
    worker = start_worker()
    id = await client.submit("sleep:3")
    pid = await client.started(id)
    worker.kill()
    assert await soon(gone, pid)
    start_worker()
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt, conversion.workers_lost) == (State.succeeded, 2, 1)
    assert await soon(nothing_left, client.directory)
    async with asyncio.timeout(TIMEOUT):
        while await client.scalar("select count(*) from procrastinate_jobs"):
            await asyncio.sleep(0.02)


async def test_a_paused_worker_cannot_publish_what_was_given_to_another(
    client: Client, start_worker: StartWorker
) -> None:
    paused = start_worker()
    id = await client.submit("sleep:4")
    await client.started(id)
    paused.send_signal(signal.SIGSTOP)
    other = start_worker()
    async with asyncio.timeout(TIMEOUT):
        while await client.scalar("select attempt from conversions") != 2:
            await asyncio.sleep(0.1)
    paused.send_signal(signal.SIGCONT)
    conversion = await client.ended(id)
    assert (conversion.state, conversion.attempt) == (State.succeeded, 2)
    assert conversion.worker
    assert conversion.worker.endswith(f":{other.pid}")
    assert await client.scalar("select count(*) from events where data ->> 'state' = 'succeeded'") == 1


async def test_a_conversion_that_costs_too_many_workers_fails(client: Client, start_worker: StartWorker) -> None:
    id = await client.submit("sleep:60")
    for _ in range(2):
        worker = start_worker(max_attempts=2)
        pid = await client.started(id)
        worker.kill()
        assert await soon(gone, pid)
    start_worker(max_attempts=2)
    conversion = await client.ended(id)
    assert conversion.state is State.failed
    assert conversion.problem
    assert conversion.problem["code"] == "worker_lost"


async def test_sigterm_lets_running_conversions_finish(client: Client, start_worker: StartWorker) -> None:
    worker = start_worker()
    id = await client.submit("sleep:1")
    await client.started(id)
    worker.terminate()
    assert worker.wait(TIMEOUT) == 0
    async with client.database.transaction() as session:
        assert (await conversions.find(session, id)).state is State.succeeded


async def test_sigterm_hands_back_what_takes_longer_than_the_grace_period(
    client: Client, start_worker: StartWorker
) -> None:
    worker = start_worker(drain_timeout=0.2)
    id = await client.submit("sleep:60")
    pid = await client.started(id)
    worker.terminate()
    assert worker.wait(TIMEOUT) == 0
    assert await soon(gone, pid)
    async with client.database.transaction() as session:
        conversion = await conversions.find(session, id)
    assert (conversion.state, conversion.workers_lost) == (State.queued, 0)
    assert await client.scalar("select count(*) from procrastinate_jobs where status = 'todo'") == 1


async def test_one_conversion_builds_a_template_and_the_others_wait_for_it(
    client: Client, start_worker: StartWorker
) -> None:
    key = "ab" * 32
    ids = [await client.submit(f"template:{key}", content) for content in (b"one", b"two", b"three")]
    start_worker(children=2)
    start_worker(children=2)
    ended = [await client.ended(id) for id in ids]
    assert [conversion.state for conversion in ended] == [State.succeeded] * 3
    builder = await client.scalar("select builder from templates where state = 'ready'")
    assert builder in ids
    certificate = await client.scalar("select certificate ->> 'conversion_id' from templates")
    assert certificate == builder


async def test_work_goes_on_when_the_databases_connections_are_cut(client: Client, start_worker: StartWorker) -> None:
    start_worker()
    assert (await client.ended(await client.submit("plain"))).state is State.succeeded
    await client.scalar(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    assert (await client.ended(await client.submit("plain"))).state is State.succeeded
