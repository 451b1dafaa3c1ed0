"""Hostile files sent to a running service: the code of each, no 5xx, nothing run, nothing left, nobody restarted."""

import httpx
import psutil
import pytest

from tests.hostile.asks import HostileAsk, hostile_asks
from tests.hostile.files import HostileFile, hostile_files
from tests.service.running import Service

pytestmark = pytest.mark.slow

EVERY = 12
"""One in so many of the corpus, which tests/hostile reads whole without a service."""
ALWAYS = ("uninitialised-reduce", "long-name", "opcodes", "names-nul", "names-surrogate", "names-long", "list-bomb")
LARGE = ("names-longest", "safetensors-metadata-large", "shards-bomb", "distributions-part-of-many")
SENT = [
    hostile
    for number, hostile in enumerate(hostile_files())
    if number % EVERY == 0 or hostile.id.endswith(ALWAYS + LARGE) or "namespace-after" in hostile.id
]
ASKED = [ask for number, ask in enumerate(hostile_asks()) if number % EVERY == 0]
API_GROWTH = 64 << 20
"""Bytes that the api may have more after all of them: what it is told of a file is bounded, and it keeps none of it."""


@pytest.fixture(scope="module")
def processes(service: Service) -> dict[int, int]:
    """The service's own processes, before any file is sent, with their memory: api, worker, database."""
    assert service.process is not None
    return {child.pid: child.memory_info().rss for child in psutil.Process(service.process.pid).children()}


@pytest.mark.parametrize("hostile", SENT, ids=lambda hostile: hostile.id)
def test_a_hostile_upload_gets_its_code(
    hostile: HostileFile, client: httpx.Client, service: Service, processes: dict[int, int]
) -> None:
    canary = service.data_dir.with_name("canary")
    answer = client.post("/v1/checkpoints", content=hostile.make(canary), headers={"Prefer": "wait=120"})
    assert answer.status_code < 500
    assert answer.json().get("code") == hostile.code
    assert len(answer.content) < 1 << 20
    assert not canary.exists()


@pytest.mark.parametrize("ask", ASKED, ids=lambda ask: ask.id)
def test_a_hostile_conversion_gets_its_code(ask: HostileAsk, client: httpx.Client, processes: dict[int, int]) -> None:
    answer = ask.send(client)
    assert answer.status_code < 500
    assert (answer.json().get("code") or answer.json()["state"]) in ask.codes


def test_the_service_is_as_it_was(client: httpx.Client, service: Service, processes: dict[int, int]) -> None:
    assert client.get("/readyz").json()["status"] == "ready"
    assert service.process is not None
    assert {child.pid for child in psutil.Process(service.process.pid).children()} >= set(processes)
    api = next(pid for pid in processes if "api" in psutil.Process(pid).cmdline())
    assert psutil.Process(api).memory_info().rss < processes[api] + API_GROWTH
    assert not list((service.data_dir / "work").glob("worker-*/inspect-*"))
