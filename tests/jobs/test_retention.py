"""Retention: what nothing refers to goes, what something refers to stays, and what has just come is left alone."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.database import checkpoints, conversions
from app.database.conversions import Ending, NewConversion
from app.database.idempotency import Idempotency
from app.database.owned_store import OwnedStore
from app.database.session import Database
from app.database.tables import Conversion
from app.domain.checkpoint import CheckpointInspection
from app.domain.conversion import State
from app.domain.errors import (
    ChildCrashed,
    CorruptCheckpoint,
    OutOfMemory,
    RecastError,
    TimedOut,
    Unavailable,
    UnknownCheckpoint,
    WorkerLost,
)
from app.domain.report import ProducedFile, Verdict
from app.jobs import queue
from app.jobs.retention import clean_up, collect_orphans
from app.storage.directory import DirectoryStore
from app.storage.objects import ObjectStore, StoredObject
from app.targets.onnx.spec import OnnxOptions
from tests.jobs.chunks import chunks_of

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


@pytest.fixture
async def worker(worker_url: str) -> AsyncIterator[Database]:
    """The test's database, as the role of workers, who clean up."""
    database = Database(worker_url)
    yield database
    await database.close()


async def stored(store: ObjectStore, content: bytes) -> StoredObject:
    return await store.receive(chunks_of(content), limit=1000)


async def finished(database: Database, store: ObjectStore, name: bytes, state: State = State.succeeded) -> Conversion:
    """A conversion that ended, with an artifact."""
    checkpoint = await stored(store, b"checkpoint of " + name)
    artifact = await stored(store, b"artifact of " + name)
    await queue.register_checkpoint(database, checkpoint, "w.pth", inspect=False)
    new = NewConversion(checkpoint.sha256, "test/net", OnnxOptions(), dedup_key=f"dedup {name.decode()}")
    conversion = (await queue.submit(database, new, key=Idempotency(name.decode(), "d"))).conversion
    await finish(database, conversion, artifact, state)
    return conversion


async def finish(database: Database, conversion: Conversion, artifact: StoredObject, state: State) -> None:
    """Run a queued conversion to its end as a worker does."""
    file = ProducedFile(
        role="artifact", filename="model.onnx", sha256=artifact.sha256, bytes=artifact.bytes, media_type="a/b"
    )
    async with database.transaction() as session:
        running = await conversions.start(session, conversion.id, conversion.queue_job_id or 0, "here")
        assert running
        await conversions.finish(
            session, conversion.id, running.attempt, Ending(state, verdict=Verdict.passed, files=(file,))
        )


async def age(database: Database, days: int, *columns: str) -> None:
    async with database.transaction() as session:
        for column in columns:
            table, name = column.split(".")
            await session.execute(text(f"update {table} set {name} = now() - make_interval(days => {days})"))


def make_old(directory: Path) -> None:
    for path in directory.glob("objects/sha256/??/*"):
        os.utime(path, (0, 0))


async def sizes(store: ObjectStore, objects: Sequence[StoredObject]) -> list[int | None]:
    return [await store.size(one.sha256) for one in objects]


async def test_orphans_go_once_they_are_old(worker: Database, store: ObjectStore, tmp_path: Path) -> None:
    orphan = await stored(store, b"orphan")
    assert await collect_orphans(worker, store, HOUR) == 0
    make_old(tmp_path)
    assert await collect_orphans(worker, store, HOUR) == 1
    assert await store.size(orphan.sha256) is None


async def test_what_a_row_refers_to_stays(
    database: Database, worker: Database, store: ObjectStore, tmp_path: Path
) -> None:
    await finished(database, store, b"a")
    template = await stored(store, b"template")
    async with database.transaction() as session:
        await session.execute(
            text(
                "insert into templates (key, state, builder, builder_attempt, object_sha256)"
                " values ('k', 'ready', 'b', 1, :sha256)"
            ),
            {"sha256": template.sha256},
        )
    make_old(tmp_path)
    assert await collect_orphans(worker, store, HOUR) == 0


async def test_files_of_a_deleted_conversion_are_collected(
    database: Database, worker: Database, store: ObjectStore, tmp_path: Path
) -> None:
    conversion = await finished(database, store, b"a")
    async with database.transaction() as session:
        await conversions.remove(session, conversion.id)
        await checkpoints.remove(session, conversion.checkpoint_sha256)
    make_old(tmp_path)
    assert await collect_orphans(worker, store, HOUR) == 2


async def test_old_conversions_lose_their_files_and_stay_readable(
    database: Database, worker: Database, store: ObjectStore
) -> None:
    conversion = await finished(database, store, b"a")
    for days, kept in ((1, 1), (40, 0)):
        await age(database, days, "conversions.finished_at", "conversions.created_at", "checkpoints.uploaded_at")
        await clean_up(worker, store, retention=timedelta(days=30), orphan_grace=HOUR)
        async with database.transaction() as session:
            assert len(await conversions.files(session, conversion.id)) == kept
    async with database.transaction() as session:
        found = await conversions.find(session, conversion.id)
        assert found.state is State.succeeded
        assert found.expired_at is not None
        with pytest.raises(UnknownCheckpoint):
            await checkpoints.find(session, conversion.checkpoint_sha256)


async def test_without_retention_everything_stays(database: Database, worker: Database, store: ObjectStore) -> None:
    conversion = await finished(database, store, b"a")
    await age(database, 4000, "conversions.finished_at", "conversions.created_at", "checkpoints.uploaded_at")
    await clean_up(worker, store, retention=None, orphan_grace=HOUR)
    async with database.transaction() as session:
        assert len(await conversions.files(session, conversion.id)) == 1
        await checkpoints.find(session, conversion.checkpoint_sha256)


async def test_a_file_that_was_no_checkpoint_is_forgotten_soon(
    database: Database, worker: Database, store: ObjectStore
) -> None:
    bad, good = await stored(store, b"bad"), await stored(store, b"good")
    for one in (bad, good):
        await queue.register_checkpoint(database, one, None)
    async with database.transaction() as session:
        await checkpoints.record_inspection(session, bad.sha256, CorruptCheckpoint("It is bad.").problem())
        inspection = CheckpointInspection(format="safetensors", bytes=4)
        await checkpoints.record_inspection(session, good.sha256, inspection)
    await age(database, 1, "checkpoint_owners.inspected_at")
    await clean_up(worker, store, retention=timedelta(days=30), orphan_grace=HOUR)
    async with database.transaction() as session:
        await checkpoints.find(session, good.sha256)
        with pytest.raises(UnknownCheckpoint):
            await checkpoints.find(session, bad.sha256)


async def test_a_checkpoint_in_use_is_kept_however_old(
    database: Database, worker: Database, store: ObjectStore
) -> None:
    conversion = await finished(database, store, b"a")
    async with database.transaction() as session:
        await session.execute(text("update conversions set state = 'queued', finished_at = null"))
    await age(database, 4000, "conversions.created_at", "checkpoints.uploaded_at")
    await clean_up(worker, store, retention=timedelta(days=30), orphan_grace=HOUR)
    async with database.transaction() as session:
        await checkpoints.find(session, conversion.checkpoint_sha256)


async def test_a_checkpoint_sent_again_is_kept_as_long_as_a_new_one(
    database: Database, worker: Database, store: ObjectStore
) -> None:
    again, once = await stored(store, b"sent again"), await stored(store, b"sent once")
    for one in (again, once):
        assert (await queue.register_checkpoint(database, one, "w.pth", inspect=False)).created
    await age(database, 40, "checkpoints.uploaded_at", "checkpoints.created_at")
    renewed = await queue.register_checkpoint(database, again, "other.pth", inspect=False)
    assert (renewed.created, renewed.checkpoint.filename) == (False, "w.pth")
    await clean_up(worker, store, retention=timedelta(days=30), orphan_grace=HOUR)
    async with database.transaction() as session:
        await checkpoints.find(session, again.sha256)
        with pytest.raises(UnknownCheckpoint):
            await checkpoints.find(session, once.sha256)


async def test_an_expired_conversion_that_is_retried_lives_anew(
    database: Database, worker: Database, store: ObjectStore
) -> None:
    """Its new files are served, found by the next request of the same, and given up in their turn."""
    conversion = await finished(database, store, b"a", State.failed)
    await age(database, 40, "conversions.finished_at")
    await clean_up(worker, store, retention=timedelta(days=30), orphan_grace=HOUR)
    retried = await queue.retry(database, conversion.id)
    assert (retried.state, retried.expired_at, retried.started_at) == (State.queued, None, None)
    await finish(database, retried, await stored(store, b"artifact of the second attempt"), State.succeeded)
    async with database.transaction() as session:
        twin = await conversions.finished_twin(session, "dedup a", (Verdict.passed,))
        assert twin is not None
        assert twin.id == conversion.id
    await age(database, 40, "conversions.finished_at")
    await clean_up(worker, store, retention=timedelta(days=30), orphan_grace=HOUR)
    async with database.transaction() as session:
        assert await conversions.files(session, conversion.id) == []


async def test_a_checkpoint_that_a_conversion_is_being_queued_for_is_kept(
    database: Database, worker: Database, store: ObjectStore
) -> None:
    """Whichever of the two is first: the request that holds the checkpoint, or the clean-up."""
    one = await stored(store, b"old")
    await queue.register_checkpoint(database, one, "w.pth", inspect=False)
    await age(database, 40, "checkpoints.uploaded_at", "checkpoints.created_at")
    async with database.transaction() as session:
        await checkpoints.hold(session, one.sha256)
        cleaning = asyncio.create_task(clean_up(worker, store, retention=timedelta(days=30), orphan_grace=HOUR))
        await asyncio.sleep(0.5)
        conversion = await conversions.insert(session, NewConversion(one.sha256, "test/net", OnnxOptions()))
        await queue.enqueue_conversion(session, conversion)
    await cleaning
    async with database.transaction() as session:
        await checkpoints.find(session, one.sha256)


async def test_no_statement_can_delete_the_checkpoint_of_an_unfinished_conversion(
    database: Database, store: ObjectStore
) -> None:
    conversion = await finished(database, store, b"a")
    async with database.transaction() as session:
        await session.execute(text("update conversions set state = 'queued', finished_at = null"))
    with pytest.raises(IntegrityError):
        async with database.transaction() as session:
            await session.execute(text("delete from checkpoints"))
    async with database.transaction() as session:
        await session.execute(text("update conversions set state = 'succeeded'"))
        await session.execute(text("delete from checkpoints"))
        await conversions.find(session, conversion.id)


@pytest.mark.parametrize("error", [TimedOut, WorkerLost, ChildCrashed, OutOfMemory])
async def test_a_file_whose_reading_was_cut_short_is_kept(
    database: Database, worker: Database, store: ObjectStore, error: type[RecastError]
) -> None:
    good = await stored(store, b"good")
    await queue.register_checkpoint(database, good, None)
    async with database.transaction() as session:
        await checkpoints.record_inspection(session, good.sha256, error("Cut short.").problem())
    await age(database, 1, "checkpoint_owners.inspected_at")
    await clean_up(worker, store, retention=timedelta(days=30), orphan_grace=HOUR)
    async with database.transaction() as session:
        await checkpoints.find(session, good.sha256)


async def test_the_store_of_another_database_is_not_touched(
    database: Database, worker: Database, store: ObjectStore, tmp_path: Path
) -> None:
    orphan = await stored(store, b"theirs")
    make_old(tmp_path)
    bare = DirectoryStore(tmp_path / "objects")
    await bare.claim("another database")
    with pytest.raises(Unavailable, match="another database"):
        await clean_up(worker, OwnedStore(bare, worker), retention=None, orphan_grace=HOUR)
    assert await store.size(orphan.sha256) is not None


async def test_entries_that_nobody_works_on_any_more_are_removed(
    database: Database, worker: Database, store: ObjectStore
) -> None:
    conversion = await finished(database, store, b"a")
    async with database.transaction() as session:
        await session.execute(text("update procrastinate_jobs set status = 'doing'"))
    assert conversion.queue_job_id
    await clean_up(worker, store, retention=None, orphan_grace=HOUR)
    async with database.transaction() as session:
        assert await session.scalar(text("select count(*) from procrastinate_jobs")) == 0
