"""The store of a cloud on servers that speak S3, over their network."""

import asyncio
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.storage.cloud import PART, CloudStore
from app.storage.objects import BLOCK, MissingObject
from app.storage.opening import open_store
from tests.jobs.chunks import chunks_of
from tests.remotes.servers import KEY, S3_SERVERS, SECRET

pytestmark = pytest.mark.anyio

LIMIT = 1 << 30


@pytest.fixture(scope="module", params=S3_SERVERS)
def endpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with S3_SERVERS[request.param](tmp_path_factory.mktemp("s3") / "data") as address:
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
    """The server's own check of links is in test_fleet.py: moto takes every signature."""
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
    assert await store.collect(stored.sha256, datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(MissingObject):
        async with store.local(stored.sha256):
            pass


async def test_a_link_to_a_file_carries_its_name_and_a_file_may_be_stored_again(
    store: CloudStore, tmp_path: Path
) -> None:
    content = os.urandom(PART + 5)
    sha256 = hashlib.sha256(content).hexdigest()
    for _ in range(2):
        path = tmp_path / "made"
        path.write_bytes(content)
        await store.adopt(path, sha256, "net.onnx")
    url = store.url(sha256, timedelta(minutes=1))
    assert url is not None
    answer = httpx.get(url)
    assert answer.content == content
    assert answer.headers["Content-Disposition"] == 'attachment; filename="net.onnx"'
    assert [name async for name in store.older_than(datetime.now(UTC) + timedelta(hours=1))].count(sha256) == 1
    assert await store.size(sha256) == len(content)
    assert await store.size("00" * 32) is None


async def test_a_bucket_belongs_to_who_claimed_it_first(store: CloudStore) -> None:
    assert await store.claim("mine") == "mine"
    assert await store.claim("theirs") == "mine"
    await store.check()


@dataclass
class BreakingServer:
    """Serves one object, of which every answer brings no more than some bytes before the connection ends."""

    content: bytes
    longest: int
    asked: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            asked = re.search(r"range: bytes=(\d+)-", head, re.IGNORECASE)
            start = int(asked[1]) if asked else 0
            said = (
                f"HTTP/1.1 {206 if asked else 200} OK\r\nContent-Length: {len(self.content) - start}\r\n"
                f"Content-Range: bytes {start}-{len(self.content) - 1}/{len(self.content)}\r\n"
                "Last-Modified: Thu, 01 Jan 2026 12:00:00 GMT\r\nConnection: close\r\n\r\n"
            )
            writer.write(said.encode())
            if head.startswith("GET"):
                self.asked += 1
                writer.write(self.content[start : start + self.longest])
            await writer.drain()


async def test_a_file_is_read_over_a_way_that_breaks_more_often_than_a_request_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(15 * BLOCK)
    server = BreakingServer(content, longest=BLOCK)
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as listening:
        endpoint = "http://{}:{}".format(*listening.sockets[0].getsockname())
        told = {"ENDPOINT": endpoint, "SKIP_SIGNATURE": "true", "REGION": "us-east-1", "ALLOW_HTTP": "true"}
        for name, value in told.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        async with CloudStore("s3://models", tmp_path / "scratch").local("ab" * 32) as path:
            assert path.read_bytes() == content
    assert server.asked == 15
