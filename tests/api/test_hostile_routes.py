"""Hostile inputs to the routes that take more than one file and one order: every answer is a designed one."""

import base64
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.api.server import Backstage, sha256, submit
from tests.api.test_resumable import BYTES, VERSION, begun, content, half_a_request, metadata, offset, send, stored

WORDS = ("%00", "%ff%fe", "..%2f..%2fetc%2fpasswd", "%0d%0aX-Evil:%20yes", "%22><script>alert(1)<%2Fscript>",
         "-1", "1e400", "9" * 40, "%F0%9F%92%A9", "a" * 3000, "cnv_" + "0" * 32)  # fmt: skip
EVIL = 'x"\r\nX-Evil: yes\r\n\r\n<script>alert(1)</script>\u202egpj.exe'
DESIGNED = {503, 507}


def refused_or_served(answer: httpx.Response) -> bool:
    """Whether it is an answer that the service means to give, and nothing of what was sent has become a header."""
    return (answer.status_code < 500 or answer.status_code in DESIGNED) and "x-evil" not in answer.headers


def operations() -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    document = create_app(Settings(), "postgresql://unused@/unused").openapi()
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield method, path, described.get("parameters", [])


def test_whatever_stands_in_paths_and_queries_is_answered_in_words(client: httpx.Client) -> None:
    bad = []
    for method, path, parameters in operations():
        asked = [name["name"] for name in parameters if name["in"] == "query"]
        for word in WORDS:
            place = "/".join(word if part.startswith("{") else part for part in path.split("/"))
            for query in ("", *(f"?{name}={word}" for name in asked)):
                if "{" not in path and not query:
                    continue
                answer = client.request(method, f"{place}{query}", headers={"Prefer": "wait=0", **VERSION})
                if not refused_or_served(answer):
                    bad.append((method, f"{place}{query}"[:100], answer.status_code))
    assert bad == []


def test_pages_show_what_was_asked_for_as_text(client: httpx.Client) -> None:
    paths = ("/", "/conversions", "/conversions/{}", "/checkpoints/{}", "/architectures", "/compare", "/sign-in", "/{}")
    for path in paths:
        for word in WORDS:
            place = path.format(word)
            for query in (f"?{name}={word}" for name in ("q", "state", "cursor", "first", "second", "next", "label")):
                answer = client.get(place + query, headers={"Accept": "text/html"})
                assert refused_or_served(answer), place + query
                assert "<script>alert" not in answer.text, place + query
                assert answer.headers.get("location", "/").startswith("/")


BODIES: list[Any] = [
    {},
    [],
    None,
    "text",
    {"manifest": {}},
    {"manifest": {"w": {"shape": [2**47] * 64}}},
    {"manifest": {f"w{n}": {"shape": [2**47] * 64, "dtype": "F64"} for n in range(100)}},
    {"manifest": {"w": {"shape": [1], "dtype": "float\u00b2"}}},
    {"manifest": {"w": {"shape": [1], "dtype": "\u0663"}}},
    {"manifest": {"w": {"shape": [1] * 1000}}},
    {"manifest": {"w": {"shape": [1.5]}}},
    {"manifest": {"a." * 50_000: {"shape": [1]}}},
    {"manifest": {"\u202e" * 100: {"shape": [0]}}, "filename": EVIL},
    {"manifest": {"": {"shape": []}}, "architecture": "torchvision/resnet18", "architecture_options": {"x": [[]] * 99}},
    {"checkpoint": "ab" * 32},
    {"checkpoint": "\u0130" * 64},
    {"checkpoint": EVIL, "architecture": EVIL},
    {"architecture": "torchvision/resnet18", "checkpoints": ["ab" * 32] * 5000, "target": "onnx"},
    {"architecture": "torchvision/resnet18", "checkpoint": "ab" * 32, "targets": [{"target": "onnx"}] * 5000},
    {"architecture": "torchvision/resnet18", "checkpoint": "ab" * 32, "targets": [[]]},
    {"architecture": "torchvision/resnet18", "checkpoint": {"uri": "file:///etc/passwd"}, "target": "onnx"},
    {"architecture": "torchvision/resnet18", "checkpoint": {"uri": "http://[::1"}, "target": "onnx"},
    {"architecture": "torchvision/resnet18", "checkpoint": {"uri": "https://\u2100.example/"}, "target": "onnx"},
    {"architecture": "torchvision/resnet18", "checkpoint": {"uri": EVIL}, "target": "onnx"},
    {"url": "http://[::1", "events": ["conversion.failed"]},
    {"url": "https://example.com:99999999/"},
    {"url": f"https://example.com/{EVIL}"},
    {"url": "https://example.com/", "secret": EVIL},
    {"name": EVIL, "scopes": ["read"]},
    {"name": "x", "limits": {"uploads": -1}},
    {"name": "x", "limits": {"queued": 10**60}},
    {"overlap": 10**60},
]


@pytest.mark.parametrize("path", ["/v1/preflight", "/v1/groups", "/v1/conversions", "/v1/webhooks", "/v1/keys"])
def test_bodies_that_mean_nothing_are_refused_in_words(client: httpx.Client, path: str) -> None:
    for body in BODIES:
        answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert refused_or_served(answer), (json.dumps(body)[:200], answer.status_code)
        assert answer.is_success or answer.headers["content-type"] == "application/problem+json"


def test_projects_with_limits_beyond_numbers_are_refused(client: httpx.Client) -> None:
    for limits in ({"queued": 10**60}, {"running": 2**63}, {"stored_bytes": 2**70}, {"uploads": -1}, {"share": 1e-320}):
        answer = client.post("/v1/projects", json={"name": f"p{limits}", "limits": limits})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), limits


@pytest.mark.parametrize(
    "origin", ["http://[::1", "http://[", "\x80\xff", "null", "http://a\\@b", "//", "http://" + "a" * 9000]
)
def test_origins_that_are_none_write_nothing(client: httpx.Client, origin: str) -> None:
    for path in ("/v1/keys", "/sign-in", "/sign-out", "/v1/uploads"):
        for host in ("localhost", "[::1", "localhost:99999999", ""):
            answer = client.post(path, headers={"Origin": origin.encode("latin-1"), "Host": host})
            assert answer.status_code in (400, 403, 421, 431), (path, host, answer.status_code)


@pytest.mark.parametrize(
    "form",
    [
        urlencode([(f"f{n}", "x") for n in range(50)]),
        urlencode({"key": "\0" * 100, "next": "//evil.example"}),
        urlencode({"key": "rk_" + "a" * 43, "next": "/\\evil.example"}),
        "key=%ff%fe&next=%0d%0aX-Evil:%20yes",
        "&" * 4000,
        "key=" + "k" * 5000,
    ],
)
def test_signing_in_with_what_is_no_key_leads_nowhere(client: httpx.Client, form: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post("/sign-in", content=form, headers=headers)
    assert answer.status_code in (401, 413, 422)
    assert "set-cookie" not in answer.headers
    assert refused_or_served(answer)
    for cookie in ("recast_sign_in=rs_" + "a" * 43, "recast_sign_in=\x01", "recast_sign_in=" + "x" * 4000, "=;=;;"):
        assert client.get("/v1/conversions", headers={"Cookie": cookie}).status_code in (200, 400, 401)
        left = client.post("/sign-out", headers={"Cookie": cookie})
        assert refused_or_served(left)
        assert left.headers.get("location", "/sign-in") == "/sign-in"


def test_names_that_clients_give_become_no_headers(client: httpx.Client, backstage: Backstage) -> None:
    whole = content()
    path = begun(client, len(whole), filename=EVIL)
    assert refused_or_served(client.head(path, headers=VERSION))
    assert send(client, path, 0, whole).status_code == 204
    names = (
        client.get(path).json()["filename"],
        client.get(f"/v1/checkpoints/{stored(client, path)}").json()["filename"],
    )
    assert names[0] == names[1] == "script>gpj.exe"
    for name, labels in ((EVIL, {}), ("x", {"k": "a\r\nb"}), ("x", {"k\r\n": "v"}), ("x", {"k" * 64: "v"})):
        told = {"name": name, "labels": json.dumps(labels)}
        headers = {**VERSION, "Upload-Length": "10", "Upload-Metadata": metadata(**told)}
        assert client.post("/v1/uploads", headers=headers).json()["code"] == "invalid_request"
        assert submit(client, whole, name=name, labels=labels).json()["code"] == "invalid_request"
    done = submit(client, whole, name="\u202egpj.exe <script>", labels={"of": '"><script>alert(1)</script>'}).json()
    backstage.finish(done["id"])
    for link in ("self", "artifact", "bundle", "report"):
        assert refused_or_served(client.get(done["links"].get(link) or done["links"]["self"]))
    assert "<script>alert" not in client.get(f"/conversions/{done['id']}", headers={"Accept": "text/html"}).text


@pytest.mark.parametrize(
    "headers",
    [
        {"Upload-Offset": "-0"},
        {"Upload-Offset": "0x0"},
        {"Upload-Offset": "9" * 18},
        {"Upload-Offset": "0", "Upload-Checksum": "sha256"},
        {"Upload-Offset": "0", "Upload-Checksum": "crc32 AAAA"},
        {"Upload-Offset": "0", "Upload-Checksum": "sha1 " + "A" * 5000},
        {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream, text/html"},
        {"Upload-Offset": "0", "Tus-Resumable": "1.0.0, 1.0.0"},
    ],
)
def test_parts_with_headers_that_mean_nothing_leave_nothing(client: httpx.Client, headers: dict[str, str]) -> None:
    whole = content()
    path = begun(client, len(whole))
    answer = client.patch(path, headers={**BYTES, **headers}, content=whole)
    assert 400 <= answer.status_code < 500
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert offset(client, path) == 0


def test_of_many_that_send_to_one_offset_at_once_one_file_comes_out(client: httpx.Client, url: str) -> None:
    whole = content()
    path = begun(client, len(whole))

    def race(_: int) -> int:
        with httpx.Client(base_url=url, timeout=60) as racer:
            at = 0
            for _ in range(50):
                answer = send(racer, path, at, whole[at : at + 30_000])
                if answer.status_code == 204 and int(answer.headers["upload-offset"]) == len(whole):
                    return at
                at = int(answer.headers["upload-offset"])
                if at == len(whole):
                    return at
        raise AssertionError("never through")

    with ThreadPoolExecutor(6) as racers:
        list(racers.map(race, range(6)))
    assert stored(client, path) == sha256(whole)


def test_bytes_beyond_the_length_that_was_announced_are_not_kept(client: httpx.Client, url: str) -> None:
    whole = content(1000)
    path = begun(client, len(whole))
    chunks = (whole[:500], whole[500:], b"more")
    answer = client.patch(path, headers={**BYTES, "Upload-Offset": "0"}, content=iter(chunks))
    assert answer.status_code == 413
    assert client.get(path).json()["complete"] is False
    assert send(client, path, offset(client, path), whole[offset(client, path) :]).status_code == 204
    assert stored(client, path) == sha256(whole)


def test_a_part_of_an_upload_that_is_deleted_meanwhile_leaves_nothing(
    client: httpx.Client, url: str, backstage: Backstage
) -> None:
    whole = content()
    path = begun(client, len(whole))
    with half_a_request(url, path, 0, len(whole), whole[:50_000]) as hanging:
        threading.Event().wait(0.2)
        assert client.delete(path, headers=VERSION).status_code == 204
        hanging.sendall(whole[50_000:])
        assert hanging.recv(1000).startswith((b"HTTP/1.1 404", b"HTTP/1.1 409"))
    assert client.get(path).status_code == 404
    assert client.get(f"/v1/checkpoints/{sha256(whole)}").status_code == 404


def test_an_upload_that_came_to_nothing_says_so_again(client: httpx.Client) -> None:
    page = b"<html>".ljust(8000)
    path = begun(client, len(page))
    send(client, path, 0, page[:10])
    assert send(client, path, 10, page[10:]).status_code == 415
    again = send(client, path, len(page), b"")
    assert (again.status_code, again.json()["code"]) == (415, "unsupported_format")


def test_a_checksum_of_other_bytes_keeps_none_however_the_body_comes(client: httpx.Client) -> None:
    whole = content()
    path = begun(client, len(whole))
    lie = base64.b64encode(hashlib.sha512(b"other").digest()).decode()
    headers = {**BYTES, "Upload-Offset": "0", "Upload-Checksum": f"sha512 {lie}"}
    for body in (whole, iter([whole[n : n + 7000] for n in range(0, len(whole), 7000)])):
        assert client.patch(path, headers=headers, content=body).json()["code"] == "checksum_mismatch"
        assert offset(client, path) == 0


def test_a_head_of_many_cookies_and_preferences_is_answered_or_refused(client: httpx.Client, url: str) -> None:
    for name in ("Cookie", "Prefer", "Accept", "Range", "If-None-Match", "Last-Event-ID", "Upload-Metadata"):
        for value in (
            "=" * 8000,
            ("a=b; " * 1500).strip(),
            "wait=" + "9" * 400,
            "bytes=" + "0-1," * 1500,
            "\x80\xff\xfe",
        ):
            answer = client.get("/v1/conversions", headers={name: value.encode("latin-1")})
            assert refused_or_served(answer), (name, value[:20], answer.status_code)


def test_two_requests_in_one_that_disagree_on_where_the_first_ends_are_not_both_answered(url: str) -> None:
    port = httpx.URL(url).port
    smuggled = b"GET /v1/keys HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for framing in (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\nContent-Length: 44\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: +44\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(
                b"POST /v1/preflight HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n0\r\n\r\n" + smuggled
            )
            connection.shutdown(socket.SHUT_WR)
            told = b""
            while piece := connection.recv(65536):
                told += piece
        assert told.startswith(b"HTTP/1.1 4"), framing
        assert b'"items"' not in told, framing
