"""Backup and restore: database and store as they were at one moment, in another place."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.database import dump, identity
from app.database.conversions import NewConversion
from app.database.dump import RestoreRefused
from app.database.migrations import missing_for_worker
from app.database.owned_store import OwnedStore
from app.database.references import REFERENCES
from app.database.session import Database
from app.database.tables import Table
from app.database.worker_role import WorkerRole
from app.jobs import queue
from app.jobs.backup import Backup, ForeignStore, NoBackup, back_up, restore
from app.jobs.retention import collect_orphans
from app.storage.directory import DirectoryStore
from app.storage.objects import OwnableStore
from app.storage.opening import open_store
from app.targets.onnx.spec import OnnxOptions
from tests.conftest import WORKERS, as_worker
from tests.jobs.chunks import chunks_of
from tests.remotes.servers import KEY, S3_SERVERS, SECRET

pytestmark = pytest.mark.anyio

NOT_OBJECTS = {
    ("checkpoint_owners", "sha256"),
    ("conversions", "checkpoint_sha256"),
    ("conversions", "source_sha256"),
    ("uploads", "checkpoint_sha256"),
    ("uploads", "expected_sha256"),
}
"""Columns with a sha256 that another row's reference stands behind, or that no object need have."""


@pytest.fixture
async def owned(database: Database, store: DirectoryStore) -> OwnedStore:
    return OwnedStore(store, database)


@pytest.fixture
async def elsewhere(postgres_url: str, tmp_path: Path) -> AsyncIterator[tuple[str, DirectoryStore]]:
    """An empty database and a place where there is no store yet."""
    name = f"elsewhere_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
        yield url, DirectoryStore(tmp_path / "elsewhere")
        connection.execute(f"drop database {name} with (force)")


async def add(database: Database, store: OwnedStore, content: bytes) -> str:
    """A checkpoint, and a conversion that waits for it; gives the sha256."""
    stored = await store.receive(chunks_of(content), limit=1000)
    await queue.register_checkpoint(database, stored, "weights.pth", inspect=False)
    await queue.submit(
        database, NewConversion(stored.sha256, "test/net", OnnxOptions(), labels={"of": content.decode()})
    )
    return stored.sha256


def everything(url: str) -> dict[str, list[str]]:
    """All rows of all tables but those that tell of workers and claims."""
    with psycopg.connect(url) as connection:
        names = [row[0] for row in connection.execute("select tablename from pg_tables where schemaname = 'public'")]
        return {
            name: sorted(row[0] for row in connection.execute(f"select {name}::text from {name}"))
            for name in names
            if name not in ("identity", "workers")
        }


def alone(url: str) -> None:
    """Wait until the server has noticed that the connections of the service are closed."""
    others = "select from pg_stat_activity where datname = current_database() and application_name like 'recast%'"
    with psycopg.connect(url, autocommit=True) as connection:
        while connection.execute(others).fetchall():
            time.sleep(0.05)


def inodes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in directory.glob("objects/sha256/??/*")}


@pytest.fixture(params=["directory", *S3_SERVERS])
def stores(
    request: pytest.FixtureRequest, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[OwnableStore, OwnableStore]]:
    """Where a service keeps its objects, and where they are restored to."""
    if request.param == "directory":
        yield store, DirectoryStore(tmp_path / "elsewhere")
        return
    with S3_SERVERS[request.param](tmp_path / "s3") as endpoint:
        for name, value in (
            ("AWS_ENDPOINT", endpoint),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ALLOW_HTTP", "true"),
        ):
            monkeypatch.setenv(name, value)
        yield open_store("s3://models/ours", tmp_path / "scratch"), open_store("s3://models/else", tmp_path / "scratch")


async def test_a_restored_service_holds_what_the_backup_did(database, database_url, stores, elsewhere, tmp_path):
    owned, store = OwnedStore(stores[0], database), stores[1]
    kept = [await add(database, owned, content) for content in (b"one", b"two")]
    told = await back_up(database_url, owned, tmp_path / "backup")
    assert (told.objects, told.missing) == (2, [])
    before = everything(database_url)
    await add(database, owned, b"too late")
    url, _ = elsewhere
    assert await restore(tmp_path / "backup", url, store) == told
    assert everything(url) == before
    restored = Database(url)
    async with restored.transaction() as session:
        assert (await identity.of_database(session)).id == told.identity
    for sha256, content in zip(kept, (b"one", b"two"), strict=True):
        assert b"".join([bytes(block) async for block in OwnedStore(store, restored).stream(sha256)]) == content
    await restored.close()


async def test_a_later_backup_copies_only_what_is_new_and_drops_what_is_gone(database, database_url, owned, tmp_path):
    place = tmp_path / "backup"
    for content in (b"stays", b"goes"):
        await add(database, owned, content)
    first = await back_up(database_url, owned, place)
    copied = inodes(place)
    async with database.transaction() as session:
        await session.execute(text("delete from conversions where labels ->> 'of' = 'goes'"))
        await session.execute(
            text("delete from checkpoints where sha256 not in (select held_checkpoint from conversions)")
        )
    await add(database, owned, b"new")
    second = await back_up(database_url, owned, place)
    assert len(inodes(place)) == second.objects == 2
    assert len(inodes(place).items() & copied.items()) == 1
    assert [path.name for path in place.glob("*.dump")] == [second.database] != [first.database]


async def test_nothing_is_restored_over_what_somebody_has(database, database_url, owned, elsewhere, tmp_path):
    await add(database, owned, b"one")
    place = tmp_path / "backup"
    await back_up(database_url, owned, place)
    async with database.transaction():
        with pytest.raises(RestoreRefused, match="connections"):
            await restore(place, database_url, owned._store, replace=True)
    await database.close()
    alone(database_url)
    with (
        psycopg.connect(as_worker(database_url), application_name="recast"),
        pytest.raises(RestoreRefused, match="connections"),
    ):
        await restore(place, database_url, owned._store, replace=True)
    alone(database_url)
    with pytest.raises(RestoreRefused, match="holds checkpoints"):
        await restore(place, database_url, owned._store)
    before = everything(database_url)
    await restore(place, database_url, owned._store, replace=True, role=WorkerRole(WORKERS.name))
    assert everything(database_url) == before
    assert missing_for_worker(as_worker(database_url)) is None
    url, store = elsewhere
    await store.claim("another database")
    with pytest.raises(ForeignStore):
        await restore(place, url, store)
    with psycopg.connect(url) as connection:
        connection.execute("create table theirs (id int)")
    with pytest.raises(RestoreRefused, match="theirs"):
        await restore(place, url, DirectoryStore(tmp_path / "third"), replace=True)


async def test_what_the_store_has_lost_is_told_and_what_a_backup_has_lost_is_noticed(
    database, database_url, owned, store, elsewhere, tmp_path
):
    lost, kept = [await add(database, owned, content) for content in (b"lost", b"kept")]
    (tmp_path / "objects" / "sha256" / lost[:2] / lost[2:]).unlink()
    place = tmp_path / "backup"
    told: Backup = await back_up(database_url, owned, place)
    assert (told.objects, told.missing) == (2, [lost])
    url, target = elsewhere
    damaged = place / "objects" / "sha256" / kept[:2] / kept[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"flip")
    with pytest.raises(Exception, match="sha256"):
        await restore(place, url, target)
    damaged.unlink()
    with pytest.raises(NoBackup):
        await restore(place, url, target)
    with pytest.raises(NoBackup):
        await restore(tmp_path, url, target)


async def test_no_object_is_removed_while_a_backup_is_taken(database, database_url, owned):
    stored = await owned.receive(chunks_of(b"orphan"), limit=1000)
    at_once = timedelta(seconds=-1)
    with dump.snapshot(database_url):
        assert await collect_orphans(database, owned, at_once) == 0
    assert await owned.size(stored.sha256) is not None
    assert await collect_orphans(database, owned, at_once) == 1


def test_every_column_with_the_name_of_an_object_is_a_reference_or_known_to_be_none():
    columns = {
        (table.name, column.name)
        for table in Table.metadata.tables.values()
        for column in table.columns
        if column.name.endswith("sha256") or column.name.endswith("checkpoint")
    }
    assert columns - set(REFERENCES) - NOT_OBJECTS == {("conversions", "held_checkpoint")}
