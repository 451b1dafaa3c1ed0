"""A refusal that can be made before the file has arrived is made then; a file that came before it is kept."""

import socket

import httpx

from tests.api.server import sha256, submit, weights
from tests.api.test_hostile_requests import BOUNDARY, part

WRONG = part('form-data; name="architecture"', b"torchvision/resnet19")
TARGET = part('form-data; name="target"', b"onnx")
ANNOUNCED = 200 << 20


def test_a_wrong_architecture_is_refused_before_the_file_is_sent(url):
    host, port = url.removeprefix("http://").split(":")
    head = (
        "POST /v1/conversions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {ANNOUNCED}\r\n\r\n"
    ).encode()
    file = part('form-data; name="file"; filename="w.pth"', weights(b"never all of it"))
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head + WRONG + file)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"connection: close" in answer.lower()


def test_a_client_that_does_not_look_until_all_is_sent_sees_the_answer(client):
    content = weights() + b"\0" * (6 << 20)
    answer = client.post(
        "/v1/conversions",
        data={"architecture": "torchvision/resnet19", "target": "onnx"},
        files={"file": ("w.pth", content)},
    )
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_architecture")


def test_a_file_that_came_before_a_wrong_architecture_is_kept_and_named(client):
    content = weights(b"came first")
    file = part('form-data; name="file"; filename="w.pth"', content)
    for wrong in (WRONG + TARGET, part('form-data; name="nonsense"', b"x"), TARGET + TARGET):
        answer = post(client, file + wrong + f"--{BOUNDARY}--\r\n".encode())
        assert answer.status_code in (404, 422)
        assert answer.json()["checkpoint"] == sha256(content)
        assert client.get(f"/v1/checkpoints/{sha256(content)}", headers={"Prefer": "wait=0"}).status_code == 200


def post(client: httpx.Client, body: bytes) -> httpx.Response:
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return client.post("/v1/conversions", content=body, headers={"Content-Type": content_type})


def test_empty_optional_parts_are_as_absent(client):
    """As a browser and the documentation page send what was not filled in."""
    body = b"".join(
        [
            part('form-data; name="probes"; filename=""', b"", "Content-Type: application/octet-stream"),
            part('form-data; name="options"', b""),
            part('form-data; name="architecture_options"', b" "),
            part('form-data; name="checkpoint"', b""),
            part('form-data; name="force"', b""),
            part('form-data; name="accept"', b""),
            part('form-data; name="architecture"', b"torchvision/resnet18"),
            TARGET,
            part('form-data; name="file"; filename="w.pth"', weights(b"filled in")),
        ]
    )
    answer = post(client, body + f"--{BOUNDARY}--\r\n".encode())
    assert answer.status_code == 202, answer.text


def test_an_empty_file_part_beside_a_checkpoint_is_as_absent(client):
    sent = client.post("/v1/checkpoints", content=weights(), headers={"Prefer": "wait=0"}).json()["sha256"]
    body = part('form-data; name="file"', b"") + part('form-data; name="checkpoint"', sent.encode())
    body += part('form-data; name="architecture"', b"torchvision/resnet18") + TARGET
    assert post(client, body + f"--{BOUNDARY}--\r\n".encode()).status_code == 202


def test_a_chosen_file_without_a_byte_is_empty(client):
    answer = client.post(
        "/v1/conversions",
        data={"architecture": "torchvision/resnet18", "target": "onnx"},
        files={"file": ("w.pth", b"")},
    )
    assert answer.json()["code"] == "empty_file"


def test_truth_values_are_taken_as_languages_write_them(client):
    for written in ("True", "False", "TRUE", "1", "0", " false "):
        assert submit(client, force=written).status_code == 202, written
    assert submit(client, force="perhaps").json()["code"] == "invalid_request"
