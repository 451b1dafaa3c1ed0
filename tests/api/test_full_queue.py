"""A queue that takes no more; a service of its own, because a full queue is full for everybody."""

import pytest

from app.settings import Settings
from tests.api.server import submit, weights


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("full") / "data", max_queued=3)


REQUEST = {"architecture": "torchvision/resnet18", "target": "onnx"}


def test_a_full_queue_says_when_to_come_back_and_answers_what_needs_no_place_in_it(client, backstage):
    known = client.post("/v1/checkpoints", content=weights(), headers={"Prefer": "wait=0"}).json()["sha256"]
    body = {**REQUEST, "checkpoint": known}
    finished = client.post("/v1/conversions", json=body).json()["id"]
    backstage.finish(finished)
    keyed = {"Idempotency-Key": "sent-before"}
    queued = [client.post("/v1/conversions", json={**body, "force": True}, headers=keyed)]
    queued += [client.post("/v1/conversions", json={**body, "force": True}) for _ in range(2)]
    assert [answer.status_code for answer in queued] == [202] * 3

    answer = client.post("/v1/conversions", json={**body, "force": True})
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
    assert answer.headers["retry-after"] == "30"
    twin = client.post("/v1/conversions", json=body)
    assert (twin.status_code, twin.json()["id"]) == (200, finished)
    replay = client.post("/v1/conversions", json={**body, "force": True}, headers=keyed)
    assert (replay.status_code, replay.json()["id"]) == (202, queued[0].json()["id"])
    other_key = client.post("/v1/conversions", json={**body, "force": True}, headers={"Idempotency-Key": "new"})
    assert other_key.status_code == 429


def test_a_full_queue_spares_the_sending_of_a_file_that_no_key_stands_for(client, backstage):
    fill = [submit(client).status_code for _ in range(4)]
    assert fill[-1] == 429
    before = backstage.stored_objects()
    refused = submit(client)
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert backstage.stored_objects() == before
