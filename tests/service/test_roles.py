"""Api and worker as two roles of one database: each part by its own command, with what it is to know and no more."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.platform.receiver import Receiver, receiving
from tests.plugins.tied import TiedLanguageModel
from tests.service.requests import artifact, convert, saved, succeeded
from tests.service.running import free_port

PLUGINS = Path(__file__).parents[1] / "plugins"
RECAST = (sys.executable, "-P", "-m", "app.cli")
PATIENCE = 240.0
OWNER, WORKER, PASSWORD = "apis", "workers", "of-the-workers"


@dataclass
class Part:
    """A command of the service, and what it has in its environment."""

    command: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RECAST_", "AWS_"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                (*RECAST, *self.command), env={**kept, **self.environment}, stdout=log, stderr=log
            )

    def ends(self) -> int:
        assert self.process
        return self.process.wait(PATIENCE)

    def says(self, words: str) -> None:
        assert self.process
        deadline = time.monotonic() + PATIENCE
        while words not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, self.log.read_text()[-4000:]
            time.sleep(0.1)


@dataclass
class Divided:
    """The parts, with the roles ``apis`` and ``workers`` on a database of theirs."""

    api: Part
    worker: Part
    migrate: Part
    url: str
    database_url: str

    def until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/readyz", timeout=10).status_code == 200:
                    return
            assert time.monotonic() < deadline, self.api.log.read_text()[-2000:] + self.worker.log.read_text()[-2000:]
            time.sleep(0.2)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@contextmanager
def owned_database(superuser_url: str) -> Iterator[str]:
    """URL of an empty database whose owner may make roles, as that owner."""
    name = f"divided_{uuid4().hex}"
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(f"create role {OWNER} login createrole password 'of-the-apis'")
        connection.execute(f"create database {name} owner {OWNER}")
        told = make_url(superuser_url).set(database=name, username=OWNER, password="of-the-apis")
        yield told.render_as_string(hide_password=False)
        connection.execute(f"drop database {name} with (force)")
        connection.execute(f"drop role if exists {WORKER}")
        connection.execute(f"drop role {OWNER}")


@pytest.fixture(scope="module")
def divided(superuser_url: str, receiver: Receiver) -> Iterator[Divided]:
    with TemporaryDirectory(prefix="recast-divided-") as directory, owned_database(superuser_url) as url:
        place, port = Path(directory), free_port()
        own = make_url(url).set(username=WORKER, password=PASSWORD).render_as_string(hide_password=False)
        both = {"RECAST_STORE_URL": str(place / "objects"), "RECAST_PLUGINS_DIR": str(PLUGINS)}
        both["RECAST_INTERNAL_HOSTS"] = '["127.0.0.1"]'
        owner = {"RECAST_DATABASE_URL": url, "RECAST_WORKER_ROLE": WORKER}
        api = {**both, **owner, "RECAST_DATA_DIR": str(place / "api"), "RECAST_PORT": str(port)}
        worker = {**both, "RECAST_DATABASE_URL": own, "RECAST_DATA_DIR": str(place / "worker")}
        worker["RECAST_WORKER_LOST_AFTER"] = "3"
        parts = Divided(
            Part(("api",), api, place / "api.log"),
            Part(("worker",), worker, place / "worker.log"),
            Part(("migrate",), {**owner, "RECAST_WORKER_ROLE_PASSWORD": PASSWORD}, place / "migrate.log"),
            f"http://127.0.0.1:{port}",
            url,
        )
        try:
            parts.migrate.start()
            assert parts.migrate.ends() == 0, parts.migrate.log.read_text()
            with psycopg.connect(url) as connection:
                connection.execute(f"revoke select on recipes from {WORKER}")  # as if it were a table of this version
            parts.worker.start()
            parts.worker.says("waiting_for_migration")
            parts.api.start()
            parts.until_ready()
            yield parts
        finally:
            for part in (parts.api, parts.worker, parts.migrate):
                if part.process:
                    part.process.kill()
                    part.process.wait()


def test_what_a_worker_of_its_own_role_converts_is_verified_reused_told_and_downloaded(
    divided: Divided, receiver: Receiver
) -> None:
    with httpx.Client(base_url=divided.url, timeout=PATIENCE) as client:
        hook = client.post("/v1/webhooks", json={"url": f"{receiver.url}/ends", "events": ["conversion.succeeded"]})
        assert hook.status_code == 201, hook.text
        first, second = (
            succeeded(convert(client, saved(TiedLanguageModel(120, 24).state_dict()), "sample/tied", "onnx"))
            for _ in range(2)
        )
        assert first["verdict"] == "pass"
        assert (first["template"]["state"], second["template"]["state"]) == ("built", "reused")
        assert artifact(client, first) != artifact(client, second)
        told = [json.loads(message.body)["data"]["id"] for message in receiver.at("/ends", 2)]
        assert set(told) == {first["id"], second["id"]}


@pytest.mark.parametrize("command", [("api",), ("keys", "create", "mine"), ("migrate",)])
def test_what_is_not_a_workers_refuses_its_role_in_words(divided: Divided, command: tuple[str, ...]) -> None:
    part = Part(command, divided.worker.environment, divided.worker.log.with_name(f"{command[0]}-refused.log"))
    part.start()
    assert part.ends() == 2
    assert "may not make or change the database's tables" in part.log.read_text()


def test_the_doctor_finds_nothing_amiss_where_a_worker_runs(divided: Divided) -> None:
    doctor = Part(("doctor",), divided.worker.environment, divided.worker.log.with_name("doctor.log"))
    doctor.start()
    doctor.ends()
    found = {line.split()[1]: line.split()[0] for line in doctor.log.read_text().splitlines() if len(line.split()) > 1}
    assert (found["database"], found["store"]) == ("ok", "ok")
