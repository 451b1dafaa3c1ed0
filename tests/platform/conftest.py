"""A whole service for what platforms use: the api on a port, and a worker process whose conversions need no torch."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.settings import Settings
from tests.api.server import serving, weights
from tests.conftest import as_worker
from tests.jobs.service import TIMEOUT, TOLD, worker_processes


@dataclass(frozen=True)
class Platform:
    """The service under test, as the outside knows it, and the directory by which its conversions are told things."""

    url: str
    told: Path
    worker_log: Path
    database_url: str

    def tell(self, word: str) -> None:
        (self.told / word).touch()


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Settings of api and worker beside the usual ones; a module may have its own."""
    return {}


@pytest.fixture(scope="module")
def platform(postgres_url: str, template_database: str, settings: dict[str, str]) -> Iterator[Platform]:
    name = f"platform_{uuid4().hex}"
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with (
        TemporaryDirectory(prefix="recast-platform-") as directory,
        psycopg.connect(postgres_url, autocommit=True) as connection,
    ):
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
        place = Path(directory)
        with worker_processes(as_worker(url), place) as start:
            start(test_tasks="tests.platform.tasks", **settings)
            told = {name: json.loads(value) if value.startswith("[") else value for name, value in settings.items()}
            with serving(Settings(data_dir=place, **told), url) as address:
                _until_ready(address)
                yield Platform(address, place / TOLD, place / "worker.log", url)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _until_ready(address: str) -> None:
    async def ready() -> None:
        async with asyncio.timeout(TIMEOUT), httpx.AsyncClient(base_url=address, timeout=TIMEOUT) as client:
            while (await client.get("/v1/architectures")).json().get("total", 0) == 0:
                await asyncio.sleep(0.1)

    asyncio.run(ready())


@pytest.fixture
def client(platform: Platform) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=platform.url, timeout=TIMEOUT) as connected:
        yield connected


@pytest.fixture
def checkpoint(client: httpx.Client) -> str:
    """The sha256 of an uploaded file that no other test has."""
    content = weights(uuid4().bytes)
    answer = client.post("/v1/checkpoints", files={"file": (f"{uuid4().hex}.pth", content)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["sha256"])
