"""Both object stores: what is stored is whole, addressed by its content, and nothing else is ever left."""

import asyncio
import errno
import hashlib
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import obstore
import pytest

from app.domain.errors import DigestMismatch, EmptyFile, InsufficientStorage, PayloadTooLarge, Unavailable
from app.storage.cloud import CloudStore
from app.storage.directory import DirectoryStore
from app.storage.objects import MissingObject, ObjectStore, object_name, object_sha256
from app.storage.opening import open_store
from tests.jobs.chunks import chunks_of

pytestmark = pytest.mark.anyio

LIMIT = 1 << 30


def made(root: Path) -> DirectoryStore:
    store = DirectoryStore(root)
    store.make()
    return store


@pytest.fixture(params=["directory", "cloud"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """A directory; and obstore, on a directory too, for there is no cloud here."""
    if request.param == "directory":
        return made(tmp_path / "objects")
    (tmp_path / "bucket").mkdir()
    return CloudStore((tmp_path / "bucket").as_uri(), tmp_path / "scratch")


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files_under(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def content_of(store: ObjectStore, sha256: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([block async for block in store.stream(sha256, start, end)])


async def test_what_is_received_can_be_read_back_in_every_way(store: ObjectStore) -> None:
    content = os.urandom(9 << 20)
    pieces = [content[at : at + 65_536] for at in range(0, len(content), 65_536)]
    stored = await store.receive(chunks_of(*pieces), limit=LIMIT)
    assert (stored.sha256, stored.bytes) == (sha256_of(content), len(content))
    assert await content_of(store, stored.sha256) == content
    assert await content_of(store, stored.sha256, 5, 3_000_000) == content[5:3_000_000]
    assert await content_of(store, stored.sha256, len(content)) == b""
    assert await store.size(stored.sha256) == len(content)
    async with store.local(stored.sha256) as path:
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o444 == 0o444  # conversion processes are another user


async def test_who_needs_a_file_at_the_same_time_shares_one_copy(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    store = CloudStore((tmp_path / "bucket").as_uri(), tmp_path / "scratch")
    stored = await store.receive(chunks_of(b"weights"), limit=LIMIT)
    seen: list[Path] = []
    together = asyncio.Barrier(3)

    async def use() -> None:
        async with store.local(stored.sha256) as path:
            seen.append(path)
            await together.wait()
            assert path.read_bytes() == b"weights"
            await together.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(use())
    assert len(set(seen)) == 1
    assert files_under(tmp_path / "scratch") == []
    with pytest.raises(MissingObject):
        async with store.local(sha256_of(b"nothing")):
            pass
    async with store.local(stored.sha256) as again:
        assert again.read_bytes() == b"weights"


async def test_a_file_that_is_not_in_memory_is_read_from_the_disk(tmp_path: Path) -> None:
    store = made(tmp_path / "objects")
    content = os.urandom(3 << 20)
    stored = await store.receive(chunks_of(content), limit=LIMIT)
    async with store.local(stored.sha256) as path:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    assert await content_of(store, stored.sha256, 7) == content[7:]


async def test_a_file_system_that_cannot_tell_what_is_in_memory_is_read_all_the_same() -> None:
    with TemporaryDirectory(dir="/dev/shm") as directory:
        store = made(Path(directory))
        content = os.urandom(3 << 20)
        stored = await store.receive(chunks_of(content), limit=LIMIT)
        assert await content_of(store, stored.sha256, 7) == content[7:]


async def test_what_arrives_is_read_while_it_is_flushed_and_promised_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path / "objects")
    content = os.urandom(2 << 20)
    place = tmp_path / "objects" / object_name(sha256_of(content))
    flush, flushed = Event(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (flush.wait(60), flushed(fd)))
    async with store.arriving(chunks_of(content), limit=LIMIT) as stored, store.local(stored.sha256) as path:
        assert path.read_bytes() == content
        assert not place.exists()
        with pytest.raises(MissingObject):  # nothing but a conversion is to rely on it yet
            await content_of(store, stored.sha256)
        flush.set()
        await store.settle(stored.sha256)
        assert place.read_bytes() == content
        assert path.read_bytes() == content  # who reads it is not disturbed
    assert files_under(tmp_path) == [place]


async def test_two_uploads_of_the_same_bytes_do_not_disturb_each_other(tmp_path: Path) -> None:
    store = made(tmp_path / "objects")
    async with store.arriving(chunks_of(b"weights"), limit=LIMIT) as first:
        async with store.arriving(chunks_of(b"weights"), limit=LIMIT) as second:
            assert first == second
            async with store.local(first.sha256) as path:
                assert path.read_bytes() == b"weights"
        assert await content_of(store, first.sha256) == b"weights"
    assert await content_of(store, first.sha256) == b"weights"
    assert len(files_under(tmp_path)) == 1


async def test_a_disk_that_fails_while_flushing_breaks_the_promise_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path / "objects")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InsufficientStorage):
        async with store.arriving(chunks_of(b"weights"), limit=LIMIT):
            pass
    assert files_under(tmp_path) == []


KILLED_BEFORE_FLUSHING = """
import asyncio, os, signal, sys
from pathlib import Path
from app.storage.directory import DirectoryStore

async def upload():
    yield b"weights"

async def main():
    store = DirectoryStore(Path(sys.argv[1]))
    os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
    async with store.arriving(upload(), limit=100):
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("found_by", ["tidy", "local", "settle"])
@pytest.mark.parametrize("intact", [True, False])
async def test_what_was_left_unflushed_counts_only_with_its_own_sha256(
    tmp_path: Path, found_by: str, intact: bool
) -> None:
    store = made(tmp_path / "objects")
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_BEFORE_FLUSHING, tmp_path / "objects")
    assert await killed.wait() == -signal.SIGKILL
    (arrived,) = files_under(tmp_path)
    if not intact:  # as a power cut leaves it: the name is there, the bytes are not
        arrived.chmod(0o644)
        arrived.write_bytes(bytes(7))
    sha256 = sha256_of(b"weights")
    if found_by == "tidy":
        await store.tidy()
    elif found_by == "settle":
        await store.settle(sha256)
    if intact:
        async with store.local(sha256) as path:
            assert path.read_bytes() == b"weights"
        assert await content_of(store, sha256) == b"weights"
        assert len(files_under(tmp_path)) == 1
        return
    with pytest.raises(MissingObject):
        async with store.local(sha256):
            pass
    assert files_under(tmp_path) == []
    await store.receive(chunks_of(b"weights"), limit=LIMIT)
    assert await content_of(store, sha256) == b"weights"


async def test_an_expected_digest_is_compared(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch):
        await store.receive(chunks_of(b"abc"), limit=LIMIT, expected_sha256="0" * 64)
    assert files_under(tmp_path) == []
    stored = await store.receive(chunks_of(b"abc"), limit=LIMIT, expected_sha256=sha256_of(b"abc").upper())
    assert stored.sha256 == sha256_of(b"abc")


async def test_what_is_too_large_is_refused_before_it_is_all_there(store: ObjectStore, tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1 << 20)

    with pytest.raises(PayloadTooLarge):
        await store.receive(endless(), limit=10 << 20)
    assert taken == 11
    assert files_under(tmp_path) == []


async def test_nothing_is_no_file(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(EmptyFile):
        await store.receive(chunks_of(b"", b""), limit=LIMIT)
    assert files_under(tmp_path) == []


async def test_a_client_that_goes_away_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    async def interrupted() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield bytes(1 << 20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await store.receive(interrupted(), limit=LIMIT)
    assert files_under(tmp_path) == []


@pytest.mark.parametrize("pieces", [1, 5, 12])
async def test_a_cancelled_upload_leaves_nothing(store: ObjectStore, tmp_path: Path, pieces: int) -> None:
    sent = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield bytes(1 << 20)
        sent.set()
        await asyncio.sleep(1000)

    receiving = asyncio.create_task(store.receive(stalling(), limit=LIMIT))
    await sent.wait()
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert files_under(tmp_path) == []


async def test_a_full_disk_is_insufficient_storage(store: ObjectStore, tmp_path: Path) -> None:
    """A bound on the size of files stands for the disk: both end a write with an error of the same family."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 20, hard))
    try:
        with pytest.raises(InsufficientStorage):
            await store.receive(chunks_of(*[bytes(1 << 20)] * 20), limit=LIMIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_under(tmp_path) == []


async def test_the_same_bytes_sent_at_once_are_one_object(store: ObjectStore) -> None:
    content = os.urandom(5 << 20)
    stored = await asyncio.gather(*(store.receive(chunks_of(content), limit=LIMIT) for _ in range(4)))
    assert {one.sha256 for one in stored} == {sha256_of(content)}
    assert await content_of(store, sha256_of(content)) == content


async def test_a_finished_file_is_taken_over(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "artifact"
    path.write_bytes(b"artifact")
    stored = await store.adopt(path, sha256_of(b"artifact"))
    assert stored.bytes == 8
    assert not path.exists()
    assert await content_of(store, stored.sha256) == b"artifact"


async def test_what_is_not_there_is_said_so(store: ObjectStore) -> None:
    missing = "0" * 64
    assert await store.size(missing) is None
    assert not await store.collect(missing, datetime.now(UTC))
    with pytest.raises(MissingObject):
        await content_of(store, missing)
    with pytest.raises(MissingObject):
        async with store.local(missing):
            pass


async def test_only_what_is_old_enough_is_collected(store: ObjectStore) -> None:
    stored = await store.receive(chunks_of(b"abc"), limit=LIMIT)
    now = datetime.now(UTC)
    old, future = now - timedelta(hours=1), now + timedelta(hours=1)
    assert [sha256 async for sha256 in store.older_than(old)] == []
    assert not await store.collect(stored.sha256, old)
    assert [sha256 async for sha256 in store.older_than(future)] == [stored.sha256]
    assert await store.collect(stored.sha256, future)
    assert await store.size(stored.sha256) is None


async def test_storing_the_same_bytes_again_makes_them_young(store: ObjectStore, tmp_path: Path) -> None:
    stored = await store.receive(chunks_of(b"abc"), limit=LIMIT)
    (path,) = files_under(tmp_path)
    for again in ("receive", "adopt"):
        os.utime(path, (0, 0))
        assert [sha256 async for sha256 in store.older_than(datetime.fromtimestamp(1000, UTC))] == [stored.sha256]
        if again == "receive":
            await store.receive(chunks_of(b"abc"), limit=LIMIT)
        else:
            (tmp_path / "same").write_bytes(b"abc")
            await store.adopt(tmp_path / "same", stored.sha256)
        assert [sha256 async for sha256 in store.older_than(datetime.fromtimestamp(1000, UTC))] == []


async def test_a_healthy_store_passes_its_check_and_keeps_nothing_of_it(store: ObjectStore, tmp_path: Path) -> None:
    await store.check()
    assert files_under(tmp_path) == []


async def test_directories_give_no_urls(store: ObjectStore) -> None:
    assert store.url("0" * 64, timedelta(minutes=1)) is None


async def test_files_of_killed_writers_are_removed_at_the_next_start_and_live_ones_kept(tmp_path: Path) -> None:
    store = made(tmp_path)
    abandoned = tmp_path / "incoming" / "incoming-abandoned"
    abandoned.write_bytes(b"half")
    others: list[Path] = []

    async def watched() -> AsyncIterator[bytes]:
        yield b"half"
        others.extend(files_under(tmp_path))
        await made(tmp_path).tidy()
        others.extend(files_under(tmp_path))
        yield b"whole"

    stored = await store.receive(watched(), limit=LIMIT)
    assert stored.bytes == 9
    assert not abandoned.exists()
    assert others[-1] in others[:2]


async def test_an_adopted_file_cannot_replace_an_object(tmp_path: Path) -> None:
    store = made(tmp_path / "objects")
    stored = await store.receive(chunks_of(b"true"), limit=LIMIT)
    (tmp_path / "forged").write_bytes(b"lies")
    await store.adopt(tmp_path / "forged", stored.sha256)
    assert await content_of(store, stored.sha256) == b"true"


async def test_a_presigned_url_names_the_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    store = open_store("s3://bucket/prefix", tmp_path)
    url = store.url("ab" + "0" * 62, timedelta(minutes=1))
    assert url
    assert "/prefix/sha256/ab/" + "0" * 62 in url
    assert "X-Amz-Signature=" in url


def test_names_of_objects_can_be_read_back() -> None:
    sha256 = sha256_of(b"")
    assert object_sha256(object_name(sha256)) == sha256
    assert object_sha256(f"some/prefix/{object_name(sha256)}") == sha256
    assert object_sha256("sha256/ab/short") is None


async def test_what_a_crash_left_half_collected_is_put_back_at_the_next_start(tmp_path: Path) -> None:
    store = made(tmp_path)
    stored = await store.receive(chunks_of(b"abc"), limit=LIMIT)
    (tmp_path / object_name(stored.sha256)).rename(tmp_path / "incoming" / f"collected-{stored.sha256}")
    await store.tidy()
    assert await content_of(store, stored.sha256) == b"abc"
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("request_before", ["head_async", "copy_async", "delete_async", "list"])
async def test_bytes_that_are_sent_again_while_they_are_collected_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_before: str
) -> None:
    """Whichever request of the collection the upload comes before."""
    (tmp_path / "bucket").mkdir()
    store = CloudStore((tmp_path / "bucket").as_uri(), tmp_path / "scratch")
    stored = await store.receive(chunks_of(b"abc"), limit=LIMIT)
    original = getattr(obstore, request_before)
    sent = False

    async def send_again() -> None:
        nonlocal sent
        if not sent:
            sent = True
            await store.receive(chunks_of(b"abc"), limit=LIMIT)

    async def after_upload(*arguments: object, **options: object) -> object:
        await send_again()
        return await original(*arguments, **options)

    async def pages_after_upload(*arguments: object, **options: object) -> AsyncIterator[object]:
        await send_again()
        async for page in original(*arguments, **options):
            yield page

    monkeypatch.setattr(obstore, request_before, pages_after_upload if request_before == "list" else after_upload)
    before = datetime.now(UTC)
    await store.collect(stored.sha256, before)
    monkeypatch.undo()
    assert sent
    assert await content_of(store, stored.sha256) == b"abc"


async def test_what_a_collection_died_over_is_put_back_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bucket").mkdir()
    store = CloudStore((tmp_path / "bucket").as_uri(), tmp_path / "scratch")
    stored = await store.receive(chunks_of(b"abc"), limit=LIMIT)
    await obstore.copy_async(store._store, object_name(stored.sha256), f"collected/{stored.sha256}")
    await obstore.delete_async(store._store, object_name(stored.sha256))
    assert [one async for one in store.older_than(datetime.fromtimestamp(0, UTC))] == []
    assert await content_of(store, stored.sha256) == b"abc"


async def test_a_store_belongs_to_who_claimed_it_first(store: ObjectStore) -> None:
    assert await store.owner() is None
    assert await store.claim("mine") == "mine"
    assert await store.claim("theirs") == "mine"
    assert await store.owner() == "mine"
    assert await store.claim("theirs", take_over=True) == "theirs"
    assert await store.owner() == "theirs"


async def test_a_directory_that_is_gone_is_a_store_that_is_away(tmp_path: Path) -> None:
    store = made(tmp_path / "objects")
    stored = await store.receive(chunks_of(b"abc"), limit=LIMIT)
    (tmp_path / "objects").rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        await content_of(store, stored.sha256)
    with pytest.raises(Unavailable):
        await store.size(stored.sha256)
    with pytest.raises(Unavailable):
        await store.receive(chunks_of(b"abc"), limit=LIMIT)
    (tmp_path / "away").rename(tmp_path / "objects")
    assert await content_of(store, stored.sha256) == b"abc"
