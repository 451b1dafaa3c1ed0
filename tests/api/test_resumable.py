"""Resumable uploads over two replicas on each kind of store: the protocol, broken connections, two public clients."""

import base64
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psycopg
import pytest
from tusclient.client import TusClient

from app.jobs.retention import clean_up
from app.settings import Settings
from tests.api.server import Backstage, serving, sha256, weights
from tests.delivery.browser import running_browser
from tests.remotes.servers import KEY, S3_SERVERS, SECRET

VERSION = {"Tus-Resumable": "1.0.0"}
BYTES = {**VERSION, "Content-Type": "application/offset+octet-stream", "Prefer": "wait=0"}
TUS_JS = Path(__file__).with_name("vendor") / "tus-js-client-4.3.1.min.js"


@pytest.fixture(scope="module", params=["directory", *S3_SERVERS])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    place = tmp_path_factory.mktemp("resumable")
    told = Settings(data_dir=place / "data", max_upload_bytes=8 << 20)
    if request.param == "directory":
        yield told
        return
    with S3_SERVERS[request.param](place / "s3") as endpoint, pytest.MonkeyPatch.context() as patched:
        variables = {"ENDPOINT": endpoint, "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1"}
        for name, value in {**variables, "ALLOW_HTTP": "true"}.items():
            patched.setenv(f"AWS_{name}", value)
        yield told.model_copy(update={"store_url": "s3://models"})


@pytest.fixture(scope="module")
def other_url(backstage: Backstage, settings: Settings) -> Iterator[str]:
    """A second replica, on the same database and store."""
    with serving(settings, backstage.database_url) as address:
        yield address


@pytest.fixture
def replicas(client: httpx.Client, other_url: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with httpx.Client(base_url=other_url, timeout=60) as other:
        yield client, other


def content(size: int = 100_000) -> bytes:
    """The beginning of a checkpoint, and then anything."""
    return weights(uuid4().bytes).ljust(size, b"x")


def metadata(**pairs: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in pairs.items())


def begun(client: httpx.Client, length: int, **told: str) -> str:
    headers = {**VERSION, "Upload-Length": str(length)}
    answer = client.post("/v1/uploads", headers={**headers, "Upload-Metadata": metadata(**told)} if told else headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def offset(client: httpx.Client, path: str) -> int:
    answer = client.head(path, headers=VERSION)
    assert answer.status_code == 200
    return int(answer.headers["upload-offset"])


def send(client: httpx.Client, path: str, at: int, sent: bytes, **headers: str) -> httpx.Response:
    return client.patch(path, headers={**BYTES, "Upload-Offset": str(at), **headers}, content=sent)


def stored(client: httpx.Client, path: str) -> str | None:
    """sha256 of what the upload became."""
    return client.get(path, headers={"Prefer": "wait=30"}).json()["checkpoint"]


def rows(backstage: Backstage, query: str) -> list[Any]:
    with psycopg.connect(backstage.database_url, autocommit=True) as connection:
        done = connection.execute(query)
        return done.fetchall() if done.description else []


@contextmanager
def half_a_request(url: str, path: str, at: int, length: int, sent: bytes) -> Iterator[socket.socket]:
    """A PATCH of ``length`` bytes of which only these have been sent."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = {**BYTES, "Host": address.netloc, "Upload-Offset": str(at), "Content-Length": str(length)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        connection.sendall(f"PATCH {path} HTTP/1.1\r\n{lines}\r\n".encode() + sent)
        yield connection


def test_a_file_arrives_in_parts_at_two_replicas(replicas, backstage):
    one, other = replicas
    whole = content()
    path = begun(one, len(whole), filename="net.pth", name="pets", labels='{"team": "vision"}', sha256=sha256(whole))
    first = send(other, path, 0, whole[:60_000])
    assert (first.status_code, first.headers["upload-offset"]) == (204, "60000")
    assert first.headers["tus-resumable"] == "1.0.0"
    assert "GMT" in first.headers["upload-expires"]
    assert one.get(path).json() | {"offset": 60_000, "complete": False, "checkpoint": None} == one.get(path).json()
    last = send(one, path, 60_000, whole[60_000:])
    assert (last.status_code, last.headers["content-location"]) == (204, f"/v1/checkpoints/{sha256(whole)}")
    known = other.get(last.headers["content-location"], headers={"Prefer": "wait=0"}).json()
    assert (known["filename"], known["name"], known["labels"]) == ("net.pth", "pets", {"team": "vision"})
    assert sha256(whole) in backstage.stored_objects()
    assert rows(backstage, f"select from upload_parts where upload_id = '{path.rsplit('/', 1)[1]}'") == []
    standing = other.head(path, headers=VERSION)
    assert (standing.headers["upload-offset"], standing.headers["upload-length"]) == (str(len(whole)),) * 2
    assert standing.headers["upload-metadata"].startswith("filename ")
    assert standing.headers["cache-control"] == "no-store"


def test_what_arrived_before_a_connection_broke_off_is_kept(replicas, url):
    one, other = replicas
    whole = content()
    path = begun(one, len(whole))
    with half_a_request(url, path, 0, len(whole), whole[:70_000]):
        pass
    while (reached := other.get(path).json()["offset"]) == 0:
        threading.Event().wait(0.05)
    assert reached == offset(other, path)
    assert 0 < reached <= 70_000
    assert send(other, path, reached, whole[reached:]).status_code == 204
    assert stored(one, path) == sha256(whole)


def test_a_connection_that_hangs_adds_nothing_once_the_client_goes_on_elsewhere(replicas, url, backstage):
    one, other = replicas
    whole, stale = content(), content()
    path = begun(one, len(whole))
    with half_a_request(url, path, 0, len(whole), stale[:50_000]) as hanging:
        while rows(backstage, f"select lease from uploads where id = '{path.rsplit('/', 1)[1]}'") == [(0,)]:
            threading.Event().wait(0.05)
        assert offset(other, path) == 0
        assert send(other, path, 0, whole).status_code == 204
        hanging.sendall(stale[50_000:])
        assert hanging.recv(1000).startswith(b"HTTP/1.1 409")
    assert stored(other, path) == sha256(whole)


def test_a_body_whose_checksum_differs_leaves_nothing(client):
    whole = content()
    path = begun(client, len(whole))
    for algorithm in ("sha1", "sha256"):
        right = base64.b64encode(hashlib.new(algorithm, whole[:50_000]).digest()).decode()
        wrong = base64.b64encode(hashlib.new(algorithm, b"other").digest()).decode()
        refused = send(client, path, 0, whole[:50_000], **{"Upload-Checksum": f"{algorithm} {wrong}"})
        assert (refused.status_code, refused.json()["code"]) == (460, "checksum_mismatch")
        assert offset(client, path) == 0
    assert send(client, path, 0, whole[:50_000], **{"Upload-Checksum": f"sha256 {right}"}).status_code == 204
    for unknown in ("crc32 AAAA", "sha1 AAAA", "sha1"):
        assert send(client, path, 50_000, b"x", **{"Upload-Checksum": unknown}).status_code == 400
    assert offset(client, path) == 50_000


def test_many_small_requests_make_few_parts_and_renew_few_bytes(client, backstage):
    whole = content(40_000)
    path = begun(client, len(whole))
    for at in range(0, 36_000, 4_000):
        assert send(client, path, at, whole[at : at + 4_000]).status_code == 204
    query = f"select start, bytes from upload_parts where upload_id = '{path.rsplit('/', 1)[1]}'"
    assert rows(backstage, f"{query} order by start") == [(0, 32_000), (32_000, 4_000)]  # as 9 is written in binary
    assert send(client, path, 36_000, whole[36_000:]).status_code == 204
    assert stored(client, path) == sha256(whole)


def test_an_upload_whose_process_died_before_the_end_is_finished_by_another(replicas, backstage):
    """All bytes are there and acknowledged to nobody: the parts are recorded, the checkpoint is not."""
    one, other = replicas
    whole = content()
    path = begun(one, len(whole))
    assert send(one, path, 0, whole[:99_999]).status_code == 204
    id = path.rsplit("/", 1)[1]
    digest = sha256(whole)
    assert one.post("/v1/checkpoints", content=whole, headers={"Prefer": "wait=0"}).status_code == 201
    rows(backstage, f"update upload_parts set bytes = {len(whole)}, sha256 = '{digest}' where upload_id = '{id}'")
    rows(backstage, f"update uploads set received = length where id = '{id}'")
    assert offset(other, path) == len(whole)
    assert stored(other, path) == digest


@pytest.mark.parametrize(
    ("length", "headers", "status", "code"),
    [
        ("10", {"Tus-Resumable": "0.2.2"}, 412, "unsupported_tus_version"),
        ("0", VERSION, 422, "empty_file"),
        ("-1", VERSION, 422, "invalid_request"),
        (str(9 << 20), VERSION, 413, "payload_too_large"),
        ("10", {**VERSION, "Upload-Metadata": "filename ***"}, 422, "invalid_request"),
        ("10", {**VERSION, "Upload-Metadata": metadata(labels="[]")}, 422, "invalid_request"),
        ("10", {**VERSION, "Upload-Metadata": metadata(sha256="ab")}, 422, "invalid_request"),
    ],
)
def test_an_upload_that_cannot_be_is_not_begun(client, length, headers, status, code):
    answer = client.post("/v1/uploads", headers={"Upload-Length": length, **headers})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["tus-resumable"] == "1.0.0"


def test_a_request_that_does_not_go_on_where_the_upload_stands_is_refused(client):
    path = begun(client, 1000)
    wrong = send(client, path, 5, b"x")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["upload-offset"]) == (409, "offset_mismatch", "0")
    assert send(client, path, 0, b"x", **{"Content-Type": "text/plain"}).status_code == 415
    assert send(client, path, 0, weights().ljust(1001)).status_code == 413
    assert client.patch(path, headers={**BYTES, "Tus-Resumable": "2", "Upload-Offset": "0"}).status_code == 412
    assert offset(client, path) == 0
    assert client.delete(path, headers=VERSION).status_code == 204
    assert client.head(path, headers=VERSION).status_code == 404
    assert client.get("/v1/uploads/upl_%00").status_code == 404


def test_what_is_no_checkpoint_is_refused_and_the_upload_says_why(client):
    page = b"<html>".ljust(8000)
    path = begun(client, len(page))
    assert send(client, path, 0, page).json()["code"] == "unsupported_format"
    assert offset(client, path) == 0
    assert send(client, path, 0, page[:10]).status_code == 204
    refused = send(client, path, 10, page[10:])
    assert (refused.status_code, refused.json()["code"]) == (415, "unsupported_format")
    ended = client.get(path).json()
    assert (ended["complete"], ended["checkpoint"], ended["problem"]["code"]) == (True, None, "unsupported_format")


def test_a_file_that_changed_on_its_way_is_refused(client):
    whole = content()
    path = begun(client, len(whole), sha256="ab" * 32)
    assert send(client, path, 0, whole).json()["code"] == "digest_mismatch"


async def _clean_up(database: Any, store: Any) -> None:
    await clean_up(database, store, retention=None, orphan_grace=timedelta(seconds=-1))


def test_an_upload_that_nothing_arrives_for_expires_with_its_parts(client, backstage):
    whole = content()
    path = begun(client, len(whole))
    part = sha256(whole[:50_000])
    send(client, path, 0, whole[:50_000])
    backstage._with_database(_clean_up)
    assert part in backstage.stored_objects()
    id = path.rsplit("/", 1)[1]
    rows(backstage, f"update uploads set expires_at = now() - interval '1 second' where id = '{id}'")
    assert client.head(path, headers=VERSION).status_code == 410
    assert send(client, path, 50_000, whole[50_000:]).status_code == 410
    backstage._with_database(_clean_up)
    assert client.head(path, headers=VERSION).status_code == 404
    assert part not in backstage.stored_objects()


def test_clients_that_know_only_post_are_understood(client):
    whole = content()
    path = begun(client, len(whole))
    headers = {**BYTES, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert client.post(path, headers=headers, content=whole).status_code == 204
    assert client.post(path, headers={**VERSION, "X-HTTP-Method-Override": "DELETE"}).status_code == 204
    told = client.options("/v1/uploads")
    assert (told.status_code, told.headers["tus-version"]) == (204, "1.0.0")
    assert set(told.headers["tus-extension"].split(",")) == {"creation", "checksum", "expiration", "termination"}
    assert told.headers["tus-max-size"] == str(8 << 20)


def test_tuspy_uploads_resumes_and_checks(client, url, other_url, tmp_path):
    whole = content(300_000)
    file = tmp_path / "net.pth"
    file.write_bytes(whole)
    tus = TusClient(f"{url}/v1/uploads", headers={"Prefer": "wait=0"})
    begin = tus.uploader(str(file), chunk_size=65_536, metadata={"filename": "net.pth"}, upload_checksum=True)
    begin.upload(stop_at=131_072)
    place = begin.url.replace(url, other_url)
    TusClient(f"{other_url}/v1/uploads", headers={"Prefer": "wait=0"}).uploader(
        str(file), chunk_size=100_000, url=place
    ).upload()
    assert stored(client, urlsplit(place).path) == sha256(whole)


def test_tus_js_client_uploads_and_resumes_in_a_browser(client, url):
    size = 300_000
    with running_browser() as browser:
        context = browser.new_context(bypass_csp=True)
        page = context.new_page()
        page.goto(f"{url}/healthz")
        page.evaluate(TUS_JS.read_text())
        place = page.evaluate(UPLOAD_AND_STOP, [base64.b64encode(weights(os.urandom(16))).decode(), size])
        assert 0 < offset(client, urlsplit(place).path) < size
        digest = page.evaluate(RESUME, place)
        context.close()
    assert stored(client, urlsplit(place).path) == digest


UPLOAD_AND_STOP = """
([head, size]) => new Promise((resolve, reject) => {
    const start = Uint8Array.from(atob(head), c => c.charCodeAt(0));
    window.file = new Blob([start, new Uint8Array(size - start.length)]);
    const upload = new tus.Upload(window.file, {
        endpoint: '/v1/uploads', chunkSize: 65536, headers: {Prefer: 'wait=0'}, metadata: {filename: 'net.pth'},
        onError: reject,
        onChunkComplete: (_, sent) => { if (sent >= 131072) upload.abort().then(() => resolve(upload.url)); },
    });
    upload.start();
})
"""
RESUME = """
place => new Promise((resolve, reject) => {
    const upload = new tus.Upload(window.file, {
        uploadUrl: place, headers: {Prefer: 'wait=0'}, onError: reject,
        onSuccess: async () => {
            const digest = await crypto.subtle.digest('SHA-256', await window.file.arrayBuffer());
            resolve(Array.from(new Uint8Array(digest), b => b.toString(16).padStart(2, '0')).join(''));
        },
    });
    upload.start();
})
"""
