"""A conversion's events as a stream."""

import json

import httpx

from app.domain.conversion import State
from app.domain.errors import KeyMismatch
from tests.api.server import submit


def read_events(client: httpx.Client, path: str, **headers: str) -> list[dict]:
    """All events until the stream ends."""
    events, current = [], {}
    with client.stream("GET", f"{path}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field in ("id", "event", "data"):
                current[field] = value
            elif line == "" and current:
                events.append({**current, "data": json.loads(current["data"])})
                current = {}
    return events


def test_a_stream_tells_the_whole_life_and_ends(client, backstage):
    path = submit(client).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1])
    events = read_events(client, path)
    assert [event["data"]["state"] for event in events] == ["queued", "running", "running", "succeeded"]
    assert [event["event"] for event in events] == ["state", "state", "progress", "state"]
    assert events[-1]["data"]["verdict"] == "pass"


def test_a_stream_resumes_after_the_last_event_seen(client, backstage):
    path = submit(client).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1])
    events = read_events(client, path)
    assert read_events(client, path, **{"Last-Event-ID": events[1]["id"]}) == events[2:]
    over = client.get(f"{path}/events", headers={"Last-Event-ID": events[-1]["id"]})
    assert over.status_code == 204


def test_the_error_of_an_event_is_the_problem_of_the_conversion(client, backstage):
    path = submit(client).headers["location"]
    problem = KeyMismatch("2 keys are missing.", stage="load", missing_keys=["a", "b"]).problem()
    backstage.finish(path.rsplit("/", 1)[-1], state=State.failed, problem=problem, verdict=None, artifact=None)
    events = read_events(client, path)
    assert events[0]["data"]["error"] is None
    assert events[-1]["data"]["error"] == client.get(path).json()["problem"]
    assert client.get(events[-1]["data"]["error"]["type"]).status_code == 200


def test_events_arrive_while_the_conversion_runs(client, backstage):
    path = submit(client).headers["location"]
    seen = []
    with client.stream("GET", f"{path}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: "))["state"])
                if seen == ["queued"]:
                    client.post(f"{path}/cancel")
    assert seen == ["queued", "canceled"]


def test_ids_that_are_no_ids_are_refused(client):
    path = submit(client).headers["location"]
    for nonsense in ("abc", "-1", "9" * 40, "1.5"):
        answer = client.get(f"{path}/events", headers={"Last-Event-ID": nonsense})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert client.get("/v1/conversions/cnv_" + "0" * 32 + "/events").status_code == 404
