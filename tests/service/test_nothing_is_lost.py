"""kill -9 of the whole service, and what comes back."""

import time
from pathlib import Path

import httpx
import pytest
import torch
import torchvision

from tests.service.requests import saved, succeeded
from tests.service.running import Service, free_port

pytestmark = pytest.mark.slow


def test_a_running_conversion_survives_kill_9_of_everything(places: Path):
    service = Service(places / "killed", free_port())
    service.start()
    torch.manual_seed(0)
    weights = saved(torchvision.models.resnet18(weights=None).state_dict())
    with httpx.Client(base_url=service.url, timeout=60) as client:
        answer = client.post(
            "/v1/conversions",
            files={"file": ("weights.pth", weights)},
            data={"architecture": "torchvision/resnet18", "target": "onnx"},
        )
        assert answer.status_code == 202, answer.text
        conversion = answer.json()
        wait_for_state(client, conversion["id"], "running")
        service.kill_everything()

        service.start()
        deadline = time.monotonic() + 180
        while client.get(f"/v1/conversions/{conversion['id']}").json()["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, service.log[-4000:]
            time.sleep(0.3)
        final = succeeded(client.get(f"/v1/conversions/{conversion['id']}"))
        assert final["attempt"] == 2
        assert client.get(f"/v1/conversions/{final['id']}/artifact").status_code == 200
    assert service.stop() == 0


def wait_for_state(client: httpx.Client, conversion: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while client.get(f"/v1/conversions/{conversion}").json()["state"] != state:
        assert time.monotonic() < deadline
        time.sleep(0.05)
