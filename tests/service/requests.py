"""What the tests of the service do again and again, as a client would."""

import io
from typing import Any

import httpx
import torch


def saved(checkpoint: object) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def convert(client: httpx.Client, weights: bytes, architecture: str, target: str, **fields: str) -> httpx.Response:
    """The one curl: file, architecture and target in one request that waits."""
    return client.post(
        "/v1/conversions",
        headers={"Prefer": "wait=240"},
        files={"file": ("weights.pth", weights)},
        data={"architecture": architecture, "target": target, **fields},
    )


def succeeded(answer: httpx.Response) -> dict[str, Any]:
    conversion: dict[str, Any] = answer.json()
    assert conversion.get("state") == "succeeded", answer.text
    return conversion


def artifact(client: httpx.Client, conversion: dict[str, Any]) -> bytes:
    answer = client.get(f"/v1/conversions/{conversion['id']}/artifact")
    assert answer.status_code == 200, answer.text
    return answer.content
