"""The signed statement over HTTP, held against the keys that the service publishes, as a stranger would."""

import base64
import hashlib
import os
import subprocess
import sys
from typing import Any
from uuid import uuid4

import httpx
import pytest
from recast_client.statement import BadSignature, signed_statement

from tests.api.server import weights


@pytest.fixture
def conversion(client: httpx.Client, checkpoint: str) -> dict[str, Any]:
    asked = {"architecture": "test/net", "target": "onnx", "checkpoint": checkpoint, "force": True}
    answer = client.post("/v1/conversions", json=asked, headers={"Prefer": "wait=60"})
    assert answer.json()["state"] == "succeeded", answer.text
    told: dict[str, Any] = answer.json()
    return told


def keys(client: httpx.Client) -> list[str]:
    return [key["public"] for key in client.get("/.well-known/recast-key").json()["keys"]]


def test_a_statement_is_signed_by_a_published_key_and_is_about_the_artifact(client: httpx.Client, conversion):
    answer = client.get(conversion["links"]["statement"])
    assert answer.headers["etag"]
    artifact = client.get(conversion["links"]["artifact"]).content
    sha256 = hashlib.sha256(artifact).hexdigest()
    statement = signed_statement(answer.content, keys(client), sha256)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert conversion["verdict"] in str(statement["predicate"])
    assert conversion["checkpoint"]["sha256"] in str(statement["predicate"])
    other = base64.b64encode(os.urandom(32)).decode()
    for wrong, about in (([other], sha256), (keys(client), "0" * 64)):
        with pytest.raises((BadSignature, ValueError)):
            signed_statement(answer.content, wrong, about)


def test_the_published_key_is_named_as_signatures_name_it_and_stays(client: httpx.Client, conversion):
    (key,) = client.get("/.well-known/recast-key").json()["keys"]
    raw = base64.b64decode(key["public"])
    assert (key["algorithm"], len(raw)) == ("ed25519", 32)
    assert key["keyid"] == hashlib.sha256(raw).hexdigest()
    envelope = client.get(conversion["links"]["statement"]).json()
    assert [signature["keyid"] for signature in envelope["signatures"]] == [key["keyid"]]


def test_what_has_no_statement_is_said_to_have_none(client: httpx.Client):
    sha256 = client.post("/v1/checkpoints", files={"file": ("a.pth", weights(uuid4().bytes))}).json()["sha256"]
    asked = {"architecture": "test/speak", "target": "onnx", "checkpoint": sha256}
    waiting = client.post("/v1/conversions", json=asked).json()
    assert waiting["links"]["statement"] is None
    missing = client.get(f"/v1/conversions/{waiting['id']}/statement")
    assert (missing.status_code, missing.json()["code"]) == (409, "not_ready")
    client.post(waiting["links"]["cancel"]).raise_for_status()


def test_the_command_line_prints_what_a_conversion_said(client: httpx.Client, platform, conversion):
    command = [sys.executable, "-m", "app.cli", "logs", conversion["id"], "--server", platform.url]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout == client.get(f"/v1/conversions/{conversion['id']}/log").text
    assert printed.stdout.strip()
