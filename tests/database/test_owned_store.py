"""A database's store: made once, then used only while it is there and carries the database's name."""

import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import obstore
import pytest
from sqlalchemy import text

from app.database.owned_store import OwnedStore, claim
from app.database.session import Database
from app.domain.errors import Unavailable
from app.jobs import queue
from app.storage.cloud import CloudStore
from app.storage.directory import DirectoryStore
from app.storage.objects import MissingObject, OwnableStore, StoredObject
from tests.jobs.chunks import chunks_of

pytestmark = pytest.mark.anyio

OpenStore = Callable[[], OwnableStore]
ABSENT = "0" * 64


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture(params=["directory", "cloud"])
def open_bare(request: pytest.FixtureRequest, place: Path, tmp_path: Path) -> OpenStore:
    """Opens the store as a process that starts does; a cloud of directories has its bucket, however empty."""

    def cloud() -> OwnableStore:
        place.mkdir(exist_ok=True)
        store = CloudStore(place.as_uri(), tmp_path / "scratch")
        store.owner_lasts = 0.0
        return store

    return cloud if request.param == "cloud" else lambda: DirectoryStore(place)


async def stored(store: OwnedStore, content: bytes = b"abc") -> StoredObject:
    return await store.receive(chunks_of(content), limit=1000)


async def content_of(store: OwnedStore, sha256: str) -> bytes:
    return b"".join([block async for block in store.stream(sha256)])


def every_use(store: OwnedStore, sha256: str, file: Path) -> dict[str, Callable[[], Awaitable[object]]]:
    file.write_bytes(b"artifact")

    async def local() -> None:
        async with store.local(sha256):
            pass

    async def older() -> list[str]:
        return [one async for one in store.older_than(datetime.now(UTC))]

    return {
        "receive": lambda: stored(store),
        "settle": lambda: store.settle(sha256),
        "adopt": lambda: store.adopt(file, sha256),
        "local": local,
        "stream": lambda: content_of(store, sha256),
        "size": lambda: store.size(sha256),
        "collect": lambda: store.collect(sha256, datetime.now(UTC)),
        "older_than": older,
        "check": store.check,
    }


async def test_a_new_store_is_made_and_remembered(database: Database, open_bare: OpenStore, place: Path) -> None:
    store = OwnedStore(open_bare(), database)
    one = await stored(store)
    assert await content_of(store, one.sha256) == b"abc"
    async with database.transaction() as session:
        assert await session.scalar(text("select id from identity")) == (place / "owner").read_text()
        assert await session.scalar(text("select store_claimed_at from identity")) is not None
    assert await content_of(OwnedStore(open_bare(), database), one.sha256) == b"abc"


@pytest.mark.parametrize("started", ["before", "after"])
async def test_no_use_is_made_of_a_store_without_the_name_until_it_is_back(
    database: Database, open_bare: OpenStore, place: Path, tmp_path: Path, started: str
) -> None:
    store = OwnedStore(open_bare(), database)
    one = await stored(store)
    place.rename(tmp_path / "away")
    if started == "after":
        store = OwnedStore(open_bare(), database)
    for use in every_use(store, one.sha256, tmp_path / "artifact").values():
        with pytest.raises(Unavailable, match="database's name"):
            await use()
    assert list(place.rglob("*")) == []
    assert (tmp_path / "artifact").exists()
    shutil.rmtree(place, ignore_errors=True)
    (tmp_path / "away").rename(place)
    assert await content_of(store, one.sha256) == b"abc"
    for use in every_use(store, one.sha256, tmp_path / "artifact").values():
        await use()


async def test_another_databases_store_is_not_used(database: Database, open_bare: OpenStore, tmp_path: Path) -> None:
    assert await open_bare().claim("theirs") == "theirs"
    store = OwnedStore(open_bare(), database)
    for use in every_use(store, ABSENT, tmp_path / "artifact").values():
        with pytest.raises(Unavailable, match="belongs to another database, 'theirs'"):
            await use()
    assert (await claim(open_bare(), database))[0] == "theirs"
    with pytest.raises(Unavailable):
        await store.check()
    owner, own = await claim(open_bare(), database, take_over=True)
    assert owner == own
    await store.check()


async def test_a_store_that_loses_its_name_while_it_is_relied_on_has_lost_no_object(
    database: Database, open_bare: OpenStore, place: Path
) -> None:
    bare = open_bare()
    bare.owner_lasts = 1e9
    store = OwnedStore(bare, database)
    await stored(store)
    for read in (store.size, lambda sha256: content_of(store, sha256)):
        (place / "owner").rename(place / "was-owner")
        with pytest.raises(Unavailable):
            await read(ABSENT)
        (place / "was-owner").rename(place / "owner")
        await store.check()
    assert await store.size(ABSENT) is None
    with pytest.raises(MissingObject):
        await content_of(store, ABSENT)


async def test_an_emptied_store_is_claimed_by_decision(database: Database, open_bare: OpenStore, place: Path) -> None:
    store = OwnedStore(open_bare(), database)
    one = await stored(store)
    shutil.rmtree(place)
    bare = open_bare()
    with pytest.raises(Unavailable, match="recast claim-store"):
        await store.check()
    owner, own = await claim(bare, database)
    assert owner == own
    with pytest.raises(MissingObject):
        await content_of(store, one.sha256)
    assert (await stored(store)).sha256 == one.sha256


@pytest.mark.parametrize("mounted", [False, True])
async def test_an_earlier_versions_database_claims_no_store_but_its_own(
    database: Database, open_bare: OpenStore, place: Path, tmp_path: Path, mounted: bool
) -> None:
    earlier = open_bare()
    await earlier.claim("nobody")
    (place / "owner").unlink()
    one = await earlier.receive(chunks_of(b"abc"), limit=1000)
    await queue.register_checkpoint(database, one, None)
    if not mounted:
        place.rename(tmp_path / "away")
    store = OwnedStore(open_bare(), database)
    if not mounted:
        with pytest.raises(Unavailable):
            await stored(store, b"other")
        assert list(place.rglob("*")) == []
        shutil.rmtree(place, ignore_errors=True)
        (tmp_path / "away").rename(place)
    assert await content_of(store, one.sha256) == b"abc"
    assert (place / "owner").exists()


async def test_a_cloud_store_whose_bucket_is_gone_cannot_be_claimed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bucket").mkdir()
    store = CloudStore((tmp_path / "bucket").as_uri(), tmp_path / "scratch")

    async def no_such_bucket(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(obstore, "put_async", no_such_bucket)
    with pytest.raises(Unavailable, match="no such bucket"):
        await OwnedStore(store, database).check()


async def test_a_directory_that_cannot_be_made_is_said_in_words(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot be made"):
        await OwnedStore(DirectoryStore(tmp_path / "file" / "objects"), database).check()
