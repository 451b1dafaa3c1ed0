"""What counts as success is what the request accepts: an undecided verification cannot be taken for a proof."""

import httpx
import pytest

from app.domain.report import Verdict
from tests.api.server import sha256, submit, weights
from tests.api.test_conversions import finish_when_queued


def test_an_inconclusive_conversion_is_no_success(client, backstage):
    path = submit(client).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1], verdict=Verdict.inconclusive)
    conversion = client.get(path).json()
    assert (conversion["state"], conversion["verdict"]) == ("failed", "inconclusive")
    assert conversion["problem"]["code"] == "verdict_not_accepted"
    assert conversion["accept"] == ["pass", "pass_with_notes"]
    refused = client.get(f"{path}/artifact")
    assert (refused.status_code, refused.json()["code"]) == (409, "unverified_artifact")
    assert client.get(f"{path}/artifact", params={"unverified": "true"}).status_code == 200


def test_waiting_for_an_inconclusive_conversion_answers_with_a_status_that_curl_fails_on(client, backstage):
    content = weights(b"undecided")
    worker = finish_when_queued(client, backstage, content, verdict=Verdict.inconclusive)
    answer = client.post(
        "/v1/conversions",
        headers={"Prefer": "wait=20"},
        files={"file": ("weights.pth", content)},
        data={"architecture": "torchvision/resnet18", "target": "onnx"},
    )
    worker.join()
    assert (answer.status_code, answer.json()["code"]) == (422, "verdict_not_accepted")
    assert answer.json()["conversion"]["verdict"] == "inconclusive"
    assert answer.json()["accept"] == ["pass", "pass_with_notes"]


@pytest.mark.parametrize("accept", ["inconclusive", "pass,inconclusive", "pass, pass_with_notes, inconclusive"])
def test_a_request_may_accept_it(client, backstage, accept):
    path = submit(client, accept=accept).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1], verdict=Verdict.inconclusive)
    conversion = client.get(path).json()
    assert (conversion["state"], conversion["verdict"]) == ("succeeded", "inconclusive")
    assert conversion["artifact"]["verified"] is False
    assert client.get(f"{path}/artifact").status_code == 200


def test_a_request_may_accept_less_than_usual(client, backstage):
    path = submit(client, accept="pass").headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1], verdict=Verdict.pass_with_notes)
    conversion = client.get(path).json()
    assert (conversion["state"], conversion["problem"]["code"]) == ("failed", "verdict_not_accepted")
    assert conversion["artifact"]["verified"] is True
    assert client.get(f"{path}/artifact").status_code == 200


def test_in_json_it_is_a_list_or_one_verdict(client):
    sent = client.post("/v1/checkpoints", content=weights(), headers={"Prefer": "wait=0"}).json()["sha256"]

    def ask(accept) -> httpx.Response:
        body = {"checkpoint": sent, "architecture": "torchvision/resnet18", "target": "onnx", "accept": accept}
        return client.post("/v1/conversions", json=body)

    for accept in (["inconclusive"], "inconclusive", ["pass", "inconclusive"]):
        assert ask(accept).json()["accept"] == ["pass", "pass_with_notes", "inconclusive"]
    assert ask(None).json()["accept"] == ["pass", "pass_with_notes"]
    for refused in ([], ["fail"], "good", 5, {"pass": 1}, [["pass"]], ["pass"] * 5):
        assert ask(refused).json()["code"] == "invalid_request", refused


def test_a_finished_twin_answers_only_who_accepts_its_verdict(client, backstage):
    content = weights(b"twin of another verdict")
    first = submit(client, content, accept="inconclusive").json()["id"]
    backstage.finish(first, verdict=Verdict.inconclusive)
    assert submit(client, content, accept="inconclusive").json()["id"] == first
    other = submit(client, content)
    assert (other.status_code, other.json()["id"] != first) == (202, True)
    assert other.json()["checkpoint"]["sha256"] == sha256(content)


def test_an_idempotency_key_stands_for_what_was_accepted_too(client):
    def send(accept: str) -> httpx.Response:
        fields = {"architecture": "torchvision/resnet18", "target": "onnx", "accept": accept}
        files = {"file": ("w.pth", weights(b"key and accept"))}
        return client.post("/v1/conversions", headers={"Idempotency-Key": "key-accept"}, data=fields, files=files)

    assert send("inconclusive").json()["id"] == send("pass,inconclusive").json()["id"]
    assert send("pass").json()["code"] == "idempotency_conflict"
