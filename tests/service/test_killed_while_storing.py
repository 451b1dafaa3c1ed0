"""kill -9 of everything at each step of taking a file in."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.plugins.tied import TiedLanguageModel
from tests.service.requests import saved
from tests.service.running import Service, free_port

pytestmark = pytest.mark.slow

STOPPING = Path(__file__).parent / "stopping"
PATIENCE = 180.0


class StoppedService:
    """A service that stops at a step of storing a file (stopping/sitecustomize.py), and is killed there."""

    def __init__(self, place: Path) -> None:
        self.order = place.with_suffix(".stop")
        settings = {"PYTHONPATH": str(STOPPING), "STOP_AT": str(self.order)}
        self.service = Service(place, free_port(), settings)
        self.place = place

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.service.url, timeout=PATIENCE)

    def stop_at(self, process: str, step: str) -> None:
        self.order.with_suffix(".reached").unlink(missing_ok=True)
        self.order.write_text(f"{process} {step}")

    def wait_until_stopped(self) -> None:
        eventually(self.order.with_suffix(".reached").exists)

    def kill_and_start(self) -> None:
        self.service.kill_everything()
        self.order.unlink(missing_ok=True)
        self.service.start()

    def has_nothing_half_done(self) -> bool:
        """Neither a file that has not become an object, nor one of an attempt that died."""
        return not os.listdir(self.place / "objects" / "incoming") and not list(self.place.glob("work/*/convert-*"))

    def object(self, sha256: str) -> Path:
        return self.place / "objects" / "sha256" / sha256[:2] / sha256[2:]


@pytest.fixture(scope="module")
def stopped(places: Path) -> Iterator[StoppedService]:
    stopped = StoppedService(places / "stopped")
    stopped.service.start()
    yield stopped
    assert stopped.service.stop() == 0, stopped.service.log[-4000:]


def test_an_upload_that_had_not_arrived_leaves_nothing(stopped: StoppedService):
    weights = weights_of(0)
    with pytest.raises(httpx.TransportError):
        _submit_until(stopped, "write", weights, lambda _: None)
    with stopped.client() as client:
        assert client.get("/v1/conversions").json()["items"] == []
        assert client.get(f"/v1/checkpoints/{sha256_of(weights)}").status_code == 404
    eventually(stopped.has_nothing_half_done)


@pytest.mark.parametrize(("seed", "step"), enumerate(["flush-file", "move", "flush-directory"], 1))
def test_a_conversion_reads_what_is_not_durable_and_nobody_is_told(stopped: StoppedService, seed: int, step: str):
    weights = weights_of(seed)

    def begun(client: httpx.Client) -> None:
        moving = step == "move"  # holds the lock of the store, at which the worker waits for it
        eventually(lambda: any(moving or one["stage"] is not None for one in conversions_of(client, weights)))

    with pytest.raises(httpx.TransportError):
        _submit_until(stopped, step, weights, begun)
    with stopped.client() as client:
        (conversion,) = conversions_of(client, weights)
        assert ended(client, conversion)["state"] == "succeeded"
        assert client.get(f"/v1/checkpoints/{sha256_of(weights)}").status_code == 200
    assert sha256_of(stopped.object(sha256_of(weights)).read_bytes()) == sha256_of(weights)
    eventually(stopped.has_nothing_half_done)


def _submit_until(
    stopped: StoppedService, step: str, weights: bytes, then: Callable[[httpx.Client], None]
) -> httpx.Response:
    """The answer to a conversion with its file, whose service was killed at ``step``, once ``then`` returned."""
    with ThreadPoolExecutor(1) as threads:
        stopped.stop_at("api", step)
        with stopped.client() as sender, stopped.client() as client:
            files = {"file": ("weights.pth", weights)}
            asked = {"architecture": "sample/tied", "target": "torchscript"}
            answer = threads.submit(sender.post, "/v1/conversions", data=asked, files=files)
            stopped.wait_until_stopped()
            then(client)
            assert not answer.done()
            stopped.kill_and_start()
            return answer.result()


def weights_of(seed: int) -> bytes:
    torch.manual_seed(seed)
    return saved(TiedLanguageModel(120, 24).state_dict())


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def conversions_of(client: httpx.Client, weights: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/conversions", params={"checkpoint": sha256_of(weights)}).json()[
        "items"
    ]
    return found


def ended(client: httpx.Client, conversion: dict[str, Any]) -> dict[str, Any]:
    path = conversion["links"]["self"]
    eventually(lambda: client.get(path).json()["state"] not in ("queued", "running"))
    found: dict[str, Any] = client.get(path).json()
    return found


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
