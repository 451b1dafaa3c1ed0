"""Requests that are broken on purpose, over a bare socket: a typed refusal, nothing left behind, the service lives."""

import contextlib
import json
import socket
import threading
import time

import httpx
import pytest

from tests.api.server import sha256, submit, weights

BOUNDARY = "----boundary"


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"--{BOUNDARY}", f"Content-Disposition: {disposition}", *headers])
    return head.encode("utf-8", "surrogateescape") + b"\r\n\r\n" + content + b"\r\n"


def form(*parts: bytes, end: bytes = f"--{BOUNDARY}--\r\n".encode()) -> bytes:
    return b"".join(parts) + end


FILE = part('form-data; name="file"; filename="w.pth"', weights(b"hostile"))
ARCHITECTURE = part('form-data; name="architecture"', b"torchvision/resnet18")
TARGET = part('form-data; name="target"', b"onnx")


def post(client: httpx.Client, body: bytes, boundary: str = BOUNDARY) -> httpx.Response:
    content_type = f"multipart/form-data; boundary={boundary}"
    return client.post("/v1/conversions", content=body, headers={"Content-Type": content_type})


def test_the_parts_of_a_form_may_come_in_any_order(client):
    for order in ((FILE, ARCHITECTURE, TARGET), (ARCHITECTURE, FILE, TARGET), (TARGET, ARCHITECTURE, FILE)):
        assert post(client, form(*order)).status_code == 202


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (form(FILE, FILE, ARCHITECTURE, TARGET), "more than one"),
        (form(FILE, ARCHITECTURE, ARCHITECTURE, TARGET), "more than one"),
        (form(*[part(f'form-data; name="f{n}"', b"x") for n in range(10_000)]), "parts"),
        (form(*[part('form-data; name="target"', b"onnx")] * 2), "more than one"),
        (form(part('form-data; name="file"; filename="w"', b"x", *[f"X-{n}: y" for n in range(1000)])), "malformed"),
        (form(part('form-data; name="file"; filename="w"', b"x", "X: " + "y" * 100_000)), "malformed"),
        (form(part('form-data; name="options"', b"x" * (3 << 20)), ARCHITECTURE, TARGET), "longer than"),
        (form(part('form-data; name="' + "n" * 300 + '"', b"x")), "longer than"),
        (form(part("form-data", b"x")), "Content-Disposition"),
        (form(part('attachment; name="file"', b"x")), "Content-Disposition"),
        (form(part('form-data; name="architecture"', b"\xff\xfe"), TARGET), "UTF-8"),
        (form(part('form-data; name="architecture"', b"a\0b"), TARGET, FILE), ""),
        (form(ARCHITECTURE, TARGET), "checkpoint is missing"),
        (form(ARCHITECTURE, FILE), "target is missing"),
        (form(FILE, ARCHITECTURE, TARGET, part('form-data; name="checkpoint"', b"ab" * 32)), "not both"),
        (form(FILE, ARCHITECTURE, TARGET) + b"z" * (1 << 20), "follow"),
        (form(FILE, ARCHITECTURE, TARGET, end=b""), "closing boundary"),
        (b"", "closing boundary"),
        (b"no boundary at all", "malformed"),
        (b"--" + BOUNDARY.encode() + b"x\r\n", "malformed"),
    ],
)  # fmt: skip
def test_malformed_forms_are_refused_in_words(client, backstage, body, word):
    answer = post(client, body)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.text
    assert backstage.unfinished_uploads() == []


def test_boundaries_that_cannot_be_used(client):
    for boundary in ("", "x" * 5000, '"'):
        assert post(client, form(FILE), boundary).json()["code"] == "invalid_request"


def test_a_boundary_within_the_content_ends_nothing(client):
    """Text like a delimiter, and the first bytes of a real one at the end of a chunk, are content."""
    content = weights(b"b") + b"\r\n--" + BOUNDARY[:-1].encode() + b"\r\n\r" * 70_000 + b"--" + BOUNDARY.encode()
    body = form(part('form-data; name="file"; filename="w.pth"', content), ARCHITECTURE, TARGET)
    assert post(client, body).json()["checkpoint"]["sha256"] == sha256(content)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1, 2]",
        b'"text"',
        b"\xff\xfe\x00",
        b"",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"architecture": "torchvision/resnet18", "target": "onnx", "checkpoint": 5}',
        b'{"architecture": null, "target": "onnx", "checkpoint": "%s"}' % (b"ab" * 32),
        b'{"architecture": "\\ud800", "target": "onnx", "checkpoint": "%s"}' % (b"ab" * 32),
        b'{"architecture": "\\u0000", "target": "onnx", "checkpoint": "%s"}' % (b"ab" * 32),
        b'{"architecture": "%s", "target": "onnx", "checkpoint": "%s"}' % (b"a" * 100_000, b"ab" * 32),
        b'{"architecture": "a", "target": {"onnx": 1}, "checkpoint": "%s"}' % (b"ab" * 32),
        b'{"options": 1e999}',
        b'{"options": %s}' % (b"9" * 10_000),
    ],
)
def test_hostile_json_is_refused_in_words(client, body):
    answer = client.post("/v1/conversions", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (404, 413, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_huge_json_body_is_refused_unread(client):
    answer = client.post("/v1/conversions", content=b" " * (5 << 20), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


def test_other_kinds_of_body_are_refused(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        answer = client.post("/v1/conversions", content=b"x=1", headers={"Content-Type": kind})
        assert answer.json()["code"] == "invalid_request"


@pytest.mark.parametrize("key", ["", "k" * 300, "key\twith\ttabs", "schlüssel"])
def test_idempotency_keys_that_cannot_be_kept(client, key):
    headers = {"Idempotency-Key": key.encode("utf-8")}
    answer = client.post("/v1/conversions", json={}, headers=headers)
    assert answer.json()["code"] == "invalid_request"


def talk(url: str, sent: bytes, *, close_after: float | None = None, timeout: float = 20) -> bytes:
    """Send raw bytes and read until the server closes, or until ``close_after`` seconds."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        connection.sendall(sent)
        if close_after is not None:
            time.sleep(close_after)
            return b""
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(client, url, backstage):
    before = backstage.stored_objects()
    head = b"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n"
    talk(url, head + weights(b"gone") * 1000, close_after=0.2)
    chunked = b"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"
    talk(url, chunked, close_after=0.2)
    deadline = time.monotonic() + 10
    while backstage.unfinished_uploads() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert backstage.unfinished_uploads() == []
    assert backstage.stored_objects() == before
    assert client.get("/healthz").status_code == 200


def test_of_a_body_longer_than_announced_no_more_is_kept_than_was_announced(url, backstage):
    content = weights(b"announced")
    head = b"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nPrefer: wait=0\r\n"
    head += f"Content-Length: {len(content)}\r\n\r\n".encode()
    received = talk(url, head + content + b"and more than that\r\n\r\n", timeout=3)
    assert received.startswith((b"HTTP/1.1 201", b"HTTP/1.1 400"))
    assert sha256(content + b"and more than that\r\n\r\n") not in backstage.stored_objects()


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nContent-Length: abc\r\n\r\n",
        b"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GARBAGE\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_the_service_lives(client, url, head):
    received = talk(url, head, timeout=3)
    assert received == b"" or received.startswith(b"HTTP/1.1 4")
    assert client.get("/healthz").status_code == 200


def test_answers_stay_quick_while_slow_clients_hold_connections(client, url):
    """Fifty uploads that trickle do not keep others waiting."""
    host, port = url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as slow:
        for _ in range(50):
            connection = slow.enter_context(socket.create_connection((host, int(port)), timeout=5))
            connection.sendall(b"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nPK")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(submit(client).status_code)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [202] * 4


def test_deep_json_in_a_field_is_refused(client):
    assert submit(client, options="[" * 50_000).json()["code"] == "invalid_request"
    assert submit(client, architecture_options=json.dumps({"num_classes": "many"})).json()["code"] == "invalid_options"
