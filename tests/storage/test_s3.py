"""The store of a cloud on a server that speaks S3 and checks signatures, over its network."""

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.storage.cloud import PART, CloudStore
from app.storage.objects import MissingObject
from app.storage.opening import open_store
from tests.jobs.chunks import chunks_of
from tests.remotes.servers import KEY, SECRET, s3_server

pytestmark = pytest.mark.anyio

LIMIT = 1 << 30


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3") / "data") as address:
        yield address


@pytest.fixture
def store(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CloudStore:
    told = {"ENDPOINT": endpoint, "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1"}
    for name, value in {**told, "ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    store = open_store(f"s3://models/{tmp_path.name}", tmp_path / "scratch")
    assert isinstance(store, CloudStore)
    return store


async def test_an_object_of_several_parts_is_stored_read_linked_and_collected(store: CloudStore) -> None:
    content = os.urandom(2 * PART + 5)
    stored = await store.receive(chunks_of(content[:PART], content[PART:]), limit=LIMIT)
    assert (stored.sha256, stored.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (
        b"".join([block async for block in store.stream(stored.sha256, PART - 3, PART + 3)])
        == (content[PART - 3 : PART + 3])
    )
    async with store.local(stored.sha256) as path:
        assert path.read_bytes() == content
    url = store.url(stored.sha256, timedelta(minutes=1))
    assert url is not None
    assert httpx.get(url, headers={"Range": "bytes=0-9"}).content == content[:10]
    assert httpx.get(url.replace("X-Amz-Signature=", "X-Amz-Signature=0")).status_code == 403
    assert await store.collect(stored.sha256, datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(MissingObject):
        async with store.local(stored.sha256):
            pass


async def test_a_bucket_belongs_to_who_claimed_it_first(store: CloudStore) -> None:
    assert await store.claim("mine") == "mine"
    assert await store.claim("theirs") == "mine"
    await store.check()
