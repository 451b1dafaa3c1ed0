"""Uploading weights, in each way that a client may send them."""

import base64
import hashlib
import threading
import time

import pytest

from app.domain.checkpoint import ParameterReport, TensorInfo
from app.domain.errors import PickledModule
from tests.api.server import INSPECTION, sha256, submit, weights
from tests.delivery.reports import report


def test_a_raw_body_is_stored_under_its_sha256(client, backstage):
    content = weights(b"raw") + bytes(5 << 20)
    answer = client.post("/v1/checkpoints", content=content)
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body["id"] == body["sha256"] == sha256(content)
    assert body["bytes"] == len(content)
    assert answer.headers["location"] == f"/v1/checkpoints/{sha256(content)}"
    assert sha256(content) in backstage.stored_objects()
    again = client.put("/v1/checkpoints", content=content)
    assert again.status_code == 200


def test_a_form_is_the_same_upload_with_a_name(client):
    content = weights(b"form")
    answer = client.post("/v1/checkpoints", files={"file": ("weights.pth", content)}, headers={"Prefer": "wait=0"})
    assert answer.status_code == 201, answer.text
    assert (answer.json()["sha256"], answer.json()["filename"]) == (sha256(content), "weights.pth")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\w.pth", "w.pth"),
        ("a\u202egnp.pth", "agnp.pth"),
        ("x" * 4096 + ".pth", "x" * 196 + ".pth"),
        ("..", None),
    ],
)
def test_hostile_file_names_are_reduced_to_a_plain_name(client, sent, kept):
    content = weights(sent.encode())
    answer = client.post("/v1/checkpoints", files={"file": (sent, content)}, headers={"Prefer": "wait=0"})
    assert answer.json()["filename"] == kept


def test_digests_are_verified_before_the_file_is_kept(client, backstage):
    content = weights(b"digest")
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    good = [{"Repr-Digest": f"sha-256=:{digest}:"}, {"Repr-Digest": f"sha-512=:AA==:, sha-256=:{digest}:"}]
    for headers in [*good, {"X-Content-SHA256": sha256(content).upper()}]:
        answer = client.post("/v1/checkpoints", content=content, headers={**headers, "Prefer": "wait=0"})
        assert answer.is_success, answer.text
    other = weights(b"another")
    answer = client.post("/v1/checkpoints", content=other, headers={"X-Content-SHA256": sha256(content)})
    assert (answer.status_code, answer.json()["code"]) == (422, "digest_mismatch")
    assert sha256(other) not in backstage.stored_objects()


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Content-SHA256": "abc"},
        {"Repr-Digest": "md5=:AA==:"},
        {"Repr-Digest": "sha-256=:AAAA:"},
        {"Repr-Digest": "sha-256=:A:"},
        {"Repr-Digest": "sha-256=nonsense"},
        {"Repr-Digest": f"sha-256=:{base64.b64encode(bytes(32)).decode()}:", "X-Content-SHA256": "11" * 32},
    ],
)
def test_digests_that_cannot_be_checked_are_refused(client, headers):
    answer = client.post("/v1/checkpoints", content=weights(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_too_large_is_refused_whether_announced_or_not(client, settings, backstage):
    content = weights(b"large") + bytes(settings.max_upload_bytes)
    announced = client.post("/v1/checkpoints", content=content)
    assert (announced.status_code, announced.json()["code"]) == (413, "payload_too_large")

    def chunks():
        for start in range(0, len(content), 1 << 20):
            yield content[start : start + (1 << 20)]

    assert client.post("/v1/checkpoints", content=chunks()).status_code == 413
    assert client.post("/v1/checkpoints", files={"file": ("w.pth", content)}).status_code == 413
    assert backstage.unfinished_uploads() == []
    assert sha256(content) not in backstage.stored_objects()


def test_an_empty_file_is_refused(client):
    for sent in ({"content": b""}, {"files": {"file": ("w.pth", b"")}}):
        answer = client.post("/v1/checkpoints", **sent)
        assert (answer.status_code, answer.json()["code"]) == (422, "empty_file")


def inspect_when_known(client, backstage, content, found) -> threading.Thread:
    def work() -> None:
        deadline = time.monotonic() + 20
        path = f"/v1/checkpoints/{sha256(content)}"
        while client.get(path, headers={"Prefer": "wait=0"}).status_code == 404:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        backstage.inspect(sha256(content), found)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_small_upload_is_answered_with_what_is_inside(client, backstage):
    content = weights(b"inspected")
    worker = inspect_when_known(client, backstage, content, INSPECTION)
    body = client.post("/v1/checkpoints", content=content).json()
    worker.join()
    assert (body["format"], body["nesting"], body["parameter_count"]) == ("torch-zip", ["model"], 40)
    assert body["tensors"][0] == {
        "name": "fc.weight",
        "shape": [10, 4],
        "dtype": "float32",
        "count": 40,
        "bytes": 160,
        "trainable": None,
        "tied_to": None,
    }
    parameters = client.get(body["links"]["parameters"]).json()
    assert parameters["totals"] == {"tensors": 1, "elements": 40, "bytes": 160, "trainable": None}
    assert parameters["tensors"] == body["tensors"]


def test_a_foreign_file_is_refused_once_read_and_nothing_of_it_is_known(client, backstage):
    content = weights(b"a pickled module")
    worker = inspect_when_known(client, backstage, content, PickledModule("It is a Linear.").problem())
    answer = client.post("/v1/checkpoints", content=content)
    worker.join()
    assert (answer.status_code, answer.json()["code"]) == (422, "pickled_module")
    assert "torch.save" in answer.json()["hint"]
    assert client.get(f"/v1/checkpoints/{sha256(content)}").status_code == 404


def test_an_unread_checkpoint_says_so(client):
    content = weights(b"unread")
    path = client.post("/v1/checkpoints", content=content, headers={"Prefer": "wait=0"}).headers["location"]
    answer = client.get(path, headers={"Prefer": "wait=0"})
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["format"] is None
    unread = client.get(f"{path}/parameters", headers={"Prefer": "wait=0"})
    assert (unread.status_code, unread.json()["code"]) == (409, "not_ready")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100_000), "PNG"),
        (b"<!doctype html><html></html>", "HTML"),
        (b"\x1f\x8b" + bytes(10_000), "gzip"),
        (b"\x00" * 100, "binary"),
        (b"x", "text"),
        (b'{"a": 1}', "JSON"),
    ],
)
def test_foreign_files_are_refused_by_their_first_bytes(client, backstage, content, word):
    for sent in ({"content": content}, {"files": {"file": ("w.pth", content)}}):
        answer = client.post("/v1/checkpoints", **sent)
        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")
        assert word in answer.json()["looks_like"]
    assert sha256(content) not in backstage.stored_objects()
    assert backstage.unfinished_uploads() == []


@pytest.mark.parametrize("name", ["0" * 64, "zz", "%00", "a" * 64 + "%00", "a" * 5000])
def test_checkpoints_that_do_not_exist(client, name):
    path = f"/v1/checkpoints/{name}"
    for answer in (client.get(path), client.get(f"{path}/parameters"), client.delete(path)):
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_checkpoint")
        assert len(answer.json()["detail"]) < 500


def test_a_checkpoint_may_be_named_in_capitals(client, backstage):
    content = weights(b"capitals")
    client.post("/v1/checkpoints", content=content, headers={"Prefer": "wait=0"})
    backstage.inspect(sha256(content), INSPECTION)
    path = f"/v1/checkpoints/{sha256(content).upper()}"
    assert client.get(path).json()["sha256"] == sha256(content)
    assert client.get(f"{path}/parameters").json()["sha256"] == sha256(content)
    assert client.get("/v1/conversions", params={"checkpoint": sha256(content).upper()}).json()["items"] == []
    assert client.delete(path).status_code == 204


def test_once_a_conversion_has_loaded_it_a_checkpoint_tells_what_trains(client, backstage):
    """By name where the module has a tensor of that name; what is told outlives the conversion."""
    content = weights(b"what trains")
    weight, mean, other = (
        TensorInfo(name=name, shape=(10, 4), dtype="float32", bytes=160) for name in ("fc.weight", "bn.mean", "other")
    )
    told = {"tensors": (weight, mean, other), "parameter_count": 120, "tensor_bytes": 480}
    inspection = INSPECTION.model_copy(update=told)
    conversion = submit(client, content).json()
    module = ParameterReport(
        total=40,
        trainable=40,
        buffers=40,
        bytes=320,
        tensors=(
            weight.model_copy(update={"trainable": True}),
            mean.model_copy(update={"trainable": False}),
        ),
    )
    backstage.publish(
        conversion["id"], report(checkpoint_sha256=sha256(content), checkpoint=inspection, parameters=module)
    )
    client.delete(conversion["links"]["self"])
    path = conversion["links"]["checkpoint"]
    parameters = client.get(f"{path}/parameters").json()
    assert parameters["totals"] == {"tensors": 3, "elements": 120, "bytes": 480, "trainable": 40}
    assert [tensor["trainable"] for tensor in parameters["tensors"]] == [True, False, None]
    assert client.get(path).json()["tensors"] == parameters["tensors"]
