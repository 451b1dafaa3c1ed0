"""Files that a request names by a URI, fetched by the worker from real servers."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import obstore
import pytest

from tests.api.server import weights
from tests.platform.conftest import Platform
from tests.remotes.servers import KEY, SECRET, FileServer, bucket, https_server, s3_server

TOKEN = "hf_" + "t0kent0kent0ken"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("remotes")


@pytest.fixture(scope="module")
def s3(place: Path) -> Iterator[str]:
    with s3_server(place / "s3") as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def files(place: Path) -> Iterator[FileServer]:
    with https_server(place) as server:
        yield server


@pytest.fixture(scope="module")
def settings(place: Path, s3: str, files: FileServer) -> dict[str, str]:
    remotes = place / "remotes.toml"
    remotes.write_text(f"""
[[remote]]
prefix = "s3://models/open/"
endpoint = "{s3}"
internal = true
credentials = {{ access_key_id = "{KEY}", secret_access_key = "{SECRET}" }}

[[remote]]
prefix = "s3://models/closed/"
endpoint = "{s3}"
internal = true
credentials = {{ access_key_id = "{KEY}", secret_access_key = "a wrong secret" }}

[[remote]]
prefix = "s3://models/others/"
projects = ["another"]
endpoint = "{s3}"

[[remote]]
prefix = "{files.url}/weights/"
internal = true
ca_file = "{files.ca_file}"

[[remote]]
prefix = "{files.url}/guarded/"
ca_file = "{files.ca_file}"

[[remote]]
prefix = "{files.url}/untrusted/"
internal = true

[[remote]]
prefix = "https://localhost:9/"
internal = true

[[remote]]
prefix = "hf://acme/"
endpoint = "{files.url}"
internal = true
ca_file = "{files.ca_file}"
credentials = {{ token = "{TOKEN}" }}
""")
    return {"remotes_file": str(remotes), "max_upload_bytes": str(8 << 20)}


def asked(client: httpx.Client, uri: str, **source: Any) -> httpx.Response:
    checkpoint = {"uri": uri, **source}
    return client.post("/v1/conversions", json={"architecture": "test/net", "target": "onnx", "checkpoint": checkpoint})


def ended(client: httpx.Client, uri: str, **source: Any) -> dict[str, Any]:
    answer = asked(client, uri, **source)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["state"], answer.json()["stage"]) == ("queued", "fetch")
    client.get(answer.json()["links"]["self"], headers={"Prefer": "wait=60"})
    told: dict[str, Any] = client.get(answer.json()["links"]["self"]).json()
    return told


def log(client: httpx.Client, conversion: dict[str, Any]) -> str:
    return client.get(conversion["links"]["log"]).text


def content(size: int = 3 << 20) -> bytes:
    return weights(uuid4().bytes + bytes(size))


def test_an_object_of_an_s3_store_is_fetched_and_converted(client: httpx.Client, s3: str):
    held = content()
    obstore.put(bucket(s3), "open/net.pth", held)
    digest = hashlib.sha256(held).hexdigest()
    done = ended(client, "s3://models/open/net.pth")
    assert done["state"] == "succeeded", (done, log(client, done))
    assert done["checkpoint"] == {"sha256": digest, "filename": "net.pth", "uri": "s3://models/open/net.pth"}
    assert done["timings"]["fetch"] > 0
    listed = client.get("/v1/checkpoints").json()["items"]
    assert digest in [one["sha256"] for one in listed]
    again = asked(client, "s3://models/open/net.pth", sha256=digest)
    assert again.json()["stage"] != "fetch"  # the project has the file


def test_a_file_that_several_name_is_fetched_once(client: httpx.Client, files: FileServer):
    files.files["/weights/shared.pth"] = content()
    group = client.post(
        "/v1/groups",
        headers={"Prefer": "wait=60"},
        json={
            "architecture": "test/net",
            "checkpoint": {"uri": f"{files.url}/weights/shared.pth"},
            "targets": [{"target": "onnx"}, {"target": "onnx", "options": {"opset": 17}}, {"target": "torchscript"}],
        },
    ).json()
    assert group["state"] == "succeeded", group
    assert len(files.ranges("/weights/shared.pth")) == 1
    missing = client.post(
        "/v1/groups",
        headers={"Prefer": "wait=60"},
        json={
            "architecture": "test/net",
            "checkpoint": {"uri": f"{files.url}/weights/absent.pth"},
            "targets": [{"target": "onnx"}, {"target": "torchscript"}],
        },
    ).json()
    assert [one["problem"]["code"] for one in missing["conversions"]] == ["fetch_failed"] * 2


def test_a_file_that_breaks_off_is_resumed_and_the_hash_is_checked(client: httpx.Client, files: FileServer):
    held = content(5 << 20)
    files.files["/weights/net.pth"] = held
    files.breaks["/weights/net.pth"] = [1 << 20, 0, 2 << 20]
    done = ended(client, f"{files.url}/weights/net.pth", sha256=hashlib.sha256(held).hexdigest())
    assert done["state"] == "succeeded", (done, log(client, done))
    first, *others = files.ranges("/weights/net.pth")
    assert first is None
    assert [one for one in others if one] == others
    assert "interrupted at byte" in log(client, done)
    wrong = ended(client, f"{files.url}/weights/net.pth", sha256="0" * 64)
    assert (wrong["state"], wrong["problem"]["code"], wrong["problem"]["stage"]) == (
        "failed",
        "digest_mismatch",
        "fetch",
    )


def test_a_file_of_a_hub_is_found_behind_a_redirect_that_does_not_get_the_token(
    client: httpx.Client, files: FileServer, place: Path
):
    (place / "store").mkdir()
    with https_server(place / "store") as store:
        files.ca_file.write_bytes(files.ca_file.read_bytes() + store.ca_file.read_bytes())
        store.files["/blob"] = content()
        path = "/acme/net/resolve/v1.0/sub/model.safetensors"
        files.moved[path] = f"{store.url}/blob?signature=abc"
        done = ended(client, "hf://acme/net/sub/model.safetensors@v1.0")
        assert done["state"] == "succeeded", (done, log(client, done))
        assert done["checkpoint"]["filename"] == "model.safetensors"
        asked_of_hub = [headers for asked, headers in files.asked if asked == path]
        assert asked_of_hub[0]["authorization"] == f"Bearer {TOKEN}"
        assert all("authorization" not in headers for _, headers in store.asked)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/weights/missing.pth", "fetch_failed"),
        ("/guarded/net.pth", "address_not_allowed"),
        ("/weights/moved-out.pth", "fetch_failed"),
        ("/weights/large.pth", "payload_too_large"),
        ("/weights/empty.pth", "empty_file"),
        ("/untrusted/net.pth", "fetch_failed"),
    ],
)
def test_what_cannot_be_fetched_ends_the_conversion_with_its_reason(
    client: httpx.Client, files: FileServer, path: str, code: str
):
    files.files |= {"/guarded/net.pth": content(10), "/weights/large.pth": bytes(9 << 20), "/weights/empty.pth": b""}
    files.moved["/weights/moved-out.pth"] = f"{files.url}/guarded/net.pth"
    done = ended(client, files.url + path)
    assert (done["state"], done["problem"]["code"]) == ("failed", code), log(client, done)
    assert code in log(client, done)


def answered(head: str, *body: bytes) -> tuple[bytes, ...]:
    return (f"HTTP/1.1 {head}\r\n\r\n".encode(), *body)


LIES: dict[str, tuple[Iterable[bytes], str]] = {
    "an encoding": (answered("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3", b"\x1f\x8b\x08"), "fetch_failed"),
    "a part": (
        answered("206 Partial Content\r\nContent-Range: bytes 5-7/8\r\nContent-Length: 3", b"abc"),
        "fetch_failed",
    ),
    "nothing": (answered("204 No Content"), "fetch_failed"),
    "no place": (answered("302 Found\r\nContent-Length: 0"), "fetch_failed"),
    "a place in a file": (answered("302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0"), "fetch_failed"),
    "a place inside": (
        answered("302 Found\r\nLocation: http://169.254.169.254/latest/meta-data\r\nContent-Length: 0"),
        "address_not_allowed",
    ),
    "a place inside by another notation": (
        answered("307 Temporary Redirect\r\nLocation: https://[::ffff:a9fe:a9fe]/\r\nContent-Length: 0"),
        "address_not_allowed",
    ),
    "a place without a name": (
        answered("308 Permanent Redirect\r\nLocation: //0177.0.0.1/\r\nContent-Length: 0"),
        "fetch_failed",
    ),
    "itself": (answered("302 Found\r\nLocation: itself\r\nContent-Length: 0"), "fetch_failed"),
    "a length without end": (answered("200 OK\r\nContent-Length: 9999999999999999999", b"PK\3\4"), "payload_too_large"),
    "a body without end": (
        chain(answered("200 OK\r\nTransfer-Encoding: chunked"), repeat(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")),
        "payload_too_large",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies_ends_the_conversion_and_leads_nowhere(client: httpx.Client, files: FileServer, lie: str):
    path = f"/weights/{lie.replace(' ', '-')}"
    files.said[path], code = LIES[lie]
    done = ended(client, files.url + path)
    assert (done["state"], done["problem"]["code"]) == ("failed", code), log(client, done)


def test_a_hub_does_not_lead_to_places_inside(client: httpx.Client, files: FileServer, place: Path):
    (place / "inside").mkdir()
    with https_server(place / "inside", "127.0.0.1") as inside:
        inside.files["/secret"] = content(10)
        files.moved["/acme/net/resolve/main/inside.pth"] = f"{inside.url}/secret"
        done = ended(client, "hf://acme/net/inside.pth")
        assert (done["state"], done["problem"]["code"]) == ("failed", "address_not_allowed")
        assert inside.asked == []


def test_a_store_that_refuses_the_key_ends_the_conversion(client: httpx.Client, s3: str):
    obstore.put(bucket(s3), "closed/net.pth", content(10))
    done = ended(client, "s3://models/closed/net.pth")
    assert (done["state"], done["problem"]["code"]) == ("failed", "fetch_failed"), log(client, done)


def test_what_is_waited_for_can_be_canceled(client: httpx.Client):
    waiting = asked(client, "https://localhost:9/net.pth").json()  # nobody listens there
    for _ in range(600):
        now = client.get(waiting["links"]["self"]).json()
        if now["waiting_for"] == "source":
            break
        client.get(waiting["links"]["self"], headers={"Prefer": "wait=1"})
    assert (now["waiting_for"], now["state"]) == ("source", "queued")
    assert client.post(now["links"]["cancel"]).json()["state"] == "canceled"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://models/elsewhere/net.pth",
        "s3://models/open-sesame/net.pth",
        "s3://models/others/net.pth",
        "s3://other/open/net.pth",
        "https://example.com/net.pth",
        "models:/net/1",
        "gs://bucket/net.pth",
    ],
)
def test_places_that_no_remote_allows_are_refused_at_once(client: httpx.Client, uri: str):
    answer = asked(client, uri)
    assert (answer.status_code, answer.json()["code"]) == (403, "source_not_allowed"), answer.text


@pytest.mark.parametrize(
    "uri",
    [
        "s3://models/open/../closed/net.pth",
        "s3://models/open/%2e%2e/closed/net.pth",
        "s3://models/open%2f..%2fclosed/net.pth",
        "file:///etc/passwd",
        "/etc/passwd",
        "https://user:password@example.com/net.pth",
        "S3://models/open/net.pth",
        "s3://models/open/n et.pth",
        "",
    ],
)
def test_uris_that_do_not_mean_what_they_look_like_are_refused(client: httpx.Client, uri: str):
    answer = asked(client, uri)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), answer.text


def test_credentials_are_in_no_answer_no_log_and_no_queue_entry(client: httpx.Client, platform: Platform, s3: str):
    obstore.put(bucket(s3), "open/quiet.pth", content())
    done = ended(client, "s3://models/open/quiet.pth")
    told = json.dumps(done) + log(client, done) + platform.worker_log.read_text()
    for secret in (KEY, SECRET, TOKEN, "a wrong secret"):
        assert secret not in told
