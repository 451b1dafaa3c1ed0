"""What a connection may send before there is a request: the size and the time of heads, the number of connections."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from app.api import server
from app.api.browsers import HEADERS
from app.settings import Settings
from tests.api.server import Backstage, serving
from tests.api.test_hostile_requests import talk


@pytest.fixture
def impatient(backstage: Backstage, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An api that waits for heads a second only and takes three connections of a client."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 1.0)
    settings = Settings(data_dir=backstage.settings.data_dir, max_connections_per_client=3)
    with serving(settings, backstage.database_url) as address:
        yield address


@contextlib.contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def problem(received: bytes) -> dict:
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    return json.loads(body)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%06d: %b\r\n" % (n, b"a" * 1000) for n in range(3000)),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 3_000_000,
        b"GET /" + b"a" * 3_000_000,
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    ],
    ids=["many headers", "one long header", "a long line", "a whole long line", "a whole long header", "short ones"],
)
def test_heads_without_end_are_refused(client, url, head):
    """r12: 193 MB of headers on one connection were all kept."""
    with connected(url) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head)
        told = problem(receive(connection))
        assert (told["status"], told["code"]) == (431, "head_too_large")
    assert client.get("/healthz").status_code == 200


def receive(connection: socket.socket) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


@pytest.mark.parametrize("between", [b"5;" + b"x" * 3_000_000, b"0\r\nX: " + b"x" * 3_000_000])
def test_nor_may_what_stands_between_the_pieces_of_a_body_be_long(client, url, between):
    head = b"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(url) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(head + b"2\r\nPK\r\n" + between)
        receive(connection)  # ends, because the server closes
    assert client.get("/healthz").status_code == 200


def test_a_long_but_decent_head_is_served(client):
    headers = {f"X-{number}": "a" * 1000 for number in range(25)}
    assert client.get("/healthz", headers=headers).status_code == 200


def test_a_head_that_does_not_arrive_in_time_is_refused(impatient):
    told = problem(talk(impatient, b"GET / HTTP/1.1\r\nHost: localhost\r\n"))
    assert (told["status"], told["code"]) == (408, "request_timeout")


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_connection_on_which_nothing_is_asked_ends(impatient, sent):
    assert talk(impatient, sent)[:12] in (b"", b"HTTP/1.1 408")


def test_a_second_head_has_its_own_time(impatient):
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    received = talk(impatient, whole + b"GET /healthz HTTP/1.1\r\nHo")
    assert received.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in received


def test_a_slow_body_is_no_slow_head(impatient):
    head = b"POST /v1/conversions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    with connected(impatient) as connection:
        connection.sendall(head + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n")
        time.sleep(1.5)
        connection.sendall(b"{}")
        assert receive(connection).startswith(b"HTTP/1.1 422")


def test_one_client_holds_a_limited_number_of_connections(impatient):
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(connected(impatient)).sendall(b"GET / HTTP/1.1\r\n")
        refused = problem(receive(held.enter_context(connected(impatient))))
        assert (refused["status"], refused["code"]) == (429, "too_many_connections")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:  # closed connections make room
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{impatient}/healthz").status_code == 200:
                return
    pytest.fail("closed connections are still counted")


def test_what_is_no_http_is_answered_with_a_problem(url):
    answer = talk(url, b"GARBAGE\r\n\r\n", timeout=5)
    assert problem(answer)["code"] == "bad_request"
    for name, value in HEADERS.items():
        assert f"\r\n{name}: {value}\r\n".encode() in answer


def test_other_requests_are_answered_while_heads_flood(client, url):
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            with connected(url) as connection, contextlib.suppress(ConnectionError):
                connection.sendall(b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 10_000_000)

    threads = [threading.Thread(target=flood) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert [client.get("/healthz").status_code for _ in range(20)] == [200] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join()
