"""Queueing: rows and queue entries that stand or fall together, and what clients may ask of a conversion."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg.errors import ReadOnlySqlTransaction
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.database import checkpoints, conversions
from app.database.conversions import AttemptLost, Ending, NewConversion, SourceReference
from app.database.idempotency import Idempotency
from app.database.session import Database
from app.database.tables import Event
from app.database.workers import register
from app.domain.conversion import Stage, State
from app.domain.errors import AlreadyFinished, IdempotencyConflict, InUse, UnknownCheckpoint
from app.domain.report import Verdict
from app.jobs import queue
from app.jobs.events import Changes
from app.storage.objects import StoredObject
from app.targets.onnx.spec import OnnxOptions

SHA = "ab" * 32


pytestmark = pytest.mark.anyio


async def with_checkpoint(database: Database) -> NewConversion:
    await queue.register_checkpoint(database, StoredObject(SHA, 10), "weights.pth", inspect=False)
    return NewConversion(SHA, "torchvision/resnet18", OnnxOptions())


async def queue_jobs(database: Database) -> list[tuple[str, str]]:
    async with database.transaction() as session:
        rows = await session.execute(text("select task_name, status::text from procrastinate_jobs order by id"))
        return [(row[0], row[1]) for row in rows]


async def test_submitting_adds_a_row_an_entry_and_an_event(database: Database) -> None:
    submitted = await queue.submit(database, await with_checkpoint(database))
    assert submitted.created
    assert submitted.conversion.state is State.queued
    assert submitted.conversion.id.startswith("cnv_")
    assert await queue_jobs(database) == [("convert", "todo")]


async def test_a_conversion_of_an_unknown_checkpoint_is_refused_and_leaves_nothing(database: Database) -> None:
    with pytest.raises(UnknownCheckpoint):
        await queue.submit(database, NewConversion(SHA, "torchvision/resnet18", OnnxOptions()))
    assert await queue_jobs(database) == []


async def test_row_and_entry_vanish_together_when_the_transaction_fails(database: Database) -> None:
    new = await with_checkpoint(database)

    async def fail_after_deferring() -> None:
        async with database.transaction() as session:
            conversion = await conversions.insert(session, new)
            await queue.enqueue_conversion(session, conversion)
            raise RuntimeError("after deferring")

    with pytest.raises(RuntimeError, match="after deferring"):
        await fail_after_deferring()
    assert await queue_jobs(database) == []
    async with database.transaction() as session:
        assert await conversions.count_by_state(session) == {}


async def test_the_same_key_and_request_give_one_conversion_even_at_the_same_time(database: Database) -> None:
    new = await with_checkpoint(database)
    key = Idempotency("k1", "digest")
    answers = await asyncio.gather(*(queue.submit(database, new, key=key) for _ in range(5)))
    assert len({answer.conversion.id for answer in answers}) == 1
    assert sorted(answer.created for answer in answers) == [False] * 4 + [True]
    with pytest.raises(IdempotencyConflict):
        await queue.submit(database, new, key=Idempotency("k1", "another digest"))


async def test_cancelling_a_queued_conversion_ends_it_and_its_entry(database: Database) -> None:
    conversion = (await queue.submit(database, await with_checkpoint(database))).conversion
    canceled = await queue.cancel(database, conversion.id)
    assert canceled.state is State.canceled
    assert await queue_jobs(database) == [("convert", "cancelled")]
    with pytest.raises(AlreadyFinished):
        await queue.cancel(database, conversion.id)


@pytest.mark.parametrize(
    "give_back",
    [
        lambda session, worker, entry: queue.put_back(session, queue.CONVERSIONS, entry),
        lambda session, worker, entry: queue.put_back_unknown(session, queue.CONVERSIONS, worker, []),
        lambda session, worker, entry: queue.postpone(session, entry, 60),
    ],
    ids=["handed back", "given in an answer that was lost", "postponed"],
)
async def test_an_entry_whose_conversion_was_canceled_meanwhile_can_be_given_back(
    database: Database, give_back: Callable[[AsyncSession, int, int], Awaitable[None]]
) -> None:
    conversion = (await queue.submit(database, await with_checkpoint(database))).conversion
    async with database.transaction() as session:
        worker = await register(session, name="one", room="a", supervisor=None)
        taken = await queue.take(session, queue.CONVERSIONS, worker)
    assert taken
    await queue.cancel(database, conversion.id)
    async with database.transaction() as session:
        await give_back(session, worker, taken.id)


async def test_retrying_queues_a_canceled_conversion_again(database: Database) -> None:
    conversion = (await queue.submit(database, await with_checkpoint(database))).conversion
    with pytest.raises(InUse):
        await queue.retry(database, conversion.id)
    await queue.cancel(database, conversion.id)
    again = await queue.retry(database, conversion.id)
    assert again.state is State.queued
    assert again.problem is None
    assert await queue_jobs(database) == [("convert", "cancelled"), ("convert", "todo")]


async def test_a_finished_twin_is_given_instead_of_a_new_conversion(database: Database) -> None:
    new = replace(await with_checkpoint(database), dedup_key="same")
    first = (await queue.submit(database, new)).conversion
    assert (await queue.submit(database, new)).conversion.id != first.id
    async with database.transaction() as session:
        running = await conversions.start(session, first.id, first.queue_job_id or 0, "here")
        assert running
        await conversions.finish(session, first.id, running.attempt, Ending(State.succeeded, verdict=Verdict.passed))
    twin = await queue.submit(database, new)
    assert (twin.conversion.id, twin.created) == (first.id, False)
    assert (await queue.submit(database, new, reuse_finished=False)).created


async def test_a_checkpoint_is_kept_while_an_unfinished_conversion_needs_it(database: Database) -> None:
    conversion = (await queue.submit(database, await with_checkpoint(database))).conversion
    async with database.transaction() as session:
        with pytest.raises(InUse):
            await checkpoints.remove(session, SHA)
    await queue.cancel(database, conversion.id)
    async with database.transaction() as session:
        await checkpoints.remove(session, SHA)
    with pytest.raises(UnknownCheckpoint):
        await queue.retry(database, conversion.id)


async def test_a_checkpoint_is_queued_for_inspection_once(database: Database) -> None:
    stored = StoredObject(SHA, 10)
    assert (await queue.register_checkpoint(database, stored, "a.pth")).created
    await queue.request_inspection(database, SHA)
    assert await queue_jobs(database) == [("inspect", "todo")]


async def test_waiting_ends_when_the_conversion_does(database: Database) -> None:
    conversion = (await queue.submit(database, await with_checkpoint(database))).conversion
    async with Changes(database) as changes:
        waiting = asyncio.create_task(changes.wait_for(conversion.id, timeout=60))
        await asyncio.sleep(0.05)
        await queue.cancel(database, conversion.id)
        assert (await waiting).state is State.canceled


async def test_waiting_gives_the_unfinished_conversion_when_time_is_over(database: Database) -> None:
    conversion = (await queue.submit(database, await with_checkpoint(database))).conversion
    async with Changes(database) as changes:
        assert (await changes.wait_for(conversion.id, timeout=0.05)).state is State.queued


async def test_events_are_followed_from_any_id_to_the_end(database: Database) -> None:
    conversion = (await queue.submit(database, await with_checkpoint(database))).conversion
    async with Changes(database) as changes:
        async with database.transaction() as session:
            running = await conversions.start(session, conversion.id, conversion.queue_job_id or 0, "here")
            assert running
        seen: list[Event] = []

        async def follow() -> None:
            async for event in changes.follow(conversion.id):
                seen.append(event)  # noqa: PERF401

        following = asyncio.create_task(follow())
        async with database.transaction() as session:
            await conversions.advance(session, conversion.id, running.attempt, Stage.export, 0.5)
        async with database.transaction() as session:
            await conversions.finish(session, conversion.id, running.attempt, Ending(State.succeeded))
        await following
        states = [(event.type, event.data["state"], event.data["stage"]) for event in seen]
        assert states == [
            ("state", "queued", None),
            ("state", "running", None),
            ("progress", "running", "export"),
            ("state", "succeeded", "export"),
        ]
        resumed = [event.id async for event in changes.follow(conversion.id, after=seen[1].id)]
        assert resumed == [event.id for event in seen[2:]]


async def test_an_earlier_attempt_can_no_longer_write(database: Database) -> None:
    conversion = (await queue.submit(database, await with_checkpoint(database))).conversion
    async with database.transaction() as session:
        first = await conversions.start(session, conversion.id, conversion.queue_job_id or 0, "first")
        assert first
        old_job, old_attempt = first.queue_job_id or 0, first.attempt
        await conversions.requeue(session, first)
        await queue.enqueue_conversion(session, first)
        new_job = first.queue_job_id or 0
    async with database.transaction() as session:
        assert await conversions.start(session, conversion.id, old_job, "late") is None
        second = await conversions.start(session, conversion.id, new_job, "second")
        assert second
    with pytest.raises(AttemptLost):
        async with database.transaction() as session:
            await conversions.advance(session, conversion.id, old_attempt, Stage.verify, 0.9)
    with pytest.raises(AttemptLost):
        async with database.transaction() as session:
            await conversions.finish(session, conversion.id, old_attempt, Ending(State.succeeded))
    async with database.transaction() as session:
        await conversions.finish(session, conversion.id, second.attempt, Ending(State.failed))


async def test_only_a_worker_that_nobody_knows_is_forgotten(database: Database) -> None:
    """Whatever else the database refuses is a fault, and no reason to register again."""
    await queue.submit(database, await with_checkpoint(database))
    with pytest.raises(queue.NotRegistered):
        async with database.transaction() as session:
            await queue.take(session, queue.CONVERSIONS, 1)
    async with database.transaction() as session:
        worker_id = await register(session, name="here", room="room", supervisor=None)
        await session.execute(text("alter table procrastinate_jobs add check (status <> 'doing')"))
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            await queue.take(session, queue.CONVERSIONS, worker_id)


async def test_what_is_fetched_for_several_is_fetched_on_when_one_of_them_is_canceled(database: Database) -> None:
    new = NewConversion("", "torchvision/resnet18", OnnxOptions(), source=SourceReference("https://elsewhere/net.pth"))
    first, second = [(await queue.submit(database, new)).conversion for _ in range(2)]
    assert first.queue_job_id == second.queue_job_id
    await queue.cancel(database, first.id)
    assert await queue_jobs(database) == [("transfers", "todo")]
    async with database.transaction() as session:
        assert [one.id for one in await conversions.awaiting(session, second.queue_job_id or 0)] == [second.id]


async def test_who_listens_goes_on_whatever_the_database_says(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a standby that is about to take over, where nobody may listen."""
    connect, refused = psycopg.AsyncConnection.connect, asyncio.Event()

    async def refuse_once(*arguments: Any, **settings: Any) -> Any:
        if not refused.is_set():
            refused.set()
            raise ReadOnlySqlTransaction("cannot execute LISTEN during recovery")
        return await connect(*arguments, **settings)

    monkeypatch.setattr(psycopg.AsyncConnection, "connect", refuse_once)
    async with Changes(database) as changes:
        with changes.watch("anything") as woken:
            async with asyncio.timeout(60):
                await woken.wait()
    assert refused.is_set()
