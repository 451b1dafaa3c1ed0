"""What a request may say of its turn and its time."""

import pytest

from tests.api.server import submit


def test_a_conversion_keeps_its_priority_and_its_time(client):
    made = submit(client, priority=7, timeout=90.5).json()
    assert (made["priority"], made["timeout"]) == (7, 90.5)
    plain = submit(client).json()
    assert (plain["priority"], plain["timeout"]) == (0, None)


@pytest.mark.parametrize(
    "members",
    [{"priority": value} for value in (101, -101, "high", 0.5, [1], "1e3")]
    + [{"timeout": value} for value in (0, -1, 1801, "soon", "nan", "inf")],
)
def test_a_priority_or_time_that_cannot_be_had_is_refused(client, members):
    answer = submit(client, **members)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "must be" in answer.json()["detail"]


def test_another_priority_is_another_request_for_a_key(client):
    known = submit(client).json()["checkpoint"]["sha256"]
    body = {"architecture": "torchvision/resnet18", "target": "onnx", "checkpoint": known, "force": True}
    key = {"Idempotency-Key": "turns"}
    first, same, other = [
        client.post("/v1/conversions", json={**body, "priority": priority}, headers=key) for priority in (1, 1, 2)
    ]
    assert first.json()["id"] == same.json()["id"]
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
