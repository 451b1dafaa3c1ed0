"""Webhooks against a receiver of their own, which knows the messages by Standard Webhooks' own library."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.domain.webhook import new_secret
from tests.jobs.service import TIMEOUT
from tests.platform.conftest import Platform
from tests.platform.receiver import Received, Receiver, receiving


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"internal_hosts": '["127.0.0.1"]', "signing_key": base64.b64encode(bytes(range(32))).decode()}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def verified(message: Received, secret: str) -> dict[str, Any]:
    told: dict[str, Any] = Webhook(secret).verify(message.body, message.headers)
    return told


def convert(client: httpx.Client, checkpoint: str, **members: Any) -> dict[str, Any]:
    asked = {"architecture": "test/net", "target": "onnx", "checkpoint": checkpoint, **members}
    answer = client.post("/v1/conversions", json=asked)
    assert answer.status_code in (200, 202), answer.text
    told: dict[str, Any] = answer.json()
    return told


def made(client: httpx.Client, url: str, **members: Any) -> dict[str, Any]:
    answer = client.post("/v1/webhooks", json={"url": url, **members})
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def ping(client: httpx.Client, webhook: dict[str, Any]) -> None:
    client.post(f"/v1/webhooks/{webhook['id']}/ping").raise_for_status()


def deliveries(client: httpx.Client, webhook: dict[str, Any], **filters: str) -> list[dict[str, Any]]:
    answer = client.get(f"/v1/webhooks/{webhook['id']}/deliveries", params=filters)
    listed: list[dict[str, Any]] = answer.json()["items"]
    return listed


def attempted(client: httpx.Client, webhook: dict[str, Any], count: int) -> dict[str, Any]:
    """The newest message, once so many attempts at it were noted."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        found = deliveries(client, webhook)[0]
        if len(found["attempts"]) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_a_project_is_told_of_every_end_and_verifies_it(client: httpx.Client, receiver: Receiver, checkpoint: str):
    path = f"/{uuid4().hex}"
    webhook = made(client, receiver.url + path)
    conversion = convert(client, checkpoint, labels={"team": "vision"}, name="first")
    (message,) = receiver.at(path, 1)
    told = verified(message, webhook["secret"])
    assert told["type"] == "conversion.succeeded"
    data = told["data"]
    assert (data["id"], data["labels"], data["name"]) == (conversion["id"], {"team": "vision"}, "first")
    resource = client.get(data["links"]["self"]).json()
    assert data["artifact"]["sha256"] == resource["artifact"]["sha256"]
    with pytest.raises(WebhookVerificationError):
        verified(message, new_secret())
    delivered = attempted(client, webhook, 1)
    assert (delivered["state"], delivered["id"]) == ("delivered", message.headers["webhook-id"])
    assert delivered["payload"] == json.loads(message.body)
    assert [attempt["status"] for attempt in delivered["attempts"]] == [204]
    client.delete(f"/v1/webhooks/{webhook['id']}").raise_for_status()
    assert client.get(f"/v1/webhooks/{webhook['id']}").status_code == 404


def test_a_request_names_a_receiver_of_its_own_and_the_events(
    client: httpx.Client, receiver: Receiver, checkpoint: str
):
    path, secret = f"/{uuid4().hex}", new_secret()
    asked = {"url": receiver.url + path, "secret": secret, "events": ["conversion.started", "conversion.failed"]}
    conversion = convert(client, checkpoint, architecture="test/refuse", webhook=asked)
    told = [verified(message, secret) for message in receiver.at(path, 2)]
    assert {one["type"] for one in told} == {"conversion.started", "conversion.failed"}
    failed = next(one for one in told if one["type"] == "conversion.failed")
    assert failed["data"]["error"]["code"] == "parity_failed"
    (listed,) = client.get("/v1/webhooks", params={"conversion": conversion["id"]}).json()["items"]
    assert listed["conversion"] == conversion["id"]
    assert secret not in json.dumps(listed)


def test_of_an_earlier_conversion_that_answers_is_told_too(client: httpx.Client, receiver: Receiver, checkpoint: str):
    client.get(convert(client, checkpoint)["links"]["self"], headers={"Prefer": "wait=60"})
    path, secret = f"/{uuid4().hex}", new_secret()
    again = convert(client, checkpoint, webhook={"url": receiver.url + path, "secret": secret})
    assert again["state"] == "succeeded"
    assert verified(receiver.at(path, 1)[0], secret)["data"]["id"] == again["id"]


def test_a_receiver_that_fails_is_sent_the_same_message_again_and_redirects_are_not_followed(
    client: httpx.Client, receiver: Receiver
):
    path = f"/{uuid4().hex}"
    receiver.answers[path] = [500, 302]
    webhook = made(client, receiver.url + path)
    ping(client, webhook)
    first, second = receiver.at(path, 2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    for message in (first, second):
        assert verified(message, webhook["secret"])["type"] == "ping"
    waiting = attempted(client, webhook, 2)
    assert (waiting["state"], waiting["attempts"][0]["status"]) == ("pending", 500)
    assert waiting["next_attempt_at"] > waiting["attempts"][1]["at"]
    client.post(f"/v1/webhooks/{webhook['id']}/deliveries/{waiting['id']}/redeliver").raise_for_status()
    assert receiver.at(path, 3)[2].headers["webhook-id"] == first.headers["webhook-id"]
    done = attempted(client, webhook, 3)
    assert [attempt["status"] for attempt in done["attempts"]] == [500, 302, 204]
    assert not [one for one in receiver.received if one.path == "/elsewhere"]


def test_the_database_alone_tells_no_secret(client: httpx.Client, receiver: Receiver, platform: Platform):
    path = f"/{uuid4().hex}"
    webhook = made(client, receiver.url + path)
    with psycopg.connect(platform.database_url) as connection:
        (kept,) = connection.execute("select secrets::text from webhooks where id = %s", [webhook["id"]]).fetchone()
        assert "sealed:" in kept
        assert webhook["secret"].removeprefix("whsec_") not in kept
        connection.execute(
            """update webhooks set secrets = jsonb_set(secrets, '{0,secret}', to_jsonb(%s::text)) where id = %s""",
            ["sealed:1:" + base64.b64encode(bytes(60)).decode(), webhook["id"]],
        )
    ping(client, webhook)  # as after the key was exchanged
    assert attempted(client, webhook, 1)["attempts"][0]["error"] == "secret_unreadable"


def test_while_a_secret_is_replaced_messages_are_signed_with_both(client: httpx.Client, receiver: Receiver):
    path = f"/{uuid4().hex}"
    webhook = made(client, receiver.url + path)
    rotated = client.post(f"/v1/webhooks/{webhook['id']}/rotate", json={"overlap": 600}).json()
    ping(client, webhook)
    (message,) = receiver.at(path, 1)
    assert verified(message, webhook["secret"]) == verified(message, rotated["secret"])
    assert len(rotated["secrets_valid_until"]) == 2
    final = client.post(f"/v1/webhooks/{webhook['id']}/rotate", json={"overlap": 0}).json()
    ping(client, webhook)
    message = receiver.at(path, 2)[1]
    verified(message, final["secret"])
    with pytest.raises(WebhookVerificationError):
        verified(message, rotated["secret"])


def test_a_receiver_that_is_gone_is_told_nothing_more(client: httpx.Client, receiver: Receiver):
    path = f"/{uuid4().hex}"
    receiver.answers[path] = [410]
    webhook = made(client, receiver.url + path)
    ping(client, webhook)
    assert attempted(client, webhook, 1)["state"] == "failed"
    assert client.get(f"/v1/webhooks/{webhook['id']}").json()["disabled_at"]


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://10.0.0.7/",
        "https://0.0.0.0/",
        "http://example.com/",
        "https://user:password@example.com/",
        "ftp://example.com/",
        "https://exa mple.com/",
        "https://",
    ],
)
def test_urls_that_lead_inside_or_tell_passwords_are_refused(client: httpx.Client, url: str):
    answer = client.post("/v1/webhooks", json={"url": url})
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in ("address_not_allowed", "invalid_request")


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "127.1"])
def test_names_that_lead_inside_are_not_connected_to(client: httpx.Client, receiver: Receiver, host: str):
    path, port = f"/{uuid4().hex}", receiver.url.rpartition(":")[2]
    webhook = made(client, f"https://{host}:{port}{path}")
    ping(client, webhook)
    assert attempted(client, webhook, 1)["attempts"][0]["error"] in ("address_not_allowed", "unknown_host", "tls")
    assert not [one for one in receiver.received if one.path == path]
    client.delete(f"/v1/webhooks/{webhook['id']}").raise_for_status()


def test_secrets_are_neither_logged_nor_repeated(client: httpx.Client, platform: Platform, checkpoint: str):
    bad = "whsec_" + "not base64!" * 3
    answer = client.post("/v1/webhooks", json={"url": "https://example.com", "secret": bad})
    assert answer.status_code == 422
    assert bad not in answer.text
    answer = client.post("/v1/webhooks", json={"url": "https://example.com", "secret": ["whsec_hidden"]})
    assert "whsec_hidden" not in answer.text
    asked = {"architecture": "test/net", "target": "onnx", "checkpoint": checkpoint}
    answer = client.post("/v1/conversions", json={**asked, "webhook": {"url": "https://example.com"}})
    assert answer.status_code == 422
    assert "secret is missing" in answer.json()["detail"]
    assert "whsec_" not in platform.worker_log.read_text()
