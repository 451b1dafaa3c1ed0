"""What clients are told while the database or a stored file is away, and that it passes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.engine import make_url

from tests.api.server import Backstage, submit, weights


@contextmanager
def database_away(backstage: Backstage, maintenance_url: str) -> Iterator[None]:
    """The database takes no connections, and those that were open are gone."""
    name = make_url(backstage.database_url).database
    with psycopg.connect(maintenance_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        try:
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_without_the_database_everything_says_503_and_recovers_by_itself(client, backstage, postgres_url):
    path = submit(client).headers["location"]
    with database_away(backstage, postgres_url):
        for answer in (
            client.get(path),
            client.get("/v1/conversions"),
            client.get("/v1/architectures"),
            submit(client),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"]
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not_ready")
        assert ready.json()["checks"]["store"] == "ok"
        assert client.get("/healthz").status_code == 200
    assert client.get(path).status_code == 200
    assert client.get("/readyz").status_code == 200


def test_waiting_goes_on_after_the_database_came_back(client, backstage, postgres_url):
    path = submit(client).headers["location"]
    with database_away(backstage, postgres_url):
        time.sleep(0.5)
    backstage.finish(path.rsplit("/", 1)[-1])
    events = client.get(f"{path}/events").text
    assert "succeeded" in events


def test_a_file_that_the_store_has_lost_is_not_a_broken_download(client, backstage):
    content = weights(b"lost")
    path = submit(client, content).headers["location"]
    backstage.finish(path.rsplit("/", 1)[-1], artifact=b"soon to be lost")
    sha256 = client.get(path).json()["artifact"]["sha256"]
    (backstage.settings.data_dir / "objects" / "sha256" / sha256[:2] / sha256[2:]).unlink()
    for what in ("artifact", "bundle"):
        answer = client.get(f"{path}/{what}")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
