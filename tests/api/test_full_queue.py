"""A queue that takes no more; a service of its own, because a full queue is full for everybody."""

import pytest

from app.settings import Settings
from tests.api.server import weights


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("full") / "data", max_queued=3)


def test_a_full_queue_says_when_to_come_back(client):
    known = client.post("/v1/checkpoints", content=weights(), headers={"Prefer": "wait=0"}).json()["sha256"]
    body = {"checkpoint": known, "architecture": "torchvision/resnet18", "target": "onnx", "force": True}
    for _ in range(3):
        assert client.post("/v1/conversions", json=body).status_code == 202
    answer = client.post("/v1/conversions", json=body)
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
    assert answer.headers["retry-after"] == "30"
