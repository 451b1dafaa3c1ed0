"""Query parameters and preferences: what is not understood is refused, what may be ignored by its standard is."""

import threading
import time

import pytest

from tests.api.server import submit


@pytest.mark.parametrize(
    "path",
    [
        "/v1/conversions?stat=failed",
        "/v1/conversions?verdicts=pass",
        "/v1/architectures?q=resnet",
        "/v1/architectures/torchvision/resnet18?x=1",
        "/v1/problems?x=1",
        "/healthz?x=1",
        "/v1/checkpoints/" + "0" * 64 + "?x=",
        "/v1/conversions/cnv_" + "0" * 32 + "?unverified=true",
    ],
)
def test_unknown_query_parameters_are_refused_by_name(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["unknown_parameters"] == [path.partition("?")[2].partition("=")[0]]


def test_on_writes_too(client):
    assert client.post("/v1/checkpoints?nonsense=x", content=b"").json()["code"] == "invalid_request"


def test_state_and_status_are_one_filter(client):
    path = submit(client).headers["location"]
    client.post(f"{path}/cancel")
    for name in ("state", "status"):
        items = client.get("/v1/conversions", params={name: "canceled"}).json()["items"]
        assert items
        assert {item["state"] for item in items} == {"canceled"}
    assert client.get("/v1/conversions?state=canceled&status=canceled").status_code == 200
    assert client.get("/v1/conversions?state=failed&status=canceled").status_code == 422
    assert client.get("/v1/conversions?state=done").status_code == 422


@pytest.mark.parametrize(
    "moment",
    [
        "0.5",
        "1700000000",
        "2026-11-26",
        "2026-11-26T12:00:00",
        "10000-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "-1",
        "2026-11-26T12:00:00 00:00",
    ],
)
def test_times_that_are_not_of_rfc_3339_are_refused(client, moment):
    for bound in ("created_after", "created_before"):
        answer = client.get("/v1/conversions", params={bound: moment})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-26T12:00:00Z"])
def test_times_at_the_ends_of_what_can_be_written_are_taken(client, moment):
    assert client.get("/v1/conversions", params={"created_after": moment}).status_code == 200


@pytest.mark.parametrize("garbage", ["wait", "wait=soon", "wait=-1", ",,,", "return=minimal", "wait=" + "9" * 500])
def test_preferences_that_are_not_understood_are_ignored(client, garbage):
    path = submit(client).headers["location"]
    answer = client.get(path, headers={"Prefer": garbage})
    assert (answer.status_code, answer.headers.get("preference-applied")) == (200, None)


def test_a_get_waits_for_the_end_when_it_is_told_to(client, backstage):
    path = submit(client).headers["location"]
    worker = threading.Timer(0.3, backstage.finish, [path.rsplit("/", 1)[-1]])
    worker.start()
    answer = client.get(path, headers={"Prefer": "wait=30"})
    worker.join()
    assert (answer.json()["state"], answer.headers["preference-applied"]) == ("succeeded", "wait=30")


def test_a_wait_that_is_over_answers_with_what_is_known(client):
    path = submit(client).headers["location"]
    started = time.monotonic()
    answer = client.get(path, headers={"Prefer": "wait=1"})
    assert time.monotonic() - started >= 1
    assert (answer.json()["state"], answer.headers["retry-after"]) == ("queued", "1")


def test_last_event_ids_that_are_none_are_refused(client):
    path = submit(client).headers["location"]
    for nonsense in ("null", "-1", "1.5", "9" * 30):
        answer = client.get(f"{path}/events", headers={"Last-Event-ID": nonsense})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
