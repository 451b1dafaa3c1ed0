"""Hostile files sent to a running service: the code of each, no 5xx, nothing run, nothing left, nobody restarted."""

import httpx
import psutil
import pytest

from tests.hostile.files import HostileFile, hostile_files
from tests.service.running import Service

EVERY = 12
"""One in so many of the corpus, which tests/hostile reads whole without a service."""
ALWAYS = ("uninitialised-reduce", "long-name", "opcodes", "names-nul", "names-surrogate", "names-long", "list-bomb")
SENT = [
    hostile
    for number, hostile in enumerate(hostile_files())
    if number % EVERY == 0 or hostile.id.endswith(ALWAYS) or "namespace-after" in hostile.id
]


@pytest.fixture(scope="module")
def processes(service: Service) -> list[int]:
    """The service's own processes, before any file is sent: api, worker, database."""
    assert service.process is not None
    return [child.pid for child in psutil.Process(service.process.pid).children()]


@pytest.mark.parametrize("hostile", SENT, ids=lambda hostile: hostile.id)
def test_a_hostile_upload_gets_its_code(
    hostile: HostileFile, client: httpx.Client, service: Service, processes: list[int]
) -> None:
    canary = service.data_dir.with_name("canary")
    answer = client.post("/v1/checkpoints", content=hostile.make(canary), headers={"Prefer": "wait=120"})
    assert answer.status_code < 500
    assert answer.json().get("code") == hostile.code
    assert len(answer.content) < 1 << 20
    assert not canary.exists()


def test_the_service_is_as_it_was(client: httpx.Client, service: Service, processes: list[int]) -> None:
    assert client.get("/readyz").json()["status"] == "ready"
    assert service.process is not None
    assert {child.pid for child in psutil.Process(service.process.pid).children()} >= set(processes)
    assert not list((service.data_dir / "work").glob("worker-*/inspect-*"))
