"""Asking for conversions, following and ending them."""

import json
import threading
import time

import httpx
import pytest

from app.domain.conversion import State
from app.domain.errors import KeyMismatch
from tests.api.server import LACKED, Backstage, sha256, submit, weights


def finish_when_queued(client: httpx.Client, backstage: Backstage, content: bytes, **ending) -> threading.Thread:
    """A worker that takes the queued conversion of those weights."""

    def work() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            items = client.get("/v1/conversions", params={"status": "queued", "checkpoint": sha256(content)}).json()[
                "items"
            ]
            if items:
                backstage.finish(items[0]["id"], **ending)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_form_with_a_file_is_accepted_and_says_where_to_look(client):
    content = weights(b"accepted")
    answer = submit(client, content)
    assert answer.status_code == 202, answer.text
    conversion = answer.json()
    assert conversion["state"] == "queued"
    assert conversion["id"].startswith("cnv_")
    assert answer.headers["location"] == f"/v1/conversions/{conversion['id']}"
    assert answer.headers["retry-after"]
    assert conversion["checkpoint"] == {"sha256": sha256(content), "filename": "weights.pth", "uri": None}
    assert conversion["options"]["opset"] is None
    assert conversion["links"]["cancel"].endswith("/cancel")
    assert conversion["links"]["artifact"] is None
    assert client.get(answer.headers["location"]).json()["id"] == conversion["id"]


def test_a_target_that_the_installation_lacks_is_refused_with_the_command_that_adds_it(client):
    described = client.get("/v1/architectures/torchvision/resnet50").json()
    assert described["lacking"] == {"openvino": LACKED}
    assert "openvino" not in described["targets"]
    answer = submit(client, architecture="torchvision/resnet50", target="openvino")
    assert (answer.status_code, answer.json()["code"]) == (422, "target_not_installed")
    assert LACKED in answer.json()["hint"]


def test_the_one_curl_gets_the_finished_conversion_with_links(client, backstage):
    content = weights(b"the one curl")
    worker = finish_when_queued(client, backstage, content)
    answer = client.post(
        "/v1/conversions",
        headers={"Prefer": "wait=20"},
        files={"file": ("weights.pth", content)},
        data={"architecture": "torchvision/resnet18", "target": "onnx", "options": '{"opset":18}'},
    )
    worker.join()
    assert answer.status_code == 201, answer.text
    assert answer.headers["preference-applied"] == "wait=20"
    conversion = answer.json()
    assert (conversion["state"], conversion["verdict"]) == ("succeeded", "pass")
    assert conversion["options"]["opset"] == 18
    artifact = client.get(conversion["links"]["artifact"]).content
    assert sha256(artifact) == conversion["artifact"]["sha256"]
    assert conversion["artifact"]["verified"] is True


def test_a_conversion_that_fails_while_the_client_waits_is_answered_with_its_problem(client, backstage):
    problem = KeyMismatch("2 keys are missing.", stage="load", missing_keys=["a", "b"]).problem()
    content = weights(b"does not fit")
    worker = finish_when_queued(
        client, backstage, content, state=State.failed, problem=problem, verdict=None, artifact=None
    )
    answer = client.post(
        "/v1/conversions",
        headers={"Prefer": "wait=20"},
        files={"file": ("weights.pth", content)},
        data={"architecture": "torchvision/resnet18", "target": "onnx"},
    )
    worker.join()
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["code"], body["stage"], body["missing_keys"]) == ("key_mismatch", "load", ["a", "b"])
    assert body["conversion"]["id"] == body["id"]
    assert body["status"] == 422
    kept = client.get(answer.headers["location"]).json()
    assert (kept["state"], kept["problem"]["code"]) == ("failed", "key_mismatch")


def test_waiting_ends_with_202_when_the_time_is_over(client):
    started = time.monotonic()
    answer = client.post(
        "/v1/conversions",
        headers={"Prefer": "wait=1"},
        files={"file": ("weights.pth", weights(b"nobody works"))},
        data={"architecture": "torchvision/resnet18", "target": "onnx"},
    )
    assert answer.status_code == 202
    assert time.monotonic() - started >= 1


def test_a_preference_may_stand_in_any_of_several_header_lines(client):
    headers = [("Prefer", "respond-async"), ("Prefer", "wait=1")]
    body = {"architecture": "torchvision/resnet18", "target": "onnx"}
    answer = client.post("/v1/conversions", headers=headers, data=body, files={"file": ("w.pth", weights(b"lines"))})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=1")
    checkpoint = answer.json()["links"]["checkpoint"]
    started = time.monotonic()
    assert client.get(checkpoint, headers=[("Prefer", "respond-async"), ("Prefer", "wait=0")]).status_code == 200
    assert time.monotonic() - started < 5


def test_an_uploaded_checkpoint_can_be_named_in_json(client):
    known = client.post("/v1/checkpoints", content=weights(), headers={"Prefer": "wait=0"}).json()
    body = {"checkpoint": known["sha256"], "architecture": "torchvision/resnet18", "target": "torchscript"}
    answer = client.post("/v1/conversions", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["options"]["method"] == "auto"


def test_the_same_request_again_returns_the_finished_conversion_unless_forced(client, backstage):
    content = weights(b"again and again")
    first = submit(client, content).json()
    backstage.finish(first["id"])
    again = submit(client, content)
    assert (again.status_code, again.json()["id"]) == (200, first["id"])
    forced = submit(client, content, force="true")
    assert forced.status_code == 202
    assert forced.json()["id"] != first["id"]
    other = submit(client, content, options={"opset": 17})
    assert other.json()["id"] not in (first["id"], forced.json()["id"])


def test_an_idempotency_key_stands_for_one_request(client):
    def send(opset: int) -> httpx.Response:
        return client.post(
            "/v1/conversions",
            headers={"Idempotency-Key": "key-1"},
            files={"file": ("weights.pth", weights())},
            data={"architecture": "torchvision/resnet18", "target": "onnx", "options": json.dumps({"opset": opset})},
        )

    first, again, other = send(18), send(18), send(17)
    assert first.json()["id"] == again.json()["id"]
    assert other.status_code == 409
    assert other.json()["code"] == "idempotency_conflict"


def test_an_idempotency_key_tells_a_forced_request_from_one_that_is_not(client):
    def send(key: str, **members) -> httpx.Response:
        body = {"architecture": "torchvision/resnet18", "target": "onnx", **members}
        files = {"file": ("weights.pth", weights(b"key and force"))}
        return client.post("/v1/conversions", headers={"Idempotency-Key": key}, files=files, data=body)

    first = send("key-force", force="true")
    assert send("key-force", force="1").json()["id"] == first.json()["id"]
    for unforced in (send("key-force"), send("key-force", force="false")):
        assert (unforced.status_code, unforced.json()["code"]) == (409, "idempotency_conflict")


def test_an_unchanged_conversion_is_not_sent_again(client, backstage):
    path = submit(client).headers["location"]
    first = client.get(path)
    assert first.headers["retry-after"]
    same = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    backstage.start(path.rsplit("/", 1)[-1])
    changed = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200
    assert (changed.json()["state"], changed.json()["stage"], changed.json()["progress"]) == ("running", "export", 0.4)


def test_lists_are_filtered_and_paged(client, backstage):
    content = weights(b"listed")
    made = [submit(client, content, options={"opset": opset}).json()["id"] for opset in (13, 14, 15, 16, 17)]
    backstage.finish(made[0])

    def listed(**wanted) -> dict:
        return client.get("/v1/conversions", params={"checkpoint": sha256(content), **wanted}).json()

    first = listed(limit=3)
    second = listed(limit=3, cursor=first["next_cursor"])
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None
    assert [item["id"] for item in listed(status="succeeded")["items"]] == [made[0]]
    assert listed(architecture="torchvision/resnet50")["items"] == []
    later = listed(created_after=first["items"][1]["created_at"])["items"]
    assert [item["id"] for item in later] == [made[4]]


def test_canceling_and_retrying(client, backstage):
    path = submit(client).headers["location"]
    assert client.post(f"{path}/retry").json()["code"] == "in_use"
    canceled = client.post(f"{path}/cancel")
    assert (canceled.status_code, canceled.json()["state"]) == (202, "canceled")
    again = client.post(f"{path}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "already_finished")
    retried = client.post(f"{path}/retry")
    assert (retried.status_code, retried.json()["state"]) == (202, "queued")
    backstage.finish(path.rsplit("/", 1)[-1])
    assert client.post(f"{path}/retry").status_code == 409


def test_deleting(client, backstage):
    content = weights(b"to be deleted")
    path = submit(client, content).headers["location"]
    assert client.delete(path).json()["code"] == "in_use"
    checkpoint = f"/v1/checkpoints/{sha256(content)}"
    assert client.delete(checkpoint).status_code == 409
    backstage.finish(path.rsplit("/", 1)[-1])
    assert client.delete(path).status_code == 204
    assert client.get(path).status_code == 404
    assert client.delete(checkpoint).status_code == 204
    assert client.delete(checkpoint).status_code == 404


@pytest.mark.parametrize(
    ("members", "status", "code", "word"),
    [
        ({"architecture": "torchvision/resnet19"}, 404, "unknown_architecture", "resnet18"),
        ({"target": "tflite"}, 422, "invalid_request", "onnx, torchscript"),
        ({"options": {"opset": "eighteen"}}, 422, "invalid_options", "opset"),
        ({"options": {"opzet": 18}}, 422, "invalid_options", "opzet"),
        ({"options": {"exporter": "magic"}}, 422, "invalid_options", "exporter"),
        ({"options": {"opset": 10**30}}, 422, "invalid_options", "opset"),
        ({"options": "[1]"}, 422, "invalid_request", "object"),
        ({"options": "{"}, 422, "invalid_request", "JSON"),
        ({"options": '{"opset": NaN}'}, 422, "invalid_request", "NaN"),
        ({"options": '{"prefix": "\\u0000"}'}, 422, "invalid_request", "NUL"),
        ({"options": '{"a":' * 500 + "1" + "}" * 500}, 422, "invalid_request", "deep"),
        ({"architecture_options": {"num_classes": 10**9}}, 422, "invalid_options", "num_classes"),
        ({"architecture_options": {"classes": 3}}, 422, "invalid_options", "classes"),
        ({"colour": "red"}, 422, "invalid_request", "colour"),
        ({"force": "perhaps"}, 422, "invalid_request", "force"),
    ],
)
def test_wrong_requests_are_refused_in_words(client, members, status, code, word):
    answer = submit(client, **members)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert word in json.dumps(problem)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["instance"] == "/v1/conversions"
    assert client.get(problem["type"]).json()["code"] == code


def test_a_file_that_came_with_a_wrong_request_need_not_be_sent_again(client):
    form = [
        ("file", ("weights.pth", weights())),
        ("architecture", (None, "torchvision/resnet19")),
        ("target", (None, "onnx")),
    ]
    refused = client.post("/v1/conversions", files=form).json()
    assert refused["code"] == "unknown_architecture"
    assert refused["checkpoint"] == sha256(weights())
    body = {"checkpoint": refused["checkpoint"], "architecture": "torchvision/resnet18", "target": "onnx"}
    assert client.post("/v1/conversions", json=body).status_code == 202


@pytest.mark.parametrize("sha", ["ab" * 32, "ab", "../../etc/passwd", "AB" * 32])
def test_an_unknown_checkpoint_is_refused(client, sha):
    body = {"checkpoint": sha, "architecture": "torchvision/resnet18", "target": "onnx"}
    answer = client.post("/v1/conversions", json=body)
    assert answer.status_code in (404, 422)
    assert answer.json()["code"] in ("unknown_checkpoint", "invalid_request")


@pytest.mark.parametrize("identifier", ["cnv_" + "0" * 32, "nonsense", "cnv_%00", "..%2f..%2fetc", "cnv_" + "A" * 5000])
def test_conversions_that_do_not_exist(client, identifier):
    path = f"/v1/conversions/{identifier}"
    answers = [client.get(f"{path}{part}") for part in ("", "/events", "/artifact", "/bundle", "/report")]
    answers += [client.post(f"{path}/cancel"), client.post(f"{path}/retry"), client.delete(path)]
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert answer.headers["content-type"] == "application/problem+json"
        assert len(answer.json()["detail"]) < 500


def test_an_architecture_that_no_text_of_the_database_can_hold_is_refused(client):
    answer = client.get("/v1/conversions", params={"architecture": "\0"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "-1e11", "1e11"])
def test_times_at_the_end_of_all_times_are_times(client, time):
    for bound in ("created_after", "created_before"):
        assert client.get("/v1/conversions", params={bound: time}).status_code in (200, 422)
