"""The log of a real conversion: what each exporter said of a model that it could not express."""

import json
import time

import torch

from tests.plugins.branching import Branching
from tests.plugins.tied import TiedLanguageModel
from tests.service.requests import convert, saved


def test_the_log_tells_why_every_exporter_failed_with_the_cause(client):
    torch.manual_seed(3)
    failed = convert(client, saved(Branching().state_dict()), "sample/branching", "onnx", force="true").json()
    said = client.get(f"/v1/conversions/{failed['id']}/log").text
    rungs = [rung for rung in failed["rungs"] if rung["outcome"] == "failed"] if "rungs" in failed else []
    assert "dynamo" in said
    for rung in rungs:
        assert f"{rung['exporter']} failed" in said
    assert "direct cause" in said or "another exception occurred" in said, said
    assert "/site-packages" not in said


def test_the_log_comes_as_events_that_can_be_resumed(client):
    torch.manual_seed(5)
    id = convert(client, saved(TiedLanguageModel(120, 24).state_dict()), "sample/tied", "torchscript").json()["id"]
    told = events_of(client, id)
    assert [kind for kind, _, _ in told][-1] == "end"
    assert "".join(text for _, _, text in told) == client.get(f"/v1/conversions/{id}/log").text
    (_, last, _), (_, _, ending) = told[-2:]
    assert events_of(client, id, last) == [("end", None, ending)]


def events_of(client, id, after=""):
    """Kind, id and text of every event of the log after one."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": after}
    blocks = client.get(f"/v1/conversions/{id}/log", headers=headers).text.split("\n\n")
    fields = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks if block.strip()]
    return [(each["event"], each.get("id"), json.loads(each["data"])) for each in fields]


def test_every_line_of_the_service_on_a_conversion_has_its_id_and_that_of_the_request(client, service):
    torch.manual_seed(4)
    client.headers["X-Request-ID"] = "req-of-the-log-test"
    weights = saved(TiedLanguageModel(120, 24).state_dict())
    id = convert(client, weights, "sample/tied", "onnx", force="true").json()["id"]
    client.get(f"/v1/conversions/{id}")
    deadline = time.monotonic() + 60
    while not (asked := told_of(service, id, "request")):  # written behind the answer
        assert time.monotonic() < deadline
        time.sleep(0.1)
    ended = told_of(service, id, "conversion_ended")
    assert [(line["conversion"], line["request_id"]) for line in ended] == [(id, "req-of-the-log-test")]
    assert {(line["conversion"], line["request_id"]) for line in asked} == {(id, "req-of-the-log-test")}


def told_of(service, id, event):
    """The lines of the service's log of one event on a conversion."""
    lines = [json.loads(line) for line in service.log.splitlines() if id in line]
    return [line for line in lines if line["event"] == event]


def test_what_workers_count_of_messages_and_files_shows_at_the_api(client):
    webhook = client.post("/v1/webhooks", json={"url": "https://unknown.invalid/"}).json()
    client.post(f"/v1/webhooks/{webhook['id']}/ping").raise_for_status()
    deadline = time.monotonic() + 60
    while 'recast_webhook_attempts_total{outcome="retried"}' not in client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    client.delete(f"/v1/webhooks/{webhook['id']}").raise_for_status()
