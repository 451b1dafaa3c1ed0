"""Several conversions by one request."""

import json
from typing import Any
from uuid import uuid4

import httpx

from tests.api.server import weights

TARGETS = [{"target": "onnx", "options": {"opset": 18}}, {"target": "torchscript"}]


def asked(client: httpx.Client, path: str = "/v1/groups", **members: Any) -> httpx.Response:
    headers = {name: str(members.pop(name)) for name in ("Idempotency-Key", "Prefer") if name in members}
    return client.post(path, json={"architecture": "test/net", **members}, headers=headers)


def test_one_request_converts_a_checkpoint_to_several_targets(client: httpx.Client, checkpoint: str):
    answer = asked(client, checkpoint=checkpoint, targets=TARGETS, name="both", labels={"team": "vision"})
    assert answer.status_code == 202, answer.text
    group = client.get(answer.headers["location"], headers={"Prefer": "wait=60"}).json()
    assert group["state"] in ("succeeded", "failed")
    assert [one["target"] for one in group["conversions"]] == ["onnx", "torchscript"]
    assert {one["labels"]["team"] for one in group["conversions"]} == {"vision"}
    assert sum(group["states"].values()) == 2
    listed = client.get("/v1/groups").json()["items"]
    assert group["id"] in [one["id"] for one in listed]


def test_a_form_with_a_file_may_name_several_targets(client: httpx.Client):
    answer = client.post(
        "/v1/conversions",
        headers={"Prefer": "wait=60"},
        data={"architecture": "test/net", "targets": json.dumps(TARGETS)},
        files={"file": ("weights.pth", weights(uuid4().bytes))},
    )
    assert answer.status_code == 200, answer.text
    assert [one["target"] for one in answer.json()["conversions"]] == ["onnx", "torchscript"]


def test_several_checkpoints_are_converted_alike_and_earlier_results_answer(client: httpx.Client, checkpoint: str):
    other = client.post("/v1/checkpoints", files={"file": ("other.pth", weights(uuid4().bytes))}).json()["sha256"]
    first = asked(client, "/v1/conversions", checkpoint=checkpoint, target="onnx", Prefer="wait=60").json()
    group = asked(client, checkpoints=[checkpoint, other], target="onnx", Prefer="wait=60").json()
    assert group["state"] == "succeeded"
    assert group["conversions"][0]["id"] == first["id"]
    assert group["conversions"][1]["checkpoint"]["sha256"] == other


def test_the_same_key_gives_the_same_group_and_another_request_with_it_is_refused(
    client: httpx.Client, checkpoint: str
):
    key = uuid4().hex
    first = asked(client, checkpoint=checkpoint, targets=TARGETS, **{"Idempotency-Key": key}).json()
    again = asked(client, checkpoint=checkpoint, targets=TARGETS, **{"Idempotency-Key": key}).json()
    assert again["id"] == first["id"]
    for targets in (TARGETS[:1], TARGETS[::-1]):
        other = asked(client, checkpoint=checkpoint, targets=targets, **{"Idempotency-Key": key})
        assert other.json()["code"] == "idempotency_conflict"
    single = asked(client, "/v1/conversions", checkpoint=checkpoint, target="onnx", **{"Idempotency-Key": key})
    assert single.json()["code"] == "idempotency_conflict"


def test_a_group_is_canceled_as_one_and_accepted_whole_or_not_at_all(client: httpx.Client, checkpoint: str):
    waiting = asked(client, architecture="test/speak", checkpoint=checkpoint, targets=TARGETS).json()
    canceled = client.post(waiting["links"]["cancel"]).json()
    assert (canceled["state"], canceled["states"]) == ("failed", {"canceled": 2})
    before = client.get("/v1/conversions").json()["total"]
    refused = asked(client, checkpoints=[checkpoint, "0" * 64], target="onnx")
    assert refused.json()["code"] == "unknown_checkpoint"
    assert client.get("/v1/conversions").json()["total"] == before
    client.delete(waiting["links"]["self"]).raise_for_status()
    assert client.get(waiting["links"]["self"]).status_code == 404
    assert client.get(waiting["conversions"][0]["links"]["self"]).status_code == 200


def test_what_contradicts_itself_is_refused(client: httpx.Client, checkpoint: str):
    for members in (
        {"checkpoint": checkpoint, "targets": []},
        {"checkpoint": checkpoint, "targets": ["onnx"]},
        {"checkpoint": checkpoint, "targets": TARGETS, "target": "onnx"},
        {"checkpoint": checkpoint, "checkpoints": [checkpoint], "target": "onnx"},
        {"checkpoint": checkpoint, "target": "onnx"},
        {"checkpoint": checkpoint, "targets": [{"target": "onnx", "file": "x"}]},
        {"checkpoints": [checkpoint] * 60, "targets": TARGETS},
    ):
        assert asked(client, **members).json()["code"] == "invalid_request", members


def test_what_goes_with_one_precision_is_left_to_that_one(client: httpx.Client, checkpoint: str):
    options = {"budget": {"snr_db": 9.0}, "keep_io_types": False}
    group = asked(client, checkpoint=checkpoint, target="onnx", options=options, precisions=["fp32", "fp16", "int8"])
    one, half, eighth = (one["options"] for one in group.json()["conversions"])
    assert (one["budget"], one["keep_io_types"]) == (None, True)
    assert (half["budget"], half["keep_io_types"]) == (None, False)
    assert (eighth["budget"]["snr_db"], eighth["keep_io_types"]) == (9.0, True)
    refused = asked(client, checkpoint=checkpoint, target="onnx", options=options, precisions=["fp32", "fp16"])
    assert refused.json()["code"] == "invalid_options"


def test_precisions_of_one_checkpoint_are_priced_side_by_side(client: httpx.Client, checkpoint: str):
    asked_for = {"checkpoint": checkpoint, "target": "onnx", "options": {"opset": 18}}
    group = asked(client, **asked_for, precisions=["fp32", "fp16", "int8"], Prefer="wait=60").json()
    assert [one["options"]["precision"] for one in group["conversions"]] == ["fp32", "fp16", "int8"]
    assert all(one["options"]["measure"] == ["latency"] for one in group["conversions"])
    prices = client.get(group["links"]["prices"]).json()["items"]
    assert [price["precision"] for price in prices] == ["fp32", "fp16", "int8"]
    assert [price["id"] for price in prices] == [one["id"] for one in group["conversions"]]
    assert max(price["size"] for price in prices) == 1
    for members in (
        {"precisions": []},
        {"precisions": [16]},
        {"precisions": ["fp16"], "options": {"precision": "fp32"}},
    ):
        refused = asked(client, checkpoint=checkpoint, target="onnx", **members)
        assert refused.json()["code"] == "invalid_request", members
    assert asked(client, **{**asked_for, "options": {"budget": {"snr_db": 9}}}).json()["code"] == "invalid_options"
